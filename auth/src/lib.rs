//! notifyx-auth

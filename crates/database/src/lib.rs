//! notifyx-database

//! notifyx-chassis

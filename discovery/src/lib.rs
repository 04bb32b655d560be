//! notifyx-discovery

//! notifyx-wire

//! notifyx-counter-2pc

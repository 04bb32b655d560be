//! notifyx-batch

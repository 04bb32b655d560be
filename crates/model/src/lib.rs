//! notifyx-model

//! notifyx-persist

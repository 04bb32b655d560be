//! notifyx-gateway

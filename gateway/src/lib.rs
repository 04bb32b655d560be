//! notifyx-gateway

pub mod platform;

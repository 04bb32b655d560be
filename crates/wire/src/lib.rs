//! What travels between processes: Phoenix frames, REST bodies, gRPC messages, headers, the trace context.
//!
//! Shapes only. Nothing here opens a socket or decides anything.

pub mod grpc;
pub mod header;
pub mod json;
pub mod phoenix;
pub mod query;
pub mod rest;
pub mod trace;
pub mod websocket;

//! What travels between processes: Phoenix frames, REST bodies, gRPC messages, headers, the trace context.
//!
//! Shapes only. Nothing here opens a socket or decides anything.

pub mod grpc;
pub mod header;
pub mod phoenix;
pub mod rest;
pub mod trace;
pub mod websocket;

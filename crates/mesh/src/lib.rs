//! How services reach each other: who is there, whom to ask, for how long, and what follows from a failure.
//!
//! [`Mesh`] calls a service by name, over HTTP or gRPC: round robin over its live instances, a breaker per instance, a deadline on every
//! call, retries within a budget where a second try does no harm. [`Lease`] keeps an instance in the registry,
//! [`Sessions`] knows whose a token is, [`Bus`] carries hints between gateways. No business rule lives here.

mod breaker;
mod budget;
mod bus;
mod call;
mod config;
mod error;
mod instances;
mod lease;
mod mesh;
mod metrics;
mod place;
mod pool;
mod registry;
mod revoked;
mod rpc;
mod sessions;
mod table;
mod transport;

pub use breaker::State as BreakerState;
pub use bus::{Bus, BusReceiver};
pub use call::{Answer, Call};
pub use config::MeshConfig;
pub use error::CallError;
pub use instances::{Instances, Peer};
pub use lease::Lease;
pub use mesh::{InstanceSnapshot, Mesh, Snapshot};
pub use place::Place;
pub use rpc::{Line, Rpc};
pub use sessions::Sessions;

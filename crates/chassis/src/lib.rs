//! How a service runs: what it is given, its door, who may enter, what every door answers, and how it stops.
//!
//! A service's `start` builds a [`Door`] from its routes and gets a [`Running`] back; health, readiness, metrics, status,
//! tracing, error answers and the orderly end are here, once for all.

mod caller;
pub mod config;
pub mod connections;
mod context;
mod description;
mod door;
mod inner;
mod json;
mod query;
pub mod reply;
mod request;
mod running;
mod sampled;
mod scoped;
mod shared;
pub mod telemetry;

pub use caller::{Anyone, Caller, Denied, Identify, Unavailable, User, client_address};
pub use context::{Cluster, Context};
pub use description::Schemes;
pub use door::{Door, Parts, batch_bodies, grpc};
pub use json::{ByHand, Json, Unparsed, UnparsedMax};
pub use query::Query;
pub use reply::Failure;
pub use request::observe;
pub use running::{Running, StartError};
pub use scoped::Scoped;
pub use shared::Shared;

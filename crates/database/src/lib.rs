//! Where a service keeps what it knows: pools, the choice of backend, migrations, how columns
//! become numbers and types, trying again what gave way, the conformance runner.
//!
//! SQL itself lives with its owner: each service writes its statements out per backend.

pub mod column;
mod error;
mod open;
mod patience;
mod sqlite;
#[cfg(feature = "testing")]
pub mod testing;
mod url;

pub use error::{Error, OpenError};
pub use open::{Database, Migrations, Options};
pub use patience::again;
pub use sqlite::{Sqlite, Transaction};
pub use url::DatabaseUrl;

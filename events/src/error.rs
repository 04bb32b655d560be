//! What can go wrong in events, and what kind of trouble it is for the caller.

use std::sync::Arc;

use notifyx_batch::Rejected;
use notifyx_model::{Fault, Kind};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Database(#[from] notifyx_database::Error),
    #[error(transparent)]
    Queue(#[from] Rejected),
    /// What failed, failed for all that shared its transaction.
    #[error(transparent)]
    Shared(Arc<Error>),
    /// The store holds what this binary never wrote.
    #[error("a stored {what} is not valid: {why}")]
    Stored { what: &'static str, why: String },
}

/// Statements fail as [`sqlx::Error`]; what a caller can do about it is the database's to say.
impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error.into())
    }
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Database(error) => error.kind(),
            Self::Queue(rejected) => rejected.kind(),
            Self::Shared(error) => error.kind(),
            Self::Stored { .. } => Kind::Internal,
        }
    }

    fn code(&self) -> &str {
        match self {
            Self::Database(error) => error.code(),
            Self::Queue(rejected) => rejected.code(),
            Self::Shared(error) => error.code(),
            Self::Stored { .. } => "store_broken",
        }
    }
}

//! What can go wrong in the counter, and what kind of trouble it is for the caller.

use std::time::Duration;

use notifyx_commit::participant::Refusal;
use notifyx_mesh::CallError;
use notifyx_model::{Fault, Kind, TopicId};
use notifyx_wire::rest::commit::BATCH_MAX;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("a user's counter is that user's own: use your own id")]
    ForeignCounter,
    #[error("only the creator of topic {0} may raise its counter by hand")]
    NotCreator(TopicId),
    #[error("topic {0} not found")]
    TopicNotFound(TopicId),
    #[error("who created the topic cannot be found out now")]
    Topics(#[source] CallError),
    #[error("the batch has {0} items, more than {BATCH_MAX}: send it in parts")]
    BatchTooLarge(usize),
    #[error("name the transaction: `request_id` in the body or in the query")]
    NoRequestId,
    #[error(transparent)]
    Transaction(#[from] Refusal),
    #[error(transparent)]
    Database(#[from] notifyx_database::Error),
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
            Self::ForeignCounter | Self::NotCreator(_) => Kind::Forbidden,
            Self::TopicNotFound(_) => Kind::NotFound,
            Self::Topics(_) => Kind::Unavailable,
            Self::BatchTooLarge(_) => Kind::TooLarge,
            Self::NoRequestId => Kind::Invalid,
            Self::Transaction(refusal) => refusal.kind(),
            Self::Database(error) => error.kind(),
        }
    }

    fn code(&self) -> &str {
        match self {
            Self::ForeignCounter => "counter_foreign",
            Self::NotCreator(_) => "not_creator",
            Self::TopicNotFound(_) => "topic_not_found",
            Self::Topics(_) => "topics_unavailable",
            Self::BatchTooLarge(_) => "batch_too_large",
            Self::NoRequestId => "request_id_missing",
            Self::Transaction(refusal) => refusal.code(),
            Self::Database(error) => error.code(),
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Database(error) => error.retry_after(),
            Self::Topics(_) => Some(Duration::from_secs(1)),
            Self::ForeignCounter
            | Self::NotCreator(_)
            | Self::TopicNotFound(_)
            | Self::BatchTooLarge(_)
            | Self::NoRequestId
            | Self::Transaction(_) => None,
        }
    }
}

//! What can go wrong in events, and what kind of trouble it is for the caller.

use std::sync::Arc;

use notifyx_batch::Rejected;
use notifyx_model::{Category, EventId, Fault, Invalid, Kind};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Database(#[from] notifyx_database::Error),
    #[error(transparent)]
    Queue(#[from] Rejected),
    /// What failed, failed for all that shared its transaction.
    #[error(transparent)]
    Shared(Arc<Error>),
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error("event `{0}` not found")]
    EventNotFound(EventId),
    #[error("event `{id}` has fired: it is in the log of category `{category}` at offset {offset}")]
    EventFired { id: EventId, category: Category, offset: u64 },
    #[error("{most} events wait, as many as may: cancel some, or come back when some have fired")]
    ScheduleFull { most: u64 },
    #[error("event id `{0}` is used in more than one category: name the category")]
    IdAmbiguous(EventId),
    #[error("recurring schedule `{0}` not found")]
    ScheduleNotFound(EventId),
    #[error("recurring schedule `{0}` has finished: nothing comes any more")]
    ScheduleFinished(EventId),
    #[error("recurring schedule `{0}` exists with another rule: take another id, or delete it first")]
    ScheduleMismatch(EventId),
    #[error("recurring schedule `{0}` was changed by others meanwhile: try again")]
    ScheduleBusy(EventId),
    #[error("consumer `{name}` follows category `{category}` already: take another name")]
    ConsumerElsewhere { name: String, category: Category },
    #[error("consumer `{0}` not found: it has to be acquired first")]
    ConsumerNotFound(String),
    #[error("consumer `{name}` was taken by `{holder}` since: stop, or acquire it again")]
    ConsumerLost { name: String, holder: String },
    #[error("position {position} is beyond the log, which ends at offset {head}")]
    BeyondHead { position: u64, head: u64 },
    #[error("the store did not answer in time")]
    Silent,
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
            Self::Invalid(_) | Self::BeyondHead { .. } => Kind::Invalid,
            Self::EventNotFound(_) | Self::ScheduleNotFound(_) | Self::ConsumerNotFound(_) => Kind::NotFound,
            Self::EventFired { .. }
            | Self::IdAmbiguous(_)
            | Self::ScheduleFinished(_)
            | Self::ConsumerElsewhere { .. }
            | Self::ConsumerLost { .. } => Kind::Conflict,
            Self::ScheduleMismatch(_) => Kind::Mismatch,
            Self::ScheduleFull { .. } => Kind::TooMany,
            Self::ScheduleBusy(_) => Kind::Unavailable,
            Self::Silent => Kind::Timeout,
        }
    }

    fn code(&self) -> &str {
        match self {
            Self::Database(error) => error.code(),
            Self::Queue(rejected) => rejected.code(),
            Self::Shared(error) => error.code(),
            Self::Invalid(_) => "schedule_invalid",
            Self::BeyondHead { .. } => "event_invalid",
            Self::EventNotFound(_) => "event_not_found",
            Self::EventFired { .. } => "event_fired",
            Self::ScheduleFull { .. } => "schedule_full",
            Self::IdAmbiguous(_) => "id_ambiguous",
            Self::ScheduleNotFound(_) => "schedule_not_found",
            Self::ScheduleFinished(_) => "schedule_finished",
            Self::ScheduleMismatch(_) => "schedule_mismatch",
            Self::ScheduleBusy(_) => "schedule_busy",
            Self::ConsumerElsewhere { .. } => "consumer_elsewhere",
            Self::ConsumerNotFound(_) => "consumer_not_found",
            Self::ConsumerLost { .. } => "consumer_lost",
            Self::Silent => "store_silent",
        }
    }
}

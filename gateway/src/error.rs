//! What can go wrong in the gateway itself. What the services behind it refuse passes through as they said it.

use notifyx_batch::Rejected;
use notifyx_chassis::Denied;
use notifyx_mesh::CallError;
use notifyx_model::{EventId, Fault, Gid, Invalid, Kind, RECIPIENTS_MAX, TopicName};

use crate::access::Barred;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Call(#[from] CallError),
    /// A participant's no to a publish: it was looked at, and is refused for good.
    #[error(transparent)]
    Declined(CallError),
    #[error("name the topic: either `topic` (its name) or `topic_id`, not both")]
    WhichTopic,
    #[error("topic `{0}` not found: a topic is created by joining it, or with POST /api/topics")]
    TopicNotFound(TopicName),
    #[error("only the creator of topic `{0}` publishes to it")]
    NotCreator(TopicName),
    #[error("{count} recipients are more than {RECIPIENTS_MAX}: a larger audience is a topic of its own")]
    TooManyRecipients { count: usize },
    #[error("recipient `{0}` is neither a user id nor the e-mail address of a user")]
    UnknownRecipient(String),
    #[error("{0}")]
    Invalid(#[from] Invalid),
    #[error("an idempotency key has 1 to 255 bytes and no control characters; in a header they are visible ASCII")]
    BadKey,
    #[error("this key was used before for another request: take a new key")]
    KeyReused,
    #[error("the notification was not published ({reason}); the same request may be sent again")]
    Aborted { reason: String },
    #[error("the notification could not be taken now ({reason}): send the same request again")]
    NotBegun { reason: String },
    #[error("transaction `{0}` not found")]
    TransactionNotFound(Gid),
    #[error("transaction `{0}` is closed: nothing is left to do about it")]
    TransactionClosed(Gid),
    #[error("transaction `{0}` is not quarantined: it is finished without an operator")]
    NotQuarantined(Gid),
    #[error("transaction `{0}` is not decided yet: whoever began it, or recovery after it, decides within seconds")]
    NotDecided(Gid),
    #[error("scheduled notification `{0}` not found: it was cancelled, or is too old to be kept")]
    ScheduledNotFound(EventId),
    #[error("the time of scheduled notification `{0}` has come: it cannot be changed any more")]
    ScheduledFired(EventId),
    #[error(
        "as JSON the notification and its recipients have {bytes} bytes, more than the {most} that can wait for later"
    )]
    ScheduledTooLarge { bytes: usize, most: usize },
    #[error("what is stored is no scheduled notification")]
    BadScheduled(#[source] serde_json::Error),
    #[error("limit {limit} is not 1 to {most}")]
    BadLimit { limit: u32, most: u32 },
    #[error("{0}")]
    NoEvents(&'static str),
    #[error("the array holds more than 10,000 events: send them in parts")]
    TooManyEvents,
    #[error("{0}")]
    EventInvalid(Invalid),
    #[error("event `{0}` not found")]
    EventNotFound(EventId),
    #[error("after is not an offset: it is the `next` of the page before, or a whole number")]
    BadOffset,
    #[error("after is not the `next` of a page of this list: begin without it")]
    BadCursor,
    #[error("`key` is asked of what waits: add `state=scheduled` (the log is read by offset)")]
    KeyOfLog,
    #[error("{0}")]
    WhichRule(&'static str),
    #[error("{0}")]
    ScheduleInvalid(Invalid),
    #[error("recurring schedule `{0}` not found")]
    ScheduleNotFound(EventId),
    #[error(transparent)]
    Denied(#[from] Denied),
    #[error(transparent)]
    Barred(#[from] Barred),
    /// Of a call that changes something.
    #[error("{error}: whether it took effect is not known; {then}")]
    Unclear { error: CallError, then: &'static str },
    #[error("the store of transactions failed")]
    Store(#[from] notifyx_commit::StoreError),
    #[error("the gateway is busy: {0}")]
    Busy(#[from] Rejected),
}

impl Error {
    /// What failed was to list: services call a cursor what is `after` at our doors.
    pub(crate) fn of_list(error: CallError) -> Self {
        match error {
            CallError::Refused(problem, _) if problem.code == "cursor_invalid" => Self::BadCursor,
            error => Self::Call(error),
        }
    }

    /// What failed was to change something: `then` says what to do where it is not known whether it did.
    pub(crate) fn of_change(error: CallError, then: &'static str) -> Self {
        match error {
            CallError::Cut { .. } => Self::Unclear { error, then },
            error if error.kind() == Kind::Timeout => Self::Unclear { error, then },
            error => Self::Call(error),
        }
    }
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Call(error) | Self::Declined(error) | Self::Unclear { error, .. } => error.kind(),
            Self::Denied(denied) => denied.kind(),
            Self::Barred(barred) => barred.kind(),
            Self::Busy(rejected) => rejected.kind(),
            Self::NoEvents(_)
            | Self::TooManyEvents
            | Self::EventInvalid(_)
            | Self::BadOffset
            | Self::BadCursor
            | Self::KeyOfLog
            | Self::WhichRule(_)
            | Self::ScheduleInvalid(_)
            | Self::WhichTopic
            | Self::Invalid(_)
            | Self::BadKey
            | Self::TooManyRecipients { .. }
            | Self::BadLimit { .. } => Kind::Invalid,
            Self::TopicNotFound(_)
            | Self::TransactionNotFound(_)
            | Self::EventNotFound(_)
            | Self::ScheduleNotFound(_)
            | Self::ScheduledNotFound(_) => Kind::NotFound,
            Self::NotCreator(_) => Kind::Forbidden,
            Self::UnknownRecipient(_)
            | Self::TransactionClosed(_)
            | Self::NotQuarantined(_)
            | Self::NotDecided(_)
            | Self::ScheduledFired(_) => Kind::Conflict,
            Self::ScheduledTooLarge { .. } => Kind::TooLarge,
            Self::BadScheduled(_) => Kind::Internal,
            Self::KeyReused => Kind::Mismatch,
            Self::Aborted { .. } | Self::NotBegun { .. } | Self::Store(_) => Kind::Unavailable,
        }
    }

    fn code(&self) -> &str {
        match self {
            Self::Call(error) | Self::Declined(error) | Self::Unclear { error, .. } => error.code(),
            Self::NoEvents(_) => "no_events",
            Self::TooManyEvents => "too_many_events",
            Self::EventInvalid(_) => "event_invalid",
            Self::EventNotFound(_) => "event_not_found",
            Self::BadOffset | Self::BadCursor => "cursor_invalid",
            Self::KeyOfLog => "query_invalid",
            Self::WhichRule(_) | Self::ScheduleInvalid(_) => "schedule_invalid",
            Self::ScheduleNotFound(_) => "schedule_not_found",
            Self::Denied(denied) => denied.code(),
            Self::Barred(barred) => barred.code(),
            Self::WhichTopic => "topic_missing",
            Self::TopicNotFound(_) => "topic_not_found",
            Self::NotCreator(_) => "not_creator",
            Self::TooManyRecipients { .. } => "too_many_recipients",
            Self::UnknownRecipient(_) => "recipient_unknown",
            Self::Invalid(_) => "invalid",
            Self::BadKey => "idempotency_key_invalid",
            Self::KeyReused => "idempotency_key_reused",
            Self::Aborted { .. } => "aborted",
            Self::NotBegun { .. } => "not_begun",
            Self::TransactionNotFound(_) => "transaction_not_found",
            Self::TransactionClosed(_) => "transaction_closed",
            Self::NotQuarantined(_) => "not_quarantined",
            Self::NotDecided(_) => "not_decided",
            Self::ScheduledNotFound(_) => "scheduled_not_found",
            Self::ScheduledFired(_) => "scheduled_fired",
            Self::ScheduledTooLarge { .. } => "scheduled_too_large",
            Self::BadScheduled(_) => "scheduled_broken",
            Self::BadLimit { .. } => "limit_invalid",
            Self::Store(_) => "store_unavailable",
            Self::Busy(rejected) => rejected.code(),
        }
    }

    fn retry_after(&self) -> Option<std::time::Duration> {
        match self {
            Self::Call(error) | Self::Declined(error) | Self::Unclear { error, .. } => error.retry_after(),
            _ => matches!(self.kind(), Kind::Unavailable).then_some(std::time::Duration::from_secs(1)),
        }
    }
}

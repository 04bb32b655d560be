//! What can go wrong in persist, and what kind of trouble it is for the caller.

use notifyx_commit::participant::Refusal;
use notifyx_model::{Fault, Invalid, Kind, NotificationId, RECIPIENTS_MAX, TopicId, TopicName, UserId};

use crate::topics::LONGEVITY_S;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("topic {0} not found")]
    TopicNotFound(TopicId),
    #[error("topic `{0}` not found")]
    NameNotFound(TopicName),
    #[error("topic `{0}` exists already: choose another name, or join it")]
    NameTaken(TopicName),
    #[error("topic `{0}` is inactive and takes no notifications")]
    Inactive(TopicName),
    #[error("only the creator of topic `{0}` may do that")]
    NotCreator(TopicName),
    #[error("only the creator and the subscribers of topic `{0}` may see who they are")]
    Outsider(TopicName),
    #[error("not subscribed to topic {0}: subscribe first")]
    NotSubscribed(TopicId),
    #[error("user {user} is not a subscriber of topic `{topic}`: nothing was sent")]
    Stranger { user: UserId, topic: TopicName },
    #[error("{0} recipients are more than {RECIPIENTS_MAX}: make a topic for them")]
    TooManyRecipients(usize),
    #[error("notification {0} not found among yours")]
    NotificationNotFound(NotificationId),
    #[error("notification id {0} is taken by another transaction")]
    NotificationIdTaken(NotificationId),
    #[error("a user may subscribe to {0} topics at most: unsubscribe from some first")]
    TooManySubscriptions(u32),
    #[error("a user may create {0} topics at most")]
    TooManyTopics(u32),
    #[error(
        "{0} notifications of this topic were seen out of order, which is the most that is kept: \
         mark all up to an offset as seen (`POST /api/topics/{{id}}/seen?up_to=OFFSET`)"
    )]
    TooManyExceptions(u32),
    #[error("a longevity of {0} s is not {min} to {max}", min = LONGEVITY_S.start(), max = LONGEVITY_S.end())]
    Longevity(u64),
    #[error("name the transaction: `request_id` in the body or in the query")]
    NoRequestId,
    #[error("a `request_id` belongs to a prepare: set `is_2pc_locked`, or leave it out")]
    NotAPrepare,
    #[error("the batch has {count} items, more than {max}: send it in parts")]
    BatchTooLarge { count: usize, max: usize },
    #[error(transparent)]
    Invalid(#[from] Invalid),
    #[error("a limit of {limit} is not 1 to {max}")]
    Limit { limit: u32, max: u32 },
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
            Self::TopicNotFound(_) | Self::NameNotFound(_) | Self::NotSubscribed(_) | Self::NotificationNotFound(_) => {
                Kind::NotFound
            }
            Self::NotCreator(_) | Self::Outsider(_) => Kind::Forbidden,
            Self::NameTaken(_)
            | Self::Inactive(_)
            | Self::Stranger { .. }
            | Self::NotificationIdTaken(_)
            | Self::TooManySubscriptions(_)
            | Self::TooManyTopics(_)
            | Self::TooManyExceptions(_) => Kind::Conflict,
            Self::TooManyRecipients(_)
            | Self::Longevity(_)
            | Self::Invalid(_)
            | Self::Limit { .. }
            | Self::NoRequestId
            | Self::NotAPrepare => Kind::Invalid,
            Self::BatchTooLarge { .. } => Kind::TooLarge,
            Self::Transaction(refusal) => refusal.kind(),
            Self::Database(error) => error.kind(),
        }
    }

    fn code(&self) -> &str {
        match self {
            Self::TopicNotFound(_) | Self::NameNotFound(_) => "topic_not_found",
            Self::NameTaken(_) => "topic_name_taken",
            Self::Inactive(_) => "topic_inactive",
            Self::NotCreator(_) => "not_creator",
            Self::Outsider(_) | Self::NotSubscribed(_) => "not_subscribed",
            Self::Stranger { .. } => "recipient_not_subscribed",
            Self::TooManyRecipients(_) => "too_many_recipients",
            Self::NotificationNotFound(_) => "notification_not_found",
            Self::NotificationIdTaken(_) => "notification_id_taken",
            Self::TooManySubscriptions(_) => "too_many_subscriptions",
            Self::TooManyTopics(_) => "too_many_topics",
            Self::TooManyExceptions(_) => "too_many_exceptions",
            Self::Longevity(_) => "longevity_invalid",
            Self::NoRequestId => "request_id_missing",
            Self::NotAPrepare => "request_id_unexpected",
            Self::BatchTooLarge { .. } => "batch_too_large",
            Self::Invalid(_) => "invalid",
            Self::Limit { .. } => "limit_invalid",
            Self::Transaction(refusal) => refusal.code(),
            Self::Database(error) => error.code(),
        }
    }
}

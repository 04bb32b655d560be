//! What a session refuses by itself. What the platform refuses passes through as it said it.

use std::time::Duration;

use notifyx_chassis::reply;
use notifyx_model::{Invalid, Kind, UserId};
use notifyx_wire::rest::Problem;

use crate::hub::FeedStopped;

#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("event `{event}` is not known in channel `{topic}`")]
    UnknownEvent { event: String, topic: String },
    #[error("the payload is not what `{event}` takes: {source}")]
    BadPayload {
        event: &'static str,
        #[source]
        source: serde_json::Error,
    },
    #[error("the payload of `{0}` must be JSON, not binary")]
    BinaryPayload(&'static str),
    #[error("{0}")]
    BadTopic(#[from] Invalid),
    #[error("channel `user:{0}` is another user's")]
    NotYours(UserId),
    #[error(
        "channel `{0}` is for users: a socket that was opened with an API key, or without credentials, joins `events:` channels only"
    )]
    UsersOnly(String),
    #[error("`{0}` is not available yet")]
    NotAvailable(&'static str),
    #[error("{waiting} messages of this socket are waiting already: await replies before sending more")]
    TooMany { waiting: usize },
    #[error("no answer came within {} s", .0.as_secs())]
    Late(Duration),
    #[error("the gateway is about to stop")]
    Stopping,
    #[error("a call to the platform broke off")]
    Broken(#[source] tokio::task::JoinError),
    #[error("the topic's log ends at {reached}, before {expected}")]
    LogTooShort { reached: u64, expected: u64 },
}

impl notifyx_model::Fault for Fault {
    fn kind(&self) -> Kind {
        match self {
            Self::UnknownEvent { .. } | Self::BadPayload { .. } | Self::BinaryPayload(_) | Self::BadTopic(_) => {
                Kind::Invalid
            }
            Self::NotYours(_) | Self::UsersOnly(_) => Kind::Forbidden,
            Self::TooMany { .. } => Kind::TooMany,
            Self::NotAvailable(_) | Self::Stopping => Kind::Unavailable,
            Self::Late(_) => Kind::Timeout,
            Self::Broken(_) | Self::LogTooShort { .. } => Kind::Internal,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::UnknownEvent { .. } => "unknown_event",
            Self::BadPayload { .. } | Self::BinaryPayload(_) => "payload_invalid",
            Self::BadTopic(_) => "topic_invalid",
            Self::NotYours(_) => "unauthorized",
            Self::UsersOnly(_) => "users_only",
            Self::NotAvailable(_) => "not_available",
            Self::TooMany { .. } => "too_many_requests",
            Self::Late(_) => "timeout",
            Self::Stopping => "stopping",
            Self::Broken(_) | Self::LogTooShort { .. } => "internal",
        }
    }
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        reply::problem(&fault)
    }
}

impl From<FeedStopped> for Fault {
    fn from(FeedStopped: FeedStopped) -> Self {
        Self::Stopping
    }
}

//! What a session refuses by itself. What the platform refuses passes through as it said it.

use notifyx_chassis::reply;
use notifyx_model::{Invalid, Kind, UserId};
use notifyx_wire::{json::Unfit, rest::Problem};

use crate::access::Barred;

#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("event `{event}` is not known in channel `{topic}`")]
    UnknownEvent { event: String, topic: String },
    #[error("the payload is not what `{event}` takes: {source}")]
    BadPayload { event: &'static str, source: Unfit },
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
    #[error(transparent)]
    Barred(#[from] Barred),
    #[error("`{0}` is not available yet")]
    NotAvailable(&'static str),
    #[error("{waiting} messages of this socket are waiting already: await replies before sending more")]
    TooMany { waiting: usize },
}

impl notifyx_model::Fault for Fault {
    fn kind(&self) -> Kind {
        match self {
            Self::UnknownEvent { .. } | Self::BadPayload { .. } | Self::BinaryPayload(_) | Self::BadTopic(_) => {
                Kind::Invalid
            }
            Self::NotYours(_) | Self::UsersOnly(_) => Kind::Forbidden,
            Self::Barred(barred) => barred.kind(),
            Self::TooMany { .. } => Kind::TooMany,
            Self::NotAvailable(_) => Kind::Unavailable,
        }
    }

    fn code(&self) -> &str {
        match self {
            Self::UnknownEvent { .. } => "unknown_event",
            Self::BadPayload { .. } | Self::BinaryPayload(_) => "payload_invalid",
            Self::BadTopic(_) => "topic_invalid",
            Self::NotYours(_) => "unauthorized",
            Self::UsersOnly(_) => "users_only",
            Self::Barred(barred) => barred.code(),
            Self::NotAvailable(_) => "not_available",
            Self::TooMany { .. } => "too_many_requests",
        }
    }
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        reply::problem(&fault)
    }
}

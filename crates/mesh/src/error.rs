//! How a call can end without the answer that was hoped for.

use std::time::Duration;

use notifyx_model::{Fault, Kind};
use notifyx_wire::rest::Problem;

/// Cheap enough to clone: one failed call may be the answer to a whole batch.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum CallError {
    /// No instance is known, every breaker rejects, or no connection came about. Nothing was sent.
    #[error("the service `{service}` cannot be reached now")]
    Unreachable { service: &'static str },
    /// The deadline passed. Whether the call took effect is not known.
    #[error("the service `{service}` did not answer in time")]
    Timeout { service: &'static str },
    /// The connection broke after the call was sent. Whether it took effect is not known.
    #[error("the connection to the service `{service}` broke: {why}")]
    Cut { service: &'static str, why: String },
    /// It answered, but not with what was agreed: two versions that do not understand each other, or a wrong secret.
    #[error("the service `{service}` answered what cannot be used: {why}")]
    Broken { service: &'static str, why: String },
    /// It said no, with its reason and, where it may help, when to try again.
    #[error("{}", .0.detail)]
    Refused(Box<Problem>, Option<Duration>),
}

impl CallError {
    /// Certain that the peer did nothing: a call that must not happen twice may be sent again.
    pub fn is_undelivered(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Timeout { .. } | Self::Cut { .. } | Self::Broken { .. } | Self::Refused(..) => false,
        }
    }
}

impl Fault for CallError {
    fn kind(&self) -> Kind {
        match self {
            Self::Unreachable { .. } | Self::Cut { .. } => Kind::Unavailable,
            Self::Timeout { .. } => Kind::Timeout,
            Self::Broken { .. } => Kind::Internal,
            Self::Refused(problem, _) => refusal(problem.status),
        }
    }

    fn code(&self) -> &str {
        match self {
            Self::Unreachable { .. } => "service_unreachable",
            Self::Timeout { .. } => "service_timeout",
            Self::Cut { .. } => "service_connection_broken",
            Self::Broken { .. } => "service_answer_broken",
            Self::Refused(problem, _) => &problem.code,
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Unreachable { .. } | Self::Cut { .. } => Some(Duration::from_secs(1)),
            Self::Timeout { .. } | Self::Broken { .. } => None,
            Self::Refused(_, after) => *after,
        }
    }
}

/// The kind behind a status: the way back of what the peer's door did.
fn refusal(status: u16) -> Kind {
    match status {
        401 => Kind::Unauthenticated,
        403 => Kind::Forbidden,
        404 => Kind::NotFound,
        409 => Kind::Conflict,
        413 => Kind::TooLarge,
        422 => Kind::Mismatch,
        429 => Kind::TooMany,
        400..=499 => Kind::Invalid,
        502 | 503 => Kind::Unavailable,
        504 => Kind::Timeout,
        _ => Kind::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_keeps_its_kind_its_code_and_its_words() {
        let problem = Problem {
            success: false,
            status: 404,
            title: "Not Found".into(),
            code: "topic_not_found".into(),
            detail: "topic `billing` not found".into(),
            request_id: None,
        };
        let error = CallError::Refused(Box::new(problem), None);
        assert_eq!((error.kind(), error.code()), (Kind::NotFound, "topic_not_found"));
        assert_eq!(error.to_string(), "topic `billing` not found");
    }
}

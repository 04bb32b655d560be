//! The reply table: what each kind of error looks like at each door. Once, exhaustively.

use std::time::Duration;

use actix_web::{HttpResponse, ResponseError, http::StatusCode, http::header};
use notifyx_model::{Fault, Kind};
use notifyx_wire::{header::REQUEST_ID, rest::Problem, trace::TraceContext};
use tonic::{Code, Status};

/// HTTP status of a kind.
pub fn status(kind: Kind) -> u16 {
    match kind {
        Kind::Invalid => 400,
        Kind::Unauthenticated => 401,
        Kind::Forbidden => 403,
        Kind::NotFound => 404,
        Kind::Conflict => 409,
        Kind::TooLarge => 413,
        Kind::Mismatch => 422,
        Kind::TooMany => 429,
        Kind::Internal => 500,
        Kind::Unavailable => 503,
        Kind::Timeout => 504,
    }
}

/// An error as a client may see it. The insides of an internal one go to the log, not to the client.
pub fn problem(fault: &dyn Fault) -> Problem {
    let detail = match fault.kind() {
        Kind::Internal => {
            tracing::error!(error = %chain(fault), "internal error: {fault}");
            "something went wrong inside; the log has it under this request's id".to_owned()
        }
        Kind::Invalid
        | Kind::Unauthenticated
        | Kind::Forbidden
        | Kind::NotFound
        | Kind::Conflict
        | Kind::Mismatch
        | Kind::TooLarge
        | Kind::TooMany
        | Kind::Unavailable
        | Kind::Timeout => fault.to_string(),
    };
    made(status(fault.kind()), fault.code(), detail)
}

/// gRPC code of a kind.
pub fn code(kind: Kind) -> Code {
    match kind {
        Kind::Invalid => Code::InvalidArgument,
        Kind::Unauthenticated => Code::Unauthenticated,
        Kind::Forbidden => Code::PermissionDenied,
        Kind::NotFound => Code::NotFound,
        Kind::Conflict => Code::FailedPrecondition,
        Kind::Mismatch => Code::AlreadyExists,
        // As tonic says it of a message.
        Kind::TooLarge => Code::OutOfRange,
        Kind::TooMany => Code::ResourceExhausted,
        Kind::Internal => Code::Internal,
        Kind::Unavailable => Code::Unavailable,
        Kind::Timeout => Code::DeadlineExceeded,
    }
}

/// An error as a gRPC client may see it: `.map_err(|error| reply::grpc(&error))`.
pub fn grpc(fault: &dyn Fault) -> Status {
    notifyx_wire::grpc::status(code(fault.kind()), &problem(fault), fault.retry_after())
}

/// A Phoenix error reply's payload.
pub fn phoenix(problem: &Problem) -> serde_json::Value {
    serde_json::json!({ "success": false, "reason": problem.code, "error": problem.detail, "status": problem.status })
}

/// A problem that no error enum of this service stands behind: an unknown route, a body that does not parse, what another service
/// said of one item of many.
pub fn made(status: u16, code: &str, detail: impl Into<String>) -> Problem {
    let title = StatusCode::from_u16(status).ok().and_then(|s| s.canonical_reason()).unwrap_or("Error");
    Problem {
        success: false,
        status,
        title: title.to_owned(),
        code: code.to_owned(),
        detail: detail.into(),
        request_id: TraceContext::current().map(TraceContext::request_id),
    }
}

/// An error with its causes, for the log.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// What a handler returns when it does not succeed: `problem+json`.
#[derive(Debug)]
pub struct Failure {
    problem: Problem,
    retry_after: Option<Duration>,
}

impl Failure {
    /// Passes on what another service answered.
    pub fn from_problem(problem: Problem, retry_after: Option<Duration>) -> Self {
        Self { problem, retry_after }
    }

    pub fn problem(&self) -> &Problem {
        &self.problem
    }

    pub(crate) fn made(status: u16, code: &str, detail: impl Into<String>) -> Self {
        Self { problem: made(status, code, detail), retry_after: None }
    }
}

impl<E: Fault> From<E> for Failure {
    fn from(fault: E) -> Self {
        Self { problem: problem(&fault), retry_after: fault.retry_after() }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}: {}", self.problem.status, self.problem.code, self.problem.detail)
    }
}

impl ResponseError for Failure {
    fn status_code(&self) -> StatusCode {
        StatusCode::from_u16(self.problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    fn error_response(&self) -> HttpResponse {
        let mut problem = self.problem.clone();
        if let Some(trace) = TraceContext::current() {
            problem.request_id = Some(trace.request_id());
        }
        let mut response = HttpResponse::build(self.status_code());
        response.content_type(Problem::MEDIA_TYPE);
        if let Some(id) = &problem.request_id {
            response.insert_header((REQUEST_ID, id.clone()));
        }
        if let Some(wait) = self.retry_after {
            response.insert_header((header::RETRY_AFTER, wait.as_secs().max(1).to_string()));
        }
        if problem.status == 401 {
            response.insert_header((header::WWW_AUTHENTICATE, "Bearer"));
        }
        response.body(serde_json::to_vec(&problem).expect("a problem is plain data"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("topic `billing` not found")]
    struct Missing;

    impl Fault for Missing {
        fn kind(&self) -> Kind {
            Kind::NotFound
        }

        fn code(&self) -> &'static str {
            "topic_not_found"
        }
    }

    #[derive(Debug, thiserror::Error)]
    #[error("table `secret` is broken")]
    struct Broken;

    impl Fault for Broken {
        fn kind(&self) -> Kind {
            Kind::Internal
        }

        fn code(&self) -> &'static str {
            "store_broken"
        }
    }

    #[test]
    fn a_problem_names_the_thing() {
        let problem = problem(&Missing);
        assert_eq!((problem.status, problem.code.as_str()), (404, "topic_not_found"));
        assert_eq!(problem.detail, "topic `billing` not found");
    }

    #[test]
    fn insides_stay_inside() {
        assert!(!problem(&Broken).detail.contains("secret"));
        assert!(!grpc(&Broken).message().contains("secret"));
    }

    #[test]
    fn a_status_names_the_thing_too() {
        let status = grpc(&Missing);
        assert_eq!((status.code(), status.message()), (Code::NotFound, "topic `billing` not found"));
        let (told, again) = notifyx_wire::grpc::refusal(&status).unwrap();
        assert_eq!((told.status, told.code.as_str(), again), (404, "topic_not_found", None));
    }
}

//! A problem as a gRPC status, there and back: the code for any client, `google.rpc.ErrorInfo` and its kin for ours.

use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::rest::Problem;

/// Who chose the code in `ErrorInfo.reason`.
const DOMAIN: &str = "notifyx";
/// The problem's HTTP status, in `ErrorInfo.metadata`: several kinds share a gRPC code elsewhere, none shares a status.
const HTTP_STATUS: &str = "status";

/// The status that says `problem`.
pub fn status(code: Code, problem: &Problem, retry_after: Option<Duration>) -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info(&problem.code, DOMAIN, [(HTTP_STATUS.to_owned(), problem.status.to_string())]);
    if retry_after.is_some() {
        details.set_retry_info(retry_after);
    }
    if let Some(id) = &problem.request_id {
        details.set_request_info(id, "");
    }
    Status::with_error_details(code, &problem.detail, details)
}

/// What a status of this house says, and when it may help to try again; `None`: it was made by something else.
pub fn refusal(status: &Status) -> Option<(Problem, Option<Duration>)> {
    // What does not decode is somebody else's too.
    let details = status.check_error_details().ok()?;
    let info = details.error_info().filter(|info| info.domain == DOMAIN)?;
    let problem = Problem {
        success: false,
        status: info.metadata.get(HTTP_STATUS)?.parse().ok().filter(|status| (400..600).contains(status))?,
        title: "Refused".to_owned(),
        code: info.reason.clone(),
        detail: status.message().to_owned(),
        request_id: details.request_info().map(|request| request.request_id.clone()),
    };
    Some((problem, details.retry_info().and_then(|retry| retry.retry_delay)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_comes_back_as_it_went() {
        let problem = Problem {
            success: false,
            status: 409,
            title: "Refused".into(),
            code: "event_fired".into(),
            detail: "event `a` has fired".into(),
            request_id: Some("4bf9".into()),
        };
        for wait in [None, Some(Duration::from_secs(2))] {
            let sent = status(Code::FailedPrecondition, &problem, wait);
            assert_eq!(sent.code(), Code::FailedPrecondition);
            assert_eq!(refusal(&sent), Some((problem.clone(), wait)));
        }
    }

    #[test]
    fn a_foreign_status_is_not_taken_for_ours() {
        let details = ErrorDetails::with_error_info("X", "example.org", [(HTTP_STATUS.to_owned(), "404".to_owned())]);
        assert_eq!(refusal(&Status::with_error_details(Code::NotFound, "no", details)), None);
        assert_eq!(refusal(&Status::not_found("no")), None);
        assert_eq!(refusal(&Status::with_details(Code::NotFound, "no", vec![0xff; 9].into())), None);
    }
}

//! How a command ends: its sentence for people, its object for scripts, its exit code.
//!
//! The codes are a promise to scripts: they are in `--help`, and a code is never given a second meaning.

use std::{io, process::ExitCode, time::Duration};

use notifyx_wire::rest::Problem;
use serde_json::json;

/// Printed under `notifyx --help`.
pub(crate) const CODES: &str = "\
Exit codes:
  0  done
  1  the server understood and refused: what was asked is not possible
  2  the command line or the configuration is wrong
  3  the server cannot be reached, or cannot answer now: trying again later may help
  4  not logged in, or the credentials were refused
  5  a service could not start, or did not become ready
  6  this machine: a file, the terminal or standard output failed";

#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The server's own words.
    #[error("{}", .0.detail)]
    Refused(Box<Problem>),
    /// The server is there and asks to come back.
    #[error("{}{}", .0.detail, after(*.1))]
    Later(Box<Problem>, Option<Duration>),
    #[error("{0}")]
    Usage(String),
    #[error("cannot reach {server}: {why}")]
    Unreachable { server: String, why: String },
    #[error("{0}")]
    Credentials(String),
    #[error("{0}")]
    Start(String),
    #[error("{what}: {source}")]
    Machine { what: String, source: io::Error },
}

fn after(wait: Option<Duration>) -> String {
    wait.map(|wait| format!(" (try again in {} s)", wait.as_secs().max(1))).unwrap_or_default()
}

impl Failure {
    pub(crate) fn machine(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        |source| Self::Machine { what: what.into(), source }
    }

    /// A refusal that this program knows before, or instead of, the server.
    pub(crate) fn refused(code: &str, detail: String) -> Self {
        let (title, code) = ("Conflict".to_owned(), code.to_owned());
        Self::Refused(Box::new(Problem { success: false, status: 409, title, code, detail, request_id: None }))
    }

    /// What the server said, by what the caller can do about it.
    pub(crate) fn from_problem(problem: Problem, retry_after: Option<Duration>) -> Self {
        match problem.status {
            401 => Self::Credentials(problem.detail),
            429 | 502..=504 => Self::Later(Box::new(problem), retry_after),
            _ => Self::Refused(Box::new(problem)),
        }
    }

    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Refused(_) => 1,
            Self::Usage(_) => 2,
            Self::Later(..) | Self::Unreachable { .. } => 3,
            Self::Credentials(_) => 4,
            Self::Start(_) => 5,
            Self::Machine { .. } => 6,
        }
    }

    /// A reader that went away (`notifyx inbox | head`) has what it wanted.
    fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Machine { source, .. } if source.kind() == io::ErrorKind::BrokenPipe)
    }

    /// Says it on standard error and gives the code to end with.
    pub(crate) fn report(&self, json: bool) -> ExitCode {
        if self.is_broken_pipe() {
            return ExitCode::SUCCESS;
        }
        if json {
            let problem = match self {
                Self::Refused(problem) | Self::Later(problem, _) => Some(problem),
                _ => None,
            };
            eprintln!("{}", json!({ "error": self.to_string(), "exit_code": self.code(), "problem": problem }));
        } else {
            eprintln!("notifyx: {}", super::user::print::clean(&self.to_string()));
            if let Self::Refused(problem) | Self::Later(problem, _) = self
                && problem.status >= 500
                && let Some(id) = &problem.request_id
            {
                eprintln!("         the server's log knows more under request id {}", super::user::print::clean(id));
            }
        }
        ExitCode::from(self.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(status: u16) -> Problem {
        Problem { success: false, status, title: "t".into(), code: "c".into(), detail: "d".into(), request_id: None }
    }

    #[test]
    fn a_status_becomes_the_promised_code() {
        for (status, code) in [(400, 1), (404, 1), (409, 1), (422, 1), (500, 1), (401, 4), (429, 3), (503, 3), (504, 3)]
        {
            assert_eq!(Failure::from_problem(problem(status), None).code(), code, "{status}");
        }
    }

    #[test]
    fn the_wait_is_said() {
        let failure = Failure::from_problem(problem(429), Some(Duration::from_secs(7)));
        assert_eq!(failure.to_string(), "d (try again in 7 s)");
    }
}

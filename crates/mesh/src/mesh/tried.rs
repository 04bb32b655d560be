//! How one try of a call ended, and what follows: whether its instance is in trouble, and whether the call may be sent again.

use std::{future::Future, time::Duration};

use notifyx_model::InstanceId;
use notifyx_wire::rest::Problem;
use tonic::{Response, Status};
use tracing::debug;

use crate::{
    Answer, CallError,
    call::Terms,
    pool::Pool,
    rpc::{self, Said},
    transport::{Failed, Received, problem},
};

/// How a try ended, and whether that speaks for its instance.
pub(super) struct Tried<T> {
    pub(super) healthy: bool,
    pub(super) outcome: Result<T, Failure>,
}

/// Why a try failed, and what may be done about it.
pub(super) struct Failure {
    pub(super) error: CallError,
    again: Again,
}

#[derive(Clone, Copy)]
enum Again {
    No,
    /// Nothing was sent: any call may be sent again, also to the same instance, which may have been restarted.
    Yes,
    IfIdempotent,
    /// The instance itself is in trouble: asking it again at once does not help it.
    ElsewhereIfIdempotent,
}

impl Failure {
    pub(super) fn finally(error: CallError) -> Self {
        Self { error, again: Again::No }
    }

    pub(super) fn late(service: &'static str) -> Self {
        Self { error: CallError::Timeout { service }, again: Again::ElsewhereIfIdempotent }
    }

    pub(super) fn of(service: &'static str, failed: Failed) -> Self {
        match failed {
            Failed::NotSent(why) => {
                debug!("no connection to {service}: {why}");
                Self { error: CallError::Unreachable { service }, again: Again::Yes }
            }
            Failed::Cut(why) => Self { error: CallError::Cut { service, why }, again: Again::IfIdempotent },
            Failed::Broken(why) => Self::finally(CallError::Broken { service, why }),
        }
    }

    pub(super) fn again(&self, terms: &Terms, pool: &Pool, tried: &[InstanceId]) -> bool {
        match self.again {
            Again::No => false,
            Again::Yes => true,
            Again::IfIdempotent => terms.idempotent,
            Again::ElsewhereIfIdempotent => terms.idempotent && pool.has_other(tried),
        }
    }
}

/// Whether an answer speaks against its instance. One that is full and says when to come back is alive.
pub(super) fn is_failure(received: &Received) -> bool {
    is_trouble(received.status, received.retry_after)
}

fn is_trouble(status: u16, retry_after: Option<Duration>) -> bool {
    status >= 500 && !(status == 503 && retry_after.is_some())
}

pub(super) fn judge(service: &'static str, received: Received) -> Result<Answer, Failure> {
    let status = received.status;
    if (200..300).contains(&status) {
        return Ok(Answer { status, body: received.body, service });
    }
    if !(400..600).contains(&status) {
        return Err(Failure::finally(CallError::Broken { service, why: format!("status {status}") }));
    }
    Err(said_no(service, problem(service, &received), received.retry_after))
}

fn said_no(service: &'static str, problem: Problem, retry_after: Option<Duration>) -> Failure {
    // A user must not be told to log in again because the services of the cluster disagree.
    if problem.status == 401 && problem.code == "cluster_secret_invalid" {
        return Failure::finally(CallError::Broken { service, why: problem.detail });
    }
    let again = if matches!(problem.status, 502..=504) { Again::ElsewhereIfIdempotent } else { Again::No };
    Failure { error: CallError::Refused(Box::new(problem), retry_after), again }
}

/// Waits for a call over gRPC that was made, if there was a line to make it on.
pub(super) async fn answer<T>(
    service: &'static str,
    asked: Option<impl Future<Output = Result<Response<T>, Status>>>,
) -> Tried<T> {
    let Some(asked) = asked else {
        let failed = Failed::NotSent("its address is not one".to_owned());
        return Tried { healthy: false, outcome: Err(Failure::of(service, failed)) };
    };
    match asked.await {
        Ok(response) => Tried { healthy: true, outcome: Ok(response.into_inner()) },
        Err(status) => refused(service, &status),
    }
}

fn refused<T>(service: &'static str, status: &Status) -> Tried<T> {
    let (healthy, failure) = match rpc::read(status) {
        Said::No(problem, wait) => (!is_trouble(problem.status, wait), said_no(service, problem, wait)),
        Said::Late => (false, Failure::late(service)),
        Said::Nothing(failed) => (false, Failure::of(service, failed)),
    };
    Tried { healthy, outcome: Err(failure) }
}

impl CallError {
    /// Why a stream of the service broke off, after it had begun.
    pub fn of_stream(service: &'static str, status: &Status) -> Self {
        match rpc::read(status) {
            Said::No(problem, wait) => said_no(service, problem, wait).error,
            Said::Late => Self::Timeout { service },
            // It had begun, so it was sent.
            Said::Nothing(failed) => Self::Cut { service, why: failed.why() },
        }
    }
}

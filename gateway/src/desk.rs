//! What everything on one worker thread works with: its part of the hub, and the way to the platform.

use std::{rc::Rc, sync::Arc, time::Duration};

use notifyx_chassis::reply;
use notifyx_model::{Fault, Kind};
use notifyx_wire::{rest::Problem, trace::TraceContext};
use tokio::{runtime::Handle, sync::Semaphore};

use crate::{
    hub::{FeedStopped, Worker},
    platform::Platform,
};

/// A call to the platform. Below the client's own patience of 10 s, so that it hears a reason.
pub(crate) const CALL_DEADLINE: Duration = Duration::from_secs(9);

/// Reads of unread counts that one worker thread has on their way: a notification to 1,000 people asks for 1,000.
const UNREAD_READS_MAX: usize = 16;

pub(crate) struct Desk {
    pub(crate) worker: Rc<Worker>,
    platform: Arc<dyn Platform>,
    runtime: Handle,
    pub(crate) unread_reads: Semaphore,
}

/// Why there is no answer of the platform.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unanswered {
    #[error("no answer came within {} s", CALL_DEADLINE.as_secs())]
    Late,
    #[error("the gateway is about to stop")]
    Stopping,
    #[error("a call to the platform broke off")]
    Broken(#[source] tokio::task::JoinError),
}

impl Fault for Unanswered {
    fn kind(&self) -> Kind {
        match self {
            Self::Late => Kind::Timeout,
            Self::Stopping => Kind::Unavailable,
            Self::Broken(_) => Kind::Internal,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Late => "timeout",
            Self::Stopping => "stopping",
            Self::Broken(_) => "internal",
        }
    }
}

impl From<Unanswered> for Problem {
    fn from(unanswered: Unanswered) -> Self {
        reply::problem(&unanswered)
    }
}

impl From<FeedStopped> for Unanswered {
    fn from(FeedStopped: FeedStopped) -> Self {
        Self::Stopping
    }
}

impl Desk {
    pub(crate) fn new(worker: Rc<Worker>, platform: Arc<dyn Platform>, runtime: Handle) -> Rc<Self> {
        Rc::new(Self { worker, platform, runtime, unread_reads: Semaphore::new(UNREAD_READS_MAX) })
    }

    /// Calls the platform on the shared runtime, in the caller's trace or in one of its own. A call that is late goes on there: what it does is
    /// not undone by our not waiting.
    pub(crate) async fn call<T, F>(&self, call: impl FnOnce(Arc<dyn Platform>) -> F) -> Result<T, Problem>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Problem>> + Send + 'static,
    {
        let trace = TraceContext::current().map_or_else(TraceContext::begin, TraceContext::child);
        let work = trace.scope(call(self.platform.clone()));
        match tokio::time::timeout(CALL_DEADLINE, self.runtime.spawn(work)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(broken)) => Err(Unanswered::Broken(broken).into()),
            Err(_) => Err(Unanswered::Late.into()),
        }
    }
}

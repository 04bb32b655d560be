//! Rules run on the shared runtime: databases and clients made there outlive the workers of the doors.

use std::{future::Future, sync::Arc};

use notifyx_wire::trace::TraceContext;
use tokio::runtime::Handle;
use tracing::Instrument;

use crate::Context;

/// Rules that a door calls, with the runtime they run on.
#[derive(Debug)]
pub struct Shared<T> {
    rules: Arc<T>,
    runtime: Handle,
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self { rules: self.rules.clone(), runtime: self.runtime.clone() }
    }
}

impl<T: Send + Sync + 'static> Shared<T> {
    pub fn new(context: &Context, rules: T) -> Self {
        Self::of(context, Arc::new(rules))
    }

    /// Of rules that others hold too.
    pub fn of(context: &Context, rules: Arc<T>) -> Self {
        Self { rules, runtime: context.runtime.clone() }
    }

    pub fn rules(&self) -> &Arc<T> {
        &self.rules
    }

    /// Runs `work` on the shared runtime within the caller's trace. It runs to its end even if the caller goes away, so
    /// that nothing is left half done.
    pub async fn run<F, Fut>(&self, work: F) -> Fut::Output
    where
        F: FnOnce(Arc<T>) -> Fut,
        Fut: Future<Output: Send> + Send + 'static,
    {
        on(&self.runtime, work(self.rules.clone())).await
    }
}

/// Runs `work` on `runtime` within the caller's trace.
pub(crate) async fn on<F>(runtime: &Handle, work: F) -> F::Output
where
    F: Future<Output: Send> + Send + 'static,
{
    let work = work.instrument(tracing::Span::current());
    let task = match TraceContext::current() {
        Some(trace) => runtime.spawn(trace.scope(work)),
        None => runtime.spawn(work),
    };
    match task.await {
        Ok(output) => output,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The runtime stops last: only a process that is being torn down meets this, and its answer goes nowhere.
        Err(_) => std::future::pending().await,
    }
}

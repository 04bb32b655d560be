//! The schedule's driver: of all instances on one database, the one with the lease fires what is due.
//!
//! While it holds the lease, four things go on side by side: the lease is renewed, what is due is fired, the windows are filled from the
//! store, and recurring schedules become events. Losing the lease ends them and does no harm: firing is decided by the delete in the
//! store, so that two drivers cost time, not truth.

mod doubt;
mod fire;
mod load;
mod occur;
#[cfg(test)]
mod tests;

use std::{fmt, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt;
use notifyx_chassis::reply;
use notifyx_model::Clock;
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use crate::{
    Error,
    feed::Feed,
    plan::Plan,
    store::{Lease, Store, answer},
};

/// How often what nobody told is looked for: events that other instances scheduled, and a clock that jumped.
const LOOK: Duration = Duration::from_secs(1);

/// A store that is away is asked again after this, and after twice as long each time…
const AGAIN_MIN: Duration = Duration::from_millis(20);

/// … up to this: it is back for no longer than a second before anybody notices.
const AGAIN_MAX: Duration = Duration::from_secs(1);

pub struct Driver {
    store: Arc<dyn Store>,
    clock: Clock,
    plan: Arc<Plan>,
    feed: Feed,
    /// Names this instance in the lease.
    holder: String,
    /// How long the lease lasts; it is renewed three times as often.
    span: Duration,
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").field("holder", &self.holder).field("span", &self.span).finish_non_exhaustive()
    }
}

impl Driver {
    /// `holder` names this instance; one that comes back under its old name has its lease at once. What it fires goes to the feed.
    pub fn new(
        store: Arc<dyn Store>,
        clock: Clock,
        plan: Arc<Plan>,
        feed: Feed,
        holder: impl Into<String>,
        span: Duration,
    ) -> Self {
        Self { store, clock, plan, feed, holder: holder.into(), span }
    }

    /// Drives whenever it has the lease, until `stop`; then finishes what is under way and gives the lease back.
    pub async fn run(self, stop: CancellationToken) {
        // There may be nobody else to fire: one that broke off begins again.
        while AssertUnwindSafe(self.take_turns(&stop)).catch_unwind().await.is_err() {
            error!("the driver of the schedule broke off, and begins again with what the store holds");
            self.plan.end();
            self.plan.metrics.broke_off();
            let _ = stop.run_until_cancelled(sleep(AGAIN_MAX)).await;
        }
        if let Err(error) = answer(self.store.release(&self.holder)).await {
            warn!(error = %reply::chain(&error), "the schedule's lease ends by itself: {error}");
        }
    }

    /// Drives whenever it has the lease, until `stop`.
    async fn take_turns(&self, stop: &CancellationToken) {
        let mut again = Again::default();
        while !stop.is_cancelled() {
            let asked = Instant::now();
            let wait = match self.acquire().await {
                Ok(lease) if lease.holder == self.holder => {
                    info!(term = lease.term, "this instance drives the schedule");
                    again = Again::default();
                    self.drive(asked + lease.left, stop).await;
                    Duration::ZERO
                }
                Ok(lease) => lease.left.clamp(AGAIN_MIN, self.renewal()),
                Err(error) => {
                    warn!(error = %reply::chain(&error), "whose the schedule's lease is cannot be read: {error}");
                    again.wait()
                }
            };
            rest(wait, &self.plan.calls.lease, stop).await;
        }
    }

    async fn drive(&self, until: Instant, stop: &CancellationToken) {
        let over = stop.child_token();
        self.plan.begin();
        tokio::join!(self.renew(until, &over), self.fire(&over), self.load(&over), self.occur(&over));
        self.plan.end();
    }

    /// Until the lease is lost, or `over`.
    async fn renew(&self, mut until: Instant, over: &CancellationToken) {
        let mut again = Again::default();
        let mut wait = self.renewal();
        loop {
            rest(wait, &self.plan.calls.lease, over).await;
            if over.is_cancelled() {
                return;
            }
            let asked = Instant::now();
            match self.acquire().await {
                Ok(lease) if lease.holder == self.holder => {
                    (until, wait) = (asked + lease.left, self.renewal());
                    again = Again::default();
                }
                Ok(lease) => {
                    warn!(term = lease.term, "another instance drives the schedule from now on: {}", lease.holder);
                    return over.cancel();
                }
                Err(error) if Instant::now() < until => {
                    warn!(error = %reply::chain(&error), "the schedule's lease is not renewed yet: {error}");
                    wait = again.wait();
                }
                Err(error) => {
                    warn!(error = %reply::chain(&error), "the schedule's lease is lost: {error}");
                    return over.cancel();
                }
            }
        }
    }

    async fn acquire(&self) -> Result<Lease, Error> {
        let asked = self.store.acquire(&self.holder, self.span);
        timeout(self.span.max(AGAIN_MAX), asked).await.unwrap_or(Err(Error::Silent))
    }

    fn renewal(&self) -> Duration {
        (self.span / 3).max(AGAIN_MIN)
    }
}

/// Until a call, or `over`, or so long.
async fn rest(wait: Duration, call: &Notify, over: &CancellationToken) {
    tokio::select! {
        () = over.cancelled() => {}
        () = call.notified() => {}
        () = sleep(wait) => {}
    }
}

/// How long to wait before what failed is tried again.
#[derive(Debug)]
struct Again(Duration);

impl Default for Again {
    fn default() -> Self {
        Self(AGAIN_MIN)
    }
}

impl Again {
    fn wait(&mut self) -> Duration {
        let wait = self.0;
        self.0 = (wait * 2).min(AGAIN_MAX);
        wait
    }

    async fn rest(&mut self, over: &CancellationToken) {
        let wait = self.wait();
        tokio::select! {
            () = over.cancelled() => {}
            () = sleep(wait) => {}
        }
    }
}

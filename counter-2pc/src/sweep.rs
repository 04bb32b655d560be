//! The sweep: rolls back what people prepared and left, watches what a coordinator left prepared, forgets transactions that
//! nobody will ask for any more. Several instances may sweep at once.

use std::{sync::Arc, time::Duration};

use notifyx_chassis::reply;
use notifyx_model::Clock;
use tokio_util::sync::CancellationToken;

use crate::{Config, Error, metrics::Metrics, store::Store};

/// Transactions in one go: short enough to hold up nobody.
const PAGE: u32 = 1_000;

pub(crate) struct Sweeper {
    store: Arc<dyn Store>,
    clock: Clock,
    metrics: Metrics,
    interval: Duration,
    by_hand: Duration,
    alarm: Duration,
    keep: Duration,
}

impl Sweeper {
    pub(crate) fn new(store: Arc<dyn Store>, clock: Clock, metrics: Metrics, config: &Config) -> Self {
        Self {
            store,
            clock,
            metrics,
            interval: Duration::from_millis(config.sweep_ms.get()),
            by_hand: config.by_hand(),
            alarm: Duration::from_secs(config.alarm_s.get()),
            keep: config.keep_days.span(),
        }
    }

    /// Sweeps at each interval until `stop`. What fails is tried again at the next.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(self.interval);
        // A sweep that took long is not followed by a burst of them.
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            if let Some(Err(error)) = stop.run_until_cancelled(self.sweep()).await {
                self.metrics.transactions.sweep_failed();
                tracing::warn!(error = %reply::chain(&error), "the sweep failed and will be tried again: {error}");
            }
        }
    }

    pub(crate) async fn sweep(&self) -> Result<(), Error> {
        let now = self.clock.now();
        self.metrics.transactions.expired(self.store.expire(now - self.by_hand, PAGE).await?);
        let overdue = self.store.overdue(now - self.alarm).await?;
        self.metrics.transactions.overdue(overdue, self.alarm);
        self.store.forget(now - self.keep, PAGE).await?;
        Ok(())
    }
}

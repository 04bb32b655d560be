//! The sweep: trims what has outlived its topic's longevity, rolls back what people prepared and left, watches what the
//! coordinator left prepared, forgets transactions that nobody will ask for any more.
//!
//! In small transactions, so that it is never in the way; several instances may sweep at once.

use std::{sync::Arc, time::Duration};

use notifyx_chassis::reply;
use notifyx_commit::participant::{ALARM, BY_HAND, RETENTION};
use notifyx_model::{Clock, TopicId};
use tokio_util::sync::CancellationToken;

use crate::{Error, metrics::Metrics, patience::again, store::Store};

/// Topics per look, and transactions forgotten at once.
const PAGE: u32 = 1_000;

pub(crate) struct Sweeper {
    store: Arc<dyn Store>,
    clock: Clock,
    metrics: Metrics,
    /// Notifications per transaction.
    trim_rows: u32,
}

impl Sweeper {
    pub(crate) fn new(store: Arc<dyn Store>, clock: Clock, metrics: Metrics, trim_rows: u32) -> Self {
        Self { store, clock, metrics, trim_rows }
    }

    /// Sweeps at each interval until `stop`.
    pub(crate) async fn run(self, interval: Duration, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(interval);
        // A sweep that took long is not followed by a burst of them.
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            if let Err(error) = self.sweep(&stop).await {
                self.metrics.sweep_failed();
                tracing::warn!(error = %reply::chain(&error), "the sweep failed and will be tried again: {error}");
            }
        }
    }

    pub(crate) async fn sweep(&self, stop: &CancellationToken) -> Result<(), Error> {
        let now = self.clock.now();
        self.metrics.expired(again(&self.metrics, || self.store.expire(now - BY_HAND)).await?);
        let overdue = self.store.overdue(now - ALARM).await?;
        if self.metrics.overdue(overdue) {
            tracing::error!(
                overdue,
                "{overdue} transactions are prepared for longer than {} s: is a coordinator running?",
                ALARM.as_secs()
            );
        }
        again(&self.metrics, || self.store.forget(now - RETENTION, PAGE)).await?;
        self.trim(stop).await
    }

    async fn trim(&self, stop: &CancellationToken) -> Result<(), Error> {
        let now = self.clock.now();
        let mut after: Option<TopicId> = None;
        loop {
            let topics = self.store.list_expired_topics(now, after, PAGE).await?;
            for topic in &topics {
                loop {
                    if stop.is_cancelled() {
                        return Ok(());
                    }
                    let trimmed = again(&self.metrics, || self.store.trim(*topic, now, self.trim_rows)).await?;
                    self.metrics.trimmed(trimmed);
                    if trimmed < u64::from(self.trim_rows) {
                        break;
                    }
                }
            }
            match topics.last() {
                Some(last) if topics.len() == PAGE as usize => after = Some(*last),
                _ => return Ok(()),
            }
        }
    }
}

//! What a participant counts of its transactions, under its own name.

use std::time::Duration;

use notifyx_wire::rest::commit::{Ack, Vote};
use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry, core::Collector};

#[derive(Clone, Debug)]
pub struct Metrics {
    votes: IntCounterVec,
    acks: IntCounterVec,
    expired: IntCounter,
    overdue: IntGauge,
    gave_way: IntCounter,
    sweeps_failed: IntCounter,
}

impl Metrics {
    /// Of one participant per registry; their names begin with `notifyx_` and the `participant`'s.
    pub fn new(registry: &Registry, participant: &str) -> Self {
        let opts = |name: &str, help: &str| Opts::new(format!("notifyx_{participant}_{name}"), help);
        let counter = |name: &str, help: &str| register(registry, IntCounter::with_opts(opts(name, help)));
        let counters =
            |name: &str, help: &str, labels: &[&str]| register(registry, IntCounterVec::new(opts(name, help), labels));
        let overdue = "prepared by a coordinator for longer than the protocol allows: an alarm above 0";
        Self {
            votes: counters("votes_total", "answers to prepares", &["vote"]),
            acks: counters("acks_total", "answers to commits and rollbacks", &["step", "ack"]),
            expired: counter("expired_total", "transactions by hand rolled back for lateness"),
            overdue: register(registry, IntGauge::with_opts(opts("prepared_overdue", overdue))),
            gave_way: counter("gave_way_total", "transactions that gave way and were tried again"),
            sweeps_failed: counter("sweeps_failed_total", "sweeps that ended with an error"),
        }
    }

    pub fn voted(&self, votes: &[Vote]) {
        for vote in votes {
            let label = match vote {
                Vote::Yes => "yes",
                Vote::No(_) => "no",
                Vote::Error(_) => "error",
            };
            self.votes.with_label_values(&[label]).inc();
        }
    }

    pub fn acked(&self, step: &'static str, acks: &[Ack]) {
        for ack in acks {
            let label = match ack {
                Ack::Done { .. } => "done",
                Ack::Violation(_) => "violation",
                Ack::Error(_) => "error",
            };
            self.acks.with_label_values(&[step, label]).inc();
        }
    }

    /// So many prepares by hand were rolled back.
    pub fn expired(&self, count: u64) {
        self.expired.inc_by(count);
    }

    /// So many are prepared for longer than `bound`. The log is told each time there are more.
    pub fn overdue(&self, count: u64, bound: Duration) {
        if self.are_more(count) {
            let bound = bound.as_secs();
            tracing::error!(
                overdue = count,
                "{count} transactions are prepared for longer than {bound} s: is a coordinator running?"
            );
        }
    }

    /// More than at the last look.
    fn are_more(&self, count: u64) -> bool {
        let (count, before) = (i64::try_from(count).unwrap_or(i64::MAX), self.overdue.get());
        self.overdue.set(count);
        count > before
    }

    pub fn gave_way(&self) {
        self.gave_way.inc();
    }

    pub fn sweep_failed(&self) {
        self.sweeps_failed.inc();
    }

    /// Since the start.
    pub fn expired_total(&self) -> u64 {
        self.expired.get()
    }

    /// At the last look.
    pub fn prepared_overdue(&self) -> i64 {
        self.overdue.get()
    }
}

fn register<M: Collector + Clone + 'static>(registry: &Registry, metric: prometheus::Result<M>) -> M {
    let metric = metric.expect("the name is valid");
    registry.register(Box::new(metric.clone())).expect("each name is registered once per door");
    metric
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_is_told_of_more_overdue_ones_once_not_at_each_sweep() {
        let metrics = Metrics::new(&Registry::new(), "counter_2pc");
        let told: Vec<bool> = [0, 2, 2, 2, 3, 1, 1, 0, 1].into_iter().map(|count| metrics.are_more(count)).collect();
        assert_eq!(told, [false, true, false, false, true, false, false, false, true]);
    }
}

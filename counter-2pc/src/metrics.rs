//! What the counter tells about itself. Names begin with `notifyx_counter_2pc_`.

use notifyx_wire::rest::commit::{Ack, Vote};
use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry, core::Collector};

#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    increments: IntCounter,
    votes: IntCounterVec,
    acks: IntCounterVec,
    expired: IntCounter,
    overdue: IntGauge,
    gave_way: IntCounter,
    sweeps_failed: IntCounter,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Self {
        let counter = |name: &str, help: &str| register(registry, IntCounter::new(full(name), help));
        let gauge = |name: &str, help: &str| register(registry, IntGauge::new(full(name), help));
        let counters = |name: &str, help: &str, labels: &[&str]| {
            register(registry, IntCounterVec::new(Opts::new(full(name), help), labels))
        };
        Self {
            increments: counter("increments_total", "increments committed"),
            votes: counters("votes_total", "answers to prepares", &["vote"]),
            acks: counters("acks_total", "answers to commits and rollbacks", &["step", "ack"]),
            expired: counter("expired_total", "increments by hand rolled back for lateness"),
            overdue: gauge(
                "prepared_overdue",
                "prepared by a coordinator for longer than the protocol allows: an alarm above 0",
            ),
            gave_way: counter("gave_way_total", "transactions that gave way and were tried again"),
            sweeps_failed: counter("sweeps_failed_total", "sweeps that ended with an error"),
        }
    }

    pub(crate) fn voted(&self, votes: &[Vote]) {
        for vote in votes {
            let label = match vote {
                Vote::Yes => "yes",
                Vote::No(_) => "no",
                Vote::Error(_) => "error",
            };
            self.votes.with_label_values(&[label]).inc();
        }
    }

    pub(crate) fn acked(&self, step: &'static str, acks: &[Ack]) {
        for ack in acks {
            let label = match ack {
                Ack::Done { .. } => "done",
                Ack::Violation(_) => "violation",
                Ack::Error(_) => "error",
            };
            self.acks.with_label_values(&[step, label]).inc();
        }
    }

    pub(crate) fn committed(&self, count: u64) {
        self.increments.inc_by(count);
    }

    pub(crate) fn expired(&self, count: u64) {
        self.expired.inc_by(count);
    }

    /// Whether there are more than at the last look: worth a line in the log.
    pub(crate) fn overdue(&self, count: u64) -> bool {
        let (count, before) = (i64::try_from(count).unwrap_or(i64::MAX), self.overdue.get());
        self.overdue.set(count);
        count > before
    }

    pub(crate) fn gave_way(&self) {
        self.gave_way.inc();
    }

    pub(crate) fn sweep_failed(&self) {
        self.sweeps_failed.inc();
    }

    /// For `/status` and the dashboard.
    pub(crate) fn figures(&self) -> serde_json::Value {
        serde_json::json!({
            "increments_committed": self.increments.get(),
            "expired": self.expired.get(),
            "prepared_overdue": self.overdue.get(),
        })
    }
}

fn full(name: &str) -> String {
    format!("notifyx_counter_2pc_{name}")
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
        let metrics = Metrics::new(&Registry::new());
        let told: Vec<bool> = [0, 2, 2, 2, 3, 1, 1, 0, 1].into_iter().map(|count| metrics.overdue(count)).collect();
        assert_eq!(told, [false, true, false, false, true, false, false, false, true]);
    }
}

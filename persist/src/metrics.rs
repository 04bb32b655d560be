//! What persist counts. Names begin with `notifyx_persist_`.

use notifyx_wire::rest::commit::{Ack, Applied, Vote};
use prometheus::{IntCounter, IntCounterVec, IntGauge, Opts, Registry};

#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    notifications: IntCounterVec,
    votes: IntCounterVec,
    acks: IntCounterVec,
    joins: IntCounter,
    trimmed: IntCounter,
    expired: IntCounter,
    overdue: IntGauge,
    gave_way: IntCounter,
    sweeps_failed: IntCounter,
    cache: IntCounterVec,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Self {
        let counter = |name: &str, help: &str| {
            let counter = IntCounter::new(format!("notifyx_persist_{name}"), help).expect("a valid name");
            registry.register(Box::new(counter.clone())).expect("registered once");
            counter
        };
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let counters =
                IntCounterVec::new(Opts::new(format!("notifyx_persist_{name}"), help), labels).expect("a valid name");
            registry.register(Box::new(counters.clone())).expect("registered once");
            counters
        };
        let gauge = |name: &str, help: &str| {
            let gauge = IntGauge::new(format!("notifyx_persist_{name}"), help).expect("a valid name");
            registry.register(Box::new(gauge.clone())).expect("registered once");
            gauge
        };
        Self {
            notifications: counters("notifications_total", "notifications committed", &["kind"]),
            votes: counters("votes_total", "answers to prepares", &["vote"]),
            acks: counters("acks_total", "answers to commits and rollbacks", &["step", "ack"]),
            joins: counter("joins_total", "joins asked for, first ones and repetitions"),
            trimmed: counter("trimmed_total", "notifications trimmed after their longevity"),
            expired: counter("expired_total", "transactions by hand rolled back for lateness"),
            overdue: gauge(
                "prepared_overdue",
                "transactions prepared for longer than the protocol allows: an alarm above 0",
            ),
            gave_way: counter("gave_way_total", "transactions that gave way and were tried again"),
            sweeps_failed: counter("sweeps_failed_total", "sweeps that ended with an error"),
            cache: counters("topic_cache_total", "look-ups of what of a topic never changes", &["outcome"]),
        }
    }

    pub(crate) fn committed(&self, applied: Option<&Applied>) {
        if let Some(applied) = applied {
            let kind = if applied.broadcast_no.is_some() { "broadcast" } else { "targeted" };
            self.notifications.with_label_values(&[kind]).inc();
        }
    }

    pub(crate) fn voted(&self, votes: Vec<Vote>) -> Vec<Vote> {
        for vote in &votes {
            let label = match vote {
                Vote::Yes => "yes",
                Vote::No(_) => "no",
                Vote::Error(_) => "error",
            };
            self.votes.with_label_values(&[label]).inc();
        }
        votes
    }

    pub(crate) fn acked(&self, step: &'static str, acks: Vec<Ack>) -> Vec<Ack> {
        for ack in &acks {
            let label = match ack {
                Ack::Done { .. } => "done",
                Ack::Violation(_) => "violation",
                Ack::Error(_) => "error",
            };
            self.acks.with_label_values(&[step, label]).inc();
        }
        acks
    }

    pub(crate) fn joined(&self, count: usize) {
        self.joins.inc_by(count as u64);
    }

    pub(crate) fn trimmed(&self, count: u64) {
        self.trimmed.inc_by(count);
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

    pub(crate) fn cache_hit(&self) {
        self.cache.with_label_values(&["hit"]).inc();
    }

    pub(crate) fn cache_miss(&self) {
        self.cache.with_label_values(&["miss"]).inc();
    }

    /// For `/status` and the dashboard.
    pub(crate) fn figures(&self) -> serde_json::Value {
        serde_json::json!({
            "broadcasts_committed": self.notifications.with_label_values(&["broadcast"]).get(),
            "targeted_committed": self.notifications.with_label_values(&["targeted"]).get(),
            "joins": self.joins.get(),
            "trimmed": self.trimmed.get(),
            "prepared_overdue": self.overdue.get(),
        })
    }
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

//! What persist counts. Names begin with `notifyx_persist_`.

use notifyx_commit::participant;
use notifyx_wire::rest::commit::Applied;
use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    pub(crate) transactions: participant::Metrics,
    notifications: IntCounterVec,
    joins: IntCounter,
    trimmed: IntCounter,
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
        Self {
            transactions: participant::Metrics::new(registry, "persist"),
            notifications: counters("notifications_total", "notifications committed", &["kind"]),
            joins: counter("joins_total", "joins asked for, first ones and repetitions"),
            trimmed: counter("trimmed_total", "notifications trimmed after their longevity"),
            cache: counters("topic_cache_total", "look-ups of what of a topic never changes", &["outcome"]),
        }
    }

    pub(crate) fn committed(&self, applied: Option<&Applied>) {
        if let Some(applied) = applied {
            let kind = if applied.broadcast_no.is_some() { "broadcast" } else { "targeted" };
            self.notifications.with_label_values(&[kind]).inc();
        }
    }

    pub(crate) fn joined(&self, count: usize) {
        self.joins.inc_by(count as u64);
    }

    pub(crate) fn trimmed(&self, count: u64) {
        self.trimmed.inc_by(count);
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
            "prepared_overdue": self.transactions.prepared_overdue(),
        })
    }
}

//! What the counter tells about itself. Names begin with `notifyx_counter_2pc_`.

use notifyx_commit::participant;
use prometheus::{IntCounter, Registry};

#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    pub(crate) transactions: participant::Metrics,
    increments: IntCounter,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Self {
        let increments = IntCounter::new("notifyx_counter_2pc_increments_total", "increments committed");
        let increments = increments.expect("the name is valid");
        registry.register(Box::new(increments.clone())).expect("each name is registered once per door");
        Self { transactions: participant::Metrics::new(registry, "counter_2pc"), increments }
    }

    pub(crate) fn committed(&self, count: u64) {
        self.increments.inc_by(count);
    }

    /// For `/status` and the dashboard.
    pub(crate) fn figures(&self) -> serde_json::Value {
        serde_json::json!({
            "increments_committed": self.increments.get(),
            "expired": self.transactions.expired_total(),
            "prepared_overdue": self.transactions.prepared_overdue(),
        })
    }
}

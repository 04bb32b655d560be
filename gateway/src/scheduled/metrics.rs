//! What the consumer of scheduled notifications tells Prometheus. Names begin with `notifyx_gateway_scheduled_`.

use std::time::Duration;

use notifyx_wire::rest::gateway::ScheduledState;
use prometheus::{Gauge, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    holds: IntGauge,
    waiting: IntGauge,
    oldest_seconds: Gauge,
    outcomes: IntCounterVec,
    retries: IntCounter,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Self {
        let named = |name: &str, help: &str| Opts::new(format!("notifyx_gateway_scheduled_{name}"), help);
        let valid = "the name is valid";
        let metrics = Self {
            holds: IntGauge::with_opts(named("lease_held", "Whether this gateway publishes what was scheduled."))
                .expect(valid),
            waiting: IntGauge::with_opts(named(
                "waiting",
                "Notifications whose time has come and that are not published.",
            ))
            .expect(valid),
            oldest_seconds: Gauge::with_opts(named("oldest_seconds", "How long the oldest of them has waited."))
                .expect(valid),
            outcomes: IntCounterVec::new(
                named("outcomes_total", "What became of scheduled notifications."),
                &["outcome"],
            )
            .expect(valid),
            retries: IntCounter::with_opts(named("retries_total", "Tries to publish that have to be repeated."))
                .expect(valid),
        };
        let Self { holds, waiting, oldest_seconds, outcomes, retries } = &metrics;
        let free = "the name is free";
        registry.register(Box::new(holds.clone())).expect(free);
        registry.register(Box::new(waiting.clone())).expect(free);
        registry.register(Box::new(oldest_seconds.clone())).expect(free);
        registry.register(Box::new(outcomes.clone())).expect(free);
        registry.register(Box::new(retries.clone())).expect(free);
        metrics
    }

    /// Whoever does not hold it knows of no queue.
    pub(super) fn holds(&self, holds: bool) {
        self.holds.set(holds.into());
        self.waits(0, Duration::ZERO);
    }

    pub(super) fn waits(&self, waiting: u64, oldest: Duration) {
        self.waiting.set(i64::try_from(waiting).unwrap_or(i64::MAX));
        self.oldest_seconds.set(oldest.as_secs_f64());
    }

    pub(super) fn ended(&self, outcome: &ScheduledState) {
        self.outcomes.with_label_values(&[outcome.as_str()]).inc();
    }

    pub(super) fn retried(&self) {
        self.retries.inc();
    }
}

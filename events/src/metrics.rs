//! What events counts. Names begin with `notifyx_events_`.

use std::time::Duration;

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry};

/// From "at once" to "the machine was down"; the promises are 5 and 25 ms.
const LATE_SECONDS: [f64; 12] = [0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 60.0, 3_600.0];

#[derive(Debug)]
pub(crate) struct Metrics {
    lateness: Histogram,
    batches: IntCounterVec,
    written: IntCounterVec,
    lease_held: IntGauge,
    breaks: IntCounter,
}

impl Default for Metrics {
    fn default() -> Self {
        let counters = |name: &str, help: &str| {
            IntCounterVec::new(Opts::new(format!("notifyx_events_{name}"), help), &["act"]).expect("a valid name")
        };
        let lateness = HistogramOpts::new("notifyx_events_lateness_seconds", "commit minus fire_at of what fired here")
            .buckets(LATE_SECONDS.to_vec());
        let held = "whether this instance drives the schedule";
        let broke_off = "how often the driver of the schedule, or the sweep, broke off and began again";
        Self {
            lateness: Histogram::with_opts(lateness).expect("a valid name"),
            batches: counters("batches_total", "transactions shared by concurrent calls"),
            written: counters("written_total", "events and orders in these transactions, known ones too"),
            lease_held: IntGauge::new("notifyx_events_lease_held", held).expect("a valid name"),
            breaks: IntCounter::new("notifyx_events_breaks_total", broke_off).expect("a valid name"),
        }
    }
}

impl Metrics {
    pub(crate) fn register(&self, registry: &Registry) {
        let Self { lateness, batches, written, lease_held, breaks } = self;
        registry.register(Box::new(lateness.clone())).expect("registered once");
        registry.register(Box::new(batches.clone())).expect("registered once");
        registry.register(Box::new(written.clone())).expect("registered once");
        registry.register(Box::new(lease_held.clone())).expect("registered once");
        registry.register(Box::new(breaks.clone())).expect("registered once");
    }

    pub(crate) fn fired(&self, late: Duration) {
        self.lateness.observe(late.as_secs_f64());
    }

    pub(crate) fn wrote(&self, act: &'static str, events: usize) {
        self.batches.with_label_values(&[act]).inc();
        self.written.with_label_values(&[act]).inc_by(events as u64);
    }

    #[cfg(test)]
    pub(crate) fn transactions(&self, act: &str) -> u64 {
        self.batches.with_label_values(&[act]).get()
    }

    pub(crate) fn drives(&self, drives: bool) {
        self.lease_held.set(drives.into());
    }

    pub(crate) fn broke_off(&self) {
        self.breaks.inc();
    }

    pub(crate) fn breaks(&self) -> u64 {
        self.breaks.get()
    }

    pub(crate) fn fired_total(&self) -> u64 {
        self.lateness.get_sample_count()
    }

    /// `None`: nothing fired here yet.
    pub(crate) fn late_ms_mean(&self) -> Option<f64> {
        let fired = self.fired_total();
        #[expect(clippy::cast_precision_loss, reason = "a mean")]
        (fired > 0).then(|| self.lateness.get_sample_sum() * 1_000.0 / fired as f64)
    }
}

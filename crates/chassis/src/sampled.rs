//! Gauges that are looked at when somebody asks, so that nothing has to keep them up to date.

use prometheus::{
    IntGaugeVec, Opts, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};

/// What a gauge shows now: a label's value and a number.
pub(crate) type Sample = Box<dyn Fn() -> Vec<(&'static str, usize)> + Send + Sync>;

struct Sampled {
    gauge: IntGaugeVec,
    sample: Sample,
}

/// Registers `name{label=…}`. A name registered twice is a bug.
pub(crate) fn register(registry: &Registry, name: &str, help: &str, label: &str, sample: Sample) {
    let gauge = IntGaugeVec::new(Opts::new(name, help), &[label]).expect("the name is valid");
    registry.register(Box::new(Sampled { gauge, sample })).expect("the name is free");
}

impl Collector for Sampled {
    fn desc(&self) -> Vec<&Desc> {
        self.gauge.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        for (label, value) in (self.sample)() {
            self.gauge.with_label_values(&[label]).set(i64::try_from(value).unwrap_or(i64::MAX));
        }
        self.gauge.collect()
    }
}

//! What the coordinator tells about itself: `notifyx_2pc_…`.

use prometheus::{
    Histogram, HistogramOpts, HistogramTimer, HistogramVec, IntCounterVec, IntGauge, Opts, Registry,
    exponential_buckets,
};

use notifyx_wire::rest::commit::Heuristic;

use super::Outcome;
use crate::{Figures, Party};

#[derive(Clone)]
pub(super) struct Metrics {
    outcomes: IntCounterVec,
    steps: HistogramVec,
    group_size: Histogram,
    recovered: IntCounterVec,
    resolved: IntCounterVec,
    failed_tries: IntCounterVec,
    open: IntGauge,
    in_doubt: IntGauge,
    quarantined: IntGauge,
    oldest_seconds: IntGauge,
}

impl Metrics {
    /// A name registered twice (two coordinators on one registry) keeps counting, unseen for the second.
    pub(super) fn new(registry: &Registry) -> Self {
        // 0.5 ms, a step on an idle machine, to 8 s, beyond every timeout.
        let times = exponential_buckets(0.000_5, 2.0, 15).expect("a valid bucket layout");
        let sizes = exponential_buckets(1.0, 2.0, 10).expect("a valid bucket layout");
        let metrics = Self {
            outcomes: counters("notifyx_2pc_outcomes_total", "Publishes by how they ended.", "outcome"),
            steps: HistogramVec::new(
                HistogramOpts::new("notifyx_2pc_step_seconds", "Time per step of a whole group.").buckets(times),
                &["step"],
            )
            .expect("a valid metric"),
            group_size: Histogram::with_opts(
                HistogramOpts::new("notifyx_2pc_group_size", "Publishes that shared one group.").buckets(sizes),
            )
            .expect("a valid metric"),
            recovered: counters(
                "notifyx_2pc_recovered_total",
                "Transactions that recovery took over, by decision.",
                "decision",
            ),
            resolved: counters(
                "notifyx_2pc_resolved_total",
                "Quarantined transactions that an operator closed here, by what was found.",
                "outcome",
            ),
            failed_tries: counters(
                "notifyx_2pc_failed_tries_total",
                "Commits and rollbacks that a participant did not apply at once.",
                "participant",
            ),
            open: gauge("notifyx_2pc_open", "Transactions that are not closed."),
            in_doubt: gauge("notifyx_2pc_in_doubt", "Transactions that are not closed and past their deadline."),
            quarantined: gauge("notifyx_2pc_quarantined", "Transactions that an operator must look at."),
            oldest_seconds: gauge("notifyx_2pc_oldest_age_seconds", "Age of the oldest that is not closed."),
        };
        let all: [Box<dyn prometheus::core::Collector>; 10] = [
            Box::new(metrics.outcomes.clone()),
            Box::new(metrics.steps.clone()),
            Box::new(metrics.group_size.clone()),
            Box::new(metrics.recovered.clone()),
            Box::new(metrics.resolved.clone()),
            Box::new(metrics.failed_tries.clone()),
            Box::new(metrics.open.clone()),
            Box::new(metrics.in_doubt.clone()),
            Box::new(metrics.quarantined.clone()),
            Box::new(metrics.oldest_seconds.clone()),
        ];
        for collector in all {
            let _ = registry.register(collector);
        }
        metrics
    }

    pub(super) fn outcome(&self, outcome: &Outcome) {
        let name = match outcome {
            Outcome::Committed { applied: Some(_), .. } => "committed",
            Outcome::Committed { applied: None, .. } => "committed_applying",
            Outcome::Refused { .. } => "refused",
            Outcome::Aborted { .. } => "aborted",
            Outcome::NotBegun { .. } => "not_begun",
            Outcome::Known { .. } => "known",
            Outcome::Mismatch { .. } => "mismatch",
            Outcome::Unknown { .. } => "unknown",
            Outcome::Busy(_) => "busy",
        };
        self.outcomes.with_label_values(&[name]).inc();
    }

    /// Observed when dropped.
    pub(super) fn step(&self, step: &str) -> HistogramTimer {
        self.steps.with_label_values(&[step]).start_timer()
    }

    pub(super) fn group(&self, size: usize) {
        self.group_size.observe(size as f64);
    }

    pub(super) fn recovered(&self, decision: &str, count: usize) {
        self.recovered.with_label_values(&[decision]).inc_by(count as u64);
    }

    pub(super) fn resolved(&self, outcome: Heuristic) {
        self.resolved.with_label_values(&[outcome.as_str()]).inc();
    }

    pub(super) fn failed_tries(&self, party: Party, count: usize) {
        self.failed_tries.with_label_values(&[party.name()]).inc_by(count as u64);
    }

    pub(super) fn figures(&self, figures: &Figures) {
        let gauge = |gauge: &IntGauge, value: u64| gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        gauge(&self.open, figures.open);
        gauge(&self.in_doubt, figures.in_doubt);
        gauge(&self.quarantined, figures.quarantined);
        gauge(&self.oldest_seconds, figures.oldest.as_secs());
    }
}

fn counters(name: &str, help: &str, label: &str) -> IntCounterVec {
    IntCounterVec::new(Opts::new(name, help), &[label]).expect("a valid metric")
}

fn gauge(name: &str, help: &str) -> IntGauge {
    IntGauge::new(name, help).expect("a valid metric")
}

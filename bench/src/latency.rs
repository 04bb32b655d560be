//! Times, gathered and told as percentiles.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Serialize, Serializer};

/// Longer is told as this: every wait here ends before.
const NANOS_MAX: u64 = 120_000_000_000;

/// Nanoseconds, to three digits.
#[derive(Clone, Debug)]
pub(crate) struct Latency(Histogram<u64>);

impl Default for Latency {
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1_000, NANOS_MAX, 3).expect("the bounds are in order"))
    }
}

impl Latency {
    pub(crate) fn record(&mut self, nanos: u64) {
        self.0.saturating_record(nanos);
    }

    pub(crate) fn record_span(&mut self, span: Duration) {
        self.record(u64::try_from(span.as_nanos()).unwrap_or(u64::MAX));
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("all have the same bounds");
    }

    pub(crate) fn count(&self) -> u64 {
        self.0.len()
    }

    /// In milliseconds; 0 where nothing was recorded.
    pub(crate) fn percentile_ms(&self, percentile: f64) -> f64 {
        if self.0.is_empty() { 0.0 } else { self.0.value_at_percentile(percentile) as f64 / 1e6 }
    }
}

impl Serialize for Latency {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Told {
            count: u64,
            p50_ms: f64,
            p90_ms: f64,
            p99_ms: f64,
            max_ms: f64,
        }
        let told = |percentile| (self.percentile_ms(percentile) * 1e3).round() / 1e3;
        Told { count: self.count(), p50_ms: told(50.0), p90_ms: told(90.0), p99_ms: told(99.0), max_ms: told(100.0) }
            .serialize(serializer)
    }
}

/// The middle one; of an even number the lower of the two.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_true_to_three_digits() {
        let mut latency = Latency::default();
        (1..=1000).for_each(|ms| latency.record(ms * 1_000_000));
        for (percentile, ms) in [(50.0, 500.0), (99.0, 990.0), (100.0, 1000.0)] {
            let told = latency.percentile_ms(percentile);
            assert!((told - ms).abs() <= ms / 1000.0, "p{percentile} is {told}");
        }
    }

    #[test]
    fn what_is_beyond_the_bounds_still_counts() {
        let mut latency = Latency::default();
        latency.record(0);
        latency.record(u64::MAX);
        assert_eq!(latency.count(), 2);
        assert!(latency.percentile_ms(100.0) >= 120_000.0);
    }

    #[test]
    fn two_halves_make_a_whole() {
        let (mut low, mut high) = (Latency::default(), Latency::default());
        low.record(1_000_000);
        high.record(9_000_000);
        low.add(&high);
        assert_eq!(low.count(), 2);
        assert!((low.percentile_ms(100.0) - 9.0).abs() < 0.01);
    }

    #[test]
    fn the_median_is_one_that_was_measured() {
        assert!((median([3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
        assert!((median([4.0, 1.0]) - 1.0).abs() < f64::EPSILON);
        assert!(median([]).abs() < f64::EPSILON);
    }
}

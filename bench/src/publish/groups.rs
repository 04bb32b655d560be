//! What the coordinator says about its groups: how large they are, and how long each step of one takes.

use std::collections::BTreeMap;

use serde::Serialize;

const SIZE: &str = "notifyx_2pc_group_size";
const STEP: &str = "notifyx_2pc_step_seconds";

/// Counted since the gateway started, or in between.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Groups {
    size: Sum,
    steps: BTreeMap<String, Sum>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Sum {
    sum: f64,
    count: f64,
}

/// Means.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Means {
    pub(super) group_size: f64,
    step_ms: BTreeMap<String, f64>,
}

impl Groups {
    /// From the text that Prometheus reads: `notifyx_2pc_step_seconds_sum{step="begin"} 1.5`.
    pub(super) fn parse(metrics: &str) -> Self {
        let mut groups = Self::default();
        for line in metrics.lines() {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let Ok(value) = value.parse::<f64>() else { continue };
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let Some((metric, kind)) = name.rsplit_once('_') else { continue };
            let sum = match metric {
                SIZE => &mut groups.size,
                STEP => {
                    let step = labels.trim_start_matches("step=\"").trim_end_matches("\"}");
                    groups.steps.entry(step.to_owned()).or_default()
                }
                _ => continue,
            };
            match kind {
                "sum" => sum.sum = value,
                "count" => sum.count = value,
                _ => {}
            }
        }
        // The buckets have a label more, and made entries.
        groups.steps.retain(|_, sum| sum.count > 0.0);
        groups
    }

    #[must_use]
    pub(super) fn since(self, before: &Self) -> Self {
        let steps = self.steps.into_iter().map(|(step, sum)| {
            let before = before.steps.get(&step).copied().unwrap_or_default();
            (step, sum.since(before))
        });
        Self { size: self.size.since(before.size), steps: steps.collect() }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.size.add(other.size);
        for (step, sum) in &other.steps {
            self.steps.entry(step.clone()).or_default().add(*sum);
        }
    }

    pub(super) fn means(&self) -> Means {
        let step_ms = self.steps.iter().map(|(step, sum)| (step.clone(), sum.mean() * 1e3)).collect();
        Means { group_size: self.size.mean(), step_ms }
    }
}

impl Sum {
    fn since(self, before: Self) -> Self {
        Self { sum: self.sum - before.sum, count: self.count - before.count }
    }

    fn add(&mut self, other: Self) {
        self.sum += other.sum;
        self.count += other.count;
    }

    fn mean(self) -> f64 {
        if self.count > 0.0 { self.sum / self.count } else { 0.0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRICS: &str = "\
# TYPE notifyx_2pc_step_seconds histogram
notifyx_2pc_step_seconds_bucket{step=\"begin\",le=\"0.0005\"} 3
notifyx_2pc_step_seconds_sum{step=\"begin\"} 0.5
notifyx_2pc_step_seconds_count{step=\"begin\"} 10
notifyx_2pc_group_size_sum 40
notifyx_2pc_group_size_count 10
";

    #[test]
    fn means_are_of_the_time_between() {
        let before = Groups::parse(METRICS);
        assert_eq!(before.steps.len(), 1);
        let after = METRICS
            .replace("begin\"} 0.5", "begin\"} 1.5")
            .replace("begin\"} 10", "begin\"} 20")
            .replace("size_sum 40", "size_sum 100")
            .replace("size_count 10", "size_count 20");
        let means = Groups::parse(&after).since(&before).means();
        assert!((means.group_size - 6.0).abs() < 1e-9, "{means:?}");
        assert!((means.step_ms["begin"] - 100.0).abs() < 1e-9, "{means:?}");
    }
}

//! How late events fired: counts in buckets that grow with what they count, one small table per category that fires.

use std::{collections::HashMap, time::Duration};

use notifyx_model::{Category, Timestamp};

/// Two buckets per doubling, from 128 µs (below is "at once") to more than three days.
const BUCKETS: usize = 64;

/// log2 of where the second bucket begins, in microseconds.
const SHIFT: u32 = 7;

/// How late the events of one category fired. 280 bytes.
#[derive(Clone, Debug)]
pub struct Lateness {
    buckets: [u32; BUCKETS],
    fired: u64,
    newest: Timestamp,
}

impl Lateness {
    fn new(now: Timestamp) -> Self {
        Self { buckets: [0; BUCKETS], fired: 0, newest: now }
    }

    fn record(&mut self, late: Duration, now: Timestamp) {
        let bucket = &mut self.buckets[bucket_of(late)];
        *bucket = bucket.saturating_add(1);
        self.fired += 1;
        self.newest = self.newest.max(now);
    }

    /// Events that fired.
    pub fn fired(&self) -> u64 {
        self.fired
    }

    /// The lateness that `quantile` (0 to 1) of the events kept within, to the width of a bucket; `None`: none fired.
    pub fn quantile(&self, quantile: f64) -> Option<Duration> {
        let counted: u64 = self.buckets.iter().map(|count| u64::from(*count)).sum();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and the count")]
        let rank = ((counted as f64 * quantile.clamp(0.0, 1.0)).ceil() as u64).max(1);
        let mut below = 0;
        let bucket = self.buckets.iter().position(|count| {
            below += u64::from(*count);
            below >= rank
        })?;
        Some(end_of(bucket))
    }
}

fn bucket_of(late: Duration) -> usize {
    let micros = u64::try_from(late.as_micros()).unwrap_or(u64::MAX);
    if micros < 1 << SHIFT {
        return 0;
    }
    let doubling = micros.ilog2();
    let upper_half = (micros >> (doubling - 1)) & 1;
    let bucket = 1 + 2 * u64::from(doubling - SHIFT) + upper_half;
    usize::try_from(bucket).map_or(BUCKETS - 1, |bucket| bucket.min(BUCKETS - 1))
}

/// Where the next bucket begins.
fn end_of(bucket: usize) -> Duration {
    let Some(above) = bucket.checked_sub(1) else { return Duration::from_micros(1 << SHIFT) };
    let begin = 1_u64 << (SHIFT as usize + above / 2);
    Duration::from_micros(if above % 2 == 0 { begin + begin / 2 } else { 2 * begin })
}

/// The lateness of all categories that fire: a table each, given up after an hour without an event.
#[derive(Debug, Default)]
pub struct Punctuality {
    categories: HashMap<Category, Box<Lateness>>,
}

impl Punctuality {
    /// 3 MB with their names. More categories than that fire unmeasured.
    pub const CATEGORIES_MAX: usize = 10_000;

    /// Long enough to be looked at after a burst.
    pub const KEPT: Duration = Duration::from_secs(60 * 60);

    pub fn record(&mut self, category: &Category, late: Duration, now: Timestamp) {
        if let Some(lateness) = self.categories.get_mut(category) {
            return lateness.record(late, now);
        }
        if self.categories.len() < Self::CATEGORIES_MAX {
            let mut lateness = Box::new(Lateness::new(now));
            lateness.record(late, now);
            self.categories.insert(category.clone(), lateness);
        }
    }

    /// `None`: none fired of late, or there were too many categories to measure.
    pub fn of(&self, category: &Category) -> Option<&Lateness> {
        self.categories.get(category).map(AsRef::as_ref)
    }

    /// Gives up the tables of categories that have been silent for [`Punctuality::KEPT`]; a call a minute is enough.
    pub fn sweep(&mut self, now: Timestamp) {
        self.categories.retain(|_, lateness| now.since(lateness.newest) < Self::KEPT);
        if self.categories.capacity() > 4 * self.categories.len() {
            self.categories.shrink_to_fit();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_never_below_the_truth_and_at_most_half_above() {
        for micros in [0, 1, 127, 128, 191, 192, 1_000, 4_999, 25_000, 1_000_000, 3_600_000_000, 86_400_000_000] {
            let late = Duration::from_micros(micros);
            let mut lateness = Lateness::new(Timestamp::from_micros(0));
            lateness.record(late, Timestamp::from_micros(0));
            let told = lateness.quantile(0.99).unwrap();
            assert!(told > late, "{late:?} told as {told:?}");
            assert!(told <= (late + late / 2).max(Duration::from_micros(128)), "{late:?} told as {told:?}");
        }
    }

    #[test]
    fn any_lateness_has_a_bucket() {
        assert_eq!(bucket_of(Duration::MAX), BUCKETS - 1);
        for bucket in 0..BUCKETS - 1 {
            assert_eq!(bucket_of(end_of(bucket)), bucket + 1);
            assert_eq!(bucket_of(end_of(bucket).saturating_sub(Duration::from_micros(1))), bucket);
        }
    }

    #[test]
    fn quantiles_tell_the_tail_from_the_middle() {
        let mut lateness = Lateness::new(Timestamp::from_micros(0));
        for event in 0..100 {
            let late = Duration::from_millis(if event < 98 { 1 } else { 1_000 });
            lateness.record(late, Timestamp::from_micros(0));
        }
        assert_eq!(lateness.fired(), 100);
        assert!(lateness.quantile(0.5).unwrap() < Duration::from_millis(2));
        assert!(lateness.quantile(0.99).unwrap() > Duration::from_millis(999));
    }

    #[test]
    fn a_silent_category_gives_its_table_up() {
        let mut punctuality = Punctuality::default();
        let (a, b) = (Category::parse("a").unwrap(), Category::parse("b").unwrap());
        let start = Timestamp::from_micros(0);
        punctuality.record(&a, Duration::ZERO, start);
        punctuality.record(&b, Duration::ZERO, start + Punctuality::KEPT / 2);
        punctuality.sweep(start + Punctuality::KEPT);
        assert!(punctuality.of(&a).is_none() && punctuality.of(&b).is_some());
    }

    #[test]
    fn the_tables_are_bounded() {
        let mut punctuality = Punctuality::default();
        for n in 0..=Punctuality::CATEGORIES_MAX {
            punctuality.record(&Category::parse(&format!("c{n}")).unwrap(), Duration::ZERO, Timestamp::from_micros(0));
        }
        assert_eq!(punctuality.categories.len(), Punctuality::CATEGORIES_MAX);
    }
}

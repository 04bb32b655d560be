//! Time, passed in. A test moves a [`ManualClock`]; the product uses [`Clock::system`].

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A moment in UTC, to the microsecond: what both databases keep. On the wire it is RFC 3339.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(transparent)]
#[schema(value_type = String, format = DateTime)]
pub struct Timestamp(jiff::Timestamp);

impl Timestamp {
    /// From microseconds since 1970, as stored. What is out of range (the years -9999 to 9999) is clamped to its nearer end.
    pub fn from_micros(micros: i64) -> Self {
        let end = if micros < 0 { jiff::Timestamp::MIN } else { jiff::Timestamp::MAX };
        Self(jiff::Timestamp::from_microsecond(micros).unwrap_or(end))
    }

    /// Microseconds since 1970.
    pub fn as_micros(self) -> i64 {
        self.0.as_microsecond()
    }

    /// The time that has passed since `earlier`; zero if `earlier` is later.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.as_micros() - earlier.as_micros()).unwrap_or(0))
    }
}

impl std::ops::Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        let micros = i64::try_from(span.as_micros()).unwrap_or(i64::MAX);
        Self::from_micros(self.as_micros().saturating_add(micros))
    }
}

impl std::ops::Sub<Duration> for Timestamp {
    type Output = Self;

    fn sub(self, span: Duration) -> Self {
        let micros = i64::try_from(span.as_micros()).unwrap_or(i64::MAX);
        Self::from_micros(self.as_micros().saturating_sub(micros))
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where the time comes from. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Clock(Option<Arc<AtomicI64>>);

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self(None)
    }

    #[expect(clippy::disallowed_methods, reason = "the one place that reads the machine's clock")]
    pub fn now(&self) -> Timestamp {
        match &self.0 {
            // To the microsecond, so that a time read back from a database equals the one written.
            None => Timestamp::from_micros(jiff::Timestamp::now().as_microsecond()),
            Some(micros) => Timestamp::from_micros(micros.load(Ordering::SeqCst)),
        }
    }

    /// A UUID of version 7 at this clock's time.
    pub(crate) fn uuid(&self) -> Uuid {
        if self.0.is_none() {
            return Uuid::now_v7();
        }
        let micros = u64::try_from(self.now().as_micros()).unwrap_or(0);
        let nanos = u32::try_from(micros % 1_000_000 * 1_000).expect("below a second in nanoseconds");
        Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, micros / 1_000_000, nanos))
    }
}

/// The hand that moves a [`Clock`] in a test.
#[derive(Clone, Debug)]
pub struct ManualClock(Arc<AtomicI64>);

impl ManualClock {
    /// Starts at `2026-01-01T00:00:00Z`.
    pub fn new() -> Self {
        Self(Arc::new(AtomicI64::new(1_767_225_600_000_000)))
    }

    pub fn clock(&self) -> Clock {
        Clock(Some(self.0.clone()))
    }

    pub fn advance(&self, span: Duration) {
        self.0.fetch_add(i64::try_from(span.as_micros()).expect("a test's step fits"), Ordering::SeqCst);
    }

    /// Jumps, forward or back, as a machine's clock does when it is corrected.
    pub fn set(&self, to: Timestamp) {
        self.0.store(to.as_micros(), Ordering::SeqCst);
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let hand = ManualClock::new();
        let clock = hand.clock();
        let before = clock.now();
        assert_eq!(clock.now(), before);
        hand.advance(Duration::from_secs(3));
        assert_eq!(clock.now().since(before), Duration::from_secs(3));
        assert_eq!(before.since(clock.now()), Duration::ZERO);
        hand.set(before);
        assert_eq!(clock.now(), before);
    }

    #[test]
    fn what_is_out_of_range_stays_on_its_side() {
        let now = ManualClock::new().clock().now();
        // "Keep for ever" is long before everything, not behind it.
        for span in [Duration::from_secs(u64::from(u32::MAX) * 86_400), Duration::MAX] {
            assert!(now - span < Timestamp::from_micros(0) && now + span > now);
        }
        assert!(Timestamp::from_micros(i64::MIN) < now && Timestamp::from_micros(i64::MAX) > now);
    }

    #[test]
    fn a_stored_time_reads_back_equal() {
        let now = Clock::system().now();
        assert_eq!(Timestamp::from_micros(now.as_micros()), now);
    }
}

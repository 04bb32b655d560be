//! `every`: a fixed span of elapsed time, counted from an anchor. Clocks that are put forward or back do not touch it.

use std::fmt;

use jiff::{Span, SpanRelativeTo};
use notifyx_model::{Invalid, Timestamp};

/// Between one second and [`Every::MAX_DAYS`] days, to the microsecond.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Every {
    text: String,
    micros: i64,
}

const SECOND: i64 = 1_000_000;

impl Every {
    /// Ten years, as far as anything is scheduled ahead.
    pub const MAX_DAYS: i64 = 3_653;

    /// `15m`, `1h30m`, `7d`, or ISO 8601: `PT15M`. A day is 24 hours, a week 7 days; months and years have no length.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let refuse = |why: String| Err(Invalid::new("every", why));
        let text = text.trim();
        if text.len() > 64 {
            return refuse(format!("has {} bytes, more than 64", text.len()));
        }
        let Ok(span) = text.parse::<Span>() else {
            return refuse(format!("`{text}` is not a duration, such as 15m, 1h30m, 7d or PT15M"));
        };
        let Ok(length) = span.to_duration(SpanRelativeTo::days_are_24_hours()) else {
            return refuse(format!("`{text}` counts months or years, whose lengths differ: use cron, or days"));
        };
        Self::bounded(text, i64::try_from(length.as_micros()).ok())
    }

    /// As services say it; as text it is in seconds.
    pub fn from_micros(micros: i64) -> Result<Self, Invalid> {
        let (seconds, fraction) = (micros / SECOND, micros % SECOND);
        let text = match fraction {
            0 => format!("{seconds}s"),
            _ => format!("{seconds}.{:06}s", fraction.abs()),
        };
        Self::bounded(&text, Some(micros))
    }

    pub fn as_micros(&self) -> i64 {
        self.micros
    }

    fn bounded(text: &str, micros: Option<i64>) -> Result<Self, Invalid> {
        let bounds = SECOND..=Self::MAX_DAYS * 24 * 60 * 60 * SECOND;
        match micros.filter(|micros| bounds.contains(micros)) {
            Some(micros) => Ok(Self { text: text.to_owned(), micros }),
            None => Err(Invalid::new("every", format!("`{text}` is not between 1 second and {} days", Self::MAX_DAYS))),
        }
    }

    /// The first of `anchor`, `anchor` + 1 span, + 2 spans … that is after `after`.
    pub fn next_after(&self, anchor: Timestamp, after: Timestamp) -> Timestamp {
        let elapsed = after.as_micros() - anchor.as_micros();
        let spans = if elapsed < 0 { 0 } else { elapsed / self.micros + 1 };
        Timestamp::from_micros(anchor.as_micros().saturating_add(spans.saturating_mul(self.micros)))
    }
}

impl Every {
    /// How many times lie between one of them and another moment, that one included.
    pub fn count(&self, from: Timestamp, before: Timestamp) -> u64 {
        let span = before.as_micros() - from.as_micros();
        u64::try_from((span - 1).div_euclid(self.micros) + 1).unwrap_or(0)
    }

    /// The time that comes so many times after one of them.
    pub fn later(&self, from: Timestamp, times: u64) -> Timestamp {
        let times = i64::try_from(times).unwrap_or(i64::MAX);
        Timestamp::from_micros(from.as_micros().saturating_add(times.saturating_mul(self.micros)))
    }
}

impl fmt::Display for Every {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_people_and_iso_write_them() {
        for (text, seconds) in
            [("15m", 900), ("1h30m", 5_400), ("7d", 604_800), ("1w", 604_800), ("PT15M", 900), ("P1DT1S", 86_401)]
        {
            assert_eq!(Every::parse(text).unwrap().micros, seconds * SECOND, "{text}");
        }
        assert_eq!(Every::parse("1.5s").unwrap().micros, 1_500_000);
    }

    #[test]
    fn what_is_no_duration_is_refused_with_its_bound() {
        for (text, answer) in [
            ("soon", "every `soon` is not a duration, such as 15m, 1h30m, 7d or PT15M"),
            ("", "every `` is not a duration, such as 15m, 1h30m, 7d or PT15M"),
            ("999ms", "every `999ms` is not between 1 second and 3653 days"),
            ("-1h", "every `-1h` is not between 1 second and 3653 days"),
            ("3654d", "every `3654d` is not between 1 second and 3653 days"),
            ("1mo", "every `1mo` counts months or years, whose lengths differ: use cron, or days"),
        ] {
            assert_eq!(Every::parse(text).unwrap_err().to_string(), answer);
        }
        assert!(Every::parse(&"1".repeat(1_000)).is_err());
        assert!(Every::parse("3653d").is_ok() && Every::parse("1s").is_ok());
    }

    #[test]
    fn microseconds_read_back_from_their_text() {
        for micros in [SECOND, 1_500_000, 90 * SECOND + 1, 3_653 * 86_400 * SECOND] {
            let every = Every::from_micros(micros).unwrap();
            assert_eq!(Every::parse(&every.to_string()), Ok(every.clone()), "{every}");
            assert_eq!(every.as_micros(), micros);
        }
        for micros in [i64::MIN, -SECOND, 0, 999_999, 3_653 * 86_400 * SECOND + 1, i64::MAX] {
            assert!(Every::from_micros(micros).is_err(), "{micros}");
        }
    }

    #[test]
    fn many_times_are_passed_at_once() {
        let every = Every::parse("10s").unwrap();
        let at = |seconds: i64| Timestamp::from_micros(seconds * SECOND);
        for (before, count) in [(-50, 0), (3, 0), (4, 1), (13, 1), (14, 2), (1_000_003, 100_000)] {
            assert_eq!(every.count(at(3), at(before)), count, "before {before}");
        }
        assert_eq!((every.later(at(3), 0), every.later(at(3), 7)), (at(3), at(73)));
    }

    #[test]
    fn times_are_counted_from_the_anchor() {
        let every = Every::parse("10s").unwrap();
        let at = |seconds: i64| Timestamp::from_micros(seconds * SECOND);
        for (after, next) in [(-100, 3), (2, 3), (3, 13), (12, 13), (13, 23)] {
            assert_eq!(every.next_after(at(3), at(after)), at(next), "after {after}");
        }
    }
}

//! `cron`: times of the wall clock, in a time zone.
//!
//! The pattern is croner's to match; what becomes of it where the wall clock is put forward or back is decided here, because
//! croner takes a list of hours for an interval and would leave out the one that falls into the gap:
//! - A pattern without `*` in its seconds, minutes and hours names **times of day**. One that the clock jumps over comes at the first
//!   instant after the gap, together with whatever else comes then; one that comes twice counts the first time.
//! - A pattern with `*` in one of them (`*/5 * * * *`) is an **interval**: it goes on through both passes of a repeated hour, and
//!   what the clock jumps over does not exist.

use std::{fmt, str::FromStr};

use croner::parser::{CronParser, Seconds, Year};
use jiff::{
    Timestamp as Instant, ToSpan,
    civil::DateTime,
    tz::{AmbiguousOffset, TimeZone},
};
use notifyx_model::{Invalid, Timestamp};

/// A pattern of five fields (minute, hour, day of the month, month, day of the week) or six (seconds before them).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cron {
    text: String,
    pattern: Box<croner::Cron>,
    is_interval: bool,
}

impl Cron {
    /// A list of every second minute has 87.
    pub const MAX_BYTES: usize = 256;

    /// As Vixie cron writes it: with names (`MON`, `JAN`), and `L`, `W` and `#` in the days. Where both days are given, either will do;
    /// `+` before the day of the week asks for both.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let refuse = |why: String| Err(Invalid::new("cron", why));
        let text = text.trim();
        if text.len() > Self::MAX_BYTES {
            return refuse(format!("has {} bytes, more than {}", text.len(), Self::MAX_BYTES));
        }
        if !text.chars().all(|c| c.is_ascii_graphic() || c == ' ') {
            return refuse("holds something other than ASCII letters, digits, signs and spaces".into());
        }
        let fields: Vec<&str> = text.split_whitespace().collect();
        let time_of_day = match fields.len() {
            5 => &fields[..2],
            6 => &fields[..3],
            other => return refuse(format!("`{text}` has {other} fields, not 5 or 6 (with seconds)")),
        };
        let is_interval = time_of_day.iter().any(|field| field.contains(['*', '?']));
        match CronParser::builder().seconds(Seconds::Optional).year(Year::Disallowed).build().parse(text) {
            Ok(pattern) => Ok(Self { text: text.to_owned(), pattern: Box::new(pattern), is_interval }),
            Err(error) => refuse(format!("`{text}` cannot be read: {}", error.to_string().trim_end_matches('.'))),
        }
    }

    /// The first time after another; `None` if there is none before the year 5000.
    pub fn next_after(&self, zone: &TimeZone, after: Timestamp) -> Option<Timestamp> {
        let after = Instant::from_microsecond(after.as_micros()).ok()?;
        let next = if self.is_interval { self.next_of_interval(zone, after) } else { self.next_of_day(zone, after) }?;
        Some(Timestamp::from_micros(next.as_microsecond()))
    }

    /// In the order of real time, through both passes.
    fn next_of_interval(&self, zone: &TimeZone, after: Instant) -> Option<Instant> {
        let next = self.pattern.find_next_occurrence(&after.to_zoned(zone.clone()), false).ok()?;
        Some(next.timestamp())
    }

    /// In the order of the wall clock, each time where it belongs.
    fn next_of_day(&self, zone: &TimeZone, after: Instant) -> Option<Instant> {
        let mut wall = zone.to_datetime(after);
        loop {
            wall = self.pattern.find_next_occurrence(&wall, false).ok()?;
            // In the second pass of a repeated hour, what comes next on the wall clock may have been in the first.
            let at = instant_of(zone, wall)?;
            if at > after {
                return Some(at);
            }
        }
    }
}

/// When the wall clock first shows a time, or, if it jumps over it, when it has jumped.
fn instant_of(zone: &TimeZone, wall: DateTime) -> Option<Instant> {
    let ambiguous = zone.to_ambiguous_timestamp(wall);
    match ambiguous.offset() {
        AmbiguousOffset::Unambiguous { .. } | AmbiguousOffset::Fold { .. } => ambiguous.earlier().ok(),
        AmbiguousOffset::Gap { .. } => {
            let behind_the_gap = ambiguous.later().ok()?;
            zone.preceding(behind_the_gap.checked_add(1.second()).ok()?).next().map(|change| change.timestamp())
        }
    }
}

impl FromStr for Cron {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        Self::parse(text)
    }
}

impl fmt::Display for Cron {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use jiff::tz::TimeZoneDatabase;
    use rand::{SeedableRng, rngs::StdRng, seq::IndexedRandom};

    use super::*;

    fn zone(name: &str) -> TimeZone {
        TimeZoneDatabase::bundled().get(name).unwrap()
    }

    fn utc(text: &str) -> Timestamp {
        Timestamp::from_micros(text.parse::<Instant>().unwrap().as_microsecond())
    }

    /// The times after one moment, until another.
    fn times(cron: &str, zone_name: &str, after: &str, until: &str) -> Vec<String> {
        let (cron, zone) = (Cron::parse(cron).unwrap(), zone(zone_name));
        let first = cron.next_after(&zone, utc(after));
        std::iter::successors(first, |at| cron.next_after(&zone, *at))
            .take_while(|at| *at <= utc(until))
            .map(|at| at.to_string())
            .collect()
    }

    #[test]
    fn a_time_that_the_clock_jumps_over_comes_once_at_the_first_instant_after_the_gap() {
        // Berlin, 29 March: 02:00 is 03:00, at 01:00 UTC.
        let day = |cron| times(cron, "Europe/Berlin", "2026-03-28T23:00:00Z", "2026-03-29T21:59:59Z");
        assert_eq!(day("30 2 * * *"), ["2026-03-29T01:00:00Z"]);
        assert_eq!(day("15,30,45 2,14 * * *")[..2], ["2026-03-29T01:00:00Z", "2026-03-29T12:15:00Z"]);
        assert_eq!(day("0 2,3 * * *"), ["2026-03-29T01:00:00Z"]);
        // New York, 8 March: 02:00 is 03:00, at 07:00 UTC.
        let day = |cron| times(cron, "America/New_York", "2026-03-08T05:00:00Z", "2026-03-09T03:59:59Z");
        assert_eq!(day("30 2 * * *"), ["2026-03-08T07:00:00Z"]);
        // Lord Howe, 4 October: 02:00 is 02:30, at 15:30 UTC of the day before.
        let day = |cron| times(cron, "Australia/Lord_Howe", "2026-10-03T13:30:00Z", "2026-10-04T12:59:59Z");
        assert_eq!(day("15 2 * * *"), ["2026-10-03T15:30:00Z"]);
        assert_eq!(day("45 2 * * *"), ["2026-10-03T15:45:00Z"]);
    }

    #[test]
    fn a_time_that_comes_twice_counts_the_first_time() {
        // Berlin, 25 October: 03:00 is 02:00, at 01:00 UTC.
        let day = |cron| times(cron, "Europe/Berlin", "2026-10-24T22:00:00Z", "2026-10-25T22:59:59Z");
        assert_eq!(day("30 2 * * *"), ["2026-10-25T00:30:00Z"]);
        assert_eq!(
            day("0,30 2,3 * * *")[..3],
            ["2026-10-25T00:00:00Z", "2026-10-25T00:30:00Z", "2026-10-25T02:00:00Z"]
        );
        // New York, 1 November: 02:00 is 01:00, at 06:00 UTC.
        let day = |cron| times(cron, "America/New_York", "2026-11-01T04:00:00Z", "2026-11-02T04:59:59Z");
        assert_eq!(day("30 1 * * *"), ["2026-11-01T05:30:00Z"]);
        // Lord Howe, 5 April: 02:00 is 01:30, at 15:00 UTC of the day before.
        let day = |cron| times(cron, "Australia/Lord_Howe", "2026-04-04T13:00:00Z", "2026-04-05T13:29:59Z");
        assert_eq!(day("45 1 * * *"), ["2026-04-04T14:45:00Z"]);
    }

    #[test]
    fn asked_in_the_second_pass_nothing_of_the_first_comes_again() {
        let (cron, berlin) = (Cron::parse("10,50 2 * * *").unwrap(), zone("Europe/Berlin"));
        assert_eq!(cron.next_after(&berlin, utc("2026-10-25T01:20:00Z")), Some(utc("2026-10-26T01:10:00Z")));
    }

    #[test]
    fn an_interval_goes_on_through_both_passes_and_knows_no_time_in_the_gap() {
        for (name, after, until) in [
            ("Europe/Berlin", "2026-03-28T23:00:00Z", "2026-03-29T05:00:00Z"),
            ("Europe/Berlin", "2026-10-24T22:00:00Z", "2026-10-25T05:00:00Z"),
            ("America/New_York", "2026-03-08T05:00:00Z", "2026-03-08T12:00:00Z"),
            ("America/New_York", "2026-11-01T04:00:00Z", "2026-11-01T12:00:00Z"),
            ("Australia/Lord_Howe", "2026-10-03T13:00:00Z", "2026-10-03T20:00:00Z"),
            ("Australia/Lord_Howe", "2026-04-04T13:00:00Z", "2026-04-04T20:00:00Z"),
        ] {
            let zone = zone(name);
            for text in ["*/20 * * * *", "30 * * * *", "*/15 2 * * *", "*/10 1-2 * * *", "0 */7 * * * *"] {
                let cron = Cron::parse(text).unwrap();
                // Minute by minute of real time: what shows on the clock matches, or not.
                let shown = |minute: i64| utc(after).as_micros() + minute * 60_000_000;
                let expected: Vec<String> = (1..1_000)
                    .map(shown)
                    .take_while(|micros| *micros <= utc(until).as_micros())
                    .map(|micros| Instant::from_microsecond(micros).unwrap())
                    .filter(|at| cron.pattern.is_time_matching(&zone.to_datetime(*at)).unwrap())
                    .map(|at| at.to_string())
                    .collect();
                assert_eq!(times(text, name, after, until), expected, "{text} in {name} after {after}");
            }
        }
    }

    #[test]
    fn times_of_day_come_each_once_and_in_order() {
        for (name, week) in [
            ("Europe/Berlin", "2026-03-26T00:00"),
            ("Europe/Berlin", "2026-10-22T00:00"),
            ("America/New_York", "2026-03-05T00:00"),
            ("America/New_York", "2026-10-29T00:00"),
            ("Australia/Lord_Howe", "2026-10-01T00:00"),
            ("Australia/Lord_Howe", "2026-04-02T00:00"),
        ] {
            let (zone, first) = (zone(name), week.parse::<DateTime>().unwrap());
            for text in ["30 2 * * *", "0,15,45 1-3 * * *", "0-59 2 * * SUN", "59 23 * * *"] {
                let cron = Cron::parse(text).unwrap();
                // Minute by minute of the wall clock, the ones in a gap too.
                let minutes = (0..7 * 24 * 60).map(|minute| first.checked_add(minute.minutes()).unwrap());
                let expected: BTreeSet<Instant> = minutes
                    .filter(|wall| cron.pattern.is_time_matching(wall).unwrap())
                    .map(|wall| instant_of(&zone, wall).unwrap())
                    .collect();
                let begin = instant_of(&zone, first).unwrap().checked_sub(1.second()).unwrap().to_string();
                let end = expected.last().unwrap().to_string();
                let expected: Vec<String> = expected.iter().map(ToString::to_string).collect();
                assert_eq!(times(text, name, &begin, &end), expected, "{text} in {name} from {week}");
            }
        }
    }

    #[test]
    fn croner_alone_leaves_out_a_listed_hour_that_the_clock_jumps_over() {
        let midnight = utc("2026-03-28T23:00:00Z").as_micros();
        let midnight = Instant::from_microsecond(midnight).unwrap().to_zoned(zone("Europe/Berlin"));
        let next = |text| Cron::parse(text).unwrap().pattern.find_next_occurrence(&midnight, false).unwrap();
        assert_eq!(next("30 2 * * *").to_string(), "2026-03-29T03:00:00+02:00[Europe/Berlin]");
        assert_eq!(next("30 2,14 * * *").to_string(), "2026-03-29T14:30:00+02:00[Europe/Berlin]");
    }

    #[test]
    fn whatever_is_asked_is_answered() {
        let mut rng = StdRng::seed_from_u64(4);
        let times = ["*", "0", "7", "*/7", "1-5", "5-1", "1,2", "0-23/4", "/", "-"];
        let days = ["*", "L", "15W", "31W", "30", "31", "1-7", "?", "LW", "0"];
        let months = ["*", "FEB", "2,4", "*/5", "13", "JAN-MAR"];
        let weekdays = ["*", "MON#5", "+FRI", "5#L", "MON-FRI", "7", "+SUN#1", "#"];
        let mut read = 0;
        for _ in 0..400 {
            let mut any = |of: &[&'static str]| *of.choose(&mut rng).unwrap();
            let text = [any(&times), any(&times), any(&times), any(&days), any(&months), any(&weekdays)].join(" ");
            if let Ok(cron) = Cron::parse(&text) {
                let after = utc("2026-01-01T00:00:00Z");
                assert!(cron.next_after(&TimeZone::UTC, after).is_none_or(|at| at > after), "{cron}");
                read += 1;
            }
        }
        assert!(read > 40, "{read}");
    }

    #[test]
    fn a_fraction_of_a_second_neither_repeats_nor_skips_a_time() {
        let (cron, utc_zone) = (Cron::parse("*/2 * * * * *").unwrap(), TimeZone::UTC);
        for (after, next) in
            [("00:00:01.999999", "00:00:02"), ("00:00:02", "00:00:04"), ("00:00:02.000001", "00:00:04")]
        {
            let at = |time: &str| utc(&format!("2026-01-01T{time}Z"));
            assert_eq!(cron.next_after(&utc_zone, at(after)), Some(at(next)), "after {after}");
        }
    }

    #[test]
    fn what_is_no_pattern_is_refused_by_its_field() {
        for bad in [
            "",
            "* * * *",
            "* * * * * * *",
            "61 * * * *",
            "* 24 * * *",
            "* * 32 * *",
            "a b c d e",
            "@daily",
            "*/0 * * * *",
        ] {
            let answer = Cron::parse(bad).unwrap_err().to_string();
            assert!(answer.starts_with("cron "), "{bad}: {answer}");
        }
        assert_eq!(
            Cron::parse("* * * *").unwrap_err().to_string(),
            "cron `* * * *` has 4 fields, not 5 or 6 (with seconds)"
        );
        assert!(Cron::parse("0 ٣ * * *").is_err() && Cron::parse(&"0,".repeat(500)).is_err());
    }

    #[test]
    fn a_pattern_may_come_rarely_or_never() {
        let next = |text| Cron::parse(text).unwrap().next_after(&TimeZone::UTC, utc("2026-01-01T00:00:00Z"));
        assert_eq!(next("0 0 29 2 *"), Some(utc("2028-02-29T00:00:00Z")));
        assert_eq!(next("0 0 29 2 +MON"), Some(utc("2044-02-29T00:00:00Z")));
        assert_eq!(next("0 0 30 2 *"), None);
        assert_eq!(next("* * 31 4 *"), None);
    }
}

//! Times and spans as people type them: `--at 'tomorrow 9:00'`, `--in 10m`. The one place where such text is read.
//!
//! A time of day is meant in the machine's time zone, or in the one named behind it. At a change of the clocks the rule is that of
//! recurring schedules: a time that is skipped is the first instant after the gap, one that comes twice is the first of the two.

use jiff::{
    Span, ToSpan, Zoned,
    civil::{Date, DateTime, Time, Weekday},
    tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase},
};
use notifyx_model::{Clock, GivenTime, Timestamp};

/// Longer than any time in words.
const TEXT_BYTES_MAX: usize = 100;

/// What may be typed, for `--help` and for whoever typed something else.
pub(crate) const FORMS: &str = "9:00, tomorrow 9:00, monday 18:30, 2026-12-24 18:00, 2026-12-24 18:00 Europe/Berlin, in 10m, \
                                2026-12-24T18:00:00+01:00 or a Unix time";

/// Of `--at`: when something is to happen, for clap.
pub(crate) fn at(text: &str) -> Result<Timestamp, String> {
    let now = now();
    bounded(read(text, &now)?, &now)
}

/// Of `--in`: when a span has passed, for clap.
pub(crate) fn after(text: &str) -> Result<Timestamp, String> {
    let now = now();
    bounded(behind(text, &now)?, &now)
}

/// Any moment, for clap.
pub(crate) fn moment(text: &str) -> Result<Timestamp, String> {
    read(text, &now())
}

fn bounded(at: Timestamp, now: &Zoned) -> Result<Timestamp, String> {
    let last = timestamp(now) + GivenTime::AHEAD_MAX;
    if at <= last { Ok(at) } else { Err(format!("that is {at}, more than ten years ahead (at most {last})")) }
}

fn now() -> Zoned {
    zoned(Clock::system().now(), TimeZone::system())
}

fn zoned(at: Timestamp, zone: TimeZone) -> Zoned {
    let instant = jiff::Timestamp::from_microsecond(at.as_micros()).expect("a timestamp is one of jiff's");
    instant.to_zoned(zone)
}

fn read(text: &str, now: &Zoned) -> Result<Timestamp, String> {
    let text = text.trim();
    if text.len() > TEXT_BYTES_MAX {
        return Err(format!("has {} bytes, more than {TEXT_BYTES_MAX}", text.len()));
    }
    if text.eq_ignore_ascii_case("now") {
        return Ok(timestamp(now));
    }
    if text.get(..3).is_some_and(|word| word.eq_ignore_ascii_case("in ")) {
        return behind(&text[3..], now);
    }
    // Digits alone are a Unix time, where they are as many as one of this century has.
    let is_unix = text.len() >= 9 && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    if is_unix || text.parse::<jiff::Timestamp>().is_ok() {
        let given: GivenTime = text.parse().expect("whatever it is, it is a text");
        return given.timestamp("the time").map_err(|error| error.to_string());
    }
    let (words, zone) = zone_of(text)?;
    let here = match zone {
        Some(zone) => now.with_time_zone(zone),
        None => now.clone(),
    };
    let wall = wall(&words, &here).ok_or_else(|| format!("`{text}` is not a time: try {FORMS}"))??;
    instant(wall, here.time_zone()).ok_or_else(|| format!("`{text}` is beyond the calendar"))
}

/// A span from now on: hours and less by the clock that never jumps, days and more by the calendar.
fn behind(text: &str, now: &Zoned) -> Result<Timestamp, String> {
    let refuse = || format!("`{text}` is not a span of time: try 10m, 1h30m, 2 days or PT10M");
    let span: Span = text.trim().parse().map_err(|_| refuse())?;
    if span.is_negative() {
        return Err(format!("`{text}` is negative: what has passed cannot be waited for"));
    }
    let then = now.checked_add(span).map_err(|_| format!("`{text}` is beyond the calendar"))?;
    Ok(timestamp(&then))
}

fn timestamp(at: &Zoned) -> Timestamp {
    Timestamp::from_micros(at.timestamp().as_microsecond())
}

/// The words, and the time zone that is named last among them.
fn zone_of(text: &str) -> Result<(Vec<String>, Option<TimeZone>), String> {
    let mut words: Vec<String> =
        text.split([' ', '\t', ',']).filter(|word| !word.is_empty()).map(str::to_owned).collect();
    let named =
        words.last().filter(|word| word.contains('/') || ["utc", "gmt"].contains(&word.to_lowercase().as_str()));
    let Some(name) = named.cloned() else { return Ok((words, None)) };
    words.pop();
    let zone = TimeZoneDatabase::bundled().get(&name);
    Ok((words, Some(zone.map_err(|_| format!("`{name}` is not an IANA time zone, such as Europe/Berlin or UTC"))?)))
}

/// What the wall clock is to show; `None`: these are no words for it.
fn wall(words: &[String], now: &Zoned) -> Option<Result<DateTime, String>> {
    let words: Vec<String> = words.iter().map(|word| word.to_lowercase()).filter(|word| word != "at").collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    // 2026-12-24T18:00
    if let [one] = words[..]
        && one.contains('t')
        && let Ok(wall) = one.to_uppercase().parse::<DateTime>()
    {
        return Some(Ok(wall));
    }
    let (day, rest) = day(&words, now)?;
    let Some(day) = day else {
        // A time alone is the next such time.
        let today = now.date().to_datetime(time(rest)?);
        return Some(Ok(if today > now.datetime() { today } else { today.saturating_add(1.day()) }));
    };
    if rest.is_empty() {
        return Some(Err(format!("at what time of day? Say for example `{} 9:00`", words.join(" "))));
    }
    let time = time(rest)?;
    Some(Ok(match day {
        Day::Named(date) => date.to_datetime(time),
        Day::Each { weekday, next } => {
            let ahead = now.weekday().until(weekday);
            let first = now.date().saturating_add(i64::from(ahead).days()).to_datetime(time);
            let gone = first <= now.datetime() || (next && ahead == 0);
            if gone { first.saturating_add(7.days()) } else { first }
        }
    }))
}

enum Day {
    Named(Date),
    /// The first that is still to come; `next`: not today.
    Each {
        weekday: Weekday,
        next: bool,
    },
}

/// The day that the first words name, if they name one, and the words behind.
fn day<'a, 'b>(words: &'a [&'b str], now: &Zoned) -> Option<(Option<Day>, &'a [&'b str])> {
    let (first, rest) = words.split_first()?;
    let day = match *first {
        "today" => Day::Named(now.date()),
        "tomorrow" => Day::Named(now.date().tomorrow().ok()?),
        "next" => {
            let (name, rest) = rest.split_first()?;
            return Some((Some(Day::Each { weekday: weekday(name)?, next: true }), rest));
        }
        word => match (weekday(word), word.parse::<Date>()) {
            (Some(weekday), _) => Day::Each { weekday, next: false },
            // jiff takes the beginning of a longer text for a date.
            (None, Ok(date)) if word.len() == "2026-12-24".len() => Day::Named(date),
            (None, _) => return Some((None, words)),
        },
    };
    Some((Some(day), rest))
}

fn weekday(word: &str) -> Option<Weekday> {
    const NAMES: [(&str, Weekday); 7] = [
        ("monday", Weekday::Monday),
        ("tuesday", Weekday::Tuesday),
        ("wednesday", Weekday::Wednesday),
        ("thursday", Weekday::Thursday),
        ("friday", Weekday::Friday),
        ("saturday", Weekday::Saturday),
        ("sunday", Weekday::Sunday),
    ];
    let named = |(name, _): &&(&str, Weekday)| word.len() >= 3 && name.starts_with(word);
    NAMES.iter().find(named).map(|(_, weekday)| *weekday)
}

/// `9:00`, `18:30:05`, `9am`, `9:30 pm`, `noon`, `midnight`.
fn time(words: &[&str]) -> Option<Time> {
    let text = words.concat();
    match text.as_str() {
        "noon" => return Some(Time::midnight().saturating_add(12.hours())),
        "midnight" => return Some(Time::midnight()),
        _ => {}
    }
    let (clock, half) = match (text.strip_suffix("am"), text.strip_suffix("pm")) {
        (Some(clock), _) => (clock, Some(0)),
        (_, Some(clock)) => (clock, Some(12)),
        (None, None) => (text.as_str(), None),
    };
    let mut parts = clock.split(':');
    let mut part = |most: i8| {
        let part = parts.next()?;
        let sane = (1..=2).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
        part.parse().ok().filter(|number: &i8| sane && *number <= most)
    };
    let hour = part(23)?;
    let (minute, second) = match clock.matches(':').count() {
        // `9` alone may be anything.
        0 if half.is_none() => return None,
        0 => (0, 0),
        1 => (part(59)?, 0),
        2 => (part(59)?, part(59)?),
        _ => return None,
    };
    let hour = match half {
        Some(half) if (1..=12).contains(&hour) => hour % 12 + half,
        Some(_) => return None,
        None => hour,
    };
    Time::new(hour, minute, second, 0).ok()
}

/// When the wall clock first shows it, or, if it jumps over it, when it has jumped.
fn instant(wall: DateTime, zone: &TimeZone) -> Option<Timestamp> {
    let ambiguous = zone.to_ambiguous_timestamp(wall);
    let at = match ambiguous.offset() {
        AmbiguousOffset::Unambiguous { .. } | AmbiguousOffset::Fold { .. } => ambiguous.earlier().ok()?,
        AmbiguousOffset::Gap { .. } => {
            let behind = ambiguous.later().ok()?.checked_add(1.second()).ok()?;
            zone.preceding(behind).next()?.timestamp()
        }
    };
    Some(Timestamp::from_micros(at.as_microsecond()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A Saturday.
    const NOW: &str = "2026-11-21T16:40:09.5+01:00[Europe/Berlin]";

    fn berlin(now: &str) -> Zoned {
        let now: jiff::Timestamp = now.split('[').next().unwrap().parse().unwrap();
        now.to_zoned(TimeZoneDatabase::bundled().get("Europe/Berlin").unwrap())
    }

    #[track_caller]
    fn reads(now: &str, table: &[(&str, &str)]) {
        let now = berlin(now);
        for (text, expected) in table {
            let said = read(text, &now).map(|at| at.to_string());
            assert_eq!(said.as_deref(), Ok(*expected), "{text}");
        }
    }

    #[test]
    fn words_and_times_of_day_are_meant_here() {
        reads(
            NOW,
            &[
                ("now", "2026-11-21T15:40:09.5Z"),
                ("18:00", "2026-11-21T17:00:00Z"),
                ("9:00", "2026-11-22T08:00:00Z"),
                ("16:40", "2026-11-22T15:40:00Z"),
                ("16:40:10", "2026-11-21T15:40:10Z"),
                ("noon", "2026-11-22T11:00:00Z"),
                ("tomorrow 9:00", "2026-11-22T08:00:00Z"),
                ("Tomorrow at 9 am", "2026-11-22T08:00:00Z"),
                ("tomorrow 12am", "2026-11-21T23:00:00Z"),
                ("tomorrow, 12:30pm", "2026-11-22T11:30:00Z"),
                ("today 9:00", "2026-11-21T08:00:00Z"),
                ("tomorrow midnight", "2026-11-21T23:00:00Z"),
                ("monday 9:00", "2026-11-23T08:00:00Z"),
                ("sat 18:00", "2026-11-21T17:00:00Z"),
                ("saturday 9:00", "2026-11-28T08:00:00Z"),
                ("next saturday 18:00", "2026-11-28T17:00:00Z"),
                ("next mon 9:00", "2026-11-23T08:00:00Z"),
                ("2026-12-24 18:00", "2026-12-24T17:00:00Z"),
                ("2026-07-01 18:00", "2026-07-01T16:00:00Z"),
                ("2026-12-24T18:00", "2026-12-24T17:00:00Z"),
            ],
        );
    }

    #[test]
    fn a_zone_may_be_named() {
        reads(
            NOW,
            &[
                ("2026-12-24 18:00 America/New_York", "2026-12-24T23:00:00Z"),
                ("tomorrow 9:00 UTC", "2026-11-22T09:00:00Z"),
                // There it is Sunday already.
                ("tomorrow 9:00 Pacific/Auckland", "2026-11-22T20:00:00Z"),
            ],
        );
    }

    #[test]
    fn instants_and_spans_are_the_same_everywhere() {
        reads(
            NOW,
            &[
                ("2026-12-24T18:00:00+01:00", "2026-12-24T17:00:00Z"),
                ("2026-12-24 18:00:00.25Z", "2026-12-24T18:00:00.25Z"),
                ("1795276200", "2026-11-21T15:50:00Z"),
                ("1795276200123", "2026-11-21T15:50:00.123Z"),
                ("1795276200.5", "2026-11-21T15:50:00.5Z"),
                ("in 10m", "2026-11-21T15:50:09.5Z"),
                ("In 1h30m", "2026-11-21T17:10:09.5Z"),
                ("in 2 days", "2026-11-23T15:40:09.5Z"),
                ("in PT10S", "2026-11-21T15:40:19.5Z"),
            ],
        );
    }

    #[test]
    fn a_time_that_is_skipped_is_the_end_of_the_gap() {
        // At 2:00 the clocks show 3:00.
        reads(
            "2026-03-28T20:00:00+01:00",
            &[
                ("tomorrow 1:59", "2026-03-29T00:59:00Z"),
                ("tomorrow 2:00", "2026-03-29T01:00:00Z"),
                ("2026-03-29 2:30", "2026-03-29T01:00:00Z"),
                ("tomorrow 3:00", "2026-03-29T01:00:00Z"),
                ("tomorrow 3:01", "2026-03-29T01:01:00Z"),
                // A day by the calendar has 23 hours then; 24 hours are 24 hours.
                ("in 1 day", "2026-03-29T18:00:00Z"),
                ("in 24h", "2026-03-29T19:00:00Z"),
            ],
        );
    }

    #[test]
    fn a_time_that_comes_twice_is_the_first() {
        // At 3:00 the clocks show 2:00.
        reads(
            "2026-10-24T20:00:00+02:00",
            &[
                ("tomorrow 1:59", "2026-10-24T23:59:00Z"),
                ("tomorrow 2:30", "2026-10-25T00:30:00Z"),
                ("tomorrow 3:00", "2026-10-25T02:00:00Z"),
                ("2026-10-25 02:30:00+01:00", "2026-10-25T01:30:00Z"),
            ],
        );
    }

    #[test]
    fn what_is_no_time_says_what_would_be() {
        let now = berlin(NOW);
        for (bad, said) in [
            ("", "is not a time: try"),
            ("soon", "`soon` is not a time: try 9:00, tomorrow 9:00"),
            ("tomorrow", "at what time of day? Say for example `tomorrow 9:00`"),
            ("2026-12-24", "at what time of day?"),
            ("next monday", "at what time of day?"),
            ("tomorrow 9", "is not a time"),
            ("tomorrow 25:00", "is not a time"),
            ("tomorrow 9:60", "is not a time"),
            ("tomorrow 13pm", "is not a time"),
            ("tomorrow 0am", "is not a time"),
            ("9:00 tomorrow 9:00", "is not a time"),
            ("2026-02-30 9:00", "is not a time"),
            ("+9:00", "is not a time"),
            ("mo 9:00", "is not a time"),
            ("tomorrow 9:00 Mars/Base", "`Mars/Base` is not an IANA time zone"),
            ("in", "is not a time"),
            ("in a moment", "`a moment` is not a span of time"),
            ("in -10m", "is negative"),
            ("in 99999 years", "`99999 years` is"),
            ("946684799", "before 2000-01-01"),
        ] {
            let told = read(bad, &now).unwrap_err();
            assert!(told.contains(said), "{bad:?}: {told}");
        }
        assert!(read(&"9".repeat(1_000), &now).unwrap_err().contains("more than 100"));
    }

    #[test]
    fn ten_years_ahead_is_the_end() {
        let now = berlin(NOW);
        assert!(bounded(read("2036-11-21 16:40", &now).unwrap(), &now).is_ok());
        let far = bounded(read("2036-11-22 16:41", &now).unwrap(), &now).unwrap_err();
        assert!(far.contains("more than ten years ahead"), "{far}");
        assert!(after("11 years").is_err() && at("2000-01-01T00:00:00Z").is_ok());
    }

    #[test]
    fn a_span_counts_from_now() {
        let now = berlin(NOW);
        for (text, expected) in
            [("10m", "2026-11-21T15:50:09.5Z"), ("PT1H", "2026-11-21T16:40:09.5Z"), ("0s", "2026-11-21T15:40:09.5Z")]
        {
            assert_eq!(behind(text, &now).unwrap().to_string(), expected, "{text}");
        }
        for bad in ["", "10", "soon", "-10m", "tomorrow 9:00"] {
            assert!(behind(bad, &now).is_err(), "{bad:?}");
        }
    }
}

//! Terms, and what was missed. The rules' own tests are beside them.

use super::*;

fn utc(text: &str) -> Timestamp {
    Timestamp::from_micros(text.parse::<jiff::Timestamp>().unwrap().as_microsecond())
}

const NOON: &str = "2026-06-01T12:00:00Z";

fn term() -> Term {
    Term { created_at: utc(NOON), start: None, end: None, count: None }
}

fn recurrence(rule: &str, term: Term) -> Recurrence {
    Recurrence::new(rule.parse().unwrap(), Zone::parse("UTC").unwrap(), term).unwrap()
}

fn refusal(rule: &str, term: Term) -> String {
    Recurrence::new(rule.parse().unwrap(), Zone::parse("UTC").unwrap(), term).unwrap_err().to_string()
}

fn after_noon(seconds: u64) -> Timestamp {
    utc(NOON) + Duration::from_secs(seconds)
}

fn look(now: Timestamp) -> Look {
    Look::new(now, Duration::ZERO, Duration::ZERO)
}

/// What the wall clock shows then.
fn local(recurrence: &Recurrence, at: Timestamp) -> jiff::Zoned {
    jiff::Timestamp::from_microsecond(at.as_micros()).unwrap().to_zoned(recurrence.zone.0.clone())
}

fn every_time(recurrence: &Recurrence) -> Vec<Timestamp> {
    let mut done = 0;
    std::iter::successors(Some(recurrence.first()), |at| {
        done += 1;
        recurrence.next_after(*at, done)
    })
    .take(100)
    .collect()
}

#[test]
fn without_a_start_every_begins_one_span_after_its_creation() {
    assert_eq!(recurrence("every 10s", term()).first(), after_noon(10));
}

#[test]
fn a_start_is_the_first_time_and_what_is_counted_from() {
    let started = recurrence("every 10s", Term { start: Some(after_noon(3)), ..term() });
    assert_eq!(every_time(&started)[..2], [after_noon(3), after_noon(13)]);
    let long_ago = recurrence("every 10s", Term { start: Some(utc("2020-01-01T00:00:07Z")), ..term() });
    assert_eq!(long_ago.first(), after_noon(7));
    let cron = recurrence("cron 0 12 * * *", Term { start: Some(utc(NOON)), ..term() });
    assert_eq!(cron.first(), utc(NOON));
    assert_eq!(recurrence("cron 0 12 * * *", term()).first(), utc("2026-06-02T12:00:00Z"));
}

#[test]
fn an_end_is_the_last_possible_time_and_a_count_ends_too() {
    let ended = recurrence("every 10s", Term { end: Some(after_noon(30)), ..term() });
    assert_eq!(every_time(&ended).len(), 3);
    let counted = recurrence("every 10s", Term { count: Some(2), ..term() });
    assert_eq!(every_time(&counted), [after_noon(10), after_noon(20)]);
}

#[test]
fn what_never_comes_is_refused_by_the_name_of_its_field() {
    assert_eq!(refusal("cron 0 0 30 2 *", term()), "cron `0 0 30 2 *` never comes");
    assert_eq!(refusal("every 10s", Term { count: Some(0), ..term() }), "count is 0: at least 1, or none for no end");
    assert_eq!(
        refusal("every 10s", Term { end: Some(after_noon(9)), ..term() }),
        "end is 2026-06-01T12:00:09Z, before the first time (2026-06-01T12:00:10Z)"
    );
    let answer = Zone::parse("Europe/Atlantis").unwrap_err().to_string();
    assert_eq!(answer, "time zone `Europe/Atlantis` is not an IANA time zone, such as Europe/Berlin or UTC");
    assert_eq!(Zone::parse("europe/berlin").unwrap().name(), "Europe/Berlin");
    assert_eq!("daily".parse::<Rule>().unwrap_err().to_string(), "rule begins with neither `every ` nor `cron `");
}

#[test]
fn a_rule_reads_back_as_it_is_kept() {
    for text in ["every 1h30m", "cron 0 9 * * MON-FRI", "cron 5 0 9 * * *"] {
        assert_eq!(text.parse::<Rule>().unwrap().to_string(), text);
    }
}

#[test]
fn an_hour_of_elapsed_time_stays_one_when_the_clock_is_changed() {
    let berlin = Zone::parse("Europe/Berlin").unwrap();
    let term = Term { created_at: utc("2026-03-28T12:00:00Z"), ..term() };
    let daily = Recurrence::new("every 1d".parse().unwrap(), berlin.clone(), term).unwrap();
    assert_eq!(local(&daily, daily.first()).to_string(), "2026-03-29T14:00:00+02:00[Europe/Berlin]");
    let cron = Recurrence::new("cron 0 13 * * *".parse().unwrap(), berlin, term).unwrap();
    assert_eq!(local(&cron, cron.first()).to_string(), "2026-03-29T13:00:00+02:00[Europe/Berlin]");
}

#[test]
fn where_nothing_was_missed_every_time_that_has_come_is_made() {
    let rule = recurrence("every 1s", term());
    for on_missed in [OnMissed::FireAll, OnMissed::FireLast, OnMissed::Skip] {
        let up = rule.catch_up(after_noon(10), 9, on_missed, look(after_noon(12)));
        assert_eq!(up.make, [after_noon(10), after_noon(11), after_noon(12)]);
        assert_eq!((up.skipped, up.next), (0, Some(after_noon(13))));
    }
    let early = rule.catch_up(after_noon(10), 9, OnMissed::Skip, look(after_noon(9)));
    assert_eq!(early, CatchUp { make: vec![], skipped: 0, next: Some(after_noon(10)) });
}

#[test]
fn what_was_missed_fires_all_or_last_or_not() {
    let rule = recurrence("every 10s", term());
    let up = |on_missed| rule.catch_up(after_noon(10), 0, on_missed, look(after_noon(52)));
    let all = up(OnMissed::FireAll);
    assert_eq!((all.make.len(), all.skipped, all.next), (5, 0, Some(after_noon(60))));
    // The one of two seconds ago is not missed.
    let last = up(OnMissed::FireLast);
    assert_eq!((last.make, last.skipped, last.next), (vec![after_noon(40), after_noon(50)], 3, Some(after_noon(60))));
    let skip = up(OnMissed::Skip);
    assert_eq!((skip.make, skip.skipped, skip.next), (vec![after_noon(50)], 4, Some(after_noon(60))));
    let later = rule.catch_up(after_noon(10), 0, OnMissed::Skip, look(after_noon(57)));
    assert_eq!((later.make, later.skipped, later.next), (vec![], 5, Some(after_noon(60))));
}

#[test]
fn what_became_late_while_others_were_made_was_not_missed() {
    let rule = recurrence("every 10s", term());
    let busy = Look::new(after_noon(52), Duration::ZERO, Duration::from_secs(25));
    for (on_missed, made) in [(OnMissed::Skip, vec![30, 40, 50]), (OnMissed::FireLast, vec![20, 30, 40, 50])] {
        let up = rule.catch_up(after_noon(10), 0, on_missed, busy);
        assert_eq!(up.make, made.into_iter().map(after_noon).collect::<Vec<_>>(), "{on_missed:?}");
    }
}

#[test]
fn one_call_is_bounded_and_the_next_goes_on_to_the_same_end() {
    for text in ["every 1s", "cron * * * * * *"] {
        let rule = recurrence(text, term());
        let look = look(after_noon(25_000));
        // The last six were not missed; of the 24,994 that were, ten thousand fire at most.
        for (on_missed, made, skipped) in
            [(OnMissed::FireAll, 10_006, 14_994), (OnMissed::FireLast, 7, 24_993), (OnMissed::Skip, 6, 24_994)]
        {
            let (mut next, mut done) = (rule.first(), 0);
            let (mut all, mut all_skipped) = (Vec::new(), 0);
            while next <= look.until {
                let up = rule.catch_up(next, done, on_missed, look);
                assert!(up.make.len() <= MAKE_MAX && (up.skipped <= SKIP_MAX || text.starts_with("every")));
                done += u64::try_from(up.make.len()).unwrap() + up.skipped;
                all_skipped += up.skipped;
                all.extend(up.make);
                next = up.next.unwrap();
            }
            assert_eq!((all.len(), all_skipped), (made, skipped), "{text} {on_missed:?}");
            assert_eq!(all.last(), Some(&after_noon(25_000)));
            assert!(all.is_sorted_by(|a, b| a < b), "{text} {on_missed:?}: each once");
        }
    }
}

#[test]
fn years_of_a_short_span_are_passed_at_once() {
    let rule = recurrence("every 1s", Term { end: Some(after_noon(100_000_000)), ..term() });
    let up = rule.catch_up(rule.first(), 0, OnMissed::Skip, look(after_noon(90_000_000)));
    assert_eq!((up.make.len(), up.skipped, up.next), (6, 89_999_994, Some(after_noon(90_000_001))));
    let over = rule.catch_up(rule.first(), 0, OnMissed::FireLast, look(after_noon(200_000_000)));
    assert_eq!(over, CatchUp { make: vec![after_noon(100_000_000)], skipped: 99_999_999, next: None });
    let none = rule.catch_up(rule.first(), 0, OnMissed::Skip, look(after_noon(200_000_000)));
    assert_eq!(none, CatchUp { make: vec![], skipped: 100_000_000, next: None });
}

#[test]
fn a_count_ends_in_the_middle_of_what_was_missed() {
    let rule = recurrence("every 10s", Term { count: Some(3), ..term() });
    let up = rule.catch_up(after_noon(10), 0, OnMissed::FireLast, look(after_noon(1_000)));
    assert_eq!(up, CatchUp { make: vec![after_noon(30)], skipped: 2, next: None });
}

#[test]
fn missed_times_of_a_daylight_saving_night_are_counted_as_they_were() {
    let zone = Zone::parse("America/New_York").unwrap();
    let term = Term { created_at: utc("2026-10-31T12:00:00Z"), ..term() };
    let rule = Recurrence::new("cron */30 1 * * *".parse().unwrap(), zone, term).unwrap();
    // 01:00 and 01:30, twice: it is an interval.
    let up = rule.catch_up(rule.first(), 0, OnMissed::FireAll, look(utc("2026-11-01T12:00:00Z")));
    assert_eq!(up.make.len(), 4);
}

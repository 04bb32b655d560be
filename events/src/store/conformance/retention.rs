//! Retention: what goes is the oldest, readers are told, and ids are free again.

use std::time::Duration;

use notifyx_database::Database;
use notifyx_model::EventId;

use super::{ALL, Fixture, MIGRATIONS, category, id, ids, open};

notifyx_database::conformance!(open, &MIGRATIONS;
    by_age_the_oldest_go_and_readers_are_told, whole_days_go, a_day_that_was_opened_late_is_kept_and_trimmed_all_the_same,
    a_clock_that_was_wrong_for_a_moment_costs_nothing_that_is_young, by_count_each_topic_keeps_its_newest, what_waits_is_not_old, ids_of_what_was_trimmed_are_free);

const DAY: Duration = Duration::from_secs(86_400);

impl Fixture {
    /// So many events of a topic, now.
    async fn happen(&self, of: &str, numbers: std::ops::RangeInclusive<u32>) {
        let events: Vec<_> = numbers.map(|i| self.event(of, &format!("{of}-{i}"), 0)).collect();
        self.append(&events).await;
    }

    /// All that is older than an age, in steps of `rows`.
    async fn trim(&self, age: Duration, rows: u32) -> u64 {
        let (mut trimmed, before) = (0, self.clock.now() - age);
        loop {
            match self.store.trim_before(before, rows).await.unwrap() {
                0 => return trimmed,
                some => trimmed += some,
            }
        }
    }

    async fn forget(&self, rows: u32) {
        let mut after: Option<EventId> = None;
        loop {
            after = self.store.forget(after.as_ref(), rows).await.unwrap();
            if after.is_none() {
                return;
            }
        }
    }
}

async fn by_age_the_oldest_go_and_readers_are_told(f: Fixture) {
    f.happen("a", 1..=5).await;
    f.happen("b", 1..=2).await;
    f.hand.advance(DAY);
    f.happen("a", 6..=7).await;
    f.hand.advance(DAY / 2);
    assert_eq!(f.trim(DAY, 3).await, 7);
    let read = f.store.read(&category("a"), 0, ALL).await.unwrap();
    assert_eq!((ids(&read.events), read.offset, read.trimmed), (vec!["a-6", "a-7"], 7, 5));
    let head = f.head("b").await;
    assert_eq!((head.offset, head.trimmed), (2, 2));
    assert_eq!(f.trim(DAY, 3).await, 0);
    assert_eq!(f.rows("event").await, 2);
    // Offsets go on where they were.
    f.happen("b", 3..=3).await;
    assert_eq!(f.log("b").await[0].offset(), Some(3));
}

async fn whole_days_go(f: Fixture) {
    for day in 0..3 {
        for _ in 0..2 {
            f.store.open_day(f.clock.now()).await.unwrap();
        }
        f.happen("a", day * 2 + 1..=day * 2 + 2).await;
        f.happen("b", day..=day).await;
        f.hand.advance(DAY);
    }
    assert_eq!(ids(&f.log("a").await).len(), 6, "over all days");
    f.hand.advance(DAY);
    assert!(f.trim(DAY * 3, 100).await >= 3);
    let read = f.store.read(&category("a"), 0, ALL).await.unwrap();
    assert_eq!((ids(&read.events), read.trimmed), (vec!["a-3", "a-4", "a-5", "a-6"], 2));
    assert_eq!((f.head("b").await.trimmed, f.rows("event").await), (1, 6));
    if let Database::Postgres(pool) = &f.database {
        let sql = "SELECT count(*) FROM pg_inherits WHERE inhparent = 'event'::regclass";
        let partitions: i64 = sqlx::query_scalar(sql).fetch_one(pool).await.unwrap();
        assert_eq!(partitions, 3, "two days and the default");
        assert_eq!(f.rows("event_default").await, 0);
    }
}

async fn a_day_that_was_opened_late_is_kept_and_trimmed_all_the_same(f: Fixture) {
    f.happen("a", 1..=2).await;
    f.store.open_day(f.clock.now()).await.unwrap();
    f.happen("a", 3..=3).await;
    f.hand.advance(DAY * 2);
    f.store.open_day(f.clock.now()).await.unwrap();
    f.happen("a", 4..=4).await;
    assert_eq!(ids(&f.log("a").await), ["a-1", "a-2", "a-3", "a-4"]);
    assert_eq!(f.trim(DAY, 2).await, 3);
    assert_eq!(ids(&f.log("a").await), ["a-4"]);
}

async fn a_clock_that_was_wrong_for_a_moment_costs_nothing_that_is_young(f: Fixture) {
    f.store.open_day(f.clock.now()).await.unwrap();
    f.happen("a", 1..=2).await;
    let now = f.clock.now();
    f.hand.set(now - DAY * 999);
    f.happen("a", 3..=3).await;
    f.hand.set(now + DAY * 999);
    f.happen("b", 1..=1).await;
    f.hand.set(now);
    f.happen("a", 4..=4).await;
    assert_eq!(f.trim(DAY, 10).await, 0);
    assert_eq!(ids(&f.log("a").await), ["a-1", "a-2", "a-3", "a-4"]);
    // And what was written when it was put forward holds up nothing.
    f.hand.set(now + DAY * 3);
    f.store.open_day(f.clock.now()).await.unwrap();
    f.happen("a", 5..=5).await;
    f.trim(DAY * 2, 10).await;
    assert_eq!(ids(&f.log("a").await), ["a-5"]);
}

async fn by_count_each_topic_keeps_its_newest(f: Fixture) {
    f.happen("a", 1..=9).await;
    f.happen("b", 1..=4).await;
    f.happen("c", 1..=5).await;
    assert_eq!(f.store.list_long(4, None, 10).await.unwrap(), [category("a"), category("c")]);
    assert_eq!(f.store.list_long(4, Some(&category("a")), 10).await.unwrap(), [category("c")]);
    let mut steps = Vec::new();
    for _ in 0..4 {
        steps.push(f.store.trim_to(&category("a"), 4, 2).await.unwrap());
    }
    assert_eq!(steps, [2, 2, 1, 0]);
    let read = f.store.read_back(&category("a"), None, ALL).await.unwrap();
    assert_eq!((ids(&read.events), read.trimmed), (vec!["a-9", "a-8", "a-7", "a-6"], 5));
    assert_eq!((f.rows("event").await, f.rows("seen").await), (13, 13));
    assert_eq!(f.store.trim_to(&category("none"), 4, 2).await.unwrap(), 0);
    assert_eq!(f.store.list_long(4, None, 10).await.unwrap(), [category("c")]);
    assert_eq!(f.store.trim_to(&category("c"), 0, 99).await.unwrap(), 5);
}

async fn what_waits_is_not_old(f: Fixture) {
    let events = f.schedule(&[f.event("a", "1", 0)]).await;
    f.hand.advance(DAY * 9);
    assert_eq!(f.trim(DAY, 10).await, 0);
    f.forget(10).await;
    // Its age in the log begins when it fires.
    f.fire(&[&events[0]]).await;
    assert_eq!(f.trim(DAY, 10).await, 0);
    assert_eq!(ids(&f.log("a").await), ["1"]);
}

async fn ids_of_what_was_trimmed_are_free(f: Fixture) {
    f.store.open_day(f.clock.now()).await.unwrap();
    f.happen("a", 1..=5).await;
    f.happen("b", 1..=5).await;
    f.hand.advance(DAY * 2);
    f.happen("a", 6..=6).await;
    f.trim(DAY, 3).await;
    assert_eq!(f.store.find(&id("a-1"), None).await.unwrap(), []);
    // Before it is forgotten, and after.
    let kept = f.append(&[f.event("a", "a-1", 0)]).await;
    assert_eq!((kept[0].duplicate, kept[0].event.offset()), (false, Some(7)));
    let kept = f.store.schedule(&[f.event("a", "a-2", 9)]).await.unwrap();
    assert!(!kept[0].duplicate);
    f.forget(2).await;
    assert_eq!(f.rows("seen").await, 3);
    assert_eq!(f.store.find(&id("a-1"), None).await.unwrap().len(), 1);
    assert_eq!(ids(&f.waiting("a").await), ["a-2"]);
    assert_eq!(f.fire(&[&kept[0].event]).await.len(), 1);
    assert_eq!(f.store.find(&id("a-2"), None).await.unwrap()[0].offset(), Some(8));
}

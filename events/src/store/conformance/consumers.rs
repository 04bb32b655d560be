//! Consumers: one holder at a time, a position that only moves forward, and nothing above it is dropped. Postgres judges leases by its own
//! clock: these tests need no time to pass for them.

use std::time::Duration;

use super::{Fixture, MIGRATIONS, category, id, ids, open};
use crate::{
    Error,
    consumer::{Consumer, ConsumerName, Holder},
};

notifyx_database::conformance!(open, &MIGRATIONS;
    a_consumer_begins_behind_what_was_trimmed, it_has_one_holder_at_a_time, who_takes_it_over_goes_on_where_it_stood,
    who_lost_it_is_refused, a_position_moves_forward_and_stays_in_the_log, it_follows_one_category,
    by_count_nothing_is_dropped_that_a_consumer_lacks, by_age_nothing_is_dropped_that_a_consumer_lacks);

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(86_400);
const DAY: Duration = Duration::from_secs(86_400);

fn name(text: &str) -> ConsumerName {
    ConsumerName::parse(text).unwrap()
}

impl Fixture {
    async fn take(&self, consumer: &str, holder: &str, span: Duration) -> Consumer {
        let holder = Holder::parse(holder).unwrap();
        self.store.acquire_consumer(&name(consumer), &category("a"), &holder, span).await.unwrap()
    }

    async fn commit(&self, consumer: &str, term: u64, position: u64) -> Result<Consumer, Error> {
        self.store.commit_position(&name(consumer), term, position).await
    }

    async fn many(&self, of: &str, count: u32) {
        let first = self.head(of).await.offset;
        let events: Vec<_> = (0..count).map(|i| self.event(of, &format!("{first}-{i}"), 0)).collect();
        self.append(&events).await;
    }
}

fn standing(consumer: &Consumer) -> (&str, u64, u64, u64) {
    (&consumer.holder, consumer.term, consumer.position, consumer.head)
}

async fn a_consumer_begins_behind_what_was_trimmed(f: Fixture) {
    assert_eq!(standing(&f.take("new", "ann", LONG).await), ("ann", 1, 0, 0), "of a category that nobody used");
    f.many("a", 5).await;
    f.commit("new", 1, 5).await.unwrap();
    f.store.trim_to(&category("a"), 2, 10).await.unwrap();
    assert_eq!(standing(&f.take("late", "ann", LONG).await), ("ann", 1, 3, 5));
}

async fn it_has_one_holder_at_a_time(f: Fixture) {
    let first = f.take("c", "ann", LONG).await;
    assert!(first.left <= LONG && first.left > LONG / 2);
    let other = f.take("c", "bob", LONG * 3).await;
    assert_eq!((other.holder.as_str(), other.term), ("ann", 1));
    assert!(other.left <= LONG, "who does not have it does not prolong it");
    let renewed = f.take("c", "ann", LONG * 3).await;
    assert_eq!((renewed.holder.as_str(), renewed.term), ("ann", 1));
    assert!(renewed.left > LONG * 2);
    assert_eq!(f.take("another", "bob", LONG).await.holder, "bob");
}

async fn who_takes_it_over_goes_on_where_it_stood(f: Fixture) {
    f.many("a", 5).await;
    f.take("c", "ann", LONG).await;
    f.commit("c", 1, 3).await.unwrap();
    let free = f.store.release_consumer(&name("c"), 1).await.unwrap();
    assert_eq!(free.left, Duration::ZERO);
    assert_eq!(standing(&f.take("c", "bob", Duration::ZERO).await), ("bob", 2, 3, 5));
    // A lease that ended is anyone's.
    assert_eq!(standing(&f.take("c", "cid", LONG).await), ("cid", 3, 3, 5));
}

async fn who_lost_it_is_refused(f: Fixture) {
    f.many("a", 5).await;
    f.take("c", "ann", Duration::ZERO).await;
    f.take("c", "bob", LONG).await;
    let lost = f.commit("c", 1, 4).await.unwrap_err();
    assert!(matches!(&lost, Error::ConsumerLost { holder, .. } if holder == "bob"), "{lost}");
    assert!(matches!(f.store.release_consumer(&name("c"), 1).await, Err(Error::ConsumerLost { .. })));
    assert!(matches!(f.commit("none", 1, 1).await, Err(Error::ConsumerNotFound(_))));
    let held = f.commit("c", 2, 2).await.unwrap();
    assert_eq!(standing(&held), ("bob", 2, 2, 5));
    assert!(held.left > LONG / 2);
}

async fn a_position_moves_forward_and_stays_in_the_log(f: Fixture) {
    f.many("a", 5).await;
    f.take("c", "ann", LONG).await;
    for (asked, stands) in [(3, 3), (2, 3), (0, 3), (5, 5)] {
        assert_eq!(f.commit("c", 1, asked).await.unwrap().position, stands);
    }
    for beyond in [6, u64::MAX] {
        assert!(matches!(f.commit("c", 1, beyond).await, Err(Error::BeyondHead { head: 5, .. })));
    }
    assert_eq!(f.take("c", "ann", LONG).await.position, 5);
}

async fn it_follows_one_category(f: Fixture) {
    f.take("c", "ann", Duration::ZERO).await;
    let bob = Holder::parse("bob").unwrap();
    let elsewhere = f.store.acquire_consumer(&name("c"), &category("b"), &bob, LONG).await.unwrap_err();
    assert!(matches!(&elsewhere, Error::ConsumerElsewhere { category, .. } if category.as_str() == "a"), "{elsewhere}");
    assert_eq!(f.take("c", "ann", LONG).await.term, 1, "and nobody has taken it");
}

async fn by_count_nothing_is_dropped_that_a_consumer_lacks(f: Fixture) {
    f.many("a", 10).await;
    f.many("b", 10).await;
    f.take("slow", "ann", LONG).await;
    f.take("quick", "ann", LONG).await;
    f.commit("quick", 1, 9).await.unwrap();
    assert_eq!(f.store.trim_to(&category("a"), 2, 100).await.unwrap(), 0);
    assert_eq!(f.store.trim_to(&category("b"), 2, 100).await.unwrap(), 8);
    f.commit("slow", 1, 4).await.unwrap();
    assert_eq!(f.store.trim_to(&category("a"), 2, 100).await.unwrap(), 4);
    f.commit("slow", 1, 10).await.unwrap();
    assert_eq!(f.store.trim_to(&category("a"), 2, 100).await.unwrap(), 4);
    assert_eq!(f.head("a").await.trimmed, 8);
}

async fn by_age_nothing_is_dropped_that_a_consumer_lacks(f: Fixture) {
    // On Postgres the first day has a partition, what came before it was opened has not.
    f.many("a", 2).await;
    f.hand.advance(DAY);
    f.store.open_day(f.clock.now()).await.unwrap();
    f.many("a", 2).await;
    f.many("b", 2).await;
    f.take("c", "ann", LONG).await;
    f.hand.advance(DAY * 9);
    let trim = async || while f.store.trim_before(f.clock.now() - DAY, 1).await.unwrap() > 0 {};
    trim().await;
    assert_eq!(ids(&f.log("a").await), ["0-0", "0-1", "2-0", "2-1"]);
    assert_eq!(f.store.find(&id("0-0"), Some(&category("a"))).await.unwrap().len(), 1);
    f.commit("c", 1, 1).await.unwrap();
    trim().await;
    assert_eq!(ids(&f.log("a").await), ["0-1", "2-0", "2-1"]);
    f.commit("c", 1, 3).await.unwrap();
    trim().await;
    assert!(ids(&f.log("a").await).ends_with(&["2-1"]));
    f.commit("c", 1, 4).await.unwrap();
    trim().await;
    assert_eq!((f.rows("event").await, f.head("a").await.trimmed, f.head("b").await.trimmed), (0, 4, 2));
}

//! The schedule's lease. Postgres judges by its own clock: these tests need no time to pass.

use std::time::Duration;

use super::{Fixture, MIGRATIONS, open};

notifyx_database::conformance!(open, &MIGRATIONS;
    one_holder_at_a_time, a_lease_that_ended_is_anothers, what_is_given_back_is_free);

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(86_400);

async fn one_holder_at_a_time(f: Fixture) {
    assert_eq!(f.store.lease().await.unwrap(), None);
    let first = f.store.acquire("ann", LONG).await.unwrap();
    assert_eq!((first.holder.as_str(), first.term), ("ann", 1));
    assert!(first.left <= LONG && first.left > LONG / 2);
    let other = f.store.acquire("bob", LONG * 3).await.unwrap();
    assert_eq!((other.holder.as_str(), other.term), ("ann", 1));
    assert!(other.left <= LONG, "who does not have it does not prolong it");
    let renewed = f.store.acquire("ann", LONG * 3).await.unwrap();
    assert_eq!((renewed.holder.as_str(), renewed.term), ("ann", 1));
    assert!(renewed.left > LONG * 2);
    assert_eq!(f.store.lease().await.unwrap().unwrap().holder, "ann");
}

async fn a_lease_that_ended_is_anothers(f: Fixture) {
    f.store.acquire("ann", Duration::ZERO).await.unwrap();
    assert_eq!(f.store.lease().await.unwrap(), None);
    let taken = f.store.acquire("bob", LONG).await.unwrap();
    assert_eq!((taken.holder.as_str(), taken.term), ("bob", 2));
    assert_eq!(f.store.acquire("ann", LONG).await.unwrap().holder, "bob");
}

async fn what_is_given_back_is_free(f: Fixture) {
    f.store.acquire("ann", LONG).await.unwrap();
    f.store.release("bob").await.unwrap();
    assert_eq!(f.store.lease().await.unwrap().unwrap().holder, "ann");
    f.store.release("ann").await.unwrap();
    assert_eq!(f.store.lease().await.unwrap(), None);
    assert_eq!(f.store.acquire("bob", LONG).await.unwrap().term, 2);
}

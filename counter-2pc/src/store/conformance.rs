//! What the rules rely on, held against SQLite and a real Postgres.

use std::{sync::Arc, time::Duration};

use notifyx_commit::{
    RequestHash,
    participant::{Asker, BY_HAND, Judge, Refusal, State},
};
use notifyx_database::Database;
use notifyx_model::{Clock, Gid, ManualClock, Timestamp, TopicId, UserId};

use super::{Count, Counted, Increment, MIGRATIONS, Store};

type Opened = Arc<dyn Store>;

async fn open(database: &Database) -> Opened {
    super::open(database)
}

notifyx_database::conformance!(open, &MIGRATIONS;
    a_committed_increment_raises_both_counters,
    what_never_counted_is_zero,
    several_are_prepared_at_once_and_lock_nobody_out,
    every_step_may_be_repeated,
    a_prepare_after_its_rollback_is_refused,
    a_commit_of_nothing_is_refused,
    what_is_decided_stays,
    another_request_under_the_same_gid_is_refused,
    a_gid_twice_in_a_batch_counts_once,
    by_hand_and_by_coordinator_never_touch_each_other,
    people_touch_only_their_own,
    only_what_people_prepared_expires,
    a_bad_item_never_fails_its_neighbours,
    batches_in_any_order_at_once_add_up,
    a_prepare_and_its_rollback_at_once_leave_nothing_prepared,
    only_old_decided_transactions_are_forgotten,
);

const COORDINATOR: Asker = Asker::Coordinator;

fn now() -> Timestamp {
    ManualClock::new().clock().now()
}

fn judge() -> Judge {
    Judge::at(now())
}

fn user() -> UserId {
    UserId::new(&Clock::system())
}

fn topic() -> TopicId {
    TopicId::new(&Clock::system())
}

fn increment(user_id: UserId, topic_id: TopicId) -> Increment {
    Increment {
        gid: Gid::new(&Clock::system()),
        user_id,
        topic_id: Some(topic_id),
        request: RequestHash::of("prepare", &(user_id, topic_id)),
    }
}

fn gids(items: &[Increment]) -> Vec<Gid> {
    items.iter().map(|item| item.gid).collect()
}

async fn prepare(store: &Opened, items: &[Increment]) -> Vec<Result<(), Refusal>> {
    store.prepare(items, COORDINATOR, judge(), now()).await.unwrap()
}

async fn commit(store: &Opened, gids: &[Gid]) -> Vec<Result<(), Refusal>> {
    store.commit(gids, COORDINATOR, judge()).await.unwrap().outcomes
}

async fn rollback(store: &Opened, gids: &[Gid]) -> Vec<Result<(), Refusal>> {
    store.rollback(gids, COORDINATOR, judge(), now()).await.unwrap()
}

async fn counts(store: &Opened, user_id: UserId, topic_id: TopicId) -> [Count; 2] {
    [store.count(Counted::User(user_id)).await.unwrap(), store.count(Counted::Topic(topic_id)).await.unwrap()]
}

const fn count(committed: u64, prepared: u64) -> Count {
    Count { committed, prepared }
}

async fn a_committed_increment_raises_both_counters(store: Opened) {
    let (ann, billing) = (user(), topic());
    let item = increment(ann, billing);
    assert_eq!(prepare(&store, std::slice::from_ref(&item)).await, [Ok(())]);
    assert_eq!(counts(&store, ann, billing).await, [count(0, 1); 2], "prepared counts for nothing yet");
    let committed = store.commit(&[item.gid], COORDINATOR, judge()).await.unwrap();
    assert_eq!((committed.outcomes, committed.applied), (vec![Ok(())], 1));
    assert_eq!(counts(&store, ann, billing).await, [count(1, 0); 2]);
    assert_eq!(counts(&store, user(), topic()).await, [count(0, 0); 2], "and nobody else's");
}

async fn what_never_counted_is_zero(store: Opened) {
    assert_eq!(counts(&store, user(), topic()).await, [Count::default(); 2]);
    assert_eq!(prepare(&store, &[]).await, []);
    assert_eq!(commit(&store, &[]).await, []);
    assert_eq!(rollback(&store, &[]).await, []);
}

async fn several_are_prepared_at_once_and_lock_nobody_out(store: Opened) {
    let (ann, billing) = (user(), topic());
    let items: Vec<Increment> = (0..5).map(|_| increment(ann, billing)).collect();
    for item in &items {
        assert_eq!(prepare(&store, std::slice::from_ref(item)).await, [Ok(())]);
    }
    assert_eq!(counts(&store, ann, billing).await, [count(0, 5); 2]);
    assert_eq!(commit(&store, &[items[3].gid, items[0].gid]).await, [Ok(()), Ok(())]);
    assert_eq!(rollback(&store, &[items[1].gid]).await, [Ok(())]);
    assert_eq!(counts(&store, ann, billing).await, [count(2, 2); 2]);
}

async fn every_step_may_be_repeated(store: Opened) {
    let (ann, billing) = (user(), topic());
    let [kept, given] = [increment(ann, billing), increment(ann, billing)];
    for _ in 0..2 {
        assert_eq!(prepare(&store, &[kept.clone(), given.clone()]).await, [Ok(()), Ok(())]);
    }
    for _ in 0..2 {
        assert_eq!(commit(&store, &[kept.gid]).await, [Ok(())]);
        assert_eq!(rollback(&store, &[given.gid]).await, [Ok(())]);
    }
    assert_eq!(prepare(&store, std::slice::from_ref(&kept)).await, [Ok(())], "a late prepare of what is committed");
    assert_eq!(store.commit(&[kept.gid], COORDINATOR, judge()).await.unwrap().applied, 0);
    assert_eq!(counts(&store, ann, billing).await, [count(1, 0); 2]);
}

async fn a_prepare_after_its_rollback_is_refused(store: Opened) {
    let item = increment(user(), topic());
    assert_eq!(rollback(&store, &[item.gid]).await, [Ok(())], "an empty rollback leaves a tombstone");
    assert_eq!(prepare(&store, std::slice::from_ref(&item)).await, [Err(Refusal::Aborted)]);
    assert_eq!(rollback(&store, &[item.gid]).await, [Ok(())]);
    assert_eq!(counts(&store, item.user_id, topic()).await, [count(0, 0); 2]);
}

async fn a_commit_of_nothing_is_refused(store: Opened) {
    let item = increment(user(), topic());
    assert_eq!(commit(&store, &[item.gid]).await, [Err(Refusal::NothingPrepared)]);
    assert_eq!(counts(&store, item.user_id, topic()).await, [count(0, 0); 2]);
    assert_eq!(prepare(&store, std::slice::from_ref(&item)).await, [Ok(())], "and leaves nothing behind");
}

async fn what_is_decided_stays(store: Opened) {
    let (ann, billing) = (user(), topic());
    let [kept, given] = [increment(ann, billing), increment(ann, billing)];
    prepare(&store, &[kept.clone(), given.clone()]).await;
    commit(&store, &[kept.gid]).await;
    rollback(&store, &[given.gid]).await;
    assert_eq!(rollback(&store, &[kept.gid]).await, [Err(Refusal::Committed)]);
    assert_eq!(commit(&store, &[given.gid]).await, [Err(Refusal::Aborted)]);
    assert_eq!(counts(&store, ann, billing).await, [count(1, 0); 2]);
}

async fn another_request_under_the_same_gid_is_refused(store: Opened) {
    let item = increment(user(), topic());
    prepare(&store, std::slice::from_ref(&item)).await;
    let other = Increment { gid: item.gid, ..increment(user(), topic()) };
    assert_eq!(prepare(&store, std::slice::from_ref(&other)).await, [Err(Refusal::OtherRequest)]);
    commit(&store, &[item.gid]).await;
    assert_eq!(prepare(&store, std::slice::from_ref(&other)).await, [Err(Refusal::OtherRequest)]);
    assert_eq!(store.count(Counted::User(other.user_id)).await.unwrap(), count(0, 0));
}

async fn a_gid_twice_in_a_batch_counts_once(store: Opened) {
    let (ann, billing) = (user(), topic());
    let item = increment(ann, billing);
    let other = Increment { gid: item.gid, ..increment(ann, topic()) };
    let outcomes = prepare(&store, &[item.clone(), item.clone(), other]).await;
    assert_eq!(outcomes, [Ok(()), Ok(()), Err(Refusal::OtherRequest)]);
    assert_eq!(commit(&store, &[item.gid, item.gid]).await, [Ok(()), Ok(())]);
    assert_eq!(counts(&store, ann, billing).await, [count(1, 0); 2]);
    let gone = increment(ann, billing);
    assert_eq!(rollback(&store, &[gone.gid, gone.gid]).await, [Ok(()), Ok(())]);
}

async fn by_hand_and_by_coordinator_never_touch_each_other(store: Opened) {
    let (ann, billing) = (user(), topic());
    let [by_hand, by_coordinator] = [increment(ann, billing), increment(ann, billing)];
    let hand = Asker::User(ann);
    assert_eq!(store.prepare(std::slice::from_ref(&by_hand), hand, judge(), now()).await.unwrap(), [Ok(())]);
    prepare(&store, std::slice::from_ref(&by_coordinator)).await;

    assert_eq!(commit(&store, &[by_hand.gid]).await, [Err(Refusal::NothingPrepared)]);
    assert_eq!(rollback(&store, &[by_hand.gid]).await, [Ok(())], "nothing of the coordinator's stands there");
    assert_eq!(prepare(&store, std::slice::from_ref(&by_hand)).await, [Err(Refusal::OtherRequest)]);
    let gid = [by_coordinator.gid];
    assert_eq!(store.commit(&gid, hand, judge()).await.unwrap().outcomes, [Err(Refusal::Foreign)]);
    assert_eq!(store.rollback(&gid, hand, judge(), now()).await.unwrap(), [Err(Refusal::Foreign)]);
    let taken = store.prepare(std::slice::from_ref(&by_coordinator), hand, judge(), now()).await.unwrap();
    assert_eq!(taken, [Err(Refusal::Foreign)]);
    assert_eq!(counts(&store, ann, billing).await, [count(0, 2); 2], "both are as they were");
}

async fn people_touch_only_their_own(store: Opened) {
    let (ann, bob) = (user(), user());
    let item = increment(ann, topic());
    store.prepare(std::slice::from_ref(&item), Asker::User(ann), judge(), now()).await.unwrap();
    let (gid, bob) = ([item.gid], Asker::User(bob));
    assert_eq!(store.commit(&gid, bob, judge()).await.unwrap().outcomes, [Err(Refusal::Foreign)]);
    assert_eq!(store.rollback(&gid, bob, judge(), now()).await.unwrap(), [Err(Refusal::Foreign)]);
    let unknown = [increment(ann, topic()).gid];
    assert_eq!(store.rollback(&unknown, bob, judge(), now()).await.unwrap(), [Err(Refusal::NotFound)]);
    let after = store.prepare(&[Increment { gid: unknown[0], ..item.clone() }], Asker::User(ann), judge(), now()).await;
    assert_eq!(after.unwrap(), [Ok(())], "a rollback by hand leaves no tombstone");
    let ann = Asker::User(ann);
    assert_eq!(store.commit(&gid, ann, judge()).await.unwrap().outcomes, [Ok(())]);
}

async fn only_what_people_prepared_expires(store: Opened) {
    let (ann, billing) = (user(), topic());
    let [by_hand, in_time, by_coordinator] = [0; 3].map(|_| increment(ann, billing));
    let hand = Asker::User(ann);
    let second = Duration::from_secs(1);
    store.prepare(std::slice::from_ref(&by_hand), hand, judge(), now()).await.unwrap();
    store.prepare(std::slice::from_ref(&in_time), hand, judge(), now() + second).await.unwrap();
    prepare(&store, std::slice::from_ref(&by_coordinator)).await;
    let late = Judge::at(now() + BY_HAND);
    let expired = store.commit(&[by_hand.gid], hand, late).await.unwrap();
    assert_eq!(expired.outcomes, [Err(Refusal::Expired)], "also before the sweep");
    assert_eq!(store.overdue(now() + second).await.unwrap(), 1, "people do not raise the alarm");
    assert_eq!(store.expire(late.expired_before(), 10).await.unwrap(), 1);
    assert_eq!(store.expire(late.expired_before(), 10).await.unwrap(), 0);
    let expired = store.commit(&[by_hand.gid], hand, late).await.unwrap();
    assert_eq!(expired.outcomes, [Err(Refusal::Expired)], "and after it");
    let found = store.find(by_hand.gid).await.unwrap().unwrap();
    assert_eq!((found.state, found.expired, found.user_id), (State::Aborted, true, ann));
    assert!(!store.find(in_time.gid).await.unwrap().unwrap().expired);
    assert_eq!(store.find(increment(ann, billing).gid).await.unwrap(), None);
    assert_eq!(counts(&store, ann, billing).await, [count(0, 2); 2]);
    assert_eq!(store.commit(&[in_time.gid], hand, late).await.unwrap().outcomes, [Ok(())]);
    let years = Judge::at(now() + Duration::from_secs(100_000_000));
    assert_eq!(store.expire(years.expired_before(), 10).await.unwrap(), 0, "a coordinator's never expires");
    assert_eq!(store.commit(&[by_coordinator.gid], COORDINATOR, years).await.unwrap().outcomes, [Ok(())]);
    assert_eq!(store.overdue(now() + second).await.unwrap(), 0);
}

async fn a_bad_item_never_fails_its_neighbours(store: Opened) {
    let (ann, billing) = (user(), topic());
    let items: Vec<Increment> = (0..9).map(|_| increment(ann, billing)).collect();
    rollback(&store, &[items[4].gid]).await;
    let outcomes = prepare(&store, &items).await;
    for (i, outcome) in outcomes.into_iter().enumerate() {
        assert_eq!(outcome, if i == 4 { Err(Refusal::Aborted) } else { Ok(()) });
    }
    let outcomes = commit(&store, &gids(&items)).await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 8);
    assert_eq!(counts(&store, ann, billing).await, [count(8, 0); 2]);
}

async fn batches_in_any_order_at_once_add_up(store: Opened) {
    let (users, topics) = ([0; 3].map(|_| user()), [0; 4].map(|_| topic()));
    let items: Vec<Increment> = (0..120).map(|i| increment(users[i % 3], topics[i % 4])).collect();
    let mut callers = tokio::task::JoinSet::new();
    for caller in 0..6 {
        // Everybody does all of it, each in another order: as doubled and reordered messages do.
        let mut mine = items.clone();
        mine.rotate_left(caller * 19);
        let store = store.clone();
        callers.spawn(async move {
            for part in mine.chunks(40) {
                assert!(prepare(&store, part).await.iter().all(Result::is_ok));
                assert!(commit(&store, &gids(part)).await.iter().all(Result::is_ok));
            }
        });
    }
    callers.join_all().await;
    for user_id in users {
        assert_eq!(store.count(Counted::User(user_id)).await.unwrap(), count(40, 0));
    }
    for topic_id in topics {
        assert_eq!(store.count(Counted::Topic(topic_id)).await.unwrap(), count(30, 0));
    }
}

async fn a_prepare_and_its_rollback_at_once_leave_nothing_prepared(store: Opened) {
    let (ann, billing) = (user(), topic());
    let items: Vec<Increment> = (0..100).map(|_| increment(ann, billing)).collect();
    let mut callers = tokio::task::JoinSet::new();
    for part in items.chunks(10) {
        let (preparing, rolling, part) = (store.clone(), store.clone(), part.to_vec());
        let undone = gids(&part);
        callers.spawn(async move { drop(prepare(&preparing, &part).await) });
        callers.spawn(async move { assert!(rollback(&rolling, &undone).await.iter().all(Result::is_ok)) });
    }
    callers.join_all().await;
    assert_eq!(counts(&store, ann, billing).await, [count(0, 0); 2]);
}

async fn only_old_decided_transactions_are_forgotten(store: Opened) {
    let hand = ManualClock::new();
    let old = |_| Increment { gid: Gid::new(&hand.clock()), ..increment(user(), topic()) };
    let [prepared, committed, aborted] = [0; 3].map(old);
    prepare(&store, &[prepared.clone(), committed.clone(), aborted.clone()]).await;
    commit(&store, &[committed.gid]).await;
    rollback(&store, &[aborted.gid]).await;
    assert_eq!(store.forget(now(), 10).await.unwrap(), 0, "not older");
    let later = now() + Duration::from_secs(1);
    assert_eq!(store.forget(later, 1).await.unwrap(), 1, "within the limit");
    assert_eq!(store.forget(later, 10).await.unwrap(), 1);
    assert_eq!(commit(&store, &[prepared.gid]).await, [Ok(())], "what is undecided is kept");
    assert_eq!(store.count(Counted::User(committed.user_id)).await.unwrap(), count(1, 0), "counters stay");
}

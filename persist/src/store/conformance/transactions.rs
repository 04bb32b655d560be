//! Two-phase commit, and the places that notifications take.

use std::{collections::BTreeSet, time::Duration};

use notifyx_commit::participant::{Asker, BY_HAND, Judge, OnPrepare, Origin, Refusal, State};
use notifyx_model::{Gid, Timestamp, TopicId, UserId};

use super::{Fixture, MIGRATIONS, open};
use crate::store::{self, Inserted, No, Preparation};

notifyx_database::conformance!(open, &MIGRATIONS;
    offsets_and_broadcast_numbers_have_no_gaps, a_batch_keeps_its_order, times_grow_even_if_the_clock_goes_back,
    what_is_prepared_is_not_visible, every_step_may_be_repeated, a_tombstone_refuses_a_late_prepare,
    a_commit_of_nothing_is_refused, a_no_is_final, an_item_that_stands_twice_counts_once, a_notification_id_is_reserved,
    by_hand_and_by_coordinator_are_kept_apart, by_hand_expires_and_the_coordinators_does_not, terminal_rows_are_forgotten,
    strangers_are_told, commits_side_by_side_leave_no_gap_and_no_double, the_same_commit_twice_at_once_happens_once);

async fn offsets_and_broadcast_numbers_have_no_gaps(f: Fixture) {
    let ann = f.user();
    let topic = f.topic("a", ann).await;
    let bob = f.subscriber(topic).await;
    let mut places = Vec::new();
    for to in [&[][..], &[bob], &[], &[], &[bob]] {
        let applied = f.publish(topic, ann, to).await;
        places.push((applied.offset, applied.broadcast_no));
    }
    assert_eq!(places, [(1, Some(1)), (2, None), (3, Some(2)), (4, Some(3)), (5, None)]);
    let head = f.head(topic).await;
    assert_eq!((head.offset, head.broadcast_no), (5, 3));
    let log = f.store.log(topic, 1, 3, 1 << 20).await.unwrap().unwrap();
    assert_eq!(log.notifications.iter().map(|n| n.offset).collect::<Vec<_>>(), [2, 3, 4]);
    assert_eq!((log.offset, log.notifications[0].to.clone()), (5, vec![bob]));
    // Bound by bytes: two messages of five bytes reach a bound of six.
    assert_eq!(f.store.log(topic, 0, 100, 6).await.unwrap().unwrap().notifications.len(), 2);
    let empty = f.store.log(topic, 5, 3, 100).await.unwrap().unwrap();
    assert_eq!((empty.notifications.len(), empty.offset), (0, 5));
    assert!(f.store.log(TopicId::new(&f.clock), 0, 3, 100).await.unwrap().is_none());
}

async fn a_batch_keeps_its_order(f: Fixture) {
    let ann = f.user();
    let (a, b) = (f.topic("a", ann).await, f.topic("b", ann).await);
    let bob = f.subscriber(a).await;
    let mut items: Vec<_> = (0..20).map(|i| f.preparation(if i % 3 == 0 { b } else { a }, ann, &[])).collect();
    items[4] = f.preparation(a, ann, &[bob, ann]);
    f.prepare(&items).await;
    // Not in the order of their ids.
    items.reverse();
    let gids: Vec<_> = items.iter().map(|item| item.gid).collect();
    let applied: Vec<_> = f.commit(&gids).await.into_iter().map(|done| done.unwrap().unwrap()).collect();
    for (topic, count) in [(a, 13), (b, 7)] {
        let offsets: Vec<_> = items
            .iter()
            .zip(&applied)
            .filter(|(item, _)| item.topic_id == topic)
            .map(|(_, done)| done.offset)
            .collect();
        assert_eq!(offsets, (1..=count).collect::<Vec<u64>>());
        let log = f.store.log(topic, 0, 100, 1 << 20).await.unwrap().unwrap().notifications;
        assert!(log.windows(2).all(|pair| pair[0].inserted_at < pair[1].inserted_at));
        let numbers: Vec<_> = log.iter().filter_map(|n| n.broadcast_no).collect();
        assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
    }
    let mut to = vec![bob, ann];
    to.sort();
    let targeted = f.store.log(a, 0, 100, 1 << 20).await.unwrap().unwrap().notifications;
    assert_eq!(targeted.iter().filter(|n| n.broadcast_no.is_none()).map(|n| n.to.clone()).collect::<Vec<_>>(), [to]);
}

async fn times_grow_even_if_the_clock_goes_back(f: Fixture) {
    let ann = f.user();
    let topic = f.topic("a", ann).await;
    let later = f.store.publish(&f.preparation(topic, ann, &[]), f.clock.now() + Duration::from_secs(9)).await.unwrap();
    let earlier = f.publish(topic, ann, &[]).await;
    assert!(earlier.inserted_at > later.inserted_at);
}

async fn what_is_prepared_is_not_visible(f: Fixture) {
    let ann = f.user();
    let topic = f.topic("a", ann).await;
    let bob = f.subscriber(topic).await;
    let item = f.preparation(topic, ann, &[]);
    assert!(matches!(f.prepare(std::slice::from_ref(&item)).await[..], [Inserted::New]));
    assert_eq!((f.unread(bob, topic).await, f.inbox(bob).await.len(), f.head(topic).await.offset), (0, 0, 0));
    f.commit(&[item.gid]).await[0].as_ref().unwrap();
    assert_eq!((f.unread(bob, topic).await, f.inbox(bob).await.len(), f.head(topic).await.offset), (1, 1, 1));
}

fn found(inserted: &[Inserted], f: &Fixture, item: &Preparation) -> OnPrepare {
    let [Inserted::Found(row, _)] = inserted else { panic!("{inserted:?}") };
    f.judge().prepare(Some(row), Asker::Coordinator, &item.request)
}

async fn every_step_may_be_repeated(f: Fixture) {
    let ann = f.user();
    let topic = f.topic("a", ann).await;
    let (one, two) = (f.preparation(topic, ann, &[]), f.preparation(topic, ann, &[]));
    f.prepare(&[one.clone(), two.clone()]).await;
    assert_eq!(found(&f.prepare(std::slice::from_ref(&one)).await, &f, &one), OnPrepare::Yes);
    let first = f.commit(&[one.gid]).await;
    f.publish(topic, ann, &[]).await;
    assert_eq!(f.commit(&[one.gid, one.gid]).await, [first[0].clone(), first[0].clone()]);
    assert_eq!(found(&f.prepare(std::slice::from_ref(&one)).await, &f, &one), OnPrepare::Yes);
    assert_eq!(f.rollback(&[two.gid, two.gid]).await, [Ok(()), Ok(())]);
    assert_eq!(f.rollback(&[two.gid]).await, [Ok(())]);
    assert_eq!(f.rollback(&[one.gid]).await, [Err(Refusal::Committed)]);
    assert_eq!(f.commit(&[two.gid]).await, [Err(Refusal::Aborted)]);
    assert_eq!(f.head(topic).await.offset, 2);
}

async fn a_tombstone_refuses_a_late_prepare(f: Fixture) {
    let ann = f.user();
    let topic = f.topic("a", ann).await;
    let item = f.preparation(topic, ann, &[]);
    assert_eq!(f.rollback(&[item.gid]).await, [Ok(())]);
    assert_eq!(found(&f.prepare(std::slice::from_ref(&item)).await, &f, &item), OnPrepare::No(Refusal::Aborted));
    assert_eq!(f.commit(&[item.gid]).await, [Err(Refusal::Aborted)]);
}

async fn a_commit_of_nothing_is_refused(f: Fixture) {
    assert_eq!(f.commit(&[f.gid()]).await, [Err(Refusal::NothingPrepared)]);
    assert_eq!(f.commit(&[]).await, []);
    assert_eq!(f.rollback(&[]).await, []);
}

async fn a_no_is_final(f: Fixture) {
    let ann = f.user();
    let topic = f.topic("a", ann).await;
    let mut item = f.preparation(topic, ann, &[]);
    let no = No { code: "topic_inactive".into(), detail: "topic `a` is inactive".into() };
    item.refusal = Some(no.clone());
    f.prepare(std::slice::from_ref(&item)).await;
    item.refusal = None;
    let again = f.prepare(std::slice::from_ref(&item)).await;
    assert!(matches!(&again[..], [Inserted::Found(_, Some(said))] if *said == no), "{again:?}");
    assert_eq!(found(&f.prepare(std::slice::from_ref(&item)).await, &f, &item), OnPrepare::No(Refusal::Aborted));
    assert_eq!(f.commit(&[item.gid]).await, [Err(Refusal::Aborted)]);
    // It reserves nothing.
    let other = Preparation { gid: f.gid(), ..item };
    assert!(matches!(f.prepare(&[other]).await[..], [Inserted::New]));
}

async fn an_item_that_stands_twice_counts_once(f: Fixture) {
    let ann = f.user();
    let topic = f.topic("a", ann).await;
    let item = f.preparation(topic, ann, &[]);
    let inserted = f.prepare(&[item.clone(), item.clone()]).await;
    assert!(matches!(inserted[..], [Inserted::New, Inserted::Found(..)]), "{inserted:?}");
    let applied = f.commit(&[item.gid, item.gid]).await;
    assert_eq!(applied[0], applied[1]);
    assert_eq!(f.head(topic).await.offset, 1);
}

async fn a_notification_id_is_reserved(f: Fixture) {
    let ann = f.user();
    let topic = f.topic("a", ann).await;
    let item = f.preparation(topic, ann, &[]);
    let other = Preparation { gid: f.gid(), ..item.clone() };
    let inserted = f.prepare(&[item.clone(), other.clone()]).await;
    assert!(
        matches!(inserted[..], [Inserted::New, Inserted::IdTaken] | [Inserted::IdTaken, Inserted::New]),
        "{inserted:?}"
    );
    let (held, refused) = if matches!(inserted[0], Inserted::New) { (&item, &other) } else { (&other, &item) };
    f.commit(&[held.gid]).await[0].as_ref().unwrap();
    assert!(matches!(f.prepare(std::slice::from_ref(refused)).await[..], [Inserted::IdTaken]));
}

async fn by_hand_and_by_coordinator_are_kept_apart(f: Fixture) {
    let (ann, bob) = (f.user(), f.user());
    let topic = f.topic("a", ann).await;
    let (hand, coordinated) = (f.preparation(topic, ann, &[]), f.preparation(topic, ann, &[]));
    f.store.prepare(std::slice::from_ref(&hand), Origin::Client, f.clock.now()).await.unwrap();
    f.prepare(std::slice::from_ref(&coordinated)).await;
    let by = |asker, gid: Gid| f.store.commit(Box::leak(Box::new([gid])), asker, f.judge(), f.clock.now());
    assert_eq!(f.commit(&[hand.gid]).await, [Err(Refusal::NothingPrepared)]);
    assert_eq!(by(Asker::User(ann), coordinated.gid).await.unwrap(), [Err(Refusal::Foreign)]);
    assert_eq!(by(Asker::User(bob), hand.gid).await.unwrap(), [Err(Refusal::Foreign)]);
    assert!(by(Asker::User(ann), hand.gid).await.unwrap()[0].is_ok());
    // A person leaves no tombstones.
    let before = f.rows("ptxn").await;
    let gid = [f.gid()];
    let refused = f.store.rollback(&gid, Asker::User(ann), f.judge(), f.clock.now()).await.unwrap();
    assert_eq!((refused, f.rows("ptxn").await), (vec![Err(Refusal::NotFound)], before));
}

async fn by_hand_expires_and_the_coordinators_does_not(f: Fixture) {
    let ann = f.user();
    let topic = f.topic("a", ann).await;
    let (hand, coordinated) = (f.preparation(topic, ann, &[]), f.preparation(topic, ann, &[]));
    f.store.prepare(std::slice::from_ref(&hand), Origin::Client, f.clock.now()).await.unwrap();
    f.prepare(std::slice::from_ref(&coordinated)).await;
    f.hand.advance(BY_HAND.checked_sub(Duration::from_micros(1)).unwrap());
    assert_eq!(f.store.expire(f.judge().expired_before()).await.unwrap(), 0);
    f.hand.advance(Duration::from_micros(1));
    // Late is late, also before the sweep has come by.
    let gids = [hand.gid];
    let late = f.store.commit(&gids, Asker::User(ann), f.judge(), f.clock.now()).await.unwrap();
    assert_eq!(late, [Err(Refusal::Expired)]);
    assert_eq!(f.store.expire(f.judge().expired_before()).await.unwrap(), 1);
    assert_eq!(f.store.expire(f.judge().expired_before()).await.unwrap(), 0);
    let late = f.store.commit(&gids, Asker::User(ann), f.judge(), f.clock.now()).await.unwrap();
    assert_eq!(late, [Err(Refusal::Expired)], "and after it");
    let found = f.store.find(hand.gid).await.unwrap().unwrap();
    assert_eq!((found.state, found.expired, found.user_id), (State::Aborted, true, ann));
    assert_eq!(f.store.find(coordinated.gid).await.unwrap().unwrap().state, State::Prepared);
    assert_eq!(f.store.find(f.gid()).await.unwrap(), None);
    // What it had reserved is free again.
    let other = Preparation { gid: f.gid(), ..hand };
    assert!(matches!(f.store.prepare(&[other], Origin::Client, f.clock.now()).await.unwrap()[..], [Inserted::New]));
    assert_eq!(f.store.overdue(f.clock.now() - Duration::from_secs(45)).await.unwrap(), 1);
    assert!(f.commit(&[coordinated.gid]).await[0].is_ok());
    assert_eq!(f.store.overdue(f.clock.now()).await.unwrap(), 0);
}

async fn terminal_rows_are_forgotten(f: Fixture) {
    let ann = f.user();
    let topic = f.topic("a", ann).await;
    let items: Vec<_> = (0..4).map(|_| f.preparation(topic, ann, &[])).collect();
    f.prepare(&items).await;
    f.commit(&[items[0].gid, items[1].gid]).await;
    f.rollback(&[items[2].gid]).await;
    f.hand.advance(Duration::from_secs(10));
    let young = f.preparation(topic, ann, &[]);
    f.prepare(std::slice::from_ref(&young)).await;
    f.commit(&[young.gid]).await;
    let before = f.clock.now() - Duration::from_secs(5);
    assert_eq!(f.store.forget(before, 2).await.unwrap(), 2);
    assert_eq!(f.store.forget(before, 2).await.unwrap(), 1);
    assert_eq!(f.store.forget(before, 2).await.unwrap(), 0);
    assert!(f.commit(&[items[3].gid, young.gid]).await.iter().all(Result::is_ok));
}

async fn strangers_are_told(f: Fixture) {
    let (ann, eve) = (f.user(), f.user());
    let (a, b) = (f.topic("a", ann).await, f.topic("b", ann).await);
    let bob = f.subscriber(a).await;
    let strangers = f.store.strangers(&[(a, bob), (b, bob), (a, eve)]).await.unwrap();
    assert_eq!(BTreeSet::from_iter(strangers), BTreeSet::from([(b, bob), (a, eve)]));
    let gates = f.store.gates(&[a, TopicId::new(&f.clock)]).await.unwrap();
    assert_eq!((gates.len(), gates[0].id, gates[0].creator_id), (1, a, ann));
}

/// What one publisher does: prepares batches over all topics, rolls one of ten back, commits the rest; how many of each topic.
async fn work(
    store: std::sync::Arc<dyn store::Store>,
    batches: Vec<Vec<Preparation>>,
    now: Timestamp,
) -> Vec<Preparation> {
    let mut committed = Vec::new();
    for batch in batches {
        store.prepare(&batch, Origin::Coordinator, now).await.unwrap();
        let (back, on): (Vec<_>, Vec<_>) = batch.into_iter().enumerate().partition(|(i, _)| i % 10 == 3);
        let gids = |items: &[(usize, Preparation)]| items.iter().map(|(_, item)| item.gid).collect::<Vec<Gid>>();
        let judge = Judge::at(now);
        let rolled = store.rollback(&gids(&back), Asker::Coordinator, judge, now).await.unwrap();
        assert!(rolled.iter().all(Result::is_ok));
        let done = store.commit(&gids(&on), Asker::Coordinator, judge, now).await.unwrap();
        assert!(done.iter().all(|done| matches!(done, Ok(Some(_)))));
        committed.extend(on.into_iter().map(|(_, item)| item));
    }
    committed
}

async fn commits_side_by_side_leave_no_gap_and_no_double(f: Fixture) {
    let ann = f.user();
    let mut topics = Vec::new();
    for i in 0..4 {
        topics.push(f.topic(&format!("t{i}"), ann).await);
    }
    let bob = f.user();
    for topic in &topics {
        f.subscribe(*topic, bob).await;
    }
    // Two instances of the service, as far as the database can tell.
    let stores = [store::open(&f.database), store::open(&f.database)];
    let mut tasks = tokio::task::JoinSet::new();
    for publisher in 0..8_usize {
        // Each names the topics in another order.
        let pick = |batch: usize, i: usize| topics[(i * (publisher + 1) + batch) % topics.len()];
        let to: &[UserId] = if publisher % 4 == 0 { &[bob] } else { &[] };
        let batches: Vec<Vec<_>> =
            (0..5).map(|batch| (0..20).map(|i| f.preparation(pick(batch, i), ann, to)).collect()).collect();
        tasks.spawn(work(stores[publisher % 2].clone(), batches, f.clock.now()));
    }
    let committed: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
    assert_eq!(committed.len(), 8 * 5 * 18);
    for topic in topics {
        let log = f.store.log(topic, 0, 1_000, 1 << 30).await.unwrap().unwrap();
        let wanted: BTreeSet<_> =
            committed.iter().filter(|item| item.topic_id == topic).map(|item| item.notification_id).collect();
        assert_eq!(log.notifications.iter().map(|n| n.id).collect::<BTreeSet<_>>(), wanted);
        let offsets: Vec<_> = log.notifications.iter().map(|n| n.offset).collect();
        assert_eq!(offsets, (1..=wanted.len() as u64).collect::<Vec<_>>());
        let numbers: Vec<_> = log.notifications.iter().filter_map(|n| n.broadcast_no).collect();
        assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>());
        let head = f.head(topic).await;
        assert_eq!((head.offset, head.broadcast_no), (offsets.len() as u64, numbers.len() as u64));
        assert_eq!(f.unread(bob, topic).await, head.offset);
    }
}

async fn the_same_commit_twice_at_once_happens_once(f: Fixture) {
    let ann = f.user();
    let topic = f.topic("a", ann).await;
    let items: Vec<_> = (0..50).map(|_| f.preparation(topic, ann, &[])).collect();
    f.prepare(&items).await;
    let gids: Vec<_> = items.iter().map(|item| item.gid).collect();
    let mut reversed = gids.clone();
    reversed.reverse();
    let (one, mut two) = tokio::join!(f.commit(&gids), f.commit(&reversed));
    two.reverse();
    assert_eq!(one, two);
    assert_eq!(f.head(topic).await.offset, 50);
}

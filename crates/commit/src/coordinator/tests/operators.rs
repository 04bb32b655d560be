//! What operators do by hand, and what a stop leaves behind for others.

use std::time::Duration;

use notifyx_model::Gid;
use notifyx_wire::rest::commit::{Heuristic, TransactionState, Voted};

use super::{gid, is_committed_and_applied, keyed};
use crate::{
    Config, Coordinator, Intervened, Outcome, Parties, Resolve, State,
    coordinator::tests::world::{ALWAYS, Fault, World, again, publish},
    participant,
};

/// A coordinator with a transaction in quarantine: the counter refuses its commit.
async fn quarantined(world: &std::sync::Arc<World>) -> (Coordinator, std::sync::Arc<super::world::Gateway>, Gid) {
    let (coordinator, gateway) = world.gateway_with(Config { quarantine_after_tries: 1, ..Config::default() });
    gateway.strike_times("commit counter", ALWAYS, Fault::Refuse);
    let sent = publish("hello");
    coordinator.publish(sent.clone()).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(world.record(gid(&sent)).unwrap().quarantined);
    (coordinator, gateway, gid(&sent))
}

fn resolve(gid: Gid, outcome: Heuristic) -> Resolve {
    Resolve { gid, outcome, by: "ann".parse().unwrap(), reason: "ticket 7".parse().unwrap() }
}

#[tokio::test(start_paused = true)]
async fn what_was_told_applied_is_found_applied() {
    let world = World::new();
    let (coordinator, gateway) = world.gateway();
    gateway.strike("acknowledge", Fault::Delay(Duration::from_millis(100)));
    let sent = publish("hello");
    assert!(is_committed_and_applied(&coordinator.publish(sent.clone()).await));
    // The task that hands the acks on runs.
    tokio::task::yield_now().await;
    let status = coordinator.find(gid(&sent)).await.unwrap().unwrap().status();
    assert_eq!((status.applied, status.state), (2, TransactionState::Committed));
    gateway.strike("acknowledge", Fault::Delay(Duration::from_secs(3_600)));
    let other = publish("hello");
    coordinator.publish(other.clone()).await;
    let before = tokio::time::Instant::now();
    assert_eq!(coordinator.find(gid(&other)).await.unwrap().unwrap().acked, Parties::NONE);
    assert!(before.elapsed() <= Duration::from_millis(500), "patience has a bound");
}

#[tokio::test(start_paused = true)]
async fn votes_are_kept_with_the_decision() {
    let world = World::new();
    let (coordinator, gateway) = world.gateway();
    *world.persist.refuses.lock().unwrap() = Some("bad");
    gateway.strike_times("prepare counter", 2, Fault::Fail);
    let sent = publish("bad news");
    coordinator.publish(sent.clone()).await;
    let votes = world.record(gid(&sent)).unwrap().votes;
    assert_eq!((votes.persist, votes.counter), (Some(Voted::No), Some(Voted::Error)));
    let sent = publish("good news");
    coordinator.publish(sent.clone()).await;
    let votes = world.record(gid(&sent)).unwrap().votes;
    assert_eq!((votes.persist, votes.counter), (Some(Voted::Yes), Some(Voted::Yes)));
}

#[tokio::test(start_paused = true)]
async fn a_retry_does_not_wait_for_the_pause_of_quarantine() {
    let world = World::new();
    let (coordinator, gateway, gid) = quarantined(&world).await;
    gateway.heal();
    assert!(matches!(coordinator.retry(gid, None).await.unwrap(), Intervened::Done(_)));
    tokio::time::sleep(Duration::from_secs(2)).await;
    world.check();
    assert!(matches!(coordinator.retry(gid, None).await.unwrap(), Intervened::Refused(_)), "it is closed");
}

#[tokio::test(start_paused = true)]
async fn a_resolved_transaction_is_not_tried_again_and_says_what_was_found() {
    let world = World::new();
    let (coordinator, _, gid) = quarantined(&world).await;
    let intervened = coordinator.resolve(&resolve(gid, Heuristic::Mixed)).await.unwrap();
    assert!(matches!(&intervened, Intervened::Done(record) if record.closed_at.is_some()), "{intervened:?}");
    let tries = world.calls("commit counter");
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert_eq!(world.calls("commit counter"), tries);
    let record = world.record(gid).unwrap();
    assert_eq!((record.state, record.acked.count()), (State::Commit, 1), "the decision stays, and who applied it");
    assert_eq!(record.status().state, TransactionState::Resolved);
    assert!(matches!(
        coordinator.resolve(&resolve(gid, Heuristic::Committed)).await.unwrap(),
        Intervened::Refused(record) if record.resolution.as_ref().unwrap().outcome == Heuristic::Mixed
    ));
}

#[tokio::test(start_paused = true)]
async fn a_resolution_that_agrees_with_the_decision_says_the_decision() {
    let world = World::new();
    let (coordinator, _, gid) = quarantined(&world).await;
    coordinator.resolve(&resolve(gid, Heuristic::Committed)).await.unwrap();
    let status = world.record(gid).unwrap().status();
    assert_eq!((status.state, status.outcome), (TransactionState::Committed, Some(Heuristic::Committed)));
}

/// Otherwise it would abort what nothing was wrong with.
#[tokio::test(start_paused = true)]
async fn a_retry_cannot_take_an_undecided_transaction_from_its_driver() {
    let world = World::new();
    let (coordinator, gateway) = world.gateway();
    gateway.strike("prepare counter", Fault::Delay(Duration::from_millis(900)));
    let sent = publish("hello");
    let publishing = tokio::spawn({
        let (coordinator, sent) = (coordinator.clone(), sent.clone());
        async move { coordinator.publish(sent).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let (other, _) = world.gateway();
    let intervened = other.retry(gid(&sent), None).await.unwrap();
    assert!(matches!(&intervened, Intervened::Refused(record) if record.state == State::Preparing), "{intervened:?}");
    assert!(is_committed_and_applied(&publishing.await.unwrap()));
    world.settle_and_check().await;
}

#[tokio::test(start_paused = true)]
async fn an_orderly_stop_leaves_no_lease_behind() {
    let world = World::new();
    let (coordinator, gateway) = world.gateway();
    gateway.strike_times("decide", 2, Fault::Fail);
    let sent = keyed("hello", "k");
    assert_eq!(coordinator.publish(sent.clone()).await, Outcome::Unknown { gid: gid(&sent) });
    coordinator.close().await;
    let (other, _) = world.gateway();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(world.record(gid(&sent)).unwrap().state, State::Abort, "within the lease of 10 s");
    assert_eq!(world.persist.state(gid(&sent)), Some(participant::State::Aborted));
    assert!(is_committed_and_applied(&other.publish(again(&sent)).await), "the key is free");
    world.settle_and_check().await;
}

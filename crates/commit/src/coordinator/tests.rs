//! The rows of the protocol's crash matrix that need no real process, and group operation.

mod groups;
mod operators;
mod world;

use std::time::Duration;

use notifyx_model::Gid;
use notifyx_wire::rest::commit::{TransactionState, Vote};
use world::{ALWAYS, Fault, World, again, publish};

use super::{Outcome, Transaction};
use crate::{Config, State, participant};

fn keyed(message: &str, key: &str) -> Transaction {
    Transaction { idem_key: Some(key.into()), ..publish(message) }
}

fn gid(transaction: &Transaction) -> Gid {
    transaction.gid.unwrap()
}

fn is_committed_and_applied(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Committed { applied: Some(_), .. })
}

#[tokio::test(start_paused = true)]
async fn a_publish_is_committed_applied_and_told() {
    let world = World::new();
    let (coordinator, _) = world.gateway();
    let sent = publish("hello");
    let outcome = coordinator.publish(sent.clone()).await;
    assert!(is_committed_and_applied(&outcome), "{outcome:?}");
    assert_eq!(*world.told.lock().unwrap(), [(sent.publish.notification_id, true)]);
    world.settle_and_check().await;
    assert!(world.calls("claim") > 40, "recovery looked each second");
    assert_eq!((world.calls("decide"), world.calls("commit persist")), (1, 1), "and found nothing to do");
    coordinator.close().await;
}

/// Row 0.
#[tokio::test(start_paused = true)]
async fn a_crash_before_begin_leaves_nothing_and_the_key_retries() {
    let world = World::new();
    let (coordinator, gateway) = world.gateway();
    gateway.strike("begin", Fault::Fail);
    let sent = keyed("hello", "k");
    assert!(matches!(coordinator.publish(sent.clone()).await, Outcome::NotBegun { .. }));
    assert_eq!(world.record(gid(&sent)), None);
    assert!(is_committed_and_applied(&coordinator.publish(again(&sent)).await));
    world.settle_and_check().await;
}

/// Row 14: "not published" would be a lie about a key that holds a commit.
#[tokio::test(start_paused = true)]
async fn a_repetition_that_cannot_be_begun_says_nothing_about_the_first() {
    let world = World::new();
    let (coordinator, gateway) = world.gateway();
    let sent = keyed("hello", "k");
    assert!(is_committed_and_applied(&coordinator.publish(sent.clone()).await));
    gateway.strike("begin", Fault::Fail);
    assert!(matches!(coordinator.publish(again(&sent)).await, Outcome::NotBegun { .. }));
    let outcome = coordinator.publish(again(&sent)).await;
    assert!(matches!(&outcome, Outcome::Known { status, .. } if status.gid == gid(&sent)), "{outcome:?}");
    world.settle_and_check().await;
}

/// Rows 1 and 4: whatever was prepared, an undecided transaction is aborted, and its key is free again.
#[tokio::test(start_paused = true)]
async fn a_gateway_that_dies_before_its_decision_is_aborted_by_another() {
    for (call, fault) in [
        ("begin", Fault::DieAfter),
        ("prepare persist", Fault::DieBefore),
        ("prepare persist", Fault::DieAfter),
        ("prepare counter", Fault::DieAfter),
        ("decide", Fault::DieBefore),
    ] {
        let world = World::new();
        let (coordinator, gateway) = world.gateway();
        gateway.strike(call, fault);
        let sent = keyed("hello", "k");
        let publishing = tokio::spawn({
            let sent = sent.clone();
            async move { coordinator.publish(sent).await }
        });
        let (other, _) = world.gateway();
        world.settle_and_check().await;
        publishing.abort();
        assert_eq!(world.record(gid(&sent)).unwrap().state, State::Abort, "{call} {fault:?}");
        for site in [&world.persist, &world.counter] {
            assert_eq!(site.state(gid(&sent)), Some(participant::State::Aborted), "a tombstone: {call} {fault:?}");
        }
        assert!(is_committed_and_applied(&other.publish(again(&sent)).await), "the key is free: {call} {fault:?}");
        world.settle_and_check().await;
    }
}

/// Row 2.
#[tokio::test(start_paused = true)]
async fn a_business_no_is_final_and_rolls_the_other_back() {
    let world = World::new();
    let (coordinator, _) = world.gateway();
    *world.persist.refuses.lock().unwrap() = Some("bad");
    let sent = publish("bad news");
    let outcome = coordinator.publish(sent.clone()).await;
    assert!(matches!(&outcome, Outcome::Refused { problem, .. } if problem.status == 409), "{outcome:?}");
    world.settle_and_check().await;
    let record = world.record(gid(&sent)).unwrap();
    assert_eq!(record.reason.as_deref(), Some("refused: the topic is inactive"));
}

/// Row 2.
#[tokio::test(start_paused = true)]
async fn an_unreachable_participant_aborts() {
    for fault in [Fault::Fail, Fault::LoseReply, Fault::Delay(Duration::from_secs(3_600))] {
        let world = World::new();
        let (coordinator, gateway) = world.gateway();
        gateway.strike_times("prepare counter", ALWAYS, fault);
        let sent = publish("hello");
        let outcome = coordinator.publish(sent.clone()).await;
        assert!(matches!(&outcome, Outcome::Aborted { .. }), "{fault:?}: {outcome:?}");
        world.settle_and_check().await;
        assert_eq!(world.persist.state(gid(&sent)), Some(participant::State::Aborted));
    }
}

/// Row 3.
#[tokio::test(start_paused = true)]
async fn a_prepare_that_comes_after_its_rollback_is_refused() {
    let world = World::new();
    let (coordinator, gateway) = world.gateway();
    gateway.strike_times("prepare counter", ALWAYS, Fault::Fail);
    let sent = publish("hello");
    coordinator.publish(sent.clone()).await;
    world.settle_and_check().await;
    assert!(matches!(world.counter.prepare(gid(&sent), &sent.publish), Vote::No(_)));
    world.check();
}

/// Row 5.
#[tokio::test(start_paused = true)]
async fn a_lost_decision_is_read_again_and_followed() {
    let world = World::new();
    let (coordinator, gateway) = world.gateway();
    gateway.strike("decide", Fault::LoseReply);
    let outcome = coordinator.publish(publish("hello")).await;
    assert!(is_committed_and_applied(&outcome), "{outcome:?}");
    world.settle_and_check().await;
}

/// Row 5.
#[tokio::test(start_paused = true)]
async fn a_decision_nobody_knows_is_answered_as_unknown_and_recovery_follows_the_row() {
    for (fault, state) in [(Fault::LoseReply, State::Commit), (Fault::Fail, State::Abort)] {
        let world = World::new();
        let (coordinator, gateway) = world.gateway();
        gateway.strike_times("decide", 2, fault);
        let sent = publish("hello");
        let outcome = coordinator.publish(sent.clone()).await;
        assert_eq!(outcome, Outcome::Unknown { gid: gid(&sent) });
        world.settle_and_check().await;
        assert_eq!(world.record(gid(&sent)).unwrap().state, state);
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_commits_after_its_deadline() {
    let world = World::new();
    // Other bounds than the protocol's, so that the answer comes late but within its own timeout.
    let config = Config { deadline_ms: 1_000, prepare_timeout_ms: 500, ..Config::default() };
    let (coordinator, gateway) = world.gateway_with(config);
    gateway.strike("decide", Fault::Delay(Duration::from_millis(1_001)));
    let sent = publish("hello");
    let outcome = coordinator.publish(sent.clone()).await;
    assert!(matches!(&outcome, Outcome::Aborted { .. }), "{outcome:?}");
    world.settle_and_check().await;
    assert_eq!(world.record(gid(&sent)).unwrap().state, State::Abort);
}

/// Rows 6 and 7.
#[tokio::test(start_paused = true)]
async fn a_decision_that_was_not_brought_to_both_is_brought_by_another_gateway() {
    for (call, fault) in [
        ("decide", Fault::DieAfter),
        ("commit persist", Fault::DieBefore),
        ("commit persist", Fault::DieAfter),
        ("commit counter", Fault::DieAfter),
    ] {
        let world = World::new();
        let (coordinator, gateway) = world.gateway();
        gateway.strike(call, fault);
        let sent = publish("hello");
        let publishing = tokio::spawn({
            let sent = sent.clone();
            async move { coordinator.publish(sent).await }
        });
        let _other = world.gateway();
        world.settle_and_check().await;
        publishing.abort();
        assert_eq!(world.record(gid(&sent)).unwrap().state, State::Commit, "{call} {fault:?}");
        let told = world.told.lock().unwrap().iter().any(|(id, _)| *id == sent.publish.notification_id);
        assert!(told, "live subscribers hear of a recovered commit: {call} {fault:?}");
    }
}

/// Row 8.
#[tokio::test(start_paused = true)]
async fn a_prepare_whose_answer_is_lost_is_asked_again() {
    let world = World::new();
    let (coordinator, gateway) = world.gateway();
    gateway.strike("prepare persist", Fault::LoseReply);
    gateway.strike("prepare counter", Fault::Delay(Duration::from_secs(2)));
    assert!(is_committed_and_applied(&coordinator.publish(publish("hello")).await));
    world.settle_and_check().await;
}

/// Rows 9 and 10.
#[tokio::test(start_paused = true)]
async fn a_commit_that_fails_at_first_is_told_as_decided_and_applied_soon() {
    for fault in [Fault::Fail, Fault::LoseReply] {
        let world = World::new();
        let (coordinator, gateway) = world.gateway();
        gateway.strike_times("commit counter", 3, fault);
        let outcome = coordinator.publish(publish("hello")).await;
        assert!(matches!(outcome, Outcome::Committed { applied: None, .. }), "{outcome:?}");
        tokio::time::sleep(Duration::from_millis(500)).await;
        world.check();
        assert_eq!(world.calls("defer"), 0, "short pauses need no write");
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_commit_is_answered_after_half_a_second() {
    let world = World::new();
    let (coordinator, gateway) = world.gateway();
    gateway.strike("commit counter", Fault::Delay(Duration::from_millis(1_500)));
    let before = tokio::time::Instant::now();
    let outcome = coordinator.publish(publish("hello")).await;
    assert!(matches!(outcome, Outcome::Committed { applied: None, .. }), "{outcome:?}");
    assert_eq!(before.elapsed().as_millis(), 500);
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    world.check();
}

/// Row 11.
#[tokio::test(start_paused = true)]
async fn what_both_applied_but_nobody_closed_is_closed_by_recovery() {
    let world = World::new();
    let (coordinator, gateway) = world.gateway();
    gateway.strike("acknowledge", Fault::Fail);
    assert!(is_committed_and_applied(&coordinator.publish(publish("hello")).await));
    world.settle_and_check().await;
    assert_eq!(world.calls("commit persist"), 2);
}

/// Row 12.
#[tokio::test(start_paused = true)]
async fn late_and_doubled_messages_have_no_effect() {
    for call in ["prepare persist", "decide", "commit persist", "commit counter"] {
        let world = World::new();
        let (slow, gateway) = world.gateway();
        // Beyond the lease: another gateway has taken over when the message arrives.
        gateway.strike_times(call, ALWAYS, Fault::Delay(Duration::from_secs(30)));
        let _other = world.gateway();
        slow.publish(publish("hello")).await;
        gateway.kill();
        tokio::time::sleep(Duration::from_secs(20)).await;
        world.check();
        world.settle_and_check().await;
    }
}

/// Row 13.
#[tokio::test(start_paused = true)]
async fn a_cut_off_participant_is_caught_up_after_healing() {
    let world = World::new();
    let (coordinator, gateway) = world.gateway();
    gateway.strike_times("commit persist", ALWAYS, Fault::Fail);
    let sent = publish("hello");
    let outcome = coordinator.publish(sent.clone()).await;
    assert!(matches!(outcome, Outcome::Committed { applied: None, .. }), "{outcome:?}");
    tokio::time::sleep(Duration::from_secs(600)).await;
    let record = world.record(gid(&sent)).unwrap();
    assert!(!record.quarantined, "what may heal is never quarantined");
    assert!(record.acked.counter && !record.acked.persist, "applied 1 of 2");
    assert!(world.calls("defer") > 5, "long pauses are kept in the lease");
    gateway.heal();
    world.settle_and_check().await;
}

/// Row 14.
#[tokio::test(start_paused = true)]
async fn without_its_store_the_coordinator_refuses_and_comes_back() {
    let world = World::new();
    let (coordinator, gateway) = world.gateway();
    for call in ["begin", "decide", "claim", "acknowledge", "figures"] {
        gateway.strike_times(call, ALWAYS, Fault::Delay(Duration::from_secs(3_600)));
    }
    assert!(matches!(coordinator.publish(publish("hello")).await, Outcome::NotBegun { .. }));
    gateway.heal();
    assert!(is_committed_and_applied(&coordinator.publish(publish("hello")).await));
    world.settle_and_check().await;
}

/// Row 15.
#[tokio::test(start_paused = true)]
async fn a_participant_that_lost_what_it_promised_is_quarantined_at_once_and_never_flipped() {
    let world = World::new();
    let (coordinator, gateway) = world.gateway();
    gateway.strike("commit counter", Fault::Fail);
    let sent = publish("hello");
    let publishing = coordinator.publish(sent.clone());
    let losing = async {
        while world.calls("commit counter") == 0 {
            tokio::task::yield_now().await;
        }
        world.counter.rows.lock().unwrap().clear();
    };
    tokio::join!(publishing, losing);
    tokio::time::sleep(Duration::from_secs(1)).await;
    let record = world.record(gid(&sent)).unwrap();
    assert!(record.quarantined && record.closed_at.is_none(), "{record:?}");
    assert_eq!(record.status().state, TransactionState::Quarantined);
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    let record = world.record(gid(&sent)).unwrap();
    assert_eq!((record.state, record.quarantined), (State::Commit, true));
    assert_eq!(world.counter.state(gid(&sent)), None);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_that_repeats_ten_times_is_quarantined_and_still_tried() {
    let world = World::new();
    let (coordinator, gateway) = world.gateway();
    gateway.strike_times("commit counter", ALWAYS, Fault::Refuse);
    let sent = publish("hello");
    coordinator.publish(sent.clone()).await;
    tokio::time::sleep(Duration::from_secs(120)).await;
    let record = world.record(gid(&sent)).unwrap();
    assert!(record.quarantined, "{record:?}");
    assert_eq!(record.refusals, 10);
    gateway.heal();
    tokio::time::sleep(Duration::from_secs(301)).await;
    world.check();
}

#[tokio::test(start_paused = true)]
async fn a_key_answers_with_the_transaction_that_holds_it() {
    let world = World::new();
    let (coordinator, _) = world.gateway();
    let sent = keyed("hello", "k");
    coordinator.publish(sent.clone()).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    match coordinator.publish(again(&sent)).await {
        Outcome::Known { status, applied } => {
            assert_eq!((status.gid, status.state, status.applied), (gid(&sent), TransactionState::Committed, 2));
            assert_eq!(applied.unwrap().notification_id, sent.publish.notification_id);
        }
        other => panic!("{other:?}"),
    }
    let another = Transaction { req_hash: [9; 32], ..again(&sent) };
    assert_eq!(coordinator.publish(another).await, Outcome::Mismatch { gid: gid(&sent) });
    let of_bob = Transaction { user_id: publish("x").user_id, ..again(&sent) };
    assert!(is_committed_and_applied(&coordinator.publish(of_bob).await), "keys of two users are two keys");
    world.settle_and_check().await;
}

#[tokio::test(start_paused = true)]
async fn a_repeated_key_is_applied_only_when_both_have_applied_it() {
    let world = World::new();
    let (coordinator, gateway) = world.gateway();
    gateway.strike_times("commit counter", ALWAYS, Fault::Fail);
    let sent = keyed("hello", "k");
    coordinator.publish(sent.clone()).await;
    let repeated = coordinator.publish(again(&sent)).await;
    assert!(matches!(repeated, Outcome::Known { applied: None, .. }), "persist alone is not all: {repeated:?}");
    gateway.heal();
    let repeated = coordinator.publish(again(&sent)).await;
    assert!(matches!(repeated, Outcome::Known { applied: Some(_), .. }), "{repeated:?}");
    assert_eq!(world.counter.state(gid(&sent)), Some(participant::State::Committed));
    world.settle_and_check().await;
}

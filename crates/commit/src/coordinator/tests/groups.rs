//! Group operation: many publishes share their steps.

use super::{
    Outcome, is_committed_and_applied, keyed,
    world::{World, again, publish},
};
use crate::Config;

#[tokio::test(start_paused = true)]
async fn one_key_sent_many_times_at_once_commits_once() {
    let world = World::new();
    let (coordinator, _) = world.gateway();
    let sent = keyed("hello", "k");
    let all = futures(20, |_| coordinator.publish(again(&sent))).await;
    let committed = all.iter().filter(|outcome| matches!(outcome, Outcome::Committed { .. })).count();
    let known = all.iter().filter(|outcome| matches!(outcome, Outcome::Known { .. })).count();
    assert_eq!((committed, known), (1, 19), "{all:?}");
    world.settle_and_check().await;
}

#[tokio::test(start_paused = true)]
async fn concurrent_publishes_share_their_steps_and_a_bad_one_harms_nobody() {
    let world = World::new();
    let (coordinator, _) = world.gateway();
    *world.persist.refuses.lock().unwrap() = Some("bad");
    let message = |i: usize| if i.is_multiple_of(10) { "bad" } else { "good" };
    let all = futures(100, |i| coordinator.publish(publish(message(i)))).await;
    for (i, outcome) in all.iter().enumerate() {
        match message(i) {
            "bad" => assert!(matches!(outcome, Outcome::Refused { .. }), "{i}: {outcome:?}"),
            _ => assert!(is_committed_and_applied(outcome), "{i}: {outcome:?}"),
        }
    }
    for step in ["begin", "prepare persist", "prepare counter", "decide", "commit persist", "commit counter"] {
        assert!(world.calls(step) <= 5, "{step}: {}", world.calls(step));
    }
    world.settle_and_check().await;
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_and_a_bad_key_begin_nothing() {
    let world = World::new();
    let config = Config { queue_items: 1, group_items: 1, groups_in_flight: 1, ..Config::default() };
    let (coordinator, _) = world.gateway_with(config);
    let all = futures(20, |_| coordinator.publish(publish("hello"))).await;
    assert!(all.iter().any(|outcome| matches!(outcome, Outcome::Busy(_))), "{all:?}");
    assert!(all.iter().any(is_committed_and_applied));
    for key in ["", "a\0b", &"k".repeat(256)] {
        let outcome = coordinator.publish(keyed("hello", key)).await;
        assert!(matches!(&outcome, Outcome::Refused { problem, .. } if problem.status == 400), "{key:?}");
    }
    world.settle_and_check().await;
}

#[tokio::test(start_paused = true)]
async fn closing_finishes_what_was_taken_and_takes_nothing_more() {
    let world = World::new();
    let (coordinator, _) = world.gateway();
    let publishing = tokio::spawn({
        let coordinator = coordinator.clone();
        async move { futures(50, |_| coordinator.publish(publish("hello"))).await }
    });
    tokio::task::yield_now().await;
    coordinator.close().await;
    let all = publishing.await.unwrap();
    assert!(all.iter().all(is_committed_and_applied), "{all:?}");
    assert!(matches!(coordinator.publish(publish("late")).await, Outcome::Busy(_)));
    world.check();
}

/// Runs `count` of them at once.
async fn futures<F: Future>(count: usize, make: impl Fn(usize) -> F) -> Vec<F::Output> {
    let mut pending: Vec<_> = (0..count).map(|i| Box::pin(make(i))).collect();
    let mut done: Vec<Option<F::Output>> = (0..count).map(|_| None).collect();
    std::future::poll_fn(|context| {
        for (future, done) in pending.iter_mut().zip(&mut done) {
            if done.is_none()
                && let std::task::Poll::Ready(output) = future.as_mut().poll(context)
            {
                *done = Some(output);
            }
        }
        if done.iter().all(Option::is_some) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
    })
    .await;
    done.into_iter().flatten().collect()
}

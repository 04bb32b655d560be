//! The consumer, held to its word with a log and a press in memory. Time moves when nothing else does.

mod log;
mod press;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use notifyx_mesh::CallError;
use notifyx_model::Clock;
use notifyx_wire::{
    grpc::events as wire,
    rest::{Problem, gateway::ScheduledState},
};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    consumer::{Consumer, LEASE, Running},
    metrics::Metrics,
};

use log::Kept;
use press::Printed;

fn refusal(status: u16, code: &str) -> CallError {
    let (title, detail) = ("No".to_owned(), "as the test wants it".to_owned());
    let problem = Problem { success: false, status, title, code: code.to_owned(), detail, request_id: None };
    CallError::Refused(Box::new(problem), None)
}

/// A gateway that consumes.
fn start(name: &str, log: &Arc<Kept>, press: &Arc<Printed>) -> Running {
    let metrics = Metrics::new(&prometheus::Registry::new());
    let (log, press) = (Arc::new(log.clone()), Arc::new(press.clone()));
    Consumer::new(log, press, name.to_owned(), Clock::system(), metrics).start(CancellationToken::new())
}

#[tokio::test(start_paused = true)]
async fn what_fired_is_published_once_and_the_position_follows() {
    let (log, press) = (Kept::new(), Arc::<Printed>::default());
    for n in 0..20 {
        log.fire("t", n);
    }
    let gateway = start("ann", &log, &press);
    log.drained().await;
    log.fire("t", 20);
    log.drained().await;
    gateway.stop().await;
    assert_eq!(press.messages(), (1..=21).map(|n| format!("t{n}")).collect::<Vec<_>>());
    assert_eq!(press.tries().len(), 21);
    assert!(log.state().outcomes.values().all(|outcome| outcome.as_str() == "published"));
    assert_eq!(log.state().until, None, "the lease was given back");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_away_delays_and_neither_loses_nor_swaps() {
    let (log, press) = (Kept::new(), Arc::<Printed>::default());
    press.set_away("a", true);
    let gateway = start("ann", &log, &press);
    for n in 0..5 {
        log.fire("a", n);
        log.fire("b", n);
    }
    log.until(|state| state.outcomes.len() == 5).await;
    assert_eq!(press.messages(), ["b2", "b4", "b6", "b8", "b10"], "another topic is not held up");
    assert_eq!(log.state().position, 0, "behind the first that is not done");
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    let tried = press.tries().len();
    assert!(tried < 2_000, "in an hour, with pauses: {tried}");
    press.set_away("a", false);
    log.drained().await;
    gateway.stop().await;
    assert_eq!(press.messages()[5..], ["a1", "a3", "a5", "a7", "a9"], "in order of time");
}

#[tokio::test(start_paused = true)]
async fn a_final_no_leaves_the_queue_with_its_reason() {
    let (log, press) = (Kept::new(), Arc::<Printed>::default());
    press.refused.lock().unwrap().insert("a");
    log.fire("a", 1);
    log.fire("b", 1);
    let data = bytes::Bytes::from_static(b"{\"a\": 1}");
    log.state().events.push(wire::Event { id: "odd".into(), data, offset: Some(3), ..wire::Event::default() });
    let gateway = start("ann", &log, &press);
    log.drained().await;
    gateway.stop().await;
    let codes: Vec<_> = log
        .state()
        .outcomes
        .values()
        .map(|outcome| match outcome {
            ScheduledState::Refused { code, .. } => code.clone(),
            other => other.as_str().to_owned(),
        })
        .collect();
    assert_eq!(
        codes.into_iter().collect::<BTreeSet<_>>(),
        ["not_creator", "published", "unreadable"].map(str::to_owned).into()
    );
    assert_eq!(press.messages(), ["b2"]);
}

#[tokio::test(start_paused = true)]
async fn what_a_call_says_in_refusing_words_is_no_final_no() {
    let (log, press) = (Kept::new(), Arc::<Printed>::default());
    press.misunderstood.lock().unwrap().insert("a");
    log.fire("a", 1);
    let gateway = start("ann", &log, &press);
    log.drained().await;
    gateway.stop().await;
    assert_eq!((press.tries().len(), press.messages()), (2, vec!["a1".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn one_that_fails_for_long_makes_no_other_late() {
    let (log, press) = (Kept::new(), Arc::<Printed>::default());
    press.set_away("a", true);
    log.fire("a", 1);
    let gateway = start("ann", &log, &press);
    tokio::time::sleep(Duration::from_secs(60)).await;
    for n in 0..3 {
        let fired = Instant::now();
        log.fire("b", 60 + n);
        log.until(|state| state.outcomes.len() as i64 > n).await;
        assert!(fired.elapsed() < Duration::from_secs(1), "{:?}", fired.elapsed());
        tokio::time::sleep(Duration::from_secs(7)).await;
    }
    gateway.stop().await;
    assert_eq!(press.messages(), ["b2", "b3", "b4"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_not_decided_is_not_done() {
    let (log, press) = (Kept::new(), Arc::<Printed>::default());
    press.undecided.lock().unwrap().insert("a");
    log.fire("a", 1);
    let gateway = start("ann", &log, &press);
    log.drained().await;
    gateway.stop().await;
    assert_eq!((press.tries().len(), press.messages()), (2, vec!["a1".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn a_crash_between_publish_and_position_publishes_nothing_twice() {
    let (log, press) = (Kept::new(), Arc::<Printed>::default());
    for n in 0..10 {
        log.fire(["a", "b"][n % 2], i64::try_from(n).unwrap());
    }
    log.set_broken("commit", true);
    press.refused.lock().unwrap().insert("b");
    let gateway = start("ann", &log, &press);
    log.until(|state| state.outcomes.len() == 10).await;
    gateway.kill().await;
    assert_eq!((log.state().position, press.tries().len()), (0, 10));
    // What was refused would not be now; what is written down counts.
    press.refused.lock().unwrap().clear();
    log.set_broken("commit", false);
    let gateway = start("bob", &log, &press);
    log.drained().await;
    gateway.stop().await;
    assert_eq!((press.tries().len(), press.messages().len()), (10, 5), "nothing was tried again");
}

#[tokio::test(start_paused = true)]
async fn a_crash_between_publish_and_outcome_publishes_nothing_twice() {
    let (log, press) = (Kept::new(), Arc::<Printed>::default());
    log.set_broken("conclude", true);
    for n in 0..5 {
        log.fire("abcde".get(n..=n).unwrap(), 1);
    }
    let gateway = start("ann", &log, &press);
    while press.messages().len() < 5 {
        press.tried.notified().await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    gateway.kill().await;
    log.set_broken("conclude", false);
    let gateway = start("bob", &log, &press);
    log.drained().await;
    gateway.stop().await;
    assert_eq!(press.messages().len(), 5, "by their keys");
    assert_eq!(log.state().outcomes.len(), 5);
}

#[tokio::test(start_paused = true)]
async fn an_outcome_that_cannot_be_written_down_yet_is_not_decided_anew() {
    let (log, press) = (Kept::new(), Arc::<Printed>::default());
    log.set_broken("conclude", true);
    press.refused.lock().unwrap().insert("a");
    log.fire("a", 1);
    let gateway = start("ann", &log, &press);
    tokio::time::sleep(Duration::from_secs(60)).await;
    press.refused.lock().unwrap().clear();
    log.set_broken("conclude", false);
    log.drained().await;
    gateway.stop().await;
    assert_eq!((press.tries().len(), press.messages().len()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn of_two_gateways_one_publishes_and_the_other_takes_over() {
    let (log, press) = (Kept::new(), Arc::<Printed>::default());
    let ann = start("ann", &log, &press);
    log.until(|state| state.holder == "ann").await;
    let bob = start("bob", &log, &press);
    for n in 0..30 {
        log.fire("t", n);
    }
    log.until(|state| state.position >= 10).await;
    assert_eq!(log.state().holder, "ann");
    ann.kill().await;
    log.drained().await;
    {
        let state = log.state();
        assert_eq!((state.holder.as_str(), state.epoch), ("bob", 2));
    }
    // In turn, with an orderly end: without waiting for the lease.
    let cid = start("cid", &log, &press);
    bob.stop().await;
    log.fire("t", 30);
    log.drained().await;
    assert_eq!(log.state().holder, "cid");
    cid.stop().await;
    assert_eq!(press.messages(), (1..=31).map(|n| format!("t{n}")).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn who_cannot_keep_the_lease_stops_and_comes_back() {
    let (log, press) = (Kept::new(), Arc::<Printed>::default());
    let gateway = start("ann", &log, &press);
    log.until(|state| state.holder == "ann").await;
    for what in ["lease", "read", "commit"] {
        log.set_broken(what, true);
    }
    tokio::time::sleep(LEASE * 3).await;
    log.fire("t", 1);
    tokio::time::sleep(LEASE * 3).await;
    assert_eq!(press.tries(), Vec::<String>::new(), "events is away");
    for what in ["lease", "read", "commit"] {
        log.set_broken(what, false);
    }
    log.drained().await;
    gateway.stop().await;
    assert_eq!(press.messages(), ["t1"]);
}

#[tokio::test(start_paused = true)]
async fn what_is_under_way_is_finished_before_the_end() {
    let (log, press) = (Kept::new(), Arc::<Printed>::default());
    for _ in 0..9 {
        log.fire("t", 1);
    }
    let gateway = start("ann", &log, &press);
    press.tried.notified().await;
    gateway.stop().await;
    let position = log.state().position;
    assert_eq!(
        (position, press.messages().len(), press.tries().len()),
        (9, 9, 9),
        "due at one instant, they go together"
    );
}

#[tokio::test(start_paused = true)]
async fn an_outcome_of_long_ago_is_not_taken_for_that_of_today() {
    let (log, press) = (Kept::new(), Arc::<Printed>::default());
    log.fire("a", 1);
    log.fire("a", 1);
    // Under one key: the first is forgotten, its outcome not yet.
    let id = log.state().events[0].id.clone();
    log.state().events[1].id = id;
    let gateway = start("ann", &log, &press);
    log.drained().await;
    gateway.stop().await;
    assert_eq!(log.state().outcomes.keys().cloned().collect::<Vec<_>>(), ["1", "2"]);
    assert_eq!(press.tries().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn one_that_breaks_off_begins_again() {
    let (log, press) = (Kept::new(), Arc::<Printed>::default());
    log.set_broken("panic", true);
    log.fire("t", 1);
    let gateway = start("ann", &log, &press);
    tokio::time::sleep(LEASE / 2).await;
    log.set_broken("panic", false);
    log.drained().await;
    gateway.stop().await;
    assert_eq!(press.messages(), ["t1"]);
}

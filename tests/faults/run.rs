//! Runs one case: the work, the faults, the healing, the check.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures_util::future::join_all;
use notifyx_commit::{Intervened, Resolve};
use notifyx_model::{Email, Message, OperatorName, Priority, Remark, TopicId, TopicName, UserId};
use notifyx_wire::rest::{commit::Heuristic, persist::NewNotification};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    books::{self, Final},
    client::{Answer, Order},
    databases::Place,
    points::{Case, Point, Process, Work},
    time::Standstill,
    world::{PATIENCE_MS, World, until},
};

/// What a case came to.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) violations: Vec<String>,
    pub(crate) passed: BTreeSet<Point>,
    /// Passed after the last strike and before all was well again: where the next one may hit the recovery from it.
    pub(crate) since: BTreeSet<Point>,
    /// The second strike of a pair hit nothing.
    pub(crate) missed: bool,
}

/// With everything reachable again no transaction is open longer (the protocol's time bound).
const BOUND: Duration = Duration::from_secs(45);
/// A call whose answer never comes is given up.
const STUCK: Duration = Duration::from_secs(30);
/// Between two looks whether all is well.
const LOOK: Duration = Duration::from_secs(1);
/// A case that has not come to rest by then never will.
const END: Duration = Duration::from_secs(600);

/// Runs it on a runtime of its own, in this thread.
pub(crate) fn run(place: &Place, case: &Case) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let databases = {
            let _still = Standstill::default().hold();
            place.databases().await
        };
        let world = World::new(databases.clone(), case.clone());
        if timeout(END, act(&world)).await.is_err() {
            world.violated(format!("it never came to rest; not struck: {:?}", world.not_struck()));
        }
        let (passed, since) = world.passed();
        world.end();
        let _still = Standstill::default().hold();
        databases.rest().await;
        let mut violations = world.take_violations();
        databases.compare(&mut violations);
        Report { violations, passed, since, missed: world.missed() }
    })
}

/// The people and their topics.
struct Cast {
    topics: Vec<(TopicId, TopicName)>,
    orders: Vec<Order>,
}

async fn cast(world: &Arc<World>) -> Cast {
    let clock = world.clock();
    let [ann, bob, carl, eve] = [0; 4].map(|_| UserId::new(&clock));
    let (persist, _) = world.persist().expect("everything is up");
    let mut topics = Vec::new();
    for (name, creator) in [("orders", ann), ("billing", carl)] {
        let name = TopicName::parse(name).unwrap();
        let id = persist.topic(&name, creator, &[bob]).await.expect("a topic");
        topics.push((id, name));
    }
    let order = |key: &str, user, topic: usize, to: &[UserId], refused| {
        let (topics, to): (&[(TopicId, TopicName)], _) = (&topics, to.to_vec());
        Order { key: key.into(), user, topic: topics[topic].0, to, refused }
    };
    let orders = vec![
        order("to all", ann, 0, &[], false),
        order("to one", ann, 0, &[bob], false),
        order("to a stranger", ann, 0, &[eve], true),
        order("elsewhere", carl, 1, &[], false),
    ];
    Cast { topics, orders }
}

async fn act(world: &Arc<World>) {
    let Cast { topics, orders } = cast(world).await;
    world.databases.count();
    // Between two rounds of recovery.
    sleep(Duration::from_millis(300)).await;
    let mut told = Vec::new();
    let mut resolved = None;
    match world.case.work {
        Work::Publish => {
            world.arm();
            told.extend(publish_all(world, &orders).await);
        }
        Work::Repeat => {
            orders[0].publish(world, &mut told).await;
            world.arm();
            orders[0].publish_until(world, &mut told, |answer| matches!(answer, Answer::Applied(_))).await;
        }
        Work::Stop => {
            world.arm();
            let stopping = async {
                sleep(Duration::from_secs(3)).await;
                world.stop(Process::Driver).await;
            };
            let (all, ()) = tokio::join!(publish_all(world, &orders), stopping);
            told.extend(all);
        }
        Work::Age => {
            age(world, &topics, &orders[..1], &mut told).await;
            told.extend(publish_all(world, &orders[1..]).await);
        }
        Work::Mend | Work::Resolve => resolved = intervene(world, &orders[0], &mut told).await,
    }
    come_to_rest(world).await;
    world.is_well_again();
    // Once more, now that all is well: the same key, the same answer.
    if resolved.is_none() {
        let last = if world.case.work == Work::Age { &orders[1..] } else { &orders[..] };
        for order in last {
            let before: Vec<Final> = told.iter().filter(|told| told.committed).copied().collect();
            let mut again = Vec::new();
            let answer = order.publish(world, &mut again).await;
            let kept = match answer {
                Answer::Applied(gid) => {
                    !order.refused
                        && (before.is_empty() || told.contains(&Final { gid, committed: true }) || fresh(world))
                }
                Answer::No(_) => order.refused,
                Answer::Committed(_) | Answer::Pending | Answer::Aborted(_) | Answer::None => false,
            };
            if !kept {
                world.violated(format!("5: `{}` was answered {answer:?} when all was well again", order.key));
            }
            told.extend(again);
        }
        come_to_rest(world).await;
    }
    books::check(world, &topics, &told, resolved).await;
}

/// Work that publishes only some of the orders: the rest is published first when all is well.
fn fresh(world: &World) -> bool {
    matches!(world.case.work, Work::Repeat | Work::Mend)
}

/// Everybody at once: one group.
async fn publish_all(world: &Arc<World>, orders: &[Order]) -> Vec<Final> {
    let publishing = orders.iter().map(|order| async move {
        let mut told = Vec::new();
        let first = order.publish(world, &mut told).await;
        (order, first, told)
    });
    let mut all = Vec::new();
    for (order, first, told) in join_all(publishing).await {
        let fine = match first {
            Answer::Applied(_) | Answer::Committed(_) => !order.refused,
            Answer::No(_) => order.refused,
            Answer::Pending | Answer::Aborted(_) | Answer::None => false,
        };
        if !fine && world.case.harmless() {
            world.violated(format!("nothing failed, and `{}` was answered {first:?}", order.key));
        }
        all.extend(told);
    }
    all
}

/// Until every fault has struck, everything is up, and nothing is open; the last within the time bound.
async fn come_to_rest(world: &Arc<World>) {
    let (began, bound, mut overdue) = (Instant::now(), bound(world), false);
    loop {
        let reachable = world.all_up() && !world.awaits();
        let waited = world.undisturbed_for().min(began.elapsed()) > bound;
        if reachable && waited && !world.all_struck() {
            world.give_up();
        }
        let over = reachable && world.all_struck();
        if over && books::all_closed(world).await {
            return;
        }
        if over && waited && !overdue {
            overdue = true;
            world.violated(format!("still open after {bound:?}: {:?}", books::transactions(world).await));
        }
        sleep(LOOK).await;
    }
}

/// A patient gateway's store is unreachable until it gives a lost call up.
fn bound(world: &World) -> Duration {
    let patience = if world.case.patient { Duration::from_millis(PATIENCE_MS) } else { Duration::ZERO };
    BOUND + patience
}

/// One transaction grows old and is forgotten, prepares by hand expire, something is published by hand.
async fn age(world: &Arc<World>, topics: &[(TopicId, TopicName)], orders: &[Order], told: &mut Vec<Final>) {
    let sweeping = tokio::spawn(sweep(world.clone()));
    for order in orders {
        order.publish(world, told).await;
    }
    come_to_rest_of(world).await;
    let by_hand = NewNotification {
        topic_id: topics[0].0,
        message: Message::parse("by hand").unwrap(),
        to_users: Vec::new(),
        priority: Priority::default(),
        is_2pc_locked: true,
        request_id: None,
    };
    let (user, from) = (orders[0].user, Email::parse("ann@example.org").unwrap());
    let (persist, _) = world.persist().expect("nothing struck yet");
    persist.prepare_by_hand(user, from.clone(), by_hand.clone()).await.expect("nothing struck yet");
    let (counter, _) = world.counter().expect("nothing struck yet");
    counter.prepare_by_hand(user).await.expect("nothing struck yet");
    world.arm();
    world.pass_days(40);
    loop {
        let Some((persist, dead)) = world.persist() else {
            sleep(Duration::from_secs(1)).await;
            continue;
        };
        let (from, by_hand) = (from.clone(), by_hand.clone());
        let publishing = async move { persist.publish_by_hand(user, from, by_hand).await };
        if matches!(timeout(STUCK, until(&dead, publishing)).await, Ok(Some(Ok(_)))) {
            break;
        }
        sleep(Duration::from_secs(1)).await;
    }
    // The coordinator trims once a minute; a sweep may be stuck in a lost call for half of one.
    let old = || async { !books::transactions(world).await.is_empty() || books::left_by_hand(world).await > 0 };
    while old().await || !world.all_struck() || !books::all_forgotten(world).await {
        sleep(Duration::from_secs(1)).await;
    }
    sweeping.abort();
}

async fn come_to_rest_of(world: &Arc<World>) {
    while !books::all_closed(world).await {
        sleep(Duration::from_millis(500)).await;
    }
}

/// Both participants sweep each second, as their services do.
async fn sweep(world: Arc<World>) {
    let persist = async {
        loop {
            if let Some((node, dead)) = world.persist() {
                let _ = timeout(STUCK, until(&dead, async move { node.sweep().await })).await;
            }
            sleep(Duration::from_secs(1)).await;
        }
    };
    let counter = async {
        loop {
            if let Some((node, dead)) = world.counter() {
                let _ = timeout(STUCK, until(&dead, async move { node.sweep().await })).await;
            }
            sleep(Duration::from_secs(1)).await;
        }
    };
    tokio::join!(persist, counter);
}

/// Persist lost what was decided: quarantined. An operator mends it and has it tried again, or writes down what came of it.
async fn intervene(world: &Arc<World>, order: &Order, told: &mut Vec<Final>) -> Option<notifyx_model::Gid> {
    world.arm();
    order.publish(world, told).await;
    let gid = loop {
        let rows = books::transactions(world).await;
        if let Some((gid, _)) = rows.iter().find(|(_, txn)| txn.quarantined) {
            break *gid;
        }
        sleep(Duration::from_millis(100)).await;
    };
    let mend = world.case.work == Work::Mend;
    if mend {
        books::find_prepared(world, gid).await;
    }
    let resolve = Resolve {
        gid,
        outcome: Heuristic::Mixed,
        by: OperatorName::parse("olga").unwrap(),
        reason: Remark::parse("persist was restored from yesterday").unwrap(),
    };
    for attempt in 0.. {
        let by = if attempt % 2 == 0 { Process::Driver } else { Process::Replica };
        if let Some((coordinator, dead)) = world.gateway(by) {
            let resolve = resolve.clone();
            let asked = async move {
                if mend { coordinator.retry(gid, Some(&resolve.by)).await } else { coordinator.resolve(&resolve).await }
            };
            // Refused: it was done before, and the answer was lost.
            let done = |answer| matches!(answer, Ok(Intervened::Done(_) | Intervened::Refused(_)));
            if timeout(STUCK, until(&dead, asked)).await.ok().flatten().is_some_and(done) {
                break;
            }
        }
        sleep(Duration::from_secs(1)).await;
    }
    (!mend).then_some(gid)
}

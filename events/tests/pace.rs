//! How fast the store is, with a million events in it, and how punctual the driver is. Not a claim: run it by hand, with
//! `--release --ignored --nocapture`. `NOTIFYX_PACE_WAITING` says how many wait.

#![expect(clippy::unwrap_used, reason = "a measurement that fails says where")]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use notifyx_database::testing;
use notifyx_events::{
    Config, Events,
    event::{NewEvent, Place},
    feed::{Feed, News},
    plan::Plan,
    queue::Bounds,
    store::{self, MIGRATIONS, Slot, Store},
    writer::Writer,
};
use notifyx_model::{Category, Clock, EventId, Priority, Timestamp};
use tokio_util::sync::CancellationToken;

const CONNECTIONS: usize = 4;
const BATCH: usize = 100;

fn event(clock: &Clock, category: usize, fire_at: Timestamp) -> NewEvent {
    NewEvent {
        id: EventId::new(clock),
        category: Category::parse(&format!("category-{category}")).unwrap(),
        key: None,
        priority: Priority::default(),
        data: Bytes::from(format!("{{\"hello\": \"{}\"}}", "x".repeat(100))),
        created_at: clock.now(),
        fire_at,
        owner: None,
        recurring: None,
    }
}

/// From a few connections in batches; events a second.
async fn schedule(writer: &Writer, count: usize, at: impl Fn(usize) -> Timestamp + Clone + Send + 'static) -> f64 {
    let began = Instant::now();
    let callers = (0..CONNECTIONS).map(|caller| {
        let (writer, at, clock) = (writer.clone(), at.clone(), Clock::system());
        tokio::spawn(async move {
            for batch in 0..count / CONNECTIONS / BATCH {
                let events = (0..BATCH).map(|i| event(&clock, i % 10, at((batch * BATCH + i) * CONNECTIONS + caller)));
                for result in writer.schedule(events.collect()).await {
                    result.unwrap();
                }
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
    count as f64 / began.elapsed().as_secs_f64()
}

/// All that is due, in steps; events a second.
async fn fire(store: &Arc<dyn Store>, until: Timestamp, step: u32) -> (usize, f64) {
    let (began, mut fired, mut after) = (Instant::now(), 0, None);
    loop {
        let due = store.due(until, after, step).await.unwrap();
        let Some(last) = due.last() else { break };
        after = Some(Slot { ..last.slot });
        let seqs: Vec<u64> = due.iter().map(|due| due.slot.seq).collect();
        let events = store.fire(&seqs, until).await.unwrap();
        assert!(events.iter().all(|event| matches!(event.place, Place::Fired { .. })));
        fired += events.len();
    }
    (fired, fired as f64 / began.elapsed().as_secs_f64())
}

async fn pace(kept: testing::TestDatabase) {
    let clock = Clock::system();
    let store = store::open(&kept.database, &clock);
    let (plan, feed) = (Arc::new(Plan::new(Bounds::default())), Feed::new(0));
    let writer = Writer::start(&store, &clock, &plan, &feed);
    let waiting: usize = std::env::var("NOTIFYX_PACE_WAITING").map_or(1_000_000, |text| text.parse().unwrap());
    let (now, hour) = (clock.now(), 3_600_000_000_usize);
    // Far events, all over a day: the worst order for an index.
    let far = move |i: usize| now + Duration::from_micros((hour + i * 7_919_000_003 % (24 * hour)) as u64);
    println!("scheduled far: {:.0}/s", schedule(&writer, waiting, far).await);
    let near = move |i: usize| now + Duration::from_micros(i as u64 * 100);
    println!("scheduled near, {waiting} wait: {:.0}/s", schedule(&writer, 100_000, near).await);
    for step in [500, 100, 10] {
        let until = now
            + Duration::from_secs(match step {
                500 => 6,
                100 => 9,
                _ => 10,
            });
        let (fired, rate) = fire(&store, until, step).await;
        println!("fired {fired} by {step}: {rate:.0}/s");
    }
    let began = Instant::now();
    store.earliest().await.unwrap();
    println!("earliest: {:?}", began.elapsed());
}

/// All events due within ten seconds, on the machine's clock: how late the watcher has them.
async fn punctuality(kept: testing::TestDatabase) {
    const SECONDS: usize = 10;
    let clock = Clock::system();
    let (events, work) = Events::new(&Config::default(), &kept.database, &clock);
    let (mut watcher, stop) = (events.feed.watch(), CancellationToken::new());
    let work = tokio::spawn(work.run("here".to_owned(), stop.clone()));
    for (rate, categories) in [(1_000, 10), (10_000, 10), (10_000, 1)] {
        let (count, start) = (rate * SECONDS, clock.now() + Duration::from_secs(30));
        for batch in 0..count / BATCH {
            let at = |i: usize| start + Duration::from_micros(((batch * BATCH + i) * 1_000_000 / rate) as u64);
            let new = (0..BATCH).map(|i| event(&clock, i % categories, at(i))).collect();
            events.schedule.schedule(new).await.into_iter().for_each(|kept| drop(kept.unwrap()));
        }
        let ready = start.since(clock.now());
        let mut late: Vec<Duration> = Vec::with_capacity(count);
        while late.len() < count {
            let News::Appended(fired) = watcher.next().await else { panic!("the watcher keeps up") };
            let now = clock.now();
            late.extend(fired.iter().map(|event| now.since(event.given.fire_at)));
        }
        late.sort_unstable();
        let [p50, p99, max] = [count / 2, count * 99 / 100, count - 1].map(|rank| late[rank]);
        println!("{rate}/s in {categories}: p50 {p50:?}, p99 {p99:?}, max {max:?}; all were there {ready:?} before");
    }
    stop.cancel();
    work.await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn punctual_on_sqlite() {
    punctuality(testing::sqlite(&MIGRATIONS).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn punctual_on_postgres() {
    punctuality(testing::postgres(&MIGRATIONS).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn sqlite() {
    pace(testing::sqlite(&MIGRATIONS).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn postgres() {
    pace(testing::postgres(&MIGRATIONS).await).await;
}

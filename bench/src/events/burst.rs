//! Events that are posted in batches, and fire one after the other at their times.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

use notifyx_model::{Clock, Timestamp};
use serde::Serialize;
use tokio::{task::JoinSet, time::sleep};

use super::{
    Events, FAR,
    door::{Post, Stand},
};
use crate::{error::Error, flight::Flight, latency::Latency, process::Process};

/// Between the last post and the first event due: windows fill, commits settle.
const LEAD: Duration = Duration::from_secs(2);

/// A post of so many events a second is hoped for; where it is slower, the first are due later than planned.
const POSTS_PER_S: u32 = 8_000;

/// Events that have not arrived so long after the last was due do not arrive.
const LATE_MAX: Duration = Duration::from_secs(30);

/// Each event of a run has its own number.
#[derive(Debug, Default)]
pub(super) struct Numbers(u32);

impl Numbers {
    fn take(&mut self, count: u32) -> u32 {
        let first = self.0;
        self.0 += count;
        first
    }
}

/// Events that were due one after the other, so many a second.
#[derive(Debug, Serialize)]
pub(super) struct Burst {
    pub(super) rate: u32,
    pub(super) events: u32,
    /// While posting them.
    pub(super) posted_per_s: f64,
    /// Arrival minus `fireAt`, of each arrival.
    pub(super) late: Latency,
    /// Of the platform while they fired: seconds per second. `None` where its process is not known.
    pub(super) server_cpu: Option<f64>,
    pub(super) client_cpu: f64,
}

/// An event to post.
pub(super) struct New {
    pub(super) category: u32,
    pub(super) fire_at: Timestamp,
    pub(super) seq: u32,
}

pub(super) async fn warm_up(stand: &Stand, args: &Events, numbers: &mut Numbers) -> Result<(), Error> {
    let short = Events { seconds: 1, ..args.clone() };
    fire(stand, &short, 1_000, numbers).await.map(drop)
}

/// Posts, waits for their time, and answers how late they arrived: each once at each client of its category.
pub(super) async fn fire(stand: &Stand, args: &Events, rate: u32, numbers: &mut Numbers) -> Result<Burst, Error> {
    let count = rate * args.seconds;
    let first = numbers.take(count);
    let lead = LEAD + Duration::from_secs_f64(f64::from(count) / f64::from(POSTS_PER_S));
    let flight = Flight::new(first, count, args.clients, 1);
    let start = Clock::system().now() + lead;
    let due = move |i: u32| start + Duration::from_secs_f64(f64::from(i) / f64::from(rate));
    (0..count).for_each(|i| flight.due(first + i, due(i)));
    let flight = Arc::new(flight);
    stand.begin(flight.clone())?;
    let categories = args.categories;
    let event = move |i| New { category: i % categories, fire_at: due(i), seq: first + i };
    let posted_per_s = post_all(stand, args, count, event).await?;
    let now = Clock::system().now();
    if now > start {
        return Err(Error::failed(format!(
            "posting {count} events took {:?} longer than was left until the first was due: they are late for that",
            now.since(start)
        )));
    }
    sleep(start.since(now)).await;
    let server_cpu = || stand.process().map(Process::cpu_s).transpose();
    let (began, server_before, client_before) = (Instant::now(), server_cpu()?, Process::this().cpu_s()?);
    sleep(Duration::from_secs(u64::from(args.seconds))).await;
    let until = Instant::now() + LATE_MAX;
    while flight.lacks() > 0 && Instant::now() < until {
        sleep(Duration::from_millis(20)).await;
    }
    let (took, server_after, client_after) = (began.elapsed().as_secs_f64(), server_cpu()?, Process::this().cpu_s()?);
    let tally = stand.finish()?;
    if flight.lacks() > 0 || tally.stray > 0 || !tally.lost.is_empty() {
        return Err(Error::failed(format!(
            "of {count} events {} are missing at some client {LATE_MAX:?} after the last was due, {} came twice, sockets lost: {:?}",
            flight.lacks(),
            tally.stray,
            tally.lost
        )));
    }
    Ok(Burst {
        rate,
        events: count,
        posted_per_s,
        late: tally.latency,
        server_cpu: server_before.zip(server_after).map(|(before, after)| (after - before) / took),
        client_cpu: (client_after - client_before) / took,
    })
}

/// Events of the far future in the same categories, in the worst order for an index; how many a second.
pub(super) async fn schedule_far(stand: &Stand, args: &Events, count: u32) -> Result<f64, Error> {
    /// Shares no factor with a day's microseconds: neighbours are hours apart, and no two at once.
    const STRIDE: u64 = 79_190_000_003;
    let (now, day) = (Clock::system().now(), u64::try_from(FAR.as_micros()).expect("a day"));
    let categories = args.categories;
    let far = move |i: u32| now + FAR + Duration::from_micros(u64::from(i) * STRIDE % day);
    post_all(stand, args, count, move |i| New { category: i % categories, fire_at: far(i), seq: i }).await
}

/// One event of the far future in each of the idle categories.
pub(super) async fn schedule_apart(stand: &Stand, args: &Events) -> Result<(), Error> {
    let (at, categories) = (Clock::system().now() + FAR, args.categories);
    let event = move |i| New { category: categories + i, fire_at: at, seq: i };
    post_all(stand, args, args.idle, event).await.map(drop)
}

/// From all connections; how many a second.
async fn post_all(
    stand: &Stand,
    args: &Events,
    count: u32,
    event: impl Fn(u32) -> New + Copy + Send + 'static,
) -> Result<f64, Error> {
    let (next, batch) = (Arc::new(AtomicU32::new(0)), args.batch);
    let mut work = JoinSet::new();
    let mut posters: Vec<Post> = Vec::new();
    for _ in 0..args.connections {
        posters.push(stand.post(args.payload as usize).await?);
    }
    let began = Instant::now();
    for mut post in posters {
        let next = next.clone();
        work.spawn(async move {
            loop {
                let from = next.fetch_add(batch, Ordering::Relaxed);
                if from >= count {
                    return Ok(());
                }
                let events: Vec<New> = (from..count.min(from + batch)).map(event).collect();
                post.post(&events).await?;
            }
        });
    }
    while let Some(one) = work.join_next().await {
        one.expect("who posts does not panic")?;
    }
    Ok(f64::from(count) / began.elapsed().as_secs_f64())
}

//! So many at once, each of which begins its next when its last was answered.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use tokio::{runtime::Handle, task::JoinSet};

use crate::{error::Error, latency::Latency, notifyx, payload, yardstick};

/// Somebody who publishes, or who writes what a publish would.
pub(super) enum Worker {
    Publisher(notifyx::Publisher),
    Writer(yardstick::Writer),
}

impl Worker {
    /// The HTTP status, or what it would have been.
    async fn publish(&mut self, message: String) -> Result<u16, Error> {
        match self {
            Self::Publisher(publisher) => publisher.publish(&message).await,
            Self::Writer(writer) => writer.write(message).await.map(|()| 201),
        }
    }
}

/// What one worker, or all of them, got.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Of those that were accepted.
    pub(super) latency: Latency,
    /// Answers by HTTP status.
    pub(super) statuses: BTreeMap<u16, u64>,
    /// Until the last answer.
    pub(super) took: Duration,
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.latency.add(&other.latency);
        for (status, count) in &other.statuses {
            *self.statuses.entry(*status).or_default() += count;
        }
    }

    pub(super) fn answered(&self) -> u64 {
        self.statuses.values().sum()
    }
}

/// All publish until the time is over; each finishes what it has begun. On this thread, or where `handle` says.
pub(super) async fn run_for(
    span: Duration,
    workers: Vec<Worker>,
    payload_bytes: u32,
    handle: Option<&Handle>,
) -> Result<(Tally, Vec<Worker>), Error> {
    let began = Instant::now();
    let until = began + span;
    let mut work = JoinSet::new();
    for mut worker in workers {
        let task = async move {
            let mut tally = Tally::default();
            let mut seq = 0;
            while Instant::now() < until {
                let message = payload::text(seq, payload_bytes as usize);
                seq += 1;
                let sent = Instant::now();
                let status = worker.publish(message).await?;
                if matches!(status, 201 | 202) {
                    tally.latency.record_span(sent.elapsed());
                }
                *tally.statuses.entry(status).or_default() += 1;
            }
            Ok::<_, Error>((tally, worker))
        };
        match handle {
            Some(handle) => work.spawn_on(task, handle),
            None => work.spawn(task),
        };
    }
    let (mut all, mut rested) = (Tally::default(), Vec::new());
    while let Some(one) = work.join_next().await {
        let (tally, worker) = one.expect("a worker does not panic")?;
        all.add(&tally);
        rested.push(worker);
    }
    all.took = began.elapsed();
    Ok((all, rested))
}

//! Firing: what is due, by priority, then time, then arrival, a transaction per batch.
//!
//! A batch is what has become due while the one before it was written. What could not be fired goes back and is tried again.

use std::{thread, time::Duration};

use notifyx_chassis::reply;
use notifyx_model::{Fault, Kind, Timestamp};
use tokio::{task::spawn_blocking, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::{Again, Driver, LOOK, answer, doubt::Doubt, rest};
use crate::{Error, event::Event, feed::weight, store::Due};

/// Events of one transaction: 10 to 20 ms of writing, which is what the next one waits for.
const BATCH_MAX: usize = 500;

/// Of the first batch, whatever the events weigh: 4 MiB at most.
const BATCH_MIN: usize = 16;

/// What a batch may weigh before the next one is smaller: the events are in memory on their way to the watchers.
const BATCH_BYTES: usize = 4 << 20;

/// The runtime's timers count in milliseconds and come up to two of them late: the last bit is slept by a thread.
const FINE: Duration = Duration::from_millis(3);

impl Driver {
    pub(super) async fn fire(&self, over: &CancellationToken) {
        let (mut again, mut limit, mut doubt) = (Again::default(), BATCH_MIN, Doubt::default());
        while !over.is_cancelled() {
            let now = self.clock.now();
            let due = self.plan.due(now, limit);
            if due.is_empty() {
                doubt.clear();
                // No longer than until the next look: the clock may be put forward.
                let wait = self.plan.earliest().map_or(LOOK, |at| at.since(now).min(LOOK));
                match wait.checked_sub(FINE) {
                    Some(wait) => rest(wait, &self.plan.calls.nearer, over).await,
                    None => self.rest_finely(wait, over).await,
                }
                continue;
            }
            match self.fire_batch(&due, &mut doubt).await {
                Ok(bytes) if bytes > BATCH_BYTES => limit = (limit / 2).max(BATCH_MIN),
                Ok(_) => (limit, again) = ((limit * 2).min(BATCH_MAX), Again::default()),
                Err(error) => {
                    warn!(error = %reply::chain(&error), "{} due events wait for the store: {error}", due.len());
                    // Perhaps they are too heavy to be written in the time there is.
                    limit = (limit / 2).max(BATCH_MIN);
                    again.rest(over).await;
                }
            }
        }
    }

    /// As [`rest`], to a tenth of a millisecond, for at most [`FINE`].
    async fn rest_finely(&self, wait: Duration, over: &CancellationToken) {
        tokio::select! {
            () = over.cancelled() => {}
            () = self.plan.calls.nearer.notified() => {}
            // Given up, it sleeps to its end, which is near.
            _ = spawn_blocking(move || thread::sleep(wait)) => {}
            // Where all threads are busy, late is better than not at all.
            () = sleep(wait) => {}
        }
    }

    /// What the fired weigh. If the batch fails because of what is in it, it is halved until what fails stands alone.
    pub(super) async fn fire_batch(&self, due: &[Due], doubt: &mut Doubt) -> Result<usize, Error> {
        let mut bytes = 0;
        // What is still to be fired, the next of it last.
        let mut rest = vec![due];
        while let Some(some) = rest.pop() {
            match self.fire_together(some, doubt).await {
                Ok(fired) => bytes += fired,
                Err(error) if error.kind() == Kind::Internal && some.len() > 1 => {
                    warn!("{} events cannot be fired together ({error}): trying them in halves", some.len());
                    let (first, second) = some.split_at(some.len() / 2);
                    rest.extend([second, first]);
                }
                Err(error) if error.kind() == Kind::Internal => {
                    // It is in the store still: the next look finds it, and it is tried again.
                    let Due { category, slot, .. } = &some[0];
                    let error = reply::chain(&error);
                    error!(seq = slot.seq, %error, "an event of category `{category}` is due and cannot be fired");
                }
                Err(error) => {
                    for some in rest.into_iter().chain([some]) {
                        self.plan.found(some);
                    }
                    return Err(error);
                }
            }
        }
        Ok(bytes)
    }

    async fn fire_together(&self, due: &[Due], doubt: &mut Doubt) -> Result<usize, Error> {
        let (seqs, at) = (due.iter().map(|due| due.slot.seq).collect::<Vec<u64>>(), self.clock.now());
        let events = match answer(self.store.fire(&seqs, at)).await {
            Ok(events) => events,
            Err(error) => {
                // Rolled back, if it is what was in it that failed; else nobody knows.
                if error.kind() != Kind::Internal {
                    doubt.add(due, at);
                }
                return Err(error);
            }
        };
        self.tell_doubtful(doubt, due, &events).await;
        let bytes = weight(&events);
        self.tell(events, self.clock.now());
        Ok(bytes)
    }

    /// These are in the log, since then.
    pub(super) fn tell(&self, events: Vec<Event>, since: Timestamp) {
        self.plan.fired(&events, since);
        self.feed.publish(events);
    }
}

//! Group commit: what concurrent callers give shares a transaction, and each event gets its own result.
//!
//! The next transaction begins when the one before it has ended, with all that came meanwhile. A call's events are kept in their
//! order, behind those of calls that came before it.

use std::{fmt, iter::repeat_n, sync::Arc};

use futures_util::{StreamExt, stream};
use notifyx_batch::{Batcher, Options};
use notifyx_model::{Clock, Fault, Kind};
use tracing::warn;

use crate::{
    Error,
    event::NewEvent,
    feed::Feed,
    plan::Plan,
    store::{Kept, Store},
};

/// What a row costs besides its data, in bytes of data: about as long as it takes to write it.
const ROW_BYTES: usize = 1024;

/// Of one transaction, in data and rows: 1,024 small events, or 4 of the largest. It holds up what fires for some 20 ms.
const TRANSACTION_BYTES: usize = 1024 * 1024;

/// Pieces of a call: a quarter of a transaction, so that a large call lets others in.
const PIECE_BYTES: usize = TRANSACTION_BYTES / 4;

/// Pieces of one call that wait or are written at once: the next transaction fills while one is written.
const PIECES: usize = 8;

/// Pieces that wait, of all calls; in weight 64 transactions, which is seconds of work.
const WAITING_MAX: usize = 64 * CALLS_MAX;

/// Calls of one event each that share a transaction: as many as its weight allows.
const CALLS_MAX: usize = TRANSACTION_BYTES / ROW_BYTES;

/// One result per event of the piece.
type Written = Vec<Result<Kept, Arc<Error>>>;

/// Cheap to clone.
#[derive(Clone)]
pub struct Writer {
    schedule: Batcher<Vec<NewEvent>, Written>,
    append: Batcher<Vec<NewEvent>, Written>,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

#[derive(Clone, Copy)]
enum Act {
    Schedule,
    Append,
}

impl Act {
    fn name(self) -> &'static str {
        match self {
            Self::Schedule => "schedule",
            Self::Append => "append",
        }
    }
}

/// Who is told of what was committed, in the order of commits.
#[derive(Clone)]
struct Told {
    plan: Arc<Plan>,
    feed: Feed,
}

impl Told {
    fn of(&self, act: Act, kept: &[Kept]) {
        self.plan.metrics.wrote(act.name(), kept.len());
        match act {
            Act::Schedule => self.plan.scheduled(kept),
            Act::Append => {
                let new = kept.iter().filter(|kept| !kept.duplicate);
                self.feed.publish(new.map(|kept| kept.event.clone()).collect());
            }
        }
    }
}

impl Writer {
    /// Starts on the current runtime. What is committed is told: to the plan what waits, to the feed what is in the log.
    pub fn start(store: &Arc<dyn Store>, clock: &Clock, plan: &Arc<Plan>, feed: &Feed) -> Self {
        let told = Told { plan: plan.clone(), feed: feed.clone() };
        let batcher = |name, act| {
            let options = Options {
                name,
                items_max: CALLS_MAX,
                bytes_max: TRANSACTION_BYTES,
                queue_max: WAITING_MAX,
                // One after the other: events arrive in the order in which they were given.
                in_flight: 1,
            };
            let (store, clock, told) = (store.clone(), clock.clone(), told.clone());
            Batcher::start(
                options,
                |events: &Vec<NewEvent>| weight(events),
                move |pieces: Vec<Vec<NewEvent>>| {
                    let (store, clock, told) = (store.clone(), clock.clone(), told.clone());
                    async move { write_pieces(&*store, &clock, &told, act, pieces).await }
                },
            )
        };
        Self {
            schedule: batcher("events for the schedule", Act::Schedule),
            append: batcher("events for the log", Act::Append),
        }
    }

    /// Keeps events for their time. A result for each, in their order.
    pub async fn schedule(&self, events: Vec<NewEvent>) -> Vec<Result<Kept, Error>> {
        submit(&self.schedule, events).await
    }

    /// Appends events to the log. A result for each, in their order.
    pub async fn append(&self, events: Vec<NewEvent>) -> Vec<Result<Kept, Error>> {
        submit(&self.append, events).await
    }

    /// Pieces that wait now, for a gauge.
    pub fn queued(&self) -> usize {
        self.schedule.queued() + self.append.queued()
    }

    /// Takes nothing more, and returns when what was taken is written, or given up.
    pub async fn close(&self) {
        tokio::join!(self.schedule.close(), self.append.close());
    }
}

fn weight(events: &[NewEvent]) -> usize {
    events.iter().map(|event| event.data.len() + ROW_BYTES).sum()
}

/// In pieces of at most [`PIECE_BYTES`], or of one event.
fn pieces(events: Vec<NewEvent>) -> Vec<Vec<NewEvent>> {
    let mut pieces: Vec<Vec<NewEvent>> = Vec::new();
    let mut bytes = 0;
    for event in events {
        let more = weight(std::slice::from_ref(&event));
        match pieces.last_mut() {
            Some(piece) if bytes + more <= PIECE_BYTES => {
                bytes += more;
                piece.push(event);
            }
            _ => {
                bytes = more;
                pieces.push(vec![event]);
            }
        }
    }
    pieces
}

async fn submit(batcher: &Batcher<Vec<NewEvent>, Written>, events: Vec<NewEvent>) -> Vec<Result<Kept, Error>> {
    let submitted = pieces(events).into_iter().map(|piece| async move {
        let count = piece.len();
        match batcher.submit(piece).await {
            Ok(written) => written.into_iter().map(|result| result.map_err(Error::Shared)).collect(),
            Err(rejected) => (0..count).map(|_| Err(Error::Queue(rejected))).collect::<Vec<_>>(),
        }
    });
    // They are submitted in their order, whatever becomes of those before.
    stream::iter(submitted).buffered(PIECES).concat().await
}

async fn write_pieces(
    store: &dyn Store,
    clock: &Clock,
    told: &Told,
    act: Act,
    pieces: Vec<Vec<NewEvent>>,
) -> Vec<Written> {
    let counts: Vec<usize> = pieces.iter().map(Vec::len).collect();
    let events: Vec<NewEvent> = pieces.into_iter().flatten().collect();
    let mut results = write(store, clock, told, act, &events).await.into_iter();
    counts.into_iter().map(|count| results.by_ref().take(count).collect()).collect()
}

/// One transaction. If it fails because of what is in it, it is halved until what fails stands alone.
async fn write(store: &dyn Store, clock: &Clock, told: &Told, act: Act, events: &[NewEvent]) -> Written {
    let mut written = Vec::with_capacity(events.len());
    // What is still to be written, the next of it last.
    let mut rest = vec![events];
    while let Some(some) = rest.pop() {
        let outcome = match act {
            Act::Schedule => store.schedule(some).await,
            Act::Append => store.append(some, clock.now()).await,
        };
        match outcome {
            Ok(kept) => {
                told.of(act, &kept);
                written.extend(kept.into_iter().map(Ok));
            }
            Err(error) if error.kind() == Kind::Internal && some.len() > 1 => {
                warn!("{} events cannot be written together ({error}): trying them in halves", some.len());
                let (first, second) = some.split_at(some.len() / 2);
                rest.extend([second, first]);
            }
            Err(error) => written.extend(repeat_n(Err(Arc::new(error)), some.len())),
        }
    }
    written
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use notifyx_database::{Database, testing};
    use notifyx_model::{Category, EventId, ManualClock, Priority};

    use super::*;
    use crate::{
        event::Place,
        queue::Bounds,
        store::{self, MIGRATIONS},
    };

    fn event(id: &str, bytes: usize) -> NewEvent {
        let now = ManualClock::new().clock().now();
        NewEvent {
            id: EventId::parse(id).unwrap(),
            category: Category::parse("a").unwrap(),
            key: None,
            priority: Priority::default(),
            data: Bytes::from(vec![b'1'; bytes]),
            created_at: now,
            fire_at: now,
            owner: None,
            recurring: None,
        }
    }

    fn seqs(results: &[Result<Kept, Error>]) -> Vec<u64> {
        let seq = |kept: &Kept| match kept.event.place {
            Place::Waiting { seq } => seq,
            Place::Fired { offset, .. } => offset,
        };
        results.iter().map(|result| seq(result.as_ref().unwrap())).collect()
    }

    async fn writer() -> (testing::TestDatabase, Writer) {
        let kept = testing::sqlite(&MIGRATIONS).await;
        let clock = ManualClock::new().clock();
        let (plan, feed) = (Arc::new(Plan::new(Bounds::default())), Feed::new(0));
        let writer = Writer::start(&store::open(&kept.database, &clock), &clock, &plan, &feed);
        (kept, writer)
    }

    #[test]
    fn a_call_is_cut_by_weight_in_its_order() {
        let events = vec![event("1", 200_000), event("2", 200_000), event("3", 10), event("4", 10)];
        let cut: Vec<Vec<NewEvent>> = pieces(events);
        let ids: Vec<Vec<&str>> =
            cut.iter().map(|piece| piece.iter().map(|event| event.id.as_str()).collect()).collect();
        assert_eq!(ids, [vec!["1"], vec!["2", "3", "4"]]);
        assert!(pieces(Vec::new()).is_empty());
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn callers_share_transactions_and_each_gets_its_own_results_in_order() {
        let (_kept, writer) = writer().await;
        let calls = (0..20).map(|caller| {
            let events = (0..700).map(|i| event(&format!("{caller}-{i}"), 10)).collect();
            let writer = writer.clone();
            tokio::spawn(async move { writer.schedule(events).await })
        });
        let calls: Vec<_> = calls.collect();
        let mut all = Vec::new();
        for (caller, call) in calls.into_iter().enumerate() {
            let results = call.await.unwrap();
            let numbers = seqs(&results);
            assert!(numbers.is_sorted(), "in their order");
            let last = results.last().unwrap().as_ref().unwrap();
            assert_eq!(last.event.given.id.as_str(), format!("{caller}-699"));
            all.extend(numbers);
        }
        all.sort_unstable();
        assert_eq!(all, (1..=14_000).collect::<Vec<_>>());
        let appended = writer.append(vec![event("now", 10), event("3-3", 10)]).await;
        assert_eq!(appended.iter().map(|r| r.as_ref().unwrap().duplicate).collect::<Vec<_>>(), [false, true]);
        writer.close().await;
        let late = writer.schedule(vec![event("late", 10)]).await;
        assert!(matches!(late[0], Err(Error::Queue(_))));
    }

    #[tokio::test]
    async fn what_cannot_be_written_fails_alone() {
        let (kept, writer) = writer().await;
        let Database::Sqlite(sqlite) = &kept.database else { unreachable!("it is SQLite") };
        let mut tx = sqlite.begin().await.unwrap();
        sqlx::query(
            "CREATE TRIGGER refuse BEFORE INSERT ON scheduled WHEN new.id = 'bad' BEGIN SELECT RAISE(ABORT, 'no'); END",
        )
        .execute(&mut *tx)
        .await
        .unwrap();
        tx.commit().await.unwrap();
        let events = ["1", "2", "bad", "3", "4"].map(|id| event(id, 10)).into();
        let results = writer.schedule(events).await;
        let stored: Vec<bool> = results.iter().map(Result::is_ok).collect();
        assert_eq!(stored, [true, true, false, true, true]);
    }
}

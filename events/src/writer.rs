//! Group commit: what concurrent callers give and ask shares a transaction, and each event gets its own result.
//!
//! The next transaction begins when the one before it has ended, with all that came meanwhile. A call's events are kept in their
//! order, behind those of calls that came before it.

mod commits;

use std::{fmt, sync::Arc};

use futures_util::{StreamExt, stream};
use notifyx_batch::{Batcher, Options};
use notifyx_model::{Clock, Timestamp};

use self::commits::{Act, Commits};
use crate::{
    Error,
    event::NewEvent,
    feed::Feed,
    plan::Plan,
    store::{Change, Kept, Named, Store},
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

/// What waits for a transaction, and what became of it.
type Orders<I, O> = Batcher<I, Result<O, Arc<Error>>>;

/// Pieces of calls of many events, with a result per event.
type Events = Batcher<Vec<NewEvent>, Vec<Result<Kept, Arc<Error>>>>;

/// Cheap to clone.
#[derive(Clone)]
pub struct Writer {
    schedule: Events,
    append: Events,
    cancel: Orders<Named, Change>,
    reschedule: Orders<(Named, Timestamp), Change>,
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

impl Writer {
    /// Starts on the current runtime. What is committed is told: to the plan what waits, to the feed what is in the log.
    pub fn start(store: &Arc<dyn Store>, clock: &Clock, plan: &Arc<Plan>, feed: &Feed) -> Self {
        let (store, clock, plan, feed) = (store.clone(), clock.clone(), plan.clone(), feed.clone());
        let commits = Commits { store, clock, plan, feed };
        Self {
            schedule: events("events for the schedule", &commits, Commits::schedule),
            append: events("events for the log", &commits, Commits::append),
            cancel: orders("events to be cancelled", &commits, Commits::cancel),
            reschedule: orders("events to be rescheduled", &commits, Commits::reschedule),
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

    /// Takes an event out of the schedule.
    pub async fn cancel(&self, event: Named) -> Result<Change, Error> {
        self.cancel.submit(event).await?.map_err(Error::Shared)
    }

    /// Gives an event of the schedule another time.
    pub async fn reschedule(&self, event: Named, at: Timestamp) -> Result<Change, Error> {
        self.reschedule.submit((event, at)).await?.map_err(Error::Shared)
    }

    /// Pieces and orders that wait now, for a gauge.
    pub fn queued(&self) -> usize {
        self.schedule.queued() + self.append.queued() + self.cancel.queued() + self.reschedule.queued()
    }

    /// Takes nothing more, and returns when what was taken is written, or given up.
    pub async fn close(&self) {
        tokio::join!(self.schedule.close(), self.append.close(), self.cancel.close(), self.reschedule.close());
    }
}

fn options(name: &'static str) -> Options {
    Options {
        name,
        items_max: CALLS_MAX,
        bytes_max: TRANSACTION_BYTES,
        queue_max: WAITING_MAX,
        // One after the other: what is given arrives in its order.
        in_flight: 1,
    }
}

fn events(name: &'static str, commits: &Commits, act: Act<NewEvent, Kept>) -> Events {
    let commits = commits.clone();
    let write = move |pieces: Vec<Vec<NewEvent>>| {
        let commits = commits.clone();
        async move {
            let counts: Vec<usize> = pieces.iter().map(Vec::len).collect();
            let events: Vec<NewEvent> = pieces.into_iter().flatten().collect();
            let mut results = commits.halved(act, &events).await.into_iter();
            counts.into_iter().map(|count| results.by_ref().take(count).collect()).collect()
        }
    };
    Batcher::start(options(name), |events: &Vec<NewEvent>| weight(events), write)
}

/// Each is about a row that is there.
fn orders<I, O>(name: &'static str, commits: &Commits, act: Act<I, O>) -> Orders<I, O>
where
    I: Send + Sync + 'static,
    O: Send + 'static,
{
    let commits = commits.clone();
    let write = move |orders: Vec<I>| {
        let commits = commits.clone();
        async move { commits.halved(act, &orders).await }
    };
    Batcher::start(options(name), |_| ROW_BYTES, write)
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

async fn submit(batcher: &Events, events: Vec<NewEvent>) -> Vec<Result<Kept, Error>> {
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use bytes::Bytes;
    use notifyx_database::{Database, Sqlite, testing};
    use notifyx_model::{Category, EventId, Fault, ManualClock, Priority};

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

    async fn writer() -> (testing::TestDatabase, Arc<Plan>, Writer) {
        let kept = testing::sqlite(&MIGRATIONS).await;
        let clock = ManualClock::new().clock();
        let (plan, feed) = (Arc::new(Plan::new(Bounds::default(), clock.clone())), Feed::new(0));
        let writer = Writer::start(&store::open(&kept.database, &clock), &clock, &plan, &feed);
        (kept, plan, writer)
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
        let (_kept, _, writer) = writer().await;
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

    fn named(id: &str) -> Named {
        Named { category: Category::parse("a").unwrap(), id: EventId::parse(id).unwrap() }
    }

    /// From now on the store refuses to do that to the event `bad`.
    async fn refuse(kept: &testing::TestDatabase, deed: &str) {
        let Database::Sqlite(sqlite) = &kept.database else { unreachable!("it is SQLite") };
        let mut tx = sqlite.begin().await.unwrap();
        let row = if deed == "INSERT" { "new" } else { "old" };
        let sql = format!(
            "CREATE TRIGGER refuse_{deed} BEFORE {deed} ON scheduled WHEN {row}.id = 'bad' BEGIN SELECT RAISE(ABORT, 'no'); END"
        );
        sqlx::query(&sql).execute(&mut *tx).await.unwrap();
        tx.commit().await.unwrap();
    }

    #[tokio::test]
    async fn what_cannot_be_written_fails_alone() {
        let (kept, _, writer) = writer().await;
        refuse(&kept, "INSERT").await;
        let events = ["1", "2", "bad", "3", "4"].map(|id| event(id, 10)).into();
        let results = writer.schedule(events).await;
        let stored: Vec<bool> = results.iter().map(Result::is_ok).collect();
        assert_eq!(stored, [true, true, false, true, true]);
    }

    /// What becomes of orders that are all given while somebody else writes.
    async fn at_once<F>(sqlite: &Sqlite, orders: impl IntoIterator<Item = F>) -> Vec<String>
    where
        F: Future<Output = Result<Change, Error>> + Send + 'static,
    {
        let held = sqlite.begin().await.unwrap();
        let given = Arc::new(AtomicUsize::new(0));
        let give = |order: F| {
            let given = given.clone();
            tokio::spawn(async move {
                given.fetch_add(1, Ordering::Relaxed);
                order.await
            })
        };
        let orders: Vec<_> = orders.into_iter().map(give).collect();
        // There is one thread: who counted has given its order too.
        while given.load(Ordering::Relaxed) < orders.len() {
            tokio::task::yield_now().await;
        }
        held.rollback().await.unwrap();
        let mut told = Vec::new();
        for order in orders {
            told.push(match order.await.unwrap() {
                Ok(Change::Done(event) | Change::Moved(event, _)) => {
                    format!("{}: {}", event.given.id.as_str(), event.given.fire_at.as_micros())
                }
                Ok(Change::Fired(_)) => "fired".to_owned(),
                Ok(Change::Unknown) => "unknown".to_owned(),
                Err(error) => format!("{:?}", error.kind()),
            });
        }
        told
    }

    async fn waiting(sqlite: &Sqlite) -> Vec<String> {
        let sql = "SELECT id || ': ' || fire_at FROM scheduled ORDER BY id";
        sqlx::query_scalar(sql).fetch_all(&sqlite.read).await.unwrap()
    }

    #[tokio::test]
    async fn orders_share_a_transaction_and_each_gets_its_own_result() {
        let (kept, plan, writer) = writer().await;
        let Database::Sqlite(sqlite) = &kept.database else { unreachable!("it is SQLite") };
        writer.schedule(["1", "2", "bad", "3"].map(|id| event(id, 10)).into()).await;
        writer.append(vec![event("past", 10)]).await;
        let reschedule = |(id, micros)| {
            let writer = writer.clone();
            async move { writer.reschedule(named(id), Timestamp::from_micros(micros)).await }
        };
        let moves = [("1", 7), ("2", 8), ("bad", 9), ("none", 7), ("past", 7), ("2", 6)];
        let told = at_once(sqlite, moves.map(reschedule)).await;
        assert_eq!(told, ["1: 7", "2: 8", "bad: 9", "unknown", "fired", "2: 6"]);
        assert!(plan.metrics.transactions("reschedule") <= 2, "the first may have gone alone");
        refuse(&kept, "UPDATE").await;
        let moves = [("1", 17), ("bad", 19), ("2", 18)];
        assert_eq!(at_once(sqlite, moves.map(reschedule)).await, ["1: 17", "Internal", "2: 18"]);
        assert_eq!(waiting(sqlite).await[..2], ["1: 17", "2: 18"]);

        refuse(&kept, "DELETE").await;
        let cancel = |id| {
            let writer = writer.clone();
            async move { writer.cancel(named(id)).await }
        };
        let told = at_once(sqlite, ["1", "bad", "none", "past", "2", "1"].map(cancel)).await;
        assert_eq!(told, ["1: 17", "Internal", "unknown", "fired", "2: 18", "unknown"]);
        assert_eq!(waiting(sqlite).await.len(), 2, "`3` and `bad`");
        writer.close().await;
        assert!(matches!(cancel("3").await, Err(Error::Queue(_))));
    }
}

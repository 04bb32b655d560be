//! What events keeps, as the domain says it. One method is one transaction; each noun has its trait, and each backend a file
//! per noun (`store/postgres/…`, `store/sqlite/…`) with its SQL written out.
//!
//! Locks are taken in one order everywhere, so that no two transactions wait for each other: recurring schedules by id, then topics by
//! their number. Whoever adds to a topic, in the schedule or in the log, or takes something out of it holds its row: that alone makes
//! ids unique and offsets free of gaps.

#[cfg(test)]
mod conformance;
mod keep;
mod postgres;
mod row;
mod sqlite;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use notifyx_database::Database;
use notifyx_model::{Category, Clock, EventId, Priority, Timestamp};
use tokio::time::timeout;

use crate::{
    Error,
    consumer::{Consumer, ConsumerName, Holder},
    event::{Event, EventKey, NewEvent},
    recurring::{Recurring, State},
};

/// The migrations of both backends.
pub static MIGRATIONS: notifyx_database::Migrations = notifyx_database::Migrations {
    sqlite: sqlx::migrate!("./migrations/sqlite"),
    postgres: sqlx::migrate!("./migrations/postgres"),
};

/// The store of an open database. SQLite's leases are judged by the clock, Postgres' by the server's own.
pub fn open(database: &Database, clock: &Clock) -> Arc<dyn Store> {
    match database {
        Database::Sqlite(sqlite) => Arc::new(sqlite::Sqlite::new(sqlite.clone(), clock.clone())),
        Database::Postgres(pool) => Arc::new(postgres::Postgres::new(pool.clone())),
    }
}

/// What the store is given for one answer: far longer than the slowest commit, shorter than for ever. A server that vanished without
/// a word would be waited for until the kernel gives it up, which takes a quarter of an hour.
const ANSWER_MAX: Duration = Duration::from_secs(10);

/// The store's answer, or that there was none in time.
pub(crate) async fn answer<T>(asked: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    timeout(ANSWER_MAX, asked).await.unwrap_or(Err(Error::Silent))
}

pub trait Store: Log + Schedule + Recurrings + Leases + Consumers + Retention {}
impl<T: Log + Schedule + Recurrings + Leases + Consumers + Retention> Store for T {}

/// What became of one event of many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// As it is stored: the one of that time, if its id was seen before.
    pub event: Event,
    /// Nothing was stored now.
    pub duplicate: bool,
}

/// Bounds of a page.
#[derive(Clone, Copy, Debug)]
pub struct Page {
    /// Events.
    pub limit: u32,
    /// Of data. A page holds one event at least, if there is one.
    pub bytes: u32,
}

/// An event's name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Named {
    pub category: Category,
    pub id: EventId,
}

/// Where a category stands. One that nobody used stands at 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    pub category: Category,
    /// The newest event's; 0 if there was none.
    pub offset: u64,
    /// Up to here the log was trimmed: what is above is kept.
    pub trimmed: u64,
    /// Events in the schedule.
    pub waiting: u64,
}

/// A page of a category's log.
#[derive(Clone, Debug)]
pub struct Read {
    pub events: Vec<Event>,
    pub offset: u64,
    /// Above `after`, the reader has missed what the retention took.
    pub trimmed: u64,
}

#[async_trait]
pub trait Log: Send + Sync {
    /// Appends in this order, at the ends of their categories. Call it with events of at most some MiB: they are one statement.
    async fn append(&self, events: &[NewEvent], at: Timestamp) -> Result<Vec<Kept>, Error>;

    /// What is above an offset, oldest first.
    async fn read(&self, category: &Category, after: u64, page: Page) -> Result<Read, Error>;

    /// What is below an offset, newest first; `None`: the newest.
    async fn read_back(&self, category: &Category, before: Option<u64>, page: Page) -> Result<Read, Error>;

    /// In the order asked.
    async fn heads(&self, categories: &[Category]) -> Result<Vec<Head>, Error>;

    /// The events of that id, waiting or fired, of one category or of whichever has it that is not the platform's own: at most [`FOUND_MAX`].
    async fn find(&self, id: &EventId, category: Option<&Category>) -> Result<Vec<Event>, Error>;
}

/// Enough to see that an id alone names no single event.
pub const FOUND_MAX: u32 = 2;

/// A place in the schedule's order: by time, then by arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot {
    pub at: Timestamp,
    pub seq: u64,
}

/// What the schedule says of an event without its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    pub category: Category,
    pub slot: Slot,
    pub priority: Priority,
}

/// Which of the events that wait.
#[derive(Clone, Copy, Debug)]
pub enum Which<'a> {
    All,
    Of(&'a Category),
    /// Of this key.
    About(&'a Category, &'a EventKey),
}

/// What became of an order about a waiting event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// As it was when it was cancelled.
    Done(Event),
    /// As it is now that it has another time, and where it waited before.
    Moved(Event, Slot),
    /// Too late: it is in the log.
    Fired(Event),
    Unknown,
}

#[async_trait]
pub trait Schedule: Send + Sync {
    /// Keeps the events for their time; they arrive in this order.
    async fn schedule(&self, events: &[NewEvent]) -> Result<Vec<Kept>, Error>;

    /// Takes events out of the schedule. Their ids are free again.
    async fn cancel(&self, events: &[Named]) -> Result<Vec<Change>, Error>;

    /// Gives events another time. They arrive anew, in this order: what holds their old [`Slot`] holds nothing.
    async fn reschedule(&self, orders: &[(Named, Timestamp)]) -> Result<Vec<Change>, Error>;

    /// A page of what waits, soonest first.
    async fn waiting(&self, which: Which<'_>, after: Option<Slot>, page: Page) -> Result<Vec<Event>, Error>;

    /// The next of a category in order of their slots.
    async fn refill(&self, category: &Category, after: Option<Slot>, limit: u32) -> Result<Vec<Due>, Error>;

    /// What is due until a time (inclusive), of all categories, in order of slots.
    async fn due(&self, until: Timestamp, after: Option<Slot>, limit: u32) -> Result<Vec<Due>, Error>;

    /// The earliest deadline there is.
    async fn earliest(&self) -> Result<Option<Timestamp>, Error>;

    /// The categories in which something waits, by name.
    async fn backlogs(&self, after: Option<&Category>, limit: u32) -> Result<Vec<Head>, Error>;

    /// How many events wait in all: the sum over the categories in which something waits.
    async fn count_waiting(&self) -> Result<u64, Error>;

    /// Moves the events of these numbers from the schedule to the log, in this order, and returns them as they are there. What is no
    /// longer in the schedule is left out.
    async fn fire(&self, seqs: &[u64], at: Timestamp) -> Result<Vec<Event>, Error>;
}

/// Occurrences of a recurring schedule that are to be made.
#[derive(Clone, Debug)]
pub struct Occurrences {
    pub id: EventId,
    /// The next nominal time, as it was read.
    pub next: Timestamp,
    /// Nominal times, and their events.
    pub events: Vec<(Timestamp, NewEvent)>,
    /// The next nominal time after them; `None`: that was the last.
    pub then: Option<Timestamp>,
    /// How many more were skipped.
    pub skipped: u64,
}

/// A recurring schedule whose next nominal time is reached: itself, or why it cannot be read.
#[derive(Debug)]
pub struct Reached {
    pub at: Timestamp,
    pub id: String,
    pub recurring: Result<Recurring, Error>,
}

/// What became of a recurring schedule that is to be deleted.
#[derive(Debug, PartialEq, Eq)]
pub enum Deleted {
    /// It has ended, and more of it waits: this was one step of many.
    Ended(Recurring),
    Gone(Recurring),
}

#[async_trait]
pub trait Recurrings: Send + Sync {
    /// The schedule as it is kept, and whether its id was there before.
    async fn create_recurring(&self, recurring: &Recurring) -> Result<(Recurring, bool), Error>;

    async fn find_recurring(&self, id: &EventId) -> Result<Option<Recurring>, Error>;

    /// A page by id, of one category or of all.
    async fn list_recurring(
        &self,
        category: Option<&Category>,
        after: Option<&EventId>,
        page: Page,
    ) -> Result<Vec<Recurring>, Error>;

    /// Pauses, resumes or ends: from the state that was read to another. `None` if it is in another state, or gone.
    async fn change_recurring(&self, id: &EventId, from: State, to: State) -> Result<Option<Recurring>, Error>;

    /// Ends it, and takes at most `rows` of its occurrences out of the schedule; when none waits any more, it goes itself. As it was
    /// before; `None`: it is not there.
    async fn delete_recurring(&self, id: &EventId, rows: u32) -> Result<Option<Deleted>, Error>;

    /// Those whose next nominal time lies behind a time and id and is reached, earliest first, then by id.
    async fn due_recurring(
        &self,
        after: (Timestamp, &str),
        until: Timestamp,
        limit: u32,
    ) -> Result<Vec<Reached>, Error>;

    /// Those whose next nominal time lies before another, by id: of many that lag behind none has to wait for the others' end.
    async fn late_recurring(&self, before: Timestamp, after: &str, limit: u32) -> Result<Vec<Reached>, Error>;

    /// Schedules occurrences and moves their recurring schedules on, each nominal time once; each schedule is named once. What was made
    /// now; nothing of one where another was quicker, or that is paused or gone.
    async fn materialise(&self, occurrences: &[Occurrences]) -> Result<Vec<Kept>, Error>;
}

/// How long it is known which nominal times were made, before the next one. The state that was read decides already; these rows are
/// for one that is set back, by hand or by a backup of one table.
const OCCURRENCES_KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// Who drives the schedule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    pub holder: String,
    /// Counts the changes of the holder.
    pub term: u64,
    /// Until it ends, by the clock that judges it.
    pub left: Duration,
}

#[async_trait]
pub trait Leases: Send + Sync {
    /// Takes the lease if it is free or one's own, for `span` from now. Whose it is after that: perhaps another's.
    async fn acquire(&self, holder: &str, span: Duration) -> Result<Lease, Error>;

    /// Gives it back, if it is one's own.
    async fn release(&self, holder: &str) -> Result<(), Error>;

    /// `None` if nobody holds it now.
    async fn lease(&self) -> Result<Option<Lease>, Error>;
}

#[async_trait]
pub trait Consumers: Send + Sync {
    /// Takes the consumer if it is free or one's own, for `span` from now. It is made when it is not there, behind what was trimmed.
    /// Whose it is after that: perhaps another's.
    async fn acquire_consumer(
        &self,
        name: &ConsumerName,
        category: &Category,
        holder: &Holder,
        span: Duration,
    ) -> Result<Consumer, Error>;

    /// Moves its position forward, if the term is still that of the holder.
    async fn commit_position(&self, name: &ConsumerName, term: u64, position: u64) -> Result<Consumer, Error>;

    /// Ends its lease, if the term is still that of the holder.
    async fn release_consumer(&self, name: &ConsumerName, term: u64) -> Result<Consumer, Error>;
}

/// Nothing above the position of one of a category's consumers is dropped.
#[async_trait]
pub trait Retention: Send + Sync {
    /// Makes room for what will be appended at `day` (any time in it). Postgres has a partition per day of append; SQLite has none.
    /// Asked for again, it does nothing.
    async fn open_day(&self, day: Timestamp) -> Result<(), Error>;

    /// Drops events appended before a time, about `rows` of them, or on Postgres a day that ended before it and that all consumers have
    /// passed. How many; 0: no more.
    async fn trim_before(&self, before: Timestamp, rows: u32) -> Result<u64, Error>;

    /// Categories whose log holds more than `keep` events, by name.
    async fn list_long(&self, keep: u64, after: Option<&Category>, limit: u32) -> Result<Vec<Category>, Error>;

    /// Drops a category's oldest events above `keep`, at most `rows` of them. How many.
    async fn trim_to(&self, category: &Category, keep: u64, rows: u32) -> Result<u64, Error>;

    /// Forgets ids of events that were dropped in bulk, looking at `rows` ids; where to go on, `None` at the end. What is not
    /// yet forgotten is free nevertheless.
    async fn forget(&self, after: Option<&EventId>, rows: u32) -> Result<Option<EventId>, Error>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_store_that_says_nothing_is_not_waited_for() {
        assert!(matches!(answer(std::future::pending::<Result<(), _>>()).await, Err(Error::Silent)));
    }
}

//! What the counter keeps: counters, and the increments that are prepared. One method is one transaction.
//!
//! The statements are in `store/sqlite.rs` and `store/postgres.rs`; both pass the suite in `store/conformance.rs`. Locks are
//! taken in one order everywhere, so that no two transactions wait for each other: prepared transactions by gid, then counters
//! by kind and id. A new method keeps to it and adds a case to the suite.

#[cfg(test)]
mod conformance;
mod postgres;
mod sqlite;

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use async_trait::async_trait;
use notifyx_commit::{
    RequestHash,
    participant::{Asker, Judge, Refusal, Row},
};
use notifyx_database::{
    Database, Migrations,
    column::{stored, unsigned},
};
use notifyx_model::{Gid, Timestamp, TopicId, UserId};
use sqlx::FromRow;
use uuid::Uuid;

use crate::Error;

/// The migrations of both backends.
pub(crate) static MIGRATIONS: Migrations =
    Migrations { sqlite: sqlx::migrate!("./migrations/sqlite"), postgres: sqlx::migrate!("./migrations/postgres") };

/// The store of an open database.
pub(crate) fn open(database: &Database) -> Arc<dyn Store> {
    match database {
        Database::Sqlite(sqlite) => Arc::new(sqlite::Sqlite::new(sqlite.clone())),
        Database::Postgres(pool) => Arc::new(postgres::Postgres::new(pool.clone())),
    }
}

/// One to be added to a user's counter and, together with it, to a topic's.
#[derive(Clone, Debug)]
pub(crate) struct Increment {
    pub(crate) gid: Gid,
    pub(crate) user_id: UserId,
    pub(crate) topic_id: Option<TopicId>,
    pub(crate) request: RequestHash,
}

/// Whose counter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Counted {
    User(UserId),
    Topic(TopicId),
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) committed: u64,
    pub(crate) prepared: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Committed {
    /// One per gid, in order.
    pub(crate) outcomes: Vec<Result<(), Refusal>>,
    /// How many took effect now, and not before.
    pub(crate) applied: u64,
}

#[async_trait]
pub(crate) trait Store: Send + Sync {
    /// One outcome per item, in order. What is new is prepared; nothing locks anything out.
    async fn prepare(
        &self,
        items: &[Increment],
        asker: Asker,
        judge: Judge,
        at: Timestamp,
    ) -> Result<Vec<Result<(), Refusal>>, Error>;

    /// Raises the counters of what was prepared, each increment once.
    async fn commit(&self, gids: &[Gid], asker: Asker, judge: Judge) -> Result<Committed, Error>;

    /// One outcome per gid, in order. For the coordinator, what is not there is entombed.
    async fn rollback(
        &self,
        gids: &[Gid],
        asker: Asker,
        judge: Judge,
        at: Timestamp,
    ) -> Result<Vec<Result<(), Refusal>>, Error>;

    /// What became of one transaction.
    async fn find(&self, gid: Gid) -> Result<Option<Row>, Error>;

    /// Zero where nothing was ever counted.
    async fn count(&self, of: Counted) -> Result<Count, Error>;

    /// Rolls back at most `limit` increments that people prepared at or before `until`, and marks them expired; how many.
    async fn expire(&self, until: Timestamp, limit: u32) -> Result<u64, Error>;

    /// How many a coordinator prepared before `before` and has not decided yet.
    async fn overdue(&self, before: Timestamp) -> Result<u64, Error>;

    /// Deletes at most `limit` decided transactions made before `before`; how many.
    async fn forget(&self, before: Timestamp, limit: u32) -> Result<u64, Error>;
}

impl Counted {
    const USER: &'static str = "user";
    const TOPIC: &'static str = "topic";

    fn kind(self) -> &'static str {
        match self {
            Self::User(_) => Self::USER,
            Self::Topic(_) => Self::TOPIC,
        }
    }

    fn id(self) -> Uuid {
        match self {
            Self::User(id) => id.uuid(),
            Self::Topic(id) => id.uuid(),
        }
    }
}

/// A row of `ptxn`, as both backends read it.
#[derive(Clone, FromRow)]
struct PtxnRow {
    gid: Uuid,
    origin: String,
    state: String,
    user_id: Uuid,
    topic_id: Option<Uuid>,
    req_hash: Vec<u8>,
    prepared_at: i64,
    expired: bool,
}

/// The columns of [`PtxnRow`].
macro_rules! columns {
    () => {
        "ptxn.gid, ptxn.origin, ptxn.state, ptxn.user_id, ptxn.topic_id, ptxn.req_hash, ptxn.prepared_at, ptxn.expired"
    };
}
use columns;

impl PtxnRow {
    fn judged(&self) -> Result<Row, Error> {
        Ok(Row {
            origin: stored("origin", self.origin.parse())?,
            user_id: UserId::from_uuid(self.user_id),
            state: stored("transaction state", self.state.parse())?,
            request: stored("request hash", RequestHash::from_slice(&self.req_hash).ok_or("not 32 bytes"))?,
            prepared_at: Timestamp::from_micros(self.prepared_at),
            expired: self.expired,
        })
    }
}

/// Found rows by gid, each with what the decisions need of it.
fn by_gid(rows: Vec<PtxnRow>) -> Result<HashMap<Gid, (PtxnRow, Row)>, Error> {
    let judged = |row: PtxnRow| row.judged().map(|judged| (Gid::from_uuid(row.gid), (row, judged)));
    rows.into_iter().map(judged).collect()
}

/// What the increments add up to, in the order in which counters are locked.
fn totals<'a>(rows: impl Iterator<Item = &'a PtxnRow>) -> BTreeMap<(&'static str, Uuid), i64> {
    let mut totals = BTreeMap::new();
    for row in rows {
        *totals.entry((Counted::USER, row.user_id)).or_default() += 1;
        if let Some(topic_id) = row.topic_id {
            *totals.entry((Counted::TOPIC, topic_id)).or_default() += 1;
        }
    }
    totals
}

fn count((committed, prepared): (i64, i64)) -> Count {
    Count { committed: unsigned(committed), prepared: unsigned(prepared) }
}

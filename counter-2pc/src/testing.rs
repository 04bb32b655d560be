//! The participant without its door, for fault tests: the real rules on the real store, with a fault point before and after
//! every durable write.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use notifyx_commit::{
    participant::{Asker, Judge, Refusal, Row},
    testing::{Injected, Points, read, write},
};
use notifyx_database::{Database, Migrations};
use notifyx_model::{Clock, Gid, Timestamp, TopicId, UserId};
use notifyx_wire::rest::{
    commit::{Ack, Prepare, Vote},
    counter::PrepareIncrement,
};

use crate::{
    Config, Error,
    increments::Increments,
    metrics::Metrics,
    store::{self, Committed, Count, Counted, Increment, Store},
    sweep::Sweeper,
    topics::Topics,
};

/// The schema.
pub fn migrations() -> &'static Migrations {
    &store::MIGRATIONS
}

/// The durable writes, each with a point before and after it.
pub const WRITES: [&str; 5] =
    ["counter.prepare", "counter.commit", "counter.rollback", "counter.expire", "counter.forget"];

/// One instance of the counter: drop it and open another for a restart.
pub struct Node {
    rules: Increments,
    sweeper: Sweeper,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("counter-2pc")
    }
}

impl Node {
    pub fn open(database: &Database, clock: Clock, points: Arc<dyn Points>) -> Self {
        let (config, metrics) = (Config::default(), Metrics::new(&prometheus::Registry::new()));
        let store: Arc<dyn Store> = Arc::new(Watched { store: store::open(database), points });
        let sweeper = Sweeper::new(store.clone(), clock.clone(), metrics.clone(), &config);
        let rules = Increments::new(store, Arc::new(NoTopics), clock, metrics, config.by_hand());
        Self { rules, sweeper }
    }

    /// `POST /api/2pc/prepare`.
    pub async fn prepare(&self, items: &[Prepare]) -> Result<Vec<Vote>, Error> {
        self.rules.prepare(items).await
    }

    /// `POST /api/2pc/commit`.
    pub async fn commit(&self, gids: &[Gid]) -> Result<Vec<Ack>, Error> {
        self.rules.commit(gids).await
    }

    /// `POST /api/2pc/rollback`.
    pub async fn rollback(&self, gids: &[Gid]) -> Result<Vec<Ack>, Error> {
        self.rules.rollback(gids).await
    }

    /// Prepares by hand, for the user's own counter.
    pub async fn prepare_by_hand(&self, user: UserId) -> Result<Gid, Error> {
        self.rules.prepare_by_hand(user, PrepareIncrement { topic_id: None, request_id: None }).await
    }

    /// One sweep.
    pub async fn sweep(&self) -> Result<(), Error> {
        self.sweeper.sweep().await
    }
}

impl From<Injected> for Error {
    /// As a database that went away.
    fn from(injected: Injected) -> Self {
        Self::Database(notifyx_database::Error::Unavailable(sqlx::Error::Io(std::io::Error::other(injected))))
    }
}

/// Persist, not asked: no topic's counter is raised by hand here.
struct NoTopics;

#[async_trait]
impl Topics for NoTopics {
    async fn find_creator(&self, _: TopicId) -> Result<Option<UserId>, Error> {
        Ok(None)
    }
}

/// The store with its points.
struct Watched {
    store: Arc<dyn Store>,
    points: Arc<dyn Points>,
}

#[async_trait]
impl Store for Watched {
    async fn prepare(
        &self,
        items: &[Increment],
        asker: Asker,
        judge: Judge,
        at: Timestamp,
    ) -> Result<Vec<Result<(), Refusal>>, Error> {
        write(&*self.points, "counter.prepare", |_| true, self.store.prepare(items, asker, judge, at)).await
    }

    async fn commit(&self, gids: &[Gid], asker: Asker, judge: Judge) -> Result<Committed, Error> {
        write(&*self.points, "counter.commit", |_| true, self.store.commit(gids, asker, judge)).await
    }

    async fn rollback(
        &self,
        gids: &[Gid],
        asker: Asker,
        judge: Judge,
        at: Timestamp,
    ) -> Result<Vec<Result<(), Refusal>>, Error> {
        write(&*self.points, "counter.rollback", |_| true, self.store.rollback(gids, asker, judge, at)).await
    }

    async fn find(&self, gid: Gid) -> Result<Option<Row>, Error> {
        read(&*self.points, self.store.find(gid)).await
    }

    async fn count(&self, of: Counted) -> Result<Count, Error> {
        read(&*self.points, self.store.count(of)).await
    }

    async fn expire(&self, until: Timestamp, limit: u32) -> Result<u64, Error> {
        write(&*self.points, "counter.expire", |count| *count > 0, self.store.expire(until, limit)).await
    }

    async fn overdue(&self, before: Timestamp) -> Result<u64, Error> {
        read(&*self.points, self.store.overdue(before)).await
    }

    async fn forget(&self, before: Timestamp, limit: u32) -> Result<u64, Error> {
        write(&*self.points, "counter.forget", |count| *count > 0, self.store.forget(before, limit)).await
    }
}

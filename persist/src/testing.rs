//! The participant without its door, for fault tests: the real rules on the real store, with a fault point before and after
//! every durable write of two-phase commit.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use notifyx_commit::{
    participant::{Asker, Judge, Origin, Refusal, Row},
    testing::{Injected, Points, read, write},
};
use notifyx_database::{Database, Migrations};
use notifyx_model::{Clock, Email, Gid, Notification, Timestamp, TopicId, TopicName, UserId};
use notifyx_wire::rest::{
    commit::{Ack, Applied, Prepare, Vote},
    persist::{Log, NewNotification},
};
use tokio_util::sync::CancellationToken;

use crate::{
    Config, Error,
    metrics::Metrics,
    store::{self, Creation, Gate, Inserted, JoinBounds, Joining, Preparation, Store},
    transactions::Transactions,
    trimming::Sweeper,
};

/// The schema.
pub fn migrations() -> &'static Migrations {
    &store::MIGRATIONS
}

/// The durable writes of two-phase commit, each with a point before and after it.
pub const WRITES: [&str; 6] =
    ["persist.prepare", "persist.commit", "persist.rollback", "persist.publish", "persist.expire", "persist.forget"];

/// One instance of persist: drop it and open another for a restart.
pub struct Node {
    rules: Transactions,
    sweeper: Sweeper,
    store: Arc<dyn Store>,
    points: Arc<dyn Points>,
    clock: Clock,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("persist")
    }
}

impl Node {
    pub fn open(database: &Database, clock: Clock, points: Arc<dyn Points>) -> Self {
        let (config, store) = (Config::default(), store::open(database));
        let metrics = Metrics::new(&prometheus::Registry::new());
        let watched: Arc<dyn store::Transactions> = Arc::new(Watched { store: store.clone(), points: points.clone() });
        let rules = Transactions::new(watched.clone(), clock.clone(), metrics.clone(), config.by_hand());
        let sweeper = Sweeper::new(watched, store.clone(), clock.clone(), metrics, &config);
        Self { rules, sweeper, store, points, clock }
    }

    /// `POST /api/2pc/prepare`.
    pub async fn prepare(&self, items: Vec<Prepare>) -> Result<Vec<Vote>, Error> {
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

    /// Prepares by hand.
    pub async fn prepare_by_hand(&self, user: UserId, from: Email, new: NewNotification) -> Result<Gid, Error> {
        self.rules.prepare_by_hand(user, from, new).await
    }

    /// Publishes by hand, past the coordinator.
    pub async fn publish_by_hand(
        &self,
        user: UserId,
        from: Email,
        new: NewNotification,
    ) -> Result<Notification, Error> {
        self.rules.publish(user, from, new).await
    }

    /// One sweep.
    pub async fn sweep(&self) -> Result<(), Error> {
        self.sweeper.sweep(&CancellationToken::new()).await
    }

    /// A topic with subscribers; past every point, for a test's beginning.
    pub async fn topic(&self, name: &TopicName, creator: UserId, subscribers: &[UserId]) -> Result<TopicId, Error> {
        let at = self.clock.now();
        let creation =
            Creation { id: TopicId::new(&self.clock), name: name.clone(), creator_id: creator, longevity: None, at };
        read(&*self.points, self.store.create_topic(&creation, u32::MAX)).await?;
        let joining = |user: &UserId| Joining { topic: name.clone(), user_id: *user, topic_id: creation.id };
        let items: Vec<Joining> = subscribers.iter().map(joining).collect();
        let bounds = JoinBounds { subscriptions_per_user: u32::MAX, topics_per_user: u32::MAX };
        read(&*self.points, self.store.join(&items, bounds, at)).await?;
        Ok(creation.id)
    }

    /// What a gateway's feed reads: the topic's head and its log.
    pub async fn log(&self, topic: TopicId, name: &TopicName) -> Result<(u64, Option<Log>), Error> {
        let heads = read(&*self.points, self.store.heads(std::slice::from_ref(name))).await?;
        let log = read(&*self.points, self.store.log(topic, 0, u32::MAX, u32::MAX)).await?;
        Ok((heads.first().map_or(0, |head| head.offset), log))
    }
}

impl From<Injected> for Error {
    /// As a database that went away.
    fn from(injected: Injected) -> Self {
        Self::Database(notifyx_database::Error::Unavailable(sqlx::Error::Io(std::io::Error::other(injected))))
    }
}

/// The store with its points.
struct Watched {
    store: Arc<dyn Store>,
    points: Arc<dyn Points>,
}

#[async_trait]
impl store::Transactions for Watched {
    async fn gates(&self, topics: &[TopicId]) -> Result<Vec<Gate>, Error> {
        read(&*self.points, self.store.gates(topics)).await
    }

    async fn strangers(&self, pairs: &[(TopicId, UserId)]) -> Result<Vec<(TopicId, UserId)>, Error> {
        read(&*self.points, self.store.strangers(pairs)).await
    }

    async fn prepare(&self, items: &[Preparation], origin: Origin, at: Timestamp) -> Result<Vec<Inserted>, Error> {
        write(&*self.points, "persist.prepare", |_| true, self.store.prepare(items, origin, at)).await
    }

    async fn commit(
        &self,
        gids: &[Gid],
        asker: Asker,
        judge: Judge,
        at: Timestamp,
    ) -> Result<Vec<Result<Option<Applied>, Refusal>>, Error> {
        write(&*self.points, "persist.commit", |_| true, self.store.commit(gids, asker, judge, at)).await
    }

    async fn rollback(
        &self,
        gids: &[Gid],
        asker: Asker,
        judge: Judge,
        at: Timestamp,
    ) -> Result<Vec<Result<(), Refusal>>, Error> {
        write(&*self.points, "persist.rollback", |_| true, self.store.rollback(gids, asker, judge, at)).await
    }

    async fn publish(&self, item: &Preparation, at: Timestamp) -> Result<Applied, Error> {
        write(&*self.points, "persist.publish", |_| true, self.store.publish(item, at)).await
    }

    async fn find(&self, gid: Gid) -> Result<Option<Row>, Error> {
        read(&*self.points, store::Transactions::find(&*self.store, gid)).await
    }

    async fn expire(&self, until: Timestamp) -> Result<u64, Error> {
        write(&*self.points, "persist.expire", |count| *count > 0, self.store.expire(until)).await
    }

    async fn overdue(&self, before: Timestamp) -> Result<u64, Error> {
        read(&*self.points, self.store.overdue(before)).await
    }

    async fn forget(&self, before: Timestamp, rows: u32) -> Result<u64, Error> {
        write(&*self.points, "persist.forget", |count| *count > 0, self.store.forget(before, rows)).await
    }
}

//! What persist keeps, as the domain says it. One method is one transaction; each noun has its trait, and each backend a file
//! per noun (`store/postgres/…`, `store/sqlite/…`) with its SQL written out.
//!
//! Locks are taken in one order everywhere, so that no two transactions wait for each other: prepared transactions by gid,
//! then topics by id, then subscriptions by user and topic.

#[cfg(test)]
mod conformance;
mod postgres;
pub(crate) mod row;
mod sqlite;

use std::sync::Arc;

use async_trait::async_trait;
use notifyx_commit::{RequestHash, participant};
use notifyx_database::Database;
use notifyx_model::{Email, Gid, Message, NotificationId, Priority, Timestamp, TopicId, TopicName, UserId};
use notifyx_wire::rest::{
    commit::Applied,
    persist::{Head, InboxItem, Log, SeenStatus, Subscriber, Topic, TopicStatus, UnreadInTopic},
};
use serde::{Deserialize, Serialize};

use crate::Error;

/// The migrations of both backends.
pub(crate) static MIGRATIONS: notifyx_database::Migrations = notifyx_database::Migrations {
    sqlite: sqlx::migrate!("./migrations/sqlite"),
    postgres: sqlx::migrate!("./migrations/postgres"),
};

/// The store of an open database.
pub(crate) fn open(database: &Database) -> Arc<dyn Store> {
    match database {
        Database::Sqlite(sqlite) => Arc::new(sqlite::Sqlite::new(sqlite.clone())),
        Database::Postgres(pool) => Arc::new(postgres::Postgres::new(pool.clone())),
    }
}

pub(crate) trait Store: Topics + Subscribers + Transactions + Notifications + Inbox + Trimming {}
impl<T: Topics + Subscribers + Transactions + Notifications + Inbox + Trimming> Store for T {}

/// A topic to be made.
#[derive(Clone, Debug)]
pub(crate) struct Creation {
    pub(crate) id: TopicId,
    pub(crate) name: TopicName,
    pub(crate) creator_id: UserId,
    pub(crate) longevity: Option<u64>,
    pub(crate) at: Timestamp,
}

#[async_trait]
pub(crate) trait Topics: Send + Sync {
    /// `NameTaken`, or `TooManyTopics` if the creator has `topics_max`.
    async fn create_topic(&self, creation: &Creation, topics_max: u32) -> Result<Topic, Error>;
    async fn find_topic(&self, id: TopicId) -> Result<Option<Topic>, Error>;
    async fn find_topic_named(&self, name: &TopicName) -> Result<Option<Topic>, Error>;
    /// By id, above `after`.
    async fn list_topics(&self, after: Option<TopicId>, limit: u32) -> Result<Vec<Topic>, Error>;
    async fn set_topic_status(&self, id: TopicId, status: TopicStatus) -> Result<Option<Topic>, Error>;
    /// Unknown names are left out.
    async fn heads(&self, names: &[TopicName]) -> Result<Vec<Head>, Error>;
}

/// A user who wants to be subscribed to a topic that may not exist yet.
#[derive(Clone, Debug)]
pub(crate) struct Joining {
    pub(crate) topic: TopicName,
    pub(crate) user_id: UserId,
    /// The topic's id if this makes it.
    pub(crate) topic_id: TopicId,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct JoinBounds {
    pub(crate) subscriptions_per_user: u32,
    pub(crate) topics_per_user: u32,
}

#[async_trait]
pub(crate) trait Subscribers: Send + Sync {
    /// One result per item, in order. Of several who join a new topic the first creates it.
    async fn join(
        &self,
        items: &[Joining],
        bounds: JoinBounds,
        at: Timestamp,
    ) -> Result<Vec<Result<Topic, Error>>, Error>;
    /// Begins at the topic's head; a repetition changes nothing.
    async fn subscribe(&self, topic: TopicId, user: UserId, at: Timestamp, max: u32) -> Result<Subscriber, Error>;
    /// Whether there was a subscription.
    async fn unsubscribe(&self, topic: TopicId, user: UserId) -> Result<bool, Error>;
    async fn is_subscriber(&self, topic: TopicId, user: UserId) -> Result<bool, Error>;
    /// By user id, above `after`.
    async fn list_subscribers(
        &self,
        topic: TopicId,
        after: Option<UserId>,
        limit: u32,
    ) -> Result<Vec<Subscriber>, Error>;
}

/// A business "no", as it was said and will be said again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct No {
    pub(crate) code: String,
    pub(crate) detail: String,
}

/// A request to publish, checked and with its recipients told apart.
#[derive(Clone, Debug)]
pub(crate) struct Preparation {
    pub(crate) gid: Gid,
    /// `None`: to be PREPARED. Otherwise to be ABORTED, for this reason.
    pub(crate) refusal: Option<No>,
    pub(crate) request: RequestHash,
    pub(crate) notification_id: NotificationId,
    pub(crate) topic_id: TopicId,
    pub(crate) from_user_id: UserId,
    pub(crate) from: Email,
    pub(crate) message: Message,
    pub(crate) priority: Priority,
    /// Each once; `None`: every subscriber.
    pub(crate) to_users: Option<Vec<UserId>>,
}

/// What became of an item of a prepare.
#[derive(Clone, Debug)]
pub(crate) enum Inserted {
    /// The row is there, in the state that was asked for.
    New,
    /// The gid was known before; and if it was refused then, why.
    Found(participant::Row, Option<No>),
    /// Another transaction holds the notification's id.
    IdTaken,
}

/// What a publish must know of a topic.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    pub(crate) id: TopicId,
    pub(crate) name: TopicName,
    pub(crate) creator_id: UserId,
    pub(crate) status: TopicStatus,
}

#[async_trait]
pub(crate) trait Transactions: Send + Sync {
    /// Unknown topics are left out.
    async fn gates(&self, topics: &[TopicId]) -> Result<Vec<Gate>, Error>;
    /// Those of the pairs that are not subscribed.
    async fn strangers(&self, pairs: &[(TopicId, UserId)]) -> Result<Vec<(TopicId, UserId)>, Error>;
    /// One result per item, in order.
    async fn prepare(
        &self,
        items: &[Preparation],
        origin: participant::Origin,
        at: Timestamp,
    ) -> Result<Vec<Inserted>, Error>;
    /// Gives each prepared notification its place in its topic, in the order of `gids`. One result per gid; the inner `None`:
    /// committed before, and trimmed since.
    async fn commit(
        &self,
        gids: &[Gid],
        asker: participant::Asker,
        judge: participant::Judge,
        at: Timestamp,
    ) -> Result<Vec<Result<Option<Applied>, participant::Refusal>>, Error>;
    async fn rollback(
        &self,
        gids: &[Gid],
        asker: participant::Asker,
        judge: participant::Judge,
        at: Timestamp,
    ) -> Result<Vec<Result<(), participant::Refusal>>, Error>;
    /// Prepare and commit in one, by hand.
    async fn publish(&self, item: &Preparation, at: Timestamp) -> Result<Applied, Error>;
    /// What became of one transaction.
    async fn find(&self, gid: Gid) -> Result<Option<participant::Row>, Error>;
    /// Rolls back what people prepared at or before `until`, and marks it expired; how many.
    async fn expire(&self, until: Timestamp) -> Result<u64, Error>;
    /// How many are prepared since before `before`.
    async fn overdue(&self, before: Timestamp) -> Result<u64, Error>;
    /// Deletes at most `rows` terminal transactions whose gid was made before `before`; how many.
    async fn forget(&self, before: Timestamp, rows: u32) -> Result<u64, Error>;
}

#[async_trait]
pub(crate) trait Notifications: Send + Sync {
    /// In order of offset, above `after`, at most `limit` rows and `bytes` of messages (one row at least). `None`: no such topic.
    async fn log(&self, topic: TopicId, after: u64, limit: u32, bytes: u32) -> Result<Option<Log>, Error>;
}

/// Which part of an inbox.
#[derive(Clone, Debug)]
pub(crate) struct InboxQuery {
    pub(crate) user: UserId,
    pub(crate) topic: Option<TopicId>,
    /// Only a topic's creator publishes: this chooses topics.
    pub(crate) from: Option<UserId>,
    pub(crate) status: Option<SeenStatus>,
    /// Older than this notification.
    pub(crate) after: Option<NotificationId>,
    pub(crate) limit: u32,
    /// Of messages; one row at least.
    pub(crate) bytes: u32,
}

#[async_trait]
pub(crate) trait Inbox: Send + Sync {
    /// Newest first, by commit time and topic; and whether that is all. `NotificationNotFound` if `after` is gone.
    async fn inbox(&self, query: &InboxQuery) -> Result<(Vec<InboxItem>, bool), Error>;
    /// The topic's unread count afterwards.
    async fn mark_seen(
        &self,
        user: UserId,
        notification: NotificationId,
        exceptions_max: u32,
    ) -> Result<UnreadInTopic, Error>;
    async fn mark_seen_up_to(&self, user: UserId, topic: TopicId, offset: u64) -> Result<UnreadInTopic, Error>;
    /// Of every topic the user is subscribed to, by name.
    async fn unread(&self, user: UserId) -> Result<Vec<UnreadInTopic>, Error>;
}

#[async_trait]
pub(crate) trait Trimming: Send + Sync {
    /// Topics above `after` whose oldest notification has outlived their longevity.
    async fn list_expired_topics(
        &self,
        now: Timestamp,
        after: Option<TopicId>,
        limit: u32,
    ) -> Result<Vec<TopicId>, Error>;
    /// Deletes at most `rows` of the topic's oldest that have expired; how many.
    async fn trim(&self, topic: TopicId, now: Timestamp, rows: u32) -> Result<u64, Error>;
}

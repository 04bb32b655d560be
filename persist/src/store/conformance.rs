//! The store is held to the same on both backends.

mod inbox;
mod large;
mod subscribers;
mod topics;
mod transactions;
mod trimming;

use std::sync::Arc;

use notifyx_commit::{
    RequestHash,
    participant::{Asker, Judge, Origin, Refusal},
};
use notifyx_database::Database;
use notifyx_model::{Clock, Email, Gid, ManualClock, Message, NotificationId, Priority, TopicId, TopicName, UserId};
use notifyx_wire::rest::{
    commit::Applied,
    persist::{InboxItem, SeenStatus, Topic},
};

use super::{Creation, InboxQuery, Inserted, MIGRATIONS, Preparation, Store};

struct Fixture {
    store: Arc<dyn Store>,
    database: Database,
    hand: ManualClock,
    clock: Clock,
}

async fn open(database: &Database) -> Fixture {
    let hand = ManualClock::new();
    Fixture { store: super::open(database), database: database.clone(), clock: hand.clock(), hand }
}

fn name(text: &str) -> TopicName {
    TopicName::parse(text).unwrap()
}

impl Fixture {
    fn user(&self) -> UserId {
        UserId::new(&self.clock)
    }

    fn gid(&self) -> Gid {
        Gid::new(&self.clock)
    }

    fn judge(&self) -> Judge {
        Judge::at(self.clock.now())
    }

    fn creation(&self, text: &str, creator_id: UserId) -> Creation {
        let (id, at) = (TopicId::new(&self.clock), self.clock.now());
        Creation { id, name: name(text), creator_id, longevity: None, at }
    }

    async fn topic(&self, text: &str, creator: UserId) -> TopicId {
        self.store.create_topic(&self.creation(text, creator), 100).await.unwrap().id
    }

    async fn head(&self, topic: TopicId) -> Topic {
        self.store.find_topic(topic).await.unwrap().unwrap()
    }

    async fn subscribe(&self, topic: TopicId, user: UserId) {
        self.store.subscribe(topic, user, self.clock.now(), 100).await.unwrap();
    }

    async fn subscriber(&self, topic: TopicId) -> UserId {
        let user = self.user();
        self.subscribe(topic, user).await;
        user
    }

    fn preparation(&self, topic_id: TopicId, from: UserId, to: &[UserId]) -> Preparation {
        Preparation {
            gid: self.gid(),
            refusal: None,
            request: RequestHash([7; 32]),
            notification_id: NotificationId::new(&self.clock),
            topic_id,
            from_user_id: from,
            from: Email::parse("ann@example.org").unwrap(),
            message: Message::parse("hello").unwrap(),
            priority: Priority::default(),
            to_users: (!to.is_empty()).then(|| to.to_vec()),
        }
    }

    async fn publish(&self, topic: TopicId, from: UserId, to: &[UserId]) -> Applied {
        self.store.publish(&self.preparation(topic, from, to), self.clock.now()).await.unwrap()
    }

    async fn prepare(&self, items: &[Preparation]) -> Vec<Inserted> {
        self.store.prepare(items, Origin::Coordinator, self.clock.now()).await.unwrap()
    }

    async fn commit(&self, gids: &[Gid]) -> Vec<Result<Option<Applied>, Refusal>> {
        self.store.commit(gids, Asker::Coordinator, self.judge(), self.clock.now()).await.unwrap()
    }

    async fn rollback(&self, gids: &[Gid]) -> Vec<Result<(), Refusal>> {
        self.store.rollback(gids, Asker::Coordinator, self.judge(), self.clock.now()).await.unwrap()
    }

    fn query(user: UserId) -> InboxQuery {
        InboxQuery { user, topic: None, from: None, status: None, after: None, limit: 100, bytes: 1 << 20 }
    }

    async fn inbox(&self, user: UserId) -> Vec<InboxItem> {
        self.store.inbox(&Self::query(user)).await.unwrap().0
    }

    /// Offsets and states of one page of one topic.
    async fn lines(&self, user: UserId, status: Option<SeenStatus>) -> Vec<(u64, SeenStatus)> {
        let query = InboxQuery { status, ..Self::query(user) };
        let (items, _) = self.store.inbox(&query).await.unwrap();
        items.iter().map(|item| (item.notification.offset, item.status)).collect()
    }

    async fn unread(&self, user: UserId, topic: TopicId) -> u64 {
        let unread = self.store.unread(user).await.unwrap();
        unread.iter().find(|line| line.topic_id == topic).unwrap().unread
    }

    /// Rows of a table.
    async fn rows(&self, table: &str) -> i64 {
        let sql = format!("SELECT count(*) FROM {table}");
        match &self.database {
            Database::Sqlite(sqlite) => sqlx::query_scalar(&sql).fetch_one(&sqlite.read).await.unwrap(),
            Database::Postgres(pool) => sqlx::query_scalar(&sql).fetch_one(pool).await.unwrap(),
        }
    }
}

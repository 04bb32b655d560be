//! A user's inbox: what was published to the user's subscriptions, what of it is unread, and marking it seen.
//!
//! A subscription has a floor: broadcasts up to that number are seen. Those seen out of order above it are exceptions, which
//! the floor takes in when it reaches them. Targeted notifications have a row per recipient, which says whether it is seen.

use std::sync::Arc;

use notifyx_model::{NotificationId, TopicId, TopicName, UserId};
use notifyx_wire::rest::persist::{InboxPage, SeenStatus, Unread, UnreadInTopic};

use crate::{
    Error,
    metrics::Metrics,
    page,
    patience::again,
    store::{InboxQuery, Store, row::MarkRow},
    topics::Topics,
};

pub(crate) struct Inboxes {
    store: Arc<dyn Store>,
    topics: Arc<Topics>,
    metrics: Metrics,
    exceptions_max: u32,
}

/// Which part of an inbox a page shows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Filter {
    pub(crate) topic: Option<TopicName>,
    pub(crate) from: Option<UserId>,
    pub(crate) status: Option<SeenStatus>,
    pub(crate) after: Option<NotificationId>,
    pub(crate) limit: Option<u32>,
}

impl Inboxes {
    pub(crate) fn new(store: Arc<dyn Store>, topics: Arc<Topics>, metrics: Metrics, exceptions_max: u32) -> Self {
        Self { store, topics, metrics, exceptions_max }
    }

    /// Newest first.
    pub(crate) async fn list(&self, user: UserId, filter: Filter) -> Result<InboxPage, Error> {
        let topic = match &filter.topic {
            Some(name) => Some(self.topics.fact_named(name).await?.id),
            None => None,
        };
        let query = InboxQuery {
            user,
            topic,
            from: filter.from,
            status: filter.status,
            after: filter.after,
            limit: page::limit(filter.limit, page::MAX)?,
            bytes: page::BYTES_MAX,
        };
        let (notifications, complete) = self.store.inbox(&query).await?;
        let next = if complete { None } else { notifications.last().map(|item| item.notification.id) };
        Ok(InboxPage { notifications, next })
    }

    pub(crate) async fn mark_seen(&self, user: UserId, notification: NotificationId) -> Result<Unread, Error> {
        again(&self.metrics, || self.store.mark_seen(user, notification, self.exceptions_max)).await.map(of_one)
    }

    pub(crate) async fn mark_seen_up_to(&self, user: UserId, topic: TopicId, offset: u64) -> Result<Unread, Error> {
        // An unknown topic is told from one that is not subscribed to.
        self.topics.fact(topic).await?;
        again(&self.metrics, || self.store.mark_seen_up_to(user, topic, offset)).await.map(of_one)
    }

    pub(crate) async fn unread(&self, user: UserId) -> Result<Unread, Error> {
        let topics = self.store.unread(user).await?;
        Ok(Unread { total: topics.iter().map(|topic| topic.unread).sum(), topics })
    }
}

fn of_one(topic: UnreadInTopic) -> Unread {
    Unread { total: topic.unread, topics: vec![topic] }
}

/// What marking one notification as seen comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// It is seen already.
    Nothing,
    /// The reader's own row says so.
    Recipient,
    /// It is the next above the floor: the floor moves.
    Floor,
    /// Others below it are unread.
    Exception,
}

pub(crate) fn mark(row: &MarkRow) -> Mark {
    if row.targeted {
        Mark::Recipient
    } else if row.own || row.broadcast_no <= row.floor {
        Mark::Nothing
    } else if row.broadcast_no == row.floor + 1 {
        Mark::Floor
    } else {
        Mark::Exception
    }
}

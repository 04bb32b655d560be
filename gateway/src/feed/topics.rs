//! Topics: notifications, of which persist has the log and the bus gives hints.

use std::sync::Arc;

use notifyx_mesh::BusReceiver;
use notifyx_model::{Notification, TopicId, TopicName, UserId};
use notifyx_wire::{
    phoenix::{
        channel::{NEW_NOTIFICATION, NOTIFICATION_PREFIX, NotificationPushed},
        text,
    },
    rest::Problem,
    websocket,
};

use super::source::{Hint, Hints, Item, Page, Source};
use crate::{
    hub::{Dispatch, FeedMetrics, Following, Metrics, StreamName, Wishes},
    platform::Platform,
};

#[derive(Debug)]
pub(crate) struct Topics;

impl Source for Topics {
    type Name = TopicName;
    type Id = TopicId;
    type Item = Notification;

    const KIND: &'static str = "topics";
    /// With the largest messages this is 16 MB.
    const READ_MAX: u32 = 256;
    /// As persist allows.
    const HEADS_MAX: usize = 10_000;

    fn stream(name: &TopicName) -> StreamName {
        StreamName::Topic(name.clone())
    }

    fn wishes(following: &Following) -> &Wishes<TopicName, TopicId> {
        &following.topics
    }

    fn metrics(metrics: &Metrics) -> &FeedMetrics {
        &metrics.topics
    }

    async fn read(
        platform: Arc<dyn Platform>,
        _: TopicName,
        id: TopicId,
        after: u64,
        limit: u32,
    ) -> Result<Page<Notification>, Problem> {
        let log = platform.log(id, after, limit).await?;
        Ok(Page { items: log.notifications, head: log.offset, trimmed: log.trimmed })
    }

    async fn heads(platform: Arc<dyn Platform>, names: Vec<TopicName>) -> Result<Vec<(TopicName, u64)>, Problem> {
        let heads = platform.heads(names).await?;
        Ok(heads.into_iter().map(|head| (head.topic, head.offset)).collect())
    }

    fn encode(name: &TopicName, notification: Arc<Notification>) -> Dispatch {
        let topic = format!("{NOTIFICATION_PREFIX}{name}");
        let pushed = NotificationPushed::from(&*notification);
        let frame = websocket::text(&text::broadcast(&topic, NEW_NOTIFICATION, &pushed));
        Dispatch::Notification { notification, frame }
    }

    fn is_for(notification: &Notification, user: Option<UserId>) -> bool {
        notification.to.is_empty() || user.is_some_and(|user| notification.to.contains(&user))
    }
}

impl Item for Notification {
    fn offset(&self) -> u64 {
        self.offset
    }

    fn bytes(&self) -> usize {
        self.message.as_str().len() + self.to.len() * size_of::<UserId>() + size_of::<Self>()
    }
}

/// The bus tells of every topic: whether it is followed is judged by the feed.
impl Hints<Topics> for BusReceiver {
    async fn next(&mut self) -> Option<Hint<Topics>> {
        let notification = self.recv().await?;
        Some(Hint::Items(notification.topic.clone(), vec![notification]))
    }

    fn follow(&mut self, _: &TopicName) {}

    fn unfollow(&mut self, _: &TopicName) {}
}

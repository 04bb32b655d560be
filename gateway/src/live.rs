//! The platform behind the sockets, for real: the services over the mesh, the publisher, the sessions of auth.

use async_trait::async_trait;
use notifyx_chassis::{Denied, User, reply::problem};
use notifyx_mesh::Sessions;
use notifyx_model::{Category, Clock, Fault, GivenTime, NotificationId, TopicId, TopicName, UserId};
use notifyx_wire::rest::{
    Problem,
    auth::{
        Credentials,
        keys::{KeyIdentity, Principal},
    },
    gateway::{PublishAnswer, PublishRequest, ScheduledNotification},
    persist::{Head, InboxItem, Log, Subscriber, Topic, Unread},
};
use std::sync::Arc;

use crate::{
    Error,
    backends::Backends,
    hub::Hub,
    operators::Operators,
    platform::{
        CategoryHead, EventLog, NewPublish, Peer, Platform, Published, SocketCredentials, SocketKey, SocketUser,
    },
    publish::{Accepted, Publisher},
    scheduled::Scheduled,
};

/// A socket that asks for its inbox gets the newest of it.
const OWN_NOTIFICATIONS: u32 = 100;

#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) backends: Backends,
    pub(crate) publisher: Publisher,
    pub(crate) scheduled: Scheduled,
    pub(crate) operators: Operators,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) hub: Hub,
    pub(crate) clock: Clock,
    /// Whether anybody may publish and listen to events.
    pub(crate) anonymous: bool,
}

/// What became of a publish that was asked for over REST.
#[derive(Debug)]
pub(crate) enum Taken {
    Now(PublishAnswer),
    Later(Box<ScheduledNotification>),
}

/// What the REST door asks for beyond single calls.
impl Live {
    pub(crate) async fn publish_request(
        &self,
        by: &User,
        request: PublishRequest,
        key: Option<String>,
    ) -> Result<Taken, Error> {
        let PublishRequest { topic, topic_id, message, to, priority, fire_at } = request;
        let topic = match (topic, topic_id) {
            (Some(name), None) => name,
            (None, Some(id)) => self.backends.topic(by, id).await?.name,
            (None, None) | (Some(_), Some(_)) => return Err(Error::WhichTopic),
        };
        let new = NewPublish { topic: topic.clone(), message, to, priority, key };
        if let Some(fire_at) = fire_at {
            return Ok(Taken::Later(Box::new(self.scheduled.schedule(by, new, &fire_at).await?)));
        }
        let Accepted { id, gid, offset, .. } = self.publisher.publish(by, new).await?;
        Ok(Taken::Now(PublishAnswer { success: true, id, gid, topic, offset }))
    }

    /// Subscribes; the user's open user channels hear of the topic from now on.
    pub(crate) async fn subscribe(&self, by: &User, topic: TopicId) -> Result<Subscriber, Error> {
        let subscriber = self.backends.subscribe(by, topic).await?;
        self.hub.unread_changed(by.id);
        Ok(subscriber)
    }

    /// Ends a subscription, and with it the live streams of the user's sockets. The topic's name, by which the hub knows
    /// it, is read first: nothing may fail between the store's yes and the closing.
    pub(crate) async fn unsubscribe(&self, by: &User, topic: TopicId) -> Result<(), Error> {
        let name = self.backends.topic(by, topic).await?.name;
        self.backends.unsubscribe(by, topic).await?;
        self.hub.unsubscribed(by.id, &name).await;
        self.hub.unread_changed(by.id);
        Ok(())
    }

    /// Marks one as seen; the user's open sockets are told.
    pub(crate) async fn seen(&self, by: &User, id: NotificationId) -> Result<Unread, Error> {
        let unread = self.backends.seen(by, id).await?;
        self.hub.unread_changed(by.id);
        Ok(unread)
    }

    pub(crate) async fn seen_up_to(&self, by: &User, topic: TopicId, offset: u64) -> Result<Unread, Error> {
        let unread = self.backends.seen_up_to(by, topic, offset).await?;
        self.hub.unread_changed(by.id);
        Ok(unread)
    }
}

impl From<&SocketUser> for User {
    fn from(user: &SocketUser) -> Self {
        Self { id: user.id, email: user.email.clone() }
    }
}

fn said<T, E: Fault>(result: Result<T, E>) -> Result<T, Problem> {
    result.map_err(|error| problem(&error))
}

#[async_trait]
impl Platform for Live {
    async fn authenticate(&self, credentials: SocketCredentials, client_address: &str) -> Result<Peer, Problem> {
        let user = match credentials {
            SocketCredentials::Token(token) => {
                let found = said(self.sessions.identify(&token).await)?;
                match found.ok_or_else(|| problem(&Denied::unknown(&token)))? {
                    Principal::User(identity) => SocketUser {
                        id: identity.id,
                        email: identity.email,
                        token_hash: Some(token.hash()),
                        expires_at: Some(identity.expires_at),
                    },
                    Principal::Key(KeyIdentity { id: owner, scopes, expires_at, .. }) => {
                        return Ok(Peer::Key(SocketKey { owner, token_hash: token.hash(), scopes, expires_at }));
                    }
                }
            }
            SocketCredentials::EmailPassword { email, password } => {
                let identity = said(self.backends.verify(&Credentials { email, password }, client_address).await)?;
                SocketUser { id: identity.id, email: identity.email, token_hash: None, expires_at: None }
            }
        };
        Ok(Peer::User(Arc::new(user)))
    }

    async fn join(&self, topic: &TopicName, user: UserId) -> Result<Topic, Problem> {
        self.backends.join(topic.clone(), user).await
    }

    async fn heads(&self, topics: Vec<TopicName>) -> Result<Vec<Head>, Problem> {
        Ok(said(self.backends.heads(topics).await)?.heads)
    }

    async fn log(&self, topic_id: TopicId, after: u64, limit: u32) -> Result<Log, Problem> {
        said(self.backends.log(topic_id, after, limit).await)
    }

    async fn category_head(&self, category: &Category) -> Result<CategoryHead, Problem> {
        self.backends.category_head(category).await
    }

    async fn category_heads(&self, categories: Vec<Category>) -> Result<Vec<CategoryHead>, Problem> {
        said(self.backends.category_heads(categories).await)
    }

    async fn events(&self, category: &Category, after: u64, limit: u32) -> Result<EventLog, Problem> {
        said(self.backends.event_log(category, after, limit).await)
    }

    async fn publish(&self, by: &SocketUser, new: NewPublish) -> Result<Published, Problem> {
        let accepted = said(self.publisher.publish(&by.into(), new).await)?;
        Ok(Published { id: accepted.id, offset: accepted.offset })
    }

    async fn schedule(
        &self,
        by: &SocketUser,
        new: NewPublish,
        fire_at: GivenTime,
    ) -> Result<ScheduledNotification, Problem> {
        said(self.scheduled.schedule(&by.into(), new, &fire_at).await)
    }

    async fn inbox(&self, user: &SocketUser, topic: &TopicName) -> Result<Vec<InboxItem>, Problem> {
        let query = [("topic_name", topic.to_string()), ("limit", OWN_NOTIFICATIONS.to_string())];
        Ok(said(self.backends.inbox(&user.into(), &query).await)?.notifications)
    }

    async fn seen(&self, user: &SocketUser, id: NotificationId) -> Result<Unread, Problem> {
        said(self.backends.seen(&user.into(), id).await)
    }

    async fn unread(&self, user: &SocketUser) -> Result<Unread, Problem> {
        said(self.backends.unread(&user.into()).await)
    }

    async fn unsubscribe(&self, user: &SocketUser, topic: &TopicName) -> Result<(), Problem> {
        let by = User::from(user);
        let facts = said(self.backends.find_topic(&by, topic).await)?;
        let facts = facts.ok_or_else(|| problem(&Error::TopicNotFound(topic.clone())))?;
        said(self.backends.unsubscribe(&by, facts.id).await)
    }
}

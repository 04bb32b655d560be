//! What a session asks of the platform behind it: the seam between the sockets and the services.
//!
//! Sessions know nothing of HTTP, batches or two-phase commit; whoever implements [`Platform`] does. Every call has its
//! own deadline inside and answers with a [`Problem`] that can be shown to the client as it is. Calls are made on the
//! shared runtime, never on a worker thread of the edge.

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use notifyx_model::{
    Category, Email, GivenTime, Message, NotificationId, Priority, Scopes, Timestamp, Token, TokenHash, TopicId,
    TopicName, UserId, Verb,
};
use notifyx_wire::{
    grpc::events::Event,
    rest::{
        Problem,
        gateway::ScheduledNotification,
        persist::{Head, InboxItem, Log, Topic, Unread},
    },
};

use crate::access::{self, Barred};

#[async_trait]
pub trait Platform: Send + Sync + 'static {
    /// Who opens this socket. A wrong e-mail, password, token or key is a problem with status 401 or 403.
    async fn authenticate(&self, credentials: SocketCredentials, client_address: &str) -> Result<Peer, Problem>;

    /// Creates the topic if it is missing and subscribes the user; idempotent. `offset` is read after the subscription is
    /// there: what is committed later has a larger one.
    async fn join(&self, topic: &TopicName, user: UserId) -> Result<Topic, Problem>;

    /// Where the topics stand, at most 10,000 at once; unknown ones are left out.
    async fn heads(&self, topics: Vec<TopicName>) -> Result<Vec<Head>, Problem>;

    /// All of the topic after an offset, in order and without gaps, targeted notifications with their recipients.
    async fn log(&self, topic_id: TopicId, after: u64, limit: u32) -> Result<Log, Problem>;

    /// Where a category of events stands; many who ask at once share a call. One that nobody used stands at 0.
    async fn category_head(&self, category: &Category) -> Result<CategoryHead, Problem>;

    /// Where categories stand, at most 10,000 at once.
    async fn category_heads(&self, categories: Vec<Category>) -> Result<Vec<CategoryHead>, Problem>;

    /// The events of a category after an offset, in order and without gaps; at most 1,000.
    async fn events(&self, category: &Category, after: u64, limit: u32) -> Result<EventLog, Problem>;

    /// Answers when the notification is committed.
    async fn publish(&self, by: &SocketUser, new: NewPublish) -> Result<Published, Problem>;

    /// Answers when the notification is kept for its time.
    async fn schedule(
        &self,
        by: &SocketUser,
        new: NewPublish,
        fire_at: GivenTime,
    ) -> Result<ScheduledNotification, Problem>;

    /// The user's newest notifications of one topic, newest first.
    async fn inbox(&self, user: &SocketUser, topic: &TopicName) -> Result<Vec<InboxItem>, Problem>;

    /// Marks one notification as seen; the answer tells of its topic only.
    async fn seen(&self, user: &SocketUser, id: NotificationId) -> Result<Unread, Problem>;

    /// What the user has not seen, in total and for every topic it is subscribed to.
    async fn unread(&self, user: &SocketUser) -> Result<Unread, Problem>;

    /// Ends the durable subscription, so that the inbox no longer fills.
    async fn unsubscribe(&self, user: &SocketUser, topic: &TopicName) -> Result<(), Problem>;
}

/// How a socket proves who opens it.
#[derive(Clone)]
pub enum SocketCredentials {
    /// A session's, or an API key.
    Token(Token),
    EmailPassword {
        email: Email,
        password: String,
    },
}

/// Credentials are never logged.
impl fmt::Debug for SocketCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SocketCredentials(…)")
    }
}

/// Who is at the other end of a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    User(Arc<SocketUser>),
    /// A service with an API key: it listens to the events that its scopes cover, and does nothing else.
    Key(SocketKey),
    /// Nobody in particular, where the gateway lets anybody listen to events.
    Anonymous,
}

impl Peer {
    /// Topics, inboxes and what is unread are for users alone.
    pub fn user(&self) -> Option<&Arc<SocketUser>> {
        match self {
            Self::User(user) => Some(user),
            Self::Key(_) | Self::Anonymous => None,
        }
    }

    /// The user, or the one whose key it is: whose revocations concern the socket.
    pub fn owner(&self) -> Option<UserId> {
        match self {
            Self::User(user) => Some(user.id),
            Self::Key(key) => Some(key.owner),
            Self::Anonymous => None,
        }
    }

    /// What the socket was opened with, so that revoking it closes the socket.
    pub fn token_hash(&self) -> Option<TokenHash> {
        match self {
            Self::User(user) => user.token_hash,
            Self::Key(key) => Some(key.token_hash),
            Self::Anonymous => None,
        }
    }

    /// When the session or the key ends by itself, and the socket with it.
    pub fn expires_at(&self) -> Option<Timestamp> {
        match self {
            Self::User(user) => user.expires_at,
            Self::Key(key) => key.expires_at,
            Self::Anonymous => None,
        }
    }

    /// Whether it may listen to the events of a category.
    pub fn may_subscribe(&self, category: &Category) -> Result<(), Barred> {
        let scopes = match self {
            Self::Key(key) => Some(&key.scopes),
            Self::User(_) | Self::Anonymous => None,
        };
        access::check(scopes, Verb::Subscribe, category)
    }
}

/// A user who opened a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketUser {
    pub id: UserId,
    pub email: Email,
    /// The session the socket was opened with, so that a logout closes it; absent for e-mail and password.
    pub token_hash: Option<TokenHash>,
    /// When that session ends, and the socket with it.
    pub expires_at: Option<Timestamp>,
}

/// An API key that opened a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketKey {
    /// The user whose key it is.
    pub owner: UserId,
    pub token_hash: TokenHash,
    pub scopes: Scopes,
    pub expires_at: Option<Timestamp>,
}

/// Where a category stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CategoryHead {
    pub category: Category,
    /// Of the last event; 0 where there was none.
    pub offset: u64,
    /// Events up to here are past the retention.
    pub trimmed: u64,
}

/// Part of a category's log.
#[derive(Clone, Debug)]
pub struct EventLog {
    pub events: Vec<Event>,
    /// Of the category's last event, whether or not it is here.
    pub offset: u64,
    pub trimmed: u64,
}

/// A notification to publish, as a client asks for it.
#[derive(Clone, Debug)]
pub struct NewPublish {
    pub topic: TopicName,
    pub message: Message,
    /// User ids or e-mail addresses; empty means every subscriber.
    pub to: Vec<String>,
    pub priority: Priority,
    /// The same key and body are the same notification.
    pub key: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Published {
    pub id: NotificationId,
    /// Absent where the commit is decided but not applied yet.
    pub offset: Option<u64>,
}

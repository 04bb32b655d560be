//! What a session asks of the platform behind it: the seam between the sockets and the services.
//!
//! Sessions know nothing of HTTP, batches or two-phase commit; whoever implements [`Platform`] does. Every call has its
//! own deadline inside and answers with a [`Problem`] that can be shown to the client as it is. Calls are made on the
//! shared runtime, never on a worker thread of the edge.

use std::fmt;

use async_trait::async_trait;
use notifyx_model::{
    Email, GivenTime, Message, NotificationId, Priority, Timestamp, Token, TokenHash, TopicId, TopicName, UserId,
};
use notifyx_wire::rest::{
    Problem,
    gateway::ScheduledNotification,
    persist::{Head, InboxItem, Log, Topic, Unread},
};

#[async_trait]
pub trait Platform: Send + Sync + 'static {
    /// Who opens this socket. A wrong e-mail, password or token is a problem with status 401 or 403.
    async fn authenticate(&self, credentials: SocketCredentials, client_address: &str) -> Result<SocketUser, Problem>;

    /// Creates the topic if it is missing and subscribes the user; idempotent. `offset` is read after the subscription is
    /// there: what is committed later has a larger one.
    async fn join(&self, topic: &TopicName, user: UserId) -> Result<Topic, Problem>;

    /// Where the topics stand, at most 10,000 at once; unknown ones are left out.
    async fn heads(&self, topics: Vec<TopicName>) -> Result<Vec<Head>, Problem>;

    /// All of the topic after an offset, in order and without gaps, targeted notifications with their recipients.
    async fn log(&self, topic_id: TopicId, after: u64, limit: u32) -> Result<Log, Problem>;

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
    Token(Token),
    EmailPassword { email: Email, password: String },
}

/// Credentials are never logged.
impl fmt::Debug for SocketCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SocketCredentials(…)")
    }
}

/// Who is at the other end of a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketUser {
    pub id: UserId,
    pub email: Email,
    /// The session the socket was opened with, so that a logout closes it; absent for e-mail and password.
    pub token_hash: Option<TokenHash>,
    /// When that session ends, and the socket with it.
    pub expires_at: Option<Timestamp>,
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

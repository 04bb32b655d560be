//! Bodies of the persist service.

use notifyx_model::{Gid, Message, Notification, NotificationId, Priority, Timestamp, TopicId, TopicName, UserId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Problem;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TopicStatus {
    Active,
    /// Keeps its history and subscribers; takes no new notifications.
    Inactive,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Topic {
    pub id: TopicId,
    pub name: TopicName,
    pub creator_id: UserId,
    pub status: TopicStatus,
    /// Seconds a notification is kept; absent: for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub longevity: Option<u64>,
    /// Offset of the newest notification; 0 while there is none.
    pub offset: u64,
    /// Number of the newest broadcast; 0 while there is none.
    pub broadcast_no: u64,
    /// Offset up to which history was trimmed by `longevity`; 0 while all of it is there.
    pub trimmed: u64,
    pub created_at: Timestamp,
}

/// `POST /api/topics`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewTopic {
    pub name: TopicName,
    /// Seconds a notification is kept, 60 to 3,153,600,000 (100 years); absent: for ever.
    #[serde(default)]
    pub longevity: Option<u64>,
}

/// `POST /api/topics/{id}/status`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetStatus {
    pub status: TopicStatus,
}

/// `GET /api/topics?name=&after=&limit=`, by id.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct TopicPage {
    pub topics: Vec<Topic>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<TopicId>,
}

/// `POST /api/topics/join` (cluster only): creates the topic if it is missing and subscribes the user, idempotent. At most
/// 1,000 items.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct JoinBatch {
    pub items: Vec<Join>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Join {
    pub topic: TopicName,
    pub user_id: UserId,
}

/// One result per item, in order. `topic.offset` was read after the subscription was there.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct JoinResults {
    pub results: Vec<Outcome<Topic>>,
}

/// The outcome of one item of a batch: a bad item never fails its neighbours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome<T> {
    Ok(T),
    Problem(Problem),
}

impl<T> From<Outcome<T>> for Result<T, Problem> {
    fn from(outcome: Outcome<T>) -> Self {
        match outcome {
            Outcome::Ok(value) => Ok(value),
            Outcome::Problem(problem) => Err(problem),
        }
    }
}

/// `POST /api/topics/heads` (cluster only): at most 10,000 names; unknown ones are left out of the answer.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct HeadsQuery {
    pub topics: Vec<TopicName>,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Heads {
    pub heads: Vec<Head>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Head {
    pub topic: TopicName,
    pub topic_id: TopicId,
    pub offset: u64,
    pub broadcast_no: u64,
    pub trimmed: u64,
}

/// `GET /api/topics/{id}/log?after=OFFSET&limit=` (cluster only): all of the topic in order of offset, targeted
/// notifications with their recipients; the gateway filters. Limit at most 1,000.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Log {
    pub notifications: Vec<Notification>,
    /// The topic's newest offset at the time of reading.
    pub offset: u64,
    pub trimmed: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Subscriber {
    pub user_id: UserId,
    pub subscribed_at: Timestamp,
}

/// `GET /api/subscribers/{topic_id}?after=&limit=`, by user id.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct SubscriberPage {
    pub subscribers: Vec<Subscriber>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<UserId>,
}

/// `POST /api/notifications` of persist: by hand, outside or inside a two-phase commit. `POST /api/prepare_2pc` takes the same and
/// always prepares.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewNotification {
    pub topic_id: TopicId,
    pub message: Message,
    /// Empty: every subscriber. A user who is not a subscriber is refused, not dropped.
    #[serde(default)]
    pub to_users: Vec<UserId>,
    #[serde(default)]
    pub priority: Priority,
    /// True: prepare only; commit or roll back with the `request_id` of the answer, within 60 s.
    #[serde(default)]
    pub is_2pc_locked: bool,
    /// Of a prepare only: chosen by the client, so that it may repeat the prepare; absent: chosen by persist. A UUID of version
    /// 7 made within ten minutes of now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<Gid>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SeenStatus {
    Unread,
    Seen,
}

/// One line of a user's inbox.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct InboxItem {
    #[serde(flatten)]
    pub notification: Notification,
    pub status: SeenStatus,
}

/// `GET /api/notifications?topic_name=&from_user_id=&status=&after=&limit=`: the caller's inbox, newest first.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct InboxPage {
    pub notifications: Vec<InboxItem>,
    /// Pass as `after` for older ones; absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<NotificationId>,
}

/// `POST /api/notifications/{id}/seen`, `POST /api/topics/{id}/seen?up_to=OFFSET` and `GET /api/notifications/unread`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Unread {
    pub total: u64,
    /// One for every topic the caller is subscribed to (for the two `seen` forms: the topic concerned), by name.
    pub topics: Vec<UnreadInTopic>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UnreadInTopic {
    pub topic_id: TopicId,
    pub topic: TopicName,
    pub unread: u64,
    /// The last broadcast that `unread` includes: a client adds only later ones.
    pub broadcast_no: u64,
    /// The caller created the topic: its broadcasts are never unread to it.
    pub own: bool,
}

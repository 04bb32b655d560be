//! What travels inside the frames of Notifyx' channels: `notification:<topic>`, `events:<category>` and `user:<id>`.

use notifyx_model::{
    Email, EventId, GivenTime, Message, Notification, NotificationId, Priority, Timestamp, TopicId, TopicName, UserId,
};
use serde::{Deserialize, Serialize};

use crate::rest::persist::{InboxItem, SeenStatus};

/// `notification:<topic>`: live notifications of a topic.
pub const NOTIFICATION_PREFIX: &str = "notification:";
/// `events:<category>`: events as they fire.
pub const EVENTS_PREFIX: &str = "events:";
/// `user:<id>`: what a person has not seen, over all topics.
pub const USER_PREFIX: &str = "user:";

pub const NEW_NOTIFICATION: &str = "new_notification";
pub const EVENT: &str = "event";
pub const OWN_NOTIFICATIONS: &str = "own_notifications_for_topic";
pub const SEEN: &str = "seen";
pub const UNSUBSCRIBE: &str = "unsubscribe";
pub const SEND_EMAIL: &str = "send_email";
pub const GENERATE_AVATAR: &str = "generate_avatar";
pub const UNREAD: &str = "unread";
pub const HEAD: &str = "head";

/// Params of a join of `notification:<topic>` and of `events:<category>`. Others are ignored: clients send what their socket is configured with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinParams {
    /// The last offset the client has: what came after it is delivered first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_offset: Option<u64>,
}

/// The reply to a join of `notification:<topic>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joined {
    /// Always true; older clients look for it.
    pub from_join: bool,
    /// Only the topic's creator publishes.
    pub can_broadcast: bool,
    pub topic_id: TopicId,
    /// The topic's newest offset when the subscription was there.
    pub offset: u64,
    /// `last_offset` was given, and all that came after it follows this reply. False where nothing was asked for, more
    /// than 1,000 were missed, history was trimmed, or `last_offset` is not an offset of this topic: then what follows
    /// begins after `offset`, and the inbox has the rest.
    pub recovered: bool,
}

/// The reply to a join of `events:<category>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventsJoined {
    /// Every event above comes.
    pub offset: u64,
    /// And every event above `last_offset`, before the others. False where nothing was asked for, more than 1,000 were missed,
    /// the retention dropped some, or `last_offset` is not an offset of this category.
    pub recovered: bool,
}

/// `new_notification`, from the client.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewNotification {
    pub message: Message,
    /// User ids or e-mail addresses; empty means every subscriber.
    #[serde(default)]
    pub to: Vec<String>,
    #[serde(default)]
    pub priority: Priority,
    /// Makes the publish safe to repeat.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// When it is to be published; absent: now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fire_at: Option<GivenTime>,
}

/// The reply to `new_notification`, after the commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotificationAccepted {
    pub success: bool,
    pub message: String,
    pub id: NotificationId,
    /// Null where it is decided but not applied yet.
    pub offset: Option<u64>,
}

/// The reply to `new_notification` with `fire_at`, when it is kept for its time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotificationScheduled {
    pub success: bool,
    pub message: String,
    /// Names it over REST: `/api/notifications/scheduled/{id}`.
    pub scheduled_id: EventId,
    pub fire_at: Timestamp,
}

/// `new_notification`, to the subscribers or the recipients.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NotificationPushed {
    pub id: NotificationId,
    pub from: Email,
    pub message: Message,
    /// The recipients; empty means every subscriber.
    pub to: Vec<UserId>,
    pub topic: TopicName,
    pub offset: u64,
    pub inserted_at: Timestamp,
}

impl From<&Notification> for NotificationPushed {
    fn from(notification: &Notification) -> Self {
        Self {
            id: notification.id,
            from: notification.from.clone(),
            message: notification.message.clone(),
            to: notification.to.clone(),
            topic: notification.topic.clone(),
            offset: notification.offset,
            inserted_at: notification.inserted_at,
        }
    }
}

/// `own_notifications_for_topic`, to the one who asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnNotifications {
    pub success: bool,
    pub notifications: Vec<OwnNotification>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwnNotification {
    pub notification_id: NotificationId,
    pub message: Message,
    pub topic_name: TopicName,
    pub from: Email,
    pub from_user_id: UserId,
    pub status: SeenStatus,
    pub inserted_at: Timestamp,
}

impl From<InboxItem> for OwnNotification {
    fn from(InboxItem { notification, status }: InboxItem) -> Self {
        Self {
            notification_id: notification.id,
            message: notification.message,
            topic_name: notification.topic,
            from: notification.from,
            from_user_id: notification.from_user_id,
            status,
            inserted_at: notification.inserted_at,
        }
    }
}

/// `seen`, from the client.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Seen {
    pub id: NotificationId,
}

/// `head`, to a user's channel: the newest broadcast of a topic the user is subscribed to. The client adds
/// `broadcast_no` minus the number its last `unread` included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeadPushed {
    pub topic: TopicName,
    pub broadcast_no: u64,
}

#[cfg(test)]
mod tests {
    use notifyx_model::Clock;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pushed_notification_keeps_its_shape() {
        let id = "01890a5d-ac96-774b-bcce-b302099a8057";
        let notification = Notification {
            id: id.parse().unwrap(),
            topic_id: TopicId::new(&Clock::system()),
            topic: TopicName::parse("billing").unwrap(),
            offset: 7,
            broadcast_no: Some(3),
            from_user_id: UserId::new(&Clock::system()),
            from: Email::parse("ann@example.org").unwrap(),
            message: Message::parse("paid").unwrap(),
            to: vec![],
            priority: Priority::default(),
            inserted_at: Timestamp::from_micros(1_767_225_600_000_000),
        };
        assert_eq!(
            serde_json::to_string(&NotificationPushed::from(&notification)).unwrap(),
            format!(r#"{{"id":"{id}","from":"ann@example.org","message":"paid","to":[],"topic":"billing","offset":7,"#)
                + r#""inserted_at":"2026-01-01T00:00:00Z"}"#
        );
    }

    #[test]
    fn join_params_take_null_for_absent_and_ignore_others() {
        for (params, last_offset) in
            [(json!({}), None), (json!({"last_offset": null, "x": 1}), None), (json!({"last_offset": 4}), Some(4))]
        {
            assert_eq!(serde_json::from_value::<JoinParams>(params).unwrap(), JoinParams { last_offset });
        }
        assert!(serde_json::from_value::<JoinParams>(json!({"last_offset": -1})).is_err());
    }
}

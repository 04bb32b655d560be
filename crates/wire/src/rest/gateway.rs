//! Bodies that only the gateway knows; the others are those of the services behind it.

use notifyx_model::{
    Email, EventId, Gid, GivenTime, Message, NotificationId, Priority, Timestamp, TopicId, TopicName, UserId,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `POST /api/notifications` of the gateway. Exactly one of `topic` and `topic_id`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PublishRequest {
    /// The topic's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic: Option<TopicName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub topic_id: Option<TopicId>,
    pub message: Message,
    /// User ids or e-mail addresses, at most 1,000; empty: every subscriber. One who is not a subscriber is refused.
    #[serde(default, alias = "to_users")]
    pub to: Vec<String>,
    #[serde(default)]
    pub priority: Priority,
    /// When it is to be published: a Unix time or RFC 3339, up to ten years ahead; absent: now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fire_at: Option<GivenTime>,
}

/// `201` (committed and applied) and `202` (decided, not yet applied everywhere: follow `Location`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PublishAnswer {
    pub success: bool,
    pub id: NotificationId,
    pub gid: Gid,
    pub topic: TopicName,
    /// Its place in the topic; null while the commit is decided but not applied.
    pub offset: Option<u64>,
}

/// A notification for later: what was asked, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ScheduledNotification {
    pub success: bool,
    /// Of the scheduled notification; once it is published, the notification has an id of its own.
    #[schema(value_type = String)]
    pub id: EventId,
    pub topic: TopicName,
    pub message: Message,
    pub to: Vec<String>,
    pub priority: Priority,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    pub created_at: Timestamp,
    pub fire_at: Timestamp,
    #[serde(flatten)]
    pub state: ScheduledState,
}

/// Where a scheduled notification stands, and what there is to say about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum ScheduledState {
    /// It waits for its time, and can be cancelled.
    Scheduled,
    /// Its time has come; it is being published, or waits for a service that is away.
    Queued,
    /// It is committed.
    Published {
        notification_id: NotificationId,
        gid: Gid,
        /// Its place in the topic; null where that was not known yet when the commit was decided.
        offset: Option<u64>,
    },
    /// The final no that a publish at its time was answered with.
    Refused { code: String, reason: String },
}

impl ScheduledState {
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Queued => "queued",
            Self::Published { .. } => "published",
            Self::Refused { .. } => "refused",
        }
    }
}

/// `GET /api/notifications/scheduled`: what waits for its time, soonest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ScheduledPage {
    pub notifications: Vec<ScheduledNotification>,
    /// `after` of the page that follows, if one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// `PATCH /api/notifications/scheduled/{id}`: another time.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Reschedule {
    pub fire_at: GivenTime,
}

/// `DELETE` and other answers that have nothing more to say.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
pub struct Done {
    pub success: bool,
}

impl Done {
    pub const YES: Self = Self { success: true };
}

/// `GET /api/users/self` of the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Myself {
    pub id: UserId,
    pub email: Email,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_scheduled_notification_says_where_it_stands() {
        let mut shown = json!({
            "success": true, "id": "a1", "topic": "billing", "message": "paid", "to": [], "priority": 4,
            "created_at": "2026-01-01T00:00:00Z", "fire_at": "2026-01-02T00:00:00Z", "status": "scheduled",
        });
        let read: ScheduledNotification = serde_json::from_value(shown.clone()).unwrap();
        assert_eq!(read.state, ScheduledState::Scheduled);
        assert_eq!(serde_json::to_value(&read).unwrap(), shown);
        let state = json!({ "status": "refused", "code": "topic_inactive", "reason": "it sleeps" });
        shown.as_object_mut().unwrap().extend(state.as_object().unwrap().clone());
        let read: ScheduledNotification = serde_json::from_value(shown.clone()).unwrap();
        assert_eq!(read.state.as_str(), "refused");
        assert_eq!(serde_json::to_value(&read).unwrap(), shown);
    }
}

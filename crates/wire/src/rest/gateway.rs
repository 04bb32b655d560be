//! Bodies that only the gateway knows; the others are those of the services behind it.

use notifyx_model::{Email, Gid, Message, NotificationId, Priority, TopicId, TopicName, UserId};
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

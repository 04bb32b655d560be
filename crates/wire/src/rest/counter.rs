//! Bodies of the counter.

use notifyx_model::{Gid, TopicId, UserId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `GET /api/counter/{user_id}`: what the user has published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UserCounter {
    pub user_id: UserId,
    pub counter: u64,
    /// What the counter will be once everything prepared now is committed.
    pub count_2pc_next: u64,
    /// Whether anything is prepared now. Nobody is locked out by it.
    pub is_2pc_locked: bool,
}

/// `GET /api/counter/topics/{topic_id}`: what was published to the topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TopicCounter {
    pub topic_id: TopicId,
    pub counter: u64,
    pub count_2pc_next: u64,
    pub is_2pc_locked: bool,
}

/// `POST /api/prepare_increment_2pc/{user_id}`: by hand. Without a topic only the user's counter is raised.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PrepareIncrement {
    #[serde(default)]
    pub topic_id: Option<TopicId>,
    /// Chosen by the client, so that it may repeat the prepare; absent: chosen by the counter. A UUID of version 7 made within
    /// ten minutes of now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<Gid>,
}

//! Who created a topic: persist knows. Asked only where somebody raises a topic's counter by hand.

use async_trait::async_trait;
use notifyx_mesh::{Call, Mesh};
use notifyx_model::{Fault, Kind, TopicId, UserId};
use notifyx_wire::rest::persist::Topic;

use crate::Error;

#[async_trait]
pub(crate) trait Topics: Send + Sync {
    async fn find_creator(&self, topic_id: TopicId) -> Result<Option<UserId>, Error>;
}

#[async_trait]
impl Topics for Mesh {
    async fn find_creator(&self, topic_id: TopicId) -> Result<Option<UserId>, Error> {
        let answer = self.call("persist", Call::get(format!("/api/topics/{topic_id}"))).await;
        match answer.and_then(|answer| answer.json::<Topic>()) {
            Ok(topic) => Ok(Some(topic.creator_id)),
            Err(refused) if refused.kind() == Kind::NotFound => Ok(None),
            Err(error) => Err(Error::Topics(error)),
        }
    }
}

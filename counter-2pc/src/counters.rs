//! Reading counters. One that never counted is zero: the counter does not know which users and topics there are.

use std::sync::Arc;

use notifyx_model::{TopicId, UserId};
use notifyx_wire::rest::counter::{TopicCounter, UserCounter};

use crate::{
    Error,
    store::{Counted, Store},
};

pub(crate) struct Counters {
    store: Arc<dyn Store>,
}

impl Counters {
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    pub(crate) async fn of_user(&self, user_id: UserId) -> Result<UserCounter, Error> {
        let count = self.store.count(Counted::User(user_id)).await?;
        Ok(UserCounter {
            user_id,
            counter: count.committed,
            count_2pc_next: count.committed + count.prepared,
            is_2pc_locked: count.prepared > 0,
        })
    }

    pub(crate) async fn of_topic(&self, topic_id: TopicId) -> Result<TopicCounter, Error> {
        let count = self.store.count(Counted::Topic(topic_id)).await?;
        Ok(TopicCounter {
            topic_id,
            counter: count.committed,
            count_2pc_next: count.committed + count.prepared,
            is_2pc_locked: count.prepared > 0,
        })
    }
}

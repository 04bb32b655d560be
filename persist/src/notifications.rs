//! A topic's notifications as its log holds them, in order of offset.

use std::sync::Arc;

use notifyx_model::TopicId;
use notifyx_wire::rest::persist::Log;

use crate::{Error, page, store::Store};

/// A gateway that catches up reads this many at once.
pub const LOG_MAX: u32 = 1_000;

pub(crate) struct Notifications {
    store: Arc<dyn Store>,
}

impl Notifications {
    pub(crate) fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    pub(crate) async fn log(&self, topic: TopicId, after: u64, limit: Option<u32>) -> Result<Log, Error> {
        let limit = page::limit(limit, LOG_MAX)?;
        self.store.log(topic, after, limit, page::BYTES_MAX).await?.ok_or(Error::TopicNotFound(topic))
    }
}

//! The rules of consumers: who has one, and how far it has come. Any instance serves them.

use std::{fmt, sync::Arc, time::Duration};

use notifyx_model::Category;

use crate::{
    Error,
    consumer::{Consumer, ConsumerName, Holder},
    store::Store,
};

pub struct Consumers {
    store: Arc<dyn Store>,
}

impl fmt::Debug for Consumers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Consumers").finish_non_exhaustive()
    }
}

impl Consumers {
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self { store }
    }

    /// Takes it for `span` from now, or prolongs it. Whose it is after that: perhaps another's.
    pub async fn acquire(
        &self,
        name: &ConsumerName,
        category: &Category,
        holder: &Holder,
        span: Duration,
    ) -> Result<Consumer, Error> {
        self.store.acquire_consumer(name, category, holder, span).await
    }

    /// All up to `position` is done.
    pub async fn commit(&self, name: &ConsumerName, term: u64, position: u64) -> Result<Consumer, Error> {
        self.store.commit_position(name, term, position).await
    }

    /// The next one may have it now.
    pub async fn release(&self, name: &ConsumerName, term: u64) -> Result<Consumer, Error> {
        self.store.release_consumer(name, term).await
    }
}

//! Topics: names, creators, status. What of a topic never changes is cached; its heads and status are always read.

use std::{ops::RangeInclusive, sync::Arc};

use moka::sync::Cache;
use notifyx_model::{Clock, TopicId, TopicName, UserId};
use notifyx_wire::rest::persist::{Head, NewTopic, Topic, TopicPage, TopicStatus};

use crate::{
    Error,
    metrics::Metrics,
    page,
    patience::again,
    store::{Creation, Store},
};

/// Below a minute the sweep would be late; above 100 years sums of microseconds leave an i64.
pub(crate) const LONGEVITY_S: RangeInclusive<u64> = 60..=3_153_600_000;

/// Topics that a gateway may ask the heads of in one call.
pub const HEADS_MAX: usize = 10_000;

/// What of a topic never changes.
#[derive(Clone, Debug)]
pub(crate) struct Fact {
    pub(crate) id: TopicId,
    pub(crate) name: TopicName,
    pub(crate) creator_id: UserId,
}

pub(crate) struct Topics {
    store: Arc<dyn Store>,
    clock: Clock,
    metrics: Metrics,
    per_user: u32,
    facts: Cache<TopicId, Fact>,
    names: Cache<TopicName, TopicId>,
}

impl Topics {
    pub(crate) fn new(store: Arc<dyn Store>, clock: Clock, metrics: Metrics, per_user: u32, cached: u64) -> Self {
        Self { store, clock, metrics, per_user, facts: Cache::new(cached), names: Cache::new(cached) }
    }

    pub(crate) async fn create(&self, creator_id: UserId, new: NewTopic) -> Result<Topic, Error> {
        if let Some(longevity) = new.longevity.filter(|seconds| !LONGEVITY_S.contains(seconds)) {
            return Err(Error::Longevity(longevity));
        }
        let creation = Creation {
            id: TopicId::new(&self.clock),
            name: new.name,
            creator_id,
            longevity: new.longevity,
            at: self.clock.now(),
        };
        again(&self.metrics, || self.store.create_topic(&creation, self.per_user)).await
    }

    pub(crate) async fn get(&self, id: TopicId) -> Result<Topic, Error> {
        self.store.find_topic(id).await?.ok_or(Error::TopicNotFound(id))
    }

    /// By id; or the one of that name, if there is one.
    pub(crate) async fn list(
        &self,
        name: Option<&TopicName>,
        after: Option<TopicId>,
        limit: Option<u32>,
    ) -> Result<TopicPage, Error> {
        let limit = page::limit(limit, page::MAX)?;
        if let Some(name) = name {
            let topics = self.store.find_topic_named(name).await?.into_iter().collect();
            return Ok(TopicPage { topics, next: None });
        }
        let mut topics = self.store.list_topics(after, limit + 1).await?;
        let next = page::cut(&mut topics, limit, |topic| topic.id);
        Ok(TopicPage { topics, next })
    }

    pub(crate) async fn set_status(&self, caller: UserId, id: TopicId, status: TopicStatus) -> Result<Topic, Error> {
        let fact = self.fact(id).await?;
        if fact.creator_id != caller {
            return Err(Error::NotCreator(fact.name));
        }
        again(&self.metrics, || self.store.set_topic_status(id, status)).await?.ok_or(Error::TopicNotFound(id))
    }

    /// Unknown names are left out.
    pub(crate) async fn heads(&self, names: &[TopicName]) -> Result<Vec<Head>, Error> {
        if names.len() > HEADS_MAX {
            return Err(Error::BatchTooLarge { count: names.len(), max: HEADS_MAX });
        }
        self.store.heads(names).await
    }

    /// Topics are never deleted, so what was found once stays true.
    pub(crate) async fn fact(&self, id: TopicId) -> Result<Fact, Error> {
        if let Some(fact) = self.facts.get(&id) {
            self.metrics.cache_hit();
            return Ok(fact);
        }
        self.metrics.cache_miss();
        let topic = self.get(id).await?;
        Ok(self.learn(&topic))
    }

    pub(crate) async fn fact_named(&self, name: &TopicName) -> Result<Fact, Error> {
        if let Some(id) = self.names.get(name) {
            return self.fact(id).await;
        }
        self.metrics.cache_miss();
        let topic = self.store.find_topic_named(name).await?.ok_or_else(|| Error::NameNotFound(name.clone()))?;
        Ok(self.learn(&topic))
    }

    fn learn(&self, topic: &Topic) -> Fact {
        let fact = Fact { id: topic.id, name: topic.name.clone(), creator_id: topic.creator_id };
        self.names.insert(fact.name.clone(), fact.id);
        self.facts.insert(fact.id, fact.clone());
        fact
    }
}

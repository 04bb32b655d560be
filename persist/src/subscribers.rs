//! Who is subscribed to what. A subscription begins at its topic's head and lasts until it is ended by its user.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use notifyx_model::{Clock, TopicId, UserId};
use notifyx_wire::rest::persist::{Join, Subscriber, SubscriberPage, Topic};
use uuid::Uuid;

use crate::{
    Error,
    metrics::Metrics,
    page,
    patience::again,
    store::{JoinBounds, Joining, Store},
    topics::Topics,
};

/// Joins that a gateway may ask for in one call.
pub const JOINS_MAX: usize = 1_000;

pub(crate) struct Subscribers {
    store: Arc<dyn Store>,
    topics: Arc<Topics>,
    clock: Clock,
    metrics: Metrics,
    bounds: JoinBounds,
}

impl Subscribers {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        topics: Arc<Topics>,
        clock: Clock,
        metrics: Metrics,
        bounds: JoinBounds,
    ) -> Self {
        Self { store, topics, clock, metrics, bounds }
    }

    /// Creates what is missing and subscribes; one result per item, in order. A repetition changes nothing.
    pub(crate) async fn join(&self, items: Vec<Join>) -> Result<Vec<Result<Topic, Error>>, Error> {
        if items.len() > JOINS_MAX {
            return Err(Error::BatchTooLarge { count: items.len(), max: JOINS_MAX });
        }
        let joining =
            |join: Join| Joining { topic: join.topic, user_id: join.user_id, topic_id: TopicId::new(&self.clock) };
        let items: Vec<Joining> = items.into_iter().map(joining).collect();
        let at = self.clock.now();
        self.metrics.joined(items.len());
        again(&self.metrics, || self.store.join(&items, self.bounds, at)).await
    }

    pub(crate) async fn subscribe(&self, user: UserId, topic: TopicId) -> Result<Subscriber, Error> {
        let (at, max) = (self.clock.now(), self.bounds.subscriptions_per_user);
        again(&self.metrics, || self.store.subscribe(topic, user, at, max)).await
    }

    /// A repetition changes nothing.
    pub(crate) async fn unsubscribe(&self, user: UserId, topic: TopicId) -> Result<(), Error> {
        self.topics.fact(topic).await?;
        again(&self.metrics, || self.store.unsubscribe(topic, user)).await.map(drop)
    }

    /// For the topic's creator and its subscribers; `reader` is `None` for a service of the cluster.
    pub(crate) async fn list(
        &self,
        reader: Option<UserId>,
        topic: TopicId,
        after: Option<UserId>,
        limit: Option<u32>,
    ) -> Result<SubscriberPage, Error> {
        let limit = page::limit(limit, page::MAX)?;
        let fact = self.topics.fact(topic).await?;
        if let Some(user) = reader.filter(|user| *user != fact.creator_id)
            && !self.store.is_subscriber(topic, user).await?
        {
            return Err(Error::Outsider(fact.name));
        }
        let mut subscribers = self.store.list_subscribers(topic, after, limit + 1).await?;
        let next = page::cut(&mut subscribers, limit, |subscriber| subscriber.user_id);
        Ok(SubscriberPage { subscribers, next })
    }
}

/// What a batch of joins needs done: which topics are to be created, by which item, and who is to be subscribed. Decided once
/// for both backends, from what they read.
#[derive(Debug)]
pub(crate) struct Plan {
    steps: Vec<Step>,
    creations: Vec<usize>,
    subscriptions: Vec<usize>,
}

#[derive(Debug)]
enum Step {
    /// Subscribed before.
    Again,
    Subscribe {
        user: UserId,
        exists: bool,
    },
    Refused(Error),
}

impl Plan {
    /// From the names that exist and the pairs that are subscribed.
    pub(crate) fn new(items: &[Joining], known: &HashSet<String>, subscribed: &HashSet<(Uuid, String)>) -> Self {
        let step = |item: &Joining| {
            if subscribed.contains(&(item.user_id.uuid(), item.topic.as_str().to_owned())) {
                Step::Again
            } else {
                Step::Subscribe { user: item.user_id, exists: known.contains(item.topic.as_str()) }
            }
        };
        Self { steps: items.iter().map(step).collect(), creations: Vec::new(), subscriptions: Vec::new() }
    }

    /// Whose subscriptions would become more: only they need counting.
    pub(crate) fn growing(&self) -> HashSet<UserId> {
        self.steps
            .iter()
            .filter_map(|step| match step {
                Step::Subscribe { user, .. } => Some(*user),
                Step::Again | Step::Refused(_) => None,
            })
            .collect()
    }

    /// Goes through the items in order, with what their users have so far.
    pub(crate) fn apply(
        &mut self,
        items: &[Joining],
        bounds: JoinBounds,
        created: &HashMap<UserId, u64>,
        subscribed: &HashMap<UserId, u64>,
    ) {
        let (mut created, mut subscribed) = (created.clone(), subscribed.clone());
        let (mut new_topics, mut new_pairs) = (HashSet::new(), HashSet::new());
        for (i, (step, item)) in self.steps.iter_mut().zip(items).enumerate() {
            let Step::Subscribe { user, exists } = *step else { continue };
            if new_pairs.contains(&(user, &item.topic)) {
                continue;
            }
            let subscriptions = subscribed.entry(user).or_default();
            if *subscriptions >= u64::from(bounds.subscriptions_per_user) {
                *step = Step::Refused(Error::TooManySubscriptions(bounds.subscriptions_per_user));
                continue;
            }
            if !exists && !new_topics.contains(&item.topic) {
                let topics = created.entry(user).or_default();
                if *topics >= u64::from(bounds.topics_per_user) {
                    *step = Step::Refused(Error::TooManyTopics(bounds.topics_per_user));
                    continue;
                }
                *topics += 1;
                new_topics.insert(&item.topic);
                self.creations.push(i);
            }
            *subscriptions += 1;
            new_pairs.insert((user, &item.topic));
            self.subscriptions.push(i);
        }
    }

    /// The items that create their topic, each topic once.
    pub(crate) fn creations(&self) -> &[usize] {
        &self.creations
    }

    /// The items that subscribe their user, each pair once.
    pub(crate) fn subscriptions(&self) -> &[usize] {
        &self.subscriptions
    }

    /// One result per item, from the topics as they are now.
    pub(crate) fn results(self, items: &[Joining], topics: Vec<Topic>) -> Vec<Result<Topic, Error>> {
        let topics: HashMap<_, _> = topics.into_iter().map(|topic| (topic.name.clone(), topic)).collect();
        let joined =
            |item: &Joining| topics.get(&item.topic).cloned().ok_or_else(|| Error::NameNotFound(item.topic.clone()));
        self.steps
            .into_iter()
            .zip(items)
            .map(|(step, item)| match step {
                Step::Refused(error) => Err(error),
                Step::Again | Step::Subscribe { .. } => joined(item),
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use notifyx_model::TopicName;

    use super::*;

    fn joins(pairs: &[(UserId, &str)]) -> Vec<Joining> {
        let clock = Clock::system();
        pairs
            .iter()
            .map(|(user, name)| Joining {
                topic: TopicName::parse(name).unwrap(),
                user_id: *user,
                topic_id: TopicId::new(&clock),
            })
            .collect()
    }

    const BOUNDS: JoinBounds = JoinBounds { subscriptions_per_user: 2, topics_per_user: 1 };

    #[test]
    fn the_first_who_joins_a_new_topic_creates_it() {
        let (ann, bob) = (UserId::new(&Clock::system()), UserId::new(&Clock::system()));
        let items = joins(&[(ann, "new"), (bob, "new"), (ann, "new"), (bob, "old")]);
        let mut plan = Plan::new(&items, &HashSet::from(["old".to_owned()]), &HashSet::new());
        plan.apply(&items, BOUNDS, &HashMap::new(), &HashMap::new());
        assert_eq!(plan.creations(), [0]);
        assert_eq!(plan.subscriptions(), [0, 1, 3]);
    }

    #[test]
    fn who_joins_again_is_not_counted() {
        let ann = UserId::new(&Clock::system());
        let items = joins(&[(ann, "old")]);
        let plan =
            Plan::new(&items, &HashSet::from(["old".to_owned()]), &HashSet::from([(ann.uuid(), "old".to_owned())]));
        assert!(plan.growing().is_empty());
    }

    #[test]
    fn bounds_hold_within_a_batch() {
        let ann = UserId::new(&Clock::system());
        let items = joins(&[(ann, "a"), (ann, "b"), (ann, "old"), (ann, "older")]);
        let mut plan = Plan::new(&items, &HashSet::from(["old".to_owned(), "older".to_owned()]), &HashSet::new());
        plan.apply(&items, BOUNDS, &HashMap::new(), &HashMap::new());
        assert_eq!((plan.creations(), plan.subscriptions()), (&[0][..], &[0, 2][..]));
        let results = plan.results(&items, Vec::new());
        assert!(matches!(results[1], Err(Error::TooManyTopics(1))));
        assert!(matches!(results[3], Err(Error::TooManySubscriptions(2))));
    }
}

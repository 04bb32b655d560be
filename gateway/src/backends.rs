//! What the gateway asks of the services behind it: one typed call each, with its path, its user and its deadline.
//!
//! Joins are batched: a reconnect storm costs persist a few calls, not one per socket. What of a topic never changes is
//! cached. What is asked of the events service is in [`events`].

pub(crate) mod events;
mod streams;

use std::time::Duration;

use notifyx_batch::{Batcher, Options};
use notifyx_chassis::User;
use notifyx_mesh::{Call, CallError, Mesh};
use notifyx_model::{Clock, KeyId, NotificationId, Token, TopicId, TopicName, UserId};
use notifyx_wire::rest::{
    Problem,
    auth::{
        Credentials, Identity, LoggedIn, Registered, Resolve, Resolved,
        keys::{CreatedKey, Keys, NewKey},
    },
    counter::{TopicCounter, UserCounter},
    persist::{
        Heads, HeadsQuery, InboxPage, Join, JoinBatch, JoinResults, Log, NewTopic, Outcome, SetStatus, Subscriber,
        SubscriberPage, Topic, TopicPage, Unread,
    },
};
use serde::Serialize;

use self::streams::Streams;
pub(crate) use self::{events::Events, streams::EVENTS};

pub(crate) const AUTH: &str = "auth";
pub(crate) const PERSIST: &str = "persist";
pub(crate) const COUNTER: &str = "counter-2pc";

/// Hashing a password takes a tenth of a second, and a few may be waiting in line.
const HASHING_DEADLINE: Duration = Duration::from_secs(5);

/// Joins in one call to persist; its own bound is 1,000.
const JOINS_PER_CALL: usize = 256;
/// A node full of sockets may reconnect at once.
const JOINS_WAITING_MAX: usize = 100_000;

/// Topics remembered: name, id and creator are some 200 bytes each.
const TOPICS_CACHED: u64 = 100_000;

/// The part of a topic that never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TopicFacts {
    pub(crate) id: TopicId,
    pub(crate) creator_id: UserId,
}

impl From<&Topic> for TopicFacts {
    fn from(topic: &Topic) -> Self {
        Self { id: topic.id, creator_id: topic.creator_id }
    }
}

#[derive(Clone)]
pub(crate) struct Backends {
    pub(crate) events: Events,
    mesh: Mesh,
    joins: Batcher<Join, Result<Topic, Problem>>,
    topics: moka::sync::Cache<TopicName, TopicFacts>,
    streams: Streams,
}

impl Backends {
    /// Needs the shared runtime.
    pub(crate) fn new(mesh: Mesh, clock: Clock) -> Self {
        let options = Options {
            name: "joins",
            items_max: JOINS_PER_CALL,
            bytes_max: JOINS_PER_CALL * 256,
            queue_max: JOINS_WAITING_MAX,
            in_flight: 2,
        };
        let caller = mesh.clone();
        let joins = Batcher::start(
            options,
            |join: &Join| join.topic.as_str().len() + 16,
            move |items| join_all(caller.clone(), items),
        );
        let streams = Streams::new(mesh.clone());
        let events = Events::new(mesh.clone(), clock);
        Self { events, mesh, joins, topics: moka::sync::Cache::new(TOPICS_CACHED), streams }
    }

    // Auth.

    pub(crate) async fn register(&self, credentials: &Credentials, client: &str) -> Result<Registered, CallError> {
        let call = Call::post("/api/users").json(credentials).client(client).deadline(HASHING_DEADLINE);
        self.mesh.call(AUTH, call).await?.json()
    }

    pub(crate) async fn log_in(&self, credentials: &Credentials, client: &str) -> Result<LoggedIn, CallError> {
        let call = Call::post("/api/users/login").json(credentials).client(client).deadline(HASHING_DEADLINE);
        self.mesh.call(AUTH, call).await?.json()
    }

    /// The door has seen that the token was good: if auth says now that it is not, an earlier try ended the session and
    /// its answer was lost.
    pub(crate) async fn log_out(&self, token: &Token) -> Result<(), CallError> {
        match self.mesh.call(AUTH, Call::delete("/api/users/logout").bearer(token)).await {
            Err(CallError::Refused(problem, _)) if problem.status == 401 => Ok(()),
            answer => answer.map(drop),
        }
    }

    /// Checks e-mail and password without opening a session.
    pub(crate) async fn verify(&self, credentials: &Credentials, client: &str) -> Result<Identity, CallError> {
        let call = Call::post("/api/users/verify").json(credentials).client(client).deadline(HASHING_DEADLINE);
        self.mesh.call(AUTH, call.idempotent()).await?.json()
    }

    pub(crate) async fn resolve(&self, people: &Resolve) -> Result<Resolved, CallError> {
        self.mesh.call(AUTH, Call::post("/api/users/resolve").json(people).idempotent()).await?.json()
    }

    /// Not repeated: each try would make a key.
    pub(crate) async fn create_key(&self, by: &User, new: &NewKey) -> Result<CreatedKey, CallError> {
        self.mesh.call(AUTH, as_user(Call::post("/api/keys"), by).json(new)).await?.json()
    }

    pub(crate) async fn keys(&self, by: &User) -> Result<Keys, CallError> {
        self.mesh.call(AUTH, as_user(Call::get("/api/keys"), by)).await?.json()
    }

    pub(crate) async fn revoke_key(&self, by: &User, id: KeyId) -> Result<(), CallError> {
        self.mesh.call(AUTH, as_user(Call::delete(format!("/api/keys/{id}")), by)).await.map(drop)
    }

    // Persist: topics and subscribers.

    pub(crate) async fn create_topic(&self, by: &User, new: &NewTopic) -> Result<Topic, CallError> {
        let topic: Topic = self.mesh.call(PERSIST, as_user(Call::post("/api/topics"), by).json(new)).await?.json()?;
        self.remember(&topic);
        Ok(topic)
    }

    pub(crate) async fn topics(&self, by: &User, query: &impl Serialize) -> Result<TopicPage, CallError> {
        self.mesh.call(PERSIST, as_user(Call::get(with_query("/api/topics", query)), by)).await?.json()
    }

    pub(crate) async fn topic(&self, by: &User, id: TopicId) -> Result<Topic, CallError> {
        let topic: Topic =
            self.mesh.call(PERSIST, as_user(Call::get(format!("/api/topics/{id}")), by)).await?.json()?;
        self.remember(&topic);
        Ok(topic)
    }

    /// The unchanging facts of the topic of that name, if there is one.
    pub(crate) async fn find_topic(&self, by: &User, name: &TopicName) -> Result<Option<TopicFacts>, CallError> {
        if let Some(facts) = self.topics.get(name) {
            return Ok(Some(facts));
        }
        let page = self.topics(by, &[("name", name.as_str())]).await?;
        Ok(page.topics.iter().find(|topic| topic.name == *name).map(|topic| {
            self.remember(topic);
            TopicFacts::from(topic)
        }))
    }

    pub(crate) async fn set_status(&self, by: &User, id: TopicId, status: &SetStatus) -> Result<Topic, CallError> {
        let call = as_user(Call::post(format!("/api/topics/{id}/status")), by).json(status).idempotent();
        self.mesh.call(PERSIST, call).await?.json()
    }

    pub(crate) async fn subscribe(&self, by: &User, topic: TopicId) -> Result<Subscriber, CallError> {
        let call = as_user(Call::post(format!("/api/subscribers/{topic}")), by).idempotent();
        self.mesh.call(PERSIST, call).await?.json()
    }

    pub(crate) async fn unsubscribe(&self, by: &User, topic: TopicId) -> Result<(), CallError> {
        self.mesh.call(PERSIST, as_user(Call::delete(format!("/api/subscribers/{topic}")), by)).await.map(drop)
    }

    pub(crate) async fn subscribers(
        &self,
        by: &User,
        topic: TopicId,
        query: &impl Serialize,
    ) -> Result<SubscriberPage, CallError> {
        let path = with_query(&format!("/api/subscribers/{topic}"), query);
        self.mesh.call(PERSIST, as_user(Call::get(path), by)).await?.json()
    }

    /// Creates the topic if it is missing and subscribes the user. Its offset was read after the subscription was there.
    pub(crate) async fn join(&self, topic: TopicName, user_id: UserId) -> Result<Topic, Problem> {
        match self.joins.submit(Join { topic, user_id }).await {
            Ok(joined) => joined.inspect(|topic| self.remember(topic)),
            Err(rejected) => Err(notifyx_chassis::reply::problem(&crate::Error::from(rejected))),
        }
    }

    pub(crate) async fn heads(&self, topics: Vec<TopicName>) -> Result<Heads, CallError> {
        self.mesh.call(PERSIST, Call::post("/api/topics/heads").json(&HeadsQuery { topics }).idempotent()).await?.json()
    }

    pub(crate) async fn log(&self, topic: TopicId, after: u64, limit: u32) -> Result<Log, CallError> {
        let path = format!("/api/topics/{topic}/log?after={after}&limit={limit}");
        self.mesh.call(PERSIST, Call::get(path)).await?.json()
    }

    // Persist: inboxes.

    pub(crate) async fn inbox(&self, by: &User, query: &impl Serialize) -> Result<InboxPage, CallError> {
        self.mesh.call(PERSIST, as_user(Call::get(with_query("/api/notifications", query)), by)).await?.json()
    }

    pub(crate) async fn seen(&self, by: &User, id: NotificationId) -> Result<Unread, CallError> {
        let call = as_user(Call::post(format!("/api/notifications/{id}/seen")), by).idempotent();
        self.mesh.call(PERSIST, call).await?.json()
    }

    pub(crate) async fn seen_up_to(&self, by: &User, topic: TopicId, offset: u64) -> Result<Unread, CallError> {
        let call = as_user(Call::post(format!("/api/topics/{topic}/seen?up_to={offset}")), by).idempotent();
        self.mesh.call(PERSIST, call).await?.json()
    }

    pub(crate) async fn unread(&self, by: &User) -> Result<Unread, CallError> {
        self.mesh.call(PERSIST, as_user(Call::get("/api/notifications/unread"), by)).await?.json()
    }

    // Counter.

    pub(crate) async fn user_counter(&self, by: &User, user: UserId) -> Result<UserCounter, CallError> {
        self.mesh.call(COUNTER, as_user(Call::get(format!("/api/counter/{user}")), by)).await?.json()
    }

    pub(crate) async fn topic_counter(&self, by: &User, topic: TopicId) -> Result<TopicCounter, CallError> {
        self.mesh.call(COUNTER, as_user(Call::get(format!("/api/counter/topics/{topic}")), by)).await?.json()
    }

    /// Joins that wait for a call, for a gauge.
    pub(crate) fn joins_waiting(&self) -> usize {
        self.joins.queued() + self.streams.waiting()
    }

    fn remember(&self, topic: &Topic) {
        self.topics.insert(topic.name.clone(), TopicFacts::from(topic));
    }

    /// Lets the joins and the events that wait finish.
    pub(crate) async fn close(&self) {
        tokio::join!(self.joins.close(), self.streams.close(), self.events.close());
    }
}

impl std::fmt::Debug for Backends {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backends").finish_non_exhaustive()
    }
}

async fn join_all(mesh: Mesh, items: Vec<Join>) -> Vec<Result<Topic, Problem>> {
    let count = items.len();
    let call = Call::post("/api/topics/join").json(&JoinBatch { items }).idempotent();
    match mesh.call(PERSIST, call).await.and_then(|answer| answer.json::<JoinResults>()) {
        Ok(answer) => answer.results.into_iter().map(Outcome::into).collect(),
        Err(error) => vec![Err(notifyx_chassis::reply::problem(&error)); count],
    }
}

fn as_user(call: Call, user: &User) -> Call {
    call.user(user.id, &user.email)
}

fn with_query(path: &str, query: &impl Serialize) -> String {
    let encoded = serde_urlencoded::to_string(query).expect("a query of plain pairs");
    if encoded.is_empty() { path.to_owned() } else { format!("{path}?{encoded}") }
}

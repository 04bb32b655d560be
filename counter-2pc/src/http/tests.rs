//! The counter through its real door, on port 0.

mod by_hand;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use notifyx_chassis::{Cluster, Context, Running};
use notifyx_database::DatabaseUrl;
use notifyx_model::{Clock, Email, Gid, ManualClock, Message, NotificationId, Priority, Secret, TopicId, UserId};
use notifyx_wire::{
    header,
    rest::{
        Problem,
        commit::{Ack, Acks, BATCH_MAX, Prepare, PrepareBatch, Publish, Vote, Votes},
        counter::{TopicCounter, UserCounter},
    },
};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::{Config, Error, topics::Topics};

const SECRET: &str = "the-cluster-secret";

struct Door {
    running: Running,
    base: String,
    http: reqwest::Client,
    clock: Clock,
    hand: ManualClock,
    ann: UserId,
    bob: UserId,
    /// Ann made it.
    topic: TopicId,
    _folder: TempDir,
}

/// Persist, which knows of one topic.
struct OneTopic(TopicId, UserId);

#[async_trait]
impl Topics for OneTopic {
    async fn find_creator(&self, topic_id: TopicId) -> Result<Option<UserId>, Error> {
        Ok((topic_id == self.0).then_some(self.1))
    }
}

impl Door {
    async fn open() -> Self {
        Self::open_with(|_| {}).await
    }

    /// With other bounds than the defaults.
    async fn open_with(change: impl FnOnce(&mut Config)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database = DatabaseUrl::sqlite(folder.path().join("counter.db"));
        let mut config = Config { listen: "127.0.0.1:0".parse().unwrap(), database, ..Config::default() };
        change(&mut config);
        let hand = ManualClock::new();
        let clock = hand.clock();
        let context = Context {
            clock: clock.clone(),
            shutdown: CancellationToken::new(),
            runtime: tokio::runtime::Handle::current(),
            cluster: Cluster::new(Secret::new(SECRET)),
            discovery: Vec::new(),
        };
        let (ann, bob, topic) = (UserId::new(&clock), UserId::new(&clock), TopicId::new(&clock));
        let topics: Arc<dyn Topics> = Arc::new(OneTopic(topic, ann));
        let running = crate::start_with(config, context, |_| topics).await.unwrap();
        let base = format!("http://{}", running.address());
        Self { running, base, http: reqwest::Client::new(), clock, hand, ann, bob, topic, _folder: folder }
    }

    fn ask(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base))
    }

    /// As the gateway asks for a user.
    fn of(&self, user: UserId, method: Method, path: &str) -> RequestBuilder {
        self.of_cluster(method, path).header(header::ASSERTED_USER, format!("{user} someone@example.org"))
    }

    fn of_cluster(&self, method: Method, path: &str) -> RequestBuilder {
        self.ask(method, path).header(header::CLUSTER_SECRET, SECRET)
    }

    /// Ann's counter, as she reads it.
    async fn counter(&self) -> UserCounter {
        let answer = self.of(self.ann, Method::GET, &format!("/api/counter/{}", self.ann)).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.json().await.unwrap()
    }

    async fn topic_counter(&self) -> TopicCounter {
        let path = format!("/api/counter/topics/{}", self.topic);
        self.of(self.bob, Method::GET, &path).send().await.unwrap().json().await.unwrap()
    }

    async fn prepare(&self, user: UserId, body: Value) -> Response {
        let path = format!("/api/prepare_increment_2pc/{user}");
        self.of(user, Method::POST, &path).json(&body).send().await.unwrap()
    }

    async fn prepared(&self, body: Value) -> Gid {
        let answer: Value = self.prepare(self.ann, body).await.json().await.unwrap();
        assert_eq!(answer["success"], true, "{answer}");
        answer["data"]["request_id"].as_str().unwrap().parse().unwrap()
    }

    async fn commit(&self, user: UserId, gid: Gid) -> Response {
        let path = format!("/api/commit_2pc/{user}");
        self.of(user, Method::POST, &path).json(&json!({ "request_id": gid })).send().await.unwrap()
    }

    async fn rollback(&self, user: UserId, gid: Gid) -> Response {
        let path = format!("/api/rollback_2pc/{user}");
        self.of(user, Method::DELETE, &path).json(&json!({ "request_id": gid })).send().await.unwrap()
    }

    /// One sample of `/metrics`, by its name with its labels.
    async fn metric(&self, sample: &str) -> u64 {
        let text = self.ask(Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        line.map_or(0, |value| value.parse().unwrap())
    }

    /// Waits until a sample has this value: the sweep's work is seen there.
    async fn metric_becomes(&self, sample: &str, value: u64) {
        let reached = async {
            while self.metric(sample).await != value {
                tokio::task::yield_now().await;
            }
        };
        let within = Duration::from_secs(60);
        tokio::time::timeout(within, reached).await.unwrap_or_else(|_| panic!("{sample} never became {value}"));
    }

    fn publish(&self) -> Prepare {
        let publish = Publish {
            notification_id: NotificationId::new(&self.clock),
            topic_id: self.topic,
            from_user_id: self.ann,
            from: Email::parse("ann@example.org").unwrap(),
            message: Message::parse("hello").unwrap(),
            to_users: Vec::new(),
            priority: Priority::default(),
        };
        Prepare { gid: Gid::new(&self.clock), publish }
    }

    async fn batch<T: serde::de::DeserializeOwned>(&self, step: &str, body: &impl serde::Serialize) -> T {
        let path = format!("/api/2pc/{step}");
        let answer = self.of_cluster(Method::POST, &path).json(body).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.json().await.unwrap()
    }
}

async fn problem(answer: Response) -> (u16, String) {
    let problem: Problem = answer.json().await.unwrap();
    (problem.status, problem.code)
}

#[tokio::test]
async fn by_hand_prepare_commit_count() {
    let door = Door::open().await;
    assert_eq!(door.counter().await.counter, 0, "a counter that never counted");
    let (first, second) = (door.prepared(json!({})).await, door.prepared(json!({ "topic_id": door.topic })).await);
    let counter = door.counter().await;
    assert_eq!((counter.counter, counter.count_2pc_next, counter.is_2pc_locked), (0, 2, true));
    let answer: Value = door.commit(door.ann, second).await.json().await.unwrap();
    let expected = json!({ "user_id": door.ann, "counter": 1, "count_2pc_next": 2, "is_2pc_locked": true });
    assert_eq!(answer, json!({ "success": true, "data": expected }));
    assert_eq!(door.rollback(door.ann, first).await.status(), 200);
    assert_eq!(
        door.counter().await,
        UserCounter { user_id: door.ann, counter: 1, count_2pc_next: 1, is_2pc_locked: false }
    );
    let of_topic = door.topic_counter().await;
    assert_eq!((of_topic.topic_id, of_topic.counter, of_topic.is_2pc_locked), (door.topic, 1, false));
    door.running.stop().await;
}

#[tokio::test]
async fn by_hand_twice_out_of_order_and_too_late() {
    let door = Door::open().await;
    let gid = door.prepared(json!({})).await;
    for _ in 0..2 {
        assert_eq!(door.commit(door.ann, gid).await.status(), 200);
    }
    assert_eq!(door.counter().await.counter, 1, "counted once");
    assert_eq!(problem(door.rollback(door.ann, gid).await).await, (409, "transaction_committed".into()));

    let gid = door.prepared(json!({})).await;
    for _ in 0..2 {
        assert_eq!(door.rollback(door.ann, gid).await.status(), 200);
    }
    assert_eq!(problem(door.commit(door.ann, gid).await).await, (409, "transaction_aborted".into()));

    let unknown = Gid::new(&door.clock);
    assert_eq!(problem(door.commit(door.ann, unknown).await).await, (404, "transaction_not_found".into()));
    assert_eq!(problem(door.rollback(door.ann, unknown).await).await, (404, "transaction_not_found".into()));

    let gid = door.prepared(json!({})).await;
    door.hand.advance(Duration::from_secs(60));
    assert_eq!(problem(door.commit(door.ann, gid).await).await, (409, "transaction_expired".into()));
    door.running.stop().await;
}

#[tokio::test]
async fn a_request_id_makes_a_prepare_repeatable() {
    let door = Door::open().await;
    let mine = Gid::new(&door.clock);
    for _ in 0..2 {
        assert_eq!(door.prepared(json!({ "request_id": mine })).await, mine);
    }
    let other = door.prepare(door.ann, json!({ "request_id": mine, "topic_id": door.topic })).await;
    assert_eq!(problem(other).await, (422, "request_mismatch".into()));
    let of_bob = door.prepare(door.bob, json!({ "request_id": mine })).await;
    assert_eq!(problem(of_bob).await, (403, "transaction_foreign".into()));
    assert_eq!(door.counter().await.count_2pc_next, 1);
    door.running.stop().await;
}

#[tokio::test]
async fn people_touch_only_their_own_counters() {
    let door = Door::open().await;
    let gid = door.prepared(json!({})).await;
    for (method, path) in [
        (Method::GET, format!("/api/counter/{}", door.ann)),
        (Method::POST, format!("/api/prepare_increment_2pc/{}", door.ann)),
        (Method::DELETE, format!("/api/rollback_2pc/{}?request_id={gid}", door.ann)),
    ] {
        let answer = door.of(door.bob, method, &path).send().await.unwrap();
        assert_eq!(problem(answer).await, (403, "counter_foreign".into()), "{path}");
    }
    let path = format!("/api/commit_2pc/{}", door.ann);
    let answer = door.of(door.bob, Method::POST, &path).json(&json!({ "request_id": gid })).send().await.unwrap();
    assert_eq!(problem(answer).await, (403, "counter_foreign".into()));
    assert_eq!(problem(door.commit(door.bob, gid).await).await, (403, "transaction_foreign".into()));
    let of_bob = door.prepare(door.bob, json!({ "topic_id": door.topic })).await;
    assert_eq!(problem(of_bob).await, (403, "not_creator".into()));
    let nowhere = door.prepare(door.ann, json!({ "topic_id": TopicId::new(&door.clock) })).await;
    assert_eq!(problem(nowhere).await, (404, "topic_not_found".into()));
    let stranger = door.ask(Method::GET, &format!("/api/counter/{}", door.ann)).send().await.unwrap();
    assert_eq!(problem(stranger).await, (401, "credentials_missing".into()));
    let service = door.of_cluster(Method::GET, &format!("/api/counter/{}", door.ann)).send().await.unwrap();
    assert_eq!(service.status(), 200, "a service looks at anybody's");
    door.running.stop().await;
}

#[tokio::test]
async fn the_coordinators_batches_vote_and_count() {
    let door = Door::open().await;
    let items = vec![door.publish(), door.publish(), door.publish()];
    let [a, b, c] = [items[0].gid, items[1].gid, items[2].gid];
    let early: Acks = door.batch("rollback", &json!({ "gids": [c] })).await;
    assert_eq!(early.acks, [Ack::Done { applied: None }], "an empty rollback");
    let votes: Votes = door.batch("prepare", &PrepareBatch { items: items.clone() }).await;
    assert!(matches!(&votes.votes[..], [Vote::Yes, Vote::Yes, Vote::No(no)] if no.status == 409), "{votes:?}");
    let acks: Acks = door.batch("commit", &json!({ "gids": [a, Gid::new(&door.clock), b] })).await;
    let done = Ack::Done { applied: None };
    assert!(
        matches!(&acks.acks[..], [first, Ack::Violation(nothing), last] if *first == done && *last == done && nothing.status == 409),
        "{acks:?}"
    );
    assert_eq!((door.counter().await.counter, door.topic_counter().await.counter), (2, 2));
    let by_hand = problem(door.commit(door.ann, a).await).await;
    assert_eq!(by_hand, (403, "transaction_foreign".into()), "a coordinator's is in nobody's hands");
    door.running.stop().await;
}

#[tokio::test]
async fn batches_are_for_the_cluster_and_bounded() {
    let door = Door::open().await;
    let path = "/api/2pc/commit";
    let stranger = door.ask(Method::POST, path).json(&json!({ "gids": [] })).send().await.unwrap();
    assert_eq!(problem(stranger).await, (401, "credentials_missing".into()));
    let gids: Vec<Gid> = (0..=BATCH_MAX).map(|_| Gid::new(&door.clock)).collect();
    let large = door.of_cluster(Method::POST, path).json(&json!({ "gids": gids })).send().await.unwrap();
    assert_eq!(problem(large).await, (413, "batch_too_large".into()));
    door.running.stop().await;
}

#[tokio::test]
async fn bad_input_gets_its_answer() {
    let door = Door::open().await;
    let prepare = format!("/api/prepare_increment_2pc/{}", door.ann);
    let bare = door.of(door.ann, Method::POST, &prepare).send().await.unwrap();
    assert_eq!(bare.status(), 200, "the body may be left out");
    for body in ["{", "7", r#"{"topic_id": 7}"#, r#"{"unknown": 1}"#] {
        let answer = door.of(door.ann, Method::POST, &prepare).body(body).send().await.unwrap();
        assert_eq!(problem(answer).await, (400, "body_invalid".into()), "{body}");
    }
    let nobody = door.of(door.ann, Method::GET, "/api/counter/ann").send().await.unwrap();
    assert_eq!(problem(nobody).await, (400, "path_invalid".into()));
    let rollback = format!("/api/rollback_2pc/{}", door.ann);
    let which = door.of(door.ann, Method::DELETE, &rollback).send().await.unwrap();
    assert_eq!(problem(which).await, (400, "request_id_missing".into()));
    let odd = door.of(door.ann, Method::DELETE, &format!("{rollback}?request_id=x")).send().await.unwrap();
    assert_eq!(problem(odd).await, (400, "query_invalid".into()));
    door.running.stop().await;
}

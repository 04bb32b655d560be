//! Two-phase commit by hand at the counter: every step in every state, by both spellings of its path.

use std::time::Duration;

use async_trait::async_trait;
use notifyx_commit::testing::by_hand::{self, ByHand, Step, Under, Who};
use notifyx_model::{Gid, ManualClock, UserId};
use notifyx_wire::rest::commit::{Ack, Acks, Prepare, PrepareBatch, Vote, Votes};
use reqwest::{Method, Response};
use serde_json::{Value, json};

use super::Door;
use crate::Config;

const SWEPT: &str = "notifyx_counter_2pc_expired_total";

/// How a path is spelt.
#[derive(Clone, Copy, Debug)]
pub(super) enum Spelling {
    EveryParticipants,
    Counters,
}
use Spelling::{Counters, EveryParticipants};

impl Spelling {
    fn path(self, step: &str, user: UserId) -> String {
        match (self, step) {
            (EveryParticipants, _) => format!("/api/{step}_2pc"),
            (Counters, "prepare") => format!("/api/prepare_increment_2pc/{user}"),
            (Counters, _) => format!("/api/{step}_2pc/{user}"),
        }
    }
}

async fn open(sweep_ms: u64) -> Door {
    Door::open_with(|config| config.sweep_ms = sweep_ms.try_into().unwrap()).await
}

async fn said(answer: Response) -> (u16, Value) {
    (answer.status().as_u16(), answer.json().await.unwrap())
}

impl Door {
    async fn step(&self, how: Spelling, step: &str, user: UserId, body: Value) -> (u16, Value) {
        let method = if step == "rollback" { Method::DELETE } else { Method::POST };
        said(self.of(user, method, &how.path(step, user)).json(&body).send().await.unwrap()).await
    }

    async fn named(&self, how: Spelling, step: &str, user: UserId, id: Gid) -> (u16, Value) {
        self.step(how, step, user, json!({ "request_id": id })).await
    }
}

#[async_trait(?Send)]
impl ByHand for Door {
    type Spelling = Spelling;

    fn new_id(&self) -> Gid {
        Gid::new(&self.clock)
    }

    async fn take(&self, step: Step, how: Spelling, who: Who, id: Gid) -> (u16, Value) {
        let user = match who {
            Who::Ann => self.ann,
            Who::Bob => self.bob,
        };
        match step {
            Step::Prepare => self.named(how, "prepare", user, id).await,
            Step::PrepareAnother => {
                let other = json!({ "request_id": id, "topic_id": self.topic });
                self.step(how, "prepare", user, other).await
            }
            Step::Commit => self.named(how, "commit", user, id).await,
            Step::Rollback => self.named(how, "rollback", user, id).await,
        }
    }

    async fn prepare_as_coordinator(&self, gid: Gid) {
        let items = vec![Prepare { gid, ..self.publish() }];
        let votes: Votes = self.batch("prepare", &PrepareBatch { items }).await;
        assert_eq!(votes.votes, [Vote::Yes]);
    }

    async fn commit_as_coordinator(&self, id: Gid) {
        let acks: Acks = self.batch("commit", &json!({ "gids": [id] })).await;
        assert_eq!(acks.acks, [Ack::Done { applied: None }]);
    }

    fn pass(&self, span: Duration) {
        self.hand.advance(span);
    }

    async fn swept(&self) -> u64 {
        self.metric(SWEPT).await
    }

    async fn swept_becomes(&self, count: u64) {
        self.metric_becomes(SWEPT, count).await;
    }
}

#[tokio::test]
async fn every_step_in_every_state_has_its_answer() {
    // Once at the start, and not again before the test is over; or all the time.
    let (unswept, swept) = (open(3_600_000).await, open(10).await);
    by_hand::check(&unswept, &swept, &[EveryParticipants, Counters]).await;
    // By each spelling: one that was prepared and is committed, four that were committed before, four of the coordinator's.
    assert_eq!((unswept.counter().await.counter, swept.counter().await.counter), (18, 0));
    unswept.running.stop().await;
    swept.running.stop().await;
}

#[tokio::test]
async fn a_prepare_by_hand_lasts_sixty_seconds_and_then_counts_for_nothing() {
    let door = open(10).await;
    let (kept, late) = (door.prepared(json!({})).await, door.prepared(json!({})).await);
    door.hand.advance(Duration::from_micros(59_999_999));
    assert_eq!(door.counter().await.count_2pc_next, 2);
    assert_eq!(door.named(EveryParticipants, "commit", door.ann, kept).await.0, 200, "a microsecond early");
    door.hand.advance(Duration::from_micros(1));
    let (status, refused) = door.named(EveryParticipants, "commit", door.ann, late).await;
    assert_eq!((status, &refused["code"]), (409, &json!("transaction_expired")), "at the moment");
    door.metric_becomes(SWEPT, 1).await;
    let counter = door.counter().await;
    assert_eq!((counter.counter, counter.count_2pc_next, counter.is_2pc_locked), (1, 1, false), "released");
    door.running.stop().await;
}

#[tokio::test]
async fn a_persons_id_is_of_this_time() {
    let door = open(3_600_000).await;
    let (old, ahead) = (Gid::new(&door.clock), ManualClock::new());
    door.hand.advance(Duration::from_secs(601));
    ahead.advance(Duration::from_secs(1_300));
    let random = "8c5a2f10-93f1-4a7e-9d36-0d7ac2b8b7ce".parse().unwrap();
    for id in [old, Gid::new(&ahead.clock()), random] {
        let (status, refused) = door.named(EveryParticipants, "prepare", door.ann, id).await;
        assert_eq!((status, &refused["code"]), (400, &json!("request_id_invalid")), "{id}: {refused}");
        assert_eq!(door.named(EveryParticipants, "commit", door.ann, id).await.0, 404, "nothing was made");
    }
    // Known ids are answered for, however old.
    let known = by_hand::set(&door, EveryParticipants, Under::Committed).await;
    door.hand.advance(Duration::from_secs(3_600));
    assert_eq!(door.named(EveryParticipants, "prepare", door.ann, known).await.0, 200);
    door.running.stop().await;
}

#[tokio::test]
async fn bodies_are_read_whatever_they_are_called() {
    let door = open(3_600_000).await;
    // As `curl -d` does, which calls everything a form.
    let curl = async |method, path: &str, body: &str| {
        let request = door.of(door.ann, method, path).header("content-type", "application/x-www-form-urlencoded");
        said(request.body(body.to_owned()).send().await.unwrap()).await
    };
    for how in [EveryParticipants, Counters] {
        let path = |step| how.path(step, door.ann);
        let body = json!({ "topic_id": door.topic }).to_string();
        let (status, prepared) = curl(Method::POST, &path("prepare"), &body).await;
        assert_eq!(status, 200, "{prepared}");
        assert_eq!(curl(Method::POST, &path("commit"), &prepared["data"].to_string()).await.0, 200);
        assert_eq!(curl(Method::POST, &path("prepare"), "").await.0, 200, "the body may be left out");
        let id = by_hand::set(&door, how, Under::Prepared).await;
        assert_eq!(curl(Method::POST, &format!("{}?request_id={id}", path("commit")), "").await.0, 200);
        let id = by_hand::set(&door, how, Under::Prepared).await;
        assert_eq!(curl(Method::DELETE, &format!("{}?request_id={id}", path("rollback")), "").await.0, 200);
        for (method, step, broken, code) in [
            (Method::POST, "prepare", "{", "body_invalid"),
            (Method::POST, "prepare", "[]", "body_invalid"),
            (Method::POST, "prepare", "topic_id=7", "body_invalid"),
            (Method::POST, "commit", "", "request_id_missing"),
            (Method::POST, "commit", "{}", "body_invalid"),
            (Method::POST, "commit", r#"{"request_id": "x"}"#, "body_invalid"),
            (Method::DELETE, "rollback", "", "request_id_missing"),
            (Method::DELETE, "rollback", r#"["0199aa00-0000-7000-8000-000000000000"]"#, "body_invalid"),
        ] {
            let (status, refused) = curl(method, &path(step), broken).await;
            assert_eq!((status, &refused["code"]), (400, &json!(code)), "{step} {broken}: {refused}");
        }
        let (_, odd) = curl(Method::POST, &format!("{}?request_id=x", path("commit")), "").await;
        assert_eq!(odd["code"], "query_invalid");
    }
    // Without a user there is nobody's hand.
    assert_eq!(said(door.of_cluster(Method::POST, "/api/commit_2pc").send().await.unwrap()).await.0, 401);
    door.running.stop().await;
}

#[tokio::test]
async fn what_a_coordinator_left_prepared_raises_an_alarm_until_it_is_decided() {
    const OVERDUE: &str = "notifyx_counter_2pc_prepared_overdue";
    let door = open(10).await;
    door.prepared(json!({})).await;
    let items = vec![door.publish(), door.publish()];
    let [a, b] = [items[0].gid, items[1].gid];
    let _: Votes = door.batch("prepare", &PrepareBatch { items }).await;
    assert_eq!(door.metric(r#"notifyx_counter_2pc_votes_total{vote="yes"}"#).await, 2);
    let alarm = Duration::from_secs(Config::default().alarm_s.get());
    door.hand.advance(alarm + Duration::from_micros(1));
    door.metric_becomes(OVERDUE, 2).await;
    door.hand.advance(Duration::from_secs(3_600));
    door.metric_becomes(SWEPT, 1).await;
    assert_eq!(door.metric(OVERDUE).await, 2, "by hand it expires, a coordinator's never does");
    let _: Acks = door.batch("commit", &json!({ "gids": [a] })).await;
    assert_eq!(door.counter().await.counter, 1, "however late");
    door.metric_becomes(OVERDUE, 1).await;
    let _: Acks = door.batch("rollback", &json!({ "gids": [b] })).await;
    door.metric_becomes(OVERDUE, 0).await;
    for step in ["commit", "rollback"] {
        let sample = format!(r#"notifyx_counter_2pc_acks_total{{ack="done",step="{step}"}}"#);
        assert_eq!(door.metric(&sample).await, 1, "{sample}");
    }
    door.running.stop().await;
}

#[tokio::test]
async fn the_description_names_every_route() {
    let door = open(3_600_000).await;
    let api: Value = door.ask(Method::GET, "/api/openapi.json").send().await.unwrap().json().await.unwrap();
    let mut paths: Vec<_> = api["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    paths.sort_unstable();
    assert_eq!(
        paths,
        [
            "/api/2pc/commit",
            "/api/2pc/prepare",
            "/api/2pc/rollback",
            "/api/commit_2pc",
            "/api/commit_2pc/{user_id}",
            "/api/counter/topics/{topic_id}",
            "/api/counter/{user_id}",
            "/api/prepare_2pc",
            "/api/prepare_increment_2pc/{user_id}",
            "/api/rollback_2pc",
            "/api/rollback_2pc/{user_id}",
        ]
    );
    door.running.stop().await;
}

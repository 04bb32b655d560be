//! Two-phase commit by hand at the counter: every step in every state, by both spellings of its path.

use std::time::Duration;

use notifyx_model::{Gid, ManualClock, UserId};
use notifyx_wire::rest::commit::{Ack, Acks, PrepareBatch, Vote, Votes};
use reqwest::{Method, Response};
use serde_json::{Value, json};

use super::Door;
use crate::Config;

/// What stands under the id before the step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Under {
    Nothing,
    Prepared,
    Committed,
    RolledBack,
    /// 60 s after the prepare, to the microsecond; the sweep has not come by.
    Late,
    /// The same after the sweep.
    Swept,
    AnotherUsers,
    ACoordinators,
}
use Under::{ACoordinators, AnotherUsers, Committed, Late, Nothing, Prepared, RolledBack, Swept};

type Said = (u16, &'static str);
const OK: Said = (200, "");
const ABORTED: Said = (409, "transaction_aborted");
const COMMITTED: Said = (409, "transaction_committed");
const EXPIRED: Said = (409, "transaction_expired");
const OTHER: Said = (422, "request_mismatch");
const UNKNOWN: Said = (404, "transaction_not_found");
const FOREIGN: Said = (403, "transaction_foreign");

/// The table of `docs/TWO_PHASE_COMMIT.md`: the same prepare, another one under the same id, commit, rollback.
const TABLE: [(Under, [Said; 4]); 8] = [
    (Nothing, [OK, OK, UNKNOWN, UNKNOWN]),
    (Prepared, [OK, OTHER, OK, OK]),
    (Committed, [OK, OTHER, OK, COMMITTED]),
    (RolledBack, [ABORTED, ABORTED, ABORTED, OK]),
    (Late, [EXPIRED, EXPIRED, EXPIRED, OK]),
    (Swept, [EXPIRED, EXPIRED, EXPIRED, OK]),
    (AnotherUsers, [FOREIGN, FOREIGN, FOREIGN, FOREIGN]),
    (ACoordinators, [FOREIGN, FOREIGN, FOREIGN, FOREIGN]),
];

/// How a path is spelt.
#[derive(Clone, Copy, Debug)]
enum Spelling {
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

    /// An id under which this stands.
    async fn set(&self, how: Spelling, under: Under) -> Gid {
        let item = self.publish();
        let id = item.gid;
        let before = self.metric("notifyx_counter_2pc_expired_total").await;
        match under {
            Nothing => {}
            AnotherUsers => assert_eq!(self.named(how, "prepare", self.bob, id).await.0, 200),
            ACoordinators => {
                let votes: Votes = self.batch("prepare", &PrepareBatch { items: vec![item] }).await;
                assert_eq!(votes.votes, [Vote::Yes]);
            }
            Prepared | Committed | RolledBack | Late | Swept => {
                assert_eq!(self.named(how, "prepare", self.ann, id).await.0, 200);
            }
        }
        match under {
            Committed => assert_eq!(self.named(how, "commit", self.ann, id).await.0, 200),
            RolledBack => assert_eq!(self.named(how, "rollback", self.ann, id).await.0, 200),
            Late => self.hand.advance(Duration::from_secs(60)),
            Swept => {
                self.hand.advance(Duration::from_secs(60));
                self.metric_becomes("notifyx_counter_2pc_expired_total", before + 1).await;
            }
            Nothing | Prepared | AnotherUsers | ACoordinators => {}
        }
        id
    }

    /// That what is not the caller's was left as it was: whoever prepared it commits it.
    async fn unharmed(&self, how: Spelling, under: Under, id: Gid) {
        match under {
            AnotherUsers => assert_eq!(self.named(how, "commit", self.bob, id).await.0, 200),
            ACoordinators => {
                let acks: Acks = self.batch("commit", &json!({ "gids": [id] })).await;
                assert_eq!(acks.acks, [Ack::Done { applied: None }]);
            }
            Nothing | Prepared | Committed | RolledBack | Late | Swept => {}
        }
    }

    async fn check(&self, how: Spelling, under: Under, expected: [Said; 4]) {
        for (step, (status, code)) in expected.into_iter().enumerate() {
            let id = self.set(how, under).await;
            // Twice: whatever the answer, it is the answer.
            for _ in 0..2 {
                let (got, body) = match step {
                    0 => self.named(how, "prepare", self.ann, id).await,
                    1 => {
                        let other = json!({ "request_id": id, "topic_id": self.topic });
                        self.step(how, "prepare", self.ann, other).await
                    }
                    2 => self.named(how, "commit", self.ann, id).await,
                    _ => self.named(how, "rollback", self.ann, id).await,
                };
                let told = (got, body["code"].as_str().unwrap_or(""));
                assert_eq!(told, (status, code), "{how:?} {under:?} {step}: {body}");
                if step < 2 && status == 200 {
                    assert_eq!(body["data"]["request_id"], json!(id), "{body}");
                }
            }
            self.unharmed(how, under, id).await;
        }
    }
}

#[tokio::test]
async fn every_step_in_every_state_has_its_answer() {
    // Once at the start, and not again before the test is over; or all the time.
    let (unswept, swept) = (open(3_600_000).await, open(10).await);
    for (under, expected) in TABLE {
        for how in [EveryParticipants, Counters] {
            let door = if under == Swept { &swept } else { &unswept };
            door.check(how, under, expected).await;
        }
    }
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
    door.metric_becomes("notifyx_counter_2pc_expired_total", 1).await;
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
    let known = door.set(EveryParticipants, Committed).await;
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
        let id = door.set(how, Prepared).await;
        assert_eq!(curl(Method::POST, &format!("{}?request_id={id}", path("commit")), "").await.0, 200);
        let id = door.set(how, Prepared).await;
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
    door.metric_becomes("notifyx_counter_2pc_expired_total", 1).await;
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

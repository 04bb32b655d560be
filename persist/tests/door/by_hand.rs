//! Two-phase commit by hand at persist: every step in every state, by both spellings of its path.

use std::time::Duration;

use async_trait::async_trait;
use notifyx_commit::testing::by_hand::{self, ByHand, Step, Under, Who};
use notifyx_model::{Gid, ManualClock, UserId};
use notifyx_persist::Config;
use reqwest::Method;
use serde_json::{Value, json};

use super::harness::{As, Door, Service, User, open, open_with};

const SWEPT: &str = "notifyx_persist_expired_total";

/// How a path is spelt.
#[derive(Clone, Copy, Debug)]
enum Spelling {
    EveryParticipants,
    Persists,
}
use Spelling::{EveryParticipants, Persists};

struct Stage {
    door: Door,
    ann: UserId,
    bob: UserId,
    /// Ann's.
    topic: String,
    /// Bob's.
    other: String,
}

impl Stage {
    async fn new(sweep_ms: u64) -> Self {
        let door = open_with(|config| config.sweep_ms = sweep_ms.try_into().unwrap()).await;
        let (ann, bob) = (door.user(), door.user());
        let (topic, other) = (door.join("anns", ann).await, door.join("bobs", bob).await);
        Self { door, ann, bob, topic, other }
    }

    async fn prepare(&self, how: Spelling, user: UserId, id: Gid, message: &str) -> (u16, Value) {
        let topic = if user == self.ann { &self.topic } else { &self.other };
        let (path, locked) = match how {
            EveryParticipants => ("/api/prepare_2pc", false),
            Persists => ("/api/notifications", true),
        };
        let body = json!({ "topic_id": topic, "message": message, "request_id": id, "is_2pc_locked": locked });
        self.door.post(User(user), path, body).await
    }

    async fn commit(&self, how: Spelling, user: UserId, id: Gid) -> (u16, Value) {
        let path = match how {
            EveryParticipants => "/api/commit_2pc",
            Persists => "/api/notifications/commit_2pc",
        };
        self.door.post(User(user), path, json!({ "request_id": id })).await
    }

    async fn rollback(&self, how: Spelling, user: UserId, id: Gid) -> (u16, Value) {
        let path = match how {
            EveryParticipants => format!("/api/rollback_2pc?request_id={id}"),
            Persists => format!("/api/notifications/rollback_2pc/{id}"),
        };
        self.door.delete(User(user), &path).await
    }
}

#[async_trait(?Send)]
impl ByHand for Stage {
    type Spelling = Spelling;

    fn new_id(&self) -> Gid {
        Gid::new(&self.door.clock)
    }

    async fn take(&self, step: Step, how: Spelling, who: Who, id: Gid) -> (u16, Value) {
        let user = match who {
            Who::Ann => self.ann,
            Who::Bob => self.bob,
        };
        match step {
            Step::Prepare => self.prepare(how, user, id, "held").await,
            Step::PrepareAnother => self.prepare(how, user, id, "another").await,
            Step::Commit => self.commit(how, user, id).await,
            Step::Rollback => self.rollback(how, user, id).await,
        }
    }

    async fn prepare_as_coordinator(&self, id: Gid) {
        let mut item = self.door.item(&self.topic, self.ann, "held", &[]);
        item["gid"] = json!(id);
        let (_, votes) = self.door.post(Service, "/api/2pc/prepare", json!({ "items": [item] })).await;
        assert_eq!(votes, json!({ "votes": ["yes"] }));
    }

    async fn commit_as_coordinator(&self, id: Gid) {
        let acks = self.door.step("commit", &[json!({ "gid": id })]).await;
        assert!(acks[0]["done"]["applied"]["offset"].is_u64(), "{acks}");
    }

    fn pass(&self, span: Duration) {
        self.door.hand.advance(span);
    }

    async fn swept(&self) -> u64 {
        self.door.metric(SWEPT).await
    }

    async fn swept_becomes(&self, count: u64) {
        self.door.metric_becomes(SWEPT, count).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_step_in_every_state_has_its_answer() {
    // Once at the start, and not again before the test is over; or all the time.
    let (unswept, swept) = (Stage::new(3_600_000).await, Stage::new(10).await);
    by_hand::check(&unswept, &swept, &[EveryParticipants, Persists]).await;
    unswept.door.running.stop().await;
    swept.door.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prepare_by_hand_lasts_sixty_seconds() {
    let stage = Stage::new(10).await;
    let (kept, late) = (Gid::new(&stage.door.clock), Gid::new(&stage.door.clock));
    for id in [kept, late] {
        assert_eq!(stage.prepare(EveryParticipants, stage.ann, id, "held").await.0, 200);
    }
    stage.door.hand.advance(Duration::from_micros(59_999_999));
    assert_eq!(stage.commit(EveryParticipants, stage.ann, kept).await.0, 200, "a microsecond early");
    stage.door.hand.advance(Duration::from_micros(1));
    let (status, refused) = stage.commit(EveryParticipants, stage.ann, late).await;
    assert_eq!((status, &refused["code"]), (409, &json!("transaction_expired")), "at the moment");
    // What is committed stays so, and answers with its place.
    stage.door.hand.advance(Duration::from_secs(3_600));
    assert_eq!(stage.commit(Persists, stage.ann, kept).await.1["data"]["offset"], 1);
    stage.door.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_persons_id_is_of_this_time() {
    let stage = Stage::new(3_600_000).await;
    let (old, ahead) = (Gid::new(&stage.door.clock), ManualClock::new());
    stage.door.hand.advance(Duration::from_secs(601));
    ahead.advance(Duration::from_secs(1_300));
    let random = "8c5a2f10-93f1-4a7e-9d36-0d7ac2b8b7ce".parse().unwrap();
    for id in [old, Gid::new(&ahead.clock()), random] {
        let (status, refused) = stage.prepare(EveryParticipants, stage.ann, id, "held").await;
        assert_eq!((status, &refused["code"]), (400, &json!("request_id_invalid")), "{id}: {refused}");
        assert_eq!(stage.commit(EveryParticipants, stage.ann, id).await.0, 404, "nothing was made");
    }
    // Known ids are answered for, however old.
    let known = by_hand::set(&stage, EveryParticipants, Under::Committed).await;
    stage.door.hand.advance(Duration::from_secs(3_600));
    assert_eq!(stage.prepare(EveryParticipants, stage.ann, known, "held").await.0, 200);
    stage.door.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_prepare_is_answered_like_the_first_whatever_has_changed() {
    let stage = Stage::new(3_600_000).await;
    let (door, ann) = (&stage.door, stage.ann);
    let (id, refused) = (Gid::new(&door.clock), Gid::new(&door.clock));
    let targeted = |to: [UserId; 2]| {
        let body = json!({ "topic_id": stage.topic, "message": "m", "to_users": to, "request_id": refused });
        door.post(User(ann), "/api/prepare_2pc", body)
    };
    assert_eq!(targeted([ann, stage.bob]).await.1["code"], "recipient_not_subscribed");
    assert_eq!(door.post(User(stage.bob), &format!("/api/subscribers/{}", stage.topic), Value::Null).await.0, 200);
    assert_eq!(targeted([ann, stage.bob]).await.0, 200, "what was refused left the id free");
    assert_eq!(targeted([stage.bob, ann]).await.0, 200, "the order of recipients means nothing");

    assert_eq!(stage.prepare(EveryParticipants, ann, id, "held").await.0, 200);
    let status = format!("/api/topics/{}/status", stage.topic);
    assert_eq!(door.post(User(ann), &status, json!({ "status": "inactive" })).await.0, 200);
    assert_eq!(stage.prepare(Persists, ann, id, "held").await.0, 200, "it was a yes");
    let (code, new) = stage.prepare(EveryParticipants, ann, Gid::new(&door.clock), "held").await;
    assert_eq!((code, &new["code"]), (409, &json!("topic_inactive")));
    assert_eq!(stage.commit(EveryParticipants, ann, id).await.0, 200, "after a yes nothing fails");
    stage.door.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_prepare_many_times_at_once_is_one() {
    let stage = Stage::new(3_600_000).await;
    let id = Gid::new(&stage.door.clock);
    let prepare = || stage.prepare(EveryParticipants, stage.ann, id, "held");
    let answers = tokio::join!(prepare(), prepare(), prepare(), prepare(), prepare(), prepare());
    for (status, body) in [answers.0, answers.1, answers.2, answers.3, answers.4, answers.5] {
        assert_eq!((status, &body["data"]["request_id"]), (200, &json!(id)), "{body}");
    }
    for _ in 0..2 {
        assert_eq!(stage.commit(EveryParticipants, stage.ann, id).await.1["data"]["offset"], 1);
    }
    stage.door.running.stop().await;
}

/// Sent as `curl -d` does, which calls everything a form.
async fn curl(door: &Door, caller: As, method: Method, path: &str, body: &str) -> (u16, Value) {
    let request = door.request(caller, method, path).header("content-type", "application/x-www-form-urlencoded");
    door.answer(request.body(body.to_owned())).await
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_are_read_whatever_they_are_called() {
    let stage = Stage::new(3_600_000).await;
    let (door, ann) = (&stage.door, User(stage.ann));
    for (prepare, commit) in
        [("/api/prepare_2pc", "/api/commit_2pc"), ("/api/notifications", "/api/notifications/commit_2pc")]
    {
        let body = json!({ "topic_id": stage.topic, "message": "m", "is_2pc_locked": true }).to_string();
        let (status, prepared) = curl(door, ann, Method::POST, prepare, &body).await;
        assert_eq!(status, 200, "{prepared}");
        assert_eq!(curl(door, ann, Method::POST, commit, &prepared["data"].to_string()).await.0, 200);
        for (path, broken, code) in [
            (prepare, "", "body_invalid"),
            (prepare, "{", "body_invalid"),
            (prepare, "[]", "body_invalid"),
            (prepare, "topic_id=7", "body_invalid"),
            (commit, "", "request_id_missing"),
            (commit, "{}", "body_invalid"),
            (commit, r#"{"request_id": "x"}"#, "body_invalid"),
            (commit, r#"["0199aa00-0000-7000-8000-000000000000"]"#, "body_invalid"),
        ] {
            let (status, refused) = curl(door, ann, Method::POST, path, broken).await;
            assert_eq!((status, &refused["code"]), (400, &json!(code)), "{path} {broken}: {refused}");
        }
    }
    let id = by_hand::set(&stage, EveryParticipants, Under::Prepared).await;
    let in_body = json!({ "request_id": id }).to_string();
    for _ in 0..2 {
        assert_eq!(curl(door, ann, Method::DELETE, "/api/rollback_2pc", &in_body).await.0, 200);
    }
    let (status, which) = door.delete(ann, "/api/rollback_2pc").await;
    assert_eq!((status, &which["code"]), (400, &json!("request_id_missing")));
    assert_eq!(door.delete(ann, "/api/rollback_2pc?request_id=x").await.1["code"], "query_invalid");
    assert_eq!(door.delete(ann, "/api/notifications/rollback_2pc/x").await.1["code"], "path_invalid");
    let id = by_hand::set(&stage, EveryParticipants, Under::Prepared).await;
    let in_query = format!("/api/commit_2pc?request_id={id}");
    assert_eq!(door.answer(door.request(ann, Method::POST, &in_query)).await.0, 200);
    // Published at once, an id would be taken for a promise that nobody keeps.
    let at_once = json!({ "topic_id": stage.topic, "message": "m", "request_id": id });
    assert_eq!(door.post(ann, "/api/notifications", at_once).await.1["code"], "request_id_unexpected");
    // Without a user there is nobody's hand.
    assert_eq!(door.post(Service, "/api/commit_2pc", json!({ "request_id": id })).await.0, 401);
    stage.door.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_coordinator_left_prepared_raises_an_alarm_until_it_is_decided() {
    const OVERDUE: &str = "notifyx_persist_prepared_overdue";
    let stage = Stage::new(10).await;
    let door = &stage.door;
    assert_eq!(stage.prepare(EveryParticipants, stage.ann, Gid::new(&door.clock), "held").await.0, 200);
    let items = [door.item(&stage.topic, stage.ann, "a", &[]), door.item(&stage.topic, stage.ann, "b", &[])];
    door.post(Service, "/api/2pc/prepare", json!({ "items": items })).await;
    assert_eq!(door.metric(r#"notifyx_persist_votes_total{vote="yes"}"#).await, 2);
    let alarm = Duration::from_secs(Config::default().alarm_s.get());
    door.hand.advance(alarm + Duration::from_micros(1));
    door.metric_becomes(OVERDUE, 2).await;
    door.hand.advance(Duration::from_secs(3_600));
    door.metric_becomes(SWEPT, 1).await;
    assert_eq!(door.metric(OVERDUE).await, 2, "by hand it expires, a coordinator's never does");
    let done = door.step("commit", &items[..1]).await;
    assert_eq!(done[0]["done"]["applied"]["offset"], 1, "however late");
    door.metric_becomes(OVERDUE, 1).await;
    door.step("rollback", &items[1..]).await;
    door.metric_becomes(OVERDUE, 0).await;
    for (sample, value) in [(r#"{ack="done",step="commit"}"#, 1), (r#"{ack="done",step="rollback"}"#, 1)] {
        assert_eq!(door.metric(&format!("notifyx_persist_acks_total{sample}")).await, value, "{sample}");
    }
    stage.door.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_no_is_told_again_in_its_own_words() {
    let door = open().await;
    let (ann, eve) = (door.user(), door.user());
    let topic = door.join("billing", ann).await;
    let items = json!({ "items": [door.item(&topic, eve, "not hers", &[])] });
    let (_, first) = door.post(Service, "/api/2pc/prepare", items.clone()).await;
    let (_, again) = door.post(Service, "/api/2pc/prepare", items).await;
    let (first, again) = (&first["votes"][0]["no"], &again["votes"][0]["no"]);
    assert_eq!((&first["status"], &again["status"]), (&json!(403), &json!(409)));
    assert_eq!((&again["code"], &again["detail"]), (&first["code"], &first["detail"]));
    door.running.stop().await;
}

//! Two gateways on one coordinator database: what one leaves behind the other brings to its end, and its sockets see it.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};

use crate::harness::{Answer, Form, Options, Person, Platform, Timing, send, unique};

const PROCESSES: [&str; 7] = ["discovery", "auth", "persist-1", "persist-2", "counter-2pc", "gateway-1", "gateway-2"];

/// In this test a publish is decided and cannot be applied, and its publisher is to hear of it soon.
const ANSWER_SOON: (&str, &str) = ("NOTIFYX_GATEWAY__COMMIT__ANSWER_WITHIN_MS", "500");

/// The protocol's bound is 45 s after everything is reachable again; four times that on a machine that runs all tests at once.
const SETTLED_WITHIN: Duration = Duration::from_secs(180);

const RECOVERED: &str = "notifyx_2pc_recovered_total{decision=\"COMMIT\"} ";

/// What the first gateway decides and does not apply.
const LEFT_BEHIND: &str = "left behind";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_gateway_decided_and_did_not_apply_another_applies_and_shows() {
    let options = Options {
        processes: &PROCESSES,
        timing: Timing::ShortLease,
        variables: vec![ANSWER_SOON],
        ..Options::default()
    };
    let mut platform = Platform::start_with(Form::Separate, options).await;
    let [first, second] = [0, 1].map(|at| platform.instances("gateway")[at].to_owned());
    let (ann, bob) = tokio::join!(platform.person("ann"), platform.person("bob"));
    let topic = unique("takeover");
    let topic_id = ann.create_topic(&topic).await;
    let mut live = bob.at(&second).socket().await;
    live.join(&format!("notification:{topic}"), json!({})).await;
    applied(&ann.at(&first), &topic, "as usual").await;
    assert_eq!(live.notification(&topic).await["offset"], 1, "told by nobody, found by its offset");

    // What a commit writes is held, what a prepare reads and writes is not: it is decided, and applied nowhere.
    let held =
        [hold(&platform.database("persist"), "topic").await, hold(&platform.database("counter-2pc"), "counter").await];
    let gid = decided(&ann.at(&first), &topic).await;
    platform.process("gateway-1").kill();
    let ann = ann.at(&second);
    let status = ann.api.get(&format!("/api/2pc/{gid}")).await.expect(200);
    assert_eq!((&status["state"], &status["applied"]), (&json!("committed"), &json!(0)), "{status}");
    // What the first gateway had sent them is not to be done after its death.
    for participant in ["persist-1", "persist-2", "counter-2pc"] {
        platform.process(participant).kill();
        platform.start_process(participant).await;
    }
    drop(held);

    let deadline = Instant::now() + SETTLED_WITHIN;
    loop {
        let status = ann.api.get(&format!("/api/2pc/{gid}")).await;
        if status.status == 200 && status.json()["closed_at"].is_string() {
            assert_eq!(status.json()["state"], "committed", "{}", status.text);
            break;
        }
        assert!(Instant::now() < deadline, "not applied: {} {}", status.status, status.text);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Nothing is published after it: nothing but the look at the heads can tell of it.
    let seen = live.notification(&topic).await;
    assert_eq!((&seen["offset"], &seen["id"], &seen["message"]), (&json!(2), &json!(gid), &json!(LEFT_BEHIND)));
    let metrics = ann.api.get("/metrics").await.text;
    let recovered = metrics.lines().find_map(|line| line.strip_prefix(RECOVERED)).unwrap();
    assert_ne!(recovered, "0", "it was the second gateway that applied it");
    let again = applied(&ann, &topic, LEFT_BEHIND).await;
    assert_eq!((&again["gid"], &again["offset"]), (&json!(gid), &json!(2)), "the key answers for what it committed");
    assert_eq!((ann.counter().await, ann.topic_counter(&topic_id).await), (2, 2));
}

/// Keeps others from writing a table, as long as the connection is open.
async fn hold(database: &str, table: &str) -> PgConnection {
    let mut connection = PgConnection::connect(database).await.unwrap();
    let lock = format!("BEGIN; LOCK TABLE {table} IN EXCLUSIVE MODE");
    sqlx::raw_sql(&lock).execute(&mut connection).await.unwrap();
    connection
}

/// Publishes until it is decided; on a busy machine the short deadline may pass first. Its gid.
async fn decided(ann: &Person, topic: &str) -> String {
    let deadline = Instant::now() + SETTLED_WITHIN;
    loop {
        let answer = publish(ann, topic, LEFT_BEHIND).await;
        if answer.status == 202 {
            let answer: Value = answer.json();
            let gid = answer["gid"].as_str().unwrap().to_owned();
            if ann.api.get(&format!("/api/2pc/{gid}")).await.expect(200)["state"] == "committed" {
                return gid;
            }
        }
        assert!(matches!(answer.status, 202 | 503) && Instant::now() < deadline, "{} {}", answer.status, answer.text);
    }
}

/// Publishes until it is applied; on a busy machine that takes longer than an answer may.
async fn applied(ann: &Person, topic: &str, message: &str) -> Value {
    let deadline = Instant::now() + SETTLED_WITHIN;
    loop {
        let answer = publish(ann, topic, message).await;
        if answer.status == 201 {
            return answer.json();
        }
        assert!(matches!(answer.status, 202 | 503) && Instant::now() < deadline, "{} {}", answer.status, answer.text);
    }
}

/// Under the message as its key, so that it may be repeated.
async fn publish(ann: &Person, topic: &str, message: &str) -> Answer {
    let body = json!({ "topic": topic, "message": message });
    let request = ann.api.request(Method::POST, "/api/notifications").header("Idempotency-Key", message);
    send(request.json(&body)).await
}

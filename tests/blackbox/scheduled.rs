//! Scheduled notifications: given now, published at their time, once, whatever happens in between.

use std::time::{Duration, Instant};

use notifyx_model::Clock;
use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{
    Answer, Form, Options, Person, Platform, Socket, Terminal, Timing, at_once, figure, fixed_port, in_both_forms,
    send, unique,
};

in_both_forms!(
    it_comes_at_its_time_and_once,
    it_is_listed_moved_and_cancelled_before,
    a_final_no_at_its_time_is_told,
    many_at_one_instant_come_once_each,
    a_channel_takes_it_too,
    bad_requests_are_told_what_is_wrong,
    it_is_given_at_a_terminal,
);

/// Longer than the slowest machine takes from the time to the outcome, a lease included.
const DONE_WITHIN: Duration = Duration::from_secs(90);

const DOOR: &str = "/api/notifications/scheduled";

fn now_us() -> i64 {
    Clock::system().now().as_micros()
}

/// In milliseconds since 1970.
fn in_ms(ms: i64) -> i64 {
    now_us() / 1_000 + ms
}

async fn post(by: &Person, key: Option<&str>, body: &Value) -> Answer {
    let request = by.api.request(Method::POST, "/api/notifications").json(body);
    send(match key {
        Some(key) => request.header("Idempotency-Key", key),
        None => request,
    })
    .await
}

/// Schedules a message to a topic; its id.
async fn schedule(by: &Person, topic: &str, message: &str, fire_at_ms: i64) -> String {
    let answer = post(by, None, &json!({ "topic": topic, "message": message, "fire_at": fire_at_ms })).await;
    answer.expect(202)["id"].as_str().unwrap().to_owned()
}

async fn patch(by: &Person, id: &str, body: &Value) -> Answer {
    send(by.api.request(Method::PATCH, &format!("{DOOR}/{id}")).json(body)).await
}

/// What became of it, once something has.
async fn outcome(by: &Person, id: &str) -> Value {
    once(by, id, &["published", "refused"]).await
}

/// As it is shown, once it stands so.
async fn once(by: &Person, id: &str, statuses: &[&str]) -> Value {
    let deadline = Instant::now() + DONE_WITHIN;
    loop {
        let shown = by.api.get(&format!("{DOOR}/{id}")).await.expect(200);
        if shown["status"].as_str().is_some_and(|status| statuses.contains(&status)) {
            return shown;
        }
        assert!(Instant::now() < deadline, "{shown} after {DONE_WITHIN:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Ann's topic, and Bob's socket that has joined it.
async fn people(platform: &Platform) -> (Person, Person, String, Socket) {
    let (ann, bob) = tokio::join!(platform.person("ann"), platform.person("bob"));
    let topic = unique("later");
    ann.create_topic(&topic).await;
    let mut live = bob.socket().await;
    live.join(&format!("notification:{topic}"), json!({})).await;
    (ann, bob, topic, live)
}

/// What came, and that nothing else did: a publish of now comes behind it.
async fn came(live: &mut Socket, by: &Person, topic: &str, expected: &[&str]) {
    let offset = by.publish(topic, "now").await["offset"].as_u64().unwrap();
    assert_eq!(offset, expected.len() as u64 + 1);
    let seen = live.notifications(topic, expected.len() + 1).await;
    let expected: Vec<_> = (1..).zip(expected.iter().copied().chain(["now"]).map(str::to_owned)).collect();
    assert_eq!(seen, expected);
}

async fn it_comes_at_its_time_and_once(platform: &Platform) {
    let (ann, bob, topic, mut live) = people(platform).await;
    // Far enough that a slow machine has asked all that follows before.
    let fire_at = in_ms(10_000);
    let body = json!({ "topic": topic, "message": "later", "to": [bob.email], "priority": 7, "fire_at": fire_at });
    let answer = post(&ann, Some("k"), &body).await;
    let given = answer.expect(202);
    let id = given["id"].as_str().unwrap();
    assert_eq!(answer.headers["location"], format!("{DOOR}/{id}"));
    for (field, value) in
        [("topic", json!(topic)), ("message", json!("later")), ("to", json!([bob.email])), ("key", json!("k"))]
    {
        assert_eq!(given[field], value, "{given}");
    }
    assert_eq!((&given["status"], &given["success"]), (&json!("scheduled"), &json!(true)));
    // The same request is the same scheduled notification, another one is refused.
    assert_eq!(post(&ann, Some("k"), &body).await.expect(202)["id"], id);
    for (field, value) in [("message", json!("other")), ("fire_at", json!(fire_at + 1))] {
        let mut other = body.clone();
        other[field] = value;
        assert_eq!(post(&ann, Some("k"), &other).await.refused(422), "idempotency_key_reused");
    }

    let pushed = live.notification(&topic).await;
    assert!(now_us() >= fire_at * 1_000, "not before its time");
    assert_eq!((&pushed["message"], &pushed["offset"], &pushed["to"]), (&json!("later"), &json!(1), &json!([bob.id])));
    let done = outcome(&ann, id).await;
    assert_eq!((&done["status"], &done["notification_id"]), (&json!("published"), &pushed["id"]));
    let status = ann.api.get(&format!("/api/2pc/{}", done["gid"].as_str().unwrap())).await.expect(200);
    assert_eq!(status["state"], "committed");

    // Repeated afterwards, it is the same; and so is a publish of now under its key.
    assert_eq!(post(&ann, Some("k"), &body).await.expect(202)["status"], "published");
    let mut now = body.clone();
    now.as_object_mut().unwrap().remove("fire_at");
    assert_eq!(post(&ann, Some("k"), &now).await.expect(201)["id"], pushed["id"]);
    assert_eq!(ann.api.delete(&format!("{DOOR}/{id}")).await.refused(409), "scheduled_fired");
    assert_eq!(patch(&ann, id, &json!({ "fire_at": in_ms(9_000) })).await.refused(409), "scheduled_fired");
    let next = ann.publish(&topic, "next").await;
    assert_eq!(next["offset"], 2, "it was published once");
    assert_eq!(ann.counter().await, 2);
}

async fn it_is_listed_moved_and_cancelled_before(platform: &Platform) {
    let (ann, bob, topic, mut live) = people(platform).await;
    let hour = in_ms(3_600_000);
    let first = schedule(&ann, &topic, "first", hour).await;
    let second = schedule(&ann, &topic, "second", hour + 1).await;
    let third = schedule(&ann, &topic, "third", hour + 2).await;
    // A time that has passed is due at once.
    let due = schedule(&ann, &topic, "due", in_ms(-60_000)).await;
    outcome(&ann, &due).await;

    let page = ann.api.get(&format!("{DOOR}?limit=2")).await.expect(200);
    let ids = |page: &Value| {
        let all = page["notifications"].as_array().unwrap().iter();
        all.map(|one| one["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(ids(&page), [first.as_str(), second.as_str()], "soonest first");
    let next = page["next"].as_str().unwrap();
    let page = ann.api.get(&format!("{DOOR}?limit=2&after={next}")).await.expect(200);
    assert_eq!((ids(&page), &page["next"]), (vec![third.clone()], &Value::Null));
    assert_eq!(ids(&bob.api.get(DOOR).await.expect(200)), Vec::<String>::new());
    for answer in [
        bob.api.get(&format!("{DOOR}/{first}")).await,
        bob.api.delete(&format!("{DOOR}/{first}")).await,
        patch(&bob, &first, &json!({ "fire_at": hour })).await,
        ann.api.get(&format!("{DOOR}/nothing")).await,
    ] {
        assert_eq!(answer.refused(404), "scheduled_not_found", "another's is not found");
    }

    assert_eq!(ann.api.delete(&format!("{DOOR}/{second}")).await.expect(200)["message"], "second");
    assert_eq!(ann.api.delete(&format!("{DOOR}/{second}")).await.refused(404), "scheduled_not_found");
    let moved = patch(&ann, &third, &json!({ "fire_at": in_ms(200) })).await.expect(200);
    assert_eq!((&moved["id"], &moved["message"]), (&json!(third), &json!("third")));
    outcome(&ann, &third).await;
    assert_eq!(ids(&ann.api.get(DOOR).await.expect(200)), [first.as_str()]);
    came(&mut live, &ann, &topic, &["due", "third"]).await;
    ann.api.delete(&format!("{DOOR}/{first}")).await.expect(200);
}

async fn a_final_no_at_its_time_is_told(platform: &Platform) {
    let (ann, _, topic, mut live) = people(platform).await;
    let stranger = platform.person("stranger").await;
    let to_stranger =
        json!({ "topic": topic, "message": "to nobody here", "to": [stranger.id], "fire_at": in_ms(300) });
    let refused = post(&ann, None, &to_stranger).await.expect(202)["id"].as_str().unwrap().to_owned();
    let good = schedule(&ann, &topic, "good", in_ms(400)).await;
    let told = outcome(&ann, &refused).await;
    assert_eq!(told["status"], "refused", "{told}");
    assert!(told["reason"].as_str().is_some_and(|reason| !reason.is_empty()) && told["code"].is_string(), "{told}");
    assert_eq!(outcome(&ann, &good).await["status"], "published", "others are not held up");
    came(&mut live, &ann, &topic, &["good"]).await;
}

async fn many_at_one_instant_come_once_each(platform: &Platform) {
    const MANY: usize = 200;
    let (ann, _, topic, mut live) = people(platform).await;
    let soon = in_ms(3_000);
    let messages: Vec<_> = (0..MANY).map(|n| n.to_string()).collect();
    at_once(MANY, |n| schedule(&ann, &topic, &messages[n], soon)).await;
    each_once(&live.notifications(&topic, MANY).await);
    assert_eq!(ann.publish(&topic, "now").await["offset"], MANY + 1);
}

async fn a_channel_takes_it_too(platform: &Platform) {
    let (ann, _, topic, mut live) = people(platform).await;
    let channel = format!("notification:{topic}");
    let mut socket = ann.socket().await;
    socket.join(&channel, json!({})).await;
    let later = json!({ "message": "later", "fire_at": in_ms(300), "key": "k" });
    let reply = socket.push(&channel, "new_notification", later.clone()).await.unwrap();
    assert_eq!((&reply["success"], &reply["message"]), (&json!(true), &json!("scheduled")), "{reply}");
    let id = reply["scheduled_id"].as_str().unwrap().to_owned();
    assert_eq!(socket.push(&channel, "new_notification", later).await.unwrap()["scheduled_id"], id);
    let bad = json!({ "message": "never", "fire_at": "9999-01-01T00:00:00Z" });
    assert_eq!(socket.push(&channel, "new_notification", bad).await.unwrap_err()["reason"], "invalid");
    outcome(&ann, &id).await;
    came(&mut live, &ann, &topic, &["later"]).await;
}

async fn bad_requests_are_told_what_is_wrong(platform: &Platform) {
    let (ann, bob, topic, _live) = people(platform).await;
    let with = |field: &str, value: Value| {
        let mut body = json!({ "topic": topic, "message": "m", "fire_at": in_ms(3_600_000) });
        body[field] = value;
        body
    };
    let recipients = vec![format!("{}@example.org", "r".repeat(60)); 1_000];
    for (body, status, code) in [
        (with("fire_at", json!("9999-01-01T00:00:00Z")), 400, "invalid"),
        (with("fire_at", json!(-1)), 400, "invalid"),
        (with("fire_at", json!("tomorrow")), 400, "invalid"),
        (with("fire_at", json!([])), 400, "body_invalid"),
        (with("topic", json!(unique("nowhere"))), 404, "topic_not_found"),
        (with("to", json!(["nobody@nowhere.example"])), 409, "recipient_unknown"),
        (with("to", json!(recipients)), 409, "recipient_unknown"),
        (with("message", json!("\u{1}".repeat(60_000))), 413, "scheduled_too_large"),
    ] {
        assert_eq!(post(&ann, None, &body).await.refused(status), code, "{code}");
    }
    assert_eq!(post(&bob, None, &with("priority", json!(1))).await.refused(403), "not_creator");
    let anonymous = platform.anonymous();
    assert_eq!(anonymous.get(DOOR).await.status, 401);
    let id = schedule(&ann, &topic, "m", in_ms(3_600_000)).await;
    assert_eq!(patch(&ann, &id, &json!({ "fire_at": "soon" })).await.refused(400), "invalid");
    assert_eq!(ann.api.get(&format!("{DOOR}?limit=501")).await.refused(400), "limit_invalid");
    assert_eq!(ann.api.get(&format!("{DOOR}?after=x")).await.refused(400), "cursor_invalid");
    ann.api.delete(&format!("{DOOR}/{id}")).await.expect(200);
    assert_eq!(ann.api.get(DOOR).await.expect(200)["notifications"], json!([]), "nothing of it was kept");
}

async fn it_is_given_at_a_terminal(platform: &Platform) {
    let ann = Terminal::new(platform.gateway());
    ann.log_in(&format!("{}@example.org", unique("ann"))).await;
    let topic = unique("at-a-terminal");
    ann.run(&["topics", "create", &topic]).await.expect(0);
    let nothing = ann.run(&["scheduled", "ls"]).await;
    assert!(nothing.code == 0 && nothing.out.is_empty() && nothing.err.contains("notifyx publish"), "{}", nothing.err);
    let publish = ["publish", &topic, "later", "--json"];
    let later = ann.run(&[&publish[..], &["--in", "2h"]].concat()).await.records(0);
    let id = later[0]["id"].as_str().unwrap();
    assert_eq!(later[0]["status"], "scheduled");
    let tomorrow = ann.run(&[&publish[..], &["--at", "tomorrow 9:00"]].concat()).await.records(0);
    let listed = ann.run(&["scheduled", "ls", "--json"]).await.records(0);
    assert_eq!(listed.len(), 2);
    assert!(listed.iter().any(|one| one["id"] == tomorrow[0]["id"]));
    let table = ann.run(&["scheduled", "ls"]).await;
    assert!(table.out.contains(id) && table.out.contains(&topic), "{}", table.out);
    let moved = ann.run(&["scheduled", "move", id, "--at", "2035-01-01 12:00 UTC", "--json"]).await.records(0);
    assert_eq!((&moved[0]["id"], &moved[0]["fire_at"]), (&json!(id), &json!("2035-01-01T12:00:00Z")));
    let shown = ann.run(&["scheduled", "move", id, "--in", "3h"]).await;
    assert!(shown.code == 0 && shown.out.contains(id) && shown.out.contains("scheduled"), "{}{}", shown.out, shown.err);
    ann.run(&["scheduled", "move", id]).await.expect(2);
    ann.run(&["scheduled", "move", "nothing", "--in", "1h"]).await.expect(1);
    ann.run(&["scheduled", "cancel", id, tomorrow[0]["id"].as_str().unwrap()]).await.expect(0);
    ann.run(&["scheduled", "cancel", id]).await.expect(1);
    assert_eq!(ann.run(&["scheduled", "ls", "--json"]).await.records(0).len(), 0);
    let soon = ann.run(&[&publish[..], &["--in", "100ms"]].concat()).await.records(0);
    let soon = soon[0]["id"].as_str().unwrap();
    let deadline = Instant::now() + DONE_WITHIN;
    while ann.run(&["scheduled", "show", soon, "--json"]).await.records(0)[0]["status"] != "published" {
        assert!(Instant::now() < deadline, "it is not published");
    }
    let late = ann.run(&["scheduled", "move", soon, "--in", "1h"]).await;
    assert!(late.code == 1 && late.err.contains("has come"), "{}", late.err);
    for bad in [["--in", "soon"], ["--in", "-5m"], ["--at", "someday"]] {
        ann.run(&[&publish[..], &bad].concat()).await.expect(2);
    }
    ann.run(&[&publish[..], &["--in", "5m", "--at", "9:00"]].concat()).await.expect(2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_and_what_is_due_survives_a_kill() {
    let options = Options { port: fixed_port(), timing: Timing::ShortLease, ..Options::default() };
    let mut platform = Platform::start_with(Form::Up, options).await;
    let (ann, bob, topic, live) = people(&platform).await;
    let soon = in_ms(1_000);
    let ids = [schedule(&ann, &topic, "overdue", soon).await, schedule(&ann, &topic, "later", in_ms(6_000)).await];
    platform.process("up").kill();
    drop(live);
    while now_us() < soon * 1_000 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    platform.start_process("up").await;
    platform.ready().await;
    let mut live = bob.socket().await;
    live.join(&format!("notification:{topic}"), json!({ "last_offset": 0 })).await;
    for id in &ids {
        assert_eq!(outcome(&ann, id).await["status"], "published");
    }
    // What was published, and written down as such, is not published again.
    platform.process("up").kill();
    platform.start_process("up").await;
    platform.ready().await;
    let mut live = bob.socket().await;
    live.join(&format!("notification:{topic}"), json!({ "last_offset": 0 })).await;
    outcome(&ann, &schedule(&ann, &topic, "last", in_ms(0)).await).await;
    came(&mut live, &ann, &topic, &["overdue", "later", "last"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kills_while_they_fire_lose_none_and_double_none() {
    const MANY: usize = 150;
    let options = Options { port: fixed_port(), timing: Timing::ShortLease, ..Options::default() };
    let mut platform = Platform::start_with(Form::Up, options).await;
    let (ann, bob, topic, live) = people(&platform).await;
    drop(live);
    let first = in_ms(4_000);
    let given = at_once(MANY, |n| {
        let (ann, topic) = (&ann, &topic);
        async move { schedule(ann, topic, &n.to_string(), first + 20 * i64::try_from(n).unwrap()).await }
    });
    let ids = given.await;
    for done in [MANY / 5, MANY / 2] {
        // Killed in the middle of it, and started again.
        outcome(&ann, &ids[done]).await;
        platform.process("up").kill();
        platform.start_process("up").await;
        platform.ready().await;
    }
    for id in &ids {
        assert_eq!(outcome(&ann, id).await["status"], "published");
    }
    let mut live = bob.socket().await;
    live.join(&format!("notification:{topic}"), json!({ "last_offset": 0 })).await;
    each_once(&live.notifications(&topic, MANY).await);
    assert_eq!(ann.publish(&topic, "now").await["offset"], MANY + 1);
}

/// Messages are numbers from 0 on, in any order; offsets follow each other.
fn each_once(seen: &[(u64, String)]) {
    assert!(seen.iter().map(|(offset, _)| *offset).eq(1..=seen.len() as u64), "{seen:?}");
    let mut numbers: Vec<usize> = seen.iter().map(|(_, message)| message.parse().unwrap()).collect();
    numbers.sort_unstable();
    assert!(numbers.into_iter().eq(0..seen.len()), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_counter_that_is_down_delays_it_and_no_more() {
    let mut platform = Platform::start(Form::Separate).await;
    let (ann, _bob, topic, mut live) = people(&platform).await;
    let counted = ann.counter().await;
    outcome(&ann, &schedule(&ann, &topic, "as usual", in_ms(0)).await).await;
    platform.process("counter-2pc").kill();
    let first = schedule(&ann, &topic, "first", in_ms(200)).await;
    let second = schedule(&ann, &topic, "second", in_ms(300)).await;
    let deadline = Instant::now() + DONE_WITHIN;
    while retries(&ann).await < 2 {
        assert!(Instant::now() < deadline, "it is not tried");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for id in [&first, &second] {
        once(&ann, id, &["queued"]).await;
        assert_eq!(ann.api.delete(&format!("{DOOR}/{id}")).await.refused(409), "scheduled_fired");
    }
    platform.start_process("counter-2pc").await;
    for id in [&first, &second] {
        assert_eq!(outcome(&ann, id).await["status"], "published");
    }
    came(&mut live, &ann, &topic, &["as usual", "first", "second"]).await;
    assert_eq!(ann.counter().await - counted, 4);
}

async fn retries(by: &Person) -> u64 {
    figure(&by.api.address, "notifyx_gateway_scheduled_retries_total").await.unwrap_or(0)
}

/// Discovery first.
const TWO_GATEWAYS: [&str; 7] = ["discovery", "auth", "persist-1", "counter-2pc", "events", "gateway-1", "gateway-2"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_that_is_lost_hands_it_to_another() {
    let options = Options { processes: &TWO_GATEWAYS, timing: Timing::ShortLease, ..Options::default() };
    let mut platform = Platform::start_with(Form::Separate, options).await;
    let [first, second] = [0, 1].map(|at| platform.instances("gateway")[at].to_owned());
    let (ann, _bob, topic, _live) = people(&platform).await;
    let at = [ann.at(&first), ann.at(&second)];
    outcome(&at[0], &schedule(&at[0], &topic, "as usual", in_ms(0)).await).await;
    // The one that publishes is killed.
    let holds = figure(&second, "notifyx_gateway_scheduled_lease_held").await == Some(1);
    let (holder, ann) = if holds { ("gateway-2", &at[0]) } else { ("gateway-1", &at[1]) };
    let due = schedule(ann, &topic, "due", in_ms(300)).await;
    platform.process(holder).kill();
    assert_eq!(outcome(ann, &due).await["status"], "published");
    let next = ann.publish(&topic, "next").await;
    assert_eq!(next["offset"], 3, "each once");
}

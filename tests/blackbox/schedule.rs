//! The schedule as its users rely on it: on time, in order, each once, whatever is killed meanwhile.

use std::{
    collections::HashSet,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Api, Form, Listener, Options, Person, Platform, Way, figure, send, unique};

/// How long the generator of the first scenario goes on: one event each [`TICK`].
const EVENTS: usize = 600;
const TICK: Duration = Duration::from_millis(100);

/// By how much an event may be late on a machine that runs all tests at once; punctuality is measured in `bench/`.
const LATE_MAX: Duration = Duration::from_secs(30);

/// Events of one request.
const BATCH: usize = 1_000;

/// The wall clock, in microseconds.
#[expect(clippy::disallowed_methods, reason = "a client has no clock but the machine's")]
fn now_us() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    i64::try_from(now.as_micros()).expect("before the year 294,000")
}

/// What a time in an answer says, in microseconds.
fn micros(time: &Value) -> i64 {
    let text = time.as_str().unwrap_or_else(|| panic!("no time: {time}"));
    text.parse::<jiff::Timestamp>().unwrap_or_else(|error| panic!("{error}: {text}")).as_microsecond()
}

fn offset(event: &Value) -> u64 {
    event["offset"].as_u64().unwrap_or_else(|| panic!("it has not fired: {event}"))
}

fn number(event: &Value) -> usize {
    usize::try_from(event["data"]["n"].as_u64().unwrap_or_else(|| panic!("not one of these: {event}"))).expect("small")
}

/// Posts `count` events of one category, numbered from `first`, all at once or each at its time.
async fn post(api: &Api, category: &str, numbers: std::ops::Range<usize>, fire_at_us: impl Fn(usize) -> i64) {
    let numbers: Vec<usize> = numbers.collect();
    for batch in numbers.chunks(BATCH) {
        let events: Vec<Value> = batch
            .iter()
            .map(|n| json!({ "category": category, "id": format!("e{n}"), "fireAt": fire_at_us(*n), "data": { "n": n } }))
            .collect();
        let stored = api.post("/events", json!(events)).await.expect(201);
        assert_eq!(stored.as_array().map(Vec::len), Some(batch.len()));
    }
}

/// The whole log of a category.
async fn log(api: &Api, category: &str) -> Vec<Value> {
    let mut all: Vec<Value> = Vec::new();
    loop {
        let after = all.last().map_or(0, offset);
        let page = api.get(&format!("/events?category={category}&after={after}&limit=1000")).await.expect(200);
        let page = page["events"].as_array().expect("a list").clone();
        if page.is_empty() {
            return all;
        }
        all.extend(page);
    }
}

/// Waits until so many have fired; its log then, in which each number is once and each offset follows the one before.
async fn fired(api: &Api, category: &str, count: usize) -> Vec<Value> {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(300);
    loop {
        let page = api.get(&format!("/events?category={category}&after={}&limit=1", count - 1)).await.expect(200);
        if page["events"].as_array().is_some_and(|events| !events.is_empty()) {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "{count} events of `{category}` have not fired: {page}");
        // A pause between questions, not a wait for something known to take this long.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let log = log(api, category).await;
    assert_eq!(log.iter().map(offset).collect::<Vec<_>>(), (1..=count as u64).collect::<Vec<_>>());
    let numbers: HashSet<usize> = log.iter().map(number).collect();
    assert_eq!(numbers, (0..count).collect::<HashSet<_>>(), "each once");
    for event in &log {
        assert!(micros(&event["firedAt"]) >= micros(&event["fireAt"]), "early: {event}");
    }
    log
}

async fn listener(way: Way, person: &Person, category: &str, from: Option<u64>) -> Listener {
    let opened = Listener::open(way, &person.api.address, Some(&person.token), category, from).await;
    opened.unwrap_or_else(|status| panic!("{way:?} was refused with {status}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everybody_receives_each_event_once_in_order_and_on_time_for_a_minute() {
    let platform = Platform::shared(Form::Up).await;
    let ann = platform.person("ann").await;
    let category = unique("ticks");
    let mut tasks = Vec::new();
    for way in [Way::Plain, Way::Plain, Way::Sse, Way::Channel] {
        let mut listener = listener(way, &ann, &category, None).await;
        tasks.push(tokio::spawn(async move {
            let mut late = Duration::ZERO;
            for n in 0..EVENTS {
                let event = listener.event().await;
                assert_eq!((number(&event), offset(&event)), (n, n as u64 + 1), "{way:?}: {event}");
                if way != Way::Channel {
                    assert_eq!(event["count"], json!(n + 1), "{way:?}");
                }
                let arrived = now_us() - micros(&event["fireAt"]);
                assert!(arrived >= 0, "{way:?}: early by {arrived} µs");
                late = late.max(Duration::from_micros(arrived.unsigned_abs()));
            }
            (way, late)
        }));
    }
    let mut tick = tokio::time::interval(TICK);
    for n in 0..EVENTS {
        tick.tick().await;
        let in_a_second = now_us() / 1_000 + 1_000;
        let event = json!({ "category": category, "fireAt": in_a_second, "data": { "n": n } });
        let stored = ann.api.post("/events", event).await.expect(201);
        assert_eq!(micros(&stored["fireAt"]), in_a_second * 1_000, "milliseconds are told by their magnitude");
    }
    for task in tasks {
        let (way, late) = task.await.unwrap();
        assert!(late < LATE_MAX, "{way:?}: {late:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_kill_all_that_waited_fires_once() {
    const COUNT: usize = 50_000;
    let mut platform = Platform::start(Form::Up).await;
    let ann = platform.person("ann").await;
    // A fifth becomes due while nobody is there to fire it, the rest after the restart. A machine that has not stored them all by
    // then is given longer.
    let mut seconds = 12;
    let (category, overdue) = loop {
        let (category, overdue) = (unique("backup"), now_us() + seconds * 1_000_000);
        let later = |n: usize| 1_000_000 * if n.is_multiple_of(5) { 0 } else { 18 + n as i64 % 10 };
        post(&ann.api, &category, 0..COUNT, |n| overdue + later(n)).await;
        platform.process("up").kill();
        if now_us() < overdue {
            break (category, overdue);
        }
        assert!(seconds < 1_000, "{COUNT} events are not stored within {seconds} s");
        seconds *= 4;
        platform.start_process("up").await;
        platform.ready().await;
    };
    while now_us() < overdue {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    platform.start_process("up").await;
    platform.ready().await;
    let ann = ann.at(platform.gateway());
    let log = fired(&ann.api, &category, COUNT).await;
    assert!(log[..COUNT / 5].iter().all(|event| number(event).is_multiple_of(5)), "what was overdue came first");
    // Whoever was away gets what it lacks.
    let mut listener = listener(Way::Plain, &ann, &category, Some(COUNT as u64 - 500)).await;
    let missed = listener.events(500).await;
    assert_eq!(
        missed.iter().map(offset).collect::<Vec<_>>(),
        log[COUNT - 500..].iter().map(offset).collect::<Vec<_>>()
    );
}

/// The second instance waits for the lease of the first; the usual one would only make the test longer.
const TWO: &[&str] = &["discovery", "auth", "persist-1", "counter-2pc", "events-1", "events-2", "gateway"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_instance_fires_what_the_killed_one_held() {
    const COUNT: usize = 2_000;
    let lease = vec![("NOTIFYX_EVENTS__LEASE_MS", "2000")];
    let options = Options { processes: TWO, variables: lease, ..Options::default() };
    let mut platform = Platform::start_with(Form::Separate, options).await;
    let ann = platform.person("ann").await;
    let category = unique("leased");
    let mut tasks = Vec::new();
    for way in [Way::Plain, Way::Sse, Way::Channel] {
        let mut listener = listener(way, &ann, &category, None).await;
        tasks.push(tokio::spawn(async move { (way, listener.events(COUNT + 20).await) }));
    }

    // Posted to either instance, due in 200 ms: on time whoever has the lease.
    for n in 0..20 {
        let due = now_us() + 200_000;
        let event = json!({ "category": category, "fireAt": due, "data": { "n": n } });
        ann.api.post("/events", event).await.expect(201);
        let log = fired(&ann.api, &category, n + 1).await;
        let late = Duration::from_micros((micros(&log[n]["firedAt"]) - due).unsigned_abs());
        assert!(late < LATE_MAX, "{late:?}");
    }
    let begin = now_us();
    post(&ann.api, &category, 20..COUNT + 20, |n| begin + 5_000_000 + n as i64 * 1_000).await;
    let driver = drives(&platform).await;
    platform.process(&driver).kill();
    let log = fired(&ann.api, &category, COUNT + 20).await;
    assert!(log.is_sorted_by_key(|event| micros(&event["fireAt"])), "in the order of their times");
    for task in tasks {
        let (way, seen) = task.await.unwrap();
        assert_eq!(seen.iter().map(offset).collect::<Vec<_>>(), (1..=COUNT as u64 + 20).collect::<Vec<_>>(), "{way:?}");
        assert_eq!(seen.iter().map(number).collect::<Vec<_>>(), log.iter().map(number).collect::<Vec<_>>(), "{way:?}");
    }
}

/// The process of the instance that drives the schedule; where its lease has just run out, soon.
async fn drives(platform: &Platform) -> String {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    loop {
        for name in ["events-1", "events-2"] {
            if figure(&platform.door_of(name).address, "notifyx_events_lease_held").await == Some(1) {
                return name.to_owned();
            }
        }
        assert!(tokio::time::Instant::now() < deadline, "nobody drives the schedule");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_window_lets_the_nearest_through_first() {
    const COUNT: usize = 100_000;
    let platform = Platform::start(Form::Up).await;
    let ann = platform.person("ann").await;
    let hour = 3_600_000_000;
    let begin = now_us();
    post(&ann.api, "crowd", 0..COUNT, |n| begin + hour + n as i64 * 1_000).await;
    let queue = ann.api.get("/api/queues/crowd").await.expect(200);
    assert_eq!((&queue["capacity"], &queue["backlog"]), (&json!(1_000), &json!(COUNT - 1_000)), "{queue}");
    assert_eq!(queue["size"], 1_000, "{queue}");
    let mut listener = listener(Way::Plain, &ann, "crowd", None).await;
    let soon = now_us() + 300_000;
    let nearest = json!({ "category": "crowd", "id": "nearest", "fireAt": soon, "data": { "n": COUNT } });
    ann.api.post("/events", nearest).await.expect(201);
    assert_eq!(listener.event().await["id"], "nearest");
    // Those behind it come in their order once their time is now.
    let patch = ann.api.request(Method::PATCH, "/events/e70000?category=crowd").json(&json!({ "fireAt": now_us() }));
    assert_eq!(send(patch).await.expect(200)["id"], "e70000");
    assert_eq!(listener.event().await["id"], "e70000");
    assert_eq!(ann.api.delete("/events/e70000?category=crowd").await.refused(409), "event_fired");
}

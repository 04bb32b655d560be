//! Channel `events:<category>`: what fires reaches who joined, once and in order, also behind a service that went away.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::harness::{Form, Options, Person, Platform, Socket, at_once, figure, in_both_forms, unique};

in_both_forms!(
    what_fires_reaches_all_who_joined_and_a_rejoin_brings_what_was_missed,
    the_platforms_own_categories_cannot_be_joined,
);

/// Unix time in seconds, so far ahead.
#[expect(clippy::disallowed_methods, reason = "events fire by the real clock here")]
fn ahead(seconds: f64) -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64() + seconds
}

async fn post(by: &Person, category: &str, numbers: std::ops::Range<usize>, seconds: f64) {
    let at = ahead(seconds);
    let events: Vec<Value> =
        numbers.map(|n| json!({ "category": category, "fireAt": at, "data": { "n": n } })).collect();
    by.api.post("/events", json!(events)).await.expect(201);
}

/// Offsets of so many events that come next.
async fn offsets(socket: &mut Socket, category: &str, count: usize) -> Vec<u64> {
    let mut offsets = Vec::with_capacity(count);
    for _ in 0..count {
        let event = socket.event(&format!("events:{category}"), "event").await;
        assert_eq!(event["category"], category, "{event}");
        offsets.push(event["offset"].as_u64().unwrap());
    }
    offsets
}

async fn what_fires_reaches_all_who_joined_and_a_rejoin_brings_what_was_missed(platform: &Platform) {
    let (ann, bob) = tokio::join!(platform.person("ann"), platform.person("bob"));
    let category = unique("orders");
    let channel = format!("events:{category}");
    let (mut one, mut two) = tokio::join!(ann.socket(), bob.socket());
    for socket in [&mut one, &mut two] {
        assert_eq!(socket.join(&channel, json!({})).await, json!({ "offset": 0, "recovered": false }));
    }
    let posted =
        json!({ "category": category, "fireAt": ahead(0.3), "id": "first", "key": "k", "data": [1, { "a": "ü" }] });
    let posted = ann.api.post("/events", posted).await.expect(201);
    let fired = one.event(&channel, "event").await;
    assert_eq!(fired, two.event(&channel, "event").await, "the same for all");
    for field in ["id", "category", "key", "priority", "createdAt", "fireAt", "data"] {
        assert_eq!(fired[field], posted[field], "{field} of {fired}");
    }
    assert_eq!((&fired["offset"], &fired["data"]), (&json!(1), &json!([1, { "a": "ü" }])));
    assert!(fired["firedAt"].as_str() >= fired["fireAt"].as_str(), "{fired}");

    // One leaves, and misses some.
    two.push(&channel, "phx_leave", json!({})).await.unwrap();
    post(&ann, &category, 0..20, 0.1).await;
    assert!(offsets(&mut one, &category, 20).await.into_iter().eq(2..=21));
    let mut back = bob.socket().await;
    let joined = back.join(&channel, json!({ "last_offset": 1 })).await;
    assert_eq!(joined, json!({ "offset": 21, "recovered": true }));
    post(&ann, &category, 20..25, 0.0).await;
    assert!(offsets(&mut back, &category, 25).await.into_iter().eq(2..=26));
    assert!(offsets(&mut one, &category, 5).await.into_iter().eq(22..=26));
    let from_nowhere = ann.socket().await.join(&channel, json!({ "last_offset": 1_000 })).await;
    assert_eq!(from_nowhere, json!({ "offset": 26, "recovered": false }));
}

async fn the_platforms_own_categories_cannot_be_joined(platform: &Platform) {
    let mut socket = platform.person("ann").await.socket().await;
    let refused = socket.try_join("events:$notifications", json!({})).await.unwrap_err();
    assert_eq!((&refused["reason"], &refused["status"]), (&json!("category_reserved"), &json!(403)));
    let refused = socket.try_join("events:a/b", json!({})).await.unwrap_err();
    assert_eq!(refused["status"], 400, "{refused}");
}

/// Both instances append to one log, and each tells of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_two_instances_append_comes_once_and_in_order_also_when_one_goes() {
    const EACH: usize = 100;
    let processes = &["discovery", "auth", "persist-1", "counter-2pc", "events-1", "events-2", "gateway"];
    let options = Options { processes, ..Options::default() };
    let mut platform = Platform::start_with(Form::Separate, options).await;
    let ann = platform.person("ann").await;
    let category = unique("orders");
    let mut socket = ann.socket().await;
    socket.join(&format!("events:{category}"), json!({})).await;
    watched(&platform, 2).await;
    at_once(4, |worker| {
        let (ann, category) = (ann.clone(), category.clone());
        async move {
            for n in 0..EACH / 4 {
                post(&ann, &category, n..n + 1, 0.05 * worker as f64).await;
            }
        }
    })
    .await;
    assert!(offsets(&mut socket, &category, EACH).await.into_iter().eq(1..=EACH as u64));

    for (name, last) in [("events-1", EACH as u64), ("events-2", EACH as u64 + 10)] {
        platform.process(name).kill();
        watched(&platform, 1).await;
        post(&ann, &category, 0..10, 0.0).await;
        assert!(offsets(&mut socket, &category, 10).await.into_iter().eq(last + 1..=last + 10), "after {last}");
        platform.start_process(name).await;
        watched(&platform, 2).await;
    }
}

/// Waits until the gateway watches so many instances.
async fn watched(platform: &Platform, streams: u64) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let open = figure(platform.gateway(), "notifyx_gateway_watch_streams").await;
        if open == Some(streams) {
            return;
        }
        assert!(Instant::now() < deadline, "{open:?} streams, not {streams}\n{platform}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

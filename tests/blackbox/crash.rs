//! Crashes under load: what was accepted is there, once, and the counters agree.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{Form, Load, Options, Person, Platform, Timing, fixed_port, unique};

/// A second or two, on a machine that runs all tests at once.
const LOAD_WITHIN: Duration = Duration::from_secs(120);

/// As soon as the next probe or the next look at the registry, on such a machine.
const SEEN_WITHIN: Duration = Duration::from_secs(60);

async fn people_and_topic(platform: &Platform) -> (Person, Person, String, String) {
    let (ann, bob) = tokio::join!(platform.person("ann"), platform.person("bob"));
    let topic = unique("under-load");
    let topic_id = ann.create_topic(&topic).await;
    bob.subscribe(&topic_id).await;
    (ann, bob, topic, topic_id)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_accepted_survives_a_kill() {
    let options = Options { port: fixed_port(), timing: Timing::ShortLease, ..Options::default() };
    let mut platform = Platform::start_with(Form::Up, options).await;
    let (ann, bob, topic, topic_id) = people_and_topic(&platform).await;
    let mut live = bob.socket().await;
    live.join(&format!("notification:{topic}"), json!({})).await;

    let load = Load::start(&ann, &topic, 16);
    load.accepted(300, LOAD_WITHIN).await;
    platform.process("up").kill();
    let reckoning = load.stop().await;
    assert!(reckoning.count(201) >= 300, "{:?}", reckoning.summary());

    platform.start_process("up").await;
    platform.ready().await;
    reckoning.nothing_is_lost(&bob).await;
    reckoning.settle(platform.gateway(), &bob, &topic_id).await;

    // Sessions survive too, and the topic goes on where it was.
    let head = ann.api.get(&format!("/api/topics/{topic_id}")).await.expect(200)["offset"].as_u64().unwrap();
    let mut live = bob.socket().await;
    let joined = live.join(&format!("notification:{topic}"), json!({ "last_offset": head - 10 })).await;
    assert_eq!(joined["recovered"], true, "{joined}");
    ann.publish(&topic, "after the crash").await;
    let told = live.notifications(&topic, 11).await;
    assert!(told.iter().map(|(offset, _)| *offset).eq(head - 9..=head + 1), "{told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_persist_of_two_may_die() {
    let options = Options { timing: Timing::ShortLease, ..Options::default() };
    let mut platform = Platform::start_with(Form::Separate, options).await;
    let (ann, bob, topic, topic_id) = people_and_topic(&platform).await;
    let killed = platform.instances("persist")[1].to_owned();
    until(&ann, &killed, |state| state == Some("closed")).await;

    let load = Load::start(&ann, &topic, 16);
    load.accepted(200, LOAD_WITHIN).await;
    platform.process("persist-2").kill();
    // Its breaker opens; later its lease ends, and it is off the list.
    until(&ann, &killed, |state| state != Some("closed")).await;
    load.accepted(400, LOAD_WITHIN).await;

    platform.start_process("persist-2").await;
    until(&ann, &killed, |state| state == Some("closed")).await;
    load.accepted(200, LOAD_WITHIN).await;

    let reckoning = load.stop().await;
    assert!(reckoning.count(201) >= 800, "{:?}", reckoning.summary());
    reckoning.nothing_is_lost(&bob).await;
    reckoning.settle(platform.gateway(), &bob, &topic_id).await;
}

/// The state of the gateway's breaker towards an instance, as its `/status` tells.
async fn breaker(person: &Person, address: &str) -> Option<String> {
    let status = person.api.get("/status").await.expect(200);
    find(&status["figures"], address)
}

/// The breaker beside this address, wherever in the figures it stands.
fn find(figures: &Value, address: &str) -> Option<String> {
    match figures {
        Value::Object(map) if map.get("address").is_some_and(|a| a == address) => {
            Some(map.get("breaker")?.as_str()?.to_owned())
        }
        Value::Object(map) => map.values().find_map(|value| find(value, address)),
        Value::Array(items) => items.iter().find_map(|value| find(value, address)),
        _ => None,
    }
}

async fn until(person: &Person, address: &str, wanted: impl Fn(Option<&str>) -> bool) {
    let deadline = Instant::now() + SEEN_WITHIN;
    loop {
        let state = breaker(person, address).await;
        if wanted(state.as_deref()) {
            return;
        }
        assert!(Instant::now() < deadline, "the breaker of {address} stays {state:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

//! Stopping: sockets are told to come back, what runs is finished, and the end is in bounded time.

use std::time::Duration;

use serde_json::json;

use crate::harness::{Form, Load, Options, Platform, fixed_port, unique};

/// Container runtimes kill after 10 s, and an end that takes longer is cut off before that and says so; the rest is for the machine.
const ENDS_WITHIN: Duration = Duration::from_secs(60);

/// Sockets are told at once.
const TOLD_WITHIN: Duration = Duration::from_secs(30);

/// A moment, on a machine that runs all tests at once.
const LOAD_WITHIN: Duration = Duration::from_secs(60);

async fn drains(form: Form, signal: &str) {
    let mut platform = Platform::start_with(form, Options { port: fixed_port(), ..Options::default() }).await;
    let (ann, bob) = tokio::join!(platform.person("ann"), platform.person("bob"));
    let topic = unique("drained");
    let topic_id = ann.create_topic(&topic).await;
    let mut socket = bob.socket().await;
    socket.join(&format!("notification:{topic}"), json!({})).await;
    let load = Load::start(&ann, &topic, 4);
    load.accepted(20, LOAD_WITHIN).await;

    platform.front().signal(signal);
    assert_eq!(socket.ending(TOLD_WITHIN).await, Some(1012));
    let status = platform.front().exited(ENDS_WITHIN).await;
    assert_eq!(status.code(), Some(0), "{platform}");
    let reckoning = load.stop().await;

    let front = if form == Form::Up { "up" } else { "gateway" };
    platform.start_process(front).await;
    platform.ready().await;
    reckoning.nothing_is_lost(&bob).await;
    reckoning.settle(platform.gateway(), &bob, &topic_id).await;

    if form == Form::Separate {
        // The others end as orderly, and take themselves off the registry.
        for name in ["gateway", "persist-1", "persist-2", "counter-2pc", "events", "auth"] {
            platform.process(name).terminate();
            assert_eq!(platform.process(name).exited(ENDS_WITHIN).await.code(), Some(0), "{platform}");
        }
        let services = platform.door("discovery").request(reqwest::Method::GET, "/api/services");
        let services = crate::harness::send(services.header("x-notifyx-cluster", &platform.secret)).await.expect(200);
        let left: Vec<_> = services["instances"].as_array().unwrap().iter().map(|i| &i["service"]).collect();
        assert_eq!(left, ["discovery"]);
        platform.process("discovery").terminate();
        assert_eq!(platform.process("discovery").exited(ENDS_WITHIN).await.code(), Some(0), "{platform}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn up_drains_and_ends() {
    drains(Form::Up, "TERM").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn up_ends_on_an_interrupt_too() {
    drains(Form::Up, "INT").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn separate_services_drain_and_end() {
    drains(Form::Separate, "TERM").await;
}

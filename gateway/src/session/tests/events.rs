//! Channels of events.

use std::time::Duration;

use notifyx_model::TokenHash;
use serde_json::{Value, json};

use super::{joined, reply};
use crate::{
    listen,
    platform::{Peer, SocketKey},
    testing::{Client, Node, subscribe},
};

/// Joins `events:<name>`; answers the reply's response.
async fn listening(client: &Client, name: &str, params: Value) -> Value {
    client.send(&json!(["1", "1", format!("events:{name}"), "phx_join", params]));
    let reply = client.next().await;
    assert_eq!((&reply[1], &reply[4]["status"]), (&json!("1"), &json!("ok")), "{reply}");
    reply[4]["response"].clone()
}

#[tokio::test(start_paused = true)]
async fn an_event_reaches_all_who_joined_its_category_as_it_was_written() {
    Node::run(async |node| {
        let (ann, ben) = (node.client(), node.client_elsewhere(node.user()));
        for client in [&ann, &ben] {
            assert_eq!(listening(client, "t", json!({})).await, json!({ "offset": 0, "recovered": false }));
        }
        // A topic of that name is another stream.
        joined(&ann, "t", json!({})).await;
        node.platform.fire("t", r#"{"text": "hello"}"#);
        let frame = ann.next().await;
        assert_eq!(frame, ben.next().await, "the same bytes for all");
        let expected = json!({
            "id": "e1", "category": "t", "priority": 4, "createdAt": "2026-01-01T00:00:00.000000Z",
            "fireAt": "2026-01-01T00:00:00.500000Z", "data": { "text": "hello" }, "offset": 1,
            "firedAt": "2026-01-01T00:00:00.501234Z",
        });
        assert_eq!(frame, json!([null, null, "events:t", "event", expected]));
        ann.silence().await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_is_no_category_or_the_platforms_own_is_refused() {
    Node::run(async |node| {
        let client = node.client();
        for (name, reason) in [("$notifications", "category_reserved"), ("a/b", "topic_invalid"), ("", "topic_invalid")]
        {
            client.send(&json!(["1", "1", format!("events:{name}"), "phx_join", {}]));
            let answer = client.next().await;
            assert_eq!(
                (&answer[4]["status"], &answer[4]["response"]["reason"]),
                (&json!("error"), &json!(reason)),
                "{name}"
            );
        }
        listening(&client, "t", json!({})).await;
        for event in ["new_notification", "seen", "unsubscribe", "event"] {
            client.send(&json!(["1", "2", "events:t", event, { "message": "m" }]));
            assert_eq!(client.next().await[4]["response"]["reason"], "unknown_event", "{event}");
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_key_joins_the_categories_that_its_scopes_cover_and_nobody_in_particular_joins_any() {
    Node::run(async |node| {
        let (owner, token_hash) = (node.user(), TokenHash([7; 32]));
        let key = SocketKey { owner, token_hash, scopes: subscribe("orders.*"), expires_at: None };
        let (key, nobody) = (node.client_as(Peer::Key(key)), node.client_as(Peer::Anonymous));
        for client in [&key, &nobody] {
            listening(client, "orders.new", json!({})).await;
        }
        key.send(&json!(["2", "2", "events:payments", "phx_join", {}]));
        assert_eq!(key.next().await[4]["response"]["reason"], "out_of_scope");
        listening(&nobody, "payments", json!({})).await;
        node.platform.fire("orders.new", "1");
        for client in [&key, &nobody] {
            assert_eq!(client.offsets_of("event", 1).await, [1]);
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn leaving_a_category_ends_its_events_and_rejoining_brings_what_was_missed() {
    Node::run(async |node| {
        let client = node.client();
        listening(&client, "t", json!({})).await;
        node.platform.fire("t", "1");
        assert_eq!(client.offsets_of("event", 1).await, [1]);
        client.send(&json!(["1", "9", "events:t", "phx_leave", {}]));
        assert_eq!(client.next().await, reply(&json!("1"), "9", "events:t", "ok", &json!({})));
        assert_eq!(client.next().await[3], "phx_close");
        node.platform.fire("t", "2");
        client.silence().await;
        assert_eq!(listening(&client, "t", json!({ "last_offset": 1 })).await["recovered"], true);
        node.platform.fire("t", "3");
        assert_eq!(client.offsets_of("event", 2).await, [2, 3]);
        // A second join takes the first one's place.
        client.send(&json!(["2", "2", "events:t", "phx_join", { "last_offset": 3 }]));
        assert_eq!(client.next().await[4]["status"], "ok");
        assert_eq!(client.next().await, json!(["1", "1", "events:t", "phx_close", {}]));
        node.platform.fire("t", "4");
        assert_eq!(client.offsets_of("event", 1).await, [4]);
        client.silence().await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_resumed_listener_gets_what_was_missed_what_fired_meanwhile_and_what_follows() {
    Node::run(async |node| {
        let (ann, ben) = (node.client(), node.client());
        listening(&ann, "t", json!({})).await;
        for at in 1..=5 {
            node.platform.fire("t", &at.to_string());
        }
        ann.offsets_of("event", 5).await;
        // The log answers late: meanwhile 6 and 7 fire.
        node.platform.logs.close();
        ben.send(&json!(["1", "1", "events:t", "phx_join", { "last_offset": 2 }]));
        node.platform.logs.has_waiting(1).await;
        node.platform.fire("t", "6");
        node.platform.fire("t", "7");
        ann.offsets_of("event", 2).await;
        node.platform.logs.open();
        let response = ben.next().await[4]["response"].clone();
        assert_eq!(response, json!({ "offset": 5, "recovered": true }));
        node.platform.fire("t", "8");
        assert_eq!(ben.offsets_of("event", 6).await, [3, 4, 5, 6, 7, 8]);
        ben.silence().await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_cannot_recover_is_told_and_begins_with_what_comes() {
    Node::run(async |node| {
        let newest = listen::MISSED_MAX + 1;
        for _ in 0..newest {
            node.platform.append("t", "1");
        }
        for (last_offset, recovered) in [(0, false), (1, true), (newest, true), (newest + 1, false)] {
            let client = node.client();
            let response = listening(&client, "t", json!({ "last_offset": last_offset })).await;
            assert_eq!(response, json!({ "offset": newest, "recovered": recovered }));
            let missed: Vec<u64> = if recovered { (last_offset + 1..=newest).collect() } else { vec![] };
            assert_eq!(client.offsets_of("event", missed.len()).await, missed);
            client.silence().await;
        }
        node.platform.trim_events("t", 900);
        assert_eq!(listening(&node.client(), "t", json!({ "last_offset": 899 })).await["recovered"], false);
        assert_eq!(listening(&node.client(), "t", json!({ "last_offset": 900 })).await["recovered"], true);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn who_joins_where_delivery_stands_needs_no_answer_of_the_store() {
    Node::run(async |node| {
        let first = node.client();
        listening(&first, "t", json!({})).await;
        node.platform.fire("t", "1");
        first.offsets_of("event", 1).await;
        assert_eq!(node.platform.heads_asked("t"), 1);
        node.platform.set_broken(true);
        let (fresh, back) = (node.client(), node.client());
        assert_eq!(listening(&fresh, "t", json!({})).await, json!({ "offset": 1, "recovered": false }));
        assert_eq!(listening(&back, "t", json!({ "last_offset": 1 })).await, json!({ "offset": 1, "recovered": true }));
        node.platform.fire("t", "2");
        for client in [&first, &fresh, &back] {
            assert_eq!(client.offsets_of("event", 1).await, [2]);
        }
        assert_eq!(node.platform.heads_asked("t"), 1);
        // Elsewhere, or from further back, the store is asked.
        let behind = node.client();
        behind.send(&json!(["1", "1", "events:t", "phx_join", { "last_offset": 0 }]));
        assert_eq!(behind.next().await[4]["response"]["reason"], "away");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_category_that_nobody_listens_to_any_more_is_not_watched() {
    Node::run(async |node| {
        let client = node.client();
        listening(&client, "t", json!({})).await;
        assert_eq!(node.platform.watch.followed().len(), 1);
        client.session.end();
        tokio::time::sleep(Duration::from_secs(15)).await;
        assert_eq!(node.platform.watch.followed(), []);
        assert_eq!(node.hub.metrics().categories.followed.get(), 0);
    })
    .await;
}

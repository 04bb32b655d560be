//! The rules of the protocol.

use serde_json::{Value, json};

use super::{joined, reply};
use crate::{
    session::{CHANNELS_MAX, ECHO_BYTES_MAX},
    testing::Node,
};

#[tokio::test(start_paused = true)]
async fn a_heartbeat_is_answered_at_once() {
    Node::run(async |node| {
        let client = node.client();
        client.send(&json!([null, "5", "phoenix", "heartbeat", {}]));
        assert_eq!(client.next().await, reply(&Value::Null, "5", "phoenix", "ok", &json!({})));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_matches_no_channel_is_refused_and_leaving_it_is_fine() {
    Node::run(async |node| {
        let client = node.client();
        let unmatched = json!({ "reason": "unmatched topic" });
        client.send(&json!(["1", "1", "room:1", "phx_join", {}]));
        assert_eq!(client.next().await, reply(&json!("1"), "1", "room:1", "error", &unmatched));
        client.send(&json!(["1", "2", "notification:t", "seen", {}]));
        assert_eq!(client.next().await, reply(&Value::Null, "2", "notification:t", "error", &unmatched));
        client.send(&json!(["1", "3", "notification:t", "phx_leave", {}]));
        assert_eq!(client.next().await, reply(&json!("1"), "3", "notification:t", "ok", &json!({})));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_second_join_is_answered_then_the_first_is_closed() {
    Node::run(async |node| {
        let client = node.client();
        joined(&client, "t", json!({})).await;
        client.send(&json!(["2", "2", "notification:t", "phx_join", {}]));
        let answer = client.next().await;
        assert_eq!((&answer[0], &answer[3], &answer[4]["status"]), (&json!("2"), &json!("phx_reply"), &json!("ok")));
        assert_eq!(client.next().await, json!(["1", "1", "notification:t", "phx_close", {}]));
        // What comes late for the first join concerns nobody; without a ref it is for the second.
        client.send(&json!(["1", "3", "notification:t", "dance", {}]));
        client.send(&json!([null, "4", "notification:t", "dance", {}]));
        let answer = client.next().await;
        assert_eq!((&answer[1], &answer[4]["response"]["reason"]), (&json!("4"), &json!("unknown_event")));
        node.platform.announce("t", "m");
        assert_eq!(client.offsets(1).await, [1]);
        client.silence().await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_socket_joins_a_hundred_channels_and_no_more() {
    Node::run(async |node| {
        let client = node.client();
        for at in 0..=CHANNELS_MAX {
            client.send(&json!(["1", at.to_string(), format!("notification:t{at}"), "phx_join", {}]));
        }
        let answers = client.nexts(CHANNELS_MAX + 1).await;
        let refused: Vec<&Value> = answers.iter().filter(|a| a[4]["status"] == "error").collect();
        assert_eq!(refused.len(), 1);
        assert_eq!(refused[0][4]["response"], json!({ "reason": "too many channels joined" }));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_is_no_frame_is_answered_and_harms_no_channel() {
    Node::run(async |node| {
        let client = node.client();
        joined(&client, "t", json!({})).await;
        for bad in ["", "{}", "[1]", "[null,null,\"t\"", "\u{0}"] {
            client.session.text(bad);
            let answer = client.next().await;
            assert_eq!(
                (&answer[2], &answer[4]["response"]["reason"]),
                (&json!("phoenix"), &json!("bad_frame")),
                "{bad}"
            );
        }
        client.session.binary(&[0, 200, 1, 1, 1, 1]);
        assert_eq!(client.next().await[4]["response"]["reason"], "bad_frame");
        client.session.binary(b"\x00\x01\x01\x0e\x10\x31\x37notification:tnew_notification\x01");
        assert_eq!(client.next().await[4]["response"]["reason"], "payload_invalid");
        node.platform.announce("t", "m");
        assert_eq!(client.offsets(1).await, [1]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_field_that_is_too_long_is_refused_where_the_client_waits() {
    Node::run(async |node| {
        let client = node.client();
        let long = "x".repeat(300);
        let channel = format!("notification:{long}");
        for (join_ref, reference, topic, event) in [
            ("1", "2", &*channel, "phx_join"),
            ("1", "3", "notification:t", &*long),
            ("1", &*long, "notification:t", "seen"),
            (&*long, "4", "notification:t", "phx_join"),
        ] {
            client.send(&json!([join_ref, reference, topic, event, {}]));
            let answer = client.next().await;
            assert_eq!(
                (&answer[0], &answer[1], &answer[2], &answer[3]),
                (&json!(join_ref), &json!(reference), &json!(topic), &json!("phx_reply"))
            );
            let payload = &answer[4];
            assert_eq!((&payload["status"], &payload["response"]["reason"]), (&json!("error"), &json!("bad_frame")));
        }
        // What nobody mistypes is not said back.
        client.send(&json!(["1", "5", "x".repeat(ECHO_BYTES_MAX), "phx_join", {}]));
        let answer = client.next().await;
        assert_eq!((&answer[0], &answer[1], &answer[2]), (&Value::Null, &Value::Null, &json!("phoenix")));
    })
    .await;
}

//! How a channel ends: left by its client, or with its user's subscription.

use serde_json::json;

use super::{joined, reply};
use crate::testing::{Node, topic};

#[tokio::test(start_paused = true)]
async fn leaving_is_answered_then_closed_and_ends_the_stream() {
    Node::run(async |node| {
        let client = node.client();
        joined(&client, "t", json!({})).await;
        client.send(&json!(["1", "9", "notification:t", "phx_leave", {}]));
        assert_eq!(client.next().await, reply(&json!("1"), "9", "notification:t", "ok", &json!({})));
        assert_eq!(client.next().await, json!(["1", "1", "notification:t", "phx_close", {}]));
        node.platform.announce("t", "m");
        client.silence().await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn own_notifications_are_pushed_and_unsubscribing_closes_the_channel() {
    Node::run(async |node| {
        let client = node.client();
        joined(&client, "t", json!({})).await;
        node.platform.commit("t", "m", &[]);
        client.send(&json!(["1", "2", "notification:t", "own_notifications_for_topic", {}]));
        assert_eq!(client.next().await, reply(&json!("1"), "2", "notification:t", "ok", &json!({})));
        let pushed = client.next().await;
        assert_eq!(pushed[3], "own_notifications_for_topic");
        let fields: Vec<&String> = pushed[4]["notifications"][0].as_object().unwrap().keys().collect();
        assert_eq!(
            fields,
            ["from", "from_user_id", "inserted_at", "message", "notification_id", "status", "topic_name"]
        );
        client.offsets(1).await;
        client.send(&json!(["1", "3", "notification:t", "unsubscribe", {}]));
        assert_eq!(client.next().await, reply(&json!("1"), "3", "notification:t", "ok", &json!({ "success": true })));
        assert_eq!(client.next().await[3], "phx_close");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_subscription_ended_elsewhere_closes_the_users_channels_of_the_topic_and_no_others() {
    Node::run(async |node| {
        let (ann, ben) = (node.client(), node.client());
        let (again, elsewhere) = (node.client_of(ben.user), node.client_elsewhere(ben.user));
        for client in [&ann, &ben, &again, &elsewhere] {
            joined(client, "t", json!({})).await;
        }
        joined(&ben, "other", json!({})).await;
        node.hub.unsubscribed(ben.user, &topic("t")).await;
        for client in [&ben, &again, &elsewhere] {
            assert_eq!(client.next().await, json!(["1", "1", "notification:t", "phx_close", {}]));
        }
        node.platform.announce("t", "m");
        assert_eq!(ann.offsets(1).await, [1]);
        node.platform.announce("other", "m");
        assert_eq!(ben.next().await[2], "notification:other");
        for client in [&ben, &again, &elsewhere] {
            client.silence().await;
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_join_that_follows_the_end_of_a_subscription_stands() {
    Node::run(async |node| {
        let client = node.client();
        node.platform.joins.close();
        client.send(&json!(["1", "1", "notification:t", "phx_join", {}]));
        node.platform.joins.has_waiting(1).await;
        node.hub.unsubscribed(client.user, &topic("t")).await;
        client.silence().await;
        node.platform.joins.open();
        assert_eq!(client.next().await[4]["status"], "ok");
        node.platform.announce("t", "m");
        assert_eq!(client.offsets(1).await, [1]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_still_catching_up_is_closed_too() {
    Node::run(async |node| {
        let client = node.client();
        node.platform.create("t", client.user);
        for at in 0..150 {
            node.platform.commit("t", &at.to_string(), &[]);
        }
        // It takes nothing: the rest of what it missed waits.
        client.outlet.queued.set(1024 * 1024);
        client.send(&json!(["1", "1", "notification:t", "phx_join", { "last_offset": 0 }]));
        assert_eq!(client.next().await[4]["response"]["recovered"], true);
        node.hub.unsubscribed(client.user, &topic("t")).await;
        assert_eq!(client.next().await[3], "phx_close");
        client.outlet.queued.set(0);
        client.outlet.drained.notify_one();
        client.silence().await;
    })
    .await;
}

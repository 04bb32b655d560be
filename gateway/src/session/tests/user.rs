//! A user's own channel.

use notifyx_model::UserId;
use serde_json::{Value, json};

use super::joined;
use crate::{
    platform::Platform,
    testing::{Client, Node, topic},
};

async fn watching(client: &Client) -> Value {
    client.send(&json!(["u", "u", format!("user:{}", client.user), "phx_join", {}]));
    let reply = client.next().await;
    assert_eq!(reply[4]["status"], "ok", "{reply}");
    reply[4]["response"].clone()
}

fn head(user: UserId, topic: &str, broadcast_no: u64) -> Value {
    json!([null, null, format!("user:{user}"), "head", { "topic": topic, "broadcast_no": broadcast_no }])
}

#[tokio::test(start_paused = true)]
async fn a_user_channel_is_for_its_user() {
    Node::run(async |node| {
        let client = node.client();
        let topic = format!("user:{}", node.user());
        client.send(&json!(["1", "1", topic, "phx_join", {}]));
        let answer = client.next().await;
        assert_eq!((&answer[4]["status"], &answer[4]["response"]["reason"]), (&json!("error"), &json!("unauthorized")));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_user_hears_of_broadcasts_in_topics_it_has_not_joined_once_each() {
    Node::run(async |node| {
        let client = node.client();
        for name in ["a", "b"] {
            node.platform.join(&topic(name), client.user).await.unwrap();
        }
        node.platform.commit("a", "m", &[]);
        let unread = watching(&client).await;
        assert_eq!((&unread["total"], &unread["topics"][0]["broadcast_no"]), (&json!(1), &json!(1)));
        let twin = node.client_of(client.user);
        watching(&twin).await;
        node.platform.announce("a", "m");
        node.platform.announce("b", "m");
        for client in [&client, &twin] {
            let mut heads = client.nexts(2).await;
            heads.sort_by_key(|head| head[4]["topic"].to_string());
            assert_eq!(heads, [head(client.user, "a", 2), head(client.user, "b", 1)]);
            client.silence().await;
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn seen_and_targeted_ones_push_unread_once_for_many() {
    Node::run(async |node| {
        let (ann, ben) = (node.client(), node.client());
        joined(&ann, "t", json!({})).await;
        joined(&ben, "t", json!({})).await;
        let elsewhere = node.client_elsewhere(ben.user);
        watching(&elsewhere).await;
        for _ in 0..3 {
            node.platform.bus.publish(node.platform.commit("t", "m", &[ben.user]));
        }
        assert_eq!(ben.offsets(3).await, [1, 2, 3]);
        let pushed = elsewhere.next().await;
        assert_eq!((&pushed[3], &pushed[4]["total"]), (&json!("unread"), &json!(3)));
        elsewhere.silence().await;
        let id = node.platform.commit("t", "m", &[ben.user]).id;
        ben.send(&json!(["1", "9", "notification:t", "seen", { "id": id }]));
        let pushed = elsewhere.next().await;
        assert_eq!((&pushed[3], &pushed[4]["total"]), (&json!("unread"), &json!(3)));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_topic_joined_later_is_heard_of_at_once() {
    Node::run(async |node| {
        let client = node.client();
        watching(&client).await;
        let elsewhere = node.client_elsewhere(client.user);
        joined(&elsewhere, "late", json!({})).await;
        let pushed = client.next().await;
        assert_eq!((&pushed[3], &pushed[4]["topics"][0]["topic"]), (&json!("unread"), &json!("late")));
        node.platform.announce("late", "m");
        assert_eq!(client.next().await, head(client.user, "late", 1));
    })
    .await;
}

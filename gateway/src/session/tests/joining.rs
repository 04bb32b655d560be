//! Who joins a topic, and what it is told; what comes while it joins.

use notifyx_model::TokenHash;
use serde_json::json;

use super::{joined, reply};
use crate::{
    platform::{Peer, Platform, SocketKey},
    testing::{Node, subscribe, topic},
};

#[tokio::test(start_paused = true)]
async fn the_creator_joins_and_others_cannot_broadcast() {
    Node::run(async |node| {
        let (creator, other) = (node.client(), node.client());
        let response = joined(&creator, "t", json!({})).await;
        let topic_id = response["topic_id"].clone();
        let expected = |can_broadcast| {
            json!({ "from_join": true, "can_broadcast": can_broadcast, "topic_id": topic_id, "offset": 0, "recovered": false })
        };
        assert_eq!(response, expected(true));
        assert_eq!(joined(&other, "t", json!({})).await, expected(false));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_key_and_who_shows_nothing_join_no_channel_of_a_user() {
    Node::run(async |node| {
        let owner = node.user();
        let token_hash = TokenHash([7; 32]);
        let key = SocketKey { owner, token_hash, scopes: subscribe("*"), expires_at: None };
        for peer in [Peer::Key(key), Peer::Anonymous] {
            let client = node.client_as(peer);
            for channel in ["notification:t".to_owned(), "notification:".to_owned(), format!("user:{owner}")] {
                client.send(&json!(["1", "1", channel, "phx_join", {}]));
                let answer = client.next().await;
                assert_eq!((&answer[1], &answer[4]["status"]), (&json!("1"), &json!("error")));
                assert_eq!(answer[4]["response"]["reason"], "users_only");
                assert_eq!(answer[4]["response"]["status"], 403);
                client.send(&json!(["1", "2", channel, "seen", { "id": owner }]));
                assert_eq!(client.next().await[4]["response"]["reason"], "unmatched topic");
            }
            client.send(&json!([null, "5", "phoenix", "heartbeat", {}]));
            assert_eq!(client.next().await[1], "5", "the socket stays");
        }
        assert!(node.platform.heads(vec![topic("t")]).await.unwrap().is_empty(), "nothing was created");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_is_published_during_the_join_comes_after_its_reply_once() {
    Node::run(async |node| {
        let (ann, ben) = (node.client(), node.client());
        joined(&ann, "t", json!({})).await;
        node.platform.announce("t", "before");
        ann.offsets(1).await;
        node.platform.joins.close();
        ben.send(&json!(["1", "1", "notification:t", "phx_join", {}]));
        node.platform.joins.has_waiting(1).await;
        node.platform.announce("t", "during");
        ann.offsets(1).await;
        node.platform.joins.open();
        // Persist answers after the commit: offset 2 is behind the reply's, and live it came before.
        let reply = ben.next().await;
        assert_eq!(reply[4]["response"]["offset"], 2);
        node.platform.announce("t", "after");
        assert_eq!(ben.offsets(1).await, [3]);
        ben.silence().await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_join_without_an_answer_fails_in_time_and_can_be_repeated() {
    Node::run(async |node| {
        let client = node.client();
        node.platform.joins.close();
        client.send(&json!(["1", "1", "notification:t", "phx_join", {}]));
        client.send(&json!(["1", "2", "notification:t", "seen", { "id": client.user }]));
        let answer = client.next().await;
        assert_eq!((&answer[4]["status"], &answer[4]["response"]["reason"]), (&json!("error"), &json!("timeout")));
        assert_eq!(client.next().await[4]["response"], json!({ "reason": "unmatched topic" }));
        node.platform.joins.open();
        joined(&client, "t", json!({})).await;
        node.platform.announce("t", "m");
        assert_eq!(client.offsets(1).await, [1]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn leaving_during_the_join_works_and_so_does_joining_again() {
    Node::run(async |node| {
        let client = node.client();
        node.platform.joins.close();
        client.send(&json!(["1", "1", "notification:t", "phx_join", {}]));
        node.platform.joins.has_waiting(1).await;
        client.send(&json!(["1", "2", "notification:t", "phx_leave", {}]));
        assert_eq!(client.next().await, reply(&json!("1"), "2", "notification:t", "ok", &json!({})));
        assert_eq!(client.next().await, json!(["1", "1", "notification:t", "phx_close", {}]));
        client.send(&json!(["3", "3", "notification:t", "phx_join", {}]));
        node.platform.joins.has_waiting(2).await;
        node.platform.joins.open();
        assert_eq!(client.next().await[1], "3");
        node.platform.announce("t", "m");
        assert_eq!(client.offsets(1).await, [1]);
        client.silence().await;
    })
    .await;
}

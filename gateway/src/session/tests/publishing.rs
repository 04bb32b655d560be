//! Publishing over a channel: whom it reaches, in which order, and what it is answered.

use serde_json::{Value, json};

use super::joined;
use crate::{session::WAITING_PER_CHANNEL_MAX, testing::Node};

#[tokio::test(start_paused = true)]
async fn a_publish_reaches_every_subscriber_and_is_answered_after_the_commit() {
    Node::run(async |node| {
        let (ann, ben) = (node.client(), node.client());
        joined(&ann, "t", json!({})).await;
        joined(&ben, "t", json!({})).await;
        ann.send(&json!(["1", "7", "notification:t", "new_notification", { "message": "hello", "to": [] }]));
        let frames = ann.nexts(2).await;
        let (answers, pushes): (Vec<&Value>, Vec<&Value>) = frames.iter().partition(|f| f[3] == "phx_reply");
        let response = &answers[0][4]["response"];
        assert_eq!((&response["success"], &response["offset"]), (&json!(true), &json!(1)));
        assert_eq!(&ben.next().await, pushes[0], "the same bytes for all");
        assert_eq!((&pushes[0][0], &pushes[0][1]), (&Value::Null, &Value::Null));
        assert_eq!((&pushes[0][4]["message"], &pushes[0][4]["id"]), (&json!("hello"), &response["id"]));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_publish_for_later_is_answered_with_what_names_it_and_reaches_nobody_now() {
    Node::run(async |node| {
        let ann = node.client();
        joined(&ann, "t", json!({})).await;
        let later = json!({ "message": "hello", "fire_at": 1_767_312_000, "key": "k" });
        ann.send(&json!(["1", "7", "notification:t", "new_notification", later]));
        let expected = json!({
            "success": true, "message": "scheduled", "scheduled_id": "a-scheduled-one", "fire_at": "2026-01-02T00:00:00Z",
        });
        assert_eq!(ann.next().await[4], json!({ "status": "ok", "response": expected }));
        ann.silence().await;
        assert_eq!(node.platform.published(), Vec::<String>::new());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_targeted_notification_reaches_its_recipients_only_on_all_their_sockets() {
    Node::run(async |node| {
        let (ann, ben) = (node.client(), node.client());
        let (again, elsewhere) = (node.client_of(ben.user), node.client_elsewhere(ben.user));
        for client in [&ann, &ben, &again, &elsewhere] {
            joined(client, "t", json!({})).await;
        }
        joined(&ben, "other", json!({})).await;
        node.platform.bus.publish(node.platform.commit("t", "for ben", &[ben.user]));
        node.platform.announce("t", "for all");
        for client in [&ben, &again, &elsewhere] {
            assert_eq!(client.offsets(2).await, [1, 2]);
        }
        assert_eq!(ann.offsets(1).await, [2]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn publishes_of_one_channel_keep_their_order_and_other_channels_do_not_wait() {
    Node::run(async |node| {
        let client = node.client();
        joined(&client, "t", json!({})).await;
        node.platform.publishes.close();
        for at in 0..3 {
            let message = json!({ "message": at.to_string() });
            client.send(&json!(["1", format!("p{at}"), "notification:t", "new_notification", message]));
        }
        node.platform.publishes.has_waiting(1).await;
        client.send(&json!(["2", "2", "notification:u", "phx_join", {}]));
        assert_eq!(client.next().await[2], "notification:u");
        node.platform.publishes.open();
        let frames = client.nexts(6).await;
        let answered: Vec<&Value> = frames.iter().filter(|f| f[3] == "phx_reply").map(|f| &f[1]).collect();
        assert_eq!(answered, ["p0", "p1", "p2"]);
        assert_eq!(node.platform.published(), ["0", "1", "2"]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn too_much_at_once_is_refused_with_a_reason() {
    Node::run(async |node| {
        let client = node.client();
        joined(&client, "t", json!({})).await;
        node.platform.publishes.close();
        let push = |at: usize| json!(["1", at.to_string(), "notification:t", "new_notification", { "message": "m" }]);
        client.send(&push(0));
        node.platform.publishes.has_waiting(1).await;
        for at in 1..=WAITING_PER_CHANNEL_MAX + 1 {
            client.send(&push(at));
        }
        let answer = client.next().await;
        assert_eq!(answer[1], (WAITING_PER_CHANNEL_MAX + 1).to_string());
        assert_eq!(answer[4]["response"]["reason"], "too_many_requests");
        node.platform.publishes.open();
        client.nexts((WAITING_PER_CHANNEL_MAX + 1) * 2).await;
        assert_eq!(client.session.load.messages.get(), 0);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_publish_sent_before_leaving_is_done() {
    Node::run(async |node| {
        let client = node.client();
        joined(&client, "t", json!({})).await;
        node.platform.publishes.close();
        client.send(&json!(["1", "2", "notification:t", "new_notification", { "message": "last words" }]));
        client.send(&json!(["1", "3", "notification:t", "phx_leave", {}]));
        node.platform.publishes.open();
        // Whether the notification itself still comes is a matter of who is first.
        let mut answered = Vec::new();
        loop {
            let frame = client.next().await;
            match frame[3].as_str().unwrap() {
                "phx_reply" => answered.push(frame[1].clone()),
                "phx_close" => break,
                _ => {}
            }
        }
        assert_eq!(answered, ["2", "3"]);
        assert_eq!(node.platform.published(), ["last words"]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_the_platform_refuses_is_told_as_it_said_it() {
    Node::run(async |node| {
        let client = node.client();
        joined(&client, "t", json!({})).await;
        node.platform.set_broken(true);
        client.send(&json!(["1", "2", "notification:t", "new_notification", { "message": "m" }]));
        let response = &client.next().await[4]["response"];
        assert_eq!(
            (&response["success"], &response["reason"], &response["error"]),
            (&json!(false), &json!("away"), &json!("the store is away"))
        );
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_the_platform_fails_one_request() {
    Node::run(async |node| {
        let client = node.client();
        joined(&client, "t", json!({})).await;
        // The fake takes ids only, and panics at anything else.
        client.send(&json!(["1", "2", "notification:t", "new_notification", { "message": "m", "to": ["nobody"] }]));
        assert_eq!(client.next().await[4]["response"]["reason"], "internal");
        client.send(&json!(["1", "3", "notification:t", "new_notification", { "message": "m" }]));
        assert_eq!(client.nexts(2).await.len(), 2);
    })
    .await;
}

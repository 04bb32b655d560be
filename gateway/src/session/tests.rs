//! Channels as a Phoenix client meets them.

use std::time::Duration;

use notifyx_model::{TokenHash, UserId};
use serde_json::{Value, json};

use super::*;
use crate::{
    listen,
    platform::{Platform, SocketKey},
    testing::{Client, Node, subscribe, topic},
};

/// Joins `notification:<name>`; answers the reply's response.
async fn joined(client: &Client, name: &str, params: Value) -> Value {
    client.send(&json!(["1", "1", format!("notification:{name}"), "phx_join", params]));
    let reply = client.next().await;
    assert_eq!((&reply[1], &reply[4]["status"]), (&json!("1"), &json!("ok")), "{reply}");
    reply[4]["response"].clone()
}

fn reply(join_ref: &Value, reference: &str, topic: &str, status: &str, response: &Value) -> Value {
    json!([join_ref, reference, topic, "phx_reply", { "status": status, "response": response }])
}

// The rules of the protocol.

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

// What channels carry.

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
async fn draining_waits_a_moment_for_answers() {
    Node::run(async |node| {
        let (idle, busy, stuck) = (node.client(), node.client(), node.client());
        joined(&busy, "t", json!({})).await;
        node.platform.publishes.close();
        busy.send(&json!(["1", "2", "notification:t", "new_notification", { "message": "m" }]));
        node.platform.publishes.has_waiting(1).await;
        node.platform.joins.close();
        stuck.send(&json!(["1", "1", "notification:t", "phx_join", {}]));
        let hub = node.hub.clone();
        tokio::spawn(async move { hub.drain(Duration::from_secs(5)).await });
        tokio::time::sleep(Duration::from_millis(20)).await;
        let ended = || [&idle, &busy, &stuck].map(|client| client.outlet.ended.get());
        assert_eq!(ended(), [Some(Ending::Drain), None, None]);
        node.platform.publishes.open();
        assert!(busy.nexts(2).await.iter().any(|frame| frame[1] == "2"));
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(ended(), [Some(Ending::Drain), Some(Ending::Drain), None]);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(ended()[2], Some(Ending::Drain));
    })
    .await;
}

// Joining while others publish.

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
async fn a_resumed_join_gets_what_was_missed_what_came_meanwhile_and_what_follows() {
    Node::run(async |node| {
        let (ann, ben) = (node.client(), node.client());
        joined(&ann, "t", json!({})).await;
        for at in 1..=5 {
            node.platform.announce("t", &at.to_string());
        }
        ann.offsets(5).await;
        // The log answers late: meanwhile 6 and 7 are committed, and 7 is announced first.
        node.platform.logs.close();
        ben.send(&json!(["1", "1", "notification:t", "phx_join", { "last_offset": 2 }]));
        node.platform.logs.has_waiting(1).await;
        let six = node.platform.commit("t", "6", &[]);
        node.platform.announce("t", "7");
        node.platform.bus.publish(six);
        ann.offsets(2).await;
        node.platform.logs.open();
        let response = ben.next().await[4]["response"].clone();
        assert_eq!((&response["offset"], &response["recovered"]), (&json!(5), &json!(true)));
        node.platform.announce("t", "8");
        assert_eq!(ben.offsets(6).await, [3, 4, 5, 6, 7, 8]);
        ben.silence().await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_first_join_of_a_node_misses_nothing_that_no_hint_tells_of() {
    Node::run(async |node| {
        let client = node.client();
        node.platform.create("t", client.user);
        node.platform.commit("t", "1", &[]);
        assert_eq!(joined(&client, "t", json!({ "last_offset": 0 })).await["recovered"], true);
        assert_eq!(client.offsets(1).await, [1]);
        node.platform.commit("t", "2", &[]);
        assert_eq!(client.offsets(1).await, [2]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_resumed_join_gets_targeted_ones_only_if_they_are_its_own() {
    Node::run(async |node| {
        let (ann, ben) = (node.client(), node.client());
        node.platform.create("t", ann.user);
        for to in [&[][..], &[ann.user], &[ben.user], &[ann.user, ben.user]] {
            node.platform.commit("t", "m", to);
        }
        joined(&ben, "t", json!({ "last_offset": 0 })).await;
        assert_eq!(ben.offsets(3).await, [1, 3, 4]);
        ben.silence().await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_recovered_is_said() {
    Node::run(async |node| {
        let creator = node.user();
        node.platform.create("t", creator);
        for _ in 0..=listen::MISSED_MAX {
            node.platform.commit("t", "m", &[]);
        }
        let newest = listen::MISSED_MAX + 1;
        for (last_offset, recovered) in [(0, false), (1, true), (newest, true), (newest + 1, false)] {
            let client = node.client();
            let response = joined(&client, "t", json!({ "last_offset": last_offset })).await;
            assert_eq!((&response["recovered"], &response["offset"]), (&json!(recovered), &json!(newest)));
            let missed: Vec<u64> = if recovered { (last_offset + 1..=newest).collect() } else { vec![] };
            assert_eq!(client.offsets(missed.len()).await, missed);
            client.silence().await;
        }
        node.platform.trim("t", 900);
        assert_eq!(joined(&node.client(), "t", json!({ "last_offset": 899 })).await["recovered"], false);
        assert_eq!(joined(&node.client(), "t", json!({ "last_offset": 900 })).await["recovered"], true);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_member_that_gets_too_much_while_it_catches_up_reads_on_in_the_store() {
    Node::run(async |node| {
        let (ann, ben) = (node.client(), node.client());
        joined(&ann, "t", json!({})).await;
        node.platform.announce("t", "1");
        ann.offsets(1).await;
        node.platform.logs.close();
        ben.send(&json!(["1", "1", "notification:t", "phx_join", { "last_offset": 0 }]));
        node.platform.logs.has_waiting(1).await;
        for _ in 0..700 {
            node.platform.announce("t", "m");
        }
        ann.offsets(700).await;
        node.platform.logs.open();
        ben.next().await;
        assert_eq!(ben.offsets(701).await, (1..=701).collect::<Vec<u64>>());
        node.platform.announce("t", "live");
        assert_eq!(ben.offsets(1).await, [702]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_client_is_brought_up_to_date_at_its_pace() {
    Node::run(async |node| {
        let (creator, client) = (node.user(), node.client());
        node.platform.create("t", creator);
        for _ in 0..10 {
            node.platform.commit("t", &"m".repeat(30_000), &[]);
        }
        client.outlet.queued.set(usize::MAX);
        client.send(&json!(["1", "1", "notification:t", "phx_join", { "last_offset": 0 }]));
        client.next().await;
        let early = tokio::time::timeout(Duration::from_secs(5), client.next()).await;
        assert!(early.is_err(), "nothing is sent while much waits");
        client.outlet.queued.set(0);
        client.outlet.drained.notify_waiters();
        assert_eq!(client.offsets(10).await.len(), 10);
        assert_eq!(client.outlet.ended.get(), None);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_is_ended_as_slow() {
    Node::run(async |node| {
        let (creator, client) = (node.user(), node.client());
        node.platform.create("t", creator);
        node.platform.commit("t", "m", &[]);
        client.outlet.queued.set(usize::MAX);
        client.send(&json!(["1", "1", "notification:t", "phx_join", { "last_offset": 0 }]));
        client.next().await;
        client.outlet.drained.notified().await;
        assert_eq!(client.outlet.ended.get(), Some(Ending::Slow));
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

#[tokio::test(start_paused = true)]
async fn a_session_that_ends_leaves_nothing_behind() {
    Node::run(async |node| {
        let client = node.client();
        joined(&client, "t", json!({})).await;
        client.send(&json!(["2", "2", format!("user:{}", client.user), "phx_join", {}]));
        client.next().await;
        let (session, metrics) = (Rc::downgrade(&client.session), node.hub.metrics().clone());
        client.session.end();
        assert_eq!(metrics.channels.get(), 0);
        drop(client);
        tokio::time::sleep(Duration::from_secs(15)).await;
        assert!(session.upgrade().is_none());
        assert_eq!(metrics.topics.followed.get(), 0, "the feed has forgotten the topic");
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

// A user's own channel.

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

// Events.

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

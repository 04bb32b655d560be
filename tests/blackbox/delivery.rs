//! Live delivery: in order, nothing missed, nothing twice, across joins, leaves and resumptions.

use serde_json::{Value, json};

use crate::harness::{Person, Platform, at_once, in_both_forms, unique};

in_both_forms!(
    a_join_with_last_offset_misses_nothing_while_others_publish,
    what_cannot_be_recovered_is_said,
    the_inbox_fills_until_the_subscription_ends,
    a_second_join_replaces_the_first,
    a_topic_can_be_asked_for_the_own_notifications,
);

/// Publishes under way at once: each has a connection, and a process may have a thousand of all kinds.
const AT_ONCE: usize = 64;

/// Creates a topic and publishes so many to it.
async fn topic_with(person: &Person, count: usize) -> (String, String) {
    let topic = unique("stream");
    let topic_id = person.create_topic(&topic).await;
    for first in (0..count).step_by(AT_ONCE) {
        at_once(AT_ONCE.min(count - first), |n| {
            let topic = topic.clone();
            async move { person.publish(&topic, &format!("old {}", first + n)).await }
        })
        .await;
    }
    (topic, topic_id)
}

async fn a_join_with_last_offset_misses_nothing_while_others_publish(platform: &Platform) {
    const BEFORE: usize = 30;
    const DURING: usize = 120;
    let (ann, bob) = tokio::join!(platform.person("ann"), platform.person("bob"));
    let (topic, topic_id) = topic_with(&ann, BEFORE).await;
    bob.subscribe(&topic_id).await;
    let channel = format!("notification:{topic}");

    let publishing = async {
        for round in 0..DURING / 4 {
            at_once(4, |n| {
                let (ann, topic) = (ann.clone(), topic.clone());
                async move { ann.publish(&topic, &format!("new {round}.{n}")).await }
            })
            .await;
        }
    };
    // Four who resume from different offsets, each leaving and joining again on its way.
    let resuming = at_once(4, |n| {
        let (bob, topic, channel) = (bob.clone(), topic.clone(), channel.clone());
        async move {
            let mut last = 7 * n as u64;
            let mut offsets: Vec<u64> = Vec::new();
            let all = BEFORE + DURING - usize::try_from(last).unwrap();
            let mut socket = bob.socket().await;
            while offsets.len() < all {
                let joined = socket.join(&channel, json!({ "last_offset": last })).await;
                assert_eq!(joined["recovered"], true, "{joined}");
                let some = (all - offsets.len()).min(20 + 10 * n);
                offsets.extend(socket.notifications(&topic, some).await.iter().map(|(offset, _)| offset));
                last = *offsets.last().unwrap();
                socket.push(&channel, "phx_leave", json!({})).await.unwrap();
                // What was sent before the leave was read is dropped with the old channel, as the client does.
                socket = bob.socket().await;
            }
            (7 * n as u64, offsets)
        }
    });
    let ((), resumed) = tokio::join!(publishing, resuming);
    for (last, offsets) in resumed {
        assert!(offsets.iter().copied().eq(last + 1..=(BEFORE + DURING) as u64), "from {last}: {offsets:?}");
    }
}

async fn what_cannot_be_recovered_is_said(platform: &Platform) {
    let ann = platform.person("ann").await;
    let (topic, _) = topic_with(&ann, 3).await;
    let channel = format!("notification:{topic}");
    let join = |last_offset: Value| {
        let (ann, channel) = (ann.clone(), channel.clone());
        async move {
            let mut socket = ann.socket().await;
            let joined = socket.join(&channel, json!({ "last_offset": last_offset })).await;
            (joined["recovered"].as_bool().unwrap(), joined["offset"].as_u64().unwrap(), socket)
        }
    };
    let (recovered, offset, mut socket) = join(json!(0)).await;
    assert!(recovered && offset == 3);
    let told = socket.notifications(&topic, 3).await;
    assert!(told.iter().map(|(offset, _)| *offset).eq(1..=3), "{told:?}");

    // An offset that was never given out, as after a database was put back: the client begins at the head.
    let (recovered, offset, mut socket) = join(json!(99)).await;
    assert!(!recovered && offset == 3);
    ann.publish(&topic, "after").await;
    assert_eq!(socket.notification(&topic).await["offset"], 4);
    let (recovered, ..) = join(Value::Null).await;
    assert!(!recovered, "nothing was asked for");

    // More than a thousand: the inbox has them.
    let (topic, _) = topic_with(&ann, 1_001).await;
    let channel = format!("notification:{topic}");
    let mut socket = ann.socket().await;
    let joined = socket.join(&channel, json!({ "last_offset": 0 })).await;
    assert_eq!((&joined["recovered"], &joined["offset"]), (&json!(false), &json!(1_001)));
    let mut socket = ann.socket().await;
    assert_eq!(socket.join(&channel, json!({ "last_offset": 1 })).await["recovered"], true);
    let told = socket.notifications(&topic, 1_000).await;
    assert!(told.iter().map(|(offset, _)| *offset).eq(2..=1_001));
}

async fn the_inbox_fills_until_the_subscription_ends(platform: &Platform) {
    let (ann, bob) = tokio::join!(platform.person("ann"), platform.person("bob"));
    let (topic, topic_id) = topic_with(&ann, 0).await;
    let channel = format!("notification:{topic}");
    let mut socket = bob.socket().await;
    socket.join(&channel, json!({})).await;
    ann.publish(&topic, "live").await;
    socket.notification(&topic).await;

    // Leaving ends the stream only.
    socket.push(&channel, "phx_leave", json!({})).await.unwrap();
    socket.event(&channel, "phx_close").await;
    ann.publish(&topic, "while away").await;
    assert_eq!(bob.unread(&topic).await, (2, 2));
    socket.join(&channel, json!({ "last_offset": 1 })).await;
    assert_eq!(socket.notification(&topic).await["message"], "while away");

    // The subscription goes with an explicit word, over either door.
    socket.push(&channel, "unsubscribe", json!({})).await.unwrap();
    ann.publish(&topic, "after the end").await;
    assert!(bob.inbox(&topic).await.iter().all(|n| n["message"] != "after the end"));
    bob.subscribe(&topic_id).await;
    ann.publish(&topic, "back").await;
    assert_eq!(bob.inbox(&topic).await[0]["message"], "back");
    bob.api.delete(&format!("/api/subscribers/{topic_id}")).await.expect(200);
    let listed = ann.api.get(&format!("/api/subscribers/{topic_id}")).await.expect(200);
    assert!(listed["subscribers"].as_array().unwrap().iter().all(|s| s["user_id"] != bob.id.as_str()), "{listed}");
}

async fn a_second_join_replaces_the_first(platform: &Platform) {
    let ann = platform.person("ann").await;
    let (topic, _) = topic_with(&ann, 0).await;
    let channel = format!("notification:{topic}");
    let mut socket = ann.socket().await;
    socket.join(&channel, json!({})).await;
    socket.join(&channel, json!({})).await;
    let closed = socket.wait("the end of the first channel", |f| f.topic == channel && f.event == "phx_close").await;
    assert_eq!((closed.join_ref, closed.reference), (json!("1"), json!("1")));
    ann.publish(&topic, "once").await;
    ann.publish(&topic, "the next").await;
    let told = socket.notifications(&topic, 2).await;
    assert_eq!(told, [(1, "once".to_owned()), (2, "the next".to_owned())]);
    // A message of the first channel is not the second's.
    socket.send_text(json!(["1", "99", channel, "phx_leave", {}]).to_string()).await;
    socket.heartbeat().await;
    ann.publish(&topic, "still here").await;
    assert_eq!(socket.notification(&topic).await["message"], "still here");
}

async fn a_topic_can_be_asked_for_the_own_notifications(platform: &Platform) {
    let (ann, bob) = tokio::join!(platform.person("ann"), platform.person("bob"));
    let (topic, topic_id) = topic_with(&ann, 0).await;
    bob.subscribe(&topic_id).await;
    let channel = format!("notification:{topic}");
    let published = ann.publish(&topic, "hello").await;
    let mut socket = bob.socket().await;
    socket.join(&channel, json!({})).await;
    socket.send(&channel, "own_notifications_for_topic", json!({})).await;
    let own = socket.event(&channel, "own_notifications_for_topic").await;
    assert_eq!(
        own,
        json!({ "success": true, "notifications": [{
            "notification_id": published["id"], "message": "hello", "topic_name": topic, "from": ann.email,
            "from_user_id": ann.id, "status": "unread", "inserted_at": own["notifications"][0]["inserted_at"],
        }] })
    );
    socket.push(&channel, "seen", json!({ "id": published["id"] })).await.unwrap();
    assert_eq!(bob.unread(&topic).await, (0, 0));
    for event in ["send_email", "generate_avatar"] {
        let answer = socket.push(&channel, event, json!({})).await;
        let (Ok(answer) | Err(answer)) = answer;
        assert_eq!(answer["success"], false, "{event}: its service does not exist yet");
    }
}

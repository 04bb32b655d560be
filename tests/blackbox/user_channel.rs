//! The channel of a person: what is unread, over all topics and sockets.

use serde_json::{Value, json};

use crate::harness::{Platform, Socket, in_both_forms, unique};

in_both_forms!(
    heads_and_unread_add_up,
    a_person_has_one_channel_and_it_is_private,
    subscriptions_made_and_ended_over_rest_reach_open_sockets,
);

async fn heads_and_unread_add_up(platform: &Platform) {
    let (ann, bob) = tokio::join!(platform.person("ann"), platform.person("bob"));
    let (joined, not_joined) = (unique("joined"), unique("not-joined"));
    for topic in [&joined, &not_joined] {
        let topic_id = ann.create_topic(topic).await;
        bob.subscribe(&topic_id).await;
    }
    ann.publish(&joined, "the first").await;

    let own = format!("user:{}", bob.id);
    let (mut watching, mut other) = tokio::join!(bob.socket(), bob.socket());
    let unread = watching.join(&own, json!({})).await;
    assert_eq!(unread["total"], 1, "{unread}");
    let counted =
        |topic: &str| unread["topics"].as_array().unwrap().iter().find(|t| t["topic"] == topic).unwrap().clone();
    assert_eq!((&counted(&joined)["unread"], &counted(&joined)["broadcast_no"]), (&json!(1), &json!(1)));
    assert_eq!((&counted(&not_joined)["unread"], &counted(&not_joined)["broadcast_no"]), (&json!(0), &json!(0)));

    // A broadcast moves the head of its topic, whether this socket has joined it or not; the client adds.
    let published = ann.publish(&not_joined, "one more").await;
    assert_eq!(watching.event(&own, "head").await, json!({ "topic": not_joined, "broadcast_no": 1 }));

    // Seen from another socket, a count of its own comes.
    let channel = format!("notification:{not_joined}");
    other.join(&channel, json!({})).await;
    other.push(&channel, "seen", json!({ "id": published["id"] })).await.unwrap();
    counted_as(&mut watching, &own, &not_joined, (0, 1)).await;

    // A targeted notification is no broadcast: the count comes.
    let targeted = json!({ "topic": joined, "message": "for you", "to": [bob.email] });
    ann.api.post("/api/notifications", targeted).await.expect(201);
    counted_as(&mut watching, &own, &joined, (2, 1)).await;
    assert_eq!(bob.unread(&joined).await, (2, 2));
}

/// Waits until the channel tells of so many unread in a topic, and of its last broadcast. What changed before may be told by itself or
/// together with what changed since.
async fn counted_as(socket: &mut Socket, own: &str, topic: &str, (unread, broadcast_no): (u64, u64)) {
    let told = |topics: &Value| {
        let of_topic = topics.as_array().unwrap().iter().find(|t| t["topic"] == topic).unwrap();
        of_topic["unread"] == unread && of_topic["broadcast_no"] == broadcast_no
    };
    while !told(&socket.event(own, "unread").await["topics"]) {}
}

async fn subscriptions_made_and_ended_over_rest_reach_open_sockets(platform: &Platform) {
    let (ann, bob) = tokio::join!(platform.person("ann"), platform.person("bob"));
    let topic = unique("by-rest");
    let topic_id = ann.create_topic(&topic).await;
    let (own, channel) = (format!("user:{}", bob.id), format!("notification:{topic}"));
    let mut socket = bob.socket().await;
    assert_eq!(socket.join(&own, json!({})).await["topics"], json!([]));

    bob.subscribe(&topic_id).await;
    assert_eq!(socket.event(&own, "unread").await["topics"][0]["topic"], topic.as_str());
    ann.publish(&topic, "the first").await;
    assert_eq!(socket.event(&own, "head").await, json!({ "topic": topic, "broadcast_no": 1 }));

    socket.join(&channel, json!({})).await;
    socket.event(&own, "unread").await;
    bob.api.delete(&format!("/api/subscribers/{topic_id}")).await.expect(200);
    socket.event(&channel, "phx_close").await;
    while socket.event(&own, "unread").await["topics"] != json!([]) {}
    socket.push(&channel, "own_notifications_for_topic", json!({})).await.unwrap_err();
}

async fn a_person_has_one_channel_and_it_is_private(platform: &Platform) {
    let (ann, bob) = tokio::join!(platform.person("ann"), platform.person("bob"));
    let mut socket = ann.socket().await;
    for foreign in [format!("user:{}", bob.id), "user:".into(), "user:nobody".into()] {
        socket.try_join(&foreign, json!({})).await.unwrap_err();
    }
    socket.join(&format!("user:{}", ann.id), json!({})).await;
}

//! The main job: what one publishes, the other sees live and in the inbox, and the counters have counted it.

use serde_json::json;

use crate::harness::{Platform, in_both_forms, unique};

in_both_forms!(what_one_publishes_the_other_sees, a_targeted_notification_reaches_its_recipients_only);

async fn what_one_publishes_the_other_sees(platform: &Platform) {
    let (ann, bob) = tokio::join!(platform.person("ann"), platform.person("bob"));
    let topic = unique("billing");
    let channel = format!("notification:{topic}");
    let (mut anns, mut bobs) = tokio::join!(ann.socket(), bob.socket());

    let joined = anns.join(&channel, json!({})).await;
    let topic_id = joined["topic_id"].as_str().unwrap().to_owned();
    assert_eq!(
        joined,
        json!({ "from_join": true, "can_broadcast": true, "topic_id": topic_id, "offset": 0, "recovered": false })
    );
    let joined = bobs.join(&channel, json!({})).await;
    assert_eq!((&joined["can_broadcast"], &joined["topic_id"]), (&json!(false), &json!(topic_id)));

    // Over the socket.
    let reply = anns.push(&channel, "new_notification", json!({ "message": "Grüße, ☃", "to": [] })).await.unwrap();
    assert_eq!((&reply["success"], &reply["offset"]), (&json!(true), &json!(1)), "{reply}");
    let live = bobs.notification(&topic).await;
    assert_eq!(
        live,
        json!({
            "id": reply["id"], "from": ann.email, "message": "Grüße, ☃", "to": [], "topic": topic, "offset": 1,
            "inserted_at": live["inserted_at"],
        })
    );
    assert_eq!(anns.notification(&topic).await, live, "the creator is a subscriber too");

    // Over REST.
    let second = ann.publish(&topic, "the second").await;
    assert_eq!((&second["topic"], &second["offset"]), (&json!(topic), &json!(2)));
    assert_eq!(bobs.notification(&topic).await["id"], second["id"]);

    let inbox = bob.inbox(&topic).await;
    assert_eq!(inbox.iter().map(|n| &n["id"]).collect::<Vec<_>>(), [&second["id"], &reply["id"]]);
    let oldest = &inbox[1];
    for (field, value) in
        [("message", "Grüße, ☃"), ("from", &ann.email), ("from_user_id", &ann.id), ("status", "unread")]
    {
        assert_eq!(oldest[field], value, "{oldest}");
    }
    assert_eq!(bob.unread(&topic).await, (2, 2));
    assert_eq!(ann.unread(&topic).await, (0, 0), "a creator's own broadcasts are not unread to it");

    let seen = bob.api.post(&format!("/api/notifications/{}/seen", second["id"].as_str().unwrap()), json!({})).await;
    assert_eq!(seen.expect(200)["topics"][0]["unread"], 1, "seen out of order");
    assert_eq!(bob.unread(&topic).await, (1, 1));
    let unread = bob.api.get(&format!("/api/notifications?topic_name={topic}&status=unread")).await.expect(200);
    assert_eq!(unread["notifications"].as_array().unwrap().len(), 1);
    bob.api.post(&format!("/api/topics/{topic_id}/seen?up_to=2"), json!({})).await.expect(200);
    assert_eq!(bob.unread(&topic).await, (0, 0));
    assert!(bob.inbox(&topic).await.iter().all(|n| n["status"] == "seen"));

    assert_eq!((ann.counter().await, bob.counter().await, ann.topic_counter(&topic_id).await), (2, 0, 2));
}

async fn a_targeted_notification_reaches_its_recipients_only(platform: &Platform) {
    let (ann, bob, cid) = tokio::join!(platform.person("ann"), platform.person("bob"), platform.person("cid"));
    let (topic, stranger) = (unique("payroll"), platform.person("stranger").await);
    let channel = format!("notification:{topic}");
    let mut anns = ann.socket().await;
    let topic_id = anns.join(&channel, json!({})).await["topic_id"].as_str().unwrap().to_owned();
    let (mut bobs, mut cids) = (bob.socket().await, cid.socket().await);
    bobs.join(&channel, json!({})).await;
    cids.join(&channel, json!({})).await;

    // By e-mail address in any case, by id, and twice the same person: each is told once.
    let to = json!([bob.email.to_uppercase(), bob.id]);
    let reply = anns.push(&channel, "new_notification", json!({ "message": "for bob", "to": to })).await.unwrap();
    assert_eq!(reply["offset"], 1);
    let to_cid = json!({ "topic": topic, "message": "for cid", "to": [cid.id] });
    ann.api.post("/api/notifications", to_cid).await.expect(201);
    let to_all = ann.publish(&topic, "for all").await;
    assert_eq!(to_all["offset"], 3);

    // The broadcast comes last: whoever has it would have had the others before it.
    let told = |pushed: Vec<(u64, String)>| pushed.into_iter().map(|(offset, _)| offset).collect::<Vec<_>>();
    assert_eq!(told(bobs.notifications(&topic, 2).await), [1, 3]);
    assert_eq!(told(cids.notifications(&topic, 2).await), [2, 3]);
    for (person, expected) in [(&bob, ["for all", "for bob"]), (&cid, ["for all", "for cid"])] {
        let inbox = person.inbox(&topic).await;
        assert_eq!(inbox.iter().map(|n| n["message"].as_str().unwrap()).collect::<Vec<_>>(), expected);
        assert_eq!(person.unread(&topic).await, (2, 2));
    }

    // One who is not a subscriber, or nobody at all: refused whole, nobody is told.
    for recipient in [&stranger.id, &stranger.email, &"nobody@example.org".to_owned(), &"nonsense".to_owned()] {
        let body = json!({ "topic": topic, "message": "refused", "to": [bob.id, recipient] });
        ann.api.post("/api/notifications", body).await.refused(409);
        let body = json!({ "message": "refused", "to": [bob.id, recipient] });
        let refused = anns.push(&channel, "new_notification", body).await.unwrap_err();
        assert_eq!(refused["success"], false, "{refused}");
    }
    assert_eq!(ann.publish(&topic, "the next").await["offset"], 4, "what is refused takes no offset");
    assert_eq!(bobs.notification(&topic).await["message"], "the next");
    assert_eq!((ann.counter().await, ann.topic_counter(&topic_id).await), (4, 4));
}

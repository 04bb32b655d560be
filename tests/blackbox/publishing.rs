//! Publishing over REST and sockets: what each answer promises, once per key, without gaps.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{Answer, Person, Platform, at_once, in_both_forms, send, unique};

in_both_forms!(
    every_outcome_has_its_status,
    a_repeated_key_is_one_notification,
    concurrent_publishes_leave_no_gap,
    what_is_prepared_by_hand_is_seen_after_its_commit_only,
    a_counter_is_raised_by_hand_by_its_commit_only,
);

async fn publish_with_key(person: &Person, key: &str, body: &Value) -> Answer {
    send(person.api.request(Method::POST, "/api/notifications").header("Idempotency-Key", key).json(body)).await
}

async fn every_outcome_has_its_status(platform: &Platform) {
    let (ann, bob) = tokio::join!(platform.person("ann"), platform.person("bob"));
    let topic = unique("news");
    let topic_id = ann.create_topic(&topic).await;
    let publish = |body| ann.api.post("/api/notifications", body);

    let by_name = publish(json!({ "topic": topic, "message": "by name" })).await.expect(201);
    let by_id = publish(json!({ "topic_id": topic_id, "message": "by id", "priority": 9 })).await.expect(201);
    assert_eq!((&by_name["offset"], &by_id["offset"], &by_id["topic"]), (&json!(1), &json!(2), &json!(topic)));
    let status = ann.api.get(&format!("/api/2pc/{}", by_id["gid"].as_str().unwrap())).await.expect(200);
    assert_eq!(status["state"], "committed", "{status}");

    ann.api.post("/api/topics", json!({ "name": topic })).await.refused(409);
    let unknown = publish(json!({ "topic": unique("unknown"), "message": "m" })).await;
    assert_eq!(unknown.refused(404), "topic_not_found");
    let foreign = bob.api.post("/api/notifications", json!({ "topic": topic, "message": "m" })).await;
    assert_eq!(foreign.refused(403), "not_creator");
    let both = publish(json!({ "topic": topic, "topic_id": topic_id, "message": "m" })).await;
    assert_eq!(both.refused(400), "topic_missing");
    platform.anonymous().post("/api/notifications", json!({ "topic": topic, "message": "m" })).await.refused(401);

    let path = format!("/api/topics/{topic_id}/status");
    let switch = |status| ann.api.post(&path, json!({ "status": status }));
    bob.api.post(&path, json!({ "status": "inactive" })).await.refused(403);
    switch("inactive").await.expect(200);
    assert_eq!(publish(json!({ "topic": topic, "message": "m" })).await.refused(409), "topic_inactive");
    switch("active").await.expect(200);
    assert_eq!(publish(json!({ "topic": topic, "message": "m" })).await.expect(201)["offset"], 3);
    assert_eq!((ann.counter().await, ann.topic_counter(&topic_id).await), (3, 3));
}

async fn a_repeated_key_is_one_notification(platform: &Platform) {
    let (ann, bob) = tokio::join!(platform.person("ann"), platform.person("bob"));
    let topic = unique("orders");
    let topic_id = ann.create_topic(&topic).await;
    bob.subscribe(&topic_id).await;
    let body = json!({ "topic": topic, "message": "once" });

    // Many at once, as a client does that lost its patience.
    let answers = at_once(8, |_| publish_with_key(&ann, "order-1", &body)).await;
    let ids: BTreeSet<_> = answers.iter().map(|answer| answer.json()["id"].to_string()).collect();
    assert!(answers.iter().all(|answer| matches!(answer.status, 201 | 202)), "{answers:#?}");
    assert_eq!(ids.len(), 1, "{answers:#?}");
    // And later: the same answer for good.
    let again = publish_with_key(&ann, "order-1", &body).await.expect(201);
    assert_eq!(ids.first(), Some(&again["id"].to_string()));
    assert_eq!(again["offset"], 1);

    // The socket is another door to the same keys.
    let mut socket = ann.socket().await;
    let channel = format!("notification:{topic}");
    socket.join(&channel, json!({})).await;
    let over_socket = json!({ "message": "once", "to": [], "key": "order-1" });
    assert_eq!(socket.push(&channel, "new_notification", over_socket).await.unwrap()["id"], again["id"]);

    let other = json!({ "topic": topic, "message": "another" });
    assert_eq!(publish_with_key(&ann, "order-1", &other).await.refused(422), "idempotency_key_reused");
    // Another person's key is another key.
    let bobs = unique("bobs");
    bob.create_topic(&bobs).await;
    publish_with_key(&bob, "order-1", &json!({ "topic": bobs, "message": "bob's" })).await.expect(201);
    for bad in ["", &"k".repeat(256)] {
        assert_eq!(publish_with_key(&ann, bad, &body).await.refused(400), "idempotency_key_invalid");
    }

    let inbox = bob.inbox(&topic).await;
    assert_eq!(inbox.len(), 1, "{inbox:#?}");
    assert_eq!((ann.counter().await, ann.topic_counter(&topic_id).await), (1, 1));
}

async fn concurrent_publishes_leave_no_gap(platform: &Platform) {
    const EACH: usize = 100;
    let (ann, bob) = tokio::join!(platform.person("ann"), platform.person("bob"));
    let topic = unique("ticks");
    let channel = format!("notification:{topic}");
    let (mut anns, mut bobs) = tokio::join!(ann.socket(), bob.socket());
    let topic_id = anns.join(&channel, json!({})).await["topic_id"].as_str().unwrap().to_owned();
    bobs.join(&channel, json!({})).await;

    // Half over REST, half over one socket, all at once.
    let rest = at_once(EACH, |n| {
        let (ann, topic) = (ann.clone(), topic.clone());
        async move { ann.publish(&topic, &format!("rest {n}")).await["offset"].as_u64().unwrap() }
    });
    let socket = async {
        let mut references = Vec::new();
        for n in 0..EACH {
            references.push(
                anns.send(&channel, "new_notification", json!({ "message": format!("socket {n}"), "to": [] })).await,
            );
        }
        let mut offsets = Vec::new();
        for reference in references {
            offsets.push(anns.reply(&reference).await.unwrap()["offset"].as_u64().unwrap());
        }
        offsets
    };
    let (rest, socket, live) = tokio::join!(rest, socket, bobs.notifications(&topic, 2 * EACH));

    let told: BTreeSet<u64> = rest.into_iter().chain(socket).collect();
    let all: Vec<u64> = (1..=2 * EACH as u64).collect();
    assert!(told.iter().eq(&all), "publishers were told {told:?}");
    assert!(live.iter().map(|(offset, _)| offset).eq(&all), "live: {live:?}");
    assert_eq!(live.iter().map(|(_, message)| message).collect::<BTreeSet<_>>().len(), 2 * EACH, "each once");
    let inbox = bob.inbox(&topic).await;
    assert!(inbox.iter().rev().map(|n| n["offset"].as_u64().unwrap()).eq(all), "the inbox");
    let total = 2 * EACH as u64;
    assert_eq!(bob.unread(&topic).await, (total, total));
    assert_eq!((ann.counter().await, ann.topic_counter(&topic_id).await), (total, total));
}

async fn what_is_prepared_by_hand_is_seen_after_its_commit_only(platform: &Platform) {
    let (ann, bob) = tokio::join!(platform.person("ann"), platform.person("bob"));
    let topic = unique("by-hand");
    let topic_id = ann.create_topic(&topic).await;
    let mut socket = bob.socket().await;
    assert_eq!(socket.join(&format!("notification:{topic}"), json!({})).await["offset"], 0);
    // Where there are several instances, what one of them prepares another decides.
    let doors = platform.instances("persist");
    let (here, there) = (ann.at(doors[0]).api, ann.at(doors[doors.len() - 1]).api);

    // By persist's own spelling, and by the one of every participant; under ids of Ann's own, so that she may repeat it.
    let (kept, dropped) = (Uuid::now_v7().to_string(), Uuid::now_v7().to_string());
    let body = |message: &str, id: &str, locked: bool| {
        let to_users = Vec::<&str>::new();
        json!({
            "topic_id": topic_id, "message": message, "to_users": to_users, "request_id": id, "is_2pc_locked": locked
        })
    };
    for api in [&here, &there] {
        let prepared = api.post("/api/notifications", body("kept", &kept, true)).await.expect(200);
        assert_eq!(prepared, json!({ "success": true, "data": { "request_id": kept } }));
        api.post("/api/prepare_2pc", body("dropped", &dropped, false)).await.expect(200);
    }
    assert_eq!(bob.inbox(&topic).await, Vec::<Value>::new(), "what is prepared is in no inbox");
    assert_eq!(bob.unread(&topic).await, (0, 0), "and counts for nothing");
    let another = there.post("/api/prepare_2pc", body("another", &kept, false)).await;
    assert_eq!(another.refused(422), "request_mismatch");
    let bobs = bob.at(doors[0]).api.post("/api/commit_2pc", json!({ "request_id": kept })).await;
    assert_eq!(bobs.refused(403), "transaction_foreign");

    there.delete(&format!("/api/notifications/rollback_2pc/{dropped}")).await.expect(200);
    there.delete(&format!("/api/rollback_2pc?request_id={dropped}")).await.expect(200);
    for path in ["/api/commit_2pc", "/api/notifications/commit_2pc"] {
        let committed = there.post(path, json!({ "request_id": kept })).await.expect(200);
        assert_eq!(committed["data"]["offset"], 1, "{committed}");
    }
    let late = here.post("/api/commit_2pc", json!({ "request_id": dropped })).await;
    assert_eq!(late.refused(409), "transaction_aborted");
    let late = here.delete(&format!("/api/notifications/rollback_2pc/{kept}")).await;
    assert_eq!(late.refused(409), "transaction_committed");
    let unknown = here.post("/api/commit_2pc", json!({ "request_id": Uuid::now_v7() })).await;
    assert_eq!(unknown.refused(404), "transaction_not_found");

    // A transaction of the coordinator is out of reach for people.
    let published = ann.publish(&topic, "by the gateway").await;
    let gid = published["gid"].as_str().unwrap();
    let which = json!({ "request_id": gid });
    let meddled = [
        here.post("/api/prepare_2pc", body("by the gateway", gid, false)).await,
        here.post("/api/commit_2pc", which.clone()).await,
        here.delete(&format!("/api/notifications/rollback_2pc/{gid}")).await,
        ann.at(platform.instances("counter-2pc")[0]).api.post("/api/commit_2pc", which).await,
    ];
    for answer in meddled {
        assert_eq!(answer.refused(403), "transaction_foreign");
    }
    here.post("/api/2pc/prepare", json!({ "items": [] })).await.refused(403);

    // Live and at rest: what was committed, in its order; of what was rolled back nothing.
    let live = socket.notifications(&topic, 2).await;
    assert_eq!(live, [(1, "kept".to_owned()), (2, "by the gateway".to_owned())]);
    let inbox = bob.inbox(&topic).await;
    assert_eq!(inbox.iter().map(|n| &n["message"]).collect::<Vec<_>>(), ["by the gateway", "kept"]);
    assert_eq!(bob.unread(&topic).await, (2, 2));
    // By hand each participant is on its own: persist's commit is not counted.
    assert_eq!((ann.counter().await, ann.topic_counter(&topic_id).await), (1, 1));
}

async fn a_counter_is_raised_by_hand_by_its_commit_only(platform: &Platform) {
    let (ann, bob) = tokio::join!(platform.person("ann"), platform.person("bob"));
    let topic_id = ann.create_topic(&unique("counted-by-hand")).await;
    let at = |person: &Person| person.at(platform.instances("counter-2pc")[0]).api;
    let counter = at(&ann);
    let own = format!("/api/commit_2pc/{}", ann.id);
    let prepare = || async {
        let body = json!({ "topic_id": topic_id });
        counter.post("/api/prepare_2pc", body).await.expect(200)["data"].clone()
    };
    let (kept, dropped) = (prepare().await, prepare().await);
    let locked = counter.get(&format!("/api/counter/{}", ann.id)).await.expect(200);
    let expected = json!({ "user_id": ann.id, "counter": 0, "count_2pc_next": 2, "is_2pc_locked": true });
    assert_eq!(locked, expected);

    assert_eq!(at(&bob).post("/api/commit_2pc", kept.clone()).await.refused(403), "transaction_foreign");
    assert_eq!(at(&bob).post(&own, kept.clone()).await.refused(403), "counter_foreign");
    let not_hers = at(&bob).post("/api/prepare_2pc", json!({ "topic_id": topic_id })).await;
    assert_eq!(not_hers.refused(403), "not_creator");

    let id = dropped["request_id"].as_str().unwrap();
    counter.delete(&format!("/api/rollback_2pc?request_id={id}")).await.expect(200);
    for path in ["/api/commit_2pc", &own] {
        let committed = counter.post(path, kept.clone()).await.expect(200);
        assert_eq!((&committed["data"]["counter"], &committed["data"]["count_2pc_next"]), (&json!(1), &json!(1)));
    }
    assert_eq!(counter.post(&own, dropped).await.refused(409), "transaction_aborted");
    assert_eq!((ann.counter().await, ann.topic_counter(&topic_id).await), (1, 1));
}

//! Persist through its real door, on port 0.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod by_hand;
mod harness;

use notifyx_model::{Gid, TopicId};
use notifyx_wire::header;
use reqwest::Method;
use serde_json::{Value, json};

use harness::{Nobody, Service, User, open};

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_reaches_log_inbox_and_counts() {
    let door = open().await;
    let (ann, bob) = (door.user(), door.user());
    let topic = door.join("billing", ann).await;
    assert_eq!(door.join("billing", bob).await, topic);

    let items = [
        door.item(&topic, ann, "one", &[]),
        door.item(&topic, ann, "for bob", &[bob]),
        door.item(&topic, ann, "two", &[]),
    ];
    let (status, votes) = door.post(Service, "/api/2pc/prepare", json!({ "items": items })).await;
    assert_eq!((status, &votes["votes"]), (200, &json!(["yes", "yes", "yes"])));
    let acks = door.step("commit", &items).await;
    assert_eq!(acks[1]["done"]["applied"]["offset"], 2);
    assert_eq!(acks[2]["done"]["applied"]["broadcast_no"], 2);

    let (_, log) = door.get(Service, &format!("/api/topics/{topic}/log?after=1&limit=10")).await;
    assert_eq!((&log["offset"], log["notifications"].as_array().unwrap().len()), (&json!(3), 2));
    assert_eq!(log["notifications"][0]["to"], json!([bob]));
    let (_, heads) = door.post(Service, "/api/topics/heads", json!({ "topics": ["billing", "none"] })).await;
    assert_eq!(heads["heads"][0]["offset"], 3);

    let (_, unread) = door.get(User(bob), "/api/notifications/unread").await;
    assert_eq!((&unread["total"], &unread["topics"][0]["broadcast_no"]), (&json!(3), &json!(2)));
    let (_, inbox) = door.get(User(bob), "/api/notifications?topic_name=billing&status=unread&limit=2").await;
    let lines = inbox["notifications"].as_array().unwrap();
    assert_eq!(
        (&lines[0]["message"], &lines[1]["message"], &lines[0]["status"]),
        (&json!("two"), &json!("for bob"), &json!("unread"))
    );
    let next = inbox["next"].as_str().unwrap();
    let (_, rest) = door.get(User(bob), &format!("/api/notifications?after={next}")).await;
    assert_eq!((&rest["notifications"][0]["message"], &rest["next"]), (&json!("one"), &Value::Null));

    let (status, left) = door.post(User(bob), &format!("/api/notifications/{next}/seen"), Value::Null).await;
    assert_eq!((status, &left["total"]), (200, &json!(2)));
    let (status, left) = door.post(User(bob), &format!("/api/topics/{topic}/seen?up_to=3"), Value::Null).await;
    assert_eq!((status, &left["topics"][0]["unread"]), (200, &json!(0)));
    door.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn by_hand_a_notification_is_prepared_and_committed() {
    let door = open().await;
    let (ann, bob) = (door.user(), door.user());
    let (status, topic) = door.post(User(ann), "/api/topics", json!({ "name": "billing", "longevity": 3600 })).await;
    assert_eq!((status, &topic["longevity"], &topic["offset"]), (201, &json!(3600), &json!(0)));
    let id = topic["id"].as_str().unwrap();
    let subscribers = format!("/api/subscribers/{id}");
    assert_eq!(door.post(User(bob), &subscribers, Value::Null).await.0, 200);
    let (_, page) = door.get(User(bob), &subscribers).await;
    assert_eq!(page["subscribers"][0]["user_id"], json!(bob));

    let (status, sent) =
        door.post(User(ann), "/api/notifications", json!({ "topic_id": id, "message": "at once" })).await;
    assert_eq!(
        (status, &sent["offset"], &sent["topic"], &sent["priority"]),
        (201, &json!(1), &json!("billing"), &json!(4))
    );

    let prepared =
        json!({ "topic_id": id, "message": "held", "to_users": [bob], "is_2pc_locked": true, "priority": 9 });
    let mut requests = Vec::new();
    for _ in 0..2 {
        let (status, body) = door.post(User(ann), "/api/notifications", prepared.clone()).await;
        assert_eq!((status, &body["success"]), (200, &json!(true)));
        requests.push(body["data"]["request_id"].as_str().unwrap().to_owned());
    }
    assert_eq!(door.get(User(bob), "/api/notifications").await.1["notifications"].as_array().unwrap().len(), 1);
    let commit = |caller, id: &str| door.post(caller, "/api/notifications/commit_2pc", json!({ "request_id": id }));
    assert_eq!(commit(User(bob), &requests[0]).await.1["code"], "transaction_foreign");
    for _ in 0..2 {
        let (status, done) = commit(User(ann), &requests[0]).await;
        assert_eq!((status, &done["data"]["offset"]), (200, &json!(2)));
    }
    let rollback = |id: &str| format!("/api/notifications/rollback_2pc/{id}");
    assert_eq!(door.delete(User(ann), &rollback(&requests[1])).await.0, 200);
    assert_eq!(commit(User(ann), &requests[1]).await.1["code"], "transaction_aborted");
    assert_eq!(door.delete(User(ann), &rollback(&requests[0])).await.1["code"], "transaction_committed");
    assert_eq!(door.delete(User(bob), &subscribers).await.0, 204);
    assert_eq!(door.get(User(bob), "/api/notifications").await.1["notifications"], json!([]));
    door.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_item_of_a_batch_has_its_own_answer() {
    let door = open().await;
    let (ann, eve) = (door.user(), door.user());
    let topic = door.join("billing", ann).await;
    let closed = door.join("closed", ann).await;
    let status = json!({ "status": "inactive" });
    let refused = door.post(User(eve), &format!("/api/topics/{closed}/status"), status.clone()).await;
    assert_eq!((refused.0, &refused.1["code"]), (403, &json!("not_creator")));
    assert_eq!(door.post(User(ann), &format!("/api/topics/{closed}/status"), status).await.0, 200);
    let crowd: Vec<_> = (0..1_001).map(|_| ann).collect();
    let items = [
        door.item(&topic, ann, "fine", &[ann, ann]),
        door.item(&TopicId::new(&door.clock).to_string(), ann, "nowhere", &[]),
        door.item(&topic, eve, "not hers", &[]),
        door.item(&closed, ann, "closed", &[]),
        door.item(&topic, ann, "to a stranger", &[ann, eve]),
        door.item(&topic, ann, "to a crowd", &crowd),
    ];
    let (_, body) = door.post(Service, "/api/2pc/prepare", json!({ "items": items })).await;
    let votes = body["votes"].as_array().unwrap();
    assert_eq!(votes[0], "yes");
    let refusals: Vec<_> = votes[1..]
        .iter()
        .map(|vote| (vote["no"]["status"].as_u64().unwrap(), vote["no"]["code"].as_str().unwrap()))
        .collect();
    assert_eq!(
        refusals,
        [
            (404, "topic_not_found"),
            (403, "not_creator"),
            (409, "topic_inactive"),
            (409, "recipient_not_subscribed"),
            (400, "too_many_recipients")
        ]
    );
    let acks = door.step("commit", &items[..2]).await;
    assert_eq!(acks[0]["done"]["applied"]["offset"], 1);
    assert_eq!(acks[1]["violation"]["code"], "transaction_aborted");
    let acks = door.step("rollback", &items[..2]).await;
    assert_eq!((&acks[0]["violation"]["code"], &acks[1]), (&json!("transaction_committed"), &json!({ "done": {} })));

    let mut other = items[0].clone();
    other["publish"]["message"] = json!("another");
    let (_, body) = door.post(Service, "/api/2pc/prepare", json!({ "items": [items[0], other] })).await;
    assert_eq!((&body["votes"][0], &body["votes"][1]["no"]["status"]), (&json!("yes"), &json!(422)));

    let joins = json!({ "items": [{ "topic": "billing", "user_id": ann }, { "topic": "third", "user_id": ann }] });
    let (_, body) = door.post(Service, "/api/topics/join", joins).await;
    assert_eq!(
        (&body["results"][0]["ok"]["offset"], &body["results"][1]["problem"]["code"]),
        (&json!(1), &json!("too_many_topics"))
    );
    door.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_gets_its_answer() {
    let door = open().await;
    let (ann, eve) = (door.user(), door.user());
    let topic = door.join("billing", ann).await;
    let (nowhere, long) = (TopicId::new(&door.clock), "x".repeat(300));
    let publish = |body: Value| (User(ann), "/api/notifications".to_owned(), body);
    let posts = [
        (User(ann), "/api/topics".to_owned(), json!({ "name": long }), 400, "body_invalid"),
        (User(ann), "/api/topics".to_owned(), json!({ "name": "a", "colour": "red" }), 400, "body_invalid"),
        (User(ann), "/api/topics".to_owned(), json!({ "name": "a", "longevity": 59 }), 400, "longevity_invalid"),
        (User(eve), "/api/topics".to_owned(), json!({ "name": "billing" }), 409, "topic_name_taken"),
        (User(ann), format!("/api/topics/{topic}/status"), json!({ "status": "asleep" }), 400, "body_invalid"),
        (User(ann), format!("/api/topics/{nowhere}/status"), json!({ "status": "active" }), 404, "topic_not_found"),
        (User(ann), format!("/api/subscribers/{nowhere}"), Value::Null, 404, "topic_not_found"),
        (User(ann), "/api/subscribers/billing".to_owned(), Value::Null, 400, "path_invalid"),
        (User(ann), format!("/api/topics/{topic}/seen?up_to=-1"), Value::Null, 400, "query_invalid"),
        (User(eve), format!("/api/topics/{topic}/seen?up_to=1"), Value::Null, 404, "not_subscribed"),
        (User(eve), format!("/api/topics/{nowhere}/seen?up_to=1"), Value::Null, 404, "topic_not_found"),
        (User(ann), format!("/api/notifications/{nowhere}/seen"), Value::Null, 404, "notification_not_found"),
    ];
    let notifications = [
        (publish(json!({ "topic_id": topic, "message": "" })), 400, "body_invalid"),
        (publish(json!({ "topic_id": topic, "message": "a\u{0}b" })), 400, "body_invalid"),
        (publish(json!({ "topic_id": topic, "message": "a", "priority": 10 })), 400, "body_invalid"),
        (publish(json!({ "topic_id": nowhere, "message": "a" })), 404, "topic_not_found"),
        (publish(json!({ "topic_id": topic, "message": "a", "to_users": [eve] })), 409, "recipient_not_subscribed"),
        (publish(json!({ "topic_id": topic, "message": "x".repeat(2 << 20) })), 413, "body_too_large"),
    ];
    let notifications =
        notifications.into_iter().map(|((caller, path, body), status, code)| (caller, path, body, status, code));
    for (caller, path, body, status, code) in posts.into_iter().chain(notifications) {
        let (got, problem) = door.post(caller, &path, body).await;
        assert_eq!((got, problem["code"].as_str().unwrap_or("")), (status, code), "{path}: {problem}");
    }
    let gets = [
        (User(ann), "/api/topics?limit=0".to_owned(), 400, "limit_invalid"),
        (User(ann), "/api/topics?limit=many".to_owned(), 400, "query_invalid"),
        (User(ann), format!("/api/topics/{nowhere}"), 404, "topic_not_found"),
        (User(eve), format!("/api/subscribers/{topic}"), 403, "not_subscribed"),
        (User(ann), "/api/notifications?status=lost".to_owned(), 400, "query_invalid"),
        (User(ann), "/api/notifications?topic_name=nowhere".to_owned(), 404, "topic_not_found"),
        (User(ann), format!("/api/notifications?after={nowhere}"), 404, "notification_not_found"),
        (Service, format!("/api/topics/{nowhere}/log"), 404, "topic_not_found"),
        (Service, format!("/api/topics/{topic}/log?limit=1001"), 400, "limit_invalid"),
    ];
    for (caller, path, status, code) in gets {
        let (got, problem) = door.get(caller, &path).await;
        assert_eq!((got, problem["code"].as_str().unwrap_or("")), (status, code), "{path}: {problem}");
    }
    let broken = door
        .request(User(ann), Method::POST, "/api/topics")
        .header("content-type", "application/json")
        .body("{\"name\":");
    assert_eq!(door.answer(broken).await.0, 400);
    // Nothing came of any of it.
    assert_eq!(door.get(User(ann), &format!("/api/topics/{topic}")).await.1["offset"], 0);
    door.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_are_bounded() {
    let door = open().await;
    let gids: Vec<_> = (0..513).map(|_| Gid::new(&door.clock)).collect();
    let user = door.user();
    let items: Vec<_> = (0..1_001).map(|_| json!({ "topic": "t", "user_id": user })).collect();
    let names: Vec<_> = (0..10_001).map(|i| format!("t{i}")).collect();
    for (path, body) in [
        ("/api/2pc/commit", json!({ "gids": gids })),
        ("/api/2pc/rollback", json!({ "gids": gids })),
        ("/api/topics/join", json!({ "items": items })),
        ("/api/topics/heads", json!({ "topics": names })),
    ] {
        let (status, problem) = door.post(Service, path, body).await;
        assert_eq!((status, &problem["code"]), (413, &json!("batch_too_large")), "{path}");
    }
    door.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_batch_of_the_longest_messages_is_taken() {
    let door = open().await;
    let ann = door.user();
    let topic = door.join("billing", ann).await;
    let message = "x".repeat(64 * 1024);
    let items: Vec<_> = (0..512).map(|_| door.item(&topic, ann, &message, &[])).collect();
    let (status, body) = door.post(Service, "/api/2pc/prepare", json!({ "items": items })).await;
    assert_eq!(status, 200, "{body}");
    assert!(body["votes"].as_array().unwrap().iter().all(|vote| vote == "yes"));
    let acks = door.step("commit", &items).await;
    assert_eq!(acks[511]["done"]["applied"]["offset"], 512);
    // A page is bounded by its bytes.
    let (_, log) = door.get(Service, &format!("/api/topics/{topic}/log?limit=1000")).await;
    assert_eq!(log["notifications"].as_array().unwrap().len(), 64);
    door.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_door_asks_who_is_there() {
    let door = open().await;
    let topic = door.join("billing", door.user()).await;
    for path in ["/api/topics", "/api/notifications", "/api/notifications/unread", &format!("/api/topics/{topic}/log")]
    {
        assert_eq!(door.get(Nobody, path).await.0, 401, "{path}");
    }
    // A service has no inbox.
    assert_eq!(door.get(Service, "/api/notifications").await.0, 401);
    let wrong = door.request(Nobody, Method::GET, "/api/topics").header(header::CLUSTER_SECRET, "guessed");
    assert_eq!(door.answer(wrong).await.0, 401);
    // Auth cannot be asked here: the token is neither believed nor called wrong.
    let token = door.request(Nobody, Method::GET, "/api/topics").bearer_auth("t".repeat(43));
    assert_eq!(door.answer(token).await.0, 503);
    assert_eq!(door.get(Service, &format!("/api/subscribers/{topic}")).await.0, 200);
    door.running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_description_names_every_route() {
    let door = open().await;
    assert_eq!(door.get(Nobody, "/ready").await.0, 200);
    let (_, api) = door.get(Nobody, "/api/openapi.json").await;
    let mut paths: Vec<_> = api["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    paths.sort_unstable();
    assert_eq!(
        paths,
        [
            "/api/2pc/commit",
            "/api/2pc/prepare",
            "/api/2pc/rollback",
            "/api/commit_2pc",
            "/api/notifications",
            "/api/notifications/commit_2pc",
            "/api/notifications/rollback_2pc/{request_id}",
            "/api/notifications/unread",
            "/api/notifications/{id}/seen",
            "/api/prepare_2pc",
            "/api/rollback_2pc",
            "/api/subscribers/{topic_id}",
            "/api/topics",
            "/api/topics/heads",
            "/api/topics/join",
            "/api/topics/{id}",
            "/api/topics/{id}/log",
            "/api/topics/{id}/seen",
            "/api/topics/{id}/status",
        ]
    );
    door.running.stop().await;
}

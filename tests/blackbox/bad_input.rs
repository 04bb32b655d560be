//! Bad input at every door: it gets its answer and harms nobody else.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::harness::{Api, Person, Platform, RawSocket, Socket, at_once, figure, frame, in_both_forms, send, unique};

in_both_forms!(
    rest_answers_bad_input,
    inner_doors_answer_bad_input,
    bad_frames_harm_no_other_channel,
    broken_websockets_end_alone,
    who_never_reads_is_ended_alone,
);

/// For what takes some milliseconds, on a machine that runs all tests at once.
const SOON: Duration = Duration::from_secs(60);

/// Somebody whose socket must not notice anything.
struct Bystander {
    publisher: Person,
    socket: Socket,
    topic: String,
}

impl Bystander {
    async fn new(platform: &Platform) -> Self {
        let publisher = platform.person("bystander").await;
        let topic = unique("bystander");
        let mut socket = publisher.socket().await;
        socket.join(&format!("notification:{topic}"), json!({})).await;
        Self { publisher, socket, topic }
    }

    async fn is_served(&mut self) {
        let message = unique("still served");
        self.publisher.publish(&self.topic, &message).await;
        assert_eq!(self.socket.notification(&self.topic).await["message"], message);
    }
}

async fn rest_answers_bad_input(platform: &Platform) {
    let mut bystander = Bystander::new(platform).await;
    let (ann, bob) = tokio::join!(platform.person("ann"), platform.person("bob"));
    let (mine, bobs) = (unique("mine"), unique("bobs"));
    ann.create_topic(&mine).await;
    let bobs_id = bob.create_topic(&bobs).await;
    let bobs_published = bob.publish(&bobs, "m").await;
    let nowhere = uuid::Uuid::now_v7();
    let long = "x".repeat(300);

    let posts = [
        ("/api/register_user", json!({ "email": "not an address", "password": "long enough" }), 400),
        ("/api/register_user", json!({ "email": format!("{long}@example.org"), "password": "long enough" }), 400),
        ("/api/register_user", json!({ "email": "short@example.org", "password": "seven77" }), 400),
        ("/api/register_user", json!({ "email": "long@example.org", "password": "x".repeat(257) }), 400),
        ("/api/register_user", json!({ "email": 7, "password": [] }), 400),
        ("/api/login", json!({}), 400),
        ("/api/login", json!([1, 2]), 400),
        // Not even where the fields would fit in their order.
        ("/api/login", json!([ann.email, ann.password]), 400),
        ("/api/topics", json!(["kept", null]), 400),
        ("/api/topics", json!({ "name": long }), 400),
        ("/api/topics", json!({ "name": "" }), 400),
        ("/api/topics", json!({ "name": "a\u{0}b" }), 400),
        ("/api/topics", json!({ "name": "kept", "longevity": -1 }), 400),
        ("/api/topics", json!({ "name": "kept", "longevity": 1 }), 400),
        ("/api/topics", json!({ "name": "kept", "unknown_key": 1 }), 400),
        ("/api/keys", json!({ "name": "kept", "scopes": ["publish:a*b"] }), 400),
        ("/api/keys", json!({ "name": "kept", "scopes": vec!["publish:*"; 33] }), 400),
        ("/api/keys", json!({ "name": "kept", "scopes": ["publish:*"], "ttl_s": -1 }), 400),
        ("/api/notifications", json!({ "topic": long, "message": "m" }), 400),
        ("/api/notifications", json!({ "message": "m" }), 400),
        ("/api/notifications", json!({ "topic": mine, "message": "" }), 400),
        ("/api/notifications", json!({ "topic": mine, "message": "a\u{0}b" }), 400),
        ("/api/notifications", json!({ "topic": mine, "message": "m".repeat(64 * 1024 + 1) }), 400),
        ("/api/notifications", json!({ "topic": mine, "message": { "text": "m" } }), 400),
        ("/api/notifications", json!({ "topic": mine, "message": "m", "to": "ann" }), 400),
        ("/api/notifications", json!({ "topic": mine, "message": "m", "to": vec!["a@b.c"; 1_001] }), 400),
        ("/api/notifications", json!({ "topic": mine, "message": "m", "priority": 10 }), 400),
        ("/api/notifications", json!({ "topic": mine, "message": "m", "priority": "high" }), 400),
        ("/api/notifications", json!({ "topic_id": nowhere, "message": "m" }), 404),
        ("/api/notifications", json!({ "topic_id": bobs_id, "message": "m" }), 403),
    ];
    for (path, body, status) in posts {
        let answer = ann.api.post(path, body.clone()).await;
        assert_eq!(answer.status, status, "{path} {:.200}: {}", body.to_string(), answer.text);
        answer.refused(status);
    }

    let requests = [
        (Method::POST, format!("/api/topics/{bobs_id}/status"), json!({ "status": "gone" }), 400),
        (Method::POST, format!("/api/topics/{bobs_id}/status"), json!({ "status": "inactive" }), 403),
        (Method::POST, format!("/api/topics/{nowhere}/status"), json!({ "status": "inactive" }), 404),
        (Method::GET, format!("/api/topics/{nowhere}"), Value::Null, 404),
        (Method::GET, "/api/topics/nonsense".into(), Value::Null, 400),
        (Method::POST, format!("/api/subscribers/{nowhere}"), json!({}), 404),
        (Method::DELETE, format!("/api/subscribers/{nowhere}"), Value::Null, 404),
        (Method::POST, format!("/api/notifications/{nowhere}/seen"), json!({}), 404),
        (Method::POST, format!("/api/notifications/{}/seen", bobs_published["id"].as_str().unwrap()), json!({}), 404),
        (Method::POST, format!("/api/topics/{bobs_id}/seen?up_to=1"), json!({}), 404),
        (Method::POST, format!("/api/topics/{bobs_id}/seen?up_to=-1"), json!({}), 400),
        (Method::POST, format!("/api/topics/{bobs_id}/seen"), json!({}), 400),
        (Method::GET, format!("/api/2pc/{nowhere}"), Value::Null, 404),
        (Method::GET, format!("/api/2pc/{}", bobs_published["gid"].as_str().unwrap()), Value::Null, 404),
        (Method::GET, "/api/2pc/nonsense".into(), Value::Null, 400),
        (Method::GET, "/api/notifications?limit=0".into(), Value::Null, 400),
        (Method::GET, "/api/notifications?limit=501".into(), Value::Null, 400),
        (Method::GET, "/api/notifications?limit=many".into(), Value::Null, 400),
        (Method::GET, "/api/notifications?status=lost".into(), Value::Null, 400),
        (Method::GET, "/api/notifications?unknown=1".into(), Value::Null, 400),
        (Method::GET, format!("/api/notifications?topic_name={long}"), Value::Null, 400),
        (Method::GET, "/api/nowhere".into(), Value::Null, 404),
        (Method::PUT, "/api/notifications".into(), json!({}), 405),
    ];
    for (method, path, body, status) in requests {
        let mut request = ann.api.request(method.clone(), &path);
        if !body.is_null() {
            request = request.json(&body);
        }
        let answer = send(request).await;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text);
        answer.refused(status);
    }

    // Bodies that are no JSON at all, at every path that takes one.
    for path in ["/api/register_user", "/api/login", "/api/topics", "/api/notifications"] {
        let post = || ann.api.request(Method::POST, path);
        let json = |body: Vec<u8>| post().header("content-type", "application/json").body(body);
        for broken in [&b"{"[..], b"", b"\xff\xfe", b"{\"topic\":", b"nul"] {
            send(json(broken.to_vec())).await.refused(400);
        }
        send(json(b"[".repeat(100_000))).await.refused(400);
        send(json(vec![b' '; 2 * 1024 * 1024])).await.refused(413);
        send(post().header("content-type", "text/plain").body("{}")).await.refused(415);
    }
    for header in ["Bearer", "Bearer ", "Bearer x", "Basic !!!", "Digest x"] {
        let answer =
            send(Api::new(platform.gateway()).request(Method::GET, "/api/counter").header("authorization", header))
                .await;
        assert!(matches!(answer.status, 400 | 401), "{header}: {}", answer.text);
    }
    bystander.is_served().await;
}

async fn inner_doors_answer_bad_input(platform: &Platform) {
    let mut bystander = Bystander::new(platform).await;
    let secret = platform.secret.as_str();
    let nowhere = uuid::Uuid::now_v7();
    let long = "x".repeat(300);
    let requests = [
        ("auth", Method::POST, "/api/users".to_owned(), json!({ "email": long, "password": 1 }), 400),
        ("auth", Method::POST, "/api/users/resolve".into(), json!({ "ids": ["nonsense"] }), 400),
        ("auth", Method::POST, "/api/users/resolve".into(), json!({ "ids": vec![nowhere; 1_001] }), 400),
        ("auth", Method::GET, format!("/api/users/{nowhere}"), Value::Null, 404),
        ("auth", Method::GET, "/api/revocations?after=-1".into(), Value::Null, 400),
        ("persist", Method::POST, "/api/topics/heads".into(), json!({ "topics": [long] }), 400),
        ("persist", Method::POST, "/api/topics/join".into(), json!({ "items": [{ "topic": "t" }] }), 400),
        ("persist", Method::POST, "/api/2pc/prepare".into(), json!({ "items": [{ "gid": nowhere }] }), 400),
        ("persist", Method::POST, "/api/2pc/commit".into(), json!({ "gids": vec![nowhere; 513] }), 413),
        ("persist", Method::GET, format!("/api/topics/{nowhere}/log?after=0"), Value::Null, 404),
        ("counter-2pc", Method::POST, "/api/2pc/commit".into(), json!({ "gids": [7] }), 400),
        ("counter-2pc", Method::POST, "/api/2pc/rollback".into(), json!({ "gids": vec![nowhere; 513] }), 413),
        ("counter-2pc", Method::GET, "/api/counter/nonsense".into(), Value::Null, 400),
        (
            "discovery",
            Method::POST,
            "/api/register".into(),
            json!({ "service": "No Name", "address": "127.0.0.1:1" }),
            400,
        ),
        ("discovery", Method::POST, "/api/register".into(), json!({ "service": "x", "address": "nonsense" }), 400),
        (
            "discovery",
            Method::POST,
            "/api/register".into(),
            json!({ "service": "x", "address": "h:1", "meta": { "k": long } }),
            400,
        ),
        ("discovery", Method::PUT, format!("/api/instances/{nowhere}"), Value::Null, 404),
        ("discovery", Method::GET, "/api/service_address/nobody".into(), Value::Null, 404),
        ("discovery", Method::GET, "/api/watch?after=x".into(), Value::Null, 400),
    ];
    for (service, method, path, body, status) in requests {
        let mut request = platform.door(service).request(method.clone(), &path).header("x-notifyx-cluster", secret);
        if !body.is_null() {
            request = request.json(&body);
        }
        let answer = send(request).await;
        assert_eq!(answer.status, status, "{service} {method} {path}: {}", answer.text);
        answer.refused(status);
    }
    let committed =
        platform.door("persist").request(Method::POST, "/api/2pc/commit").header("x-notifyx-cluster", secret);
    let acks = send(committed.json(&json!({ "gids": [nowhere] }))).await.expect(200);
    assert!(acks["acks"][0]["violation"].is_object(), "a commit of nothing is a violation: {acks}");

    let ann = platform.person("ann").await;
    for (service, path) in [
        ("auth", "/api/users"),
        ("persist", "/api/topics"),
        ("counter-2pc", &format!("/api/prepare_increment_2pc/{}", ann.id)),
        ("discovery", "/api/register"),
    ] {
        let post = |body: Vec<u8>| {
            let request = platform.door(service).request(Method::POST, path).header("x-notifyx-cluster", secret);
            let request = request.header("x-notifyx-user", format!("{} {}", ann.id, ann.email));
            send(request.header("content-type", "application/json").body(body))
        };
        post(b"{".to_vec()).await.refused(400);
        post(vec![b' '; 2 * 1024 * 1024]).await.refused(413);
    }
    bystander.is_served().await;
}

async fn bad_frames_harm_no_other_channel(platform: &Platform) {
    let mut bystander = Bystander::new(platform).await;
    let (ann, bob) = tokio::join!(platform.person("ann"), platform.person("bob"));
    let (good, foreign) = (unique("good"), unique("foreign"));
    bob.create_topic(&foreign).await;
    let channel = format!("notification:{good}");
    let mut socket = ann.socket().await;
    socket.join(&channel, json!({})).await;

    // Joins that cannot be.
    for topic in ["", "nonsense", "notification:", "notification", "phoenix", "user:x"] {
        let refused = socket.try_join(topic, json!({})).await.unwrap_err();
        assert!(refused["reason"].is_string(), "{topic}: {refused}");
    }
    assert_eq!(socket.try_join("nonsense", json!({})).await.unwrap_err(), json!({ "reason": "unmatched topic" }));
    for name in ["x".repeat(201), "a\u{0}b".into(), " a".into()] {
        socket.try_join(&format!("notification:{name}"), json!({})).await.unwrap_err();
    }
    for params in [json!({ "last_offset": -1 }), json!({ "last_offset": "1" }), json!("1")] {
        socket.try_join(&format!("notification:{}", unique("t")), params).await.unwrap_err();
    }
    // Pushes that cannot be, on a channel that lives on.
    let pushes = [
        ("new_notification", json!({})),
        ("new_notification", json!({ "message": 7, "to": [] })),
        ("new_notification", json!({ "message": "", "to": [] })),
        ("new_notification", json!({ "message": "m", "to": "ann" })),
        ("new_notification", json!({ "message": "m", "to": ["nobody@example.org"] })),
        ("new_notification", json!({ "message": "m", "to": [], "priority": 99 })),
        ("new_notification", json!({ "message": "m", "to": [], "key": "" })),
        ("new_notification", json!({ "message": "m".repeat(64 * 1024 + 1), "to": [] })),
        ("new_notification", json!(["m"])),
        ("new_notification", Value::Null),
        ("seen", json!({ "id": "nonsense" })),
        ("seen", json!({ "id": uuid::Uuid::now_v7() })),
        ("no_such_event", json!({})),
    ];
    for (event, payload) in pushes {
        let refused = socket.push(&channel, event, payload.clone()).await;
        assert!(refused.is_err(), "{event} {:.100}: {refused:?}", payload.to_string());
    }
    socket.join(&format!("notification:{foreign}"), json!({})).await;
    let body = json!({ "message": "m", "to": [] });
    let refused = socket.push(&format!("notification:{foreign}"), "new_notification", body.clone()).await.unwrap_err();
    assert_eq!(refused["reason"], "not_creator", "{refused}");
    let not_joined = format!("notification:{}", unique("not-joined"));
    assert_eq!(
        socket.push(&not_joined, "new_notification", body).await.unwrap_err(),
        json!({ "reason": "unmatched topic" })
    );
    assert_eq!(socket.push(&not_joined, "phx_leave", json!({})).await, Ok(json!({})), "there is nothing to leave");
    ann.publish(&good, "the channel lives").await;
    assert_eq!(socket.notification(&good).await["message"], "the channel lives");

    // A hundred channels on a socket; where one is left, another may be joined.
    let mut many = ann.socket().await;
    let topics: Vec<_> = (0..101).map(|_| format!("notification:{}", unique("many"))).collect();
    for topic in &topics[..100] {
        many.join(topic, json!({})).await;
    }
    let refused = many.try_join(&topics[100], json!({})).await.unwrap_err();
    assert_eq!(refused, json!({ "reason": "too many channels joined" }));
    many.push(&topics[0], "phx_leave", json!({})).await.unwrap();
    many.join(&topics[100], json!({})).await;

    // What is no frame of Phoenix at all: an answer or an end, of this socket alone.
    let nonsense = [
        Message::text("nonsense"),
        Message::text("{}"),
        Message::text("[]"),
        Message::text(r#"["1","1","t","e"]"#),
        Message::text(r#"["1","1","t","e",{},{}]"#),
        Message::text("[1,2,3,4,5]"),
        Message::text("["),
        Message::text("[".repeat(100_000)),
        Message::text(r#"{"topic":"phoenix","event":"heartbeat","payload":{},"ref":"1"}"#),
        Message::binary(vec![]),
        Message::binary(vec![0, 255, 255, 255, 255]),
        Message::binary(vec![0, 1, 1, 1]),
        Message::binary(vec![9, 0, 0, 0, 0]),
        Message::binary(vec![0, 1, 1, 1, 1, 0xff, 0xff, 0xff, 0xff]),
    ];
    at_once(nonsense.len(), |n| {
        let (ann, message) = (ann.clone(), nonsense[n].clone());
        async move {
            let mut socket = ann.socket().await;
            socket.send_message(message).await;
            // Either it is answered and the socket goes on, or it ends; never nothing.
            let _ = tokio::time::timeout(SOON, socket.outcome()).await.expect("an answer or an end");
        }
    })
    .await;
    bystander.is_served().await;
}

async fn broken_websockets_end_alone(platform: &Platform) {
    let mut bystander = Bystander::new(platform).await;
    let ann = platform.person("ann").await;
    let too_big = |length: u64| [&[0x81, 0xff][..], &length.to_be_bytes(), &[0; 4]].concat();
    let broken: [(&str, Vec<u8>, u16); 14] = [
        ("unmasked", b"\x81\x02hi".to_vec(), 1002),
        ("a reserved bit", frame(0xc1, b"hi"), 1002),
        ("a reserved opcode", frame(0x83, b"hi"), 1002),
        ("a reserved control opcode", frame(0x8b, b""), 1002),
        ("a ping of 126 bytes", frame(0x89, &[0; 126]), 1002),
        ("a ping in fragments", frame(0x09, b""), 1002),
        ("a continuation of nothing", frame(0x80, b"hi"), 1002),
        ("a text within a text", [frame(0x01, b"["), frame(0x81, b"]")].concat(), 1002),
        ("a close of one byte", frame(0x88, b"x"), 1002),
        ("a code that may not be sent", frame(0x88, &1005u16.to_be_bytes()), 1002),
        ("no UTF-8", frame(0x81, b"\xff\xfe"), 1007),
        ("a length of 2 MiB", too_big(2 * 1024 * 1024), 1009),
        ("a length of 2^62", too_big(1 << 62), 1009),
        (
            "fragments without end",
            [frame(0x01, &vec![b' '; 60_000]), frame(0x00, &vec![b' '; 60_000]).repeat(40)].concat(),
            1009,
        ),
    ];
    at_once(broken.len(), |n| {
        let (what, bytes, code) = &broken[n];
        let token = ann.token.clone();
        async move {
            let mut socket = RawSocket::open(platform.gateway(), &token).await;
            socket.write(bytes).await;
            assert_eq!(socket.ending().await, Some(*code), "{what}");
        }
    })
    .await;
    // The topmost bit of a length may not be set: a broken frame, whatever its size.
    let mut socket = RawSocket::open(platform.gateway(), &ann.token).await;
    socket.write(&too_big(u64::MAX)).await;
    assert!(matches!(socket.ending().await, Some(1002 | 1009)));

    // A good close is answered with its own code, a ping with its own payload, in fragments or not.
    let mut socket = RawSocket::open(platform.gateway(), &ann.token).await;
    socket.write(&frame(0x89, b"there?")).await;
    assert_eq!(socket.read_frame().await, Some((0x8a, b"there?".to_vec())));
    let (head, tail) = br#"[null,"1","phoenix","heartbeat",{}]"#.split_at(9);
    socket.write(&frame(0x01, head)).await;
    socket.write(&frame(0x89, b"between")).await;
    socket.write(&frame(0x80, tail)).await;
    assert_eq!(socket.read_frame().await, Some((0x8a, b"between".to_vec())));
    let (_, reply) = socket.read_frame().await.unwrap();
    assert!(String::from_utf8(reply).unwrap().contains("phx_reply"));
    socket.write(&frame(0x88, &1000u16.to_be_bytes())).await;
    assert_eq!(socket.ending().await, Some(1000));

    // Gone in the middle of a frame, or of the request.
    let mut half = RawSocket::open(platform.gateway(), &ann.token).await;
    half.write(&frame(0x81, &[b' '; 1000])[..500]).await;
    drop(half);
    bystander.is_served().await;
}

async fn who_never_reads_is_ended_alone(platform: &Platform) {
    const LARGE: usize = 60_000;
    /// Of them: far more than any kernel buffers for one connection and the gateway queues for one client.
    const COUNT_MAX: u64 = 1_000;
    const SLOW: &str = r#"notifyx_gateway_socket_endings_total{reason="slow consumer"}"#;
    let mut bystander = Bystander::new(platform).await;
    let (ann, bob) = tokio::join!(platform.person("ann"), platform.person("bob"));
    let topic = unique("large");
    ann.create_topic(&topic).await;
    let channel = format!("notification:{topic}");
    let mut reading = bob.socket().await;
    reading.join(&channel, json!({})).await;
    let mut deaf = RawSocket::open_with_small_buffer(platform.gateway(), &bob.token).await;
    deaf.text(&json!(["1", "1", channel, "phx_join", {}]).to_string()).await;
    let (_, reply) = deaf.read_frame().await.unwrap();
    assert!(String::from_utf8(reply).unwrap().contains(r#""status":"ok""#));

    let (message, mut published) = ("m".repeat(LARGE), 0);
    // Nobody else is slow on this platform. The deaf one is given a few seconds to take its goodbye: it listens as soon as it is ended.
    while figure(platform.gateway(), SLOW).await.is_none_or(|ended| ended == 0) {
        assert!(published < COUNT_MAX, "the deaf one was never noticed");
        let (_, told) = tokio::join!(at_once(4, |_| ann.publish(&topic, &message)), reading.notifications(&topic, 4));
        published += 4;
        assert!(
            told.iter().map(|(offset, _)| *offset).eq(published - 3..=published),
            "the one who reads has everything"
        );
    }
    assert_eq!(deaf.ending().await, Some(3008));
    bystander.is_served().await;
}

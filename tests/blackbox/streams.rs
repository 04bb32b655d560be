//! Listening to events: everybody gets each once and in order, however they listen; who was away goes on where it was.

use std::time::Duration;

use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

use crate::harness::{Api, Form, Options, Platform, Process, Terminal, fixed_port, in_both_forms, unique};

in_both_forms!(everybody_gets_each_event_once_in_order, a_revoked_key_ends_what_it_opened);

/// Longer than any event may take under the load of these tests.
const SOON: Duration = Duration::from_secs(60);

struct Plain(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Plain {
    async fn open(platform: &Platform, target: &str) -> Self {
        let (stream, _) = connect_async(format!("ws://{}/ws/events/{target}", platform.gateway())).await.unwrap();
        Self(stream)
    }

    async fn message(&mut self) -> Message {
        timeout(SOON, self.0.next()).await.expect("a message comes").expect("it is open").unwrap()
    }

    async fn next(&mut self) -> Value {
        loop {
            match self.message().await {
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                Message::Close(frame) => panic!("closed: {frame:?}"),
                _ => {}
            }
        }
    }

    async fn close_code(mut self) -> u16 {
        loop {
            if let Message::Close(frame) = self.message().await {
                return frame.expect("the server says why").code.into();
            }
        }
    }
}

/// Server-Sent Events.
struct Sent {
    answer: reqwest::Response,
    text: String,
}

impl Sent {
    async fn open(platform: &Platform, target: &str, last: Option<&str>) -> Self {
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let mut request = http.get(format!("http://{}/events/{target}", platform.gateway()));
        if let Some(last) = last {
            request = request.header("Last-Event-ID", last);
        }
        let answer = timeout(SOON, request.send()).await.expect("an answer").unwrap();
        assert_eq!(
            (answer.status(), &answer.headers()["content-type"]),
            (reqwest::StatusCode::OK, &"text/event-stream".parse().unwrap())
        );
        Self { answer, text: String::new() }
    }

    /// The next event's id and data; `None` at the end.
    async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            while let Some((block, rest)) = self.text.split_once("\n\n") {
                let (block, rest) = (block.to_owned(), rest.to_owned());
                self.text = rest;
                if let Some((id, data)) = block.split_once("\nevent: event\ndata: ") {
                    return Some((id.strip_prefix("id: ").unwrap().to_owned(), serde_json::from_str(data).unwrap()));
                }
            }
            let chunk = timeout(SOON, self.answer.chunk()).await.expect("something comes").unwrap()?;
            self.text.push_str(std::str::from_utf8(&chunk).unwrap());
        }
    }
}

async fn record(process: &mut Process) -> Value {
    let line = process.line(SOON).await.unwrap_or_else(|| panic!("it ended\n{}", process.log()));
    serde_json::from_str(&line).expect("one JSON object per line")
}

/// Posts events that are due at once; answers them as they were stored.
async fn post(api: &Api, category: &str, from: usize, to: usize) {
    for n in from..=to {
        let body = json!({ "category": category, "fireAt": "2026-01-01T00:00:00Z", "data": { "n": n } });
        api.post("/events", body).await.expect(201);
    }
}

async fn everybody_gets_each_event_once_in_order(platform: &Platform) {
    const COUNT: usize = 20;
    let ann = platform.person("ann").await;
    let category = unique("orders");
    let made = ann
        .api
        .post("/api/keys", json!({ "name": "shop", "scopes": [format!("subscribe:{category}")] }))
        .await
        .expect(201);
    let key = made["key"].as_str().unwrap();
    let mut one = Plain::open(platform, &format!("{category}?token={}", ann.token)).await;
    let mut two = Plain::open(platform, &format!("{category}?token={key}")).await;
    let mut sent = Sent::open(platform, &format!("{category}/stream?token={key}"), None).await;
    let terminal = Terminal::new(platform.gateway());
    terminal.log_in(&format!("{}@example.org", unique("bob"))).await;
    let mut shown = terminal.start(&["events", "stream", &category, "--json"]);
    let listening = record(&mut shown).await;
    assert_eq!((&listening["event"], &listening["offset"]), (&json!("listening"), &json!(0)));

    post(&ann.api, &category, 1, COUNT).await;
    for n in 1..=COUNT {
        let event = one.next().await;
        assert_eq!((&event["data"]["n"], &event["offset"], &event["count"]), (&json!(n), &json!(n), &json!(n)));
        assert_eq!(event["category"], category);
        assert_eq!(two.next().await, event, "whoever counted alike gets the same");
        assert_eq!(sent.next().await, Some((n.to_string(), event.clone())));
        let line = record(&mut shown).await;
        assert_eq!((&line["event"], &line["id"], &line["data"]), (&json!("fired"), &event["id"], &event["data"]));
    }
    // Who comes back goes on after what it has.
    drop((two, sent));
    post(&ann.api, &category, COUNT + 1, COUNT + 3).await;
    let mut back = Plain::open(platform, &format!("{category}?token={key}&from={COUNT}")).await;
    let mut again = Sent::open(platform, &format!("{category}/stream?token={key}"), Some(&COUNT.to_string())).await;
    for n in COUNT + 1..=COUNT + 3 {
        assert_eq!(one.next().await["offset"], n);
        let event = back.next().await;
        assert_eq!((&event["offset"], &event["count"]), (&json!(n), &json!(n - COUNT)));
        assert_eq!(again.next().await, Some((n.to_string(), event)));
    }
    let mut beyond = Plain::open(platform, &format!("{category}?token={key}&from=999")).await;
    assert_eq!(beyond.next().await, json!({ "recovered": false, "offset": COUNT + 3 }));
    shown.signal("INT");
    assert_eq!(shown.exited(SOON).await.code(), Some(0));
    terminal.run(&["events", "stream", "$own"]).await.expect(1);
    terminal.run(&["events", "stream", "a/b"]).await.expect(2);
}

async fn a_revoked_key_ends_what_it_opened(platform: &Platform) {
    let ann = platform.person("ann").await;
    let category = unique("orders");
    let made = ann.api.post("/api/keys", json!({ "name": "shop", "scopes": ["subscribe:orders*"] })).await.expect(201);
    let (key, id) = (made["key"].as_str().unwrap(), made["id"].as_str().unwrap());
    let service = Api::new(platform.gateway()).with_token(key);
    assert_eq!(service.get("/events/payments/stream").await.refused(403), "out_of_scope");
    assert_eq!(service.get("/events/$orders/stream").await.refused(403), "category_reserved");
    let plain = Plain::open(platform, &format!("{category}?token={key}")).await;
    let mut sent = Sent::open(platform, &format!("{category}/stream?token={key}"), None).await;
    ann.api.delete(&format!("/api/keys/{id}")).await.expect(200);
    assert_eq!(plain.close_code().await, 3003);
    assert_eq!(sent.next().await, None);
    assert_eq!(service.get(&format!("/events/{category}/stream")).await.refused(401), "key_invalid");
    assert_eq!(platform.anonymous().get("/events/a/stream").await.refused(401), "credentials_missing");
}

/// Not shared: the server is ended in between, and lets anybody in.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_without_credentials_survives_the_server() {
    let options =
        Options { port: fixed_port(), variables: vec![("NOTIFYX_GATEWAY__ANONYMOUS", "true")], ..Options::default() };
    let mut platform = Platform::start_with(Form::Up, options).await;
    let anybody = platform.anonymous();
    let mut plain = Plain::open(&platform, "orders").await;
    let mut shown = Terminal::new(platform.gateway()).start(&["events", "stream", "orders", "--json"]);
    assert_eq!(record(&mut shown).await["event"], "listening");
    post(&anybody, "orders", 1, 1).await;
    assert_eq!(plain.next().await["data"], json!({ "n": 1 }));
    assert_eq!(record(&mut shown).await["data"], json!({ "n": 1 }));

    platform.process("up").kill();
    assert_eq!(record(&mut shown).await["event"], "disconnected");
    platform.process("up").exited(SOON).await;
    let log = platform.process("up").log();
    assert!(log.contains("without credentials"), "it warned at the start: {log}");
    platform.start_process("up").await;
    platform.ready().await;
    post(&anybody, "orders", 2, 2).await;
    let mut lines = Vec::new();
    while lines.iter().all(|line: &Value| line["event"] != "fired") {
        lines.push(record(&mut shown).await);
    }
    let last = lines.last().unwrap();
    assert_eq!((&last["data"], &last["offset"]), (&json!({ "n": 2 }), &json!(2)), "{lines:?}");
    assert!(lines.iter().all(|line| line["event"] != "gap"), "{lines:?}");
    assert_eq!(anybody.get("/api/topics").await.refused(401), "credentials_missing", "what is a user's stays so");
}

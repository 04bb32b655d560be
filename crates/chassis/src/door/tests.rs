//! The door as its callers meet it.

use std::sync::Arc;

use actix_web::web;
use async_trait::async_trait;
use notifyx_model::{Clock, Email, KeyId, KeyName, Scope, Scopes, Secret, Token, UserId, Verb};
use notifyx_wire::{
    header,
    rest::{
        Problem,
        auth::{
            Identity,
            keys::{KeyIdentity, Principal},
        },
    },
};
use serde::Serialize;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{BODY_BYTES_MAX, Door, batch_bodies};
use crate::{Anyone, Caller, Cluster, Context, Failure, Identify, Json, Running, Scoped, Unavailable};

const TOKEN: &str = "a-token-that-is-long-enough";
const KEY: &str = "nxk_0123456789012345678901234567890123456789abc";

/// Has a session, and a key that may publish to what begins with `orders.`.
struct OneUser(Identity);

#[async_trait]
impl Identify for OneUser {
    async fn identify(&self, token: &Token) -> Result<Option<Principal>, Unavailable> {
        let Identity { id, email, .. } = self.0.clone();
        let key = || KeyIdentity {
            key_id: KeyId::from_uuid(id.uuid()),
            name: KeyName::parse("shop").unwrap(),
            id,
            email,
            scopes: Scopes::new(vec![Scope::parse("publish:orders.*").unwrap()]).unwrap(),
            expires_at: None,
        };
        Ok(match token.as_str() {
            TOKEN => Some(Principal::User(self.0.clone())),
            KEY => Some(Principal::Key(key())),
            _ => None,
        })
    }
}

async fn whoami(caller: Caller) -> Result<String, Failure> {
    Ok(caller.user()?.email.to_string())
}

async fn publish(by: Scoped, category: web::Path<String>) -> Result<String, Failure> {
    by.check(Verb::Publish, category.as_str())?;
    Ok(by.user().email.to_string())
}

async fn cluster_only(caller: Caller) -> Result<String, Failure> {
    caller.cluster()?;
    Ok(caller.client_address().to_owned())
}

#[derive(serde::Deserialize, Serialize)]
struct Pair {
    left: u8,
    right: u8,
}

async fn echo(Json(pair): Json<Pair>) -> Json<Pair> {
    Json(pair)
}

async fn address(anyone: Anyone) -> String {
    anyone.client_address
}

async fn raw(body: web::Bytes) -> web::Bytes {
    body
}

async fn open() -> (Running, String, Context) {
    let context = Context {
        clock: Clock::system(),
        shutdown: CancellationToken::new(),
        runtime: tokio::runtime::Handle::current(),
        cluster: Cluster::new(Secret::new("cluster-secret")),
        discovery: Vec::new(),
    };
    let now = context.clock.now();
    let ann = Identity {
        id: UserId::new(&context.clock),
        email: Email::parse("ann@example.org").unwrap(),
        created_at: now,
        expires_at: now,
    };
    let stopping = context.shutdown.clone();
    let running = Door::new("test", &context)
        .config(&json!({ "database": "<b>" }))
        .ready("stopping", move || {
            let stopping = stopping.is_cancelled();
            async move { if stopping { Err("told so".into()) } else { Ok(()) } }
        })
        .identify(Arc::new(OneUser(ann)))
        .trusted_proxies(vec!["127.0.0.1".parse().unwrap()])
        .routes(|config| {
            config
                .route("/whoami", web::get().to(whoami))
                .route("/publish/{category}", web::post().to(publish))
                .route("/cluster", web::get().to(cluster_only))
                .route("/address", web::get().to(address))
                .route("/echo", web::post().to(echo))
                .service(web::resource("/batch").app_data(batch_bodies()).post(echo))
                .route("/raw", web::post().to(raw));
        })
        .listen("127.0.0.1:0".parse().unwrap())
        .await
        .unwrap();
    let base = format!("http://{}", running.address());
    (running, base, context)
}

async fn problem(answer: reqwest::Response) -> (u16, String) {
    assert_eq!(answer.headers()["content-type"], Problem::MEDIA_TYPE);
    let id = answer.headers()[header::REQUEST_ID].to_str().unwrap().to_owned();
    let problem: Problem = answer.json().await.unwrap();
    assert_eq!(problem.request_id, Some(id));
    (problem.status, problem.code)
}

#[tokio::test]
async fn only_those_who_prove_themselves_enter() {
    let (running, base, _) = open().await;
    let http = reqwest::Client::new();
    let get = |path: &str| http.get(format!("{base}{path}"));
    assert_eq!(problem(get("/whoami").send().await.unwrap()).await, (401, "credentials_missing".into()));
    let wrong = get("/whoami").bearer_auth("another-token-that-is-wrong").send().await.unwrap();
    assert_eq!(problem(wrong).await, (401, "token_invalid".into()));
    let right = get("/whoami").bearer_auth(TOKEN).send().await.unwrap();
    assert_eq!(right.text().await.unwrap(), "ann@example.org");
    let older = get("/whoami").header(header::DURIAN_TOKEN, TOKEN).send().await.unwrap();
    assert_eq!(older.text().await.unwrap(), "ann@example.org");
    let user = get("/cluster").bearer_auth(TOKEN).send().await.unwrap();
    assert_eq!(problem(user).await, (403, "cluster_only".into()));
    let stranger = get("/cluster").header(header::CLUSTER_SECRET, "guess").send().await.unwrap();
    assert_eq!(problem(stranger).await, (401, "cluster_secret_invalid".into()));
    let service =
        get("/cluster").header(header::CLUSTER_SECRET, "cluster-secret").header(header::CLIENT_ADDRESS, "203.0.113.9");
    assert_eq!(service.send().await.unwrap().text().await.unwrap(), "203.0.113.9");
    let asserted = get("/whoami")
        .header(header::CLUSTER_SECRET, "cluster-secret")
        .header(header::ASSERTED_USER, format!("{} bob@example.org", UserId::new(&Clock::system())));
    assert_eq!(asserted.send().await.unwrap().text().await.unwrap(), "bob@example.org");
    let unproven =
        get("/whoami").header(header::ASSERTED_USER, format!("{} bob@example.org", UserId::new(&Clock::system())));
    assert_eq!(problem(unproven.send().await.unwrap()).await, (401, "credentials_missing".into()));
    running.stop().await;
}

#[tokio::test]
async fn a_key_enters_where_its_scopes_are_checked_and_nowhere_else() {
    let (running, base, _) = open().await;
    let http = reqwest::Client::new();
    for path in ["/whoami", "/cluster", "/status"] {
        let refused = http.get(format!("{base}{path}")).bearer_auth(KEY).send().await.unwrap();
        assert_eq!(problem(refused).await, (403, "key_refused".into()), "{path}");
    }
    let post = |category: &str| http.post(format!("{base}/publish/{category}"));
    assert_eq!(post("orders.new").bearer_auth(KEY).send().await.unwrap().text().await.unwrap(), "ann@example.org");
    let foreign = post("invoices").bearer_auth(KEY).send().await.unwrap();
    assert_eq!(problem(foreign).await, (403, "out_of_scope".into()));
    let session = post("invoices").bearer_auth(TOKEN).send().await.unwrap();
    assert_eq!(session.text().await.unwrap(), "ann@example.org");
    let unknown = post("orders.new").bearer_auth(KEY.replace("abc", "xyz")).send().await.unwrap();
    assert_eq!(problem(unknown).await, (401, "key_invalid".into()));
    assert_eq!(problem(post("orders.new").send().await.unwrap()).await, (401, "credentials_missing".into()));
    let service = post("orders.new").header(header::CLUSTER_SECRET, "cluster-secret").send().await.unwrap();
    assert_eq!(problem(service).await, (401, "user_missing".into()), "somebody must publish");
    running.stop().await;
}

#[tokio::test]
async fn bad_input_gets_a_problem() {
    let (running, base, _) = open().await;
    let http = reqwest::Client::new();
    let post = |body: String| http.post(format!("{base}/echo")).header("content-type", "application/json").body(body);
    assert_eq!(problem(post("{".into()).send().await.unwrap()).await, (400, "body_invalid".into()));
    assert_eq!(problem(post("{}".into()).send().await.unwrap()).await, (400, "body_invalid".into()));
    assert_eq!(problem(post("[1, 2]".into()).send().await.unwrap()).await, (400, "body_invalid".into()));
    let right = post(r#" {"left": 1, "right": 2}"#.into()).send().await.unwrap();
    assert_eq!(right.text().await.unwrap(), r#"{"left":1,"right":2}"#);
    let large = post(format!("\"{}\"", "x".repeat(2 * 1024 * 1024))).send().await.unwrap();
    assert_eq!(problem(large).await, (413, "body_too_large".into()));
    let raw = http.post(format!("{base}/raw")).body(vec![b' '; 2 * 1024 * 1024]);
    assert_eq!(problem(raw.send().await.unwrap()).await, (413, "body_too_large".into()));
    let text = http.post(format!("{base}/echo")).body("{}").send().await.unwrap();
    assert_eq!(problem(text).await, (415, "content_type_invalid".into()));
    let nowhere = http.get(format!("{base}/nowhere")).send().await.unwrap();
    assert_eq!(problem(nowhere).await, (404, "route_not_found".into()));
    let wrong_way = http.delete(format!("{base}/echo")).send().await.unwrap();
    assert_eq!(problem(wrong_way).await, (405, "method_not_allowed".into()));
    let wrong_way = http.delete(format!("{base}/health")).send().await.unwrap();
    assert_eq!(wrong_way.headers()["allow"], "GET, HEAD");
    assert_eq!(problem(wrong_way).await, (405, "method_not_allowed".into()));
    running.stop().await;
}

#[tokio::test]
async fn who_still_writes_its_body_gets_the_answer() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    let (running, base, _) = open().await;
    // Larger than the buffers between the two, so that a door that closes early breaks the pipe.
    let body = vec![b' '; 12 * 1024 * 1024];
    for (path, status) in [("/echo", "413"), ("/raw", "413"), ("/nowhere", "404"), ("/whoami", "405")] {
        let mut client = tokio::net::TcpStream::connect(base.trim_start_matches("http://")).await.unwrap();
        let length = body.len();
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
        );
        client.write_all(head.as_bytes()).await.unwrap();
        client.write_all(&body).await.unwrap_or_else(|error| panic!("{path}: {error}"));
        let mut answer = [0; 12];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(std::str::from_utf8(&answer).unwrap(), format!("HTTP/1.1 {status}"), "{path}");
    }
    running.stop().await;
}

#[tokio::test]
async fn a_batch_may_be_large() {
    let (running, base, _) = open().await;
    let body = format!(r#"{{"left": 1,{}"right": 2}}"#, " ".repeat(2 * BODY_BYTES_MAX));
    let post = reqwest::Client::new().post(format!("{base}/batch")).header("content-type", "application/json");
    assert_eq!(post.body(body).send().await.unwrap().status(), 200);
    running.stop().await;
}

#[tokio::test]
async fn clients_behind_a_trusted_proxy_have_their_own_addresses() {
    let (running, base, _) = open().await;
    let get = reqwest::Client::new().get(format!("{base}/address"));
    let direct = get.try_clone().unwrap().send().await.unwrap();
    assert_eq!(direct.text().await.unwrap(), "127.0.0.1");
    let through = get.header("x-forwarded-for", "198.51.100.1, 203.0.113.9").send().await.unwrap();
    assert_eq!(through.text().await.unwrap(), "203.0.113.9");
    running.stop().await;
}

#[tokio::test]
async fn every_door_tells_how_it_is() {
    let (running, base, context) = open().await;
    let http = reqwest::Client::new();
    let get = |path: &str| http.get(format!("{base}{path}"));
    assert_eq!(get("/health").send().await.unwrap().status(), 200);
    assert_eq!(get("/ready").send().await.unwrap().status(), 200);
    for path in ["/health", "/ready"] {
        let head = http.head(format!("{base}{path}")).send().await.unwrap();
        assert_eq!(head.status(), 200, "{path}");
        assert!(head.bytes().await.unwrap().is_empty());
    }
    assert_eq!(get("/status").send().await.unwrap().status(), 401);
    let status: Value = get("/status").bearer_auth(TOKEN).send().await.unwrap().json().await.unwrap();
    assert_eq!((&status["service"], &status["ready"]), (&json!("test"), &json!(true)));
    let prompt = get("/dashboard").send().await.unwrap();
    assert!(prompt.headers()["www-authenticate"].to_str().unwrap().starts_with("Basic"));
    let page = get("/dashboard").basic_auth("op", Some("cluster-secret")).send().await.unwrap().text().await.unwrap();
    assert!(page.contains("&lt;b&gt;") && page.contains("ready"), "{page}");
    let metrics = get("/metrics").send().await.unwrap().text().await.unwrap();
    assert!(
        metrics.contains(r#"notifyx_http_requests_total{method="GET",route="/status",status="401"} 1"#),
        "{metrics}"
    );
    assert!(metrics.contains("notifyx_build_info"));
    context.shutdown.cancel();
    assert_eq!(get("/ready").send().await.unwrap().status(), 503);
    running.stop().await;
}

#[tokio::test]
async fn a_trace_is_carried_on() {
    let (running, base, _) = open().await;
    let sent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let answer = reqwest::Client::new().get(format!("{base}/health")).header(header::TRACEPARENT, sent);
    let answer = answer.send().await.unwrap();
    assert_eq!(answer.headers()[header::REQUEST_ID], "4bf92f3577b34da6a3ce929d0e0e4736");
    running.stop().await;
}

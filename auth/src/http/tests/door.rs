//! The door itself: bad input, no database, the registry, what it says of itself.

use notifyx_chassis::{Door, Running};
use notifyx_database::{DatabaseUrl, testing};
use notifyx_model::{Clock, UserId};
use notifyx_wire::rest::Problem;
use serde_json::{Value, json};

use super::{Auth, SECRET, cluster, context, credentials, problem};
use crate::Config;

#[tokio::test]
async fn bad_input_gets_its_answer() {
    let auth = Auth::open(Clock::system()).await;
    let long = format!("{}@example.org", "a".repeat(300));
    for body in [
        json!({ "email": "ann", "password": "correct horse" }),
        json!({ "email": long, "password": "correct horse" }),
        json!({ "email": 7, "password": "correct horse" }),
        json!({ "email": "ann@example.org", "password": ["correct", "horse"] }),
        json!({ "email": "ann@example.org" }),
        json!({ "email": "ann@example.org", "password": "correct horse", "admin": true }),
        json!({ "email": "a\u{0}b@example.org", "password": "correct horse" }),
        json!([]),
    ] {
        for path in ["/api/users", "/api/users/login"] {
            assert_eq!(problem(auth.post(path, &body)).await, (400, "body_invalid".into()), "{path} {body}");
        }
    }
    for (length, code) in [(7, "password_invalid"), (257, "password_invalid")] {
        let body = json!({ "email": "ann@example.org", "password": "x".repeat(length) });
        assert_eq!(problem(auth.post("/api/users", &body)).await, (400, code.into()));
    }
    let raw = |body: String| {
        let call = auth.http.post(format!("{}/api/users/login", auth.base));
        call.header("content-type", "application/json").body(body)
    };
    assert_eq!(problem(raw("{\"email\":".into())).await, (400, "body_invalid".into()));
    let large = format!("{{\"email\":\"ann@example.org\",\"password\":\"{}\"}}", "x".repeat(2 * 1024 * 1024));
    assert_eq!(problem(raw(large)).await, (413, "body_too_large".into()));

    auth.register("ann@example.org").await;
    let token = auth.login("ann@example.org").await.token;
    let get = |path: &str| auth.get(path).bearer_auth(token.as_str());
    assert_eq!(problem(get("/api/users/no-id")).await, (400, "path_invalid".into()));
    let unknown = UserId::new(&Clock::system());
    assert_eq!(problem(get(&format!("/api/users/{unknown}"))).await, (404, "user_not_found".into()));
    assert_eq!(problem(get("/api/users?limit=many")).await, (400, "query_invalid".into()));
    assert_eq!(problem(get("/api/users?after=1")).await, (400, "query_invalid".into()));
    auth.running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_its_database_it_vouches_for_nobody() {
    let server = testing::Server::start();
    let database = DatabaseUrl::parse(&format!("{}/auth", server.base)).unwrap();
    let auth = Auth::on(Clock::system(), database, |_| ()).await;
    auth.register("ann@example.org").await;
    let session = auth.login("ann@example.org").await;
    assert_eq!(auth.who(&session).await.status(), 200);
    let waiting = tokio::spawn(cluster(auth.get("/api/revocations?after=0&wait_ms=30000")).send());

    tokio::task::spawn_blocking(move || server.stop_immediately()).await.unwrap();
    let told: Problem = waiting.await.unwrap().unwrap().json().await.unwrap();
    assert_eq!((told.status, told.code.as_str()), (503, "revocations_behind"), "silence would mean that nobody left");
    let asked = auth.who(&session).await;
    assert_eq!(asked.status(), 503, "the cache may hide a logout");
    assert!(asked.headers().contains_key("retry-after"));
    assert_eq!(problem(auth.post("/api/users/login", &credentials("ann@example.org"))).await.0, 503);
    assert_eq!(auth.get("/ready").send().await.unwrap().status(), 503);
    auth.running.stop().await;
}

/// A registry that grants a lease and notes what it is asked.
async fn registry(asked: tokio::sync::mpsc::UnboundedSender<String>) -> Running {
    use actix_web::{HttpRequest, HttpResponse, web};

    let door = Door::new("registry", &context(Clock::system(), Vec::new())).routes(move |routes| {
        let asked = asked.clone();
        let grant = move |request: HttpRequest, body: String| {
            let asked = asked.clone();
            async move {
                asked.send(format!("{} {} {body}", request.method(), request.path())).unwrap();
                let instance = serde_json::from_str(&body).map_or(Value::Null, |body: Value| body["instance"].clone());
                HttpResponse::Ok().json(json!({ "instance": instance, "lease_ms": 60_000 }))
            }
        };
        routes
            .route("/api/register", web::post().to(grant.clone()))
            .route("/api/instances/{id}", web::delete().to(grant));
    });
    door.listen("127.0.0.1:0".parse().unwrap()).await.unwrap()
}

#[tokio::test]
async fn it_is_ready_once_the_registry_has_it_and_leaves_at_the_end() {
    let (asked, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let registry = registry(asked).await;
    let folder = tempfile::tempdir().unwrap();
    let database = DatabaseUrl::sqlite(folder.path().join("auth.db"));
    let config = Config { listen: "127.0.0.1:0".parse().unwrap(), database, ..Config::default() };
    let discovery = vec![format!("http://{}", registry.address())];
    let running = crate::start(config, context(Clock::system(), discovery)).await.unwrap();
    let told = heard.recv().await.unwrap();
    assert!(told.starts_with("POST /api/register") && told.contains(&running.address().to_string()), "{told}");
    let ready = format!("http://{}/ready", running.address());
    while reqwest::get(&ready).await.unwrap().status() != 200 {
        tokio::task::yield_now().await;
    }
    running.stop().await;
    let left = heard.recv().await.unwrap();
    assert!(left.starts_with("DELETE /api/instances/"), "{left}");
    registry.stop().await;
}

#[tokio::test]
async fn the_door_describes_itself() {
    let auth = Auth::open(Clock::system()).await;
    let api: Value = auth.get("/api/openapi.json").send().await.unwrap().json().await.unwrap();
    let paths: Vec<_> = api["paths"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(
        paths,
        [
            "/api/keys",
            "/api/keys/self",
            "/api/keys/{id}",
            "/api/noop",
            "/api/revocations",
            "/api/users",
            "/api/users/login",
            "/api/users/logout",
            "/api/users/resolve",
            "/api/users/self",
            "/api/users/verify",
            "/api/users/{id}"
        ]
    );
    let parameters = api["paths"]["/api/users"]["get"]["parameters"].as_array().unwrap();
    assert_eq!(parameters.len(), 2, "{parameters:?}");
    let status = cluster(auth.get("/status")).send().await.unwrap().text().await.unwrap();
    assert!(status.contains("revocation_head") && !status.contains(SECRET), "{status}");
    auth.running.stop().await;
}

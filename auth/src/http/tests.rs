//! Auth through its real door, on port 0.

use std::time::{Duration, Instant};

use notifyx_chassis::{Cluster, Context, Door, Running};
use notifyx_database::{DatabaseUrl, testing};
use notifyx_model::{Clock, ManualClock, Secret, UserId};
use notifyx_wire::{
    header,
    rest::{
        Problem,
        auth::{
            Identity, LoggedIn, Registered, Resolved, Revocations, User, UserPage,
            keys::{CreatedKey, KeyIdentity, Keys},
        },
    },
};
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::Config;

const SECRET: &str = "the-cluster-secret";

struct Auth {
    running: Running,
    base: String,
    http: reqwest::Client,
    _folder: Option<TempDir>,
}

impl Auth {
    async fn open(clock: Clock) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database = DatabaseUrl::sqlite(folder.path().join("auth.db"));
        Self { _folder: Some(folder), ..Self::on(clock, database, |_| ()).await }
    }

    async fn on(clock: Clock, database: DatabaseUrl, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config { listen: "127.0.0.1:0".parse().unwrap(), database, ..Config::default() };
        change(&mut config);
        let running = crate::start(config, context(clock, Vec::new())).await.unwrap();
        let base = format!("http://{}", running.address());
        Self { running, base, http: reqwest::Client::new(), _folder: None }
    }

    fn get(&self, path: &str) -> RequestBuilder {
        self.http.get(format!("{}{path}", self.base))
    }

    fn post(&self, path: &str, body: &Value) -> RequestBuilder {
        self.http.post(format!("{}{path}", self.base)).json(body)
    }

    fn delete(&self, path: &str) -> RequestBuilder {
        self.http.delete(format!("{}{path}", self.base))
    }

    async fn register(&self, email: &str) -> Registered {
        let answer = self.post("/api/users", &credentials(email)).send().await.unwrap();
        assert_eq!(answer.status(), 201);
        answer.json().await.unwrap()
    }

    async fn login(&self, email: &str) -> LoggedIn {
        let answer = self.post("/api/users/login", &credentials(email)).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.json().await.unwrap()
    }

    async fn who(&self, session: &LoggedIn) -> Response {
        self.get("/api/users/self").bearer_auth(session.token.as_str()).send().await.unwrap()
    }

    async fn logout(&self, session: &LoggedIn) {
        let answer = self.delete("/api/users/logout").bearer_auth(session.token.as_str()).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.json::<Value>().await.unwrap(), json!({ "success": true }));
    }
}

fn context(clock: Clock, discovery: Vec<String>) -> Context {
    Context {
        clock,
        shutdown: CancellationToken::new(),
        runtime: tokio::runtime::Handle::current(),
        cluster: Cluster::new(Secret::new(SECRET)),
        discovery,
    }
}

fn credentials(email: &str) -> Value {
    json!({ "email": email, "password": "correct horse" })
}

fn cluster(call: RequestBuilder) -> RequestBuilder {
    call.header(header::CLUSTER_SECRET, SECRET)
}

async fn problem(call: RequestBuilder) -> (u16, String) {
    let answer = call.send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], Problem::MEDIA_TYPE);
    let problem: Problem = answer.json().await.unwrap();
    (problem.status, problem.code)
}

#[tokio::test]
async fn a_person_registers_logs_in_and_out() {
    let auth = Auth::open(Clock::system()).await;
    let ann = auth.register("Ann@Example.org").await;
    assert_eq!(ann.email.as_str(), "ann@example.org");
    assert_eq!(problem(auth.post("/api/users", &credentials("ANN@example.ORG"))).await, (409, "email_taken".into()));

    let session = auth.login("ann@EXAMPLE.org").await;
    assert_eq!((session.success, session.id), (true, ann.id));
    let identity: Identity = auth.who(&session).await.json().await.unwrap();
    assert_eq!((identity.id, identity.email, identity.expires_at), (ann.id, ann.email, session.expires_at));
    let older = auth.get("/api/users/self").header(header::DURIAN_TOKEN, session.token.as_str()).send().await.unwrap();
    assert_eq!(older.status(), 200);

    let other = auth.login("ann@example.org").await;
    auth.logout(&session).await;
    assert_eq!(auth.who(&session).await.status(), 401);
    assert_eq!(auth.who(&other).await.status(), 200, "the other session goes on");
    let again = auth.delete("/api/users/logout").bearer_auth(session.token.as_str());
    assert_eq!(problem(again).await, (401, "token_invalid".into()));
    assert_eq!(auth.get("/api/noop").send().await.unwrap().status(), 204);
    assert_eq!(auth.get("/ready").send().await.unwrap().status(), 200);
    auth.running.stop().await;
}

#[tokio::test]
async fn a_wrong_password_is_answered_like_an_unknown_address() {
    let auth = Auth::open(Clock::system()).await;
    auth.register("ann@example.org").await;
    let mut answers = Vec::new();
    for (email, password) in
        [("ann@example.org", "wrong horse"), ("bob@example.org", "correct horse"), ("ann@example.org", "short")]
    {
        let answer =
            auth.post("/api/users/login", &json!({ "email": email, "password": password })).send().await.unwrap();
        let headers: Vec<_> = answer.headers().keys().map(ToString::to_string).collect();
        let mut body: Value = answer.json().await.unwrap();
        body.as_object_mut().unwrap().remove("request_id");
        answers.push((headers, body));
    }
    assert_eq!(answers[0].1["code"], "credentials_wrong");
    assert_eq!(answers[0].1["status"], 401);
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0], answers[2]);
    auth.running.stop().await;
}

#[tokio::test]
async fn failed_logins_are_limited_and_the_limit_passes() {
    let hand = ManualClock::new();
    let folder = tempfile::tempdir().unwrap();
    let auth = Auth::on(hand.clock(), DatabaseUrl::sqlite(folder.path().join("auth.db")), |config| {
        config.login_failures_per_account_max = 2.try_into().unwrap();
        config.login_failures_per_address_max = 4.try_into().unwrap();
    })
    .await;
    auth.register("ann@example.org").await;
    let wrong = |email: &str| auth.post("/api/users/login", &json!({ "email": email, "password": "wrong horse" }));
    for _ in 0..2 {
        assert_eq!(problem(wrong("ann@example.org")).await, (401, "credentials_wrong".into()));
    }
    let limited = auth.post("/api/users/login", &credentials("ann@example.org")).send().await.unwrap();
    assert_eq!(limited.status(), 429, "also with the right password");
    assert_eq!(limited.headers()["retry-after"], "301");
    let verified = cluster(auth.post("/api/users/verify", &credentials("ann@example.org")));
    assert_eq!(problem(verified).await, (429, "login_limited".into()));

    // The address is what the front door says, if it proves itself; a stranger's word counts for nothing.
    for _ in 0..2 {
        assert_eq!(problem(wrong("bob@example.org").header(header::CLIENT_ADDRESS, "203.0.113.1")).await.0, 401);
    }
    let cid = wrong("cid@example.org").header(header::CLIENT_ADDRESS, "203.0.113.2");
    assert_eq!(problem(cid).await, (429, "login_limited".into()));
    let cid = cluster(wrong("cid@example.org")).header(header::CLIENT_ADDRESS, "203.0.113.2");
    assert_eq!(problem(cid).await, (401, "credentials_wrong".into()));

    hand.advance(Duration::from_secs(301));
    auth.login("ann@example.org").await;
    auth.running.stop().await;
}

#[tokio::test]
async fn an_expired_token_is_refused() {
    let hand = ManualClock::new();
    let auth = Auth::open(hand.clock()).await;
    auth.register("ann@example.org").await;
    let session = auth.login("ann@example.org").await;
    assert_eq!(auth.who(&session).await.status(), 200);
    hand.advance(Duration::from_hours(720));
    assert_eq!(auth.who(&session).await.status(), 401);
    auth.running.stop().await;
}

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

#[tokio::test]
async fn people_are_listed_in_pages_and_found() {
    let auth = Auth::open(Clock::system()).await;
    for n in 0..3 {
        auth.register(&format!("u{n}@example.org")).await;
    }
    assert_eq!(problem(auth.get("/api/users")).await, (401, "credentials_missing".into()));
    let token = auth.login("u0@example.org").await.token;
    let get = |path: String| auth.get(&path).bearer_auth(token.as_str()).send();
    let first: UserPage = get("/api/users?limit=2".into()).await.unwrap().json().await.unwrap();
    let next = first.next.unwrap();
    let last: UserPage = get(format!("/api/users?limit=2&after={next}")).await.unwrap().json().await.unwrap();
    let emails: Vec<_> = first.users.iter().chain(&last.users).map(|user| user.email.as_str()).collect();
    assert_eq!((emails, last.next), (vec!["u0@example.org", "u1@example.org", "u2@example.org"], None));
    for _ in 0..2 {
        let user: User = get(format!("/api/users/{next}")).await.unwrap().json().await.unwrap();
        assert_eq!(user, first.users[1]);
    }
    let metrics = auth.get("/metrics").send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains(r#"notifyx_auth_lookups_total{cache="user",outcome="hit"} 1"#), "{metrics}");
    auth.running.stop().await;
}

#[tokio::test]
async fn services_check_credentials_and_resolve_people() {
    let auth = Auth::open(Clock::system()).await;
    let ann = auth.register("ann@example.org").await;
    let token = auth.login("ann@example.org").await.token;
    for (path, body) in
        [("/api/users/verify", credentials("ann@example.org")), ("/api/users/resolve", json!({ "emails": [] }))]
    {
        assert_eq!(problem(auth.post(path, &body)).await.0, 401);
        assert_eq!(problem(auth.post(path, &body).bearer_auth(token.as_str())).await, (403, "cluster_only".into()));
    }
    let verified = cluster(auth.post("/api/users/verify", &credentials("ann@example.org"))).send().await.unwrap();
    assert_eq!(verified.json::<Identity>().await.unwrap().id, ann.id);
    let wrong = json!({ "email": "ann@example.org", "password": "wrong horse" });
    assert_eq!(problem(cluster(auth.post("/api/users/verify", &wrong))).await, (401, "credentials_wrong".into()));

    let named =
        json!({ "emails": ["Ann@example.org", "nobody@example.org"], "ids": [ann.id, UserId::new(&Clock::system())] });
    let found = cluster(auth.post("/api/users/resolve", &named)).send().await.unwrap();
    let found = found.json::<Resolved>().await.unwrap().users;
    assert_eq!(found.iter().map(|user| user.id).collect::<Vec<_>>(), [ann.id]);
    let many: Vec<_> = (0..=1_000).map(|n| format!("u{n}@example.org")).collect();
    let many = cluster(auth.post("/api/users/resolve", &json!({ "emails": many })));
    assert_eq!(problem(many).await, (400, "too_many_people".into()));
    auth.running.stop().await;
}

#[tokio::test]
async fn a_key_is_made_listed_used_and_revoked() {
    let auth = Auth::open(Clock::system()).await;
    let ann = auth.register("ann@example.org").await;
    let session = auth.login("ann@example.org").await;
    let token = session.token.as_str();
    let body = json!({ "name": "shop", "scopes": ["publish:orders.*", "subscribe:paid"], "ttl_s": 3_600 });
    let answer = auth.post("/api/keys", &body).bearer_auth(token).send().await.unwrap();
    assert_eq!(answer.status(), 201);
    let created: CreatedKey = answer.json().await.unwrap();
    assert_eq!((created.about.name.as_str(), created.about.last_used_at), ("shop", None));
    let forever = json!({ "name": "shop", "scopes": ["publish:*"] });
    auth.post("/api/keys", &forever).bearer_auth(token).send().await.unwrap().error_for_status().unwrap();

    let listed = auth.get("/api/keys").bearer_auth(token).send().await.unwrap().text().await.unwrap();
    assert!(!listed.contains(created.key.as_str()), "the key is told once");
    let listed: Keys = serde_json::from_str(&listed).unwrap();
    assert_eq!((listed.keys.len(), listed.keys[0].expires_at, &listed.keys[1]), (2, None, &created.about));

    let with_key = |call: RequestBuilder| call.bearer_auth(created.key.as_str());
    let found: KeyIdentity = with_key(auth.get("/api/keys/self")).send().await.unwrap().json().await.unwrap();
    assert_eq!((found.key_id, found.id, found.email), (created.about.id, ann.id, ann.email));
    assert_eq!((found.scopes, found.expires_at), (created.about.scopes, created.about.expires_at));
    assert_eq!(problem(auth.get("/api/keys/self").bearer_auth(token)).await, (400, "no_key".into()));

    let place = format!("/api/keys/{}", created.about.id);
    for call in [
        auth.get("/api/users/self"),
        auth.get("/api/users"),
        auth.delete("/api/users/logout"),
        auth.get("/api/keys"),
        auth.post("/api/keys", &body),
        auth.delete(&place),
        auth.get("/status"),
    ] {
        assert_eq!(problem(with_key(call)).await, (403, "key_refused".into()));
    }

    auth.register("bob@example.org").await;
    let bob = auth.login("bob@example.org").await;
    let foreign = auth.delete(&place).bearer_auth(bob.token.as_str());
    assert_eq!(problem(foreign).await, (404, "key_not_found".into()));
    let revoked = auth.delete(&place).bearer_auth(token).send().await.unwrap();
    assert_eq!((revoked.status().as_u16(), revoked.json::<Value>().await.unwrap()), (200, json!({ "success": true })));
    assert_eq!(problem(with_key(auth.get("/api/keys/self"))).await, (401, "key_invalid".into()));
    let again = auth.delete(&place).bearer_auth(token).send().await.unwrap();
    assert_eq!(again.status(), 200, "the first answer may have been lost");
    let foreign = auth.delete(&place).bearer_auth(bob.token.as_str());
    assert_eq!(problem(foreign).await, (404, "key_not_found".into()));
    let log: Revocations = cluster(auth.get("/api/revocations?after=0")).send().await.unwrap().json().await.unwrap();
    assert_eq!((log.head, log.revoked[0].token_hash), (1, Some(created.key.hash())));
    auth.running.stop().await;
}

#[tokio::test]
async fn a_key_out_of_bounds_is_not_made() {
    let auth = Auth::open(Clock::system()).await;
    auth.register("ann@example.org").await;
    let token = auth.login("ann@example.org").await.token;
    let post = |body: &Value| auth.post("/api/keys", body).bearer_auth(token.as_str());
    let many = |count| (0..count).map(|n| format!("publish:c{n}")).collect::<Vec<_>>();
    for (name, scopes, why) in [
        ("shop", json!(["delete:orders"]), "neither"),
        ("shop", json!(["orders"]), "neither"),
        ("shop", json!(["publish:or*ders"]), "at its end"),
        ("shop", json!(["publish:a/b"]), "holds a /"),
        ("shop", json!([format!("publish:{}", "c".repeat(300))]), "more than 200"),
        ("shop", json!([]), "is empty"),
        ("shop", json!(many(33)), "33 entries, more than 32"),
        ("shop", json!("publish:*"), "sequence"),
        ("", json!(["publish:*"]), "is empty"),
        (&"n".repeat(65), json!(["publish:*"]), "65 bytes, more than 64"),
        ("a\u{0}b", json!(["publish:*"]), "control character"),
    ] {
        let body = json!({ "name": name, "scopes": scopes });
        let told: Problem = post(&body).send().await.unwrap().json().await.unwrap();
        assert_eq!((told.status, told.code.as_str()), (400, "body_invalid"), "{body}");
        assert!(told.detail.contains(why), "{}", told.detail);
    }
    for end in [
        json!({ "ttl_s": 0 }),
        json!({ "ttl_s": u64::MAX }),
        json!({ "expires_at": "2020-01-01T00:00:00Z" }),
        json!({ "expires_at": "9999-01-01T00:00:00Z" }),
        json!({ "expires_at": "2030-01-01T00:00:00Z", "ttl_s": 60 }),
    ] {
        let mut body = json!({ "name": "shop", "scopes": ["publish:*"] });
        body.as_object_mut().unwrap().extend(end.as_object().unwrap().clone());
        assert_eq!(problem(post(&body)).await, (400, "key_end_invalid".into()), "{body}");
    }
    assert_eq!(problem(auth.delete("/api/keys/7").bearer_auth(token.as_str())).await, (400, "path_invalid".into()));
    for _ in 0..100 {
        let body = json!({ "name": "shop", "scopes": many(1) });
        assert_eq!(post(&body).send().await.unwrap().status(), 201);
    }
    let one_more = post(&json!({ "name": "shop", "scopes": many(1) }));
    assert_eq!(problem(one_more).await, (409, "too_many_keys".into()));
    auth.running.stop().await;
}

#[tokio::test]
async fn the_log_tells_of_a_logout() {
    let auth = Auth::open(Clock::system()).await;
    let ann = auth.register("ann@example.org").await;
    let session = auth.login("ann@example.org").await;
    let user = auth.get("/api/revocations").bearer_auth(session.token.as_str());
    assert_eq!(problem(user).await, (403, "cluster_only".into()));
    let head: Revocations = cluster(auth.get("/api/revocations")).send().await.unwrap().json().await.unwrap();
    assert_eq!(head, Revocations::default());
    let waiting = tokio::spawn(cluster(auth.get("/api/revocations?after=0&wait_ms=20000")).send());
    auth.logout(&session).await;
    let log: Revocations = waiting.await.unwrap().unwrap().json().await.unwrap();
    assert_eq!((log.head, log.revoked[0].user_id, log.revoked[0].token_hash), (1, ann.id, Some(session.token.hash())));

    // A wait does not hold up the stop.
    let waiting = tokio::spawn(cluster(auth.get("/api/revocations?after=1&wait_ms=30000")).send());
    tokio::time::timeout(Duration::from_secs(10), auth.running.stop()).await.unwrap();
    let _ = waiting.await.unwrap();
}

/// Both share one Postgres, as two hosts would. Three rounds: a machine that is busy with other tests may miss one second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_logout_at_one_instance_is_seen_by_the_other_within_a_second() {
    let database = testing::postgres_url("auth_two").await;
    let one = Auth::on(Clock::system(), database.clone(), |_| ()).await;
    let two = Auth::on(Clock::system(), database, |_| ()).await;
    one.register("ann@example.org").await;
    let mut quickest = Duration::MAX;
    for round in 0..3 {
        let session = one.login("ann@example.org").await;
        assert_eq!(two.who(&session).await.status(), 200, "and is in its cache now");
        let path = format!("/api/revocations?after={round}&wait_ms=20000");
        let followed = tokio::spawn(cluster(two.get(&path)).send());

        one.logout(&session).await;
        let logged_out = Instant::now();
        let log: Revocations = followed.await.unwrap().unwrap().json().await.unwrap();
        quickest = quickest.min(logged_out.elapsed());
        assert_eq!(log.revoked[0].token_hash, Some(session.token.hash()));
        assert_eq!(two.who(&session).await.status(), 401);
        assert_eq!(one.who(&session).await.status(), 401);
    }
    assert!(quickest < Duration::from_secs(1), "{quickest:?}");
    tokio::join!(one.running.stop(), two.running.stop());
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

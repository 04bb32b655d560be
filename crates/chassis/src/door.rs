//! A service's HTTP door: its routes, and around them what every door has.

pub mod grpc;

use std::{
    fmt,
    future::Future,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
};

use actix_web::{
    App, HttpRequest, HttpResponse, HttpServer, ResponseError,
    error::{JsonPayloadError, PathError, QueryPayloadError},
    middleware::from_fn,
    web::{self, ServiceConfig},
};
use notifyx_database::Database;
use notifyx_model::Timestamp;
use prometheus::Registry;
use serde::Serialize;

use crate::{
    Context, Failure, Identify, Running, StartError,
    caller::Doorkeeper,
    connections::{BACKLOG, DRAIN_SECONDS, KEEP_ALIVE, LINGER, REQUEST_HEAD_TIMEOUT},
    inner::{self, Inner},
    json, observe,
    reply::chain,
    request::{Requests, method_not_allowed},
    sampled,
};

/// Larger than any batch of the coordinator's short messages needs; a 2 MiB body is refused before it is read.
pub(crate) const BODY_BYTES_MAX: usize = 1024 * 1024;

/// A cluster call carries up to 512 messages of 64 kB.
const BATCH_BYTES_MAX: usize = 40 * 1024 * 1024;

pub(crate) type Check = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<(), String>> + Send>> + Send + Sync>;
pub(crate) type Figures = Arc<dyn Fn() -> serde_json::Value + Send + Sync>;
type Routes = Arc<dyn Fn(&mut ServiceConfig) + Send + Sync>;

/// Builds a door; [`Door::listen`] opens it, or [`Door::listen_grpc`].
pub struct Door {
    name: &'static str,
    context: Context,
    registry: Registry,
    inner: Inner,
    identify: Option<Arc<dyn Identify>>,
    trusted_proxies: Vec<IpAddr>,
    routes: Option<Routes>,
}

impl Door {
    pub fn new(name: &'static str, context: &Context) -> Self {
        let registry = Registry::new();
        crate::telemetry::build_info(&registry, name);
        let inner = Inner::new(name, context, registry.clone());
        let trusted_proxies = Vec::new();
        Self { name, context: context.clone(), registry, inner, identify: None, trusted_proxies, routes: None }
    }

    /// Where the service registers its own metrics. One registry per service: two platforms fit in one process.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Shown on `/status` and `/dashboard`; secrets and passwords mask themselves when serialised.
    #[must_use]
    pub fn config(mut self, config: &impl Serialize) -> Self {
        self.inner.config = serde_json::to_value(config).unwrap_or_default();
        self
    }

    /// A condition of being ready.
    #[must_use]
    pub fn ready<F, Fut>(mut self, name: &'static str, check: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), String>> + Send + 'static,
    {
        self.inner.checks.push((name, Arc::new(move || Box::pin(check()))));
        self
    }

    /// The database: being ready needs it, and its connections are measured.
    #[must_use]
    pub fn database(self, database: &Database) -> Self {
        let (measured, database) = (database.clone(), database.clone());
        let sample = move || {
            let (open, idle) = measured.usage();
            vec![("idle", idle), ("used", (open as usize).saturating_sub(idle))]
        };
        let help = "database connections, used and idle";
        sampled::register(&self.registry, "notifyx_database_connections", help, "state", Box::new(sample));
        self.ready("database", move || {
            let database = database.clone();
            async move { database.ping().await.map_err(|error| chain(&error)) }
        })
    }

    /// What waits in the service's queues, by queue: `notifyx_queued{queue=…}`, looked at when somebody asks.
    #[must_use]
    pub fn queues(self, sample: impl Fn() -> Vec<(&'static str, usize)> + Send + Sync + 'static) -> Self {
        let help = "what waits in queues";
        sampled::register(&self.registry, "notifyx_queued", help, "queue", Box::new(sample));
        self
    }

    /// The service's own figures for `/status` and `/dashboard`; cheap, as pages ask often.
    #[must_use]
    pub fn figures(mut self, figures: impl Fn() -> serde_json::Value + Send + Sync + 'static) -> Self {
        self.inner.figures = Some(Arc::new(figures));
        self
    }

    /// How user tokens are resolved. Without it the door takes the cluster's secret only.
    #[must_use]
    pub fn identify(mut self, identify: Arc<dyn Identify>) -> Self {
        self.identify = Some(identify);
        self
    }

    /// Peers whose `X-Forwarded-For` is believed. Without them nobody's is.
    #[must_use]
    pub fn trusted_proxies(mut self, proxies: Vec<IpAddr>) -> Self {
        self.trusted_proxies = proxies;
        self
    }

    /// Serves the description at `/api/openapi.json`.
    #[must_use]
    pub fn openapi(mut self, api: utoipa::openapi::OpenApi) -> Self {
        self.inner.openapi = Some(api);
        self
    }

    #[must_use]
    pub fn routes(mut self, routes: impl Fn(&mut ServiceConfig) + Send + Sync + 'static) -> Self {
        self.routes = Some(Arc::new(routes));
        self
    }

    /// What the gateway's own server needs to give its REST side the same frame.
    pub fn parts(self) -> Parts {
        let doorkeeper = Doorkeeper {
            cluster: self.context.cluster,
            identify: self.identify,
            runtime: self.context.runtime,
            trusted_proxies: self.trusted_proxies.into(),
        };
        Parts {
            doorkeeper: web::Data::new(doorkeeper),
            requests: web::Data::new(Requests::new(&self.registry)),
            inner: web::Data::new(self.inner),
            routes: self.routes,
        }
    }

    /// Binds and serves. One worker: an inner service decodes and answers there, and works on the shared runtime.
    #[expect(clippy::unused_async, reason = "callers start services in async code; binding may come to wait")]
    pub async fn listen(self, address: SocketAddr) -> Result<Running, StartError> {
        let (name, runtime) = (self.name, self.context.runtime.clone());
        let parts = self.parts();
        let server = HttpServer::new(move || {
            let parts = parts.clone();
            App::new().wrap(from_fn(observe)).configure(move |config| parts.configure(config))
        })
        .workers(1)
        .backlog(BACKLOG)
        .keep_alive(KEEP_ALIVE)
        .client_request_timeout(REQUEST_HEAD_TIMEOUT)
        .client_disconnect_timeout(LINGER)
        .shutdown_timeout(DRAIN_SECONDS)
        .disable_signals()
        .bind(address)
        .map_err(|source| StartError::Bind { address, source })?;
        let bound = *server.addrs().first().expect("bind succeeded");
        let server = server.run();
        let handle = server.handle();
        let serving = runtime.spawn(server);
        tracing::info!(service = name, address = %bound, "{name} listens on {bound}");
        Ok(Running::new(name, bound, handle, serving))
    }
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").field("name", &self.name).finish_non_exhaustive()
    }
}

/// A door's frame and routes, for any actix `App`: `App::new().wrap(from_fn(observe)).configure(|c| parts.configure(c))`.
#[derive(Clone)]
pub struct Parts {
    doorkeeper: web::Data<Doorkeeper>,
    requests: web::Data<Requests>,
    inner: web::Data<Inner>,
    routes: Option<Routes>,
}

impl Parts {
    pub fn configure(&self, config: &mut ServiceConfig) {
        config
            .app_data(self.doorkeeper.clone())
            .app_data(self.requests.clone())
            .app_data(self.inner.clone())
            .app_data(json_config(BODY_BYTES_MAX))
            .app_data(web::PayloadConfig::new(BODY_BYTES_MAX))
            .app_data(web::QueryConfig::default().error_handler(|error, _| bad_query(&error).into()))
            .app_data(web::PathConfig::default().error_handler(|error, _| bad_path(&error).into()));
        inner::routes(config);
        if let Some(routes) = &self.routes {
            routes(config);
        }
        config.default_service(web::to(not_found));
    }
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").finish_non_exhaustive()
    }
}

/// For a scope of cluster-only batch routes: `web::scope("/api/2pc").app_data(batch_bodies())`.
pub fn batch_bodies() -> web::JsonConfig {
    json_config(BATCH_BYTES_MAX)
}

fn json_config(bytes_max: usize) -> web::JsonConfig {
    web::JsonConfig::default().limit(bytes_max).error_handler(move |error, _| bad_json(&error, bytes_max).into())
}

fn bad_json(error: &JsonPayloadError, bytes_max: usize) -> Failure {
    match error {
        JsonPayloadError::OverflowKnownLength { .. } | JsonPayloadError::Overflow { .. } => json::too_large(bytes_max),
        JsonPayloadError::ContentType => json::not_json(),
        JsonPayloadError::Deserialize(error) => json::unfit(error),
        other => Failure::made(400, "body_invalid", format!("the body could not be read: {other}")),
    }
}

fn bad_query(error: &QueryPayloadError) -> Failure {
    Failure::made(400, "query_invalid", format!("the query is not what this path takes: {error}"))
}

fn bad_path(error: &PathError) -> Failure {
    Failure::made(400, "path_invalid", format!("the path holds an invalid value: {error}"))
}

async fn not_found(request: HttpRequest) -> HttpResponse {
    if request.resource_map().match_pattern(request.path()).is_some() {
        return method_not_allowed().error_response();
    }
    let shown: String = request.path().chars().take(200).collect();
    Failure::made(404, "route_not_found", format!("there is nothing at {} {shown}", request.method())).error_response()
}

/// How long a service has been up.
pub(crate) fn uptime(started: Timestamp, now: Timestamp) -> u64 {
    now.since(started).as_secs()
}

#[cfg(test)]
mod tests {
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
    use serde_json::{Value, json};
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::{Anyone, Caller, Cluster, Json, Scoped, Unavailable};

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
        let service = get("/cluster")
            .header(header::CLUSTER_SECRET, "cluster-secret")
            .header(header::CLIENT_ADDRESS, "203.0.113.9");
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
        let post =
            |body: String| http.post(format!("{base}/echo")).header("content-type", "application/json").body(body);
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
        let page =
            get("/dashboard").basic_auth("op", Some("cluster-secret")).send().await.unwrap().text().await.unwrap();
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
}

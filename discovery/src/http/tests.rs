//! Through the real door, on port 0: by hand, and by the mesh.

use std::{collections::BTreeMap, num::NonZeroU64, time::Duration};

use notifyx_chassis::{Cluster, Context, Running};
use notifyx_mesh::{Lease, Mesh, MeshConfig};
use notifyx_model::{Clock, ManualClock, Secret};
use notifyx_wire::{
    header,
    rest::{Problem, discovery},
};
use reqwest::{Client, Method, RequestBuilder, StatusCode};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::Config;

const SECRET: &str = "the-clusters-secret";
/// Long enough for anything that should happen here.
const PATIENCE: Duration = Duration::from_secs(60);

struct Stage {
    running: Running,
    http: Client,
    base: String,
}

async fn open(clock: Clock) -> Stage {
    let context = Context {
        clock,
        shutdown: CancellationToken::new(),
        runtime: tokio::runtime::Handle::current(),
        cluster: Cluster::new(Secret::new(SECRET)),
        discovery: Vec::new(),
    };
    let config =
        Config { listen: "127.0.0.1:0".parse().unwrap(), lease_ms: NonZeroU64::new(200).unwrap(), ..Config::default() };
    let running = crate::start(config, context).await.unwrap();
    let base = format!("http://{}", running.address());
    Stage { running, http: Client::new(), base }
}

impl Stage {
    fn open_request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base))
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.open_request(method, path).header(header::CLUSTER_SECRET, SECRET)
    }

    async fn register(&self, body: &Value) -> reqwest::Response {
        self.request(Method::POST, "/api/register").json(body).send().await.unwrap()
    }

    async fn services(&self, path: &str) -> discovery::Services {
        self.request(Method::GET, path).send().await.unwrap().json().await.unwrap()
    }

    fn mesh(&self) -> Mesh {
        let (secret, metrics) = (Secret::new(SECRET), prometheus::Registry::new());
        let discovery = vec![self.base.clone()];
        Mesh::start(&MeshConfig::default(), &discovery, &secret, &Clock::system(), &metrics)
    }
}

async fn refused(request: RequestBuilder) -> (StatusCode, String) {
    let answer = request.send().await.unwrap();
    let status = answer.status();
    (status, answer.json::<Problem>().await.unwrap().code)
}

#[tokio::test]
async fn an_instance_registers_renews_is_found_and_leaves() {
    let stage = open(ManualClock::new().clock()).await;
    let body = json!({ "service": "persist", "address": "10.0.0.1:6000", "meta": { "zone": "a" } });
    let lease: discovery::Lease = stage.register(&body).await.json().await.unwrap();
    assert_eq!(lease.lease_ms, 200);
    let path = format!("/api/instances/{}", lease.instance);
    let renewed: discovery::Lease = stage.request(Method::PUT, &path).send().await.unwrap().json().await.unwrap();
    assert_eq!(renewed, lease);

    let found: Value =
        stage.request(Method::GET, "/api/service_address/persist").send().await.unwrap().json().await.unwrap();
    assert_eq!(found, json!({ "address": "10.0.0.1:6000", "instance": lease.instance }));
    let listed = stage.services("/api/services").await;
    let listed = listed.instances.iter().find(|instance| instance.instance == lease.instance).unwrap();
    assert_eq!((listed.meta["zone"].as_str(), listed.age_ms), ("a", 0));

    let left = stage.request(Method::DELETE, &path).send().await.unwrap();
    assert_eq!(left.status(), StatusCode::NO_CONTENT);
    let not_found = |code: &str| (StatusCode::NOT_FOUND, code.to_owned());
    assert_eq!(refused(stage.request(Method::DELETE, &path)).await, not_found("instance_not_found"));
    assert_eq!(refused(stage.request(Method::PUT, &path)).await, not_found("instance_not_found"));
    let gone = stage.request(Method::GET, "/api/service_address/persist");
    assert_eq!(refused(gone).await, not_found("service_not_found"));

    stage.register(&body).await;
    let removed = stage.request(Method::DELETE, "/api/persist").send().await.unwrap();
    assert_eq!(removed.status(), StatusCode::NO_CONTENT);
    assert_eq!(refused(stage.request(Method::DELETE, "/api/persist")).await, not_found("service_not_found"));
    stage.running.stop().await;
}

#[tokio::test]
async fn prometheus_reads_its_targets_without_a_secret() {
    let stage = open(Clock::system()).await;
    let lease: discovery::Lease =
        stage.register(&json!({ "service": "persist", "address": "persist:6000" })).await.json().await.unwrap();
    let targets = stage.open_request(Method::GET, "/prometheus/targets").send().await.unwrap();
    assert_eq!(targets.headers()["content-type"], "application/json");
    let targets: Vec<Value> = targets.json().await.unwrap();
    let labels = json!({ "service": "persist", "instance_id": lease.instance });
    assert!(targets.contains(&json!({ "targets": ["persist:6000"], "labels": labels })), "{targets:?}");
    let own = stage.running.address().to_string();
    assert!(targets.iter().any(|target| target["targets"] == json!([own])), "itself too: {targets:?}");
    stage.running.stop().await;
}

#[tokio::test]
async fn everything_else_needs_the_clusters_secret() {
    let stage = open(Clock::system()).await;
    let doors = [
        (Method::POST, "/api/register"),
        (Method::PUT, "/api/instances/0190b8d0-0000-7000-8000-000000000000"),
        (Method::DELETE, "/api/instances/0190b8d0-0000-7000-8000-000000000000"),
        (Method::DELETE, "/api/persist"),
        (Method::GET, "/api/service_address/persist"),
        (Method::GET, "/api/services"),
        (Method::GET, "/api/watch"),
    ];
    for (method, path) in doors {
        let body = json!({ "service": "persist", "address": "persist:6000" });
        let stranger = stage.open_request(method.clone(), path).json(&body);
        assert_eq!(refused(stranger).await.0, StatusCode::UNAUTHORIZED, "{method} {path}");
        let user = stage.open_request(method.clone(), path).json(&body).bearer_auth("t".repeat(43));
        // Nobody can say here whose it is; a user is told so, and not let in.
        assert_eq!(refused(user).await.0, StatusCode::SERVICE_UNAVAILABLE, "{method} {path}");
    }
    stage.running.stop().await;
}

#[tokio::test]
async fn what_is_malformed_is_refused_with_its_reason() {
    let stage = open(Clock::system()).await;
    let many: BTreeMap<_, _> = (0..17).map(|n| (n.to_string(), "v")).collect();
    let bad = [
        (json!({ "service": "Persist!", "address": "a:1" }), "body_invalid"),
        (json!({ "service": "persist" }), "body_invalid"),
        (json!({ "service": "persist", "address": "a:1", "adress": "b:1" }), "body_invalid"),
        (json!({ "service": "persist", "address": "0.0.0.0:6000" }), "address_invalid"),
        (json!({ "service": "persist", "address": "a:1", "meta": many }), "meta_invalid"),
    ];
    for (body, code) in bad {
        let request = stage.request(Method::POST, "/api/register").json(&body);
        assert_eq!(refused(request).await, (StatusCode::BAD_REQUEST, code.to_owned()), "{body}");
    }
    for path in ["/api/instances/7", "/api/Persist!"] {
        let refused = refused(stage.request(Method::DELETE, path)).await;
        assert_eq!(refused, (StatusCode::BAD_REQUEST, "path_invalid".to_owned()), "{path}");
    }
    let query = stage.request(Method::GET, "/api/watch?after=x");
    assert_eq!(refused(query).await, (StatusCode::BAD_REQUEST, "query_invalid".to_owned()));
    stage.running.stop().await;
}

#[tokio::test]
async fn a_watcher_hears_at_once_of_who_comes_and_of_whose_lease_ran_out() {
    let hand = ManualClock::new();
    let stage = open(hand.clock()).await;
    let unknown = stage.services("/api/watch?after=1&wait_ms=30000").await;
    let nothing_new = stage.services(&format!("/api/watch?after={}&wait_ms=1", unknown.version)).await;
    assert_eq!(nothing_new, unknown);

    let stage = &stage;
    let waiting = async |version: u64| stage.services(&format!("/api/watch?after={version}&wait_ms=30000")).await;
    let body = json!({ "service": "persist", "address": "persist:6000" });
    let (came, _) = tokio::join!(waiting(unknown.version), stage.register(&body));
    assert!(came.instances.iter().any(|instance| instance.address == "persist:6000"));
    let (gone, ()) = tokio::join!(waiting(came.version), async { hand.advance(Duration::from_millis(200)) });
    assert!(gone.version > came.version);
    assert!(gone.instances.iter().all(|instance| instance.address != "persist:6000"));
}

#[tokio::test]
async fn a_watcher_does_not_hold_up_the_end() {
    let Stage { running, http, base } = open(Clock::system()).await;
    let get = |path: String| http.get(format!("{base}{path}")).header(header::CLUSTER_SECRET, SECRET);
    let now: discovery::Services = get("/api/services".into()).send().await.unwrap().json().await.unwrap();
    let watch = get(format!("/api/watch?after={}&wait_ms=30000", now.version));
    let watching = tokio::spawn(async move { watch.send().await?.json::<discovery::Services>().await });
    let began = std::time::Instant::now();
    running.stop().await;
    // Answered, or not yet taken in; never left hanging.
    let _ = watching.await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(5), "sooner than the drain would give up");
}

#[tokio::test]
async fn the_mesh_finds_what_a_lease_keeps_here() {
    let stage = open(Clock::system()).await;
    let (keeper, seeker) = (stage.mesh(), stage.mesh());
    let address = stage.running.address();
    let lease = Lease::keep(&keeper, "persist", address, BTreeMap::new(), CancellationToken::new());
    assert!(seeker.wait_for("persist", PATIENCE).await);
    assert_eq!(seeker.snapshot().services["persist"][0].instance, lease.instance());
    lease.release().await;
    let listed = stage.services("/api/services").await;
    assert!(listed.instances.iter().all(|instance| instance.instance != lease.instance()));
    keeper.stop().await;
    seeker.stop().await;
    stage.running.stop().await;
}

//! Calls through real connections: whose turn it is, what travels along, what follows from a failure.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use actix_web::{
    HttpRequest, HttpResponse,
    web::{self, ServiceConfig},
};
use notifyx_mesh::{BreakerState, Call, CallError, Mesh, MeshConfig};
use notifyx_model::{Clock, Email, Fault, Kind, UserId};
use notifyx_wire::header;
use tokio::{
    io::AsyncReadExt,
    net::TcpListener,
    sync::{Semaphore, mpsc::unbounded_channel},
};

use crate::support::{Peer, SECRET, breakers, fixed_address, mesh, refusal};

const UNREACHABLE: CallError = CallError::Unreachable { service: "persist" };
const TIMEOUT: CallError = CallError::Timeout { service: "persist" };

fn config() -> MeshConfig {
    MeshConfig { breaker_failures: 3, breaker_open_ms: 20, breaker_open_max_ms: 20, ..MeshConfig::default() }
}

/// Answers any request with a word.
fn says(word: &'static str) -> impl Fn(&mut ServiceConfig) + Send + Sync {
    move |config| {
        config.default_service(web::to(move || async move { HttpResponse::Ok().json(word) }));
    }
}

/// Never answers.
fn hangs(config: &mut ServiceConfig) {
    config.default_service(web::to(std::future::pending::<HttpResponse>));
}

/// Takes each request and breaks the connection.
async fn cuts() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let _ = socket.read(&mut [0; 4_096]).await.unwrap();
        }
    });
    address
}

async fn word(mesh: &Mesh, call: Call) -> Result<String, CallError> {
    mesh.call("persist", call).await?.json()
}

#[tokio::test]
async fn instances_take_turns() {
    let (one, two) = (Peer::start(says("one")), Peer::start(says("two")));
    let (mesh, _) = mesh(&config(), &[one.address, two.address]);
    let mut words = Vec::new();
    for _ in 0..4 {
        words.push(word(&mesh, Call::get("/")).await.unwrap());
    }
    assert_eq!(words.iter().filter(|word| *word == "one").count(), 2, "{words:?}");
}

#[tokio::test]
async fn a_call_carries_the_secret_the_user_the_trace_and_its_query() {
    let peer = Peer::start(|config| {
        config.default_service(web::to(|request: HttpRequest, body: web::Bytes| async move {
            let header = |name| String::from_utf8(request.headers().get(name).unwrap().as_bytes().to_vec()).unwrap();
            let names = [header::CLUSTER_SECRET, header::ASSERTED_USER, header::TRACEPARENT, "content-type"];
            HttpResponse::Ok().json((names.map(header), request.uri().to_string(), String::from_utf8_lossy(&body)))
        }));
    });
    let (mesh, _) = mesh(&config(), &[peer.address]);
    let trace = notifyx_wire::trace::TraceContext::begin();
    let (id, email) = (UserId::new(&Clock::system()), Email::parse("ann@example.org").unwrap());
    let call = Call::post("/api/topics").query("name", "a b&c").json(&[1, 2]).user(id, &email);
    let answer = trace.scope(mesh.call("persist", call)).await.unwrap();
    let (headers, uri, body): ([String; 4], String, String) = answer.json().unwrap();
    assert_eq!(headers[0], SECRET);
    assert_eq!(headers[1], format!("{id} ann@example.org"));
    assert!(headers[2].contains(&trace.request_id()), "{}", headers[2]);
    assert_ne!(headers[2], trace.to_string(), "a hop of its own");
    assert_eq!((headers[3].as_str(), body.as_str()), ("application/json", "[1,2]"));
    assert_eq!(uri, "/api/topics?name=a+b%26c");
}

#[tokio::test]
async fn a_refusal_keeps_its_reason() {
    let peer = Peer::start(|config| {
        config.default_service(web::to(|| async { refusal(404, "topic_not_found") }));
    });
    let (mesh, _) = mesh(&config(), &[peer.address]);
    for _ in 0..9 {
        let error = mesh.call("persist", Call::get("/")).await.unwrap_err();
        assert_eq!((error.kind(), error.code()), (Kind::NotFound, "topic_not_found"));
        assert_eq!(error.to_string(), "no, because of topic_not_found");
    }
    assert_eq!(breakers(&mesh), [BreakerState::Closed], "a no is an answer");
}

#[tokio::test]
async fn one_that_is_full_says_when_to_come_back_and_keeps_its_breaker_closed() {
    let peer = Peer::start(|config| {
        config.default_service(web::to(|| async {
            let mut answer = refusal(503, "queue_full");
            answer.headers_mut().insert("retry-after".parse().unwrap(), "7".parse().unwrap());
            answer
        }));
    });
    let (mesh, _) = mesh(&config(), &[peer.address]);
    for _ in 0..9 {
        let error = mesh.call("persist", Call::get("/")).await.unwrap_err();
        assert_eq!((error.kind(), error.retry_after()), (Kind::Unavailable, Some(Duration::from_secs(7))));
    }
    assert_eq!(breakers(&mesh), [BreakerState::Closed]);
}

#[tokio::test]
async fn an_instance_that_fails_inside_is_left_alone() {
    let peer = Peer::start(|config| {
        config.default_service(web::to(|| async { refusal(500, "internal") }));
    });
    let (mesh, _) = mesh(&config(), &[peer.address]);
    for _ in 0..3 {
        assert_eq!(mesh.call("persist", Call::get("/")).await.unwrap_err().kind(), Kind::Internal);
    }
    assert_eq!(breakers(&mesh), [BreakerState::Open]);
    assert_eq!(mesh.call("persist", Call::get("/")).await.unwrap_err(), UNREACHABLE);
}

#[tokio::test]
async fn a_wrong_cluster_secret_is_not_the_users_fault() {
    let peer = Peer::start(|config| {
        config.default_service(web::to(|| async { refusal(401, "cluster_secret_invalid") }));
    });
    let (mesh, _) = mesh(&config(), &[peer.address]);
    assert_eq!(mesh.call("persist", Call::get("/")).await.unwrap_err().kind(), Kind::Internal);
}

#[tokio::test]
async fn an_answer_that_cannot_be_read_is_told() {
    let peer = Peer::start(says("one"));
    let (mesh, _) = mesh(&config(), &[peer.address]);
    let error = mesh.call("persist", Call::get("/")).await.unwrap().json::<u32>().unwrap_err();
    assert!(matches!(&error, CallError::Broken { service: "persist", .. }), "{error}");
}

#[tokio::test]
async fn a_killed_instance_opens_its_breaker_and_one_probe_closes_it() {
    let address = fixed_address();
    let (mesh, metrics) = mesh(&MeshConfig { attempts_max: 1, ..config() }, &[address]);
    for _ in 0..3 {
        assert_eq!(word(&mesh, Call::get("/")).await, Err(UNREACHABLE));
    }
    assert_eq!(breakers(&mesh), [BreakerState::Open]);

    let (arrive, mut arrived) = unbounded_channel();
    let go = Arc::new(Semaphore::new(0));
    let held = go.clone();
    let _peer = Peer::start_at(address, move |config| {
        let (arrive, go) = (arrive.clone(), held.clone());
        config.default_service(web::to(move || {
            let (arrive, go) = (arrive.clone(), go.clone());
            async move {
                arrive.send(()).unwrap();
                go.acquire().await.unwrap().forget();
                HttpResponse::Ok().json("back")
            }
        }));
    });
    let probe = loop {
        let mut call = tokio::spawn({
            let mesh = mesh.clone();
            async move { word(&mesh, Call::get("/")).await }
        });
        tokio::select! {
            _ = arrived.recv() => break call,
            // Still rejecting.
            outcome = &mut call => assert_eq!(outcome.unwrap(), Err(UNREACHABLE)),
        }
    };
    assert_eq!(breakers(&mesh), [BreakerState::HalfOpen]);
    let shown = prometheus::TextEncoder::new().encode_to_string(&metrics.gather()).unwrap();
    assert!(shown.lines().any(|line| line.contains(r#"state="half-open"} 1"#)), "{shown}");
    assert!(shown.lines().any(|line| line.contains(r#"state="closed"} 0"#)), "{shown}");
    assert_eq!(word(&mesh, Call::get("/")).await, Err(UNREACHABLE), "one probe at a time");

    go.add_permits(2);
    assert_eq!(probe.await.unwrap(), Ok("back".into()));
    assert_eq!(breakers(&mesh), [BreakerState::Closed]);
    assert_eq!(word(&mesh, Call::get("/")).await, Ok("back".into()));
}

#[tokio::test]
async fn what_was_never_sent_goes_elsewhere_whatever_it_is() {
    let peer = Peer::start(says("one"));
    let (mesh, _) = mesh(&config(), &[fixed_address(), peer.address]);
    for _ in 0..20 {
        assert_eq!(word(&mesh, Call::post("/")).await, Ok("one".into()));
    }
    assert!(breakers(&mesh).contains(&BreakerState::Closed));
}

#[tokio::test]
async fn only_what_is_idempotent_is_repeated_when_the_outcome_is_not_known() {
    let peer = Peer::start(says("one"));
    let patient = MeshConfig { breaker_failures: 1_000, ..config() };
    let (mesh, _) = mesh(&patient, &[cuts().await, peer.address]);
    let mut outcomes = Vec::new();
    for _ in 0..4 {
        outcomes.push(word(&mesh, Call::post("/")).await);
    }
    let cut =
        |outcome: &&Result<_, _>| matches!(outcome, Err(error @ CallError::Cut { .. }) if !error.is_undelivered());
    assert_eq!(outcomes.iter().filter(cut).count(), 2, "{outcomes:?}");
    for _ in 0..4 {
        assert_eq!(word(&mesh, Call::post("/").idempotent()).await, Ok("one".into()));
    }
}

#[tokio::test]
async fn a_doubt_is_not_taken_back_by_a_later_failure() {
    // The first try may have taken effect; that the second found nobody does not change that.
    let (mesh, _) = mesh(&MeshConfig { attempts_max: 2, ..config() }, &[cuts().await, fixed_address()]);
    for _ in 0..2 {
        let error = word(&mesh, Call::get("/")).await.unwrap_err();
        assert!(!error.is_undelivered(), "{error}");
    }
}

#[tokio::test]
async fn a_call_ends_by_its_deadline() {
    let peer = Peer::start(hangs);
    let (mesh, _) = mesh(&MeshConfig { call_ms: 60_000, ..config() }, &[peer.address]);
    let began = std::time::Instant::now();
    assert_eq!(word(&mesh, Call::get("/").deadline(Duration::from_millis(50))).await, Err(TIMEOUT));
    assert!(began.elapsed() < Duration::from_secs(30), "sooner than where nothing is said");
}

#[tokio::test]
async fn an_instance_that_hangs_leaves_time_for_another() {
    let (hung, well) = (Peer::start(hangs), Peer::start(says("well")));
    let (mesh, _) = mesh(&MeshConfig { call_ms: 2_000, ..config() }, &[hung.address, well.address]);
    for _ in 0..2 {
        assert_eq!(word(&mesh, Call::get("/")).await, Ok("well".into()));
    }
}

#[tokio::test]
async fn retries_stay_within_their_budget() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    let routes = move |config: &mut ServiceConfig| {
        let count = count.clone();
        config.default_service(web::to(move || {
            count.fetch_add(1, Ordering::SeqCst);
            async { refusal(502, "broken") }
        }));
    };
    let (one, two) = (Peer::start(routes.clone()), Peer::start(routes));
    let patient = MeshConfig { breaker_failures: 1_000_000, ..config() };
    let (mesh, _) = mesh(&patient, &[one.address, two.address]);
    for _ in 0..100 {
        assert_eq!(mesh.call("persist", Call::get("/")).await.unwrap_err().kind(), Kind::Unavailable);
    }
    // Ten to begin with, and one for five calls.
    assert_eq!(asked.load(Ordering::SeqCst), 100 + 10 + 20);
}

#[tokio::test]
async fn a_service_that_nobody_knows_is_unreachable() {
    let (mesh, _) = mesh(&config(), &[]);
    assert_eq!(word(&mesh, Call::get("/")).await, Err(UNREACHABLE));
}

//! Following a registry, and staying in it, while it comes and goes.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use actix_web::{
    HttpResponse,
    web::{self, ServiceConfig},
};
use notifyx_mesh::{Call, Lease, Mesh, MeshConfig};
use notifyx_model::{Clock, InstanceId, ManualClock, Secret, ServiceName};
use notifyx_wire::rest::discovery::{self, Instance, Register, Services};
use serde::Deserialize;
use tokio::sync::{
    mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
    watch,
};
use tokio_util::sync::CancellationToken;

use crate::support::{Peer, SECRET};

/// Long enough for anything that should happen here.
const PATIENCE: Duration = Duration::from_secs(60);

/// A registry that says what it is told to say, and tells what it is asked.
#[derive(Clone)]
struct Told {
    list: watch::Sender<Services>,
    asked: UnboundedSender<Asked>,
}

#[derive(Debug, PartialEq)]
enum Asked {
    Register(Register),
    Release(InstanceId),
}

#[derive(Deserialize)]
struct Watch {
    after: u64,
    wait_ms: u64,
}

fn told() -> (Told, UnboundedReceiver<Asked>) {
    let (asked, heard) = unbounded_channel();
    (Told { list: watch::Sender::new(Services { version: 7, instances: Vec::new() }), asked }, heard)
}

impl Told {
    fn routes(self) -> impl Fn(&mut ServiceConfig) + Send + Sync {
        move |config| {
            config
                .app_data(web::Data::new(self.clone()))
                .route("/api/watch", web::get().to(watch_list))
                .route("/api/register", web::post().to(register))
                .route("/api/instances/{id}", web::delete().to(release));
        }
    }

    fn say(&self, instances: Vec<Instance>) {
        self.list.send_modify(|list| *list = Services { version: list.version + 1, instances });
    }
}

async fn watch_list(told: web::Data<Told>, query: web::Query<Watch>) -> HttpResponse {
    let mut list = told.list.subscribe();
    let news = list.wait_for(|list| list.version != query.after);
    let _ = tokio::time::timeout(Duration::from_millis(query.wait_ms), news).await;
    HttpResponse::Ok().json(&*told.list.borrow())
}

async fn register(told: web::Data<Told>, body: web::Json<Register>) -> HttpResponse {
    let lease = discovery::Lease { instance: body.instance.unwrap(), lease_ms: 60 };
    told.asked.send(Asked::Register(body.into_inner())).unwrap();
    HttpResponse::Ok().json(lease)
}

async fn release(told: web::Data<Told>, id: web::Path<String>) -> HttpResponse {
    told.asked.send(Asked::Release(id.parse().unwrap())).unwrap();
    HttpResponse::NoContent().finish()
}

fn instance(service: &str, address: SocketAddr) -> Instance {
    let (service, instance) = (ServiceName::parse(service).unwrap(), InstanceId::new(&Clock::system()));
    Instance { instance, service, address: address.to_string(), meta: BTreeMap::new(), age_ms: 0 }
}

fn start(registries: &[SocketAddr], clock: &Clock, metrics: &prometheus::Registry) -> Mesh {
    let discovery: Vec<String> = registries.iter().map(|address| format!("http://{address}/")).collect();
    Mesh::start(&MeshConfig::default(), &discovery, &Secret::new(SECRET), clock, metrics)
}

fn age_seconds(metrics: &prometheus::Registry) -> f64 {
    let families = metrics.gather();
    let family = families.iter().find(|family| family.name() == "notifyx_mesh_registry_age_seconds").unwrap();
    family.get_metric()[0].get_gauge().get_value()
}

/// Answers with a word.
fn persist(word: &'static str) -> Peer {
    Peer::start(move |config| {
        config.default_service(web::to(move || async move { HttpResponse::Ok().json(word) }));
    })
}

#[tokio::test]
async fn the_last_list_outlives_the_registry_and_a_metric_says_so() {
    let (told, _asked) = told();
    let (registry, peer) = (Peer::start(told.clone().routes()), persist("here"));
    let (hand, metrics) = (ManualClock::new(), prometheus::Registry::new());
    let mesh = start(&[registry.address], &hand.clock(), &metrics);
    let call = || async { mesh.call("persist", Call::get("/")).await?.json::<String>() };
    assert!(call().await.is_err());

    told.say(vec![instance("persist", peer.address)]);
    assert!(mesh.wait_for("persist", PATIENCE).await);
    assert_eq!(call().await, Ok("here".into()));

    let address = registry.kill().await;
    hand.advance(Duration::from_secs(3_600));
    assert_eq!(call().await, Ok("here".into()));
    assert!(age_seconds(&metrics) >= 3_600.0);
    assert!(mesh.snapshot().registry_age_ms >= 3_600_000);

    // Back, and it knows nobody yet but one.
    told.say(vec![instance("auth", peer.address)]);
    let _registry = Peer::start_at(address, told.clone().routes());
    assert!(mesh.wait_for("auth", PATIENCE).await);
    assert_eq!(call().await, Ok("here".into()));
    assert!(age_seconds(&metrics) < 1.0);
    tokio::time::timeout(PATIENCE, mesh.stop()).await.unwrap();
}

#[tokio::test]
async fn another_registry_answers_where_one_is_away() {
    let (told, _asked) = told();
    let (registry, peer) = (Peer::start(told.clone().routes()), persist("here"));
    told.say(vec![instance("persist", peer.address)]);
    let away = Peer::start(|_| {}).kill().await;
    let mesh = start(&[away, registry.address], &Clock::system(), &prometheus::Registry::new());
    assert!(mesh.wait_for("persist", PATIENCE).await);
}

#[tokio::test]
async fn a_lease_is_renewed_until_it_is_released() {
    let (told, mut asked) = told();
    let registry = Peer::start(told.routes());
    let mesh = start(&[registry.address], &Clock::system(), &prometheus::Registry::new());
    let meta = BTreeMap::from([("zone".to_owned(), "a".to_owned())]);
    let lease = Lease::keep(&mesh, "persist", "10.0.0.1:6000", meta.clone(), CancellationToken::new());
    tokio::time::timeout(PATIENCE, lease.held()).await.unwrap();
    assert!(lease.is_held());
    let register = Register {
        service: ServiceName::parse("persist").unwrap(),
        address: "10.0.0.1:6000".into(),
        instance: Some(lease.instance()),
        meta,
    };
    for _ in 0..3 {
        assert_eq!(asked.recv().await.unwrap(), Asked::Register(register.clone()));
    }
    lease.release().await;
    released(&mut asked, &lease).await;
    assert!(asked.try_recv().is_err(), "nothing after it left");
}

#[tokio::test]
async fn a_lease_waits_for_a_registry_that_is_not_there_yet_and_ends_with_the_process() {
    let address = Peer::start(|_| {}).kill().await;
    let mesh = start(&[address], &Clock::system(), &prometheus::Registry::new());
    let shutdown = CancellationToken::new();
    let lease = Lease::keep(&mesh, "persist", "10.0.0.1:6000", BTreeMap::new(), shutdown.clone());
    assert!(!lease.is_held());
    let (told, mut asked) = told();
    let _registry = Peer::start_at(address, told.routes());
    tokio::time::timeout(PATIENCE, lease.held()).await.unwrap();
    shutdown.cancel();
    released(&mut asked, &lease).await;
}

#[tokio::test]
async fn a_mesh_that_stops_ends_its_leases() {
    let (told, mut asked) = told();
    let registry = Peer::start(told.routes());
    let mesh = start(&[registry.address], &Clock::system(), &prometheus::Registry::new());
    let lease = Lease::keep(&mesh, "persist", "10.0.0.1:6000", BTreeMap::new(), CancellationToken::new());
    lease.held().await;
    tokio::time::timeout(PATIENCE, mesh.stop()).await.unwrap();
    released(&mut asked, &lease).await;
}

async fn released(asked: &mut UnboundedReceiver<Asked>, lease: &Lease) {
    while asked.recv().await.unwrap() != Asked::Release(lease.instance()) {}
}

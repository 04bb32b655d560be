//! The front door: sockets that speak Phoenix channels, REST, and behind them publishing through two-phase commit.
//!
//! A socket's way is `edge → session → publish → backends`; a notification's way back is `bus → feed → hub → edge`. This file
//! puts the parts together and takes them apart again in order.

mod access;
mod backends;
mod desk;
mod edge;
mod error;
mod events;
mod feed;
mod http;
mod hub;
mod listen;
mod live;
mod operators;
pub mod platform;
mod publish;
mod scheduled;
mod schedules;
mod session;
#[cfg(test)]
mod testing;
pub mod transactions;
mod watch;

use std::{
    net::{IpAddr, SocketAddr},
    num::{NonZeroU32, NonZeroUsize},
    sync::Arc,
    time::Duration,
};

use actix_web::web::Data;
use async_trait::async_trait;
use notifyx_chassis::{Context, Door, Identify, Running, Shared, StartError, Unavailable};
use notifyx_commit::{Coordinator, Party, Ports};
use notifyx_database::{Database, DatabaseUrl, Options};
use notifyx_mesh::{Bus, Mesh, MeshConfig, Place, Sessions};
use notifyx_model::{InstanceId, Token};
use notifyx_wire::rest::auth::keys::Principal;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

pub use error::Error;

use crate::{
    backends::{AUTH, Backends, COUNTER, PERSIST},
    edge::{Edge, Limits},
    feed::Feeds,
    hub::Hub,
    live::Live,
    operators::Operators,
    platform::Platform,
    publish::{Announcer, Publisher},
    scheduled::Scheduled,
    watch::Watching,
};

/// The service's name in the registry.
pub const NAME: &str = "gateway";

/// The commented defaults.
pub const DEFAULTS: &str = include_str!("../default.toml");

/// Hints that the feed may be behind before it loses the oldest; it finds what it lost in the store.
const BUS_HINTS: usize = 4_096;

/// Sockets get this long to take their goodbye: a close frame and a round trip.
const DRAIN: Duration = Duration::from_secs(3);

/// What each key means is said beside it in [`DEFAULTS`].
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub listen: SocketAddr,
    pub advertise: String,
    pub database: DatabaseUrl,
    pub database_connections: NonZeroU32,
    pub workers: usize,
    pub sockets_max: NonZeroUsize,
    pub allowed_origins: Vec<String>,
    pub anonymous: bool,
    pub trusted_proxies: Vec<IpAddr>,
    pub commit: notifyx_commit::Config,
    pub mesh: MeshConfig,
}

impl Default for Config {
    fn default() -> Self {
        notifyx_chassis::config::defaults(DEFAULTS)
    }
}

/// Opens the database and the door, and enters the registry. Call it on the context's runtime.
pub async fn start(config: Config, context: Context) -> Result<Running, StartError> {
    config.commit.check().map_err(|why| StartError::Other(format!("[gateway] commit.{why}")))?;
    let options = Options { connections: config.database_connections.get(), ..Options::default() };
    let database = Database::open(&config.database, options, &transactions::MIGRATIONS).await?;
    let door = Door::new(NAME, &context);
    let inner = Inner::start(&config, &context, &database, door.registry());
    let consumer_metrics = scheduled::Metrics::new(door.registry());
    let platform: Arc<dyn Platform> = inner.live.clone();
    let (watching, watch) = Watching::start(&inner.mesh, inner.watch.clone(), &context.runtime);
    let (feeds, following) = Feeds::start(&inner.hub, &platform, inner.bus.subscribe(), watch, &context.runtime);
    let edge = Edge::new(inner.hub.clone(), following, platform, edge_options(&config), &context);
    let place = Place::new(&inner.mesh, NAME);

    let rest = described(door, &config, &inner, &database, &place)
        .trusted_proxies(config.trusted_proxies.clone())
        .identify(Arc::new(Callers(inner.sessions.clone())))
        .openapi(http::description())
        .routes({
            let live = Data::new(Shared::of(&context, inner.live.clone()));
            move |routes| http::routes(routes, &live)
        })
        .parts();
    let bound = edge.serve(config.listen, &rest);
    let (server, address) = bound.map_err(|source| StartError::Bind { address: config.listen, source })?;
    let handle = server.handle();
    let mut running = Running::new(NAME, address, handle, context.runtime.spawn(server));
    tracing::info!(service = NAME, %address, "{NAME} listens on {address}");
    if config.anonymous {
        tracing::warn!(
            "anybody who reaches {address} may publish and listen to events, without credentials (`anonymous` is set)"
        );
    }
    place.take(&config.advertise, address, &context.shutdown);
    let looking = context.runtime.spawn(warn_of_neighbours(inner.mesh.clone(), context.shutdown.clone()));

    let consumer = inner.live.scheduled.start(consumer_metrics, context.shutdown.child_token());
    let revoking = context.runtime.spawn(revoke_sockets(inner.hub.clone(), inner.sessions.clone()));
    let hub = inner.hub.clone();
    running.before_stop(async move {
        place.leave().await;
        let left = hub.drain(DRAIN).await;
        if left > 0 {
            tracing::warn!(left, "{left} sockets did not let go in time");
        }
    });
    running.after_stop(async move { database.close().await });
    running.after_stop(async move {
        revoking.abort();
        looking.abort();
        feeds.stop().await;
        watching.stop().await;
        consumer.stop().await;
        inner.live.publisher.coordinator().close().await;
        inner.live.backends.close().await;
        inner.mesh.stop().await;
    });
    Ok(running)
}

/// What stands behind the door.
struct Inner {
    mesh: Mesh,
    sessions: Arc<Sessions>,
    bus: Bus,
    hub: Hub,
    watch: watch::Metrics,
    live: Arc<Live>,
}

impl Inner {
    fn start(config: &Config, context: &Context, database: &Database, metrics: &prometheus::Registry) -> Self {
        let clock = context.clock.clone();
        let mesh = Mesh::start(&config.mesh, &context.discovery, context.cluster.secret(), &clock, metrics);
        let sessions = Sessions::start(mesh.clone(), clock.clone());
        let bus = Bus::in_process(BUS_HINTS).counted_in(metrics);
        let (hub, watch) = (Hub::new(hub::Metrics::new(metrics)), watch::Metrics::new(metrics));
        let ports = Ports {
            store: transactions::open(database, clock.clone()),
            persist: transactions::remote(&mesh, Party::Persist),
            counter: transactions::remote(&mesh, Party::Counter),
            sink: Arc::new(Announcer(bus.clone())),
        };
        let owner = InstanceId::new(&clock);
        let coordinator = Coordinator::start(config.commit.clone(), ports, clock.clone(), owner, metrics);
        let backends = Backends::new(mesh.clone(), clock.clone());
        let operators = Operators::new(coordinator.clone(), clock.clone());
        let publisher = Publisher::new(backends.clone(), coordinator, clock.clone());
        let scheduled = Scheduled::new(backends.events.clone(), mesh.clone(), publisher.clone(), clock.clone());
        let live = Arc::new(Live {
            backends,
            publisher,
            scheduled,
            operators,
            sessions: sessions.clone(),
            hub: hub.clone(),
            clock,
            anonymous: config.anonymous,
        });
        Self { mesh, sessions, bus, hub, watch, live }
    }
}

/// A gateway is ready when it can publish and show: its own store, and an instance of every service it needs.
fn described(door: Door, config: &Config, inner: &Inner, database: &Database, place: &Place) -> Door {
    let mut door = door.config(config).database(database).ready("registry", place.readiness());
    for service in [AUTH, PERSIST, COUNTER] {
        let mesh = inner.mesh.clone();
        door = door.ready(service, move || {
            let known = mesh.knows(service);
            async move { if known { Ok(()) } else { Err(format!("no instance of {service} is in the registry")) } }
        });
    }
    let (waiting, hub) = (inner.live.clone(), inner.hub.clone());
    let door = door.queues(move || {
        vec![
            ("publishes", waiting.publisher.coordinator().queued()),
            ("joins", waiting.backends.joins_waiting()),
            ("events", waiting.backends.events.waiting()),
            ("bursts", hub.bursts_waiting()),
        ]
    });
    let (mesh, hub, live, watch) = (inner.mesh.clone(), inner.hub.clone(), inner.live.clone(), inner.watch.clone());
    door.figures(move || {
        serde_json::json!({
            "sockets": hub.sockets(),
            "topics_followed": hub.metrics().topics.followed.get(),
            "categories_followed": hub.metrics().categories.followed.get(),
            // None: events come up to a second late, or not at all while the service is away. Notifications do without.
            "watch_streams": watch.streams.get(),
            "publishes_waiting": live.publisher.coordinator().queued(),
            "mesh": mesh.snapshot(),
        })
    })
}

fn edge_options(config: &Config) -> edge::Options {
    let cores = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    edge::Options {
        workers: if config.workers == 0 { cores() } else { config.workers },
        allowed_origins: config.allowed_origins.clone(),
        anonymous: config.anonymous,
        trusted_proxies: config.trusted_proxies.clone(),
        limits: Limits { sockets_max: config.sockets_max.get(), ..Limits::default() },
    }
}

/// There is no bus between processes yet: what another gateway commits is found by looking at the heads, up to a second
/// late. Said once, when another gateway is first seen.
async fn warn_of_neighbours(mesh: Mesh, stop: CancellationToken) {
    let mut each = tokio::time::interval(Duration::from_secs(5));
    while stop.run_until_cancelled(each.tick()).await.is_some() {
        let gateways =
            mesh.snapshot().services.iter().find(|(service, _)| service.as_str() == NAME).map_or(0, |(_, g)| g.len());
        if gateways > 1 {
            tracing::warn!(
                gateways,
                "{gateways} gateways and no bus between them: what one commits, sockets of the others get up to a second later, \
                 and only if all share one coordinator database on Postgres do idempotency keys hold across them"
            );
            return;
        }
    }
}

/// Closes the sockets of sessions that end. Where it is not known any more which sessions those were, every socket proves
/// itself anew by reconnecting.
async fn revoke_sockets(hub: Hub, sessions: Arc<Sessions>) {
    let (mut revocations, mut gaps) = (sessions.revocations(), sessions.gaps());
    loop {
        let lost = tokio::select! {
            told = revocations.recv() => match told {
                Ok(revocation) => {
                    hub.revoke(&revocation).await;
                    continue;
                }
                Err(RecvError::Lagged(_)) => "they came faster than sockets could be closed",
                Err(RecvError::Closed) => return,
            },
            gap = gaps.changed() => match gap {
                Ok(()) => "auth no longer has them",
                Err(_) => return,
            },
        };
        tracing::warn!("revocations were missed ({lost}): all sockets reconnect");
        hub.reconnect_all().await;
    }
}

/// The mesh's sessions, as the doors ask them.
struct Callers(Arc<Sessions>);

#[async_trait]
impl Identify for Callers {
    async fn identify(&self, token: &Token) -> Result<Option<Principal>, Unavailable> {
        self.0.identify(token).await.map_err(|error| Unavailable(error.to_string()))
    }
}

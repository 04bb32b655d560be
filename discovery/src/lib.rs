//! Discovery: which instances of which service there are, and where.
//!
//! An instance registers, renews its lease, and is gone when it stops renewing. A request comes in at `http`, which calls
//! `instances`; nothing is stored. The others keep the last list they got, so this service may be away for a while.

mod address;
mod error;
mod http;
mod instances;
mod metrics;

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZeroU64,
    sync::{Arc, OnceLock},
};

use actix_web::web::Data;
use async_trait::async_trait;
use notifyx_chassis::{Context, Door, Identify, Running, StartError, Unavailable};
use notifyx_mesh::{Mesh, MeshConfig, Sessions};
use notifyx_model::{ServiceName, Token};
use notifyx_wire::rest::auth::keys::Principal;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use utoipa::OpenApi;

use crate::{
    http::{ApiDoc, Discovery},
    instances::Instances,
    metrics::Metrics,
};

/// The service's name in its own list.
pub const NAME: &str = "discovery";

/// The commented defaults.
pub const DEFAULTS: &str = include_str!("../default.toml");

/// What each key means is said beside it in [`DEFAULTS`].
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub listen: SocketAddr,
    pub advertise: String,
    pub lease_ms: NonZeroU64,
    pub services_max: usize,
    pub instances_max: usize,
}

impl Default for Config {
    fn default() -> Self {
        notifyx_chassis::config::defaults(DEFAULTS)
    }
}

/// Opens the door. Call it on the context's runtime.
pub async fn start(config: Config, context: Context) -> Result<Running, StartError> {
    let door = Door::new(NAME, &context);
    let metrics = Metrics::new(door.registry());
    let instances = Arc::new(Instances::new(config.clone(), context.clock.clone(), metrics));
    let stopping = context.shutdown.child_token();
    let rules = Data::new(Discovery { instances: instances.clone(), stopping: stopping.clone() });
    let (figured, readers, registry) = (instances.clone(), Arc::new(Readers::default()), door.registry().clone());
    let mut running = door
        .config(&config)
        .figures(move || figured.figures())
        .identify(readers.clone())
        .openapi(ApiDoc::openapi())
        .routes(move |routes| http::routes(routes.app_data(rules.clone())))
        .listen(config.listen)
        .await?;
    enter_itself(&instances, &config.advertise, running.address());
    let mesh = readers.ask_auth(&context, running.address(), &registry);

    running.before_stop(async move {
        stopping.cancel();
        mesh.stop().await;
    });
    running.beside(&context.runtime, |stop| expire(instances, stop));
    Ok(running)
}

/// People who read the lists and pages. Whose a token is auth knows, which is found here, as by everyone else; until it is
/// there, only the cluster's secret opens these doors.
#[derive(Default)]
struct Readers(OnceLock<Arc<Sessions>>);

impl Readers {
    fn ask_auth(&self, context: &Context, bound: SocketAddr, metrics: &prometheus::Registry) -> Mesh {
        let ip = if bound.ip().is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { bound.ip() };
        let own = vec![format!("http://{}", SocketAddr::new(ip, bound.port()))];
        let (secret, clock) = (context.cluster.secret(), &context.clock);
        let mesh = Mesh::start(&MeshConfig::default(), &own, secret, clock, metrics);
        self.0.get_or_init(|| Sessions::start(mesh.clone(), clock.clone()));
        mesh
    }
}

#[async_trait]
impl Identify for Readers {
    async fn identify(&self, token: &Token) -> Result<Option<Principal>, Unavailable> {
        let sessions = self.0.get().ok_or_else(|| Unavailable("the registry is starting".to_owned()))?;
        sessions.identify(token).await.map_err(|error| Unavailable(error.to_string()))
    }
}

/// So that Prometheus finds it like the others.
fn enter_itself(instances: &Instances, advertise: &str, bound: SocketAddr) {
    let name = ServiceName::parse(NAME).expect("services of the house have valid names");
    let address = if advertise.is_empty() { bound.to_string() } else { advertise.to_owned() };
    if let Err(error) = instances.register_own(name, address) {
        tracing::info!("{NAME} does not list itself: {error}");
    }
}

/// Looks for leases that ran out until told to stop, so that those who wait for news hear of it.
async fn expire(instances: Arc<Instances>, stop: CancellationToken) {
    let mut each = tokio::time::interval(instances.expiry_interval());
    each.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while stop.run_until_cancelled(each.tick()).await.is_some() {
        instances.expire();
    }
}

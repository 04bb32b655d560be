//! Discovery: which instances of which service there are, and where.
//!
//! An instance registers, renews its lease, and is gone when it stops renewing. A request comes in at `http`, which calls
//! `instances`; nothing is stored. The others keep the last list they got, so this service may be away for a while.

mod address;
mod error;
mod http;
mod instances;
mod metrics;

use std::{net::SocketAddr, num::NonZeroU64, sync::Arc};

use actix_web::web::Data;
use notifyx_chassis::{Context, Door, Running, StartError};
use notifyx_model::ServiceName;
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
    let figured = instances.clone();
    let mut running = door
        .config(&config)
        .figures(move || figured.figures())
        .openapi(ApiDoc::openapi())
        .routes(move |routes| http::routes(routes.app_data(rules.clone())))
        .listen(config.listen)
        .await?;
    enter_itself(&instances, &config.advertise, running.address());

    let ended = CancellationToken::new();
    let expiring = context.runtime.spawn(expire(instances, ended.clone()));
    running.before_stop(async move { stopping.cancel() });
    running.after_stop(async move {
        ended.cancel();
        if let Err(error) = expiring.await {
            tracing::warn!("the watch over leases ended badly: {error}");
        }
    });
    Ok(running)
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

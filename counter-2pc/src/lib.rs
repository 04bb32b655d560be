//! The counter: what was published, per user and per topic; a participant of two-phase commit.
//!
//! A request comes in at `http`, which calls `increments` (two-phase commit) or `counters` (reading); these keep what they know in
//! the `store`. One invariant carries the rest: a counter is raised in the transaction that sets its increment COMMITTED, once.

mod counters;
mod error;
mod http;
mod increments;
mod metrics;
mod store;
mod sweep;
#[cfg(feature = "testing")]
pub mod testing;
mod topics;

use std::{
    net::SocketAddr,
    num::{NonZeroU32, NonZeroU64},
    sync::Arc,
    time::Duration,
};

use actix_web::web::Data;
use async_trait::async_trait;
use notifyx_chassis::{Context, Door, Identify, Running, Shared, StartError, Unavailable, config::Days};
use notifyx_database::{Database, DatabaseUrl, Options};
use notifyx_mesh::{Mesh, MeshConfig, Place, Sessions};
use notifyx_model::Token;
use notifyx_wire::rest::auth::keys::Principal;
use serde::{Deserialize, Serialize};
use utoipa::OpenApi;

pub use crate::error::Error;
use crate::{
    counters::Counters, http::ApiDoc, increments::Increments, metrics::Metrics, sweep::Sweeper, topics::Topics,
};

/// The service's name in the registry.
pub const NAME: &str = "counter-2pc";

/// The commented defaults.
pub const DEFAULTS: &str = include_str!("../default.toml");

/// What each key means is said beside it in [`DEFAULTS`].
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub listen: SocketAddr,
    pub advertise: String,
    pub database: DatabaseUrl,
    pub database_connections: NonZeroU32,
    pub by_hand_s: NonZeroU64,
    pub alarm_s: NonZeroU64,
    pub keep_days: Days,
    pub sweep_ms: NonZeroU64,
}

impl Default for Config {
    fn default() -> Self {
        notifyx_chassis::config::defaults(DEFAULTS)
    }
}

impl Config {
    fn by_hand(&self) -> Duration {
        Duration::from_secs(self.by_hand_s.get())
    }
}

/// What the door calls.
pub(crate) struct Counter {
    pub(crate) increments: Increments,
    pub(crate) counters: Counters,
}

/// Opens the database and the door, and enters the registry. Call it on the context's runtime.
pub async fn start(config: Config, context: Context) -> Result<Running, StartError> {
    start_with(config, context, |mesh| Arc::new(mesh.clone())).await
}

async fn start_with(
    config: Config,
    context: Context,
    topics: impl FnOnce(&Mesh) -> Arc<dyn Topics>,
) -> Result<Running, StartError> {
    let options = Options { connections: config.database_connections.get(), ..Options::default() };
    let database = Database::open(&config.database, options, &store::MIGRATIONS).await?;
    let door = Door::new(NAME, &context);
    let metrics = Metrics::new(door.registry());
    let (store, clock) = (store::open(&database), context.clock.clone());
    let (discovery, secret) = (&context.discovery, context.cluster.secret());
    let mesh = Mesh::start(&MeshConfig::default(), discovery, secret, &context.clock, door.registry());
    let place = Place::new(&mesh, NAME);
    let sweeper = Sweeper::new(store.clone(), clock.clone(), metrics.clone(), &config);
    let rules = Counter {
        increments: Increments::new(store.clone(), topics(&mesh), clock.clone(), metrics.clone(), config.by_hand()),
        counters: Counters::new(store),
    };
    let rules = Data::new(Shared::new(&context, rules));
    let sessions = Sessions::start(mesh.clone(), clock);
    let mut running = door
        .config(&config)
        .ready("registry", place.readiness())
        .database(&database)
        .figures(move || metrics.figures())
        .identify(Arc::new(Tokens(sessions)))
        .openapi(ApiDoc::openapi())
        .routes(move |routes| http::routes(routes.app_data(rules.clone())))
        .listen(config.listen)
        .await?;
    place.take(&config.advertise, running.address(), &context.shutdown);

    running.before_stop(async move { place.leave().await });
    running.after_stop(async move { database.close().await });
    running.after_stop(async move { mesh.stop().await });
    running.beside(&context.runtime, |stop| sweeper.run(stop));
    Ok(running)
}

/// Whose a token is, as auth says.
struct Tokens(Arc<Sessions>);

#[async_trait]
impl Identify for Tokens {
    async fn identify(&self, token: &Token) -> Result<Option<Principal>, Unavailable> {
        self.0.identify(token).await.map_err(|error| Unavailable(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(Config::default().listen.port(), 2000);
    }
}

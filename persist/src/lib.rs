//! Persist: topics, who is subscribed, what was published, and each user's inbox; a participant of two-phase commit.
//!
//! A request comes in at `http`, which calls the rules of a noun (`topics`, `subscribers`, `transactions`, `notifications`,
//! `inbox`); these keep what they know in the `store`. One invariant carries the rest: a notification takes its offset in the
//! transaction that commits it, under its topic's lock, so offsets follow commit order and have no gaps.

mod error;
mod http;
mod inbox;
mod metrics;
mod notifications;
mod page;
mod patience;
mod store;
mod subscribers;
#[cfg(feature = "testing")]
pub mod testing;
mod topics;
mod transactions;
mod trimming;

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

pub use crate::{error::Error, notifications::LOG_MAX, subscribers::JOINS_MAX, topics::HEADS_MAX};
use crate::{
    http::ApiDoc, inbox::Inboxes, metrics::Metrics, notifications::Notifications, store::JoinBounds,
    subscribers::Subscribers, topics::Topics, transactions::Transactions, trimming::Sweeper,
};

/// The service's name in the registry.
pub const NAME: &str = "persist";

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
    pub topics_per_user_max: u32,
    pub subscriptions_per_user_max: u32,
    pub exceptions_per_subscription_max: u32,
    pub topics_cached_max: u64,
    pub by_hand_s: NonZeroU64,
    pub alarm_s: NonZeroU64,
    pub keep_days: Days,
    pub sweep_ms: NonZeroU64,
    pub trim_rows: NonZeroU32,
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
pub(crate) struct Persist {
    pub(crate) topics: Arc<Topics>,
    pub(crate) subscribers: Subscribers,
    pub(crate) notifications: Notifications,
    pub(crate) transactions: Transactions,
    pub(crate) inboxes: Inboxes,
}

impl Persist {
    fn new(config: &Config, database: &Database, context: &Context, metrics: &Metrics) -> (Self, Sweeper) {
        let (store, clock, metrics) = (store::open(database), context.clock.clone(), metrics.clone());
        let topics = Arc::new(Topics::new(
            store.clone(),
            clock.clone(),
            metrics.clone(),
            config.topics_per_user_max,
            config.topics_cached_max,
        ));
        let bounds = JoinBounds {
            subscriptions_per_user: config.subscriptions_per_user_max,
            topics_per_user: config.topics_per_user_max,
        };
        let rules = Self {
            subscribers: Subscribers::new(store.clone(), topics.clone(), clock.clone(), metrics.clone(), bounds),
            notifications: Notifications::new(store.clone()),
            transactions: Transactions::new(store.clone(), clock.clone(), metrics.clone(), config.by_hand()),
            inboxes: Inboxes::new(
                store.clone(),
                topics.clone(),
                metrics.clone(),
                config.exceptions_per_subscription_max,
            ),
            topics,
        };
        (rules, Sweeper::new(store.clone(), store, clock, metrics, config))
    }
}

/// Opens the database and the door, and enters the registry. Call it on the context's runtime.
pub async fn start(config: Config, context: Context) -> Result<Running, StartError> {
    let options = Options { connections: config.database_connections.get(), ..Options::default() };
    let database = Database::open(&config.database, options, &store::MIGRATIONS).await?;
    let door = Door::new(NAME, &context);
    let metrics = Metrics::new(door.registry());
    let (rules, sweeper) = Persist::new(&config, &database, &context, &metrics);
    let rules = Data::new(Shared::new(&context, rules));

    let (discovery, secret) = (&context.discovery, context.cluster.secret());
    let mesh = Mesh::start(&MeshConfig::default(), discovery, secret, &context.clock, door.registry());
    let (place, sessions) = (Place::new(&mesh, NAME), Sessions::start(mesh.clone(), context.clock.clone()));
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
        assert_eq!(Config::default().listen.port(), 6000);
    }
}

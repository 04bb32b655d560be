//! Auth: accounts, sessions, API keys and the numbered log of revocations.
//!
//! A request comes in at `http`, which calls `accounts`, `sessions` or `keys`; these keep what they know in the `store`. Only
//! this service knows passwords and tokens: the others ask it whose a token is and follow its log of revocations.

mod accounts;
mod error;
mod http;
mod keys;
mod limits;
mod metrics;
mod passwords;
mod revocations;
mod sessions;
mod store;

use std::{
    net::SocketAddr,
    num::{NonZeroU32, NonZeroU64},
    sync::Arc,
    time::Duration,
};

use actix_web::web::Data;
use notifyx_chassis::{Context, Door, Running, Shared, StartError, reply};
use notifyx_database::{Database, DatabaseUrl, Options};
use notifyx_mesh::{Mesh, MeshConfig, Place};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;
use utoipa::OpenApi;

use crate::{
    accounts::Accounts,
    http::{ApiDoc, Auth},
    keys::Keys,
    metrics::Metrics,
    sessions::{Sessions, hours},
};

/// The service's name in the registry.
pub const NAME: &str = "auth";

/// One small statement, or the stop goes on without it.
const LAST_SWEEP_TIMEOUT: Duration = Duration::from_secs(1);

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
    pub session_ttl_hours: NonZeroU32,
    pub sessions_per_user_max: NonZeroU32,
    pub cache_entries_max: u64,
    pub login_failures_per_account_max: NonZeroU32,
    pub login_failures_per_address_max: NonZeroU32,
    pub login_window_s: NonZeroU64,
    pub hashing_threads: u16,
    pub hashing_queue_max: u16,
    pub hashing_wait_ms: u64,
    pub revocation_poll_ms: NonZeroU64,
    pub revocations_kept_hours: NonZeroU32,
    pub sweep_s: NonZeroU64,
}

impl Default for Config {
    fn default() -> Self {
        notifyx_chassis::config::defaults(DEFAULTS)
    }
}

/// Opens the database and the door, and enters the registry. Call it on the context's runtime.
pub async fn start(config: Config, context: Context) -> Result<Running, StartError> {
    let options = Options { connections: config.database_connections.get(), ..Options::default() };
    let database = Database::open(&config.database, options, &store::MIGRATIONS).await?;
    let door = Door::new(NAME, &context);
    let metrics = Metrics::new(door.registry());
    let (store, clock) = (store::of(&database), context.clock.clone());
    let accounts = Arc::new(Accounts::new(&config, store.clone(), clock.clone(), metrics.clone()));
    let sessions = Sessions::open(&config, store.clone(), accounts.clone(), clock.clone(), metrics.clone());
    let sessions = Arc::new(sessions.await.map_err(|error| StartError::Other(reply::chain(&error)))?);
    let keys = Arc::new(Keys::new(store, sessions.clone(), clock, metrics));

    let stopping = context.shutdown.child_token();
    let rules =
        Auth { accounts: accounts.clone(), sessions: sessions.clone(), keys: keys.clone(), stopping: stopping.clone() };
    let rules = Data::new(Shared::new(&context, rules));
    let figured = sessions.clone();
    // The way into the registry: auth calls nobody.
    let (discovery, secret) = (&context.discovery, context.cluster.secret());
    let mesh = Mesh::start(&MeshConfig::default(), discovery, secret, &context.clock, door.registry());
    let place = Place::new(&mesh, NAME);
    let mut running = door
        .config(&config)
        .ready("registry", place.readiness())
        .database(&database)
        .figures(move || {
            let (head, followed) = figured.log();
            serde_json::json!({
                "revocation_head": head,
                "revocations_followed": followed,
                "sessions_cached": figured.cached(),
                "users_cached": accounts.cached(),
            })
        })
        .identify(sessions.clone())
        .openapi(ApiDoc::openapi())
        .routes(move |routes| http::routes(routes.app_data(rules.clone())))
        .listen(config.listen)
        .await?;
    place.take(&config.advertise, running.address(), &context.shutdown);

    running.before_stop(async move {
        stopping.cancel();
        place.leave().await;
    });
    running.after_stop(async move { database.close().await });
    running.after_stop(async move { mesh.stop().await });
    let (follower, poll) = (sessions.clone(), Duration::from_millis(config.revocation_poll_ms.get()));
    running.beside(&context.runtime, |stop| async move { follower.follow(poll, stop).await });
    running.beside(&context.runtime, |stop| sweep(config, sessions, keys, stop));
    Ok(running)
}

/// Removes what has expired and writes down when keys were used, at intervals, until told to stop. What fails is tried again
/// at the next.
async fn sweep(config: Config, sessions: Arc<Sessions>, keys: Arc<Keys>, stop: CancellationToken) {
    let kept = hours(config.revocations_kept_hours.get());
    let mut each = tokio::time::interval(Duration::from_secs(config.sweep_s.get()));
    while stop.run_until_cancelled(each.tick()).await.is_some() {
        if let Some(Err(error)) = stop.run_until_cancelled(sessions.sweep(kept)).await {
            tracing::warn!(reason = reply::chain(&error), "expired sessions could not be removed");
        }
        if let Some(Err(error)) = stop.run_until_cancelled(keys.sweep()).await {
            tracing::warn!(
                reason = reply::chain(&error),
                "the uses of API keys could not be written, or expired ones removed"
            );
        }
    }
    // What was used since; bounded, as a database that hangs must not hold up the stop.
    let last = tokio::time::timeout(LAST_SWEEP_TIMEOUT, keys.note_uses()).await;
    if !matches!(last, Ok(Ok(()))) {
        tracing::debug!("the last uses of API keys were not written");
    }
}

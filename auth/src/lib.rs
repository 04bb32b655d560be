//! Auth: accounts, sessions and the numbered log of revocations.
//!
//! A request comes in at `http`, which calls `accounts` or `sessions`; these keep what they know in the `store`. Only
//! this service knows passwords and tokens: the others ask it whose a token is and follow its log of revocations.

mod accounts;
mod error;
mod http;
mod limits;
mod metrics;
mod passwords;
mod revocations;
mod sessions;
mod store;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    num::{NonZeroU32, NonZeroU64},
    sync::{Arc, OnceLock},
    time::Duration,
};

use actix_web::web::Data;
use notifyx_chassis::{Context, Door, Running, Shared, StartError, reply};
use notifyx_database::{Database, DatabaseUrl, Options};
use notifyx_mesh::{Lease, Mesh, MeshConfig};
use serde::{Deserialize, Serialize};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use utoipa::OpenApi;

use crate::{
    accounts::Accounts,
    http::{ApiDoc, Auth},
    metrics::Metrics,
    sessions::{Sessions, hours},
};

/// The service's name in the registry.
pub const NAME: &str = "auth";

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
    let sessions = Sessions::open(&config, store, accounts.clone(), clock, metrics.clone());
    let sessions = Arc::new(sessions.await.map_err(|error| StartError::Other(reply::chain(&error)))?);

    let stopping = context.shutdown.child_token();
    let rules = Auth { accounts: accounts.clone(), sessions: sessions.clone(), stopping: stopping.clone() };
    let rules = Data::new(Shared::new(&context, rules));
    let (pinged, figured) = (database.clone(), sessions.clone());
    let place = Place::new(&context, door.registry());
    let mut running = place
        .ready(door)
        .config(&config)
        .ready("database", move || {
            let database = pinged.clone();
            async move { database.ping().await.map_err(|error| error.to_string()) }
        })
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
    place.take(&config, running.address(), &context);

    // The work beside the door goes on until the last request was answered.
    let (tasks, ended) = (TaskTracker::new(), CancellationToken::new());
    let poll = Duration::from_millis(config.revocation_poll_ms.get());
    let (follower, stop) = (sessions.clone(), ended.clone());
    tasks.spawn_on(async move { follower.follow(poll, stop).await }, &context.runtime);
    tasks.spawn_on(sweep(config, sessions, database.clone(), metrics, ended.clone()), &context.runtime);
    tasks.close();

    let leaving = place.clone();
    running.before_stop(async move {
        stopping.cancel();
        leaving.leave().await;
    });
    running.after_stop(async move { database.close().await });
    running.after_stop(async move {
        ended.cancel();
        tasks.wait().await;
        place.mesh.stop().await;
    });
    Ok(running)
}

/// This instance's place in the registry, taken once the door's address is known.
#[derive(Clone, Debug)]
struct Place {
    mesh: Mesh,
    lease: Arc<OnceLock<Lease>>,
    /// There is a registry to enter.
    wanted: bool,
}

impl Place {
    fn new(context: &Context, metrics: &prometheus::Registry) -> Self {
        let (discovery, secret) = (context.discovery.clone(), context.cluster.secret().clone());
        let wanted = !discovery.is_empty();
        // Stops with the service, not with the first signal: the lease has to be given back.
        let stop = CancellationToken::new();
        let mesh = Mesh::start(&MeshConfig::default(), discovery, secret, context.clock.clone(), metrics, stop);
        Self { mesh, lease: Arc::default(), wanted }
    }

    /// Being found by the others is a condition of being ready.
    fn ready(&self, door: Door) -> Door {
        if !self.wanted {
            return door;
        }
        let lease = self.lease.clone();
        door.ready("registry", move || {
            let held = lease.get().is_some_and(Lease::is_held);
            async move { if held { Ok(()) } else { Err("not in the registry yet".to_owned()) } }
        })
    }

    fn take(&self, config: &Config, bound: SocketAddr, context: &Context) {
        if self.wanted {
            let address = if config.advertise.is_empty() { bound.to_string() } else { config.advertise.clone() };
            let keep = || Lease::keep(&self.mesh, NAME, address, BTreeMap::new(), context.shutdown.child_token());
            self.lease.get_or_init(keep);
        }
    }

    async fn leave(&self) {
        if let Some(lease) = self.lease.get() {
            lease.release().await;
        }
    }
}

/// Removes what has expired, at intervals, until told to stop. What fails is tried again at the next.
async fn sweep(config: Config, sessions: Arc<Sessions>, database: Database, metrics: Metrics, stop: CancellationToken) {
    let kept = hours(config.revocations_kept_hours.get());
    let mut each = tokio::time::interval(Duration::from_secs(config.sweep_s.get()));
    while stop.run_until_cancelled(each.tick()).await.is_some() {
        metrics.connections(&database);
        if let Some(Err(error)) = stop.run_until_cancelled(sessions.sweep(kept)).await {
            tracing::warn!(reason = reply::chain(&error), "expired sessions could not be removed");
        }
    }
}

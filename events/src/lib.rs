//! Events: one durable log of what happened, and the schedule of what will.
//!
//! Every event is appended to the log of its category, at an offset that is taken in the transaction that commits it: offsets
//! follow commit order and have no gaps. The schedule holds events until their time; firing moves them to the log in one
//! transaction, in which the delete decides, so that an event fires once whoever tries.
//!
//! A call comes in at `grpc`. The rules are in `schedule` (events), `schedules` (what recurs) and `consumers` (who follows a log). The `driver` fires what is due on the one instance that has the
//! lease; the `plan` is what it knows of the near future, and the `feed` what this instance appends, for those who watch.

pub mod consumer;
pub mod consumers;
pub mod driver;
mod error;
pub mod event;
pub mod feed;
mod grpc;
mod metrics;
pub mod plan;
pub mod queue;
pub mod recurrence;
pub mod recurring;
pub mod retention;
pub mod room;
pub mod schedule;
pub mod schedules;
pub mod store;
pub mod writer;

use std::{
    fmt,
    net::SocketAddr,
    num::{NonZeroU32, NonZeroU64, NonZeroUsize},
    panic::AssertUnwindSafe,
    sync::Arc,
    time::Duration,
};

use futures_util::FutureExt;
use notifyx_chassis::{Context, Door, Running, StartError, config::Days};
use notifyx_database::{Database, DatabaseUrl, Options};
use notifyx_mesh::{Mesh, MeshConfig, Place};
use notifyx_model::Clock;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::error;

pub use crate::error::Error;
use crate::{
    consumers::Consumers, driver::Driver, feed::Feed, plan::Plan, queue::Bounds, retention::Sweeper, room::Room,
    schedule::Schedule, schedules::Schedules, store::Store, writer::Writer,
};

/// The service's name in the registry.
pub const NAME: &str = "events";

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
    pub window_events: NonZeroUsize,
    pub window_events_total: NonZeroUsize,
    pub waiting_events: NonZeroU64,
    pub lease_ms: NonZeroU64,
    pub feed_bytes: NonZeroUsize,
    pub keep_days: Days,
    pub keep_events: NonZeroU64,
    pub sweep_ms: NonZeroU64,
    pub trim_rows: NonZeroU32,
}

impl Default for Config {
    fn default() -> Self {
        notifyx_chassis::config::defaults(DEFAULTS)
    }
}

/// What the door calls.
#[derive(Debug)]
pub struct Events {
    pub schedule: Schedule,
    pub schedules: Schedules,
    pub consumers: Consumers,
    pub feed: Feed,
    /// Of this instance: whether it drives, and what it knows then.
    pub plan: Arc<Plan>,
}

/// What goes on beside the door, until it is told to stop.
pub struct Work {
    store: Arc<dyn Store>,
    clock: Clock,
    plan: Arc<Plan>,
    feed: Feed,
    writer: Writer,
    sweeper: Sweeper,
    lease: Duration,
    /// No other process has the database.
    alone: bool,
}

impl fmt::Debug for Work {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Work").field("lease", &self.lease).field("alone", &self.alone).finish_non_exhaustive()
    }
}

impl Events {
    /// On an open database, with [`store::MIGRATIONS`] in place. Call it on the runtime that is to carry it.
    pub fn new(config: &Config, database: &Database, clock: &Clock) -> (Self, Work) {
        let store = store::open(database, clock);
        let bounds = Bounds { window: config.window_events.get(), total: config.window_events_total.get() };
        let (plan, feed) = (Arc::new(Plan::new(bounds, clock.clone())), Feed::new(config.feed_bytes.get()));
        let writer = Writer::start(&store, clock, &plan, &feed);
        let work = Work {
            store: store.clone(),
            clock: clock.clone(),
            plan: plan.clone(),
            feed: feed.clone(),
            writer: writer.clone(),
            sweeper: Sweeper::new(store.clone(), clock.clone(), config),
            lease: Duration::from_millis(config.lease_ms.get()),
            alone: matches!(database, Database::Sqlite(_)),
        };
        let schedules = Schedules::new(store.clone(), writer.clone(), plan.clone(), clock.clone());
        let consumers = Consumers::new(store.clone());
        let room = Room::new(store.clone(), config.waiting_events.get());
        let schedule = Schedule::new(store, writer, plan.clone(), room);
        (Self { schedule, schedules, consumers, feed, plan }, work)
    }

    /// For `/status` and the dashboard.
    fn figures(&self) -> serde_json::Value {
        let metrics = &self.plan.metrics;
        json!({
            "drives": self.plan.drives(),
            "held": self.plan.held(),
            "fired": metrics.fired_total(),
            "late_ms_mean": metrics.late_ms_mean(),
            "broke_off": metrics.breaks(),
            "writes_queued": self.schedule.queued(),
        })
    }
}

impl Work {
    /// Until `stop`, which is to come after the door's last answer; what is queued is written, and the lease given back. While this
    /// instance drives the schedule, the lease names the address by which the others forward to it.
    pub async fn run(self, address: String, stop: CancellationToken) {
        // Who comes back after a crash need not wait for a lease of its own.
        let holder = if self.alone { "the one process".to_owned() } else { address };
        let plan = self.plan.clone();
        let driver = Driver::new(self.store, self.clock, self.plan, self.feed, holder, self.lease);
        tokio::join!(driver.run(stop.clone()), sweep(self.sweeper, &plan, &stop));
        self.writer.close().await;
    }
}

/// Until `stop`. One that broke off begins again.
async fn sweep(mut sweeper: Sweeper, plan: &Plan, stop: &CancellationToken) {
    while AssertUnwindSafe(sweeper.run(stop)).catch_unwind().await.is_err() {
        error!("the sweep of old events broke off, and begins again in {SWEEP_AGAIN:?}");
        plan.metrics.broke_off();
        let _ = stop.run_until_cancelled(sleep(SWEEP_AGAIN)).await;
    }
}

/// Room is there for two days to come: nothing is lacking meanwhile.
const SWEEP_AGAIN: Duration = Duration::from_secs(60);

/// Opens the database and the door, enters the registry, and drives the schedule whenever no other instance does. Call it on the
/// context's runtime.
pub async fn start(config: Config, context: Context) -> Result<Running, StartError> {
    let options = Options { connections: config.database_connections.get(), ..Options::default() };
    let database = Database::open(&config.database, options, &store::MIGRATIONS).await?;
    let door = Door::new(NAME, &context);
    let (events, work) = Events::new(&config, &database, &context.clock);
    let events = Arc::new(events);
    events.plan.metrics.register(door.registry());

    let (discovery, secret) = (&context.discovery, context.cluster.secret());
    let mesh = Mesh::start(&MeshConfig::default(), discovery, secret, &context.clock, door.registry());
    let place = Place::new(&mesh, NAME);
    // On SQLite nobody else drives.
    let others = (!work.alone).then(|| mesh.clone());
    let (shown, queued) = (events.clone(), events.clone());
    let mut running = door
        .config(&config)
        .ready("registry", place.readiness())
        .database(&database)
        .figures(move || shown.figures())
        .queues(move || vec![("writes", queued.schedule.queued()), ("window", queued.plan.held())])
        .listen_grpc(grpc::services(&context, events, others), config.listen)
        .await?;
    place.take(&config.advertise, running.address(), &context.shutdown);

    running.before_stop(async move { place.leave().await });
    running.after_stop(async move { database.close().await });
    running.after_stop(async move { mesh.stop().await });
    let address = if config.advertise.is_empty() { running.address().to_string() } else { config.advertise };
    running.beside(&context.runtime, |stop| work.run(address, stop));
    Ok(running)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(Config::default().listen.port(), 6500);
    }
}

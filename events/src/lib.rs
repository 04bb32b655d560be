//! Events: one durable log of what happened, and the schedule of what will.
//!
//! Every event is appended to the log of its category, at an offset that is taken in the transaction that commits it: offsets
//! follow commit order and have no gaps. The schedule holds events until their time; firing moves them to the log in one
//! transaction, in which the delete decides, so that an event fires once whoever tries.
//!
//! The rules are in `schedule` (events) and `schedules` (what recurs). The `driver` fires what is due on the one instance that has the
//! lease; the `plan` is what it knows of the near future, and the `feed` what this instance appends, for those who watch.

pub mod driver;
mod error;
pub mod event;
pub mod feed;
pub mod plan;
pub mod queue;
pub mod recurrence;
pub mod recurring;
pub mod retention;
pub mod schedule;
pub mod schedules;
pub mod store;
pub mod writer;

use std::{
    fmt,
    net::SocketAddr,
    num::{NonZeroU32, NonZeroU64, NonZeroUsize},
    sync::Arc,
    time::Duration,
};

use notifyx_database::{Database, DatabaseUrl};
use notifyx_model::Clock;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

pub use crate::error::Error;
use crate::{
    driver::Driver, feed::Feed, plan::Plan, queue::Bounds, retention::Sweeper, schedule::Schedule,
    schedules::Schedules, store::Store, writer::Writer,
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
    pub lease_ms: NonZeroU64,
    pub feed_bytes: NonZeroUsize,
    pub keep_days: NonZeroU32,
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
        let (plan, feed) = (Arc::new(Plan::new(bounds)), Feed::new(config.feed_bytes.get()));
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
        let schedule = Schedule::new(store, writer, plan.clone());
        (Self { schedule, schedules, feed, plan }, work)
    }
}

impl Work {
    /// Until `stop`, which is to come after the door's last answer; what is queued is written, and the lease given back. While this
    /// instance drives the schedule, the lease names the address by which the others forward to it.
    pub async fn run(self, address: String, stop: CancellationToken) {
        // Who comes back after a crash need not wait for a lease of its own.
        let holder = if self.alone { "the one process".to_owned() } else { address };
        let driver = Driver::new(self.store, self.clock, self.plan, self.feed, holder, self.lease);
        tokio::join!(driver.run(stop.clone()), self.sweeper.run(stop));
        self.writer.close().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(Config::default().listen.port(), 6500);
    }
}

//! A service's database as its door shows it: a condition of being ready, and a gauge of its connections.

use notifyx_database::Database;
use prometheus::{
    IntGaugeVec, Opts, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};

/// Looks at the pool when it is asked.
struct Connections {
    database: Database,
    gauge: IntGaugeVec,
}

/// `notifyx_database_connections{state="used"|"idle"}`.
pub(crate) fn connections(registry: &Registry, database: Database) {
    let name = Opts::new("notifyx_database_connections", "database connections, used and idle");
    let gauge = IntGaugeVec::new(name, &["state"]).expect("the name is valid");
    registry.register(Box::new(Connections { database, gauge })).expect("one database per door");
}

impl Collector for Connections {
    fn desc(&self) -> Vec<&Desc> {
        self.gauge.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let (open, idle) = self.database.usage();
        let idle = i64::try_from(idle).unwrap_or(i64::MAX);
        self.gauge.with_label_values(&["idle"]).set(idle);
        self.gauge.with_label_values(&["used"]).set((i64::from(open) - idle).max(0));
        self.gauge.collect()
    }
}

//! Who is there: the registry's last list, as pools of instances.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, RwLock},
};

use notifyx_model::{Clock, ServiceName};
use notifyx_wire::rest::discovery::{Instance, Services};
use tokio::sync::watch;

use crate::{MeshConfig, metrics::Metrics, pool::Pool};

#[derive(Debug)]
pub(crate) struct Table {
    config: MeshConfig,
    clock: Clock,
    metrics: Metrics,
    pools: RwLock<HashMap<ServiceName, Arc<Pool>>>,
    changed: watch::Sender<()>,
}

impl Table {
    pub(crate) fn new(config: MeshConfig, clock: Clock, metrics: Metrics) -> Self {
        Self { config, clock, metrics, pools: RwLock::default(), changed: watch::Sender::new(()) }
    }

    /// Takes over a list. Each answer of the registry counts, also one that says the same as before: what is kept for
    /// a while leaves in time.
    pub(crate) fn apply(&self, services: Services) {
        let mut named: HashMap<ServiceName, Vec<Instance>> = HashMap::new();
        for instance in services.instances {
            named.entry(instance.service.clone()).or_default().push(instance);
        }
        let mut pools = self.pools.write().expect("nothing panics while the pools are held");
        for service in named.keys() {
            pools.entry(service.clone()).or_insert_with(|| Arc::new(Pool::new(service.clone())));
        }
        let now = self.clock.now();
        pools.retain(|service, pool| {
            pool.update(named.get(service).map_or(&[], Vec::as_slice), now, &self.config, &self.metrics)
        });
        drop(pools);
        self.changed.send_replace(());
    }

    pub(crate) fn find(&self, service: &str) -> Option<Arc<Pool>> {
        self.pools.read().expect("nothing panics while the pools are held").get(service).cloned()
    }

    pub(crate) fn pools(&self) -> BTreeMap<ServiceName, Arc<Pool>> {
        let pools = self.pools.read().expect("nothing panics while the pools are held");
        pools.iter().map(|(service, pool)| (service.clone(), pool.clone())).collect()
    }

    /// Tells of each list that was taken over.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}

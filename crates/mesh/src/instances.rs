//! Who is there, as it changes: for what must know each instance, like a stream to every one.

use std::sync::Arc;

use notifyx_model::InstanceId;
use tokio::sync::watch;

use crate::table::Table;

/// An instance of a service, for [`Mesh::rpc_at`](crate::Mesh::rpc_at).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    pub instance: InstanceId,
    /// `host:port`.
    pub address: String,
}

/// A service's instances, as the registry last named them.
#[derive(Debug)]
pub struct Instances {
    table: Arc<Table>,
    service: &'static str,
    lists: watch::Receiver<()>,
    told: Option<Vec<Peer>>,
}

impl Instances {
    pub(crate) fn new(table: Arc<Table>, service: &'static str) -> Self {
        let lists = table.changes();
        Self { table, service, lists, told: None }
    }

    /// The list at once, the first time; then, each time that it differs from what was told last. Given up half-way, it loses nothing.
    pub async fn next(&mut self) -> Vec<Peer> {
        loop {
            self.lists.mark_unchanged();
            let now = self.now();
            if self.told.as_ref() != Some(&now) {
                self.told = Some(now.clone());
                return now;
            }
            self.lists.changed().await.expect("the table outlives this, which holds it");
        }
    }

    fn now(&self) -> Vec<Peer> {
        let Some(pool) = self.table.find(self.service) else { return Vec::new() };
        let members = pool.list();
        members.iter().map(|member| Peer { instance: member.instance, address: member.address.clone() }).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use notifyx_model::{Clock, ServiceName};
    use notifyx_wire::rest::discovery::{Instance, Services};

    use super::*;
    use crate::{MeshConfig, metrics::Metrics};

    fn instance(port: u16) -> Instance {
        let (instance, service) = (InstanceId::new(&Clock::system()), ServiceName::parse("events").unwrap());
        Instance { instance, service, address: format!("127.0.0.1:{port}"), meta: BTreeMap::new(), age_ms: 0 }
    }

    #[tokio::test]
    async fn each_change_of_the_list_is_told_and_nothing_else() {
        let clock = Clock::system();
        let metrics = Metrics::new(&prometheus::Registry::new(), &clock);
        let table = Arc::new(Table::new(MeshConfig::default(), clock, metrics));
        let apply = |instances: &[Instance]| table.apply(Services { version: 1, instances: instances.to_vec() });
        let mut instances = Instances::new(table.clone(), "events");
        assert_eq!(instances.next().await, []);
        let (one, two) = (instance(1), instance(2));
        apply(std::slice::from_ref(&one));
        let told = instances.next().await;
        assert_eq!(told, [Peer { instance: one.instance, address: one.address.clone() }]);
        apply(std::slice::from_ref(&one));
        tokio::select! {
            biased;
            told = instances.next() => panic!("the same list again: {told:?}"),
            () = std::future::ready(()) => {}
        }
        apply(&[one, two]);
        assert_eq!(instances.next().await.len(), 2);
    }
}

//! The instances of one service, and whose turn it is.

use std::{
    sync::{
        Arc, OnceLock, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use notifyx_model::{InstanceId, ServiceName, Timestamp};
use notifyx_wire::rest::discovery::Instance;
use tonic::transport::Channel;

use crate::{
    MeshConfig,
    breaker::{Admission, Breaker},
    budget::Budget,
    metrics::Metrics,
    rpc,
};

/// A registry that has just started knows nobody until all have registered again, within a third of a lease. So a service
/// that loses its last instance keeps those it had for this long, three leases; then its addresses may belong to others.
const KEPT: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) service: ServiceName,
    pub(crate) budget: Budget,
    members: RwLock<Members>,
    turn: AtomicUsize,
}

#[derive(Debug, Default)]
struct Members {
    list: Arc<[Arc<Member>]>,
    /// Since when the registry names none, while the last ones are kept.
    unnamed_since: Option<Timestamp>,
}

#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) instance: InstanceId,
    pub(crate) address: String,
    pub(crate) breaker: Arc<Breaker>,
    /// Of its gRPC calls, which share one connection; made with the first.
    channel: OnceLock<Channel>,
}

impl Member {
    /// Connects when it is used, and again when the connection was lost. `None`: the address is none.
    pub(crate) fn channel(&self) -> Option<Channel> {
        if let Some(channel) = self.channel.get() {
            return Some(channel.clone());
        }
        let endpoint = rpc::endpoint(&self.address)?;
        Some(self.channel.get_or_init(|| endpoint.connect_lazy()).clone())
    }
}

impl Pool {
    pub(crate) fn new(service: ServiceName) -> Self {
        // Callers that start together do not all begin with the same instance.
        let turn = AtomicUsize::new(usize::from(rand::random::<u16>()));
        Self { service, budget: Budget::default(), members: RwLock::default(), turn }
    }

    /// Takes over what the registry says. Who stays keeps its breaker. `false`: nobody is left, and nobody is kept.
    pub(crate) fn update(&self, named: &[Instance], now: Timestamp, config: &MeshConfig, metrics: &Metrics) -> bool {
        let mut members = self.members.write().expect("nothing panics while the members are held");
        if named.is_empty() && !members.list.is_empty() {
            let since = *members.unnamed_since.get_or_insert(now);
            if now.since(since) < KEPT {
                return true;
            }
        }
        let known = members.list.clone();
        let stays = |instance: &Instance| {
            known.iter().find(|member| member.instance == instance.instance && member.address == instance.address)
        };
        let member = |instance: &Instance| {
            stays(instance).cloned().unwrap_or_else(|| {
                let series = metrics.breaker(&self.service, instance.instance);
                let breaker = Breaker::new(config, series);
                let (instance, address) = (instance.instance, instance.address.clone());
                Arc::new(Member { instance, address, breaker, channel: OnceLock::new() })
            })
        };
        let mut list: Vec<_> = named.iter().map(member).collect();
        list.sort_by_key(|member| member.instance);
        for gone in known.iter().filter(|old| list.iter().all(|new| new.instance != old.instance)) {
            metrics.forget_breaker(&self.service, gone.instance);
        }
        *members = Members { list: list.into(), unnamed_since: None };
        !members.list.is_empty()
    }

    pub(crate) fn list(&self) -> Arc<[Arc<Member>]> {
        self.members.read().expect("nothing panics while the members are held").list.clone()
    }

    /// The next in turn whose breaker lets a call pass; one that was not tried yet, if there is one.
    pub(crate) fn pick(&self, tried: &[InstanceId]) -> Option<(Arc<Member>, Admission)> {
        let list = self.list();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let in_turn = || (0..list.len()).map(|step| &list[turn.wrapping_add(step) % list.len()]);
        let admit = |member: &Arc<Member>| member.breaker.admit().map(|admission| (member.clone(), admission));
        in_turn()
            .filter(|member| !tried.contains(&member.instance))
            .find_map(admit)
            .or_else(|| in_turn().filter(|member| tried.contains(&member.instance)).find_map(admit))
    }

    /// This very instance, if it is there and its breaker lets a call pass.
    pub(crate) fn get(&self, instance: InstanceId) -> Option<(Arc<Member>, Admission)> {
        let member = self.list().iter().find(|member| member.instance == instance).cloned()?;
        member.breaker.admit().map(|admission| (member, admission))
    }

    /// Whether an instance is there that was not tried.
    pub(crate) fn has_other(&self, tried: &[InstanceId]) -> bool {
        self.list().iter().any(|member| !tried.contains(&member.instance))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use notifyx_model::{Clock, ManualClock};

    use super::*;
    use crate::breaker::State;

    struct Set {
        pool: Pool,
        hand: ManualClock,
        registry: prometheus::Registry,
        metrics: Metrics,
    }

    fn set() -> Set {
        let hand = ManualClock::new();
        let registry = prometheus::Registry::new();
        let metrics = Metrics::new(&registry, &hand.clock());
        Set { pool: Pool::new(ServiceName::parse("persist").unwrap()), hand, registry, metrics }
    }

    impl Set {
        fn update(&self, named: &[Instance]) -> bool {
            self.pool.update(named, self.hand.clock().now(), &MeshConfig::default(), &self.metrics)
        }
    }

    fn instance(port: u16) -> Instance {
        let address = format!("127.0.0.1:{port}");
        let (service, instance) = (ServiceName::parse("persist").unwrap(), InstanceId::new(&Clock::system()));
        Instance { instance, service, address, meta: BTreeMap::new(), age_ms: 0 }
    }

    #[test]
    fn instances_take_turns_and_a_second_try_goes_elsewhere() {
        let set = set();
        let named = [instance(1), instance(2), instance(3)];
        set.update(&named);
        let mut ports: Vec<_> = (0..6).map(|_| set.pool.pick(&[]).unwrap().0.address.clone()).collect();
        ports.sort();
        assert_eq!(ports.chunks(2).map(|pair| pair[0] == pair[1]).collect::<Vec<_>>(), [true; 3]);
        for _ in 0..6 {
            assert_eq!(set.pool.pick(&[named[0].instance, named[2].instance]).unwrap().0.address, named[1].address);
        }
        let all = named.each_ref().map(|one| one.instance);
        assert!(set.pool.pick(&all).is_some(), "where all were tried, one is tried again");
    }

    #[test]
    fn an_instance_that_stays_keeps_its_breaker() {
        let set = set();
        let (one, two) = (instance(1), instance(2));
        set.update(std::slice::from_ref(&one));
        let (member, admission) = set.pool.pick(&[]).unwrap();
        admission.settle(false);
        for _ in 1..MeshConfig::default().breaker_failures {
            set.pool.pick(&[]).unwrap().1.settle(false);
        }
        assert_eq!(member.breaker.state(), State::Open);
        assert!(set.pool.pick(&[]).is_none());
        set.update(&[one, two.clone()]);
        for _ in 0..4 {
            assert_eq!(set.pool.pick(&[]).unwrap().0.address, two.address);
        }
    }

    #[test]
    fn the_last_instances_outlive_a_registry_that_forgot_them_but_not_for_ever() {
        let set = set();
        set.update(&[instance(1)]);
        set.hand.advance(Duration::from_secs(3_600));
        assert!(set.update(&[]));
        assert!(set.pool.pick(&[]).is_some());
        set.hand.advance(KEPT);
        assert!(!set.update(&[]));
        assert!(set.pool.pick(&[]).is_none());
        let breakers = |family: &prometheus::proto::MetricFamily| family.name() == "notifyx_mesh_breaker";
        assert!(!set.registry.gather().iter().any(breakers), "its series went with it");
    }
}

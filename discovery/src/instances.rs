//! The instances there are, each for as long as it renews its lease.
//!
//! All of it is in memory: a registry that was restarted learns within a third of a lease who is there, as everyone
//! registers again and again. The version grows with each change of who is there, and no other registry that ran before
//! under this address has used it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use notifyx_model::{Clock, InstanceId, ServiceName, Timestamp};
use notifyx_wire::rest::discovery::{Instance, Lease, Register, ServiceAddress, Services, TargetGroup};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{Config, address::Address, error::Error, metrics::Metrics};

/// A few labels, not a database.
const META_PAIRS_MAX: usize = 16;
const META_BYTES_MAX: usize = 256;

/// The longest that a watcher may wait for news.
const WAIT_MAX: Duration = Duration::from_secs(30);

#[derive(Debug)]
pub(crate) struct Instances {
    config: Config,
    clock: Clock,
    metrics: Metrics,
    held: Mutex<Held>,
    version: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Held {
    /// By id, so by age: the order in which they take turns.
    instances: BTreeMap<InstanceId, Entry>,
    turns: HashMap<ServiceName, usize>,
}

#[derive(Debug)]
struct Entry {
    service: ServiceName,
    address: Address,
    meta: BTreeMap<String, String>,
    renewed_at: Timestamp,
    /// The registry's own entry needs no lease.
    own: bool,
}

impl Instances {
    pub(crate) fn new(config: Config, clock: Clock, metrics: Metrics) -> Self {
        // Microseconds: a registry would have to change a million times a second to outrun the next one's start.
        let version = watch::Sender::new(u64::try_from(clock.now().as_micros()).unwrap_or(1));
        Self { config, clock, metrics, held: Mutex::default(), version }
    }

    /// Takes an instance in, or renews its lease. One that is new at an address replaces what was registered there: that
    /// was its predecessor.
    pub(crate) fn register(&self, register: Register) -> Result<Lease, Error> {
        self.enter(register, false)
    }

    /// The registry itself, so that it is found like the others. It stays.
    pub(crate) fn register_own(&self, service: ServiceName, address: String) -> Result<Lease, Error> {
        self.enter(Register { service, address, instance: None, meta: BTreeMap::new() }, true)
    }

    fn enter(&self, register: Register, own: bool) -> Result<Lease, Error> {
        let Register { service, address, instance, meta } = register;
        let address = Address::parse(&address)?;
        check_meta(&meta)?;
        let instance = instance.unwrap_or_else(|| InstanceId::new(&self.clock));
        let entry = Entry { service, address, meta, renewed_at: self.clock.now(), own };
        self.change(|held| {
            if let Some(known) = held.instances.get_mut(&instance) {
                if known.service != entry.service {
                    return Err(Error::InstanceTaken { instance, service: known.service.clone() });
                }
                let changed = known.address != entry.address || known.meta != entry.meta;
                *known = entry;
                return Ok(changed);
            }
            let services: BTreeSet<_> = held.instances.values().map(|known| &known.service).collect();
            if !services.contains(&entry.service) && services.len() >= self.config.services_max {
                return Err(Error::Full { max: self.config.services_max, what: "services" });
            }
            held.instances.retain(|_, known| known.service != entry.service || known.address != entry.address);
            if held.instances.len() >= self.config.instances_max {
                return Err(Error::Full { max: self.config.instances_max, what: "instances" });
            }
            info!("`{}` has the instance {instance} at {}", entry.service, entry.address);
            held.instances.insert(instance, entry);
            Ok(true)
        })?;
        Ok(self.lease(instance))
    }

    pub(crate) fn renew(&self, instance: InstanceId) -> Result<Lease, Error> {
        let now = self.clock.now();
        self.change(|held| {
            let known = held.instances.get_mut(&instance).ok_or(Error::InstanceNotFound(instance))?;
            known.renewed_at = now;
            Ok(false)
        })?;
        Ok(self.lease(instance))
    }

    /// One instance leaves.
    pub(crate) fn release(&self, instance: InstanceId) -> Result<(), Error> {
        self.change(|held| {
            let gone = held.instances.remove(&instance).ok_or(Error::InstanceNotFound(instance))?;
            info!("the instance {instance} of `{}` has left", gone.service);
            Ok(true)
        })
    }

    /// All instances of a service leave.
    pub(crate) fn release_service(&self, service: &ServiceName) -> Result<(), Error> {
        self.change(|held| {
            let before = held.instances.len();
            held.instances.retain(|_, known| known.service != *service);
            if held.instances.len() == before {
                return Err(Error::ServiceNotFound(service.clone()));
            }
            info!("all instances of `{service}` have left");
            Ok(true)
        })
    }

    /// An address of the service; its instances take turns.
    pub(crate) fn next_address(&self, service: &ServiceName) -> Result<ServiceAddress, Error> {
        self.expire();
        let mut held = self.held();
        let Held { instances, turns } = &mut *held;
        let mut candidates = instances.iter().filter(|(_, known)| known.service == *service);
        let count = candidates.clone().count();
        if count == 0 {
            return Err(Error::ServiceNotFound(service.clone()));
        }
        let turn = turns.entry(service.clone()).or_default();
        let (instance, known) = candidates.nth(*turn % count).expect("the remainder is below the count");
        *turn = turn.wrapping_add(1);
        Ok(ServiceAddress { address: known.address.to_string(), instance: *instance })
    }

    pub(crate) fn list(&self) -> Services {
        self.expire();
        let (now, held) = (self.clock.now(), self.held());
        let shown = |(instance, known): (&InstanceId, &Entry)| Instance {
            instance: *instance,
            service: known.service.clone(),
            address: known.address.to_string(),
            meta: known.meta.clone(),
            age_ms: if known.own { 0 } else { millis(now.since(known.renewed_at)) },
        };
        // Within the lock, so that the version is that of the list.
        Services { version: *self.version.borrow(), instances: held.instances.iter().map(shown).collect() }
    }

    /// The list once its version differs from `after`; as it is when `wait` is over, or the registry stops.
    pub(crate) async fn watch(&self, after: u64, wait: Duration, stopping: &CancellationToken) -> Services {
        let mut version = self.version.subscribe();
        let news = version.wait_for(|version| *version != after);
        // Whichever ends it, the answer is the list.
        let _ = stopping.run_until_cancelled(tokio::time::timeout(wait.min(WAIT_MAX), news)).await;
        self.list()
    }

    /// What Prometheus is to scrape.
    pub(crate) fn targets(&self) -> Vec<TargetGroup> {
        let target = |instance: Instance| {
            let labels = [("service", instance.service.to_string()), ("instance_id", instance.instance.to_string())];
            let labels = labels.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
            TargetGroup { targets: vec![instance.address], labels }
        };
        self.list().instances.into_iter().map(target).collect()
    }

    /// Forgets who did not renew. Called with every question and at intervals, so that watchers hear of it.
    pub(crate) fn expire(&self) {
        let (now, lease) = (self.clock.now(), self.lease_span());
        let forgotten = self.change(|held| {
            let before = held.instances.len();
            held.instances.retain(|instance, known| {
                let alive = known.own || now.since(known.renewed_at) < lease;
                if !alive {
                    warn!("the instance {instance} of `{}` did not renew its lease", known.service);
                    self.metrics.expired(&known.service);
                }
                alive
            });
            Ok(held.instances.len() != before)
        });
        forgotten.expect("forgetting refuses nothing");
    }

    /// How often to look for leases that ran out, so that they are noticed a tenth late at most.
    pub(crate) fn expiry_interval(&self) -> Duration {
        (self.lease_span() / 10).clamp(Duration::from_millis(10), Duration::from_secs(1))
    }

    pub(crate) fn figures(&self) -> serde_json::Value {
        serde_json::json!(self.list())
    }

    /// Makes one change; it says whether who is there is different now.
    fn change(&self, change: impl FnOnce(&mut Held) -> Result<bool, Error>) -> Result<(), Error> {
        let mut held = self.held();
        if change(&mut held)? {
            let mut counts = BTreeMap::new();
            for known in held.instances.values() {
                *counts.entry(&known.service).or_default() += 1;
            }
            self.metrics.show(&counts);
            let Held { instances, turns } = &mut *held;
            turns.retain(|service, _| instances.values().any(|known| known.service == *service));
            self.version.send_modify(|version| *version += 1);
        }
        Ok(())
    }

    fn lease_span(&self) -> Duration {
        Duration::from_millis(self.config.lease_ms.get())
    }

    fn lease(&self, instance: InstanceId) -> Lease {
        Lease { instance, lease_ms: self.config.lease_ms.get() }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn check_meta(meta: &BTreeMap<String, String>) -> Result<(), Error> {
    if meta.len() > META_PAIRS_MAX {
        return Err(Error::Meta(format!("has {} pairs, more than {META_PAIRS_MAX}", meta.len())));
    }
    match meta.iter().find(|(key, value)| key.is_empty() || key.len().max(value.len()) > META_BYTES_MAX) {
        Some(_) => Err(Error::Meta(format!("has a key or value that is not 1 to {META_BYTES_MAX} bytes"))),
        None => Ok(()),
    }
}

fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use notifyx_model::ManualClock;

    use super::*;

    fn instances(hand: &ManualClock) -> Instances {
        let config = Config { services_max: 2, instances_max: 3, ..Config::default() };
        Instances::new(config, hand.clock(), Metrics::new(&prometheus::Registry::new()))
    }

    fn register(service: &str, port: u16) -> Register {
        let service = ServiceName::parse(service).unwrap();
        Register { service, address: format!("127.0.0.1:{port}"), instance: None, meta: BTreeMap::new() }
    }

    fn addresses(instances: &Instances) -> Vec<String> {
        instances.list().instances.into_iter().map(|instance| instance.address).collect()
    }

    #[test]
    fn a_lease_lasts_from_renewal_to_renewal() {
        let hand = ManualClock::new();
        let instances = instances(&hand);
        let lease = instances.register(register("persist", 1)).unwrap();
        assert_eq!(lease.lease_ms, 10_000);
        hand.advance(Duration::from_millis(9_999));
        instances.renew(lease.instance).unwrap();
        hand.advance(Duration::from_millis(9_999));
        assert_eq!(instances.list().instances[0].age_ms, 9_999);
        hand.advance(Duration::from_millis(1));
        assert_eq!(addresses(&instances), [""; 0]);
        assert_eq!(instances.renew(lease.instance), Err(Error::InstanceNotFound(lease.instance)));
        let again = Register { instance: Some(lease.instance), ..register("persist", 1) };
        assert_eq!(instances.register(again).unwrap().instance, lease.instance);
    }

    #[test]
    fn only_a_change_of_who_is_there_changes_the_version() {
        let hand = ManualClock::new();
        let instances = instances(&hand);
        let lease = instances.register(register("persist", 1)).unwrap();
        let version = instances.list().version;
        instances.renew(lease.instance).unwrap();
        let again = Register { instance: Some(lease.instance), ..register("persist", 1) };
        instances.register(again.clone()).unwrap();
        assert_eq!(instances.list().version, version);
        instances.register(Register { address: "127.0.0.1:2".into(), ..again }).unwrap();
        assert!(instances.list().version > version);
        let version = instances.list().version;
        hand.advance(Duration::from_secs(10));
        assert!(instances.list().version > version, "its lease ran out");
        assert!(self::instances(&hand).list().version > instances.list().version, "a restart uses none again");
    }

    #[test]
    fn instances_take_turns() {
        let instances = instances(&ManualClock::new());
        let persist = ServiceName::parse("persist").unwrap();
        assert_eq!(instances.next_address(&persist), Err(Error::ServiceNotFound(persist.clone())));
        for port in 1..=2 {
            instances.register(register("persist", port)).unwrap();
        }
        instances.register(register("auth", 3)).unwrap();
        let mut given: Vec<_> = (0..4).map(|_| instances.next_address(&persist).unwrap().address).collect();
        given.sort();
        assert_eq!(given, ["127.0.0.1:1", "127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:2"]);
    }

    #[test]
    fn a_restarted_instance_replaces_its_predecessor() {
        let instances = instances(&ManualClock::new());
        let old = instances.register(register("persist", 1)).unwrap();
        let new = instances.register(register("persist", 1)).unwrap();
        assert_ne!(old.instance, new.instance);
        assert_eq!(addresses(&instances), ["127.0.0.1:1"]);
    }

    #[test]
    fn an_instance_is_of_one_service() {
        let instances = instances(&ManualClock::new());
        let lease = instances.register(register("persist", 1)).unwrap();
        let other = Register { instance: Some(lease.instance), ..register("auth", 1) };
        assert!(matches!(instances.register(other), Err(Error::InstanceTaken { .. })));
    }

    #[test]
    fn leaving_is_at_once() {
        let instances = instances(&ManualClock::new());
        let lease = instances.register(register("persist", 1)).unwrap();
        instances.register(register("persist", 2)).unwrap();
        instances.release(lease.instance).unwrap();
        assert_eq!(addresses(&instances), ["127.0.0.1:2"]);
        assert_eq!(instances.release(lease.instance), Err(Error::InstanceNotFound(lease.instance)));
        let persist = ServiceName::parse("persist").unwrap();
        instances.release_service(&persist).unwrap();
        assert_eq!(addresses(&instances), [""; 0]);
        assert!(instances.release_service(&persist).is_err());
    }

    #[test]
    fn everything_has_a_bound() {
        let instances = instances(&ManualClock::new());
        instances.register(register("persist", 1)).unwrap();
        instances.register(register("auth", 2)).unwrap();
        assert_eq!(instances.register(register("gateway", 3)), Err(Error::Full { max: 2, what: "services" }));
        instances.register(register("auth", 3)).unwrap();
        assert_eq!(instances.register(register("auth", 4)), Err(Error::Full { max: 3, what: "instances" }));
        let meta = |pairs: usize, bytes| (0..pairs).map(|n| (n.to_string(), "v".repeat(bytes))).collect();
        for (pairs, bytes) in [(17, 1), (1, 257)] {
            let bad = Register { meta: meta(pairs, bytes), ..register("auth", 3) };
            assert!(matches!(instances.register(bad), Err(Error::Meta(_))));
        }
        assert!(instances.register(Register { meta: meta(16, 256), ..register("auth", 3) }).is_ok());
    }

    #[test]
    fn the_registrys_own_entry_stays() {
        let hand = ManualClock::new();
        let instances = instances(&hand);
        instances.register_own(ServiceName::parse("discovery").unwrap(), "127.0.0.1:8000".into()).unwrap();
        hand.advance(Duration::from_secs(3_600));
        assert_eq!(addresses(&instances), ["127.0.0.1:8000"]);
    }
}

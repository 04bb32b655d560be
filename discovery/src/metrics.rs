//! What the registry tells at `/metrics`, besides what every service does.

use std::collections::BTreeMap;

use notifyx_model::ServiceName;
use prometheus::{IntCounterVec, IntGaugeVec, Opts, Registry};

#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    instances: IntGaugeVec,
    expired: IntCounterVec,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Self {
        let instances =
            IntGaugeVec::new(Opts::new("notifyx_discovery_instances", "Instances with a lease."), &["service"]);
        let instances = instances.expect("the name is valid");
        let expired =
            Opts::new("notifyx_discovery_expired_total", "Leases that ran out: instances that did not leave.");
        let expired = IntCounterVec::new(expired, &["service"]).expect("the name is valid");
        registry.register(Box::new(instances.clone())).expect("registered once per door");
        registry.register(Box::new(expired.clone())).expect("registered once per door");
        Self { instances, expired }
    }

    /// Services that are gone are no longer shown.
    pub(crate) fn show(&self, counts: &BTreeMap<&ServiceName, i64>) {
        self.instances.reset();
        for (service, count) in counts {
            self.instances.with_label_values(&[service.as_str()]).set(*count);
        }
    }

    pub(crate) fn expired(&self, service: &ServiceName) {
        self.expired.with_label_values(&[service.as_str()]).inc();
    }
}

//! What the mesh tells about itself at a service's `/metrics`.

use std::sync::{
    Arc,
    atomic::{AtomicI64, Ordering},
};

use notifyx_model::{Clock, InstanceId, ServiceName, Timestamp};
use prometheus::{
    Gauge, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
    core::{Collector, Desc},
    proto::MetricFamily,
};

use crate::{CallError, breaker::State};

/// From a tenth of a millisecond (a local call) to the longest deadline in use.
const CALL_SECONDS: [f64; 12] = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.0, 10.0];

#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    breakers: IntGaugeVec,
    opened: IntCounterVec,
    calls: HistogramVec,
    retries: IntCounterVec,
    pub(crate) registry_age: RegistryAge,
    pub(crate) identities: IdentityCounters,
}

/// The series of one breaker.
#[derive(Clone, Debug)]
pub(crate) struct BreakerSeries {
    states: [(State, IntGauge); 3],
    opened: IntCounter,
}

/// How questions about tokens were answered.
#[derive(Clone, Debug)]
pub(crate) struct IdentityCounters {
    pub(crate) hit: IntCounter,
    pub(crate) miss: IntCounter,
    /// The cache was behind auth's log, so auth was asked.
    pub(crate) bypass: IntCounter,
    pub(crate) revoked: IntCounter,
}

impl Metrics {
    /// Registers in the service's registry, which holds one mesh.
    pub(crate) fn new(registry: &Registry, clock: &Clock) -> Self {
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let counters = IntCounterVec::new(Opts::new(name, help), labels).expect("the name is valid");
            registry.register(Box::new(counters.clone())).expect("a registry holds one mesh");
            counters
        };
        let breakers = IntGaugeVec::new(
            Opts::new(
                "notifyx_mesh_breaker",
                "1 for the state a breaker is in: closed (traffic flows), open (rejecting), half-open (one probe).",
            ),
            &["service", "instance", "state"],
        )
        .expect("the name is valid");
        registry.register(Box::new(breakers.clone())).expect("a registry holds one mesh");
        let calls = HistogramVec::new(
            HistogramOpts::new("notifyx_mesh_call_seconds", "Calls to other services, retries included.")
                .buckets(CALL_SECONDS.to_vec()),
            &["service", "outcome"],
        )
        .expect("the name is valid");
        registry.register(Box::new(calls.clone())).expect("a registry holds one mesh");
        let registry_age = RegistryAge::new(clock);
        registry.register(Box::new(registry_age.clone())).expect("a registry holds one mesh");
        let identities =
            counters("notifyx_mesh_identities_total", "Tokens looked up, by where the answer was found.", &["found"]);
        Self {
            breakers,
            opened: counters("notifyx_mesh_breaker_opened_total", "Breakers that opened.", &["service"]),
            calls,
            retries: counters(
                "notifyx_mesh_retries_total",
                "Second tries: made, or denied by the budget.",
                &["service", "outcome"],
            ),
            registry_age,
            identities: IdentityCounters {
                hit: identities.with_label_values(&["cache"]),
                miss: identities.with_label_values(&["auth"]),
                bypass: identities.with_label_values(&["auth_because_behind"]),
                revoked: identities.with_label_values(&["revocations"]),
            },
        }
    }

    pub(crate) fn breaker(&self, service: &ServiceName, instance: InstanceId) -> BreakerSeries {
        let instance = instance.to_string();
        let gauge = |state: State| self.breakers.with_label_values(&[service.as_str(), &instance, state.as_str()]);
        BreakerSeries {
            states: State::ALL.map(|state| (state, gauge(state))),
            opened: self.opened.with_label_values(&[service.as_str()]),
        }
    }

    /// The instance is gone, and its series with it.
    pub(crate) fn forget_breaker(&self, service: &ServiceName, instance: InstanceId) {
        let instance = instance.to_string();
        for state in State::ALL {
            // Already gone is as good.
            let _ = self.breakers.remove_label_values(&[service.as_str(), &instance, state.as_str()]);
        }
    }

    pub(crate) fn called<T>(&self, service: &str, outcome: &Result<T, CallError>, seconds: f64) {
        let outcome = match outcome {
            Ok(_) => "ok",
            Err(CallError::Refused(..)) => "refused",
            Err(CallError::Timeout { .. }) => "timeout",
            Err(CallError::Unreachable { .. }) => "unreachable",
            Err(CallError::Cut { .. }) => "cut",
            Err(CallError::Broken { .. }) => "broken",
        };
        self.calls.with_label_values(&[service, outcome]).observe(seconds);
    }

    pub(crate) fn retried(&self, service: &str, granted: bool) {
        self.retries.with_label_values(&[service, if granted { "made" } else { "denied" }]).inc();
    }
}

impl BreakerSeries {
    pub(crate) fn show(&self, now: State) {
        for (state, gauge) in &self.states {
            gauge.set(i64::from(*state == now));
        }
        if now == State::Open {
            self.opened.inc();
        }
    }
}

/// The seconds since the registry last answered, counted when they are asked for.
#[derive(Clone, Debug)]
pub(crate) struct RegistryAge {
    clock: Clock,
    heard_micros: Arc<AtomicI64>,
    gauge: Gauge,
}

impl RegistryAge {
    fn new(clock: &Clock) -> Self {
        let gauge = Gauge::new(
            "notifyx_mesh_registry_age_seconds",
            "Since the registry last answered; while it is away, the last list it gave is used.",
        )
        .expect("the name is valid");
        Self { clock: clock.clone(), heard_micros: Arc::new(AtomicI64::new(clock.now().as_micros())), gauge }
    }

    pub(crate) fn heard(&self) {
        self.heard_micros.store(self.clock.now().as_micros(), Ordering::Relaxed);
    }

    pub(crate) fn age(&self) -> std::time::Duration {
        self.clock.now().since(Timestamp::from_micros(self.heard_micros.load(Ordering::Relaxed)))
    }
}

impl Collector for RegistryAge {
    fn desc(&self) -> Vec<&Desc> {
        self.gauge.desc()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.gauge.set(self.age().as_secs_f64());
        self.gauge.collect()
    }
}

//! What auth counts.

use prometheus::{Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry, core::Collector};

#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    /// By outcome: `ok`, `wrong`, `limited`, `busy`.
    logins: IntCounterVec,
    pub(crate) registrations: IntCounter,
    pub(crate) logouts: IntCounter,
    hashing_waiting: IntGauge,
    pub(crate) hashing_seconds: Histogram,
    /// By cache (`session`, `key`, `user`) and outcome (`hit`, `miss`, `bypassed`).
    lookups: IntCounterVec,
    pub(crate) revocation_head: IntGauge,
    pub(crate) revocation_gaps: IntCounter,
    pub(crate) follow_failures: IntCounter,
    pub(crate) sessions_expired: IntCounter,
    pub(crate) keys_created: IntCounter,
    pub(crate) keys_revoked: IntCounter,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Login {
    Ok,
    Wrong,
    Limited,
    Busy,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Lookup {
    Hit,
    Miss,
    /// The cache was behind the log of revocations.
    Bypassed,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Self {
        let counter = |name, help| register(registry, IntCounter::new(name, help));
        let gauge = |name, help| register(registry, IntGauge::new(name, help));
        let counters = |name, help, labels| register(registry, IntCounterVec::new(Opts::new(name, help), labels));
        // A hash takes 20 to 50 ms on a core of its own.
        let buckets = vec![0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5];
        let hashing = HistogramOpts::new("notifyx_auth_hashing_seconds", "time to hash a password").buckets(buckets);
        Self {
            logins: counters("notifyx_auth_logins_total", "logins tried", &["outcome"]),
            registrations: counter("notifyx_auth_registrations_total", "accounts made"),
            logouts: counter("notifyx_auth_logouts_total", "sessions ended by their user"),
            hashing_waiting: gauge("notifyx_auth_hashing_waiting", "callers that wait to have a password hashed"),
            hashing_seconds: register(registry, Histogram::with_opts(hashing)),
            lookups: counters("notifyx_auth_lookups_total", "look-ups through a cache", &["cache", "outcome"]),
            revocation_head: gauge("notifyx_auth_revocation_head", "number of the newest revocation seen"),
            revocation_gaps: counter("notifyx_auth_revocation_gaps_total", "times the cache was cleared for a gap"),
            follow_failures: counter("notifyx_auth_follow_failures_total", "looks for revocations that failed"),
            sessions_expired: counter("notifyx_auth_sessions_expired_total", "expired sessions removed"),
            keys_created: counter("notifyx_auth_keys_created_total", "API keys made"),
            keys_revoked: counter("notifyx_auth_keys_revoked_total", "API keys revoked by their user"),
        }
    }

    pub(crate) fn login(&self, outcome: Login) {
        let outcome = match outcome {
            Login::Ok => "ok",
            Login::Wrong => "wrong",
            Login::Limited => "limited",
            Login::Busy => "busy",
        };
        self.logins.with_label_values(&[outcome]).inc();
    }

    pub(crate) fn lookup(&self, cache: &'static str, outcome: Lookup) {
        let outcome = match outcome {
            Lookup::Hit => "hit",
            Lookup::Miss => "miss",
            Lookup::Bypassed => "bypassed",
        };
        self.lookups.with_label_values(&[cache, outcome]).inc();
    }

    /// Counts a caller as waiting until what is returned is dropped.
    pub(crate) fn hashing_waits(&self) -> impl Drop + use<> {
        self.hashing_waiting.inc();
        Waiting(self.hashing_waiting.clone())
    }
}

struct Waiting(IntGauge);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn register<M: Collector + Clone + 'static>(registry: &Registry, metric: prometheus::Result<M>) -> M {
    let metric = metric.expect("the name is valid");
    registry.register(Box::new(metric.clone())).expect("each name is registered once per door");
    metric
}

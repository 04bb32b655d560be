//! Calls to services by name: choose an instance, bound the wait, decide whether to try again.
//!
//! A call is sent again only where that does no harm: if nothing was sent the first time, or if the call is idempotent;
//! always within the deadline and the service's retry budget, and to another instance where there is one.

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use notifyx_model::{Clock, InstanceId, Secret, ServiceName};
use notifyx_wire::rest::discovery::{Instance, Services};
use serde::Serialize;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::debug;

use crate::{
    Answer, Call, CallError, MeshConfig,
    breaker::State,
    metrics::Metrics,
    pool::Pool,
    registry::Registry,
    table::Table,
    transport::{Failed, Received, Transport, problem},
};

/// The most that is waited before a second try; doubled for the third. Long enough to part callers that failed together.
const JITTER: Duration = Duration::from_millis(20);

/// A service's way to the others. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Mesh(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: MeshConfig,
    clock: Clock,
    transport: Transport,
    registry: Registry,
    table: Arc<Table>,
    metrics: Metrics,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// Who is there and how they do, for `/status`.
#[derive(Clone, Debug, Serialize)]
pub struct Snapshot {
    /// Since the registry last answered.
    pub registry_age_ms: u64,
    pub services: BTreeMap<ServiceName, Vec<InstanceSnapshot>>,
}

#[derive(Clone, Debug, Serialize)]
pub struct InstanceSnapshot {
    pub instance: InstanceId,
    pub address: String,
    pub breaker: State,
}

impl Mesh {
    /// Follows the registries at `discovery` (`http://host:port` each) on the current runtime until `shutdown`, or
    /// [`Mesh::stop`]. Calls go on after that, to the last list.
    #[expect(clippy::needless_pass_by_value, reason = "what a service hands over is the mesh's")]
    pub fn start(
        config: &MeshConfig,
        discovery: Vec<String>,
        secret: Secret,
        clock: Clock,
        metrics: &prometheus::Registry,
        shutdown: CancellationToken,
    ) -> Self {
        let mesh = Self::build(config, discovery, &secret, clock, metrics, shutdown.child_token());
        let inner = &*mesh.0;
        if !inner.registry.bases.is_empty() {
            let (table, age) = (inner.table.clone(), inner.metrics.registry_age.clone());
            mesh.spawn(inner.registry.clone().follow(table, age, inner.stop.clone()));
        }
        mesh
    }

    /// A list that does not change, in place of a registry: for tests, and for tools that are given an address.
    #[expect(clippy::needless_pass_by_value, reason = "what a service hands over is the mesh's")]
    pub fn fixed(
        config: &MeshConfig,
        instances: &[(&str, String)],
        secret: Secret,
        clock: Clock,
        metrics: &prometheus::Registry,
    ) -> Self {
        let mesh = Self::build(config, Vec::new(), &secret, clock.clone(), metrics, CancellationToken::new());
        let instance = |(service, address): &(&str, String)| Instance {
            instance: InstanceId::new(&clock),
            service: ServiceName::parse(service).expect("a name from the program"),
            address: address.clone(),
            meta: BTreeMap::new(),
            age_ms: 0,
        };
        mesh.0.table.apply(Services { version: 1, instances: instances.iter().map(instance).collect() });
        mesh
    }

    fn build(
        config: &MeshConfig,
        discovery: Vec<String>,
        secret: &Secret,
        clock: Clock,
        registry: &prometheus::Registry,
        stop: CancellationToken,
    ) -> Self {
        let metrics = Metrics::new(registry, &clock);
        let transport = Transport::new(secret);
        Self(Arc::new(Inner {
            config: config.clone(),
            table: Arc::new(Table::new(config.clone(), clock.clone(), metrics.clone())),
            registry: Registry::new(transport.clone(), discovery),
            clock,
            transport,
            metrics,
            tasks: TaskTracker::new(),
            stop,
        }))
    }

    /// Asks an instance of the service. Connections belong to the runtime that this runs on: call it from the shared one,
    /// not from a door's worker.
    pub async fn call(&self, service: &'static str, call: Call) -> Result<Answer, CallError> {
        let began = Instant::now();
        let outcome = self.attempts(service, &call, began).await;
        // The time of a long poll says nothing.
        if !call.once {
            self.0.metrics.called(service, &outcome, began.elapsed().as_secs_f64());
        }
        outcome
    }

    async fn attempts(&self, service: &'static str, call: &Call, began: Instant) -> Result<Answer, CallError> {
        let pool = self.0.table.find(service).ok_or(CallError::Unreachable { service })?;
        let deadline = began + call.deadline.unwrap_or_else(|| self.0.config.deadline());
        let attempts_max = if call.once { 1 } else { self.0.config.attempts_max };
        pool.budget.deposit();
        let mut tried = Vec::new();
        // The first failure after which the call may have taken effect: no later one makes that untrue.
        let mut doubt = None;
        let mut attempt = 0;
        loop {
            attempt += 1;
            let last = attempt >= attempts_max;
            let left = deadline.saturating_duration_since(Instant::now());
            // A first instance that hangs leaves time for a second.
            let share = if call.idempotent && !last && pool.has_other(&tried) { left / 2 } else { left };
            let failure = match self.attempt(service, &pool, call, &mut tried, share).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            if !failure.error.is_undelivered() {
                doubt.get_or_insert_with(|| failure.error.clone());
            }
            let again = !last && failure.again(call, &pool, &tried) && self.grant_retry(service, &pool);
            if !again || timeout_at(deadline, jitter(attempt)).await.is_err() {
                return Err(if failure.error.is_undelivered() {
                    doubt.unwrap_or(failure.error)
                } else {
                    failure.error
                });
            }
            debug!("{} to {service}: try {attempt} failed, again: {}", call.path, failure.error);
        }
    }

    /// One try of one instance, at most `share` long.
    async fn attempt(
        &self,
        service: &'static str,
        pool: &Pool,
        call: &Call,
        tried: &mut Vec<InstanceId>,
        share: Duration,
    ) -> Result<Answer, Failure> {
        let Some((member, admission)) = pool.pick(tried) else {
            return Err(Failure::finally(CallError::Unreachable { service }));
        };
        tried.push(member.instance);
        let base = format!("http://{}", member.address);
        match timeout(share, self.0.transport.exchange(&base, call)).await {
            Ok(Ok(received)) => {
                admission.settle(!is_failure(&received));
                judge(service, received)
            }
            Ok(Err(failed)) => {
                admission.settle(false);
                Err(Failure::of(service, failed))
            }
            Err(_) => {
                admission.settle(false);
                Err(Failure { error: CallError::Timeout { service }, again: Again::ElsewhereIfIdempotent })
            }
        }
    }

    fn grant_retry(&self, service: &str, pool: &Pool) -> bool {
        let granted = pool.budget.withdraw();
        self.0.metrics.retried(service, granted);
        granted
    }

    /// Whether an instance of the service is known.
    pub fn knows(&self, service: &str) -> bool {
        self.0.table.find(service).is_some()
    }

    /// Waits until an instance of the service is known; `false`: not within `patience`.
    pub async fn wait_for(&self, service: &str, patience: Duration) -> bool {
        let mut changes = self.0.table.changes();
        let known = async {
            while !self.knows(service) {
                if changes.changed().await.is_err() {
                    return;
                }
            }
        };
        timeout(patience, known).await.is_ok()
    }

    pub fn snapshot(&self) -> Snapshot {
        let instances = |pool: &Pool| {
            let shown = |member: &Arc<crate::pool::Member>| InstanceSnapshot {
                instance: member.instance,
                address: member.address.clone(),
                breaker: member.breaker.state(),
            };
            pool.list().iter().map(shown).collect()
        };
        Snapshot {
            registry_age_ms: u64::try_from(self.0.metrics.registry_age.age().as_millis()).unwrap_or(u64::MAX),
            services: self.0.table.pools().into_iter().map(|(service, pool)| (service, instances(&pool))).collect(),
        }
    }

    /// Ends what the mesh runs in the background, and waits for it.
    pub async fn stop(&self) {
        self.0.stop.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    pub(crate) fn clock(&self) -> &Clock {
        &self.0.clock
    }

    pub(crate) fn registry(&self) -> &Registry {
        &self.0.registry
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    pub(crate) fn stopping(&self) -> &CancellationToken {
        &self.0.stop
    }

    /// A task that [`Mesh::stop`] waits for.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.0.tasks.spawn(task);
    }
}

/// Why a try failed, and what may be done about it.
struct Failure {
    error: CallError,
    again: Again,
}

#[derive(Clone, Copy)]
enum Again {
    No,
    /// Nothing was sent: any call may be sent again, also to the same instance, which may have been restarted.
    Yes,
    IfIdempotent,
    /// The instance itself is in trouble: asking it again at once does not help it.
    ElsewhereIfIdempotent,
}

impl Failure {
    fn finally(error: CallError) -> Self {
        Self { error, again: Again::No }
    }

    fn of(service: &'static str, failed: Failed) -> Self {
        match failed {
            Failed::NotSent(why) => {
                debug!("no connection to {service}: {why}");
                Self { error: CallError::Unreachable { service }, again: Again::Yes }
            }
            Failed::Cut(why) => Self { error: CallError::Cut { service, why }, again: Again::IfIdempotent },
            Failed::Broken(why) => Self::finally(CallError::Broken { service, why }),
        }
    }

    fn again(&self, call: &Call, pool: &Pool, tried: &[InstanceId]) -> bool {
        match self.again {
            Again::No => false,
            Again::Yes => true,
            Again::IfIdempotent => call.idempotent,
            Again::ElsewhereIfIdempotent => call.idempotent && pool.has_other(tried),
        }
    }
}

/// Whether an answer speaks against its instance. One that is full and says when to come back is alive.
fn is_failure(received: &Received) -> bool {
    received.status >= 500 && !(received.status == 503 && received.retry_after.is_some())
}

fn judge(service: &'static str, received: Received) -> Result<Answer, Failure> {
    let status = received.status;
    if (200..300).contains(&status) {
        return Ok(Answer { status, body: received.body, service });
    }
    if !(400..600).contains(&status) {
        return Err(Failure::finally(CallError::Broken { service, why: format!("status {status}") }));
    }
    let problem = problem(service, &received);
    // A user must not be told to log in again because the services of the cluster disagree.
    if status == 401 && problem.code == "cluster_secret_invalid" {
        return Err(Failure::finally(CallError::Broken { service, why: problem.detail }));
    }
    let again = if matches!(status, 502..=504) { Again::ElsewhereIfIdempotent } else { Again::No };
    Err(Failure { error: CallError::Refused(Box::new(problem), received.retry_after), again })
}

async fn jitter(attempt: u32) {
    let most = JITTER * (1 << (attempt - 1).min(5));
    let pause = most.mul_f64(rand::random_range(0.0..1.0));
    tokio::time::sleep(pause).await;
}

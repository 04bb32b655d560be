//! Calls to services by name: choose an instance, bound the wait, decide whether to try again.
//!
//! A call is sent again only where that does no harm: if nothing was sent the first time, or if the call is idempotent;
//! always within the deadline and the service's retry budget, and to another instance where there is one.

mod tried;

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use notifyx_model::{Clock, InstanceId, Secret, ServiceName};
use notifyx_wire::rest::discovery::{Instance, Services};
use serde::Serialize;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::{Response, Status};
use tracing::debug;

use crate::{
    Answer, Call, CallError, Instances, Line, MeshConfig, Rpc,
    breaker::{Admission, State},
    call::Terms,
    metrics::Metrics,
    pool::{Member, Pool},
    registry::Registry,
    table::Table,
    transport::Transport,
};

use tried::{Failure, Tried, answer, is_failure, judge};

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
    /// Follows the registries at `discovery` (`http://host:port` each) on the current runtime until [`Mesh::stop`]. That is with
    /// the service, not with the first signal: what runs is finished through it, and the lease has to be given back.
    pub fn start(
        config: &MeshConfig,
        discovery: &[String],
        secret: &Secret,
        clock: &Clock,
        metrics: &prometheus::Registry,
    ) -> Self {
        let mesh = Self::build(config, discovery.to_vec(), secret, clock.clone(), metrics);
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
        let mesh = Self::build(config, Vec::new(), &secret, clock.clone(), metrics);
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
            stop: CancellationToken::new(),
        }))
    }

    /// Asks an instance of the service. Connections belong to the runtime that this runs on: call it from the shared one,
    /// not from a door's worker.
    pub async fn call(&self, service: &'static str, call: Call) -> Result<Answer, CallError> {
        let (call, transport) = (&call, &self.0.transport);
        let exchange = move |member: Arc<Member>, _: Duration| async move {
            let base = format!("http://{}", member.address);
            match transport.exchange(&base, call).await {
                Ok(received) => Tried { healthy: !is_failure(&received), outcome: judge(service, received) },
                Err(failed) => Tried { healthy: false, outcome: Err(Failure::of(service, failed)) },
            }
        };
        self.measured(service, &call.terms, &call.path, exchange).await
    }

    /// Asks an instance of the service over gRPC: `ask` makes the call on the line that it is given, anew with each try.
    /// `|line| { let request = request.clone(); async move { EventsClient::new(line).heads(request).await } }`.
    pub async fn rpc<T, Fut>(&self, service: &'static str, rpc: Rpc, ask: impl Fn(Line) -> Fut) -> Result<T, CallError>
    where
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let (terms, ask) = (&rpc.terms, &ask);
        let exchange = move |member: Arc<Member>, share| answer(service, self.line(&member, terms, share).map(ask));
        self.measured(service, terms, "a call", exchange).await
    }

    /// Asks this very instance, once: to open a stream that only it can give. The deadline is that of the opening.
    pub async fn rpc_at<T, Fut>(
        &self,
        service: &'static str,
        instance: InstanceId,
        rpc: Rpc,
        ask: impl Fn(Line) -> Fut,
    ) -> Result<T, CallError>
    where
        Fut: Future<Output = Result<Response<T>, Status>>,
    {
        let pool = self.0.table.find(service).ok_or(CallError::Unreachable { service })?;
        let share = rpc.terms.deadline.unwrap_or_else(|| self.0.config.deadline());
        let (terms, ask) = (&rpc.terms, &ask);
        let exchange = move |member: Arc<Member>, share| answer(service, self.line(&member, terms, share).map(ask));
        self.attempt(service, pool.get(instance), share, &exchange).await.map_err(|failure| failure.error)
    }

    /// The way to an instance, with what every call carries. `None`: its address is none.
    fn line(&self, member: &Member, terms: &Terms, share: Duration) -> Option<Line> {
        member.channel().map(|channel| Line::new(channel, self.0.transport.headers(terms), share))
    }

    async fn measured<T, Fut: Future<Output = Tried<T>>>(
        &self,
        service: &'static str,
        terms: &Terms,
        what: &str,
        exchange: impl Fn(Arc<Member>, Duration) -> Fut,
    ) -> Result<T, CallError> {
        let began = Instant::now();
        let outcome = self.attempts(service, terms, what, began, exchange).await;
        // The time of a long poll says nothing.
        if !terms.once {
            self.0.metrics.called(service, &outcome, began.elapsed().as_secs_f64());
        }
        outcome
    }

    async fn attempts<T, Fut: Future<Output = Tried<T>>>(
        &self,
        service: &'static str,
        terms: &Terms,
        what: &str,
        began: Instant,
        exchange: impl Fn(Arc<Member>, Duration) -> Fut,
    ) -> Result<T, CallError> {
        let pool = self.0.table.find(service).ok_or(CallError::Unreachable { service })?;
        let deadline = began + terms.deadline.unwrap_or_else(|| self.0.config.deadline());
        let attempts_max = if terms.once { 1 } else { self.0.config.attempts_max };
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
            let share = if terms.idempotent && !last && pool.has_other(&tried) { left / 2 } else { left };
            let picked = pool.pick(&tried);
            tried.extend(picked.as_ref().map(|(member, _)| member.instance));
            let failure = match self.attempt(service, picked, share, &exchange).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            if !failure.error.is_undelivered() {
                doubt.get_or_insert_with(|| failure.error.clone());
            }
            let again = !last && failure.again(terms, &pool, &tried) && self.grant_retry(service, &pool);
            if !again || timeout_at(deadline, jitter(attempt)).await.is_err() {
                return Err(if failure.error.is_undelivered() {
                    doubt.unwrap_or(failure.error)
                } else {
                    failure.error
                });
            }
            debug!("{what} to {service}: try {attempt} failed, again: {}", failure.error);
        }
    }

    /// One try of one instance, at most `share` long.
    async fn attempt<T, Fut: Future<Output = Tried<T>>>(
        &self,
        service: &'static str,
        picked: Option<(Arc<Member>, Admission)>,
        share: Duration,
        exchange: &impl Fn(Arc<Member>, Duration) -> Fut,
    ) -> Result<T, Failure> {
        let Some((member, admission)) = picked else {
            return Err(Failure::finally(CallError::Unreachable { service }));
        };
        if let Ok(Tried { healthy, outcome }) = timeout(share, exchange(member, share)).await {
            admission.settle(healthy);
            outcome
        } else {
            admission.settle(false);
            Err(Failure::late(service))
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

    /// The instances of a service, as they come and go.
    pub fn instances(&self, service: &'static str) -> Instances {
        Instances::new(self.0.table.clone(), service)
    }

    pub fn snapshot(&self) -> Snapshot {
        let instances = |pool: &Pool| {
            let shown = |member: &Arc<Member>| InstanceSnapshot {
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

    /// Ends what the mesh runs in the background, and waits for it. Calls may go on, to the last list.
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

async fn jitter(attempt: u32) {
    let most = JITTER * (1 << (attempt - 1).min(5));
    let pause = most.mul_f64(rand::random_range(0.0..1.0));
    tokio::time::sleep(pause).await;
}

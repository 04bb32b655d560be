//! The registry's client: follows the list of instances, and keeps an instance in it.
//!
//! Several registries know nothing of each other: an instance registers with each, and the list is read from one at a
//! time, from the next where one does not answer. While none answers, the last list stands.

use std::{sync::Arc, time::Duration};

use notifyx_model::InstanceId;
use notifyx_wire::rest::discovery::{Lease, Register, Services};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    Call,
    metrics::RegistryAge,
    table::Table,
    transport::{Failed, Received, Transport, problem},
};

/// How long the registry holds an unchanged list before it says so. The age of the list stays below it.
const WATCH: Duration = Duration::from_secs(5);
/// On top of [`WATCH`], and for every other question to a registry.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between tries while no registry answers: from soon after a restart to not worth a log line more.
const PAUSES: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(2);
/// Between two lists: a registry whose list changes all the time is not asked all the time.
const PACE: Duration = Duration::from_millis(20);

#[derive(Clone, Debug)]
pub(crate) struct Registry {
    transport: Transport,
    /// `http://host:port` each.
    pub(crate) bases: Arc<[String]>,
}

impl Registry {
    pub(crate) fn new(transport: Transport, bases: Vec<String>) -> Self {
        Self { transport, bases: bases.into_iter().map(|base| base.trim_end_matches('/').to_owned()).collect() }
    }

    /// Follows the list until told to stop.
    pub(crate) async fn follow(self, table: Arc<Table>, age: RegistryAge, stop: CancellationToken) {
        let following = async {
            let mut failures = 0_u32;
            for base in self.bases.iter().cycle() {
                let lost = self.follow_one(base, &table, &age, &mut failures).await;
                // Once, not each time: the metric tells how long it has been so.
                if failures == 0 {
                    warn!("the registry {base} does not answer, the last list is used: {lost}");
                }
                failures = failures.saturating_add(1);
                tokio::time::sleep(pause(failures)).await;
            }
        };
        tokio::select! {
            () = following => {}
            () = stop.cancelled() => {}
        }
    }

    /// Until this registry fails; says why.
    async fn follow_one(&self, base: &str, table: &Table, age: &RegistryAge, failures: &mut u32) -> String {
        let mut after = 0;
        loop {
            match self.watch(base, after).await {
                Ok(services) => {
                    if *failures > 0 {
                        info!("the registry {base} answers again");
                        *failures = 0;
                    }
                    age.heard();
                    after = services.version;
                    table.apply(services);
                }
                Err(lost) => return lost,
            }
            tokio::time::sleep(PACE).await;
        }
    }

    async fn watch(&self, base: &str, after: u64) -> Result<Services, String> {
        let call = Call::get("/api/watch").query("after", after).query("wait_ms", WATCH.as_millis());
        let received = self.ask(base, &call, WATCH + PATIENCE).await?;
        serde_json::from_slice(&received.body).map_err(|error| format!("its list cannot be read: {error}"))
    }

    pub(crate) async fn register(&self, base: &str, register: &Register) -> Result<Lease, String> {
        let received = self.ask(base, &Call::post("/api/register").json(register), PATIENCE).await?;
        serde_json::from_slice(&received.body).map_err(|error| format!("its lease cannot be read: {error}"))
    }

    pub(crate) async fn release(&self, base: &str, instance: InstanceId) -> Result<(), String> {
        let call = Call::delete(format!("/api/instances/{instance}"));
        self.ask(base, &call, PATIENCE).await.map(|_| ())
    }

    async fn ask(&self, base: &str, call: &Call, patience: Duration) -> Result<Received, String> {
        let asked = tokio::time::timeout(patience, self.transport.exchange(base, call)).await;
        let received = asked.map_err(|_| "no answer in time".to_owned())?.map_err(Failed::why)?;
        if (200..300).contains(&received.status) { Ok(received) } else { Err(problem("discovery", &received).detail) }
    }
}

/// The wait after so many failures in a row: doubling, jittered.
pub(crate) fn pause(failures: u32) -> Duration {
    let longest = PAUSES.start().saturating_mul(1 << failures.min(10)).min(*PAUSES.end());
    longest.mul_f64(rand::random_range(0.5..1.0))
}

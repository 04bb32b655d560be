//! A gateway's connections to the world, and what goes wrong on them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use notifyx_model::{Gid, InstanceId, UserId};
use notifyx_wire::rest::commit::{Ack, Applied, GidBatch, PrepareBatch, Publish, Vote};

use super::{Site, World};
use crate::{
    Acked, AppliedSink, Begin, Begun, CallFailed, Claim, CoordinatorStore, Deferred, Figures, Intervened, Page,
    Participant, Party, Record, Resolve, State, StoreError, Terms, VerdictOn,
};

/// What happens to one call of a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The gateway dies before the call leaves, or after it took effect.
    DieBefore,
    DieAfter,
    /// The call fails without effect.
    Fail,
    /// A 4xx without effect.
    Refuse,
    /// It takes effect, but the answer is lost.
    LoseReply,
    /// It takes effect after so long, whether the caller still waits or not.
    Delay(Duration),
}

/// A gateway's connections to the world, and what is to go wrong on them.
pub(crate) struct Gateway {
    pub(super) world: Arc<World>,
    pub(super) dead: tokio_util::sync::CancellationToken,
    /// Per call name: how many more times which fault strikes.
    pub(super) faults: Mutex<HashMap<&'static str, (usize, Fault)>>,
}

pub(crate) const ALWAYS: usize = usize::MAX;

impl Gateway {
    /// Strikes the next call of this name: `begin`, `decide`, `acknowledge`, `prepare persist`, `commit counter-2pc` …
    pub(crate) fn strike(&self, call: &'static str, fault: Fault) {
        self.strike_times(call, 1, fault);
    }

    pub(crate) fn strike_times(&self, call: &'static str, times: usize, fault: Fault) {
        self.faults.lock().unwrap().insert(call, (times, fault));
    }

    pub(crate) fn heal(&self) {
        self.faults.lock().unwrap().clear();
    }

    /// As SIGKILL: no call leaves any more, none returns.
    pub(crate) fn kill(&self) {
        self.dead.cancel();
    }

    /// Runs one call under whatever fault is due.
    async fn call<T: Send + 'static>(
        &self,
        name: &'static str,
        effect: impl FnOnce(&World) -> T + Send + 'static,
    ) -> Result<T, Fault> {
        if self.dead.is_cancelled() {
            std::future::pending::<()>().await;
        }
        *self.world.calls.lock().unwrap().entry(name).or_default() += 1;
        let fault = {
            let mut faults = self.faults.lock().unwrap();
            faults.get_mut(name).filter(|(times, _)| *times > 0).map(|(times, fault)| {
                *times = times.saturating_sub(usize::from(*times != ALWAYS));
                *fault
            })
        };
        match fault {
            None => Ok(effect(&self.world)),
            Some(Fault::Delay(span)) => {
                let world = self.world.clone();
                let late = tokio::spawn(async move {
                    tokio::time::sleep(span).await;
                    effect(&world)
                });
                Ok(late.await.unwrap())
            }
            Some(fault @ (Fault::Fail | Fault::Refuse)) => Err(fault),
            Some(fault @ Fault::LoseReply) => {
                effect(&self.world);
                Err(fault)
            }
            Some(Fault::DieBefore) => {
                self.kill();
                std::future::pending().await
            }
            Some(Fault::DieAfter) => {
                effect(&self.world);
                self.kill();
                std::future::pending().await
            }
        }
    }

    async fn stored<T: Send + 'static>(
        &self,
        name: &'static str,
        effect: impl FnOnce(&World) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        self.call(name, effect).await.map_err(|fault| StoreError::new(format!("{fault:?}")))
    }
}

impl AppliedSink for Gateway {
    fn applied(&self, applied: &Applied, publish: Option<&Publish>) {
        if !self.dead.is_cancelled() {
            self.world.told.lock().unwrap().push((applied.notification_id, publish.is_some()));
        }
    }
}

pub(super) struct Link {
    pub(super) gateway: Arc<Gateway>,
    pub(super) party: Party,
}

impl Link {
    async fn call<T: Send + 'static>(
        &self,
        names: [&'static str; 2],
        effect: impl FnOnce(&Site) -> Vec<T> + Send + 'static,
    ) -> Result<Vec<T>, CallFailed> {
        let party = self.party;
        let name = match party {
            Party::Persist => names[0],
            Party::Counter => names[1],
        };
        self.gateway
            .call(name, move |world| effect(world.site(party)))
            .await
            .map_err(|fault| CallFailed { reason: format!("{fault:?}"), repeats: fault == Fault::Refuse })
    }
}

#[async_trait]
impl Participant for Link {
    async fn prepare(&self, batch: &PrepareBatch, _: Duration) -> Result<Vec<Vote>, CallFailed> {
        let items = batch.items.clone();
        self.call(["prepare persist", "prepare counter"], move |site| {
            items.iter().map(|item| site.prepare(item.gid, &item.publish)).collect()
        })
        .await
    }

    async fn commit(&self, batch: &GidBatch, _: Duration) -> Result<Vec<Ack>, CallFailed> {
        let gids = batch.gids.clone();
        self.call(["commit persist", "commit counter"], move |site| gids.iter().map(|gid| site.commit(*gid)).collect())
            .await
    }

    async fn rollback(&self, batch: &GidBatch, _: Duration) -> Result<Vec<Ack>, CallFailed> {
        let gids = batch.gids.clone();
        self.call(["rollback persist", "rollback counter"], move |site| {
            gids.iter().map(|gid| site.rollback(*gid)).collect()
        })
        .await
    }
}

#[async_trait]
impl CoordinatorStore for Gateway {
    async fn begin(&self, batch: &[Begin], terms: Terms) -> Result<Vec<Begun>, StoreError> {
        let batch = batch.to_vec();
        self.stored("begin", move |world| batch.iter().map(|item| world.begin(item, terms)).collect()).await
    }

    async fn decide(&self, batch: &[VerdictOn]) -> Result<Vec<Option<State>>, StoreError> {
        let batch = batch.to_vec();
        self.stored("decide", move |world| batch.iter().map(|item| world.decide(item)).collect()).await
    }

    async fn acknowledge(&self, batch: &[Acked]) -> Result<(), StoreError> {
        let batch = batch.to_vec();
        self.stored("acknowledge", move |world| batch.iter().for_each(|acked| world.acknowledge(acked))).await
    }

    async fn defer(&self, batch: &[Deferred]) -> Result<(), StoreError> {
        let batch = batch.to_vec();
        self.stored("defer", move |world| batch.into_iter().for_each(|deferred| world.defer(deferred))).await
    }

    async fn claim(&self, claim: Claim) -> Result<Vec<Record>, StoreError> {
        self.stored("claim", move |world| world.claim(claim)).await
    }

    async fn find(&self, gid: Gid) -> Result<Option<Record>, StoreError> {
        self.stored("find", move |world| world.record(gid)).await
    }

    async fn find_by_key(&self, user_id: UserId, key: &str) -> Result<Option<Record>, StoreError> {
        let key = key.to_owned();
        self.stored("find", move |world| world.holder(user_id, &key)).await
    }

    async fn release(&self, owner: InstanceId) -> Result<(), StoreError> {
        self.stored("release", move |world| world.release(owner)).await
    }

    async fn list(&self, _: Page) -> Result<Vec<Record>, StoreError> {
        self.stored("list", |_| Vec::new()).await
    }

    async fn retry(&self, gid: Gid) -> Result<Intervened, StoreError> {
        self.stored("retry", move |world| world.retry(gid)).await
    }

    async fn resolve(&self, resolve: &Resolve) -> Result<Intervened, StoreError> {
        let resolve = resolve.clone();
        self.stored("resolve", move |world| world.resolve(resolve)).await
    }

    async fn trim(&self, _: Duration, _: u32) -> Result<u64, StoreError> {
        self.stored("trim", |_| 0).await
    }

    async fn figures(&self) -> Result<Figures, StoreError> {
        self.stored("figures", |_| Figures::default()).await
    }
}

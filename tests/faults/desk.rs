//! A gateway's hold on the coordinator's database: the real store with a fault point before and after every durable write.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use notifyx_commit::{
    Acked, Begin, Begun, Claim, CoordinatorStore, Deferred, Figures, Intervened, Page, Record, Resolve, State,
    StoreError, Terms, Verdict, VerdictOn,
};
use notifyx_model::{Gid, InstanceId, UserId};
use tokio_util::sync::CancellationToken;

use crate::{
    books,
    points::{Fault, Strike, after, before},
    world::{Blow, World, alive},
};

pub(crate) struct Desk {
    pub(crate) world: Arc<World>,
    /// The gateway's.
    pub(crate) dead: CancellationToken,
    pub(crate) store: Arc<dyn CoordinatorStore>,
}

impl Desk {
    async fn write<T: Send + 'static>(
        &self,
        point: &'static str,
        wrote: fn(&T) -> bool,
        call: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        let world = self.world.clone();
        let work = async move {
            let _writing = world.writing(point);
            let _turn = books::show_time(&world).await;
            let done = call.await?;
            if wrote(&done) {
                world.wrote(point);
            }
            Ok(done)
        };
        alive(&self.dead).await;
        let delay = match self.world.pass(before(point)) {
            Blow::None => Duration::ZERO,
            Blow::Error => return Err(StoreError::new("wished to fail before it took effect")),
            Blow::Delay(span) => span,
            Blow::Lost => std::future::pending().await,
        };
        alive(&self.dead).await;
        // It is on its way, and takes effect whatever becomes of who asked for it.
        let world = self.world.clone();
        let writing = tokio::spawn(async move {
            if delay > Duration::ZERO {
                world.later(delay).await;
            }
            work.await
        });
        let done = writing.await.expect("the store does not panic");
        if let Err(error) = &done {
            self.world.violated(format!("{point} failed by itself: {error:?}"));
        }
        alive(&self.dead).await;
        match self.world.pass(after(point)) {
            Blow::None => {}
            Blow::Error => return Err(StoreError::new("wished to fail after it took effect")),
            Blow::Delay(span) => self.world.later(span).await,
            Blow::Lost => std::future::pending().await,
        }
        alive(&self.dead).await;
        done
    }

    async fn read<T>(&self, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        alive(&self.dead).await;
        let done = {
            let _still = self.world.still.hold();
            let _turn = books::show_time(&self.world).await;
            call.await
        };
        alive(&self.dead).await;
        done
    }
}

/// Every durable write has its points: one that is added to the trait does not compile until it is here.
#[async_trait]
impl CoordinatorStore for Desk {
    async fn begin(&self, batch: &[Begin], terms: Terms) -> Result<Vec<Begun>, StoreError> {
        let (store, batch) = (self.store.clone(), batch.to_vec());
        self.write("coordinator.begin", |_| true, async move { store.begin(&batch, terms).await }).await
    }

    async fn decide(&self, batch: &[VerdictOn]) -> Result<Vec<Option<State>>, StoreError> {
        let (world, store, asked) = (self.world.clone(), self.store.clone(), batch.to_vec());
        let decide = async move {
            let before = books::before_decision(&world).await;
            let states = store.decide(&asked).await?;
            books::check_decision(&world, &asked, &before, &states).await;
            Ok(states)
        };
        let decided = self.write("coordinator.decide", |_| true, decide).await;
        let commits = batch.iter().find(|item| item.verdict == Verdict::Commit);
        if let Some(VerdictOn { gid, .. }) = commits
            && self.world.due(Strike { point: after("coordinator.decide"), fault: Fault::Forgotten })
        {
            books::forget_prepared(&self.world, *gid).await;
        }
        decided
    }

    async fn acknowledge(&self, batch: &[Acked]) -> Result<(), StoreError> {
        let (world, store, batch) = (self.world.clone(), self.store.clone(), batch.to_vec());
        let acknowledge = async move {
            store.acknowledge(&batch).await?;
            books::check_closed(&world).await;
            Ok(())
        };
        self.write("coordinator.acknowledge", |()| true, acknowledge).await
    }

    async fn defer(&self, batch: &[Deferred]) -> Result<(), StoreError> {
        let (store, batch) = (self.store.clone(), batch.to_vec());
        self.write("coordinator.defer", |()| true, async move { store.defer(&batch).await }).await
    }

    /// A point only where there is something to take over: the look before it is no write.
    async fn claim(&self, claim: Claim) -> Result<Vec<Record>, StoreError> {
        let store = self.store.clone();
        let due = self.read(async { Ok(books::overdue(&self.world).await) }).await?;
        if due == 0 {
            return Ok(Vec::new());
        }
        self.write("coordinator.claim", |taken| !taken.is_empty(), async move { store.claim(claim).await }).await
    }

    async fn release(&self, owner: InstanceId) -> Result<(), StoreError> {
        let store = self.store.clone();
        self.write("coordinator.release", |()| true, async move { store.release(owner).await }).await
    }

    async fn find(&self, gid: Gid) -> Result<Option<Record>, StoreError> {
        self.read(self.store.find(gid)).await
    }

    async fn find_by_key(&self, user_id: UserId, key: &str) -> Result<Option<Record>, StoreError> {
        self.read(self.store.find_by_key(user_id, key)).await
    }

    async fn list(&self, page: Page) -> Result<Vec<Record>, StoreError> {
        self.read(self.store.list(page)).await
    }

    async fn retry(&self, gid: Gid) -> Result<Intervened, StoreError> {
        let store = self.store.clone();
        self.write("coordinator.retry", |_| true, async move { store.retry(gid).await }).await
    }

    async fn resolve(&self, resolve: &Resolve) -> Result<Intervened, StoreError> {
        let (store, resolve) = (self.store.clone(), resolve.clone());
        self.write("coordinator.resolve", |_| true, async move { store.resolve(&resolve).await }).await
    }

    async fn trim(&self, keep: Duration, limit: u32) -> Result<u64, StoreError> {
        let store = self.store.clone();
        self.write("coordinator.trim", |_| true, async move { store.trim(keep, limit).await }).await
    }

    /// For metrics only, each second of each gateway: half of all that the databases would have to do here.
    async fn figures(&self) -> Result<Figures, StoreError> {
        alive(&self.dead).await;
        Ok(Figures::default())
    }
}

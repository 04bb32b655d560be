//! One transaction of many orders, who is told of it, and what becomes of orders that cannot be written together.

use std::sync::Arc;

use futures_util::{FutureExt, future::BoxFuture};
use notifyx_model::{Clock, Fault, Kind, Timestamp};
use tracing::warn;

use crate::{
    Error,
    event::NewEvent,
    feed::Feed,
    plan::Plan,
    store::{Change, Kept, Named, Store, answer},
};

/// A transaction of these orders; what became of each, in their order.
pub(super) type Act<I, O> = for<'a> fn(&'a Commits, &'a [I]) -> BoxFuture<'a, Result<Vec<O>, Error>>;

/// Writes, and then tells: the plan what waits and what does so no more, the feed what is in the log.
#[derive(Clone)]
pub(super) struct Commits {
    pub(super) store: Arc<dyn Store>,
    pub(super) clock: Clock,
    pub(super) plan: Arc<Plan>,
    pub(super) feed: Feed,
}

impl Commits {
    pub(super) fn schedule<'a>(&'a self, events: &'a [NewEvent]) -> BoxFuture<'a, Result<Vec<Kept>, Error>> {
        let commit = async {
            let kept = self.store.schedule(events).await?;
            self.plan.metrics.wrote("schedule", kept.len());
            self.plan.scheduled(&kept);
            Ok(kept)
        };
        commit.boxed()
    }

    pub(super) fn append<'a>(&'a self, events: &'a [NewEvent]) -> BoxFuture<'a, Result<Vec<Kept>, Error>> {
        let commit = async {
            let kept = self.store.append(events, self.clock.now()).await?;
            self.plan.metrics.wrote("append", kept.len());
            let new = kept.iter().filter(|kept| !kept.duplicate);
            self.feed.publish(new.map(|kept| kept.event.clone()).collect());
            Ok(kept)
        };
        commit.boxed()
    }

    pub(super) fn cancel<'a>(&'a self, events: &'a [Named]) -> BoxFuture<'a, Result<Vec<Change>, Error>> {
        let commit = async {
            let changes = self.store.cancel(events).await?;
            self.plan.metrics.wrote("cancel", changes.len());
            self.plan.cancelled(changes.iter().filter_map(|change| match change {
                Change::Done(event) => Some(event),
                Change::Moved(..) | Change::Fired(_) | Change::Unknown => None,
            }));
            Ok(changes)
        };
        commit.boxed()
    }

    pub(super) fn reschedule<'a>(
        &'a self,
        orders: &'a [(Named, Timestamp)],
    ) -> BoxFuture<'a, Result<Vec<Change>, Error>> {
        let commit = async {
            let changes = self.store.reschedule(orders).await?;
            self.plan.metrics.wrote("reschedule", changes.len());
            self.plan.moved(changes.iter().filter_map(|change| match change {
                Change::Moved(event, from) => Some((event, *from)),
                Change::Done(_) | Change::Fired(_) | Change::Unknown => None,
            }));
            Ok(changes)
        };
        commit.boxed()
    }

    /// One transaction. If it fails because of what is in it, it is halved until what fails stands alone.
    pub(super) async fn halved<I, O>(&self, act: Act<I, O>, all: &[I]) -> Vec<Result<O, Arc<Error>>> {
        let mut results = Vec::with_capacity(all.len());
        // What is still to be written, the next of it last.
        let mut rest = vec![all];
        while let Some(some) = rest.pop() {
            match answer(act(self, some)).await {
                Ok(written) => results.extend(written.into_iter().map(Ok)),
                Err(error) if error.kind() == Kind::Internal && some.len() > 1 => {
                    warn!("{} orders cannot be written together ({error}): trying them in halves", some.len());
                    let (first, second) = some.split_at(some.len() / 2);
                    rest.extend([second, first]);
                }
                Err(error) => {
                    let error = Arc::new(error);
                    results.extend(some.iter().map(|_| Err(error.clone())));
                }
            }
        }
        results
    }
}

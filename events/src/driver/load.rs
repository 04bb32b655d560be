//! Loading: the windows are filled from the store, the nearest first; and what nobody told is found there.

use notifyx_chassis::reply;
use notifyx_model::{Category, Timestamp};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{Again, Driver, LOOK, answer};
use crate::{Error, queue::Refill};

/// Events per look into the store, and categories: a few milliseconds.
const PAGE: u32 = 1_000;

/// Pages that are read in order of time over all categories. What is behind them is read category by category.
const PAGES_MAX: usize = 10;

/// How far a look looks: over the next one.
const AHEAD: std::time::Duration = LOOK.saturating_mul(2);

impl Driver {
    pub(super) async fn load(&self, over: &CancellationToken) {
        let (mut again, mut knows_all, mut next_look) = (Again::default(), false, Instant::now() + LOOK);
        while !over.is_cancelled() {
            let done = if !knows_all {
                let all = Timestamp::from_micros(i64::MAX);
                self.find(all).await.map(|()| knows_all = true)
            } else if Instant::now() >= next_look {
                next_look = Instant::now() + LOOK;
                self.look().await
            } else if let Some(refill) = self.plan.refill() {
                self.refill(&refill).await
            } else {
                tokio::select! {
                    () = over.cancelled() => {}
                    () = self.plan.calls.hungry.notified() => {}
                    () = self.plan.calls.look.notified() => next_look = Instant::now(),
                    () = sleep_until(next_look) => {}
                }
                continue;
            };
            match done {
                Ok(()) => again = Again::default(),
                Err(error) => {
                    warn!(error = %reply::chain(&error), "what waits cannot be read yet: {error}");
                    again.rest(over).await;
                }
            }
        }
    }

    /// Events of which only the store knows, if they come before all that is known here.
    async fn look(&self) -> Result<(), Error> {
        let now = self.clock.now();
        self.plan.sweep(now);
        // Before and after: what fires or is scheduled in between is no news.
        let before = self.plan.known();
        let Some(at) = answer(self.store.earliest()).await? else { return Ok(()) };
        let known = [before, self.plan.known()];
        if known.into_iter().flatten().all(|known| at < known) {
            self.find(at.max(now) + AHEAD).await?;
        }
        Ok(())
    }

    /// All that waits until then.
    async fn find(&self, until: Timestamp) -> Result<(), Error> {
        let mut after = None;
        for _ in 0..PAGES_MAX {
            let page = answer(self.store.due(until, after, PAGE)).await?;
            self.plan.found(&page);
            if page.len() < PAGE as usize {
                return Ok(());
            }
            after = page.last().map(|due| due.slot);
        }
        let mut named: Option<Category> = None;
        loop {
            let page = answer(self.store.backlogs(named.as_ref(), PAGE)).await?;
            self.plan.open(page.iter().map(|head| &head.category), after);
            match page.last() {
                Some(head) if page.len() == PAGE as usize => named = Some(head.category.clone()),
                _ => return Ok(()),
            }
        }
    }

    async fn refill(&self, refill: &Refill) -> Result<(), Error> {
        let limit = u32::try_from(refill.page.limit).unwrap_or(u32::MAX);
        match answer(self.store.refill(&refill.category, refill.page.after, limit)).await {
            Ok(read) => {
                self.plan.refilled(refill, &read);
                Ok(())
            }
            Err(error) => {
                self.plan.refill_failed(refill);
                Err(error)
            }
        }
    }
}

//! Loading: the windows are filled from the store, the nearest first; and what nobody told is found there.

use notifyx_chassis::reply;
use notifyx_model::{Category, Timestamp};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::warn;

use super::{Again, Driver, LOOK, answer};
use crate::{Error, queue::Refill, store::Slot};

/// Events per look into the store, and categories: a few milliseconds.
const PAGE: u32 = 1_000;

/// Of what waits at a take-over, this much is read in order of time in any case…
const PAGES_MIN: usize = 10;

/// … and the rest as long as a page has so many for which there is room: beyond that it is events of windows that are full.
const TAKEN_MIN: usize = 20;

/// Pages of one look: more than fires in the time that it looks ahead.
const PAGES_LOOK: usize = 40;

/// How far a look looks: over the next one.
const AHEAD: std::time::Duration = LOOK.saturating_mul(2);

/// Windows that lack a page: more are not filled before the next look, and what comes until then is read in order of time.
const HUNGRY_MAX: usize = 100;

/// The walk over all that waits, at a take-over, in order of time.
#[derive(Debug, Default)]
pub(super) struct Walk {
    after: Option<Slot>,
    pages: usize,
}

impl Driver {
    pub(super) async fn load(&self, over: &CancellationToken) {
        let (mut again, mut walk, mut next_look) = (Again::default(), Some(Walk::default()), Instant::now() + LOOK);
        while !over.is_cancelled() {
            let done = if Instant::now() >= next_look {
                next_look = Instant::now() + LOOK;
                self.look().await
            } else if let Some(at) = walk.as_mut().filter(|walk| self.is_next(walk)) {
                self.walk(at).await.map(|goes_on| walk = walk.take().filter(|_| goes_on))
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

    /// Whether no window lacks something that comes before where the walk stands.
    fn is_next(&self, walk: &Walk) -> bool {
        self.plan.hunger().is_none_or(|(edge, _)| walk.after.is_none_or(|after| after < edge))
    }

    /// Its next page; whether it goes on. Where it ends early, windows are filled from there on category by category.
    pub(super) async fn walk(&self, walk: &mut Walk) -> Result<bool, Error> {
        let all = Timestamp::from_micros(i64::MAX);
        let page = answer(self.store.due(all, walk.after, PAGE)).await?;
        let taken = self.plan.found(&page);
        if page.len() < PAGE as usize {
            return Ok(false);
        }
        walk.after = page.last().map(|due| due.slot);
        walk.pages += 1;
        if walk.pages < PAGES_MIN || taken >= TAKEN_MIN {
            return Ok(true);
        }
        self.open(walk.after).await.map(|()| false)
    }

    /// In whatever category something waits, there may be more from a slot on.
    async fn open(&self, from: Option<Slot>) -> Result<(), Error> {
        let mut named: Option<Category> = None;
        loop {
            let page = answer(self.store.backlogs(named.as_ref(), PAGE)).await?;
            self.plan.open(page.iter().map(|head| &head.category), from);
            match page.last() {
                Some(head) if page.len() == PAGE as usize => named = Some(head.category.clone()),
                _ => return Ok(()),
            }
        }
    }

    /// Events of which only the store knows, if they come before all that is known here; and, if more windows are hungry than are filled
    /// in time, what comes next of all.
    async fn look(&self) -> Result<(), Error> {
        let now = self.clock.now();
        self.plan.sweep(now);
        // Before and after: what fires or is scheduled in between is no news.
        let before = self.plan.known();
        let Some(at) = answer(self.store.earliest()).await? else { return Ok(()) };
        let known = [before, self.plan.known()];
        let is_news = known.into_iter().flatten().all(|known| at < known);
        let hunger = self.plan.hunger().filter(|(edge, windows)| edge.at <= now + AHEAD && *windows > HUNGRY_MAX);
        if !is_news && hunger.is_none() {
            return Ok(());
        }
        self.plan.begin_look();
        let found = self.find(at.max(now) + AHEAD).await;
        self.plan.end_look();
        found
    }

    /// What waits until then, from the beginning.
    async fn find(&self, until: Timestamp) -> Result<(), Error> {
        let mut after = None;
        for _ in 0..PAGES_LOOK {
            let page = answer(self.store.due(until, after, PAGE)).await?;
            let Some(last) = page.last() else { break };
            self.plan.looked(&page, last.slot);
            if page.len() < PAGE as usize {
                break;
            }
            after = Some(last.slot);
        }
        Ok(())
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

//! The numbered log of sessions that were ended: how a logout reaches every cache and open socket within a second.
//!
//! The store gives the numbers; [`Revocations`] follows it and keeps the tail in memory. Other services follow by
//! long-poll. Who cannot be told that nothing is new is told that the log cannot be followed: silence is not "none".

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use notifyx_model::{TokenHash, UserId};
use notifyx_wire::rest::auth::{Revocation, Revocations as Page};
use tokio::{
    sync::watch,
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{error::Error, metrics::Metrics, store::Store};

/// Revocations in one answer, as the wire says.
const PAGE_MAX: u32 = 1_000;

/// Kept in memory, about 60 bytes each: what a mass logout ends while a slow follower is away for a moment.
const TAIL_MAX: usize = 10_000;

/// The longest that a follower may wait for news.
const WAIT_MAX: Duration = Duration::from_secs(30);

/// A log that was not read for this long may hide a logout that is to be known everywhere by now.
const BEHIND_AFTER: Duration = Duration::from_secs(1);

/// Twice the usual distance between two looks: with it, one that hangs still leaves time for another within the second.
const LOOK_TIMEOUT: Duration = Duration::from_millis(500);

/// What a cache has to do.
#[derive(Clone, Copy, Debug)]
pub(crate) enum News<'a> {
    Ended(&'a Revocation),
    /// Some are unknown: forget everything.
    Gap,
}

/// What the log says of a session since a mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Since {
    Untouched,
    Ended,
    /// The tail does not reach back that far.
    Unknown,
}

#[derive(Debug)]
pub(crate) struct Revocations {
    store: Arc<dyn Store>,
    tail: Mutex<Tail>,
    /// The head, for those who wait; touched also when a look failed.
    head: watch::Sender<u64>,
    metrics: Metrics,
}

/// The newest revocations: numbers `floor + 1` to `head`, all of them.
#[derive(Debug)]
struct Tail {
    recent: VecDeque<Revocation>,
    floor: u64,
    head: u64,
    /// The log was complete up to `head` at this time. Not the wall clock, which may be set.
    complete_at: Instant,
}

impl Revocations {
    /// Begins at the head: what was revoked before concerns no cache that is still empty.
    pub(crate) async fn open(store: Arc<dyn Store>, metrics: Metrics) -> Result<Self, Error> {
        let complete_at = Instant::now();
        let head = store.revocations(u64::MAX, 1).await?.head;
        let tail = Tail { recent: VecDeque::new(), floor: head, head, complete_at };
        Ok(Self { store, tail: Mutex::new(tail), head: watch::Sender::new(head), metrics })
    }

    pub(crate) fn head(&self) -> u64 {
        *self.head.borrow()
    }

    /// A point in the log to ask [`Self::since`] about later; none while the log is behind.
    pub(crate) fn mark(&self) -> Option<u64> {
        let tail = self.tail();
        (tail.complete_at.elapsed() <= BEHIND_AFTER).then_some(tail.head)
    }

    /// What became of a session after `mark`.
    pub(crate) fn since(&self, mark: u64, token_hash: TokenHash, user_id: UserId) -> Since {
        let tail = self.tail();
        let Some(mut new) = tail.after(mark) else { return Since::Unknown };
        let ends = |r: &Revocation| r.token_hash.map_or(r.user_id == user_id, |hash| hash == token_hash);
        if new.any(ends) { Since::Ended } else { Since::Untouched }
    }

    /// Reads what is new and hands it to `tell`, each number once, in order. When this returns, all that was committed
    /// before it was called has been told.
    pub(crate) async fn advance(&self, tell: impl Fn(News<'_>)) -> Result<(), Error> {
        loop {
            let (from, begun) = (self.tail().head, Instant::now());
            let page = self.store.revocations(from, PAGE_MAX).await?;
            let mut tail = self.tail();
            let complete = tail.take(from, &page, begun, |news| {
                if matches!(news, News::Gap) {
                    self.metrics.revocation_gaps.inc();
                }
                tell(news);
            });
            let head = tail.head;
            drop(tail);
            self.metrics.revocation_head.set(i64::try_from(head).unwrap_or(i64::MAX));
            self.head.send_if_modified(|known| std::mem::replace(known, head) != head);
            if complete {
                return Ok(());
            }
        }
    }

    /// Advances every `each` until told to stop.
    pub(crate) async fn follow(&self, each: Duration, stop: CancellationToken, tell: impl Fn(News<'_>)) {
        let mut failing = false;
        while stop.run_until_cancelled(tokio::time::sleep(each)).await.is_some() {
            let looked = timeout(LOOK_TIMEOUT, self.advance(&tell)).await.unwrap_or(Err(Error::Behind));
            if let Err(error) = &looked {
                self.metrics.follow_failures.inc();
                // Those who wait look whether the log is behind by now.
                self.head.send_modify(|_| ());
                if !failing {
                    let reason = notifyx_chassis::reply::chain(error);
                    tracing::warn!(reason, "revocations cannot be read: tokens are checked one by one");
                }
            } else if failing {
                tracing::info!("revocations are read again");
            }
            failing = looked.is_err();
        }
    }

    /// What follows `after`; waits up to `wait` where nothing does yet. `None` asks for the head.
    pub(crate) async fn page(
        &self,
        after: Option<u64>,
        wait: Duration,
        stopping: &CancellationToken,
        tell: impl Fn(News<'_>),
    ) -> Result<Page, Error> {
        let Some(after) = after else {
            let head = self.mark().ok_or(Error::Behind)?;
            return Ok(Page { head, revoked: Vec::new() });
        };
        if after > self.head() {
            // Another instance has told of more than this one has seen yet.
            self.advance(tell).await?;
        }
        let deadline = Instant::now() + wait.min(WAIT_MAX);
        let mut head = self.head.subscribe();
        let mut over = false;
        loop {
            let known = *head.borrow_and_update();
            if self.mark().is_none() {
                return Err(Error::Behind);
            }
            if known != after || over {
                return self.read(after).await;
            }
            let changed = stopping.run_until_cancelled(timeout_at(deadline, head.changed())).await;
            over = !matches!(changed, Some(Ok(Ok(()))));
        }
    }

    /// From memory, or from the store where memory does not reach back that far.
    async fn read(&self, after: u64) -> Result<Page, Error> {
        {
            let tail = self.tail();
            if let Some(new) = tail.after(after) {
                let revoked = new.take(PAGE_MAX as usize).cloned().collect();
                return Ok(Page { head: tail.head, revoked });
            }
        }
        Ok(self.store.revocations(after, PAGE_MAX).await?)
    }

    fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tail {
    /// What is known to follow `after`; `None` where not all of it is.
    fn after(&self, after: u64) -> Option<impl Iterator<Item = &Revocation>> {
        let skipped = usize::try_from(after.checked_sub(self.floor)?).ok()?;
        (after <= self.head).then(|| self.recent.range(skipped..))
    }

    /// Takes in what was read after `from` at `begun`; another reader may have been quicker. True if nothing is left.
    fn take(&mut self, from: u64, page: &Page, begun: Instant, tell: impl Fn(News<'_>)) -> bool {
        if self.head == from && !page.follows(from) {
            self.recent.clear();
            (self.floor, self.head) = (page.head, page.head);
            tell(News::Gap);
        }
        for revocation in &page.revoked {
            if revocation.seq == self.head + 1 {
                self.head = revocation.seq;
                self.recent.push_back(revocation.clone());
                if self.recent.len() > TAIL_MAX {
                    self.recent.pop_front();
                    self.floor += 1;
                }
                tell(News::Ended(revocation));
            }
        }
        let complete = self.head >= page.head;
        if complete {
            self.complete_at = self.complete_at.max(begun);
        }
        complete
    }
}

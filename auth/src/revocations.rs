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

#[cfg(test)]
mod tests {
    use notifyx_database::testing::{self, TestDatabase};
    use notifyx_model::{Clock, Email};
    use notifyx_wire::rest::auth::User;

    use super::*;
    use crate::store::{self, Account, MIGRATIONS, Session};

    impl Revocations {
        /// As if no look had come through for a while.
        pub(crate) fn fall_behind(&self) {
            self.tail().complete_at -= BEHIND_AFTER * 2;
        }

        /// As if a look had just come through: a machine that is busy with other tests may take its second for a line.
        pub(crate) fn refresh(&self) {
            self.tail().complete_at = Instant::now();
        }
    }

    /// A log in a database of its own, and a user whose sessions can end.
    struct Kept {
        store: Arc<dyn Store>,
        log: Arc<Revocations>,
        user: UserId,
        clock: Clock,
        _database: TestDatabase,
    }

    impl Kept {
        async fn open() -> Self {
            let (database, clock) = (testing::sqlite(&MIGRATIONS).await, Clock::system());
            let store = store::of(&database.database);
            let user =
                User { id: UserId::new(&clock), email: Email::parse("ann@x.org").unwrap(), created_at: clock.now() };
            let id = user.id;
            assert!(store.add_account(&Account { user, password_hash: String::new() }).await.unwrap());
            let metrics = Metrics::new(&prometheus::Registry::new());
            let log = Arc::new(Revocations::open(store.clone(), metrics).await.unwrap());
            Self { store, log, user: id, clock, _database: database }
        }

        /// Ends session `n`, as another instance would: only the store knows.
        async fn end(&self, n: u8) {
            let (token_hash, now) = (TokenHash([n; 32]), self.clock.now());
            let session = Session { token_hash, user_id: self.user, created_at: now, expires_at: now };
            self.store.open_session(&session, 100).await.unwrap();
            assert!(self.store.end_session(token_hash, now).await.unwrap());
        }

        async fn page(&self, after: Option<u64>, wait: Duration) -> Result<Page, Error> {
            self.log.refresh();
            self.log.page(after, wait, &CancellationToken::new(), |_| ()).await
        }
    }

    fn numbers(page: &Page) -> (u64, Vec<u64>) {
        (page.head, page.revoked.iter().map(|r| r.seq).collect())
    }

    #[tokio::test]
    async fn each_revocation_is_told_once_and_in_order() {
        let kept = Kept::open().await;
        let told = Mutex::new(Vec::new());
        let tell = |news: News<'_>| match news {
            News::Ended(r) => told.lock().unwrap().push(r.seq),
            News::Gap => panic!("nothing is missing"),
        };
        for n in 0..5 {
            kept.end(n).await;
            let (one, other) = tokio::join!(kept.log.advance(tell), kept.log.advance(tell));
            one.and(other).unwrap();
        }
        assert_eq!(*told.lock().unwrap(), [1, 2, 3, 4, 5]);
        assert_eq!(kept.log.head(), 5);
    }

    #[tokio::test]
    async fn a_session_that_ended_since_the_mark_is_known() {
        let kept = Kept::open().await;
        let mark = kept.log.head();
        kept.end(1).await;
        assert_eq!(kept.log.since(mark, TokenHash([1; 32]), kept.user), Since::Untouched, "not heard of yet");
        kept.log.advance(|_| ()).await.unwrap();
        assert_eq!(kept.log.since(mark, TokenHash([1; 32]), kept.user), Since::Ended);
        assert_eq!(kept.log.since(mark, TokenHash([2; 32]), kept.user), Since::Untouched);
        assert_eq!(kept.log.since(mark + 1, TokenHash([1; 32]), kept.user), Since::Untouched);
        assert_eq!(kept.log.since(mark + 2, TokenHash([1; 32]), kept.user), Since::Unknown);
    }

    #[tokio::test]
    async fn the_end_of_all_sessions_of_a_user_ends_each() {
        let kept = Kept::open().await;
        let all = Revocation { seq: 1, user_id: kept.user, token_hash: None };
        assert!(kept.log.tail().take(0, &Page { head: 1, revoked: vec![all] }, Instant::now(), |_| ()));
        assert_eq!(kept.log.since(0, TokenHash([7; 32]), kept.user), Since::Ended);
        assert_eq!(kept.log.since(0, TokenHash([7; 32]), UserId::new(&kept.clock)), Since::Untouched);
    }

    #[tokio::test]
    async fn a_gap_is_told_and_the_log_goes_on_behind_it() {
        let kept = Kept::open().await;
        for n in 0..4 {
            kept.end(n).await;
        }
        kept.store.trim_revocations(kept.clock.now() + Duration::from_secs(1), 2).await.unwrap();
        let gaps = Mutex::new(0);
        let tell = |news: News<'_>| {
            assert!(matches!(news, News::Gap));
            *gaps.lock().unwrap() += 1;
        };
        kept.log.advance(tell).await.unwrap();
        assert_eq!((kept.log.head(), *gaps.lock().unwrap()), (4, 1));
        assert_eq!(kept.log.since(0, TokenHash([9; 32]), kept.user), Since::Unknown);
        // Whoever follows from elsewhere sees the gap as well.
        let page = kept.page(Some(1), Duration::ZERO).await.unwrap();
        assert_eq!((numbers(&page), page.follows(1), page.follows(2)), ((4, vec![3, 4]), false, true));
    }

    #[tokio::test]
    async fn a_waiting_follower_hears_of_a_revocation() {
        let kept = Kept::open().await;
        assert_eq!(numbers(&kept.page(None, Duration::ZERO).await.unwrap()), (0, vec![]));
        let stop = CancellationToken::new();
        let followed = tokio::spawn({
            let (log, stop) = (kept.log.clone(), stop.clone());
            async move { log.follow(Duration::from_millis(10), stop, |_| ()).await }
        });
        let wait = kept.page(Some(0), Duration::from_secs(20));
        let (page, ()) = tokio::join!(wait, kept.end(1));
        assert_eq!(numbers(&page.unwrap()), (1, vec![1]));
        stop.cancel();
        followed.await.unwrap();
        assert_eq!(numbers(&kept.page(Some(1), Duration::ZERO).await.unwrap()), (1, vec![]), "the wait ends");
    }

    #[tokio::test]
    async fn a_follower_that_knows_more_is_caught_up_with() {
        let kept = Kept::open().await;
        kept.end(1).await;
        kept.end(2).await;
        let page = kept.page(Some(1), Duration::ZERO).await.unwrap();
        assert_eq!(numbers(&page), (2, vec![2]), "another instance has told it of 1");
        let page = kept.page(Some(9), Duration::from_secs(20)).await.unwrap();
        assert_eq!((numbers(&page), page.follows(9)), ((2, vec![]), false), "the database was put back");
    }

    #[tokio::test]
    async fn a_log_that_is_behind_says_so() {
        let kept = Kept::open().await;
        kept.log.fall_behind();
        assert_eq!(kept.log.mark(), None);
        for after in [None, Some(0)] {
            let page = kept.log.page(after, WAIT_MAX, &CancellationToken::new(), |_| ()).await;
            assert!(matches!(page, Err(Error::Behind)));
        }
        kept.log.advance(|_| ()).await.unwrap();
        assert_eq!(kept.log.mark(), Some(0));
    }

    #[tokio::test]
    async fn a_stop_ends_the_wait() {
        let kept = Kept::open().await;
        let stopping = CancellationToken::new();
        stopping.cancel();
        let page = kept.log.page(Some(0), WAIT_MAX, &stopping, |_| ()).await.unwrap();
        assert_eq!(numbers(&page), (0, vec![]));
    }

    #[tokio::test]
    async fn memory_is_bounded() {
        let kept = Kept::open().await;
        let user_id = kept.user;
        let mut log = kept.log.tail();
        let count = TAIL_MAX as u64 + 5;
        let revoked = (1..=count).map(|seq| Revocation { seq, user_id, token_hash: None }).collect();
        log.take(0, &Page { head: count, revoked }, Instant::now(), |_| ());
        assert_eq!((log.recent.len(), log.floor, log.head), (TAIL_MAX, 5, count));
        assert!(log.after(4).is_none());
        assert_eq!(log.after(5).unwrap().next().unwrap().seq, 6);
    }
}

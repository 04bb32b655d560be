//! The hub: from a node's committed notifications and fired events to its sessions.
//!
//! [`Hub`] is what other threads hold: one bounded inbox per worker thread, crossed once per message whatever the number of
//! subscribers. A [`Worker`] is a thread's own half: streams, members, people. What a member gets is written by its [`Audience`] and
//! sent through its [`Outlet`]; the hub knows neither sockets nor frames' insides.

mod counted;
mod following;
mod metrics;
mod outlet;
mod run;
mod stream;
mod watch;
mod worker;

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use notifyx_model::{TopicName, UserId};
use notifyx_wire::rest::auth::Revocation;
use tokio::sync::{Notify, mpsc, watch as counts};

pub(crate) use counted::{Counted, Form};
pub(crate) use following::{Asked, FeedStopped, Following, Wish, Wishes};
pub(crate) use metrics::{FeedMetrics, Metrics};
pub(crate) use outlet::{Audience, Ending, Joined, Listener, Outlet};
pub(crate) use run::{Dispatch, EventFrame, Run};
pub(crate) use stream::StreamName;
pub(crate) use watch::{Viewing, Watch};
pub(crate) use worker::{Connection, NotLive, Seat, Worker};

/// Bursts that may wait for one worker thread. A full inbox holds up the feed, and through it the bus, which may lose
/// hints: the store has them.
const INBOX_MAX: usize = 256;

/// Which worker thread; never used again for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct WorkerId(pub(crate) usize);

/// What crosses to a worker thread.
#[derive(Clone, Debug)]
pub(crate) enum ToWorker {
    /// Of one stream, in order; what is ready together crosses together.
    Dispatch {
        stream: StreamName,
        burst: Arc<[Dispatch]>,
    },
    /// What was delivered of this stream is void: who is in it comes back, and is told where it stands.
    BeginAnew(StreamName),
    Revoked(Revocation),
    Unsubscribed {
        user: UserId,
        topic: TopicName,
    },
    Drain,
}

/// The way to one worker thread.
struct Line {
    inbox: mpsc::Sender<ToWorker>,
    /// People with an open user channel there whose unread count may have changed. A set: many changes are one.
    changed: Mutex<HashSet<UserId>>,
    wake: Notify,
}

/// All worker threads of one gateway. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Hub(Arc<Shared>);

struct Shared {
    lines: RwLock<Vec<Arc<Line>>>,
    /// On how many worker threads a person's user channel is open.
    watched: Mutex<HashMap<UserId, usize>>,
    sockets: counts::Sender<usize>,
    draining: AtomicBool,
    /// How often all sockets were made to prove themselves anew.
    doubts: AtomicU64,
    metrics: Metrics,
}

impl Hub {
    pub(crate) fn new(metrics: Metrics) -> Self {
        Self(Arc::new(Shared {
            lines: RwLock::default(),
            watched: Mutex::default(),
            sockets: counts::Sender::new(0),
            draining: AtomicBool::new(false),
            doubts: AtomicU64::new(0),
            metrics,
        }))
    }

    /// Ends the sockets that were opened with this session, or all of the user's. The close code is 3003.
    pub(crate) async fn revoke(&self, revocation: &Revocation) {
        self.tell_all(&ToWorker::Revoked(revocation.clone())).await;
    }

    /// Ends all sockets with 1012 and admits them anew: each has to prove itself again, also who is shaking hands now.
    pub(crate) async fn reconnect_all(&self) {
        self.doubt();
        self.tell_all(&ToWorker::Drain).await;
    }

    /// Closes the user's channels of a topic. Who joins after this has returned is not concerned.
    pub(crate) async fn unsubscribed(&self, user: UserId, topic: &TopicName) {
        self.tell_all(&ToWorker::Unsubscribed { user, topic: topic.clone() }).await;
    }

    /// Something was seen, subscribed or unsubscribed: the person's open user channels get a new `unread`, coalesced.
    pub(crate) fn unread_changed(&self, user: UserId) {
        if !lock(&self.0.watched).contains_key(&user) {
            return;
        }
        for line in self.lines() {
            lock(&line.changed).insert(user);
            line.wake.notify_one();
        }
    }

    /// Refuses new sockets and ends all with 1012; answers how many were left when the time was over.
    pub(crate) async fn drain(&self, deadline: Duration) -> usize {
        self.0.draining.store(true, Ordering::SeqCst);
        let mut sockets = self.0.sockets.subscribe();
        let drained = async {
            self.tell_all(&ToWorker::Drain).await;
            // The sender lives as long as `self`: only the deadline can end this early.
            let _ = sockets.wait_for(|count| *count == 0).await;
        };
        let _ = tokio::time::timeout(deadline, drained).await;
        self.sockets()
    }

    /// Bursts that wait for worker threads, for a gauge.
    pub(crate) fn bursts_waiting(&self) -> usize {
        self.lines().iter().map(|line| line.inbox.max_capacity() - line.inbox.capacity()).sum()
    }

    /// Open sockets.
    pub(crate) fn sockets(&self) -> usize {
        *self.0.sockets.borrow()
    }

    #[cfg(test)]
    pub(crate) fn counted(&self) -> counts::Receiver<usize> {
        self.0.sockets.subscribe()
    }

    pub(crate) fn metrics(&self) -> &Metrics {
        &self.0.metrics
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::SeqCst)
    }

    /// Counts a socket in, unless the node has as many as it may.
    pub(crate) fn admit(&self, sockets_max: usize) -> Option<Admission> {
        let admitted = self.0.sockets.send_if_modified(|count| {
            let free = *count < sockets_max;
            *count += usize::from(free);
            free
        });
        admitted.then(|| {
            self.0.metrics.sockets.inc();
            Admission { hub: self.clone(), doubts: self.doubts() }
        })
    }

    /// Revocations may be lost: no handshake that is under way is good any more.
    fn doubt(&self) {
        self.0.doubts.fetch_add(1, Ordering::SeqCst);
    }

    fn doubts(&self) -> u64 {
        self.0.doubts.load(Ordering::SeqCst)
    }

    /// Opens a line to a worker thread.
    pub(crate) fn attach(&self) -> WorkerLine {
        let (sender, inbox) = mpsc::channel(INBOX_MAX);
        let line = Arc::new(Line { inbox: sender, changed: Mutex::default(), wake: Notify::new() });
        let mut lines = self.0.lines.write().unwrap_or_else(PoisonError::into_inner);
        lines.push(line.clone());
        WorkerLine { id: WorkerId(lines.len() - 1), inbox, line }
    }

    /// Waits while the worker's inbox is full. False where the worker is gone.
    pub(crate) async fn tell(&self, worker: WorkerId, message: ToWorker) -> bool {
        let line = self.0.lines.read().unwrap_or_else(PoisonError::into_inner).get(worker.0).cloned();
        match line {
            Some(line) => line.inbox.send(message).await.is_ok(),
            None => false,
        }
    }

    async fn tell_all(&self, message: &ToWorker) {
        for line in self.lines() {
            // A worker that is gone has no sockets left.
            let _ = line.inbox.send(message.clone()).await;
        }
    }

    fn lines(&self) -> Vec<Arc<Line>> {
        self.0.lines.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn watch_begins(&self, user: UserId) {
        *lock(&self.0.watched).entry(user).or_default() += 1;
    }

    fn watch_ends(&self, user: UserId) {
        let mut watched = lock(&self.0.watched);
        if let Some(count) = watched.get_mut(&user) {
            *count -= 1;
            if *count == 0 {
                watched.remove(&user);
            }
        }
    }
}

/// What these locks guard is whole at every step: a panic elsewhere leaves nothing half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hub").field("sockets", &self.sockets()).finish_non_exhaustive()
    }
}

/// A worker thread's end of its line.
pub(crate) struct WorkerLine {
    pub(crate) id: WorkerId,
    inbox: mpsc::Receiver<ToWorker>,
    line: Arc<Line>,
}

impl WorkerLine {
    /// Moves what waits to `taken`, at most `max`; 0 when the hub is gone.
    pub(crate) async fn take(&mut self, taken: &mut Vec<ToWorker>, max: usize) -> usize {
        self.inbox.recv_many(taken, max).await
    }
}

/// A socket that counts, from before its credentials are checked.
#[derive(Debug)]
pub(crate) struct Admission {
    hub: Hub,
    /// As many as there had been then.
    doubts: u64,
}

impl Admission {
    /// Its credentials were found good before all were doubted.
    fn is_doubted(&self) -> bool {
        self.doubts != self.hub.doubts()
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.hub.0.metrics.sockets.dec();
        self.hub.0.sockets.send_modify(|count| *count -= 1);
    }
}

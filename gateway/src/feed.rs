//! The feeds: what was committed to this node's streams, in order, once, encoded once.
//!
//! One task for topics and one for categories of events, of the same making: what differs is their [`Source`]. Hints come from the bus or
//! from the events service, disordered, doubled or not at all; the store is the truth. What arrives early waits [`GAP_WAIT`], then the gap
//! is read. Each second one look at the heads of all followed streams finds what no hint told of, whoever committed it, and
//! what is no longer there: a stream whose store was put back to an older state begins anew, for all who are in it. Every worker
//! thread that wants a stream gets the same frames in the same order.

mod categories;
mod gaps;
mod heads;
mod order;
mod source;
#[cfg(test)]
mod tests;
mod topics;

use std::{
    collections::{BTreeSet, HashMap, hash_map::Entry},
    panic::AssertUnwindSafe,
    sync::Arc,
    time::Duration,
};

use futures_util::FutureExt;
use tokio::{
    runtime::Handle,
    sync::mpsc,
    task::{self, JoinHandle, JoinSet},
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use crate::{
    hub::{Asked, Dispatch, FeedMetrics, Following, Hub, ToWorker, Wish, WorkerId},
    platform::Platform,
};

use gaps::{Lack, Read};
use heads::Looked;
use order::{Arrival, Order};

pub(crate) use categories::Categories;
pub(crate) use source::{Hint, Hints, Item, Page, Source};
pub(crate) use topics::Topics;

/// How long a hint may be behind its successor. Two instances of a service tell of what they commit within a few milliseconds of each
/// other.
const GAP_WAIT: Duration = Duration::from_millis(100);

/// Between looks at the heads: what neither hint nor gap tells of is this late at most, and a node costs one call a second.
const HEADS_EVERY: Duration = Duration::from_secs(1);

/// Hints taken at once, and messages that cross to a worker thread together: a group commit tells of its publishes one by
/// one, and what goes out together costs a socket one write.
const BURST_MAX: usize = 64;

/// A burst holds no more than this, or one larger frame.
const BURST_BYTES_MAX: usize = 64 * 1024;

/// The feeds of one gateway.
pub(crate) struct Feeds {
    tasks: [JoinHandle<()>; 2],
    stop: CancellationToken,
}

impl Feeds {
    /// Starts them on the shared runtime; and the workers' lines to them.
    pub(crate) fn start(
        hub: &Hub,
        platform: &Arc<dyn Platform>,
        topics: impl Hints<Topics>,
        categories: impl Hints<Categories>,
        runtime: &Handle,
    ) -> (Self, Following) {
        let (following, Asked { topics: topics_asked, categories: categories_asked }) = Following::new();
        let stop = CancellationToken::new();
        let topics = run(hub.clone(), platform.clone(), topics_asked, topics, stop.clone());
        let categories = run(hub.clone(), platform.clone(), categories_asked, categories, stop.clone());
        (Self { tasks: [runtime.spawn(topics), runtime.spawn(categories)], stop }, following)
    }

    /// The sockets are gone.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        for task in self.tasks {
            // It ends within a step, and catches what breaks it off.
            let _ = task.await;
        }
    }
}

/// A feed's task. It ends when `stop` is cancelled or nobody wishes any more.
async fn run<S: Source, H: Hints<S>>(
    hub: Hub,
    platform: Arc<dyn Platform>,
    mut wishes: mpsc::Receiver<Wish<S::Name, S::Id>>,
    hints: H,
    stop: CancellationToken,
) {
    let mut feed = Feed::<S, H> {
        metrics: S::metrics(hub.metrics()).clone(),
        hub,
        platform,
        hints,
        streams: HashMap::new(),
        due: BTreeSet::new(),
        reads: JoinSet::new(),
        reading: HashMap::new(),
        looks: JoinSet::new(),
        blind: false,
    };
    while AssertUnwindSafe(serve(&mut feed, &mut wishes, &stop)).catch_unwind().await.is_err() {
        tracing::error!("the feed of {} broke off and begins again, and so do all its streams", S::KIND);
        feed.begin_all_anew().await;
    }
}

async fn serve<S: Source, H: Hints<S>>(
    feed: &mut Feed<S, H>,
    wishes: &mut mpsc::Receiver<Wish<S::Name, S::Id>>,
    stop: &CancellationToken,
) {
    let mut look = tokio::time::interval(HEADS_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut hinted = true;
    loop {
        let due = feed.due.first().map(|(at, _)| *at);
        tokio::select! {
            () = stop.cancelled() => return,
            wish = wishes.recv() => match wish {
                Some(wish) => feed.grant(wish).await,
                None => return,
            },
            hint = feed.hints.next(), if hinted => match hint {
                Some(hint) => feed.take_hints(hint).await,
                None => hinted = false,
            },
            Some(read) = feed.reads.join_next_with_id(), if !feed.reads.is_empty() => feed.read(read).await,
            Some(looked) = feed.looks.join_next(), if !feed.looks.is_empty() => {
                // One that panicked is a bug of the platform. The next one finds what it would have found.
                if let Ok(looked) = looked {
                    feed.looked(looked).await;
                }
            }
            () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => feed.read_due(),
            _ = look.tick() => feed.look(),
        }
    }
}

struct Feed<S: Source, H> {
    hub: Hub,
    platform: Arc<dyn Platform>,
    hints: H,
    streams: HashMap<S::Name, Followed<S>>,
    /// When to read what is lacking, per stream.
    due: BTreeSet<(Instant, S::Name)>,
    reads: JoinSet<Read<S>>,
    /// What each of them reads, and from which offset on.
    reading: HashMap<task::Id, (S::Name, u64)>,
    looks: JoinSet<Looked<S>>,
    /// The last look failed, and that was said.
    blind: bool,
    metrics: FeedMetrics,
}

/// A stream that somebody on this node wants.
struct Followed<S: Source> {
    id: Option<S::Id>,
    workers: Vec<WorkerId>,
    order: Order<S::Item>,
    lack: Lack,
}

impl<S: Source, H: Hints<S>> Feed<S, H> {
    async fn grant(&mut self, wish: Wish<S::Name, S::Id>) {
        match wish {
            Wish::Follow { name, worker } => {
                let followed = match self.streams.entry(name) {
                    Entry::Occupied(followed) => followed.into_mut(),
                    Entry::Vacant(free) => {
                        self.metrics.followed.inc();
                        self.hints.follow(free.key());
                        free.insert(Followed {
                            id: None,
                            workers: vec![],
                            order: Order::default(),
                            lack: Lack::Nothing,
                        })
                    }
                };
                if !followed.workers.contains(&worker) {
                    followed.workers.push(worker);
                }
            }
            Wish::Unfollow { name, worker } => {
                if let Entry::Occupied(mut followed) = self.streams.entry(name) {
                    followed.get_mut().workers.retain(|w| *w != worker);
                    if followed.get().workers.is_empty() {
                        self.metrics.followed.dec();
                        let (name, followed) = followed.remove_entry();
                        self.hints.unfollow(&name);
                        if let Lack::Waiting { at, .. } = followed.lack {
                            self.due.remove(&(at, name));
                        }
                    }
                }
            }
            Wish::Start { name, id, head, first } => {
                let Some(followed) = self.streams.get_mut(&name) else {
                    let stream = S::stream(&name);
                    tracing::error!(%stream, "the feed was asked to start {stream}, which nobody follows");
                    return;
                };
                followed.id = Some(id);
                let begins = followed.order.start(head);
                if let Some(first) = first {
                    // Whoever asked may have left by now.
                    let _ = first.send(begins);
                }
                self.advance(&name).await;
            }
        }
    }

    /// Takes a hint and those that wait behind it.
    async fn take_hints(&mut self, first: Hint<S>) {
        let mut touched: Vec<S::Name> = Vec::new();
        let mut next = Some(first);
        let mut taken = 0;
        while let Some(hint) = next {
            taken += 1;
            match hint {
                Hint::Items(name, items) => {
                    if self.take_items(&name, items) && !touched.contains(&name) {
                        touched.push(name);
                    }
                }
                Hint::Head(name, offset) => self.heard(&name, offset, Duration::ZERO),
            }
            next = if taken < BURST_MAX { self.hints.next().now_or_never().flatten() } else { None };
        }
        for name in touched {
            self.advance(&name).await;
        }
    }

    /// True where one of them may be in line now.
    fn take_items(&mut self, name: &S::Name, items: Vec<Arc<S::Item>>) -> bool {
        let hints = &self.metrics.hints;
        let Some(followed) = self.streams.get_mut(name) else {
            hints.unfollowed.inc_by(items.len() as u64);
            return false;
        };
        let count = items.len();
        let taken = items.into_iter().map(|item| followed.order.take(item)).filter(|a| *a == Arrival::Kept).count();
        hints.taken.inc_by(taken as u64);
        hints.double.inc_by((count - taken) as u64);
        taken > 0
    }

    /// Somebody says the stream has come this far: what is lacking is read after `wait`.
    fn heard(&mut self, name: &S::Name, offset: u64, wait: Duration) {
        if let Some(followed) = self.streams.get_mut(name) {
            followed.order.heard(offset);
            self.await_gap(name, wait);
        }
    }

    /// Delivers what is in line, and sees to what is lacking.
    async fn advance(&mut self, name: &S::Name) -> usize {
        let Some(followed) = self.streams.get_mut(name) else { return 0 };
        let mut delivered = 0;
        loop {
            let burst = next_burst::<S>(name, &mut followed.order);
            if burst.is_empty() {
                break;
            }
            delivered += burst.len();
            tell(&self.hub, &mut followed.workers, &ToWorker::Dispatch { stream: S::stream(name), burst }).await;
        }
        self.await_gap(name, GAP_WAIT);
        delivered
    }

    /// Forgets what was delivered. Nothing is, until somebody asks the store where the stream stands, and whoever is in it now
    /// comes back to do so.
    async fn begin_anew(&mut self, name: &S::Name) {
        let Some(followed) = self.streams.get_mut(name) else { return };
        followed.order = Order::default();
        if let Lack::Waiting { at, .. } = followed.lack {
            self.due.remove(&(at, name.clone()));
        }
        followed.lack = Lack::Nothing;
        self.metrics.begun_anew.inc();
        tell(&self.hub, &mut followed.workers, &ToWorker::BeginAnew(S::stream(name))).await;
    }

    /// Nobody knows what became of what was under way.
    async fn begin_all_anew(&mut self) {
        (self.reads, self.looks) = (JoinSet::new(), JoinSet::new());
        self.reading.clear();
        self.due.clear();
        let names: Vec<S::Name> = self.streams.keys().cloned().collect();
        for name in names {
            self.begin_anew(&name).await;
        }
    }
}

/// To the worker threads that want a stream; one that is gone wants nothing any more.
async fn tell(hub: &Hub, workers: &mut Vec<WorkerId>, message: &ToWorker) {
    let mut gone = Vec::new();
    for worker in workers.iter() {
        if !hub.tell(*worker, message.clone()).await {
            gone.push(*worker);
        }
    }
    workers.retain(|worker| !gone.contains(worker));
}

/// What is in line now, encoded.
fn next_burst<S: Source>(name: &S::Name, order: &mut Order<S::Item>) -> Arc<[Dispatch]> {
    let mut bytes = 0;
    let in_line = std::iter::from_fn(|| {
        let item = (bytes < BURST_BYTES_MAX).then(|| order.deliver()).flatten()?;
        let dispatch = S::encode(name, item);
        bytes += dispatch.frame().len();
        Some(dispatch)
    });
    in_line.take(BURST_MAX).collect()
}

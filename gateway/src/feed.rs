//! The feeds: what was committed to this node's streams, in order, once, encoded once.
//!
//! One task for topics and one for categories of events, of the same making: what differs is their [`Source`]. Hints come from the bus or
//! from the events service, disordered, doubled or not at all; the store is the truth. What arrives early waits [`GAP_WAIT`], then the gap
//! is read. Each second one look at the heads of all followed streams finds what no hint told of, whoever committed it. Every
//! worker thread that wants a stream gets the same frames in the same order.

mod categories;
mod order;
mod source;
mod topics;

use std::{
    collections::{BTreeSet, HashMap, hash_map::Entry},
    sync::Arc,
    time::Duration,
};

use futures_util::FutureExt;
use notifyx_wire::{rest::Problem, trace::TraceContext};
use tokio::{
    runtime::Handle,
    sync::mpsc,
    task::{JoinHandle, JoinSet},
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use crate::{
    hub::{Asked, Dispatch, FeedMetrics, Following, Hub, ToWorker, Wish, WorkerId},
    platform::Platform,
};
use order::{Arrival, Order};

pub(crate) use categories::Categories;
pub(crate) use source::{Hint, Hints, Item, Page, Source};
pub(crate) use topics::Topics;

/// How long a hint may be behind its successor. Two instances of a service tell of what they commit within a few milliseconds of each
/// other.
const GAP_WAIT: Duration = Duration::from_millis(100);

/// Between looks at the heads: what neither hint nor gap tells of is this late at most, and a node costs one call a second.
const HEADS_EVERY: Duration = Duration::from_secs(1);

/// After a read that failed or brought nothing.
const READ_AGAIN: Duration = Duration::from_secs(1);

/// Gaps read at once; others wait, so that a store that comes back is not run over.
const READS_AT_ONCE: usize = 16;

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
            // It ends within a step; that it panicked was logged when it did.
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
        looks: JoinSet::new(),
        blind: false,
    };
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
            Some(read) = feed.reads.join_next(), if !feed.reads.is_empty() => {
                // A read that panicked is a bug of the platform; its stream is found again by the next look.
                if let Ok((name, page)) = read {
                    feed.filled(&name, page).await;
                }
            }
            Some(looked) = feed.looks.join_next(), if !feed.looks.is_empty() => {
                // As with a read: one that panicked is a bug of the platform.
                if let Ok(looked) = looked {
                    feed.looked(looked);
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
    looks: JoinSet<Looked<S>>,
    /// The last look failed, and that was said.
    blind: bool,
    metrics: FeedMetrics,
}

/// What a look at the heads brought.
struct Looked<S: Source> {
    heads: Vec<(S::Name, u64)>,
    failed: Option<Problem>,
}

/// What a read of a gap brought.
type Read<S> = (<S as Source>::Name, Result<Page<<S as Source>::Item>, Problem>);

/// A stream that somebody on this node wants.
struct Followed<S: Source> {
    id: Option<S::Id>,
    workers: Vec<WorkerId>,
    order: Order<S::Item>,
    lack: Lack,
}

/// What is done about an offset that holds up others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Lack {
    Nothing,
    /// `offset` is read at `at` unless it comes by itself.
    Waiting {
        offset: u64,
        at: Instant,
    },
    Reading,
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
            let mut gone = Vec::new();
            for worker in &followed.workers {
                let message = ToWorker::Dispatch { stream: S::stream(name), burst: burst.clone() };
                if !self.hub.tell(*worker, message).await {
                    gone.push(*worker);
                }
            }
            followed.workers.retain(|worker| !gone.contains(worker));
        }
        self.await_gap(name, GAP_WAIT);
        delivered
    }

    /// Sets or clears the time at which the stream's gap is read.
    fn await_gap(&mut self, name: &S::Name, wait: Duration) {
        let Some(followed) = self.streams.get_mut(name) else { return };
        let lacking = followed.order.lacking();
        match (followed.lack, lacking) {
            (Lack::Reading, _) | (Lack::Nothing, None) => {}
            (Lack::Waiting { offset, .. }, Some(lacking)) if offset == lacking => {}
            (lack, lacking) => {
                if let Lack::Waiting { at, .. } = lack {
                    self.due.remove(&(at, name.clone()));
                }
                followed.lack = match lacking {
                    None => Lack::Nothing,
                    Some(offset) => {
                        let at = Instant::now() + wait;
                        self.due.insert((at, name.clone()));
                        Lack::Waiting { offset, at }
                    }
                };
            }
        }
    }

    /// Begins the reads whose time has come.
    fn read_due(&mut self) {
        let now = Instant::now();
        while let Some((at, _)) = self.due.first()
            && *at <= now
        {
            let (_, name) = self.due.pop_first().expect("it was looked at");
            let Some(followed) = self.streams.get_mut(&name) else { continue };
            if self.reads.len() >= READS_AT_ONCE {
                let at = now + GAP_WAIT;
                followed.lack = Lack::Waiting { offset: followed.order.lacking().unwrap_or_default(), at };
                self.due.insert((at, name));
                continue;
            }
            match (followed.order.lacking(), followed.id) {
                (Some(offset), Some(id)) => {
                    followed.lack = Lack::Reading;
                    let platform = self.platform.clone();
                    self.reads.spawn(TraceContext::begin().scope(async move {
                        let page = S::read(platform, name.clone(), id, offset - 1, S::READ_MAX).await;
                        (name, page)
                    }));
                }
                _ => followed.lack = Lack::Nothing,
            }
        }
    }

    /// Takes what the store had.
    async fn filled(&mut self, name: &S::Name, page: Result<Page<S::Item>, Problem>) {
        let Some(followed) = self.streams.get_mut(name) else { return };
        followed.lack = Lack::Nothing;
        let page = match page {
            Ok(page) => page,
            Err(problem) => {
                let stream = S::stream(name);
                self.metrics.failures.inc();
                tracing::warn!(%stream, "{stream} could not be read and waits: {}", problem.detail);
                self.await_gap(name, READ_AGAIN);
                return;
            }
        };
        followed.order.trimmed(page.trimmed);
        followed.order.heard(page.head);
        let read = page.items.len();
        let reached = page.items.last().map_or(page.head, Item::offset);
        for item in page.items {
            followed.order.take(Arc::new(item));
        }
        let delivered = self.advance(name).await;
        self.metrics.gaps_filled.inc_by(delivered.min(read) as u64);
        if delivered == 0 {
            // Nothing moved: do not ask in a circle.
            self.postpone(name, READ_AGAIN);
        } else if reached < page.head {
            // It was not the last page: what is missing is no hint that is late.
            self.postpone(name, Duration::ZERO);
        }
    }

    /// Gives what is lacking another time.
    fn postpone(&mut self, name: &S::Name, wait: Duration) {
        let Some(followed) = self.streams.get_mut(name) else { return };
        if let Lack::Waiting { at, .. } = followed.lack {
            self.due.remove(&(at, name.clone()));
            followed.lack = Lack::Nothing;
            self.await_gap(name, wait);
        }
    }

    /// Asks where all followed streams stand, unless the last look is still on its way.
    fn look(&mut self) {
        if !self.looks.is_empty() {
            return;
        }
        let names: Vec<S::Name> =
            self.streams.iter().filter(|(_, f)| f.order.is_started()).map(|(name, _)| name.clone()).collect();
        if names.is_empty() {
            return;
        }
        let platform = self.platform.clone();
        self.looks.spawn(TraceContext::begin().scope(async move {
            let mut looked = Looked { heads: Vec::with_capacity(names.len()), failed: None };
            for chunk in names.chunks(S::HEADS_MAX) {
                match S::heads(platform.clone(), chunk.to_vec()).await {
                    Ok(some) => looked.heads.extend(some),
                    Err(problem) => looked.failed = Some(problem),
                }
            }
            looked
        }));
    }

    fn looked(&mut self, looked: Looked<S>) {
        match &looked.failed {
            Some(problem) => {
                self.metrics.failures.inc();
                if !self.blind {
                    tracing::warn!(
                        "the heads of {} cannot be read, what no hint tells of waits: {}",
                        S::KIND,
                        problem.detail
                    );
                }
            }
            None if self.blind => tracing::info!("the heads of {} are read again", S::KIND),
            None => {}
        }
        self.blind = looked.failed.is_some();
        for (name, offset) in looked.heads {
            self.heard(&name, offset, GAP_WAIT);
        }
    }
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

#[cfg(test)]
mod tests;

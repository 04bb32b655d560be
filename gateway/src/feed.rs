//! The feed: committed notifications of this node's topics, in order, once, encoded once.
//!
//! One task. Hints come from the bus, disordered, doubled or not at all; the store is the truth. What arrives early waits
//! [`GAP_WAIT`], then the gap is read. Each second one look at the heads of all followed topics finds what no hint told of,
//! whoever committed it. Every worker thread that wants a topic gets the same frames in the same order.

mod order;

use std::{
    collections::{BTreeSet, HashMap, hash_map::Entry},
    sync::Arc,
    time::Duration,
};

use futures_util::FutureExt;
use notifyx_mesh::BusReceiver;
use notifyx_model::{Notification, TopicId, TopicName};
use notifyx_wire::{
    phoenix::{
        channel::{NEW_NOTIFICATION, NOTIFICATION_PREFIX, NotificationPushed},
        text,
    },
    rest::{
        Problem,
        persist::{Head, Log},
    },
    trace::TraceContext,
    websocket,
};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use crate::{
    hub::{Dispatch, Hub, Metrics, ToWorker, Wish, WorkerId},
    platform::Platform,
};
use order::{Arrival, Order};

/// How long a hint may be behind its successor. Two persist instances answer within a few milliseconds of each other.
const GAP_WAIT: Duration = Duration::from_millis(100);

/// Between looks at the heads: what neither hint nor gap tells of is this late at most, and a node costs one call a second.
const HEADS_EVERY: Duration = Duration::from_secs(1);

/// After a read that failed or brought nothing.
const READ_AGAIN: Duration = Duration::from_secs(1);

/// Notifications per read of a gap. With the largest messages this is 16 MB.
const READ_MAX: u32 = 256;

/// Gaps read at once; others wait, so that a store that comes back is not run over.
const READS_AT_ONCE: usize = 16;

/// Hints taken at once, and notifications that cross to a worker thread together: a group commit tells of its publishes one
/// by one, and what goes out together costs a socket one write.
const BURST_MAX: usize = 64;

/// A burst holds no more than this, or one larger frame.
const BURST_BYTES_MAX: usize = 64 * 1024;

/// Topics per look, as persist allows.
const HEADS_MAX: usize = 10_000;

/// Encodes a notification as every subscriber's socket gets it.
pub(crate) fn encode(notification: &Notification) -> bytes::Bytes {
    let topic = format!("{NOTIFICATION_PREFIX}{}", notification.topic);
    websocket::text(&text::broadcast(&topic, NEW_NOTIFICATION, &NotificationPushed::from(notification)))
}

/// The feed's task. It ends when `stop` is cancelled or nobody wishes any more.
pub(crate) async fn run(
    hub: Hub,
    platform: Arc<dyn Platform>,
    mut wishes: mpsc::Receiver<Wish>,
    mut bus: BusReceiver,
    stop: CancellationToken,
) {
    let mut feed = Feed {
        metrics: hub.metrics().clone(),
        hub,
        platform,
        topics: HashMap::new(),
        due: BTreeSet::new(),
        reads: JoinSet::new(),
        looks: JoinSet::new(),
    };
    let mut look = tokio::time::interval(HEADS_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut bus_open = true;
    loop {
        let due = feed.due.first().map(|(at, _)| *at);
        tokio::select! {
            () = stop.cancelled() => return,
            wish = wishes.recv() => match wish {
                Some(wish) => feed.grant(wish).await,
                None => return,
            },
            hint = bus.recv(), if bus_open => match hint {
                Some(hint) => {
                    let waiting = std::iter::from_fn(|| bus.recv().now_or_never().flatten());
                    feed.hints(std::iter::once(hint).chain(waiting.take(BURST_MAX - 1)).collect()).await;
                }
                None => bus_open = false,
            },
            Some(read) = feed.reads.join_next(), if !feed.reads.is_empty() => {
                // A read that panicked is a bug of the platform; its topic is found again by the next look.
                if let Ok((topic, log)) = read {
                    feed.filled(&topic, log).await;
                }
            }
            Some(looked) = feed.looks.join_next(), if !feed.looks.is_empty() => {
                feed.looked(looked.unwrap_or_default());
            }
            () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => feed.read_due(),
            _ = look.tick() => feed.look(),
        }
    }
}

struct Feed {
    hub: Hub,
    platform: Arc<dyn Platform>,
    topics: HashMap<TopicName, Followed>,
    /// When to read what is lacking, per topic.
    due: BTreeSet<(Instant, TopicName)>,
    reads: JoinSet<(TopicName, Result<Log, Problem>)>,
    looks: JoinSet<Vec<Head>>,
    metrics: Metrics,
}

/// A topic that somebody on this node wants.
struct Followed {
    topic_id: Option<TopicId>,
    workers: Vec<WorkerId>,
    order: Order,
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

impl Feed {
    async fn grant(&mut self, wish: Wish) {
        match wish {
            Wish::Follow { topic, worker } => {
                let followed = self.topics.entry(topic).or_insert_with(|| {
                    self.metrics.followed_topics.inc();
                    Followed { topic_id: None, workers: vec![], order: Order::default(), lack: Lack::Nothing }
                });
                if !followed.workers.contains(&worker) {
                    followed.workers.push(worker);
                }
            }
            Wish::Unfollow { topic, worker } => {
                if let Entry::Occupied(mut followed) = self.topics.entry(topic) {
                    followed.get_mut().workers.retain(|w| *w != worker);
                    if followed.get().workers.is_empty() {
                        self.metrics.followed_topics.dec();
                        let (name, followed) = followed.remove_entry();
                        if let Lack::Waiting { at, .. } = followed.lack {
                            self.due.remove(&(at, name));
                        }
                    }
                }
            }
            Wish::Start { topic, topic_id, head, first } => {
                let Some(followed) = self.topics.get_mut(&topic) else {
                    tracing::error!(%topic, "the feed was asked to start topic `{topic}`, which nobody follows");
                    return;
                };
                followed.topic_id = Some(topic_id);
                let begins = followed.order.start(head);
                if let Some(first) = first {
                    // Whoever asked may have left by now.
                    let _ = first.send(begins);
                }
                self.advance(&topic).await;
            }
        }
    }

    async fn hints(&mut self, hints: Vec<Arc<Notification>>) {
        let mut touched: Vec<TopicName> = Vec::new();
        for notification in hints {
            let topic = notification.topic.clone();
            let outcome = match self.topics.get_mut(&topic) {
                None => "unfollowed",
                Some(followed) => match followed.order.take(notification) {
                    Arrival::Double => "double",
                    Arrival::Kept => "taken",
                },
            };
            self.metrics.hints.with_label_values(&[outcome]).inc();
            if outcome == "taken" && !touched.contains(&topic) {
                touched.push(topic);
            }
        }
        for topic in touched {
            self.advance(&topic).await;
        }
    }

    /// Delivers what is in line, and sees to what is lacking.
    async fn advance(&mut self, topic: &TopicName) -> usize {
        let Some(followed) = self.topics.get_mut(topic) else { return 0 };
        let mut delivered = 0;
        loop {
            let burst = next_burst(&mut followed.order);
            if burst.is_empty() {
                break;
            }
            delivered += burst.len();
            let mut gone = Vec::new();
            for worker in &followed.workers {
                if !self.hub.tell(*worker, ToWorker::Dispatch(burst.clone())).await {
                    gone.push(*worker);
                }
            }
            followed.workers.retain(|worker| !gone.contains(worker));
        }
        self.await_gap(topic, GAP_WAIT);
        delivered
    }

    /// Sets or clears the time at which the topic's gap is read.
    fn await_gap(&mut self, topic: &TopicName, wait: Duration) {
        let Some(followed) = self.topics.get_mut(topic) else { return };
        let lacking = followed.order.lacking();
        match (followed.lack, lacking) {
            (Lack::Reading, _) | (Lack::Nothing, None) => {}
            (Lack::Waiting { offset, .. }, Some(lacking)) if offset == lacking => {}
            (lack, lacking) => {
                if let Lack::Waiting { at, .. } = lack {
                    self.due.remove(&(at, topic.clone()));
                }
                followed.lack = match lacking {
                    None => Lack::Nothing,
                    Some(offset) => {
                        let at = Instant::now() + wait;
                        self.due.insert((at, topic.clone()));
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
            let (_, topic) = self.due.pop_first().expect("it was looked at");
            let Some(followed) = self.topics.get_mut(&topic) else { continue };
            if self.reads.len() >= READS_AT_ONCE {
                let at = now + GAP_WAIT;
                followed.lack = Lack::Waiting { offset: followed.order.lacking().unwrap_or_default(), at };
                self.due.insert((at, topic));
                continue;
            }
            match (followed.order.lacking(), followed.topic_id) {
                (Some(offset), Some(topic_id)) => {
                    followed.lack = Lack::Reading;
                    let platform = self.platform.clone();
                    self.reads.spawn(TraceContext::begin().scope(async move {
                        let log = platform.log(topic_id, offset - 1, READ_MAX).await;
                        (topic, log)
                    }));
                }
                _ => followed.lack = Lack::Nothing,
            }
        }
    }

    /// Takes what the store had.
    async fn filled(&mut self, topic: &TopicName, log: Result<Log, Problem>) {
        let Some(followed) = self.topics.get_mut(topic) else { return };
        followed.lack = Lack::Nothing;
        let log = match log {
            Ok(log) => log,
            Err(problem) => {
                self.metrics.feed_failures.inc();
                tracing::warn!(%topic, "topic `{topic}` could not be read and waits: {}", problem.detail);
                self.await_gap(topic, READ_AGAIN);
                return;
            }
        };
        followed.order.trimmed(log.trimmed);
        followed.order.heard(log.offset);
        let read = log.notifications.len();
        for notification in log.notifications {
            followed.order.take(Arc::new(notification));
        }
        let delivered = self.advance(topic).await;
        self.metrics.gaps_filled.inc_by(delivered.min(read) as u64);
        if delivered == 0 {
            // Nothing moved: do not ask in a circle.
            self.postpone(topic);
        }
    }

    fn postpone(&mut self, topic: &TopicName) {
        let Some(followed) = self.topics.get_mut(topic) else { return };
        if let Lack::Waiting { at, .. } = followed.lack {
            self.due.remove(&(at, topic.clone()));
            followed.lack = Lack::Nothing;
            self.await_gap(topic, READ_AGAIN);
        }
    }

    /// Asks where all followed topics stand, unless the last look is still on its way.
    fn look(&mut self) {
        if !self.looks.is_empty() {
            return;
        }
        let names: Vec<TopicName> =
            self.topics.iter().filter(|(_, f)| f.order.is_started()).map(|(name, _)| name.clone()).collect();
        if names.is_empty() {
            return;
        }
        let (platform, failures) = (self.platform.clone(), self.metrics.feed_failures.clone());
        self.looks.spawn(TraceContext::begin().scope(async move {
            let mut heads = Vec::with_capacity(names.len());
            for chunk in names.chunks(HEADS_MAX) {
                match platform.heads(chunk.to_vec()).await {
                    Ok(some) => heads.extend(some),
                    Err(problem) => {
                        failures.inc();
                        tracing::warn!("the heads of {} topics could not be read: {}", chunk.len(), problem.detail);
                    }
                }
            }
            heads
        }));
    }

    fn looked(&mut self, heads: Vec<Head>) {
        for head in heads {
            if let Some(followed) = self.topics.get_mut(&head.topic) {
                followed.order.heard(head.offset);
                self.await_gap(&head.topic, GAP_WAIT);
            }
        }
    }
}

/// What is in line now, encoded.
fn next_burst(order: &mut Order) -> Arc<[Dispatch]> {
    let mut bytes = 0;
    let in_line = std::iter::from_fn(|| {
        let notification = (bytes < BURST_BYTES_MAX).then(|| order.deliver()).flatten()?;
        let frame = encode(&notification);
        bytes += frame.len();
        Some(Dispatch { notification, frame })
    });
    in_line.take(BURST_MAX).collect()
}

#[cfg(test)]
mod tests;

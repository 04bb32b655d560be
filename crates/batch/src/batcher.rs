//! The batcher: a bounded queue, and one task that turns what is in it into batches.
//!
//! Every item that was taken gets exactly one answer: the handler's, [`Rejected::Lost`] if the handler broke off, or
//! [`Rejected::Stopped`] if it never got there.

use std::{fmt, sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    task::{JoinError, JoinSet},
};
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::Rejected;

/// How long [`Batcher::close`] waits for what is queued and under way: longer than a slow commit, shorter than the
/// ten seconds after which container runtimes kill.
const FLUSH_MAX: Duration = Duration::from_secs(5);

/// The bounds. A zero counts as one.
#[derive(Clone, Debug)]
pub struct Options {
    /// What is batched, in the plural: it stands in errors and logs.
    pub name: &'static str,
    /// Items in one batch.
    pub items_max: usize,
    /// Weight of one batch; an item that weighs more goes alone.
    pub bytes_max: usize,
    /// Items that wait. They weigh at most as much as the full batches that they would make: beyond either bound a
    /// caller gets [`Rejected::Full`].
    pub queue_max: usize,
    /// Batches under way at once. With one, items are handled in the order of their submission.
    pub in_flight: usize,
}

impl Options {
    fn queue_bytes_max(&self) -> u32 {
        let batches = self.queue_max.div_ceil(self.items_max.max(1)).max(1);
        u32::try_from(self.bytes_max.max(1).saturating_mul(batches)).unwrap_or(u32::MAX)
    }
}

/// The callers' end. Cheap to clone; when the last clone is gone, what is queued is still handled.
pub struct Batcher<I, O>(Arc<Inner<I, O>>);

struct Inner<I, O> {
    name: &'static str,
    queue: mpsc::Sender<Entry<I, O>>,
    weigh: fn(&I) -> usize,
    /// The weight that may still be queued.
    room: Arc<Semaphore>,
    room_max: u32,
    closing: CancellationToken,
    ended: CancellationToken,
}

struct Entry<I, O> {
    item: I,
    weight: usize,
    room: OwnedSemaphorePermit,
    reply: Reply<O>,
}

type Reply<O> = oneshot::Sender<Result<O, Rejected>>;

impl<I, O> Clone for Batcher<I, O> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<I, O> fmt::Debug for Batcher<I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batcher").field("name", &self.0.name).finish_non_exhaustive()
    }
}

impl<I: Send + 'static, O: Send + 'static> Batcher<I, O> {
    /// Starts on the current runtime. The handler answers one result per item, in order; if it panics, or answers
    /// another number, its items are [`Rejected::Lost`].
    pub fn start<F, Work>(options: Options, weigh: fn(&I) -> usize, handler: F) -> Self
    where
        F: Fn(Vec<I>) -> Work + Send + Sync + 'static,
        Work: Future<Output = Vec<O>> + Send + 'static,
    {
        let (sender, receiver) = mpsc::channel(options.queue_max.max(1));
        let room_max = options.queue_bytes_max();
        let inner = Inner {
            name: options.name,
            queue: sender,
            weigh,
            room: Arc::new(Semaphore::new(room_max as usize)),
            room_max,
            closing: CancellationToken::new(),
            ended: CancellationToken::new(),
        };
        let dispatcher = Dispatcher {
            options,
            handler: Arc::new(handler),
            queue: receiver,
            carried: None,
            under_way: JoinSet::new(),
            closing: inner.closing.clone(),
        };
        let ended = inner.ended.clone().drop_guard();
        tokio::spawn(async move {
            dispatcher.run().await;
            drop(ended);
        });
        Self(Arc::new(inner))
    }

    /// Queues the item and waits for its result. A caller that stops waiting leaves the item where it is: it is handled
    /// with its neighbours, and its result is dropped.
    pub async fn submit(&self, item: I) -> Result<O, Rejected> {
        let inner = &*self.0;
        if inner.closing.is_cancelled() {
            return Err(Rejected::Stopped(inner.name));
        }
        let weight = (inner.weigh)(&item);
        let share = u32::try_from(weight).unwrap_or(u32::MAX).min(inner.room_max);
        let room = inner.room.clone().try_acquire_many_owned(share).map_err(|_| Rejected::Full(inner.name))?;
        let (reply, outcome) = oneshot::channel();
        inner.queue.try_send(Entry { item, weight, room, reply }).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => Rejected::Full(inner.name),
            mpsc::error::TrySendError::Closed(_) => Rejected::Stopped(inner.name),
        })?;
        outcome.await.unwrap_or(Err(Rejected::Lost(inner.name)))
    }

    /// Items that wait now, for a gauge.
    pub fn queued(&self) -> usize {
        self.0.queue.max_capacity() - self.0.queue.capacity()
    }

    /// Takes nothing more, handles what was taken, and returns when that is done, or after five seconds: what is under
    /// way then is [`Rejected::Lost`], what still waits is [`Rejected::Stopped`].
    pub async fn close(&self) {
        self.0.closing.cancel();
        self.0.ended.cancelled().await;
    }
}

/// The task's end.
struct Dispatcher<I, O, F> {
    options: Options,
    handler: Arc<F>,
    queue: mpsc::Receiver<Entry<I, O>>,
    /// Taken from the queue, and too heavy for the batch it would have joined: it begins the next.
    carried: Option<Entry<I, O>>,
    under_way: JoinSet<()>,
    closing: CancellationToken,
}

impl<I, O, F, Work> Dispatcher<I, O, F>
where
    I: Send + 'static,
    O: Send + 'static,
    F: Fn(Vec<I>) -> Work + Send + Sync + 'static,
    Work: Future<Output = Vec<O>> + Send + 'static,
{
    async fn run(mut self) {
        let closing = self.closing.clone();
        let expiry = async move {
            closing.cancelled().await;
            tokio::time::sleep(FLUSH_MAX).await;
        };
        let flushed = tokio::select! {
            () = self.dispatch() => true,
            () = expiry => false,
        };
        if flushed {
            return;
        }
        let name = self.options.name;
        error!("{name} were not all handled within {FLUSH_MAX:?} of closing");
        self.under_way.shutdown().await;
        self.queue.close();
        while let Some(entry) = self.carried.take().or_else(|| self.queue.try_recv().ok()) {
            // The caller may be gone.
            let _ = entry.reply.send(Err(Rejected::Stopped(name)));
        }
    }

    /// Until the queue is closed and empty and the last batch has ended.
    async fn dispatch(&mut self) {
        while let Some(first) = self.next().await {
            let (items, replies) = self.fill(first);
            self.under_way.spawn(handle(self.options.name, self.handler.clone(), items, replies));
        }
        while let Some(ended) = self.under_way.join_next().await {
            self.report(ended);
        }
    }

    /// The item that begins the next batch, once there may be one more batch.
    async fn next(&mut self) -> Option<Entry<I, O>> {
        let closing = self.closing.clone();
        loop {
            let full = self.under_way.len() >= self.options.in_flight.max(1);
            if !full && self.carried.is_some() {
                return self.carried.take();
            }
            tokio::select! {
                biased;
                Some(ended) = self.under_way.join_next() => self.report(ended),
                () = closing.cancelled(), if !self.queue.is_closed() => self.queue.close(),
                entry = self.queue.recv(), if !full => return entry,
            }
        }
    }

    /// A batch of `first` and of what waits behind it, within the bounds.
    fn fill(&mut self, first: Entry<I, O>) -> (Vec<I>, Vec<Reply<O>>) {
        let (mut items, mut replies, mut bytes) = (Vec::new(), Vec::new(), 0_usize);
        let mut next = Some(first);
        while let Some(Entry { item, weight, room, reply }) = next {
            bytes = bytes.saturating_add(weight);
            items.push(item);
            replies.push(reply);
            drop(room);
            if items.len() >= self.options.items_max {
                break;
            }
            next = self.queue.try_recv().ok();
            if next.as_ref().is_some_and(|entry| bytes.saturating_add(entry.weight) > self.options.bytes_max) {
                self.carried = next;
                break;
            }
        }
        (items, replies)
    }

    fn report(&self, ended: Result<(), JoinError>) {
        if let Err(broken) = ended {
            error!("a batch of {} broke off: {broken}", self.options.name);
        }
    }
}

/// One batch. If the handler panics, the replies are dropped with this task, and their callers see that.
async fn handle<I, O, F, Work>(name: &'static str, handler: Arc<F>, items: Vec<I>, replies: Vec<Reply<O>>)
where
    F: Fn(Vec<I>) -> Work,
    Work: Future<Output = Vec<O>>,
{
    let answers = handler(items).await;
    if answers.len() != replies.len() {
        error!("a batch of {} {name} got {} answers: none can be told whose it is", replies.len(), answers.len());
        return;
    }
    for (reply, answer) in replies.into_iter().zip(answers) {
        // The caller may be gone.
        let _ = reply.send(Ok(answer));
    }
}

#[cfg(test)]
mod tests;

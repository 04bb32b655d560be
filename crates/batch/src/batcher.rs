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
mod tests {
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

    use super::*;

    /// A handler that shows each batch to the test and holds it until the test lets it go.
    struct Held {
        batcher: Batcher<usize, usize>,
        batches: UnboundedReceiver<(Vec<usize>, oneshot::Sender<()>)>,
    }

    /// An item weighs what it says; the handler answers ten times the item.
    fn held(options: Options) -> Held {
        let (show, shown) = unbounded_channel();
        let batcher = Batcher::start(
            options,
            |item| *item,
            move |items: Vec<usize>| {
                let show = show.clone();
                async move {
                    let (go, wait) = oneshot::channel();
                    show.send((items.clone(), go)).unwrap();
                    wait.await.unwrap();
                    items.into_iter().map(|item| item * 10).collect()
                }
            },
        );
        Held { batcher, batches: shown }
    }

    const BOUNDS: Options = Options { name: "numbers", items_max: 4, bytes_max: 100, queue_max: 8, in_flight: 1 };

    impl Held {
        /// Submits, and returns once the item is queued or refused.
        async fn submit(&self, item: usize) -> tokio::task::JoinHandle<Result<usize, Rejected>> {
            let batcher = self.batcher.clone();
            let (queued, wait) = oneshot::channel();
            let task = tokio::spawn(async move {
                let mut submit = std::pin::pin!(batcher.submit(item));
                let first = std::future::poll_fn(|cx| std::task::Poll::Ready(submit.as_mut().poll(cx))).await;
                queued.send(()).unwrap();
                match first {
                    std::task::Poll::Ready(outcome) => outcome,
                    std::task::Poll::Pending => submit.await,
                }
            });
            wait.await.unwrap();
            task
        }

        async fn batch(&mut self) -> (Vec<usize>, oneshot::Sender<()>) {
            self.batches.recv().await.unwrap()
        }
    }

    #[tokio::test]
    async fn what_arrives_during_a_batch_forms_the_next() {
        let mut held = held(BOUNDS);
        let first = held.submit(1).await;
        let (items, go) = held.batch().await;
        assert_eq!(items, [1]);
        let mut rest = Vec::new();
        for item in 2..=7 {
            rest.push(held.submit(item).await);
        }
        assert_eq!(held.batcher.queued(), 6);
        go.send(()).unwrap();
        assert_eq!(first.await.unwrap(), Ok(10));
        let (items, go) = held.batch().await;
        assert_eq!(items, [2, 3, 4, 5], "four is the bound in items");
        go.send(()).unwrap();
        let (items, go) = held.batch().await;
        assert_eq!(items, [6, 7]);
        go.send(()).unwrap();
        for (item, submitted) in (2..=7).zip(rest) {
            assert_eq!(submitted.await.unwrap(), Ok(item * 10));
        }
    }

    #[tokio::test]
    async fn a_batch_is_bounded_in_weight_and_a_heavy_item_goes_alone() {
        let mut held = held(Options { queue_max: 16, ..BOUNDS });
        held.submit(1).await;
        let (_, go) = held.batch().await;
        for item in [60, 30, 20, 150, 1] {
            held.submit(item).await;
        }
        go.send(()).unwrap();
        for expected in [vec![60, 30], vec![20], vec![150], vec![1]] {
            let (items, go) = held.batch().await;
            assert_eq!(items, expected);
            go.send(()).unwrap();
        }
    }

    #[tokio::test]
    async fn a_full_queue_refuses_at_once() {
        let mut held = held(BOUNDS);
        held.submit(1).await;
        let (_, go) = held.batch().await;
        for item in 1..=8 {
            held.submit(item).await;
        }
        assert_eq!(held.batcher.submit(9).await, Err(Rejected::Full("numbers")));
        go.send(()).unwrap();
        let (items, _go) = held.batch().await;
        assert_eq!(items, [1, 2, 3, 4], "what was taken before is handled");
    }

    #[tokio::test]
    async fn a_queue_is_bounded_in_weight_too() {
        let mut held = held(BOUNDS);
        held.submit(1).await;
        let (_, go) = held.batch().await;
        held.submit(90).await;
        held.submit(90).await;
        // Eight items are two full batches: 200 bytes.
        assert_eq!(held.batcher.submit(30).await, Err(Rejected::Full("numbers")));
        let light = held.submit(20).await;
        go.send(()).unwrap();
        for expected in [vec![90], vec![90]] {
            let (items, go) = held.batch().await;
            assert_eq!(items, expected);
            go.send(()).unwrap();
        }
        let (_, go) = held.batch().await;
        go.send(()).unwrap();
        assert_eq!(light.await.unwrap(), Ok(200));
        let heavy = held.submit(1_000).await;
        let (items, go) = held.batch().await;
        assert_eq!(items, [1_000], "an item heavier than the whole queue passes through an empty one");
        go.send(()).unwrap();
        assert_eq!(heavy.await.unwrap(), Ok(10_000));
    }

    #[tokio::test]
    async fn as_many_batches_as_allowed_are_under_way() {
        let mut held = held(Options { in_flight: 2, ..BOUNDS });
        held.submit(1).await;
        let (_, first) = held.batch().await;
        held.submit(2).await;
        let (items, second) = held.batch().await;
        assert_eq!(items, [2]);
        let third = held.submit(3).await;
        let fourth = held.submit(4).await;
        second.send(()).unwrap();
        let (items, go) = held.batch().await;
        assert_eq!(items, [3, 4], "they waited for one of the two");
        go.send(()).unwrap();
        assert_eq!((third.await.unwrap(), fourth.await.unwrap()), (Ok(30), Ok(40)));
        first.send(()).unwrap();
    }

    #[tokio::test]
    async fn a_panic_loses_its_own_batch_only() {
        let batcher = Batcher::start(
            BOUNDS,
            |_| 1,
            |items: Vec<usize>| async move {
                assert!(items[0] != 13, "thirteen");
                items
            },
        );
        assert_eq!(batcher.submit(13).await, Err(Rejected::Lost("numbers")));
        assert_eq!(batcher.submit(14).await, Ok(14));
    }

    #[tokio::test]
    async fn a_handler_that_answers_too_few_loses_its_batch() {
        let batcher = Batcher::<usize, usize>::start(BOUNDS, |_| 1, |_| async { Vec::new() });
        assert_eq!(batcher.submit(1).await, Err(Rejected::Lost("numbers")));
    }

    #[tokio::test]
    async fn each_item_has_its_own_result() {
        let batcher = Batcher::start(
            BOUNDS,
            |_| 1,
            |items: Vec<usize>| async move {
                items.into_iter().map(|item| if item == 2 { Err("two") } else { Ok(item) }).collect()
            },
        );
        let (one, two, three) = tokio::join!(batcher.submit(1), batcher.submit(2), batcher.submit(3));
        assert_eq!((one, two, three), (Ok(Ok(1)), Ok(Err("two")), Ok(Ok(3))));
    }

    #[tokio::test]
    async fn a_caller_that_goes_away_does_not_disturb_its_neighbours() {
        let mut held = held(BOUNDS);
        held.submit(1).await;
        let (_, go) = held.batch().await;
        let leaves = held.submit(2).await;
        let stays = held.submit(3).await;
        leaves.abort();
        go.send(()).unwrap();
        let (items, go) = held.batch().await;
        assert_eq!(items, [2, 3]);
        go.send(()).unwrap();
        assert_eq!(stays.await.unwrap(), Ok(30));
    }

    #[tokio::test]
    async fn close_handles_what_was_taken_and_takes_no_more() {
        let mut held = held(BOUNDS);
        let first = held.submit(1).await;
        let (_, go) = held.batch().await;
        let second = held.submit(2).await;
        let closing = tokio::spawn({
            let batcher = held.batcher.clone();
            async move { batcher.close().await }
        });
        held.batcher.0.closing.cancelled().await;
        assert_eq!(held.batcher.submit(3).await, Err(Rejected::Stopped("numbers")));
        go.send(()).unwrap();
        let (items, go) = held.batch().await;
        assert_eq!(items, [2]);
        go.send(()).unwrap();
        closing.await.unwrap();
        assert_eq!((first.await.unwrap(), second.await.unwrap()), (Ok(10), Ok(20)));
        held.batcher.close().await;
    }

    #[tokio::test(start_paused = true)]
    async fn close_does_not_wait_for_ever() {
        let mut held = held(BOUNDS);
        let hangs = held.submit(1).await;
        let (_, _go) = held.batch().await;
        let waits = held.submit(2).await;
        held.batcher.close().await;
        assert_eq!(hangs.await.unwrap(), Err(Rejected::Lost("numbers")));
        assert_eq!(waits.await.unwrap(), Err(Rejected::Stopped("numbers")));
    }

    #[tokio::test]
    async fn what_is_queued_is_handled_after_the_last_caller_let_go() {
        let mut held = held(BOUNDS);
        held.submit(1).await.abort();
        let (show, go) = held.batch().await;
        assert_eq!(show, [1]);
        held.submit(2).await.abort();
        let Held { batcher, mut batches } = held;
        drop(batcher);
        go.send(()).unwrap();
        assert_eq!(batches.recv().await.unwrap().0, [2]);
    }
}

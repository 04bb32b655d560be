//! What a caller can count on, on tokio's paused clock.

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

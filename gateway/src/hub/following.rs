//! What the worker threads ask of the feed: which topics they want, and where a topic stands.

use notifyx_model::{TopicId, TopicName};
use tokio::sync::{mpsc, oneshot};

use super::WorkerId;

/// Wishes that may wait. A worker that finds the queue full waits with it, and its joins with the worker.
const WISHES_MAX: usize = 4096;

#[derive(Debug)]
pub(crate) enum Wish {
    /// From now on the worker gets the topic's notifications.
    Follow {
        topic: TopicName,
        worker: WorkerId,
    },
    Unfollow {
        topic: TopicName,
        worker: WorkerId,
    },
    /// The topic stands at `head`, as the store says. A feed that knows nothing of the topic begins after it. The answer
    /// is the first offset that workers get from now on.
    Start {
        topic: TopicName,
        topic_id: TopicId,
        head: u64,
        first: Option<oneshot::Sender<u64>>,
    },
}

/// A worker's line to the feed. Wishes of one worker are granted in order.
#[derive(Clone, Debug)]
pub(crate) struct Following(mpsc::Sender<Wish>);

/// The feed has stopped: the process is ending.
#[derive(Debug)]
pub(crate) struct FeedStopped;

impl Following {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Wish>) {
        let (wishes, granted) = mpsc::channel(WISHES_MAX);
        (Self(wishes), granted)
    }

    /// Room for one wish, if there is some now. Who has it can decide and wish in one step.
    pub(super) fn try_reserve(&self) -> Option<mpsc::Permit<'_, Wish>> {
        self.0.try_reserve().ok()
    }

    #[cfg(test)]
    pub(crate) fn unfollow(&self, topic: &TopicName, worker: WorkerId) {
        self.try_reserve().expect("room").send(Wish::Unfollow { topic: topic.clone(), worker });
    }

    async fn wish(&self, wish: Wish) -> Result<(), FeedStopped> {
        self.0.send(wish).await.map_err(|_| FeedStopped)
    }

    pub(crate) async fn follow(&self, topic: &TopicName, worker: WorkerId) -> Result<(), FeedStopped> {
        self.wish(Wish::Follow { topic: topic.clone(), worker }).await
    }

    pub(crate) async fn begin(&self, topic: &TopicName, topic_id: TopicId, head: u64) -> Result<(), FeedStopped> {
        self.wish(Wish::Start { topic: topic.clone(), topic_id, head, first: None }).await
    }

    /// As [`Following::begin`], and asks from which offset on workers get the topic.
    pub(crate) async fn start(&self, topic: &TopicName, topic_id: TopicId, head: u64) -> Result<u64, FeedStopped> {
        let (first, answer) = oneshot::channel();
        self.wish(Wish::Start { topic: topic.clone(), topic_id, head, first: Some(first) }).await?;
        answer.await.map_err(|_| FeedStopped)
    }
}

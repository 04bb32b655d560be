//! What the worker threads ask of the feeds: which streams they want, and where a stream stands.

use notifyx_model::{Category, TopicId, TopicName};
use tokio::sync::{mpsc, oneshot};

use super::{WorkerId, stream::StreamName};

/// Wishes that may wait. A worker that finds the queue full waits with it, and its joins with the worker.
const WISHES_MAX: usize = 4096;

/// Of a stream that is called `N`, and `I` in the store.
#[derive(Debug)]
pub(crate) enum Wish<N, I> {
    /// From now on the worker gets what comes.
    Follow {
        name: N,
        worker: WorkerId,
    },
    Unfollow {
        name: N,
        worker: WorkerId,
    },
    /// The stream stands at `head`, as the store says. A feed that knows nothing of it begins after it. The answer is the
    /// first offset that workers get from now on.
    Start {
        name: N,
        id: I,
        head: u64,
        first: Option<oneshot::Sender<u64>>,
    },
}

/// A worker's lines to the feeds.
#[derive(Clone, Debug)]
pub(crate) struct Following {
    pub(crate) topics: Wishes<TopicName, TopicId>,
    pub(crate) categories: Wishes<Category, ()>,
}

/// The feeds' ends of those lines.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) topics: mpsc::Receiver<Wish<TopicName, TopicId>>,
    pub(crate) categories: mpsc::Receiver<Wish<Category, ()>>,
}

impl Following {
    pub(crate) fn new() -> (Self, Asked) {
        let (topics, topics_asked) = mpsc::channel(WISHES_MAX);
        let (categories, categories_asked) = mpsc::channel(WISHES_MAX);
        let following = Self { topics: Wishes(topics), categories: Wishes(categories) };
        (following, Asked { topics: topics_asked, categories: categories_asked })
    }

    /// In one step with what the caller looked at before. False where there is no room for the wish now.
    pub(super) fn try_unfollow(&self, name: &StreamName, worker: WorkerId) -> bool {
        match name {
            StreamName::Topic(name) => self.topics.try_unfollow(name, worker),
            StreamName::Category(name) => self.categories.try_unfollow(name, worker),
        }
    }
}

/// A worker's line to one feed. Wishes of one worker are granted in order.
#[derive(Clone, Debug)]
pub(crate) struct Wishes<N, I>(mpsc::Sender<Wish<N, I>>);

/// The feed has stopped: the process is ending.
#[derive(Debug)]
pub(crate) struct FeedStopped;

impl<N: Clone, I> Wishes<N, I> {
    pub(crate) fn try_unfollow(&self, name: &N, worker: WorkerId) -> bool {
        self.0.try_send(Wish::Unfollow { name: name.clone(), worker }).is_ok()
    }

    async fn wish(&self, wish: Wish<N, I>) -> Result<(), FeedStopped> {
        self.0.send(wish).await.map_err(|_| FeedStopped)
    }

    pub(crate) async fn follow(&self, name: &N, worker: WorkerId) -> Result<(), FeedStopped> {
        self.wish(Wish::Follow { name: name.clone(), worker }).await
    }

    pub(crate) async fn begin(&self, name: &N, id: I, head: u64) -> Result<(), FeedStopped> {
        self.wish(Wish::Start { name: name.clone(), id, head, first: None }).await
    }

    /// As [`Wishes::begin`], and asks from which offset on workers get the stream.
    pub(crate) async fn start(&self, name: &N, id: I, head: u64) -> Result<u64, FeedStopped> {
        let (first, answer) = oneshot::channel();
        self.wish(Wish::Start { name: name.clone(), id, head, first: Some(first) }).await?;
        answer.await.map_err(|_| FeedStopped)
    }
}

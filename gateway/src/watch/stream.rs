//! The stream to one instance: opened, read, and opened again when it breaks.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::{FutureExt, StreamExt};
use notifyx_chassis::grpc::MESSAGE_BYTES_MAX;
use notifyx_mesh::{CallError, Mesh, Peer, Rpc};
use notifyx_model::Category;
use notifyx_wire::grpc::events::{self as wire, events_client::EventsClient, watch_reply::News};
use prometheus::IntGauge;
use tokio::{
    sync::{Semaphore, mpsc},
    time::Instant,
};
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

use super::{HINTS_BYTES_MAX, Metrics, Waiting, followed::Followed};
use crate::{
    backends::EVENTS,
    feed::{Categories, Hint, Item},
};

/// Before a stream is opened again: less than a glance, so that a restart is not felt; and at most so long that a service that is away is
/// not run over by its gateways.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

#[derive(Clone)]
pub(super) struct Stream {
    pub(super) mesh: Mesh,
    pub(super) followed: Arc<Followed>,
    pub(super) hints: mpsc::Sender<Waiting>,
    /// For what the hints weigh that wait.
    pub(super) room: Arc<Semaphore>,
    pub(super) metrics: Metrics,
}

/// An open stream, counted.
struct Open(IntGauge);

impl Open {
    fn counted(streams: &IntGauge) -> Self {
        streams.inc();
        Self(streams.clone())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Stream {
    /// Until the task is aborted, or the feed has stopped.
    pub(super) async fn keep_open(self, peer: Peer) {
        let address = &peer.address;
        let mut pause = PAUSE_MIN;
        let mut told = false;
        while !self.hints.is_closed() {
            let began = Instant::now();
            let Some(why) = unbroken(self.watch(&peer, &mut told)).await else { return };
            self.metrics.breaks.inc();
            if told {
                tracing::debug!(%address, "{address} cannot be watched yet: {why}");
            } else {
                told = true;
                tracing::warn!(%address, "what fires at {address} is not watched now and may come a second late: {why}");
            }
            if began.elapsed() > PAUSE_MAX {
                // It held for a while: no sign of lasting trouble.
                pause = PAUSE_MIN;
            }
            tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.0))).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Why it could not be opened, or ended; `None`: nobody wants hints any more.
    async fn watch(&self, peer: &Peer, told: &mut bool) -> Option<CallError> {
        // Not to be read any more is not enough: the instance goes on as long as it may be asked for something.
        let asking = CancellationToken::new();
        let _ends = asking.clone().drop_guard();
        let replies = match self.open(peer, asking).await {
            Ok(replies) => replies,
            Err(error) => return Some(error),
        };
        let _open = Open::counted(&self.metrics.streams);
        let address = &peer.address;
        tracing::info!(%address, "what fires at {address} is watched");
        *told = false;
        self.read(replies).await
    }

    async fn open(&self, peer: &Peer, asking: CancellationToken) -> Result<Streaming<wire::WatchReply>, CallError> {
        let watch = |line| {
            let requests = self.followed.changes().requests().take_until(asking.clone().cancelled_owned());
            async move { EventsClient::new(line).max_decoding_message_size(MESSAGE_BYTES_MAX).watch(requests).await }
        };
        self.mesh.rpc_at(EVENTS, peer.instance, Rpc::new(), watch).await
    }

    /// As [`Stream::watch`].
    async fn read(&self, mut replies: Streaming<wire::WatchReply>) -> Option<CallError> {
        loop {
            let reply = match replies.message().await {
                Ok(Some(reply)) => reply,
                Ok(None) => return Some(CallError::Cut { service: EVENTS, why: "it ended".to_owned() }),
                Err(status) => return Some(CallError::of_stream(EVENTS, &status)),
            };
            for hint in hints(reply) {
                self.hand_on(hint).await?;
            }
        }
    }

    /// Waits until there is room for it; `None`: nobody wants it.
    async fn hand_on(&self, hint: Hint<Categories>) -> Option<()> {
        let room = self.room.clone().acquire_many_owned(weight(&hint)).await.ok()?;
        self.hints.send((hint, room)).await.ok()
    }
}

/// A stream that panics has broken off like any other, and is opened again.
async fn unbroken(watching: impl Future<Output = Option<CallError>>) -> Option<CallError> {
    let watched = AssertUnwindSafe(watching).catch_unwind().await;
    watched.unwrap_or_else(|_| Some(CallError::Cut { service: EVENTS, why: "its reader panicked".to_owned() }))
}

/// One that is heavier than all that may wait waits alone.
fn weight(hint: &Hint<Categories>) -> u32 {
    let bytes = match hint {
        Hint::Items(_, events) => events.iter().map(|event| event.bytes()).sum(),
        Hint::Head(..) => 0,
    };
    u32::try_from(bytes).unwrap_or(u32::MAX).min(HINTS_BYTES_MAX)
}

/// What a reply tells the feed. A name that cannot be one is not one that was asked for.
fn hints(reply: wire::WatchReply) -> Vec<Hint<Categories>> {
    let head = |head: wire::Head| Some(Hint::Head(Category::parse(&head.category).ok()?, head.offset));
    match reply.news {
        Some(News::Appended(wire::Appended { category, events })) => {
            let items = |category| Hint::Items(category, events.into_iter().map(Arc::new).collect());
            Category::parse(&category).map(items).into_iter().collect()
        }
        Some(News::Followed(wire::Followed { head: at, .. })) => at.and_then(head).into_iter().collect(),
        Some(News::Heads(wire::HeadsReply { heads })) => heads.into_iter().filter_map(head).collect(),
        Some(News::NotFollowed(wire::NotFollowed { category, problem })) => {
            let why = problem.map(|problem| problem.detail).unwrap_or_default();
            tracing::warn!(%category, "category `{category}` is not watched, its events may come a second late: {why}");
            Vec::new()
        }
        None => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use notifyx_mesh::MeshConfig;
    use notifyx_model::{Clock, Secret};
    use prometheus::Registry;
    use tokio::task::unconstrained;

    use super::*;
    use crate::{testing, watch::HINTS_MAX};

    /// A hint of an event of 2 MiB.
    fn heavy() -> Hint<Categories> {
        let event = wire::Event { data: vec![b'1'; 2 * 1024 * 1024].into(), ..testing::event("a", 1) };
        Hint::Items(testing::category("a"), vec![Arc::new(event)])
    }

    #[tokio::test]
    async fn hints_wait_for_the_feed_as_long_as_they_are_neither_too_many_nor_too_heavy() {
        let registry = Registry::new();
        let (sender, mut hints) = mpsc::channel(HINTS_MAX);
        let stream = Stream {
            mesh: Mesh::fixed(&MeshConfig::default(), &[], Secret::new("secret"), Clock::system(), &registry),
            followed: Arc::default(),
            hints: sender,
            room: Arc::new(Semaphore::new(HINTS_BYTES_MAX as usize)),
            metrics: Metrics::new(&registry),
        };
        // The test takes no turns.
        let waits = |hint| unconstrained(stream.hand_on(hint)).now_or_never().is_none();
        let mut heavy_ones = 0;
        while !waits(heavy()) {
            heavy_ones += 1;
        }
        assert_eq!(heavy_ones, 7, "with what each weighs beside its data");
        drop(hints.recv().await);
        assert!(!waits(heavy()), "what is taken makes room");
        while hints.try_recv().is_ok() {}
        let light = || Hint::Head(testing::category("a"), 1);
        for _ in 0..HINTS_MAX {
            assert!(!waits(light()));
        }
        assert!(waits(light()));
        drop(hints);
        assert_eq!(stream.hand_on(heavy()).await, None);
    }

    #[tokio::test]
    async fn a_stream_whose_reader_panics_is_one_that_broke_off() {
        let why = unbroken(async { panic!("a bug") }).await;
        assert!(matches!(why, Some(CallError::Cut { service: EVENTS, .. })), "{why:?}");
    }
}

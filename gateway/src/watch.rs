//! Watch: what the events service appends, as it appends it, by one stream to each of its instances.
//!
//! These are the hints of the feed of categories, and no more than hints: a stream that breaks costs the second until the feed looks at
//! the heads again, never an event. It comes back by itself, and what is followed is said again.

mod followed;
mod stream;

use std::{collections::HashMap, sync::Arc};

use notifyx_mesh::Mesh;
use notifyx_model::{Category, InstanceId};
use prometheus::{IntCounter, IntGauge, Registry};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::{AbortHandle, JoinHandle, JoinSet},
};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    backends::EVENTS,
    feed::{Categories, Hint, Hints},
};
use followed::Followed;
use stream::Stream;

/// Hints that may wait for the feed. When they do, a stream is not read; what its instance does not keep that long it tells as heads.
const HINTS_MAX: usize = 64;

/// What they may weigh together: a few of the largest, of 4 MiB each. Most have some kB.
const HINTS_BYTES_MAX: u32 = 16 * 1024 * 1024;

/// A hint that waits, and its share of what may.
type Waiting = (Hint<Categories>, OwnedSemaphorePermit);

#[derive(Clone, Debug)]
pub(crate) struct Metrics {
    pub(crate) streams: IntGauge,
    pub(crate) breaks: IntCounter,
}

impl Metrics {
    /// One registry per gateway; a name registered twice is a bug.
    pub(crate) fn new(registry: &Registry) -> Self {
        let streams = IntGauge::new("notifyx_gateway_watch_streams", "Instances of events whose watch stream is open.")
            .expect("the name is valid");
        let breaks = IntCounter::new(
            "notifyx_gateway_watch_breaks_total",
            "Watch streams that broke off or could not be opened.",
        )
        .expect("the name is valid");
        registry.register(Box::new(streams.clone())).expect("the name is free");
        registry.register(Box::new(breaks.clone())).expect("the name is free");
        Self { streams, breaks }
    }
}

/// What the streams bring, for the feed.
#[derive(Debug)]
pub(crate) struct Watch {
    followed: Arc<Followed>,
    hints: mpsc::Receiver<Waiting>,
}

impl Hints<Categories> for Watch {
    async fn next(&mut self) -> Option<Hint<Categories>> {
        self.hints.recv().await.map(|(hint, _)| hint)
    }

    fn follow(&mut self, name: &Category) {
        self.followed.follow(name);
    }

    fn unfollow(&mut self, name: &Category) {
        self.followed.unfollow(name);
    }
}

/// The task that keeps a stream to every instance; it ends with this.
#[derive(Debug)]
pub(crate) struct Watching {
    task: JoinHandle<()>,
    stop: DropGuard,
}

impl Watching {
    pub(crate) fn start(mesh: &Mesh, metrics: Metrics, runtime: &Handle) -> (Self, Watch) {
        let (sender, hints) = mpsc::channel(HINTS_MAX);
        let (followed, stop) = (Arc::<Followed>::default(), CancellationToken::new());
        let room = Arc::new(Semaphore::new(HINTS_BYTES_MAX as usize));
        let stream = Stream { mesh: mesh.clone(), followed: followed.clone(), hints: sender, room, metrics };
        let task = runtime.spawn(keep(stream, stop.clone()));
        (Self { task, stop: stop.drop_guard() }, Watch { followed, hints })
    }

    /// The feed has stopped.
    pub(crate) async fn stop(self) {
        drop(self.stop);
        // It ends within a step; that it panicked was logged when it did.
        let _ = self.task.await;
    }
}

/// A stream to each instance that the registry knows. One that left may still be there, unregistered: its stream is closed all the same,
/// for what it tells is found without it.
async fn keep(stream: Stream, stop: CancellationToken) {
    let mut instances = stream.mesh.instances(EVENTS);
    let mut tasks = JoinSet::new();
    let mut kept: HashMap<InstanceId, AbortHandle> = HashMap::new();
    while let Some(peers) = stop.run_until_cancelled(instances.next()).await {
        kept.retain(|instance, task| {
            let stays = peers.iter().any(|peer| peer.instance == *instance);
            if !stays {
                task.abort();
            }
            stays
        });
        for peer in peers {
            kept.entry(peer.instance).or_insert_with(|| tasks.spawn(stream.clone().keep_open(peer)));
        }
        // Those that were ended above.
        while tasks.try_join_next().is_some() {}
    }
    tasks.shutdown().await;
}

#[cfg(test)]
mod tests;

//! One worker thread of a node.

use std::{rc::Rc, sync::Arc};

use notifyx_model::UserId;
use tokio::{runtime::Handle, task::LocalSet};

use super::{Client, Fake, user_of};
use crate::{
    desk::Desk,
    feed::Feeds,
    hub::{Following, Hub, Metrics, Worker},
    platform::{Peer, Platform},
};

/// The feeds of a node whose hints a test gives.
pub(crate) fn feeds(hub: &Hub, platform: &Arc<Fake>) -> (Feeds, Following) {
    let behind: Arc<dyn Platform> = platform.clone();
    Feeds::start(hub, &behind, platform.bus.subscribe(), platform.watch.hints(), &Handle::current())
}

/// One worker thread of a node, on the test's own thread: run it within [`Node::run`].
pub(crate) struct Node {
    pub(crate) platform: Arc<Fake>,
    pub(crate) hub: Hub,
    following: Following,
    desk: Rc<Desk>,
    // Held, so that they run as long as the test.
    _feeds: Feeds,
}

impl Node {
    /// Runs a test beside a node.
    pub(crate) async fn run<F: Future<Output = ()>>(test: impl FnOnce(Rc<Self>) -> F) {
        let local = LocalSet::new();
        local.run_until(async { test(Rc::new(Self::start(Fake::new()))).await }).await;
    }

    fn start(platform: Arc<Fake>) -> Self {
        let hub = Hub::new(Metrics::new(&prometheus::Registry::new()));
        let (feeds, following) = feeds(&hub, &platform);
        let desk = Self::worker(&hub, &following, &platform);
        Self { platform, hub, following, desk, _feeds: feeds }
    }

    fn worker(hub: &Hub, following: &Following, platform: &Arc<Fake>) -> Rc<Desk> {
        let line = hub.attach();
        let worker = Worker::new(line.id, hub.clone(), following.clone(), platform.clock.clone());
        tokio::task::spawn_local(worker.clone().run(line));
        Desk::new(worker, platform.clone(), Handle::current())
    }

    pub(crate) fn user(&self) -> UserId {
        UserId::new(&self.platform.clock)
    }

    /// A client of a new user.
    pub(crate) fn client(&self) -> Client {
        self.client_of(self.user())
    }

    pub(crate) fn client_of(&self, user: UserId) -> Client {
        self.client_as(Peer::User(user_of(user)))
    }

    pub(crate) fn client_as(&self, peer: Peer) -> Client {
        Client::open(&self.desk, peer)
    }

    /// A client whose socket another worker thread serves.
    pub(crate) fn client_elsewhere(&self, user: UserId) -> Client {
        Client::open(&Self::worker(&self.hub, &self.following, &self.platform), Peer::User(user_of(user)))
    }
}

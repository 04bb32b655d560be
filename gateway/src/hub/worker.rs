//! One worker thread's part of the hub: its streams, its people, and the loop that hands them what comes.
//!
//! All of it lives on one thread: nothing is locked, and nothing awaits between a decision and what it decides.

mod delivery;
mod seats;
mod sockets;

use std::{
    cell::RefCell,
    collections::{HashMap, VecDeque},
    panic::AssertUnwindSafe,
    rc::Rc,
    time::Duration,
};

use futures_util::FutureExt;
use notifyx_model::{Clock, UserId};
use notifyx_wire::rest::auth::Revocation;
use slab::Slab;
use tokio::time::{Instant, MissedTickBehavior};

use super::{
    Dispatch, Ending, Following, Hub, Metrics, ToWorker, WorkerId, WorkerLine, lock,
    stream::{Stream, StreamName},
    watch::Watch,
};

use sockets::Socket;

pub(crate) use seats::{NotLive, Seat};
pub(crate) use sockets::Connection;

/// Bursts taken from the inbox at once: what waits for a stream goes out in one write per socket.
const TAKEN_AT_ONCE: usize = 64;

/// Sockets served before others on this thread get their turn.
const SERVED_AT_ONCE: usize = 512;

pub(crate) struct Worker {
    pub(crate) id: WorkerId,
    pub(crate) hub: Hub,
    pub(crate) following: Following,
    pub(crate) metrics: Metrics,
    clock: Clock,
    streams: RefCell<HashMap<StreamName, Rc<Stream>>>,
    vacant: RefCell<Vec<Rc<Stream>>>,
    sockets: RefCell<Slab<Socket>>,
    people: RefCell<HashMap<UserId, Person>>,
    pub(super) watches: RefCell<HashMap<UserId, Rc<Watch>>>,
    revoked: RefCell<VecDeque<(Instant, Revocation)>>,
}

/// What one person has on this thread.
#[derive(Default)]
struct Person {
    sockets: Vec<usize>,
    /// So that a targeted notification finds its recipients without a look at all members.
    seats: Vec<(Rc<Stream>, usize)>,
}

impl Worker {
    pub(crate) fn new(id: WorkerId, hub: Hub, following: Following, clock: Clock) -> Rc<Self> {
        let metrics = hub.metrics().clone();
        Rc::new(Self {
            id,
            hub,
            following,
            metrics,
            clock,
            streams: RefCell::default(),
            vacant: RefCell::default(),
            sockets: RefCell::default(),
            people: RefCell::default(),
            watches: RefCell::default(),
            revoked: RefCell::default(),
        })
    }

    /// Serves the inbox until the hub lets go of it.
    pub(crate) async fn run(self: Rc<Self>, mut line: WorkerLine) {
        while AssertUnwindSafe(self.serve_all(&mut line)).catch_unwind().await.is_err() {
            tracing::error!("the hub of a worker thread broke off and begins again: its sockets come back");
            self.begin_all_anew();
        }
    }

    async fn serve_all(self: &Rc<Self>, line: &mut WorkerLine) {
        let mut sweep = tokio::time::interval(Duration::from_secs(1));
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut taken = Vec::with_capacity(TAKEN_AT_ONCE);
        let wake = line.line.clone();
        loop {
            tokio::select! {
                count = line.take(&mut taken, TAKEN_AT_ONCE) => {
                    if count == 0 {
                        return;
                    }
                    self.serve(&mut taken).await;
                }
                () = wake.wake.notified() => {
                    let changed = std::mem::take(&mut *lock(&wake.changed));
                    for user in changed {
                        self.unread_changed(user);
                    }
                }
                _ = sweep.tick() => self.sweep().await,
            }
        }
    }

    /// Nobody knows who was given what was under way: who is here comes back, and asks what it lacks.
    fn begin_all_anew(&self) {
        self.hub.doubt();
        let streams: Vec<StreamName> = self.streams.borrow().keys().cloned().collect();
        for name in &streams {
            self.begin_anew(name);
        }
        self.end_all(Ending::Unavailable);
    }

    /// Groups by stream, in order within each.
    async fn serve(self: &Rc<Self>, taken: &mut Vec<ToWorker>) {
        let mut streams: Vec<(Rc<Stream>, Vec<Dispatch>)> = Vec::new();
        for message in taken.drain(..) {
            match message {
                ToWorker::Dispatch { stream: name, burst } => {
                    if let Some((_, waiting)) = streams.iter_mut().find(|(stream, _)| stream.name == name) {
                        waiting.extend_from_slice(&burst);
                    } else if let Some(stream) = self.streams.borrow().get(&name) {
                        streams.push((stream.clone(), burst.to_vec()));
                    }
                }
                ToWorker::BeginAnew(name) => {
                    // What came before it is void too.
                    streams.retain(|(stream, _)| stream.name != name);
                    self.begin_anew(&name);
                }
                ToWorker::Revoked(revocation) => self.revoke(revocation),
                ToWorker::Unsubscribed { user, topic } => self.unsubscribed(user, &topic),
                ToWorker::Drain => {
                    tokio::task::spawn_local(self.clone().drain());
                }
            }
        }
        for (stream, waiting) in streams {
            self.deliver(&stream, &waiting).await;
        }
    }

    fn unread_changed(&self, user: UserId) {
        if let Some(watch) = self.watches.borrow().get(&user) {
            watch.changed.notify_one();
        }
    }
}

//! A Phoenix client without a socket.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use notifyx_model::{Clock, UserId};
use serde_json::Value;
use tokio::{sync::Notify, time::Instant};

use crate::{
    desk::Desk,
    hub::{Connection, Ending, Outlet},
    platform::Peer,
    session::Session,
};

/// A Phoenix client without a socket.
pub(crate) struct Client {
    /// Of an API key its owner; of nobody in particular some id.
    pub(crate) user: UserId,
    pub(crate) session: Rc<Session>,
    pub(crate) outlet: Rc<Probe>,
    _connection: Connection,
}

impl Client {
    pub(super) fn open(desk: &Rc<Desk>, peer: Peer) -> Self {
        let outlet = Rc::new(Probe::default());
        let user = peer.owner().unwrap_or_else(|| UserId::new(&Clock::system()));
        let admission = desk.worker.hub.admit(usize::MAX).expect("there is room");
        let (session, connection) = Session::open(desk.clone(), (Arc::new(peer), admission), outlet.clone()).unwrap();
        Self { user, session, outlet, _connection: connection }
    }

    pub(crate) fn send(&self, frame: &Value) {
        self.session.text(&frame.to_string());
    }

    /// The next frame. A test that waits in vain is ended by its own runtime: time moves when nothing else does.
    pub(crate) async fn next(&self) -> Value {
        let frame = tokio::time::timeout(Duration::from_secs(60), self.outlet.next()).await;
        frame.expect("a frame comes within a minute")
    }

    pub(crate) async fn nexts(&self, count: usize) -> Vec<Value> {
        let mut frames = Vec::new();
        for _ in 0..count {
            frames.push(self.next().await);
        }
        frames
    }

    /// Offsets of so many notifications that come next.
    pub(crate) async fn offsets(&self, count: usize) -> Vec<u64> {
        self.offsets_of("new_notification", count).await
    }

    /// Offsets of so many messages that come next.
    pub(crate) async fn offsets_of(&self, what: &str, count: usize) -> Vec<u64> {
        let offset = |frame: Value| {
            assert_eq!(frame[3], what, "{frame}");
            frame[4]["offset"].as_u64().unwrap()
        };
        self.nexts(count).await.into_iter().map(offset).collect()
    }

    /// Nothing comes, for a while.
    pub(crate) async fn silence(&self) {
        let frame = tokio::time::timeout(Duration::from_secs(3), self.outlet.next()).await;
        assert!(frame.is_err(), "{frame:?}");
    }
}

/// Keeps what is sent to a client.
#[derive(Default)]
pub(crate) struct Probe {
    frames: RefCell<Vec<Value>>,
    came: Notify,
    pub(crate) ended: Cell<Option<Ending>>,
    /// What the client pretends not to have read.
    pub(crate) queued: Cell<usize>,
    pub(crate) drained: Notify,
    /// Whoever sends to the client panics.
    pub(crate) bug: Cell<bool>,
}

impl Probe {
    async fn next(&self) -> Value {
        loop {
            if !self.frames.borrow().is_empty() {
                return self.frames.borrow_mut().remove(0);
            }
            self.came.notified().await;
        }
    }
}

impl Probe {
    /// Whatever comes before. A test that waits in vain is ended by its own runtime, as in [`Client::next`].
    pub(crate) async fn ends(&self) -> Ending {
        let ended = async {
            loop {
                if let Some(ending) = self.ended.get() {
                    return ending;
                }
                self.came.notified().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), ended).await.expect("it ends within a minute")
    }
}

impl Outlet for Probe {
    fn send(&self, bytes: &Bytes, frames: usize) {
        assert!(!self.bug.get(), "as the test wants it");
        let found = texts(bytes);
        assert_eq!(found.len(), frames, "the count that is told is the count that is sent");
        self.frames.borrow_mut().extend(found.iter().map(|text| serde_json::from_str(text).unwrap()));
        self.came.notify_one();
    }

    fn end(&self, ending: Ending) {
        if self.ended.get().is_none() {
            self.ended.set(Some(ending));
            self.drained.notify_waiters();
            self.came.notify_one();
        }
    }

    fn is_open(&self) -> bool {
        self.ended.get().is_none()
    }

    fn queued_bytes(&self) -> usize {
        self.queued.get()
    }

    fn drained(&self) -> LocalBoxFuture<'_, ()> {
        Box::pin(self.drained.notified())
    }

    fn sweep(&self, _: Instant) {}
}

/// The payloads of joined server frames.
pub(crate) fn texts(mut bytes: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    while let [0x81, length, rest @ ..] = bytes {
        let (length, rest) = match length {
            126 => (usize::from(u16::from_be_bytes([rest[0], rest[1]])), &rest[2..]),
            127 => (usize::try_from(u64::from_be_bytes(rest[..8].try_into().unwrap())).unwrap(), &rest[8..]),
            length => (usize::from(*length), rest),
        };
        let (payload, rest) = rest.split_at(length);
        found.push(String::from_utf8(payload.to_vec()).unwrap());
        bytes = rest;
    }
    assert!(bytes.is_empty(), "whole text frames only");
    found
}

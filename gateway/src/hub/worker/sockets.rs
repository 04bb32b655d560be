//! The open sockets of this thread: whose they are, and what ends them.

use std::{
    rc::{Rc, Weak},
    sync::Arc,
    time::Duration,
};

use notifyx_model::{TopicName, UserId};
use notifyx_wire::rest::auth::Revocation;
use tokio::time::Instant;

use super::{SERVED_AT_ONCE, Worker};
use crate::{
    hub::{Admission, Ending, Listener, Outlet},
    platform::Peer,
};

/// A revocation is remembered for sockets whose handshake it overtook; longer than a handshake may take.
const REVOCATION_KEPT: Duration = Duration::from_secs(30);
const REVOCATIONS_KEPT_MAX: usize = 4096;

/// A publish takes some milliseconds, under load some hundred; a stop is not held up longer.
const ANSWERS_AWAITED: Duration = Duration::from_secs(1);
const ANSWERS_LOOKED_FOR: Duration = Duration::from_millis(10);

/// One open socket.
pub(super) struct Socket {
    peer: Arc<Peer>,
    outlet: Rc<dyn Outlet>,
    listener: Weak<dyn Listener>,
}

impl Worker {
    /// Registers an open socket, unless what it was opened with was revoked while it shook hands, or may have been.
    pub(crate) fn connect(
        self: &Rc<Self>,
        admission: Admission,
        peer: &Arc<Peer>,
        outlet: Rc<dyn Outlet>,
        listener: Weak<dyn Listener>,
    ) -> Result<Connection, Ending> {
        if self.hub.is_draining() || admission.is_doubted() {
            return Err(Ending::Drain);
        }
        if self.revoked.borrow().iter().any(|(_, revocation)| concerns(revocation, peer)) {
            return Err(Ending::Revoked);
        }
        let key = self.sockets.borrow_mut().insert(Socket { peer: peer.clone(), outlet, listener });
        let owner = peer.owner();
        if let Some(owner) = owner {
            self.people.borrow_mut().entry(owner).or_default().sockets.push(key);
        }
        Ok(Connection { worker: self.clone(), key, owner, _admission: admission })
    }

    fn disconnect(&self, key: usize, owner: Option<UserId>) {
        self.sockets.borrow_mut().remove(key);
        let Some(user) = owner else { return };
        let mut people = self.people.borrow_mut();
        if let Some(person) = people.get_mut(&user) {
            person.sockets.retain(|k| *k != key);
            if person.seats.is_empty() && person.sockets.is_empty() {
                people.remove(&user);
            }
        }
    }

    pub(super) fn revoke(&self, revocation: Revocation) {
        let people = self.people.borrow();
        let sockets = self.sockets.borrow();
        for key in people.get(&revocation.user_id).map_or(&[][..], |person| &person.sockets) {
            if let Some(socket) = sockets.get(*key).filter(|socket| concerns(&revocation, &socket.peer)) {
                socket.outlet.end(Ending::Revoked);
            }
        }
        let mut revoked = self.revoked.borrow_mut();
        if revoked.len() == REVOCATIONS_KEPT_MAX {
            revoked.pop_front();
        }
        revoked.push_back((Instant::now(), revocation));
    }

    pub(super) fn unsubscribed(&self, user: UserId, topic: &TopicName) {
        // Who hears of it leaves the topic, and changes what is looked through here: find first, tell after.
        let listeners: Vec<Rc<dyn Listener>> = {
            let (people, sockets) = (self.people.borrow(), self.sockets.borrow());
            let keys = people.get(&user).map_or(&[][..], |person| &person.sockets);
            keys.iter().filter_map(|key| sockets.get(*key)?.listener.upgrade()).collect()
        };
        for listener in listeners {
            listener.unsubscribed(topic);
        }
    }

    /// Ends all sockets; those that await an answer get it first, if it comes soon: without it a client would not know
    /// whether to publish again.
    pub(super) async fn drain(self: Rc<Self>) {
        let deadline = Instant::now() + ANSWERS_AWAITED;
        loop {
            let late = Instant::now() >= deadline;
            let mut waiting = false;
            for (_, socket) in self.sockets.borrow().iter() {
                if !late && socket.listener.upgrade().is_some_and(|listener| listener.awaits_answers()) {
                    waiting |= socket.outlet.is_open();
                } else {
                    socket.outlet.end(Ending::Drain);
                }
            }
            if !waiting {
                return;
            }
            tokio::time::sleep(ANSWERS_LOOKED_FOR).await;
        }
    }

    /// All at once, whatever they await.
    pub(super) fn end_all(&self, ending: Ending) {
        for (_, socket) in self.sockets.borrow().iter() {
            socket.outlet.end(ending);
        }
    }

    /// Ends what is silent or over, and forgets streams that nobody came back to.
    pub(super) async fn sweep(&self) {
        let (now, time) = (Instant::now(), self.clock.now());
        let mut next = 0;
        loop {
            let end = {
                let sockets = self.sockets.borrow();
                let end = sockets.capacity();
                for slot in next..end.min(next + SERVED_AT_ONCE) {
                    if let Some(socket) = sockets.get(slot) {
                        socket.outlet.sweep(now);
                        if socket.peer.expires_at().is_some_and(|at| at <= time) {
                            socket.outlet.end(Ending::Expired);
                        }
                    }
                }
                end
            };
            next += SERVED_AT_ONCE;
            if next >= end {
                break;
            }
            tokio::task::yield_now().await;
        }
        self.forget_vacant(now);
        let mut revoked = self.revoked.borrow_mut();
        while revoked.front().is_some_and(|(at, _)| now.duration_since(*at) > REVOCATION_KEPT) {
            revoked.pop_front();
        }
    }
}

fn concerns(revocation: &Revocation, peer: &Peer) -> bool {
    Some(revocation.user_id) == peer.owner()
        && (revocation.token_hash.is_none() || revocation.token_hash == peer.token_hash())
}

/// A registered socket; dropping it takes it off the list, and it counts no longer.
pub(crate) struct Connection {
    worker: Rc<Worker>,
    key: usize,
    owner: Option<UserId>,
    _admission: Admission,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.worker.disconnect(self.key, self.owner);
    }
}

//! One worker thread's part of the hub: its streams, its people, and the loop that hands them what comes.
//!
//! All of it lives on one thread: nothing is locked, and nothing awaits between a decision and what it decides.

use std::{
    cell::RefCell,
    collections::{HashMap, VecDeque},
    rc::{Rc, Weak},
    sync::Arc,
    time::Duration,
};

use notifyx_model::{Clock, TopicName, UserId};
use notifyx_wire::rest::auth::Revocation;
use slab::Slab;
use tokio::time::{Instant, MissedTickBehavior};

use super::{
    Audience, Dispatch, Ending, Following, Hub, Listener, Metrics, Outlet, ToWorker, WorkerId, WorkerLine, lock,
    run::Run,
    stream::{Member, Overflowed, Stream, StreamName},
    watch::{HeadFrame, Watch},
};
use crate::platform::Peer;

/// Bursts taken from the inbox at once: what waits for a stream goes out in one write per socket.
const TAKEN_AT_ONCE: usize = 64;

/// Sockets served before others on this thread get their turn.
const SERVED_AT_ONCE: usize = 512;

/// A stream that nobody is in is kept this long, so that a page reload does not make the feed forget it.
const VACANT_KEPT: Duration = Duration::from_secs(10);

/// A revocation is remembered for sockets whose handshake it overtook; longer than a handshake may take.
const REVOCATION_KEPT: Duration = Duration::from_secs(30);
const REVOCATIONS_KEPT_MAX: usize = 4096;

/// A publish takes some milliseconds, under load some hundred; a stop is not held up longer.
const ANSWERS_AWAITED: Duration = Duration::from_secs(1);
const ANSWERS_LOOKED_FOR: Duration = Duration::from_millis(10);

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

/// One open socket.
struct Socket {
    peer: Arc<Peer>,
    outlet: Rc<dyn Outlet>,
    listener: Weak<dyn Listener>,
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

    /// Hands a stream's messages to its members. What is for all between two targeted ones goes out joined.
    async fn deliver(&self, stream: &Rc<Stream>, dispatches: &[Dispatch]) {
        let Some(last) = dispatches.last() else { return };
        // Who enters from now on, in a pause of this very delivery, reads these in the store.
        stream.delivered_up_to(last.offset());
        let mut rest = dispatches;
        while let Some(first) = rest.first() {
            if !first.to().is_empty() {
                rest = &rest[1..];
                self.deliver_to_recipients(stream, first);
                continue;
            }
            let for_all = rest.iter().take_while(|dispatch| dispatch.to().is_empty()).count();
            let (now, after) = rest.split_at(for_all);
            rest = after;
            for (nth, run) in Run::cut(now).enumerate() {
                if nth > 0 {
                    // What other tasks write for their clients goes out before more is handed to them.
                    tokio::task::yield_now().await;
                }
                self.deliver_to_all(stream, &Rc::new(run)).await;
            }
            if let StreamName::Topic(topic) = &stream.name {
                self.tell_watchers(stream, topic, now).await;
            }
        }
    }

    async fn deliver_to_all(&self, stream: &Stream, run: &Rc<Run>) {
        let mut next = 0;
        loop {
            let mut sent = 0;
            let end = {
                let mut members = stream.members.borrow_mut();
                let end = members.capacity();
                for slot in next..end.min(next + SERVED_AT_ONCE) {
                    if let Some(member) = members.get_mut(slot) {
                        sent += member.deliver(run);
                    }
                }
                end
            };
            self.metrics.deliveries.inc_by(sent as u64);
            next += SERVED_AT_ONCE;
            if next >= end {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    fn deliver_to_recipients(&self, stream: &Rc<Stream>, dispatch: &Dispatch) {
        let run = Rc::new(Run::new(vec![dispatch.clone()]));
        let people = self.people.borrow();
        let mut members = stream.members.borrow_mut();
        let mut sent = 0;
        for user in dispatch.to() {
            let seats = people.get(user).map_or(&[][..], |person| &person.seats);
            for (_, slot) in seats.iter().filter(|(seat, _)| Rc::ptr_eq(seat, stream)) {
                if let Some(member) = members.get_mut(*slot) {
                    sent += member.deliver(&run);
                }
            }
            self.unread_changed(*user);
        }
        self.metrics.deliveries.inc_by(sent as u64);
    }

    async fn tell_watchers(&self, stream: &Stream, topic: &TopicName, broadcasts: &[Dispatch]) {
        if stream.watchers.borrow().is_empty() {
            return;
        }
        for broadcast_no in broadcasts.iter().filter_map(Dispatch::broadcast_no) {
            let mut head = HeadFrame::new(topic, broadcast_no);
            let mut next = 0;
            loop {
                let end = {
                    let mut watchers = stream.watchers.borrow_mut();
                    let end = watchers.capacity();
                    for slot in next..end.min(next + SERVED_AT_ONCE) {
                        if let Some(watcher) = watchers.get_mut(slot) {
                            watcher.tell(&mut head);
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
        }
    }

    fn unread_changed(&self, user: UserId) {
        if let Some(watch) = self.watches.borrow().get(&user) {
            watch.changed.notify_one();
        }
    }

    /// The stream's place on this thread, made if there is none.
    pub(super) fn stream(&self, name: &StreamName) -> Rc<Stream> {
        let mut streams = self.streams.borrow_mut();
        if let Some(stream) = streams.get(name) {
            return stream.clone();
        }
        let stream = Rc::new(Stream::new(name.clone()));
        streams.insert(name.clone(), stream.clone());
        stream
    }

    /// Takes a seat in a stream: from this moment on nothing that comes is lost to it. It is kept until [`Seat::go_live`].
    /// `user` is whom a targeted message finds there.
    pub(crate) fn enter(self: &Rc<Self>, name: &StreamName, user: Option<UserId>, audience: Rc<dyn Audience>) -> Seat {
        let stream = self.stream(name);
        let slot = stream.members.borrow_mut().insert(Member::new(audience));
        if let Some(user) = user {
            self.people.borrow_mut().entry(user).or_default().seats.push((stream.clone(), slot));
        }
        let covered = stream.delivered();
        Seat { worker: self.clone(), stream, slot, user, covered }
    }

    fn leave(&self, stream: &Rc<Stream>, slot: usize, user: Option<UserId>) {
        stream.members.borrow_mut().remove(slot);
        if let Some(user) = user {
            let mut people = self.people.borrow_mut();
            if let Some(person) = people.get_mut(&user) {
                person.seats.retain(|(seat, s)| !(Rc::ptr_eq(seat, stream) && *s == slot));
                if person.seats.is_empty() && person.sockets.is_empty() {
                    people.remove(&user);
                }
            }
        }
        self.note_vacancy(stream);
    }

    pub(super) fn note_vacancy(&self, stream: &Rc<Stream>) {
        if stream.is_vacant() && stream.vacant_since.replace(Some(Instant::now())).is_none() {
            self.vacant.borrow_mut().push(stream.clone());
        }
    }

    /// Registers an open socket, unless what it was opened with was revoked while it shook hands.
    pub(crate) fn connect(
        self: &Rc<Self>,
        peer: &Arc<Peer>,
        outlet: Rc<dyn Outlet>,
        listener: Weak<dyn Listener>,
    ) -> Result<Connection, Ending> {
        if self.hub.is_draining() {
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
        Ok(Connection { worker: self.clone(), key, owner })
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

    fn revoke(&self, revocation: Revocation) {
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

    fn unsubscribed(&self, user: UserId, topic: &TopicName) {
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
    async fn drain(self: Rc<Self>) {
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

    /// Ends what is silent or over, and forgets streams that nobody came back to.
    async fn sweep(&self) {
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

    /// Never waits for the feed: the feed may be waiting for this thread's inbox.
    fn forget_vacant(&self, now: Instant) {
        for stream in self.vacant.take() {
            if !stream.is_vacant() {
                stream.vacant_since.set(None);
                continue;
            }
            let early = stream.vacant_since.get().is_some_and(|since| now.duration_since(since) < VACANT_KEPT);
            // Nobody can enter between the look above and this wish: both are one step on this thread.
            if !early && self.following.try_unfollow(&stream.name, self.id) {
                self.streams.borrow_mut().remove(&stream.name);
            } else {
                self.vacant.borrow_mut().push(stream);
            }
        }
    }
}

fn concerns(revocation: &Revocation, peer: &Peer) -> bool {
    Some(revocation.user_id) == peer.owner()
        && (revocation.token_hash.is_none() || revocation.token_hash == peer.token_hash())
}

/// A registered socket; dropping it takes it off the list.
pub(crate) struct Connection {
    worker: Rc<Worker>,
    key: usize,
    owner: Option<UserId>,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.worker.disconnect(self.key, self.owner);
    }
}

/// A place in a stream; dropping it leaves the stream.
pub(crate) struct Seat {
    worker: Rc<Worker>,
    stream: Rc<Stream>,
    slot: usize,
    user: Option<UserId>,
    /// All above this offset comes to the seat; `None` where the feed must be asked.
    covered: Option<u64>,
}

impl Seat {
    pub(crate) fn covered(&self) -> Option<u64> {
        self.covered
    }

    /// What the feed answered: the first offset it delivers from now on. Who enters later need not ask.
    pub(crate) fn feed_begins(&mut self, first: u64) -> u64 {
        self.stream.delivered_up_to(first.saturating_sub(1));
        *self.covered.insert(first.saturating_sub(1))
    }

    /// Sends what came above `after` and turns live, in one step. Where too much came, answers the offset up to which the
    /// store must be read; what comes above that is kept again.
    pub(crate) fn go_live(&mut self, after: u64) -> Result<(), u64> {
        let mut members = self.stream.members.borrow_mut();
        let Some(member) = members.get_mut(self.slot) else { return Ok(()) };
        match member.go_live(after) {
            Ok(sent) => {
                self.worker.metrics.deliveries.inc_by(sent as u64);
                Ok(())
            }
            Err(Overflowed) => Err(self.stream.delivered().unwrap_or(after)),
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.worker.leave(&self.stream, self.slot, self.user);
    }
}

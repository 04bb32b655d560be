//! One worker thread's part of the hub: its topics, its people, and the loop that hands them what comes.
//!
//! All of it lives on one thread: nothing is locked, and nothing awaits between a decision and what it decides.

use std::{
    cell::RefCell,
    collections::{HashMap, VecDeque},
    rc::{Rc, Weak},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use notifyx_model::{Clock, TopicName, UserId};
use notifyx_wire::rest::auth::Revocation;
use slab::Slab;
use tokio::time::{Instant, MissedTickBehavior};

use super::{
    Dispatch, Ending, Following, Hub, Listener, Metrics, Outlet, ToWorker, WorkerId, WorkerLine,
    following::Wish,
    lock,
    run::Run,
    topic::{Member, Overflowed, Topic},
    watch::{HeadFrame, Watch},
};
use crate::platform::Peer;

/// Bursts taken from the inbox at once: what waits for a topic goes out in one write per socket.
const TAKEN_AT_ONCE: usize = 64;

/// Sockets served before others on this thread get their turn.
const SERVED_AT_ONCE: usize = 512;

/// A topic that nobody is in is kept this long, so that a page reload does not make the feed forget it.
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
    topics: RefCell<HashMap<TopicName, Rc<Topic>>>,
    vacant: RefCell<Vec<Rc<Topic>>>,
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
    seats: Vec<(Rc<Topic>, usize)>,
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
            topics: RefCell::default(),
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

    /// Groups by topic, in order within each.
    async fn serve(self: &Rc<Self>, taken: &mut Vec<ToWorker>) {
        let mut topics: Vec<(Rc<Topic>, Vec<Dispatch>)> = Vec::new();
        for message in taken.drain(..) {
            match message {
                ToWorker::Dispatch(burst) => {
                    let Some(name) = burst.first().map(|first| &first.notification.topic) else { continue };
                    if let Some((_, waiting)) = topics.iter_mut().find(|(topic, _)| topic.name == *name) {
                        waiting.extend_from_slice(&burst);
                    } else if let Some(topic) = self.topics.borrow().get(name) {
                        topics.push((topic.clone(), burst.to_vec()));
                    }
                }
                ToWorker::Revoked(revocation) => self.revoke(revocation),
                ToWorker::Unsubscribed { user, topic } => self.unsubscribed(user, &topic),
                ToWorker::Drain => {
                    tokio::task::spawn_local(self.clone().drain());
                }
            }
        }
        for (topic, waiting) in topics {
            self.deliver(&topic, &waiting).await;
        }
    }

    /// Hands a topic's notifications to its members. Broadcasts between two targeted ones go out joined.
    async fn deliver(&self, topic: &Rc<Topic>, dispatches: &[Dispatch]) {
        let Some(last) = dispatches.last() else { return };
        // Who enters from now on, in a pause of this very delivery, reads these in the store.
        topic.delivered_up_to(last.notification.offset);
        let mut rest = dispatches;
        while let Some(first) = rest.first() {
            if !first.notification.to.is_empty() {
                rest = &rest[1..];
                self.deliver_to_recipients(topic, first);
                continue;
            }
            let broadcasts = rest.iter().take_while(|d| d.notification.to.is_empty()).count();
            let (now, after) = rest.split_at(broadcasts);
            rest = after;
            let frames: Vec<(u64, Bytes)> = now.iter().map(|d| (d.notification.offset, d.frame.clone())).collect();
            for run in Run::cut(&frames) {
                self.deliver_to_all(topic, &Rc::new(run)).await;
            }
            self.tell_watchers(topic, now).await;
        }
    }

    async fn deliver_to_all(&self, topic: &Topic, run: &Rc<Run>) {
        let mut next = 0;
        loop {
            let mut sent = 0;
            let end = {
                let mut members = topic.members.borrow_mut();
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

    fn deliver_to_recipients(&self, topic: &Rc<Topic>, dispatch: &Dispatch) {
        let run = Rc::new(Run::join(&[(dispatch.notification.offset, dispatch.frame.clone())]));
        let people = self.people.borrow();
        let mut members = topic.members.borrow_mut();
        let mut sent = 0;
        for user in &dispatch.notification.to {
            let seats = people.get(user).map_or(&[][..], |person| &person.seats);
            for (_, slot) in seats.iter().filter(|(seat, _)| Rc::ptr_eq(seat, topic)) {
                if let Some(member) = members.get_mut(*slot) {
                    sent += member.deliver(&run);
                }
            }
            self.unread_changed(*user);
        }
        self.metrics.deliveries.inc_by(sent as u64);
    }

    async fn tell_watchers(&self, topic: &Topic, broadcasts: &[Dispatch]) {
        if topic.watchers.borrow().is_empty() {
            return;
        }
        for broadcast_no in broadcasts.iter().filter_map(|d| d.notification.broadcast_no) {
            let mut head = HeadFrame::new(&topic.name, broadcast_no);
            let mut next = 0;
            loop {
                let end = {
                    let mut watchers = topic.watchers.borrow_mut();
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

    /// The topic's place on this thread, made if there is none.
    pub(super) fn topic(&self, name: &TopicName) -> Rc<Topic> {
        let mut topics = self.topics.borrow_mut();
        if let Some(topic) = topics.get(name) {
            return topic.clone();
        }
        let topic = Rc::new(Topic::new(name.clone()));
        topics.insert(name.clone(), topic.clone());
        topic
    }

    /// Takes a seat in a topic: from this moment on nothing that comes is lost to it. It is kept until
    /// [`Seat::go_live`].
    pub(crate) fn enter(self: &Rc<Self>, name: &TopicName, user: UserId, outlet: Rc<dyn Outlet>) -> Seat {
        let topic = self.topic(name);
        let slot = topic.members.borrow_mut().insert(Member::new(outlet));
        self.people.borrow_mut().entry(user).or_default().seats.push((topic.clone(), slot));
        let covered = topic.delivered();
        Seat { worker: self.clone(), topic, slot, user, covered }
    }

    fn leave(&self, topic: &Rc<Topic>, slot: usize, user: UserId) {
        topic.members.borrow_mut().remove(slot);
        let mut people = self.people.borrow_mut();
        if let Some(person) = people.get_mut(&user) {
            person.seats.retain(|(seat, s)| !(Rc::ptr_eq(seat, topic) && *s == slot));
            if person.seats.is_empty() && person.sockets.is_empty() {
                people.remove(&user);
            }
        }
        drop(people);
        self.note_vacancy(topic);
    }

    pub(super) fn note_vacancy(&self, topic: &Rc<Topic>) {
        if topic.is_vacant() && topic.vacant_since.replace(Some(Instant::now())).is_none() {
            self.vacant.borrow_mut().push(topic.clone());
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

    /// Ends what is silent or over, and forgets topics that nobody came back to.
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
        for topic in self.vacant.take() {
            if !topic.is_vacant() {
                topic.vacant_since.set(None);
                continue;
            }
            let early = topic.vacant_since.get().is_some_and(|since| now.duration_since(since) < VACANT_KEPT);
            match self.following.try_reserve() {
                // Nobody can enter between the look above and this wish: both are one step on this thread.
                Some(permit) if !early => {
                    self.topics.borrow_mut().remove(&topic.name);
                    permit.send(Wish::Unfollow { topic: topic.name.clone(), worker: self.id });
                }
                Some(_) | None => self.vacant.borrow_mut().push(topic),
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

/// A place in a topic; dropping it leaves the topic.
pub(crate) struct Seat {
    worker: Rc<Worker>,
    topic: Rc<Topic>,
    slot: usize,
    user: UserId,
    /// All above this offset comes to the seat; `None` where the feed must be asked.
    covered: Option<u64>,
}

impl Seat {
    pub(crate) fn covered(&self) -> Option<u64> {
        self.covered
    }

    /// What the feed answered: the first offset it delivers from now on. Who enters later need not ask.
    pub(crate) fn feed_begins(&mut self, first: u64) -> u64 {
        self.topic.delivered_up_to(first.saturating_sub(1));
        *self.covered.insert(first.saturating_sub(1))
    }

    /// Sends what came above `after` and turns live, in one step. Where too much came, answers the offset up to which the
    /// store must be read; what comes above that is kept again.
    pub(crate) fn go_live(&mut self, after: u64) -> Result<(), u64> {
        let mut members = self.topic.members.borrow_mut();
        let Some(member) = members.get_mut(self.slot) else { return Ok(()) };
        match member.go_live(after) {
            Ok(sent) => {
                self.worker.metrics.deliveries.inc_by(sent as u64);
                Ok(())
            }
            Err(Overflowed) => Err(self.topic.delivered().unwrap_or(after)),
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.worker.leave(&self.topic, self.slot, self.user);
    }
}

//! Who sits in which stream of this thread.

use std::{rc::Rc, time::Duration};

use notifyx_model::UserId;
use tokio::time::Instant;

use super::Worker;
use crate::hub::{
    Audience,
    stream::{Member, Overflowed, Stream, StreamName},
};

/// A stream that nobody is in is kept this long, so that a page reload does not make the feed forget it.
const VACANT_KEPT: Duration = Duration::from_secs(10);

impl Worker {
    /// The stream's place on this thread, made if there is none.
    pub(in crate::hub) fn stream(&self, name: &StreamName) -> Rc<Stream> {
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
        let (covered, beginning) = (stream.covered(), stream.beginnings());
        Seat { worker: self.clone(), stream, slot, user, covered, beginning }
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

    pub(super) fn begin_anew(&self, name: &StreamName) {
        let stream = self.streams.borrow().get(name).cloned();
        if let Some(stream) = stream {
            stream.begins_anew();
            self.note_vacancy(&stream);
        }
    }

    pub(in crate::hub) fn note_vacancy(&self, stream: &Rc<Stream>) {
        if stream.is_vacant() && stream.vacant_since.replace(Some(Instant::now())).is_none() {
            self.vacant.borrow_mut().push(stream.clone());
        }
    }

    /// Never waits for the feed: the feed may be waiting for this thread's inbox.
    pub(super) fn forget_vacant(&self, now: Instant) {
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

/// A place in a stream; dropping it leaves the stream.
pub(crate) struct Seat {
    worker: Rc<Worker>,
    stream: Rc<Stream>,
    slot: usize,
    user: Option<UserId>,
    /// All above this offset comes to the seat; `None` where the feed must be asked.
    covered: Option<u64>,
    /// Which of the stream's beginnings that is about.
    beginning: u64,
}

/// Why a seat is not live yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NotLive {
    /// Too much came: the store must be read up to this offset. What comes above it is kept again.
    Behind(u64),
    /// The stream has begun anew since the seat was taken.
    BegunAnew,
}

impl Seat {
    pub(crate) fn covered(&self) -> Option<u64> {
        self.covered
    }

    /// What the feed answered: the first offset it delivers from now on. Who enters later need not ask.
    pub(crate) fn feed_begins(&mut self, first: u64) -> u64 {
        if self.beginning == self.stream.beginnings() {
            self.stream.feed_begins(first);
        }
        *self.covered.insert(first.saturating_sub(1))
    }

    /// Sends what came above `after` and turns live, in one step.
    pub(crate) fn go_live(&mut self, after: u64) -> Result<(), NotLive> {
        if self.beginning != self.stream.beginnings() {
            return Err(NotLive::BegunAnew);
        }
        let mut members = self.stream.members.borrow_mut();
        let Some(member) = members.get_mut(self.slot) else { return Ok(()) };
        match member.go_live(after) {
            Ok(sent) => {
                self.worker.metrics.deliveries.inc_by(sent as u64);
                Ok(())
            }
            Err(Overflowed) => Err(NotLive::Behind(self.stream.handed())),
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.worker.leave(&self.stream, self.slot, self.user);
    }
}

//! User channels of one worker thread: who is watched, through which outlets, and on which topics.
//!
//! A watched person is told of broadcasts by number only. The frame differs between people in nothing but the id, which has
//! a fixed length: the rest is written once per broadcast.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    rc::Rc,
};

use bytes::{Bytes, BytesMut};
use notifyx_model::{TopicName, UserId};
use notifyx_wire::{
    phoenix::{
        channel::{HEAD, HeadPushed, USER_PREFIX},
        text,
    },
    websocket,
};
use slab::Slab;
use tokio::{sync::Notify, task::AbortHandle};

use super::{
    Outlet,
    stream::{Stream, StreamName},
    worker::Worker,
};

/// One person whose user channel is open here, through one socket or several.
pub(crate) struct Watch {
    pub(crate) user: UserId,
    /// Somebody's unread count may have changed: the keeper asks the platform and tells the outlets.
    pub(crate) changed: Notify,
    outlets: RefCell<Slab<Viewer>>,
    topics: RefCell<HashMap<TopicName, (Rc<Stream>, usize)>>,
    keeper: Cell<Option<AbortHandle>>,
}

struct Viewer {
    outlet: Rc<dyn Outlet>,
    /// Joined: until then it is told nothing.
    ready: bool,
}

/// A watched person at one topic.
pub(super) struct Watcher {
    watch: Rc<Watch>,
    /// The newest broadcast that the person was told of, or was there when it began to watch.
    newest: u64,
}

impl Watch {
    pub(super) fn new(user: UserId) -> Self {
        Self {
            user,
            changed: Notify::new(),
            outlets: RefCell::default(),
            topics: RefCell::default(),
            keeper: Cell::new(None),
        }
    }

    /// The task that keeps this watch up to date; it ends with the watch.
    pub(crate) fn kept_by(&self, keeper: AbortHandle) {
        self.keeper.set(Some(keeper));
    }

    /// To every outlet that has joined.
    pub(crate) fn send(&self, frame: &Bytes) {
        for (_, viewer) in self.outlets.borrow().iter().filter(|(_, viewer)| viewer.ready) {
            viewer.outlet.send(frame, 1);
        }
    }

    pub(crate) fn is_watching(&self, topic: &TopicName) -> bool {
        self.topics.borrow().contains_key(topic)
    }

    /// The newest broadcast of a topic that is watched.
    pub(crate) fn newest(&self, topic: &TopicName) -> Option<u64> {
        let topics = self.topics.borrow();
        let (topic, slot) = topics.get(topic)?;
        topic.watchers.borrow().get(*slot).map(|watcher| watcher.newest)
    }

    /// The store knows of this broadcast: it is told, if it was not.
    pub(crate) fn heard(&self, topic: &TopicName, broadcast_no: u64) {
        if let Some((stream, slot)) = self.topics.borrow().get(topic)
            && let Some(watcher) = stream.watchers.borrow_mut().get_mut(*slot)
        {
            watcher.tell(&mut HeadFrame::new(topic, broadcast_no));
        }
    }
}

impl Worker {
    /// Opens a user channel; nothing is sent to it before [`Viewing::ready`]. True where it is the person's first here.
    pub(crate) fn watch(self: &Rc<Self>, user: UserId, outlet: Rc<dyn Outlet>) -> (Viewing, bool) {
        let mut watches = self.watches.borrow_mut();
        let first = !watches.contains_key(&user);
        let watch = watches.entry(user).or_insert_with(|| Rc::new(Watch::new(user))).clone();
        if first {
            self.hub.watch_begins(user);
        }
        let slot = watch.outlets.borrow_mut().insert(Viewer { outlet, ready: false });
        (Viewing { worker: self.clone(), watch, slot }, first)
    }

    /// Begins to tell the person of a topic's broadcasts above `broadcast_no`.
    pub(crate) fn watch_topic(&self, watch: &Rc<Watch>, name: &TopicName, broadcast_no: u64) -> Rc<Stream> {
        let topic = self.stream(&StreamName::Topic(name.clone()));
        watch.topics.borrow_mut().entry(name.clone()).or_insert_with(|| {
            let slot = topic.watchers.borrow_mut().insert(Watcher { watch: watch.clone(), newest: broadcast_no });
            (topic.clone(), slot)
        });
        topic
    }

    /// Lets go of the topics that `keep` refuses.
    pub(crate) fn unwatch_topics(&self, watch: &Watch, keep: impl Fn(&TopicName) -> bool) {
        watch.topics.borrow_mut().retain(|name, (topic, slot)| {
            let kept = keep(name);
            if !kept {
                topic.watchers.borrow_mut().remove(*slot);
                self.note_vacancy(topic);
            }
            kept
        });
    }
}

/// An open user channel; dropping it closes it.
pub(crate) struct Viewing {
    worker: Rc<Worker>,
    pub(crate) watch: Rc<Watch>,
    slot: usize,
}

impl Viewing {
    pub(crate) fn ready(&self) {
        if let Some(viewer) = self.watch.outlets.borrow_mut().get_mut(self.slot) {
            viewer.ready = true;
        }
    }
}

impl Drop for Viewing {
    fn drop(&mut self) {
        self.watch.outlets.borrow_mut().remove(self.slot);
        if !self.watch.outlets.borrow().is_empty() {
            return;
        }
        self.worker.watches.borrow_mut().remove(&self.watch.user);
        self.worker.hub.watch_ends(self.watch.user);
        for (topic, slot) in self.watch.topics.take().into_values() {
            topic.watchers.borrow_mut().remove(slot);
            self.worker.note_vacancy(&topic);
        }
        if let Some(keeper) = self.watch.keeper.take() {
            keeper.abort();
        }
    }
}

/// `head {topic, broadcast_no}` for any person: all but the id.
pub(super) struct HeadFrame {
    text: BytesMut,
    id_at: usize,
    broadcast_no: u64,
}

/// An id as text.
const ID_BYTES: usize = 36;

impl HeadFrame {
    pub(super) fn new(topic: &TopicName, broadcast_no: u64) -> Self {
        let blank = format!("{USER_PREFIX}{}", "0".repeat(ID_BYTES));
        let pushed = HeadPushed { topic: topic.clone(), broadcast_no };
        let whole = websocket::text(&text::broadcast(&blank, HEAD, &pushed));
        let prefix = br#"[null,null,"user:"#;
        let header = whole.windows(prefix.len()).position(|w| w == prefix).expect("the frame begins with it");
        Self { text: BytesMut::from(&whole[..]), id_at: header + prefix.len(), broadcast_no }
    }

    /// The frame for one person.
    pub(super) fn addressed(&mut self, user: UserId) -> Bytes {
        let id = &mut self.text[self.id_at..self.id_at + ID_BYTES];
        user.uuid().hyphenated().encode_lower(id);
        Bytes::copy_from_slice(&self.text)
    }
}

impl Watcher {
    /// What was known of the topic is void: the keeper asks for all that is unread, and watches it again.
    pub(super) fn watch_anew(self, topic: &TopicName) {
        self.watch.topics.borrow_mut().remove(topic);
        self.watch.changed.notify_one();
    }

    /// Tells the person, once per broadcast.
    pub(super) fn tell(&mut self, head: &mut HeadFrame) {
        if head.broadcast_no > self.newest {
            self.newest = head.broadcast_no;
            self.watch.send(&head.addressed(self.watch.user));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shared_frame_reads_as_if_written_for_each() {
        let topic = TopicName::parse("bill \"user:\" ing").unwrap();
        let mut head = HeadFrame::new(&topic, 7);
        for id in ["01890a5d-ac96-774b-bcce-b302099a8057", "ffffffff-ac96-774b-bcce-b302099a8057"] {
            let expected =
                text::broadcast(&format!("user:{id}"), HEAD, &HeadPushed { topic: topic.clone(), broadcast_no: 7 });
            assert_eq!(head.addressed(id.parse().unwrap()), websocket::text(&expected));
        }
    }
}

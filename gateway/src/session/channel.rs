//! One channel of a session: its line of waiting messages, and its place in the hub.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    sync::Arc,
};

use notifyx_model::{Category, TopicName, UserId};
use notifyx_wire::phoenix::channel::{EVENTS_PREFIX, NOTIFICATION_PREFIX, USER_PREFIX};

use super::{fault::Fault, request::Request};
use crate::{
    hub::{Seat, Viewing},
    platform::{Peer, SocketUser},
};

/// Of a topic's name in a refusal; the frame that refuses names the topic whole.
const TOLD_MAX: usize = 250;

/// What a Phoenix topic stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Notification {
        name: TopicName,
        user: Arc<SocketUser>,
    },
    Events(Category),
    /// The session's own user.
    User(Arc<SocketUser>),
}

impl Kind {
    /// `None`: no channel has such a topic.
    pub(super) fn parse(topic: &str, peer: &Peer) -> Option<Result<Self, Fault>> {
        let user = || peer.user().cloned().ok_or_else(|| Fault::UsersOnly(topic.chars().take(TOLD_MAX).collect()));
        if let Some(name) = topic.strip_prefix(NOTIFICATION_PREFIX) {
            let name = TopicName::parse(name).map_err(Fault::from);
            return Some(user().and_then(|user| Ok(Self::Notification { name: name?, user })));
        }
        if let Some(name) = topic.strip_prefix(EVENTS_PREFIX) {
            return Some(Category::parse(name).map_err(Fault::from).and_then(|category| {
                peer.may_subscribe(&category)?;
                Ok(Self::Events(category))
            }));
        }
        let id: UserId = topic.strip_prefix(USER_PREFIX)?.parse().ok()?;
        Some(user().and_then(|user| if user.id == id { Ok(Self::User(user)) } else { Err(Fault::NotYours(id)) }))
    }
}

pub(super) struct Channel {
    /// The Phoenix topic, as the client names it.
    pub(super) topic: Box<str>,
    pub(super) kind: Kind,
    pub(super) join_ref: Option<Box<str>>,
    pub(super) stage: Cell<Stage>,
    /// The joins whose place this one takes; closed once this one has its answer.
    pub(super) replaces: RefCell<Vec<Option<Box<str>>>>,
    pub(super) waiting: RefCell<VecDeque<Waiting>>,
    /// A task is taking what waits.
    pub(super) working: Cell<bool>,
    place: RefCell<Option<Place>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Joining,
    /// The join is answered, and the client is being brought up to date.
    CatchingUp,
    Joined,
    /// Left, closed, or replaced by another join. What was sent before is still done.
    Ended,
}

pub(super) struct Waiting {
    pub(super) request: Request,
    pub(super) reference: Option<Box<str>>,
    pub(super) share: Share,
}

/// What waits or is being done on one socket.
#[derive(Default)]
pub(super) struct Load {
    pub(super) messages: Cell<usize>,
    pub(super) bytes: Cell<usize>,
}

/// One message's part of the load; dropping it takes it off.
pub(super) struct Share {
    load: Rc<Load>,
    bytes: usize,
}

impl Share {
    pub(super) fn of(load: &Rc<Load>, bytes: usize) -> Self {
        load.messages.set(load.messages.get() + 1);
        load.bytes.set(load.bytes.get() + bytes);
        Self { load: load.clone(), bytes }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.load.messages.set(self.load.messages.get() - 1);
        self.load.bytes.set(self.load.bytes.get() - self.bytes);
    }
}

/// Where the hub delivers to the channel; dropping it ends the stream.
pub(super) enum Place {
    #[expect(dead_code, reason = "held to be dropped")]
    Stream(Seat),
    #[expect(dead_code, reason = "held to be dropped")]
    User(Viewing),
}

impl Channel {
    pub(super) fn new(topic: &str, kind: Kind, join_ref: Option<&str>, replaces: Vec<Option<Box<str>>>) -> Self {
        Self {
            topic: topic.into(),
            kind,
            join_ref: join_ref.map(Into::into),
            stage: Cell::new(Stage::Joining),
            replaces: RefCell::new(replaces),
            waiting: RefCell::default(),
            working: Cell::new(false),
            place: RefCell::default(),
        }
    }

    pub(super) fn settle(&self, place: Place) {
        self.stage.set(Stage::Joined);
        *self.place.borrow_mut() = Some(place);
    }

    /// Ends the stream. What waits behind an unfinished join has nothing to wait for.
    pub(super) fn end(&self) {
        if matches!(self.stage.replace(Stage::Ended), Stage::Joining | Stage::CatchingUp) {
            drop(self.waiting.take());
        }
        drop(self.place.take());
    }

    pub(super) fn has_ended(&self) -> bool {
        self.stage.get() == Stage::Ended
    }
}

//! Persist, auth, events and publishing in memory: what it holds, and what a test does to it.

mod platform;

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard},
};

use notifyx_chassis::reply;
use notifyx_mesh::Bus;
use notifyx_model::{Category, Clock, Fault, Kind, Message, Notification, NotificationId, TopicId, TopicName, UserId};
use notifyx_wire::{grpc::events::Event, rest::Problem};

use super::{FakeHint, FakeWatch, Gate, category, event, notification, topic};

/// Persist, auth, events and publishing in memory. Whoever joins a topic first creates it.
pub(crate) struct Fake {
    pub(crate) bus: Bus,
    pub(crate) watch: FakeWatch,
    pub(crate) clock: Clock,
    pub(crate) joins: Gate,
    pub(crate) logs: Gate,
    pub(crate) publishes: Gate,
    store: Mutex<Store>,
}

#[derive(Default)]
struct Store {
    topics: HashMap<TopicName, FakeTopic>,
    categories: HashMap<Category, FakeCategory>,
    seen: BTreeSet<(UserId, NotificationId)>,
    published: Vec<String>,
    broken: bool,
    /// The next read of a log panics.
    bug: bool,
}

struct FakeTopic {
    id: TopicId,
    creator: UserId,
    subscribers: BTreeSet<UserId>,
    log: Vec<Notification>,
    trimmed: u64,
}

impl FakeTopic {
    fn offset(&self) -> u64 {
        self.log.len() as u64
    }

    fn broadcast_no(&self) -> u64 {
        self.log.iter().filter_map(|n| n.broadcast_no).max().unwrap_or(0)
    }
}

#[derive(Default)]
struct FakeCategory {
    log: Vec<Event>,
    trimmed: u64,
    /// How often its head was asked for.
    asked: usize,
}

#[derive(Debug, thiserror::Error)]
#[error("the store is away")]
struct Away;

impl Fault for Away {
    fn kind(&self) -> Kind {
        Kind::Unavailable
    }

    fn code(&self) -> &'static str {
        "away"
    }
}

impl Fake {
    pub(crate) fn new() -> Arc<Self> {
        Self::with_clock(Clock::system())
    }

    pub(crate) fn with_clock(clock: Clock) -> Arc<Self> {
        Arc::new(Self {
            bus: Bus::in_process(1024),
            watch: FakeWatch::new(),
            clock,
            joins: Gate::default(),
            logs: Gate::default(),
            publishes: Gate::default(),
            store: Mutex::default(),
        })
    }

    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap()
    }

    /// From now on every call fails, or none.
    pub(crate) fn set_broken(&self, broken: bool) {
        self.store().broken = broken;
    }

    /// The next read of a log panics.
    pub(crate) fn break_next_read(&self) {
        self.store().bug = true;
    }

    /// A read of a log, once the gate is open.
    fn check_read(&self) -> Result<(), Problem> {
        let bug = std::mem::take(&mut self.store().bug);
        assert!(!bug, "as the test wants it");
        self.check()
    }

    fn check(&self) -> Result<(), Problem> {
        if self.store().broken { Err(reply::problem(&Away)) } else { Ok(()) }
    }

    pub(crate) fn create(&self, name: &str, creator: UserId) -> TopicId {
        let id = TopicId::new(&self.clock);
        let topic_of = || FakeTopic { id, creator, subscribers: BTreeSet::new(), log: vec![], trimmed: 0 };
        self.store().topics.entry(topic(name)).or_insert_with(topic_of).id
    }

    /// Commits without a word to anybody.
    pub(crate) fn commit(&self, name: &str, message: &str, to: &[UserId]) -> Arc<Notification> {
        let mut store = self.store();
        let found = store.topics.get_mut(name).unwrap();
        let broadcast_no = to.is_empty().then(|| found.broadcast_no() + 1);
        let made = Notification {
            topic_id: found.id,
            from_user_id: found.creator,
            message: Message::parse(message).unwrap(),
            to: to.to_vec(),
            broadcast_no,
            ..notification(name, found.offset() + 1)
        };
        found.log.push(made.clone());
        Arc::new(made)
    }

    /// Commits and tells the bus.
    pub(crate) fn announce(&self, name: &str, message: &str) {
        self.bus.publish(self.commit(name, message, &[]));
    }

    pub(crate) fn trim(&self, name: &str, up_to: u64) {
        self.store().topics.get_mut(name).unwrap().trimmed = up_to;
    }

    /// Puts the topic's log back to what it was at this offset.
    pub(crate) fn put_back(&self, name: &str, head: usize) {
        self.store().topics.get_mut(name).unwrap().log.truncate(head);
    }

    /// The store forgets the topic.
    pub(crate) fn lose_topic(&self, name: &str) {
        self.store().topics.remove(&topic(name));
    }

    /// As [`Fake::put_back`].
    pub(crate) fn put_events_back(&self, name: &str, head: usize) {
        self.store().categories.get_mut(&category(name)).unwrap().log.truncate(head);
    }

    /// An event of the log that nobody is told of.
    pub(crate) fn append(&self, name: &str, data: &str) -> Arc<Event> {
        let mut store = self.store();
        let log = &mut store.categories.entry(category(name)).or_default().log;
        let made = Event { data: data.to_owned().into(), ..event(name, log.len() as u64 + 1) };
        log.push(made.clone());
        Arc::new(made)
    }

    /// An event that fires while the watch is up.
    pub(crate) fn fire(&self, name: &str, data: &str) {
        self.watch.tell(FakeHint::Event(self.append(name, data)));
    }

    pub(crate) fn trim_events(&self, name: &str, up_to: u64) {
        self.store().categories.get_mut(name).unwrap().trimmed = up_to;
    }

    /// How often a category's head was asked for by who listens.
    pub(crate) fn heads_asked(&self, name: &str) -> usize {
        self.store().categories.get(name).map_or(0, |category| category.asked)
    }

    /// The messages that were published, in order.
    pub(crate) fn published(&self) -> Vec<String> {
        self.store().published.clone()
    }
}

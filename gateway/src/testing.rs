//! For tests: a platform in memory whose answers can be held back, and a client without a socket.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeSet, HashMap},
    rc::Rc,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use notifyx_chassis::reply;
use notifyx_mesh::Bus;
use notifyx_model::{
    Category, Clock, Email, EventId, Fault, GivenTime, Kind, Message, Notification, NotificationId, Priority, Scope,
    Scopes, Timestamp, TokenHash, TopicId, TopicName, UserId,
};
use notifyx_wire::{
    grpc::events::Event,
    rest::{
        Problem,
        gateway::{ScheduledNotification, ScheduledState},
        persist::{Head, InboxItem, Log, SeenStatus, Topic, TopicStatus, Unread, UnreadInTopic},
    },
};
use serde_json::Value;
use tokio::{
    runtime::Handle,
    sync::{Notify, broadcast, watch},
    task::LocalSet,
    time::Instant,
};

use crate::{
    desk::Desk,
    feed::{Categories, Feeds, Hint, Hints},
    hub::{Connection, Ending, Following, Hub, Metrics, Outlet, Worker},
    platform::{
        CategoryHead, EventLog, NewPublish, Peer, Platform, Published, SocketCredentials, SocketKey, SocketUser,
    },
    session::Session,
};

pub(crate) fn topic(name: &str) -> TopicName {
    TopicName::parse(name).unwrap()
}

pub(crate) fn notification(name: &str, offset: u64) -> Notification {
    let clock = Clock::system();
    Notification {
        id: NotificationId::new(&clock),
        topic_id: TopicId::new(&clock),
        topic: topic(name),
        offset,
        broadcast_no: Some(offset),
        from_user_id: UserId::new(&clock),
        from: Email::parse("ann@example.org").unwrap(),
        message: Message::parse(&format!("message {offset}")).unwrap(),
        to: vec![],
        priority: Priority::default(),
        inserted_at: Timestamp::from_micros(1_767_225_600_000_000),
    }
}

pub(crate) fn category(name: &str) -> Category {
    Category::parse(name).unwrap()
}

pub(crate) fn event(name: &str, offset: u64) -> Event {
    let at = 1_767_225_600_000_000;
    Event {
        id: format!("e{offset}"),
        category: name.to_owned(),
        key: None,
        priority: 4,
        data: offset.to_string().into(),
        created_at_us: at,
        fire_at_us: at + 500_000,
        offset: Some(offset),
        fired_at_us: Some(at + 501_234),
        schedule_id: None,
    }
}

/// Holds calls back until it is opened.
pub(crate) struct Gate {
    open: watch::Sender<bool>,
    waiting: watch::Sender<usize>,
}

impl Default for Gate {
    fn default() -> Self {
        Self { open: watch::Sender::new(true), waiting: watch::Sender::new(0) }
    }
}

impl Gate {
    pub(crate) fn close(&self) {
        self.open.send_replace(false);
    }

    pub(crate) fn open(&self) {
        self.open.send_replace(true);
    }

    /// Resolves when so many calls stand before the gate.
    pub(crate) async fn has_waiting(&self, count: usize) {
        self.waiting.subscribe().wait_for(|waiting| *waiting >= count).await.unwrap();
    }

    async fn pass(&self) {
        self.waiting.send_modify(|waiting| *waiting += 1);
        self.open.subscribe().wait_for(|open| *open).await.unwrap();
        self.waiting.send_modify(|waiting| *waiting -= 1);
    }
}

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

/// Hints of categories, as a test gives them.
pub(crate) struct FakeWatch {
    hints: broadcast::Sender<FakeHint>,
    followed: Arc<Mutex<BTreeSet<Category>>>,
}

#[derive(Clone)]
pub(crate) enum FakeHint {
    Event(Arc<Event>),
    Head(Category, u64),
}

impl FakeWatch {
    fn new() -> Self {
        Self { hints: broadcast::Sender::new(1024), followed: Arc::default() }
    }

    pub(crate) fn tell(&self, hint: FakeHint) {
        let _ = self.hints.send(hint);
    }

    pub(crate) fn hints(&self) -> FakeHints {
        FakeHints { hints: self.hints.subscribe(), followed: self.followed.clone() }
    }

    /// What is followed now.
    pub(crate) fn followed(&self) -> Vec<Category> {
        self.followed.lock().unwrap().iter().cloned().collect()
    }
}

pub(crate) struct FakeHints {
    hints: broadcast::Receiver<FakeHint>,
    followed: Arc<Mutex<BTreeSet<Category>>>,
}

impl Hints<Categories> for FakeHints {
    async fn next(&mut self) -> Option<Hint<Categories>> {
        match self.hints.recv().await.ok()? {
            FakeHint::Event(event) => Some(Hint::Items(category(&event.category), vec![event])),
            FakeHint::Head(category, offset) => Some(Hint::Head(category, offset)),
        }
    }

    fn follow(&mut self, name: &Category) {
        assert!(self.followed.lock().unwrap().insert(name.clone()), "{name} is followed already");
    }

    fn unfollow(&mut self, name: &Category) {
        assert!(self.followed.lock().unwrap().remove(name), "{name} is not followed");
    }
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

#[async_trait]
impl Platform for Fake {
    async fn authenticate(&self, credentials: SocketCredentials, _: &str) -> Result<Peer, Problem> {
        self.check()?;
        // The token is the user's id, then one digit that tells its sessions apart; an API key's is `nxk_`, the id, the digit,
        // and what it may subscribe to. It is good for an hour.
        let token = match credentials {
            SocketCredentials::Token(token) => token,
            SocketCredentials::EmailPassword { .. } => return Ok(Peer::User(user_of(UserId::new(&self.clock)))),
        };
        let (key, text) = token.as_str().strip_prefix("nxk_").map_or((false, token.as_str()), |key| (true, key));
        let Some(id) = text.get(..36).and_then(|id| id.parse().ok()) else {
            return Err(Problem { status: 401, ..reply::problem(&Away) });
        };
        let token_hash = TokenHash([text.as_bytes().get(36).copied().unwrap_or_default(); 32]);
        let expires_at = Some(self.clock.now() + Duration::from_secs(3_600));
        Ok(if key {
            Peer::Key(SocketKey { owner: id, token_hash, scopes: subscribe(&text[37..]), expires_at })
        } else {
            let user = SocketUser::clone(&user_of(id));
            Peer::User(Arc::new(SocketUser { token_hash: Some(token_hash), expires_at, ..user }))
        })
    }

    async fn join(&self, name: &TopicName, user: UserId) -> Result<Topic, Problem> {
        self.joins.pass().await;
        self.check()?;
        self.create(name.as_str(), user);
        let mut store = self.store();
        let found = store.topics.get_mut(name).unwrap();
        found.subscribers.insert(user);
        Ok(Topic {
            id: found.id,
            name: name.clone(),
            creator_id: found.creator,
            status: TopicStatus::Active,
            longevity: None,
            offset: found.offset(),
            broadcast_no: found.broadcast_no(),
            trimmed: found.trimmed,
            created_at: self.clock.now(),
        })
    }

    async fn heads(&self, topics: Vec<TopicName>) -> Result<Vec<Head>, Problem> {
        self.check()?;
        let store = self.store();
        let head = |name: &TopicName| {
            store.topics.get(name).map(|found| Head {
                topic: name.clone(),
                topic_id: found.id,
                offset: found.offset(),
                broadcast_no: found.broadcast_no(),
                trimmed: found.trimmed,
            })
        };
        Ok(topics.iter().filter_map(head).collect())
    }

    async fn log(&self, topic_id: TopicId, after: u64, limit: u32) -> Result<Log, Problem> {
        self.logs.pass().await;
        self.check()?;
        let store = self.store();
        let found = store.topics.values().find(|t| t.id == topic_id).unwrap();
        let kept = found.log.iter().filter(|n| n.offset > after.max(found.trimmed));
        Ok(Log {
            notifications: kept.take(limit as usize).cloned().collect(),
            offset: found.offset(),
            trimmed: found.trimmed,
        })
    }

    async fn category_head(&self, name: &Category) -> Result<CategoryHead, Problem> {
        self.joins.pass().await;
        self.store().categories.entry(name.clone()).or_default().asked += 1;
        Ok(self.category_heads(vec![name.clone()]).await?.remove(0))
    }

    async fn category_heads(&self, categories: Vec<Category>) -> Result<Vec<CategoryHead>, Problem> {
        self.check()?;
        let store = self.store();
        let head = |category: Category| {
            let (offset, trimmed) =
                store.categories.get(&category).map_or((0, 0), |found| (found.log.len() as u64, found.trimmed));
            CategoryHead { category, offset, trimmed }
        };
        Ok(categories.into_iter().map(head).collect())
    }

    async fn events(&self, name: &Category, after: u64, limit: u32) -> Result<EventLog, Problem> {
        self.logs.pass().await;
        self.check()?;
        let store = self.store();
        let Some(found) = store.categories.get(name) else {
            return Ok(EventLog { events: vec![], offset: 0, trimmed: 0 });
        };
        let kept = found.log.iter().filter(|event| event.offset > Some(after.max(found.trimmed)));
        Ok(EventLog {
            events: kept.take(limit as usize).cloned().collect(),
            offset: found.log.len() as u64,
            trimmed: found.trimmed,
        })
    }

    async fn publish(&self, _: &SocketUser, new: NewPublish) -> Result<Published, Problem> {
        self.publishes.pass().await;
        self.check()?;
        let to: Vec<UserId> = new.to.iter().map(|to| to.parse().unwrap()).collect();
        let made = self.commit(new.topic.as_str(), new.message.as_str(), &to);
        self.store().published.push(new.message.as_str().to_owned());
        self.bus.publish(made.clone());
        Ok(Published { id: made.id, offset: Some(made.offset) })
    }

    async fn schedule(
        &self,
        _: &SocketUser,
        new: NewPublish,
        fire_at: GivenTime,
    ) -> Result<ScheduledNotification, Problem> {
        self.check()?;
        let at = fire_at.timestamp("fire_at").unwrap();
        Ok(ScheduledNotification {
            success: true,
            id: EventId::parse("a-scheduled-one").unwrap(),
            topic: new.topic,
            message: new.message,
            to: new.to,
            priority: new.priority,
            key: new.key,
            created_at: self.clock.now(),
            fire_at: at,
            state: ScheduledState::Scheduled,
        })
    }

    async fn inbox(&self, _: &SocketUser, name: &TopicName) -> Result<Vec<InboxItem>, Problem> {
        self.check()?;
        let store = self.store();
        let log = store.topics.get(name).unwrap().log.iter().rev();
        Ok(log.map(|n| InboxItem { notification: n.clone(), status: SeenStatus::Unread }).collect())
    }

    async fn seen(&self, user: &SocketUser, id: NotificationId) -> Result<Unread, Problem> {
        self.store().seen.insert((user.id, id));
        self.unread(user).await
    }

    async fn unread(&self, user: &SocketUser) -> Result<Unread, Problem> {
        self.check()?;
        let store = self.store();
        let mine =
            |n: &&Notification| (n.to.is_empty() || n.to.contains(&user.id)) && !store.seen.contains(&(user.id, n.id));
        let mut topics: Vec<UnreadInTopic> = store
            .topics
            .iter()
            .filter(|(_, t)| t.subscribers.contains(&user.id))
            .map(|(name, t)| UnreadInTopic {
                topic_id: t.id,
                topic: name.clone(),
                unread: t.log.iter().filter(mine).count() as u64,
                broadcast_no: t.broadcast_no(),
                own: t.creator == user.id,
            })
            .collect();
        topics.sort_by(|a, b| a.topic.cmp(&b.topic));
        Ok(Unread { total: topics.iter().map(|t| t.unread).sum(), topics })
    }

    async fn unsubscribe(&self, user: &SocketUser, name: &TopicName) -> Result<(), Problem> {
        self.check()?;
        self.store().topics.get_mut(name).unwrap().subscribers.remove(&user.id);
        Ok(())
    }
}

pub(crate) fn user_of(id: UserId) -> Arc<SocketUser> {
    Arc::new(SocketUser { id, email: Email::parse("ann@example.org").unwrap(), token_hash: None, expires_at: None })
}

/// What a key has that may listen to what a pattern covers.
pub(crate) fn subscribe(pattern: &str) -> Scopes {
    Scopes::new(vec![Scope::parse(&format!("subscribe:{pattern}")).unwrap()]).unwrap()
}

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

/// A Phoenix client without a socket.
pub(crate) struct Client {
    /// Of an API key its owner; of nobody in particular some id.
    pub(crate) user: UserId,
    pub(crate) session: Rc<Session>,
    pub(crate) outlet: Rc<Probe>,
    _connection: Connection,
}

impl Client {
    fn open(desk: &Rc<Desk>, peer: Peer) -> Self {
        let outlet = Rc::new(Probe::default());
        let user = peer.owner().unwrap_or_else(|| UserId::new(&Clock::system()));
        let (session, connection) = Session::open(desk.clone(), Arc::new(peer), outlet.clone()).unwrap();
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

impl Outlet for Probe {
    fn send(&self, bytes: &Bytes, frames: usize) {
        let found = texts(bytes);
        assert_eq!(found.len(), frames, "the count that is told is the count that is sent");
        self.frames.borrow_mut().extend(found.iter().map(|text| serde_json::from_str(text).unwrap()));
        self.came.notify_one();
    }

    fn end(&self, ending: Ending) {
        if self.ended.get().is_none() {
            self.ended.set(Some(ending));
            self.drained.notify_waiters();
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

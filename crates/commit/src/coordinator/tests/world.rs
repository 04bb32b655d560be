//! A world in memory: one coordinator store, two participants, and gateways that can be made to fail at any call.
//!
//! Time is tokio's paused clock, for the store too: a test that waits for 45 seconds takes none.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use notifyx_model::{
    Clock, Email, Gid, InstanceId, Message, NotificationId, Priority, Timestamp, TopicId, TopicName, UserId,
};
use notifyx_wire::rest::{
    Problem,
    commit::{Ack, Applied, GidBatch, PrepareBatch, Publish, Resolution, Vote},
};
use tokio::time::Instant;

use crate::{
    Acked, AppliedSink, Begin, Begun, CallFailed, Claim, Config, Coordinator, CoordinatorStore, Deferred, Figures,
    Intervened, Page, Participant, Parties, Party, Ports, Record, RequestHash, Resolve, State, StoreError, Terms,
    Transaction, Verdict, VerdictOn, Votes,
    participant::{self, Asker, Judge, OnCommit, OnPrepare, OnRollback},
};

/// Everything durable. Gateways come and go on top of it.
pub(super) struct World {
    began: Instant,
    pub(super) rows: Mutex<BTreeMap<Gid, Row>>,
    pub(super) persist: Site,
    pub(super) counter: Site,
    /// Told to live subscribers: gid's notification, and whether with its publish.
    pub(super) told: Mutex<Vec<(NotificationId, bool)>>,
    pub(super) calls: Mutex<HashMap<&'static str, usize>>,
}

#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) record: Record,
}

/// One participant's database.
#[derive(Default)]
pub(super) struct Site {
    /// Tells where a committed notification stands, as persist does.
    tells: bool,
    pub(super) rows: Mutex<BTreeMap<Gid, (participant::Row, NotificationId)>>,
    /// Business rule: messages that begin so are refused.
    pub(super) refuses: Mutex<Option<&'static str>>,
    pub(super) effects: AtomicU64,
}

/// What happens to one call of a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The gateway dies before the call leaves, or after it took effect.
    DieBefore,
    DieAfter,
    /// The call fails without effect.
    Fail,
    /// A 4xx without effect.
    Refuse,
    /// It takes effect, but the answer is lost.
    LoseReply,
    /// It takes effect after so long, whether the caller still waits or not.
    Delay(Duration),
}

/// A gateway's connections to the world, and what is to go wrong on them.
pub(super) struct Gateway {
    world: Arc<World>,
    dead: tokio_util::sync::CancellationToken,
    /// Per call name: how many more times which fault strikes.
    faults: Mutex<HashMap<&'static str, (usize, Fault)>>,
}

pub(super) const ALWAYS: usize = usize::MAX;

impl World {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            began: Instant::now(),
            rows: Mutex::default(),
            persist: Site { tells: true, ..Site::default() },
            counter: Site::default(),
            told: Mutex::default(),
            calls: Mutex::default(),
        })
    }

    pub(super) fn now(&self) -> Timestamp {
        Timestamp::from_micros(1_767_225_600_000_000) + self.began.elapsed()
    }

    /// A gateway that works, until told otherwise.
    pub(super) fn gateway(self: &Arc<Self>) -> (Coordinator, Arc<Gateway>) {
        self.gateway_with(Config::default())
    }

    pub(super) fn gateway_with(self: &Arc<Self>, config: Config) -> (Coordinator, Arc<Gateway>) {
        config.check().unwrap();
        let gateway = Arc::new(Gateway {
            world: self.clone(),
            dead: tokio_util::sync::CancellationToken::new(),
            faults: Mutex::default(),
        });
        let port = |party| Arc::new(Link { gateway: gateway.clone(), party });
        let ports = Ports {
            store: gateway.clone(),
            persist: port(Party::Persist),
            counter: port(Party::Counter),
            sink: gateway.clone(),
        };
        let clock = Clock::system();
        let owner = InstanceId::new(&clock);
        (Coordinator::start(config, ports, clock, owner, &prometheus::Registry::new()), gateway)
    }

    pub(super) fn record(&self, gid: Gid) -> Option<Record> {
        self.rows.lock().unwrap().get(&gid).map(|row| row.record.clone())
    }

    pub(super) fn calls(&self, name: &'static str) -> usize {
        self.calls.lock().unwrap().get(name).copied().unwrap_or(0)
    }

    /// Waits out the protocol's bound, then holds every invariant.
    pub(super) async fn settle_and_check(&self) {
        tokio::time::sleep(participant::ALARM).await;
        self.check();
    }

    pub(super) fn check(&self) {
        let rows = self.rows.lock().unwrap();
        let committed: Vec<Gid> =
            rows.values().filter(|row| row.record.state == State::Commit).map(|row| row.record.gid).collect();
        for row in rows.values() {
            assert!(row.record.closed_at.is_some(), "open: {:?}", row.record);
            assert!(!row.record.quarantined, "quarantined: {:?}", row.record);
        }
        for site in [&self.persist, &self.counter] {
            assert_eq!(site.committed(), committed, "the participants and the coordinator agree");
            assert_eq!(site.effects.load(Ordering::SeqCst), committed.len() as u64, "each effect came about once");
            let held = site.rows.lock().unwrap();
            assert!(held.values().all(|(row, _)| row.state != participant::State::Prepared), "nothing stays prepared");
        }
        let mut keys: Vec<_> = rows
            .values()
            .filter(|row| row.record.state == State::Commit)
            .filter_map(|row| row.record.idem_key.clone().map(|key| (row.record.user_id, key)))
            .collect();
        let all = keys.len();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), all, "a key has at most one committed gid");
    }
}

impl Site {
    pub(super) fn committed(&self) -> Vec<Gid> {
        let rows = self.rows.lock().unwrap();
        let committed = rows.iter().filter(|(_, (row, _))| row.state == participant::State::Committed);
        committed.map(|(gid, _)| *gid).collect()
    }

    pub(super) fn state(&self, gid: Gid) -> Option<participant::State> {
        self.rows.lock().unwrap().get(&gid).map(|(row, _)| row.state)
    }

    fn insert(&self, gid: Gid, state: participant::State, request: RequestHash, publish: Option<&Publish>) {
        let row = participant::Row {
            origin: participant::Origin::Coordinator,
            user_id: publish.map_or(UserId::from_uuid(uuid::Uuid::nil()), |p| p.from_user_id),
            state,
            request,
            prepared_at: Timestamp::from_micros(0),
            expired: false,
        };
        let id = publish.map_or(NotificationId::from_uuid(uuid::Uuid::nil()), |p| p.notification_id);
        self.rows.lock().unwrap().insert(gid, (row, id));
    }

    pub(super) fn prepare(&self, gid: Gid, publish: &Publish) -> Vote {
        let request = RequestHash::of("prepare", publish);
        let found = self.rows.lock().unwrap().get(&gid).map(|(row, _)| row.clone());
        match Judge::at(Timestamp::from_micros(0)).prepare(found.as_ref(), Asker::Coordinator, &request) {
            OnPrepare::Yes => Vote::Yes,
            OnPrepare::No(refusal) => Vote::No(problem(409, &refusal)),
            OnPrepare::Reserve => {
                let refused =
                    self.refuses.lock().unwrap().is_some_and(|start| publish.message.as_str().starts_with(start));
                if refused {
                    self.insert(gid, participant::State::Aborted, request, Some(publish));
                    return Vote::No(problem(409, &"the topic is inactive"));
                }
                self.insert(gid, participant::State::Prepared, request, Some(publish));
                Vote::Yes
            }
        }
    }

    fn commit(&self, gid: Gid) -> Ack {
        let mut rows = self.rows.lock().unwrap();
        let found = rows.get_mut(&gid);
        match Judge::at(Timestamp::from_micros(0)).commit(found.as_deref().map(|(row, _)| row), Asker::Coordinator) {
            OnCommit::Refuse(refusal) => return Ack::Violation(problem(409, &refusal)),
            OnCommit::Done => {}
            OnCommit::Apply => {
                self.effects.fetch_add(1, Ordering::SeqCst);
            }
        }
        let (row, id) = found.expect("judged as found");
        row.state = participant::State::Committed;
        Ack::Done { applied: self.tells.then(|| applied(*id)) }
    }

    fn rollback(&self, gid: Gid) -> Ack {
        let found = self.rows.lock().unwrap().get(&gid).map(|(row, _)| row.clone());
        match Judge::at(Timestamp::from_micros(0)).rollback(found.as_ref(), Asker::Coordinator) {
            OnRollback::Refuse(refusal) => return Ack::Violation(problem(409, &refusal)),
            OnRollback::Done => {}
            OnRollback::Tombstone => self.insert(gid, participant::State::Aborted, participant::NO_REQUEST, None),
            OnRollback::Release => {
                self.rows.lock().unwrap().get_mut(&gid).unwrap().0.state = participant::State::Aborted;
            }
        }
        Ack::Done { applied: None }
    }
}

impl Gateway {
    /// Strikes the next call of this name: `begin`, `decide`, `acknowledge`, `prepare persist`, `commit counter-2pc` …
    pub(super) fn strike(&self, call: &'static str, fault: Fault) {
        self.strike_times(call, 1, fault);
    }

    pub(super) fn strike_times(&self, call: &'static str, times: usize, fault: Fault) {
        self.faults.lock().unwrap().insert(call, (times, fault));
    }

    pub(super) fn heal(&self) {
        self.faults.lock().unwrap().clear();
    }

    /// As SIGKILL: no call leaves any more, none returns.
    pub(super) fn kill(&self) {
        self.dead.cancel();
    }

    /// Runs one call under whatever fault is due.
    async fn call<T: Send + 'static>(
        &self,
        name: &'static str,
        effect: impl FnOnce(&World) -> T + Send + 'static,
    ) -> Result<T, Fault> {
        if self.dead.is_cancelled() {
            std::future::pending::<()>().await;
        }
        *self.world.calls.lock().unwrap().entry(name).or_default() += 1;
        let fault = {
            let mut faults = self.faults.lock().unwrap();
            faults.get_mut(name).filter(|(times, _)| *times > 0).map(|(times, fault)| {
                *times = times.saturating_sub(usize::from(*times != ALWAYS));
                *fault
            })
        };
        match fault {
            None => Ok(effect(&self.world)),
            Some(Fault::Delay(span)) => {
                let world = self.world.clone();
                let late = tokio::spawn(async move {
                    tokio::time::sleep(span).await;
                    effect(&world)
                });
                Ok(late.await.unwrap())
            }
            Some(fault @ (Fault::Fail | Fault::Refuse)) => Err(fault),
            Some(fault @ Fault::LoseReply) => {
                effect(&self.world);
                Err(fault)
            }
            Some(Fault::DieBefore) => {
                self.kill();
                std::future::pending().await
            }
            Some(Fault::DieAfter) => {
                effect(&self.world);
                self.kill();
                std::future::pending().await
            }
        }
    }

    async fn stored<T: Send + 'static>(
        &self,
        name: &'static str,
        effect: impl FnOnce(&World) -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        self.call(name, effect).await.map_err(|fault| StoreError::new(format!("{fault:?}")))
    }
}

impl AppliedSink for Gateway {
    fn applied(&self, applied: &Applied, publish: Option<&Publish>) {
        if !self.dead.is_cancelled() {
            self.world.told.lock().unwrap().push((applied.notification_id, publish.is_some()));
        }
    }
}

struct Link {
    gateway: Arc<Gateway>,
    party: Party,
}

impl Link {
    async fn call<T: Send + 'static>(
        &self,
        names: [&'static str; 2],
        effect: impl FnOnce(&Site) -> Vec<T> + Send + 'static,
    ) -> Result<Vec<T>, CallFailed> {
        let party = self.party;
        let name = match party {
            Party::Persist => names[0],
            Party::Counter => names[1],
        };
        self.gateway
            .call(name, move |world| effect(world.site(party)))
            .await
            .map_err(|fault| CallFailed { reason: format!("{fault:?}"), repeats: fault == Fault::Refuse })
    }
}

#[async_trait]
impl Participant for Link {
    async fn prepare(&self, batch: &PrepareBatch, _: Duration) -> Result<Vec<Vote>, CallFailed> {
        let items = batch.items.clone();
        self.call(["prepare persist", "prepare counter"], move |site| {
            items.iter().map(|item| site.prepare(item.gid, &item.publish)).collect()
        })
        .await
    }

    async fn commit(&self, batch: &GidBatch, _: Duration) -> Result<Vec<Ack>, CallFailed> {
        let gids = batch.gids.clone();
        self.call(["commit persist", "commit counter"], move |site| gids.iter().map(|gid| site.commit(*gid)).collect())
            .await
    }

    async fn rollback(&self, batch: &GidBatch, _: Duration) -> Result<Vec<Ack>, CallFailed> {
        let gids = batch.gids.clone();
        self.call(["rollback persist", "rollback counter"], move |site| {
            gids.iter().map(|gid| site.rollback(*gid)).collect()
        })
        .await
    }
}

#[async_trait]
impl CoordinatorStore for Gateway {
    async fn begin(&self, batch: &[Begin], terms: Terms) -> Result<Vec<Begun>, StoreError> {
        let batch = batch.to_vec();
        self.stored("begin", move |world| batch.iter().map(|item| world.begin(item, terms)).collect()).await
    }

    async fn decide(&self, batch: &[VerdictOn]) -> Result<Vec<Option<State>>, StoreError> {
        let batch = batch.to_vec();
        self.stored("decide", move |world| batch.iter().map(|item| world.decide(item)).collect()).await
    }

    async fn acknowledge(&self, batch: &[Acked]) -> Result<(), StoreError> {
        let batch = batch.to_vec();
        self.stored("acknowledge", move |world| batch.iter().for_each(|acked| world.acknowledge(acked))).await
    }

    async fn defer(&self, batch: &[Deferred]) -> Result<(), StoreError> {
        let batch = batch.to_vec();
        self.stored("defer", move |world| batch.into_iter().for_each(|deferred| world.defer(deferred))).await
    }

    async fn claim(&self, claim: Claim) -> Result<Vec<Record>, StoreError> {
        self.stored("claim", move |world| world.claim(claim)).await
    }

    async fn find(&self, gid: Gid) -> Result<Option<Record>, StoreError> {
        self.stored("find", move |world| world.record(gid)).await
    }

    async fn find_by_key(&self, user_id: UserId, key: &str) -> Result<Option<Record>, StoreError> {
        let key = key.to_owned();
        self.stored("find", move |world| world.holder(user_id, &key)).await
    }

    async fn release(&self, owner: InstanceId) -> Result<(), StoreError> {
        self.stored("release", move |world| world.release(owner)).await
    }

    async fn list(&self, _: Page) -> Result<Vec<Record>, StoreError> {
        self.stored("list", |_| Vec::new()).await
    }

    async fn retry(&self, gid: Gid) -> Result<Intervened, StoreError> {
        self.stored("retry", move |world| world.retry(gid)).await
    }

    async fn resolve(&self, resolve: &Resolve) -> Result<Intervened, StoreError> {
        let resolve = resolve.clone();
        self.stored("resolve", move |world| world.resolve(resolve)).await
    }

    async fn trim(&self, _: Duration, _: u32) -> Result<u64, StoreError> {
        self.stored("trim", |_| 0).await
    }

    async fn figures(&self) -> Result<Figures, StoreError> {
        self.stored("figures", |_| Figures::default()).await
    }
}

impl World {
    fn begin(&self, item: &Begin, terms: Terms) -> Begun {
        let holder = item.idem_key.as_deref().and_then(|key| self.holder(item.user_id, key));
        if let Some(found) = holder.or_else(|| self.record(item.gid)) {
            return if found.request == item.request {
                Begun::Known(Box::new(found))
            } else {
                Begun::Mismatch(found.gid)
            };
        }
        let now = self.now();
        let record = Record {
            gid: item.gid,
            user_id: item.user_id,
            idem_key: item.idem_key.clone(),
            request: item.request,
            state: State::Preparing,
            reason: None,
            acked: Parties::NONE,
            tries: 0,
            refusals: 0,
            quarantined: false,
            votes: Votes::NONE,
            owner: terms.owner,
            lease_until: now + terms.lease,
            created_at: now,
            deadline: now + terms.deadline,
            closed_at: None,
            resolution: None,
        };
        self.rows.lock().unwrap().insert(item.gid, Row { record });
        Begun::New
    }

    fn holder(&self, user_id: UserId, key: &str) -> Option<Record> {
        let rows = self.rows.lock().unwrap();
        rows.values()
            .map(|row| &row.record)
            .find(|record| {
                record.user_id == user_id && record.idem_key.as_deref() == Some(key) && record.state != State::Abort
            })
            .cloned()
    }

    fn decide(&self, item: &VerdictOn) -> Option<State> {
        let now = self.now();
        self.change(item.gid, |row| {
            if row.record.state == State::Preparing {
                let (state, reason) = match &item.verdict {
                    Verdict::Commit if now < row.record.deadline => (State::Commit, None),
                    Verdict::Commit => (State::Abort, Some(Verdict::TOO_LATE.to_owned())),
                    Verdict::Abort { reason } => (State::Abort, Some(reason.clone())),
                };
                row.record.state = state;
                row.record.reason = reason;
                row.record.votes = item.votes;
            }
            row.record.state
        })
    }

    fn acknowledge(&self, acked: &Acked) {
        let now = self.now();
        self.change(acked.gid, |row| {
            if row.record.closed_at.is_some() {
                return;
            }
            row.record.acked = row.record.acked.and(acked.by);
            if row.record.acked == Parties::BOTH {
                row.record.closed_at.get_or_insert(now);
                row.record.quarantined = false;
            }
        });
    }

    fn defer(&self, deferred: Deferred) {
        let until = self.now() + deferred.again_in;
        self.change(deferred.gid, |row| {
            row.record.lease_until = until;
            row.record.tries = deferred.tries;
            row.record.refusals = deferred.refusals;
            row.record.quarantined |= deferred.quarantine.is_some();
            row.record.reason = deferred.quarantine.or(row.record.reason.take());
        });
    }

    fn claim(&self, claim: Claim) -> Vec<Record> {
        let now = self.now();
        let mut rows = self.rows.lock().unwrap();
        let overdue = rows.values_mut().filter(|row| row.record.closed_at.is_none() && row.record.lease_until <= now);
        overdue
            .take(claim.limit as usize)
            .map(|row| {
                row.record.lease_until = now + claim.lease;
                row.record.owner = claim.owner;
                row.record.clone()
            })
            .collect()
    }

    fn release(&self, owner: InstanceId) {
        let now = self.now();
        let mut rows = self.rows.lock().unwrap();
        for row in rows.values_mut().filter(|row| row.record.owner == owner && !row.record.quarantined) {
            row.record.lease_until = row.record.lease_until.min(now);
        }
    }

    fn retry(&self, gid: Gid) -> Intervened {
        let now = self.now();
        let can = |record: &Record| {
            record.closed_at.is_none() && (record.state != State::Preparing || record.deadline <= now)
        };
        self.intervene(gid, can, |record| record.lease_until = now)
    }

    fn resolve(&self, resolve: Resolve) -> Intervened {
        let now = self.now();
        let can = |record: &Record| record.closed_at.is_none() && record.quarantined;
        self.intervene(resolve.gid, can, |record| {
            let Resolve { outcome, by, reason, .. } = resolve;
            record.resolution = Some(Resolution { outcome, operator: by, reason, at: now });
            record.closed_at = Some(now);
            record.quarantined = false;
        })
    }

    fn intervene(&self, gid: Gid, can: impl FnOnce(&Record) -> bool, change: impl FnOnce(&mut Record)) -> Intervened {
        let intervened = self.change(gid, |row| {
            if !can(&row.record) {
                return Intervened::Refused(row.record.clone());
            }
            change(&mut row.record);
            Intervened::Done(row.record.clone())
        });
        intervened.unwrap_or(Intervened::Unknown)
    }

    fn site(&self, party: Party) -> &Site {
        match party {
            Party::Persist => &self.persist,
            Party::Counter => &self.counter,
        }
    }

    fn change<T>(&self, gid: Gid, change: impl FnOnce(&mut Row) -> T) -> Option<T> {
        self.rows.lock().unwrap().get_mut(&gid).map(change)
    }
}

/// A publish of its own.
pub(super) fn publish(message: &str) -> Transaction {
    let clock = Clock::system();
    let user_id = UserId::new(&clock);
    Transaction {
        gid: Some(Gid::new(&clock)),
        user_id,
        idem_key: None,
        req_hash: RequestHash::of("publish", &message).0,
        publish: Publish {
            notification_id: NotificationId::new(&clock),
            topic_id: TopicId::new(&clock),
            from_user_id: user_id,
            from: Email::parse("ann@example.org").unwrap(),
            message: Message::parse(message).unwrap(),
            to_users: Vec::new(),
            priority: Priority::default(),
        },
    }
}

/// The same request again, as a client repeats it: a new gid and notification, the same key and body.
pub(super) fn again(transaction: &Transaction) -> Transaction {
    let clock = Clock::system();
    let mut again = transaction.clone();
    again.gid = Some(Gid::new(&clock));
    again.publish.notification_id = NotificationId::new(&clock);
    again
}

fn applied(notification_id: NotificationId) -> Applied {
    Applied {
        notification_id,
        topic: TopicName::parse("billing").unwrap(),
        offset: 1,
        broadcast_no: Some(1),
        inserted_at: Timestamp::from_micros(0),
    }
}

fn problem(status: u16, detail: &dyn fmt::Display) -> Problem {
    Problem {
        success: false,
        status,
        title: "Conflict".into(),
        code: "refused".into(),
        detail: detail.to_string(),
        request_id: None,
    }
}

//! A world in memory: one coordinator store, two participants, and gateways that can be made to fail at any call.
//!
//! Time is tokio's paused clock, for the store too: a test that waits for 45 seconds takes none.

mod gateway;
mod site;
mod store;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, atomic::Ordering},
};

use notifyx_model::{Clock, Email, Gid, InstanceId, Message, NotificationId, Priority, Timestamp, TopicId, UserId};
use notifyx_wire::rest::commit::Publish;
use tokio::time::Instant;

use crate::{Config, Coordinator, Party, Ports, Record, RequestHash, State, Transaction, participant};

use gateway::Link;
use site::Site;

pub(super) use gateway::{ALWAYS, Fault, Gateway};

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

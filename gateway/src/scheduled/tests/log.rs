//! A log that outlives its consumers, and may be away.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use notifyx_mesh::CallError;
use notifyx_model::{Clock, Email, EventId, Message, Priority, Timestamp, TopicName};
use notifyx_wire::{grpc::events as wire, rest::gateway::ScheduledState};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::refusal;
use crate::{
    Error,
    scheduled::{
        consumer::{LEASE, Log},
        order::Order,
    },
};

const AWAY: CallError = CallError::Unreachable { service: "events" };

/// A log that outlives its consumers, and may be away.
pub(super) struct Kept {
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) events: Vec<wire::Event>,
    pub(super) outcomes: BTreeMap<String, ScheduledState>,
    pub(super) position: u64,
    pub(super) holder: String,
    pub(super) epoch: u64,
    pub(super) until: Option<Instant>,
    pub(super) bells: Vec<Arc<Notify>>,
    /// What fails now.
    pub(super) broken: BTreeSet<&'static str>,
}

impl Kept {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), changed: watch::Sender::new(()) })
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Fires one of a topic, due at that second.
    pub(super) fn fire(&self, topic: &str, at_s: i64) {
        let mut state = self.state();
        let offset = state.events.len() as u64 + 1;
        let order = Order {
            user_id: "0199f3a2-7c1e-7d3a-9b42-5a0c1d2e3f40".parse().unwrap(),
            email: Email::parse("ann@example.org").unwrap(),
            topic: TopicName::parse(topic).unwrap(),
            message: Message::parse(&format!("{topic}{offset}")).unwrap(),
            to: Vec::new(),
            priority: Priority::default(),
            key: None,
            fire_at: Timestamp::from_micros(at_s * 1_000_000),
        };
        let new = order.event(&Clock::system()).unwrap();
        let event = wire::Event {
            id: new.id,
            category: new.category,
            data: new.data,
            fire_at_us: at_s * 1_000_000,
            offset: Some(offset),
            fired_at_us: Some(at_s * 1_000_000),
            ..wire::Event::default()
        };
        state.events.push(event);
        for bell in &state.bells {
            bell.notify_one();
        }
    }

    pub(super) fn set_broken(&self, what: &'static str, broken: bool) {
        let mut state = self.state();
        if broken {
            state.broken.insert(what)
        } else {
            state.broken.remove(what)
        };
    }

    fn check(&self, what: &str) -> Result<(), CallError> {
        if self.state().broken.contains(what) { Err(AWAY) } else { Ok(()) }
    }

    pub(super) async fn until(&self, reached: impl Fn(&State) -> bool) {
        let mut changes = self.changed.subscribe();
        let wait = async {
            while !reached(&self.state()) {
                changes.changed().await.unwrap();
            }
        };
        tokio::time::timeout(Duration::from_secs(600), wait).await.expect("it is reached within ten minutes");
    }

    /// All that fired is done, and the position says so.
    pub(super) async fn drained(&self) {
        self.until(|state| state.position == state.events.len() as u64).await;
    }
}

fn lost() -> CallError {
    refusal(409, "consumer_lost")
}

#[async_trait]
impl Log for Arc<Kept> {
    async fn acquire(&self, holder: &str) -> Result<wire::Consumer, CallError> {
        self.check("lease")?;
        assert!(self.check("panic").is_ok(), "as the test wants it");
        let (mut state, now) = (self.state(), Instant::now());
        if state.holder == holder || state.until.is_none_or(|until| until <= now) {
            state.epoch += u64::from(state.holder != holder);
            (state.holder, state.until) = (holder.to_owned(), Some(now + LEASE));
        }
        self.changed.send_replace(());
        let left = state.until.unwrap_or(now).saturating_duration_since(now);
        Ok(wire::Consumer {
            position: state.position,
            head: state.events.len() as u64,
            holder: state.holder.clone(),
            epoch: state.epoch,
            left_us: i64::try_from(left.as_micros()).unwrap(),
            ..wire::Consumer::default()
        })
    }

    async fn commit(&self, epoch: u64, position: u64) -> Result<(), CallError> {
        self.check("commit")?;
        let mut state = self.state();
        if state.epoch != epoch {
            return Err(lost());
        }
        state.position = position;
        self.changed.send_replace(());
        Ok(())
    }

    async fn release(&self, epoch: u64) -> Result<(), CallError> {
        let mut state = self.state();
        if state.epoch == epoch {
            state.until = None;
        }
        Ok(())
    }

    async fn read(&self, after: u64, limit: usize) -> Result<wire::ReadReply, CallError> {
        self.check("read")?;
        let state = self.state();
        let events = state.events.iter().filter(|event| event.offset.unwrap() > after).take(limit.min(7));
        Ok(wire::ReadReply { events: events.cloned().collect(), head: state.events.len() as u64, oldest: 1 })
    }

    async fn outcome(&self, id: &EventId) -> Result<Option<ScheduledState>, Error> {
        self.check("outcome")?;
        Ok(self.state().outcomes.get(id.as_str()).cloned())
    }

    async fn conclude(&self, id: &EventId, _: Option<String>, outcome: &ScheduledState) -> Result<(), CallError> {
        self.check("conclude")?;
        self.state().outcomes.entry(id.to_string()).or_insert_with(|| outcome.clone());
        self.changed.send_replace(());
        Ok(())
    }

    async fn listen(&self, bell: Arc<Notify>, over: CancellationToken) {
        self.state().bells.push(bell);
        over.cancelled().await;
    }
}

//! The coordinator: what is committed under a key is known under it.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use notifyx_mesh::CallError;
use notifyx_model::{Clock, EventId, Gid, NotificationId};
use tokio::sync::Notify;

use super::refusal;
use crate::{
    Error,
    publish::Accepted,
    scheduled::{consumer::Press, order::Order},
};

/// The coordinator: what is committed under a key is known under it.
#[derive(Default)]
pub(super) struct Printed {
    /// Each try, by its message.
    pub(super) tries: Mutex<Vec<String>>,
    /// Keys and messages, in order of commits.
    pub(super) committed: Mutex<Vec<(String, String)>>,
    /// Topics whose publishes fail for now, are refused, or are not decided the first time.
    pub(super) away: Mutex<BTreeSet<&'static str>>,
    pub(super) refused: Mutex<BTreeSet<&'static str>>,
    pub(super) undecided: Mutex<BTreeSet<&'static str>>,
    /// Once each: some service answers what only sounds like a refusal.
    pub(super) misunderstood: Mutex<BTreeSet<&'static str>>,
    pub(super) tried: Notify,
}

impl Printed {
    pub(super) fn messages(&self) -> Vec<String> {
        self.committed.lock().unwrap().iter().map(|(_, message)| message.clone()).collect()
    }

    pub(super) fn tries(&self) -> Vec<String> {
        self.tries.lock().unwrap().clone()
    }

    pub(super) fn set_away(&self, topic: &'static str, away: bool) {
        let mut topics = self.away.lock().unwrap();
        if away {
            topics.insert(topic)
        } else {
            topics.remove(topic)
        };
    }
}

#[async_trait]
impl Press for Arc<Printed> {
    async fn publish(&self, id: &EventId, order: &Order) -> Result<Accepted, Error> {
        let new = order.publish(id);
        let (message, topic) = (new.message.as_str().to_owned(), order.topic.as_str());
        self.tries.lock().unwrap().push(message.clone());
        self.tried.notify_waiters();
        tokio::time::sleep(Duration::from_millis(10)).await;
        if self.away.lock().unwrap().contains(topic) {
            return Err(CallError::Unreachable { service: "counter-2pc" }.into());
        }
        if self.misunderstood.lock().unwrap().remove(topic) {
            return Err(refusal(404, "route_not_found").into());
        }
        if self.refused.lock().unwrap().contains(topic) {
            return Err(Error::NotCreator(order.topic.clone()));
        }
        let gid = Gid::new(&Clock::system());
        let decided = !self.undecided.lock().unwrap().remove(topic);
        let (mut committed, key) = (self.committed.lock().unwrap(), new.key.unwrap());
        if decided && committed.iter().all(|(known, _)| *known != key) {
            committed.push((key, message));
        }
        Ok(Accepted { id: NotificationId::from_uuid(gid.uuid()), gid, offset: Some(1), decided })
    }
}

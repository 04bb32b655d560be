//! Publishing: who may, to whom, once. The rules before the two-phase commit, and the hint to the sockets after it.

use std::{collections::HashSet, sync::Arc};

use notifyx_chassis::User;
use notifyx_commit::{AppliedSink, Coordinator, Outcome, RequestHash, Transaction};
use notifyx_mesh::{Bus, CallError};
use notifyx_model::{Clock, Email, Gid, Notification, NotificationId, RECIPIENTS_MAX, TopicName, UserId};
use notifyx_wire::rest::{
    auth::Resolve,
    commit::{Applied, Publish, TransactionState, TransactionStatus},
};
use serde::Serialize;

use crate::{
    Error,
    backends::{Backends, TopicFacts},
    platform::NewPublish,
};

/// The route that stands in the hash of a request, whichever door it came through: a publish repeated over another door
/// with the same key is the same publish.
const ROUTE: &str = "POST /api/notifications";

/// A publish that is committed, or about to be decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Accepted {
    pub(crate) id: NotificationId,
    pub(crate) gid: Gid,
    /// Absent where the decision is not applied yet.
    pub(crate) offset: Option<u64>,
    /// Whether it is known to be committed; otherwise that is about to be decided.
    pub(crate) decided: bool,
}

/// Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Publisher {
    backends: Backends,
    coordinator: Coordinator,
    clock: Clock,
}

/// What makes two requests the same one.
#[derive(Serialize)]
struct Request<'a> {
    topic: &'a TopicName,
    message: &'a str,
    to: &'a [String],
    priority: u8,
}

impl Publisher {
    pub(crate) fn new(backends: Backends, coordinator: Coordinator, clock: Clock) -> Self {
        Self { backends, coordinator, clock }
    }

    pub(crate) fn coordinator(&self) -> &Coordinator {
        &self.coordinator
    }

    /// Publishes by the topic's name.
    pub(crate) async fn publish(&self, by: &User, new: NewPublish) -> Result<Accepted, Error> {
        let topic = self.own_topic(by, &new.topic).await?;
        let NewPublish { topic: name, message, to, priority, key } = new;
        let request = Request { topic: &name, message: message.as_str(), to: &to, priority: priority.into() };
        let req_hash = RequestHash::of(ROUTE, &request).0;
        let to_users = self.recipients(&to).await?;
        let gid = Gid::new(&self.clock);
        let publish = Publish {
            notification_id: notification_of(gid),
            topic_id: topic.id,
            from_user_id: by.id,
            from: by.email.clone(),
            message,
            to_users,
            priority,
        };
        let transaction = Transaction { gid: Some(gid), user_id: by.id, idem_key: key, req_hash, publish };
        accepted(self.coordinator.publish(transaction).await)
    }

    /// What of a publish for later can be refused today: whether the user may publish there, who the recipients are, the key.
    pub(crate) async fn check(&self, by: &User, new: &NewPublish) -> Result<(), Error> {
        if new.key.as_deref().is_some_and(|key| !(1..=255).contains(&key.len()) || key.contains(char::is_control)) {
            return Err(Error::BadKey);
        }
        self.own_topic(by, &new.topic).await?;
        self.recipients(&new.to).await.map(drop)
    }

    /// Of which the user is the creator.
    async fn own_topic(&self, by: &User, name: &TopicName) -> Result<TopicFacts, Error> {
        let found = self.backends.find_topic(by, name).await?;
        let topic = found.ok_or_else(|| Error::TopicNotFound(name.clone()))?;
        if topic.creator_id == by.id { Ok(topic) } else { Err(Error::NotCreator(name.clone())) }
    }

    /// Where a publish of this user stands.
    pub(crate) async fn status(&self, by: &User, gid: Gid) -> Result<TransactionStatus, Error> {
        let record = self.coordinator.find(gid).await?.filter(|record| record.user_id == by.id);
        Ok(record.ok_or(Error::TransactionNotFound(gid))?.status())
    }

    /// User ids as they are, e-mail addresses by asking auth; each once.
    async fn recipients(&self, to: &[String]) -> Result<Vec<UserId>, Error> {
        if to.len() > RECIPIENTS_MAX {
            return Err(Error::TooManyRecipients { count: to.len() });
        }
        let mut ids = Vec::with_capacity(to.len());
        let mut emails = Vec::new();
        for name in to {
            match name.parse::<UserId>() {
                Ok(id) => ids.push(id),
                Err(_) => emails.push(Email::parse(name).map_err(|_| Error::UnknownRecipient(shown(name)))?),
            }
        }
        if !emails.is_empty() {
            let found = self.backends.resolve(&Resolve { emails: emails.clone(), ids: Vec::new() }).await?.users;
            for email in emails {
                let user = found.iter().find(|user| user.email == email);
                ids.push(user.ok_or_else(|| Error::UnknownRecipient(email.to_string()))?.id);
            }
        }
        let mut seen = HashSet::with_capacity(ids.len());
        ids.retain(|id| seen.insert(*id));
        Ok(ids)
    }
}

/// A notification is named after its transaction, so that whoever knows one knows the other: also a publisher whose key
/// was taken before, and who is told before it is applied.
fn notification_of(gid: Gid) -> NotificationId {
    NotificationId::from_uuid(gid.uuid())
}

fn accepted(outcome: Outcome) -> Result<Accepted, Error> {
    let stands = |gid, applied: Option<Applied>, decided| Accepted {
        id: notification_of(gid),
        gid,
        offset: applied.map(|applied| applied.offset),
        decided,
    };
    match outcome {
        Outcome::Committed { gid, applied } => Ok(stands(gid, applied, true)),
        Outcome::Unknown { gid } => Ok(stands(gid, None, false)),
        Outcome::Known { status, applied } => match status.state {
            TransactionState::Aborted => {
                Err(Error::Aborted { reason: status.reason.unwrap_or_else(|| "it was aborted".into()) })
            }
            TransactionState::Preparing => Ok(stands(status.gid, None, false)),
            TransactionState::Committed | TransactionState::Quarantined | TransactionState::Resolved => {
                Ok(stands(status.gid, applied, true))
            }
        },
        Outcome::Refused { problem, .. } => Err(Error::Declined(CallError::Refused(Box::new(problem), None))),
        Outcome::Aborted { reason, .. } => Err(Error::Aborted { reason }),
        Outcome::NotBegun { reason, .. } => Err(Error::NotBegun { reason }),
        Outcome::Mismatch { .. } => Err(Error::KeyReused),
        Outcome::Busy(rejected) => Err(rejected.into()),
    }
}

/// A client's text in an error: enough of it to know it again.
fn shown(text: &str) -> String {
    text.chars().take(100).collect()
}

/// Tells the bus of what was applied. What recovery applied is not told: the feed finds it in the topic's log within a
/// second, and recovery is that late already.
#[derive(Debug)]
pub(crate) struct Announcer(pub(crate) Bus);

impl AppliedSink for Announcer {
    fn applied(&self, applied: &Applied, publish: Option<&Publish>) {
        let Some(publish) = publish else { return };
        self.0.publish(Arc::new(Notification {
            id: applied.notification_id,
            topic_id: publish.topic_id,
            topic: applied.topic.clone(),
            offset: applied.offset,
            broadcast_no: applied.broadcast_no,
            from_user_id: publish.from_user_id,
            from: publish.from.clone(),
            message: publish.message.clone(),
            to: publish.to_users.clone(),
            priority: publish.priority,
            inserted_at: applied.inserted_at,
        }));
    }
}

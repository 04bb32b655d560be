//! Publishing: who may, to whom, once. The rules before the two-phase commit, and the hint to the sockets after it.

use std::{collections::HashSet, sync::Arc};

use notifyx_chassis::User;
use notifyx_commit::{AppliedSink, Coordinator, Outcome, RequestHash, Transaction};
use notifyx_mesh::{Bus, CallError};
use notifyx_model::{Clock, Email, Gid, Notification, NotificationId, RECIPIENTS_MAX, TopicName, UserId};
use notifyx_wire::rest::{
    auth::Resolve,
    commit::{Applied, Publish},
};
use serde::Serialize;

use crate::{
    Error,
    backends::{Backends, TopicFacts},
    platform::NewPublish,
};

/// A key longer than this is no key but a body.
const KEY_BYTES_MAX: usize = 255;

/// The route that stands in the hash of a request, whichever door it came through: a publish repeated over another door
/// with the same key is the same publish.
const ROUTE: &str = "POST /api/notifications";

/// A publish that is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Accepted {
    pub(crate) id: NotificationId,
    pub(crate) gid: Gid,
    /// Absent where the decision is not applied yet.
    pub(crate) offset: Option<u64>,
}

#[derive(Debug)]
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
        let facts = self.backends.find_topic(by, &new.topic).await?;
        let facts = facts.ok_or_else(|| Error::TopicNotFound(new.topic.clone()))?;
        self.publish_to(by, facts, new).await
    }

    async fn publish_to(&self, by: &User, topic: TopicFacts, new: NewPublish) -> Result<Accepted, Error> {
        let NewPublish { topic: name, message, to, priority, key } = new;
        if topic.creator_id != by.id {
            return Err(Error::NotCreator(name));
        }
        if let Some(key) = &key
            && !(1..=KEY_BYTES_MAX).contains(&key.len()) | !key.bytes().all(|b| b.is_ascii_graphic() || b == b' ')
        {
            return Err(Error::BadKey);
        }
        let request = Request { topic: &name, message: message.as_str(), to: &to, priority: priority.into() };
        let request_hash = RequestHash::of(ROUTE, &request);
        let to_users = self.recipients(&to).await?;
        let publish = Publish {
            notification_id: NotificationId::new(&self.clock),
            topic_id: topic.id,
            from_user_id: by.id,
            from: by.email.clone(),
            message,
            to_users,
            priority,
        };
        self.commit(by.id, key, request_hash, publish).await
    }

    async fn commit(
        &self,
        user_id: UserId,
        idem_key: Option<String>,
        request: RequestHash,
        publish: Publish,
    ) -> Result<Accepted, Error> {
        let gid = Gid::new(&self.clock);
        let transaction = Transaction { gid, user_id, idem_key, request, publish };
        match self.coordinator.publish(transaction).await {
            Outcome::Committed { gid, notification_id, applied } => {
                Ok(Accepted { id: notification_id, gid, offset: applied.map(|applied| applied.offset) })
            }
            Outcome::Refused { problem, .. } => Err(CallError::Refused(problem, None).into()),
            Outcome::Aborted { reason, .. } => Err(Error::Aborted { reason }),
            Outcome::Mismatch => Err(Error::KeyReused),
        }
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

/// A client's text in an error: enough of it to know it again.
fn shown(text: &str) -> String {
    text.chars().take(100).collect()
}

/// Tells the bus of what was applied, by a publish or by recovery.
#[derive(Debug)]
pub(crate) struct Announcer(pub(crate) Bus);

impl AppliedSink for Announcer {
    fn applied(&self, publish: &Publish, applied: &Applied) {
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

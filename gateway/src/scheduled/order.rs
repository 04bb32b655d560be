//! What a scheduled notification is in the events service: the data of its event, and its id.

use bytes::Bytes;
use notifyx_chassis::User;
use notifyx_commit::RequestHash;
use notifyx_model::{Clock, Email, EventId, Message, Priority, Timestamp, TopicName, UserId};
use notifyx_wire::grpc::events as wire;
use serde::{Deserialize, Serialize};

use super::CATEGORY;
use crate::{Error, platform::NewPublish};

/// What an event's data may have.
const DATA_MAX_BYTES: usize = 256 * 1024;

/// A publish for later, whole: nothing of it is looked up at its time that could have changed meanwhile, but for who may publish and
/// to whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) user_id: UserId,
    pub(super) email: Email,
    pub(super) topic: TopicName,
    pub(super) message: Message,
    pub(super) to: Vec<String>,
    pub(super) priority: Priority,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) key: Option<String>,
    /// As it was asked first: a request repeated after the notification was given another time is still the same one.
    pub(super) fire_at: Timestamp,
}

impl Order {
    pub(super) fn new(by: &User, new: NewPublish, fire_at: Timestamp) -> Self {
        let NewPublish { topic, message, to, priority, key } = new;
        Self { user_id: by.id, email: by.email.clone(), topic, message, to, priority, key, fire_at }
    }

    pub(super) fn read(data: &[u8]) -> Result<Self, Error> {
        serde_json::from_slice(data).map_err(Error::BadScheduled)
    }

    /// Under its key it is one event, however often it is asked for. The event's key is the user: their list is found by it.
    pub(super) fn event(&self, clock: &Clock) -> Result<wire::NewEvent, Error> {
        let data = serde_json::to_vec(self).expect("names and texts are JSON");
        if data.len() > DATA_MAX_BYTES {
            return Err(Error::ScheduledTooLarge { bytes: data.len(), most: DATA_MAX_BYTES });
        }
        let id = match &self.key {
            Some(key) => id_under(self.user_id, key),
            None => EventId::new(clock),
        };
        Ok(wire::NewEvent {
            id: id.to_string(),
            category: CATEGORY.to_owned(),
            key: Some(self.user_id.to_string()),
            priority: Some(u8::from(self.priority).into()),
            data: Bytes::from(data),
            created_at_us: None,
            fire_at_us: Some(self.fire_at.as_micros()),
        })
    }

    pub(super) fn user(&self) -> User {
        User { id: self.user_id, email: self.email.clone() }
    }

    /// As a publish of today. One without a key has its own, so that it is published once however often it is tried.
    pub(super) fn publish(&self, id: &EventId) -> NewPublish {
        NewPublish {
            topic: self.topic.clone(),
            message: self.message.clone(),
            to: self.to.clone(),
            priority: self.priority,
            key: Some(self.key.clone().unwrap_or_else(|| format!("scheduled:{id}"))),
        }
    }
}

/// 128 bits of SHA-256 over user and key.
fn id_under(user: UserId, key: &str) -> EventId {
    let hash = format!("{:x}", RequestHash::of(CATEGORY, &(user, key)));
    EventId::parse(&hash[..32]).expect("digits are allowed in ids")
}

/// What the outcome is called of one that fired there. Not its own id: under a key that comes again when the first time is forgotten,
/// another one has the same id, but never the same place in the log.
pub(super) fn outcome_id(offset: u64) -> EventId {
    EventId::parse(&offset.to_string()).expect("digits are allowed in ids")
}

pub(super) fn id_of(event: &wire::Event) -> Result<EventId, Error> {
    Ok(EventId::parse(&event.id)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(key: Option<&str>) -> Order {
        Order {
            user_id: "0199f3a2-7c1e-7d3a-9b42-5a0c1d2e3f40".parse().unwrap(),
            email: Email::parse("ann@example.org").unwrap(),
            topic: TopicName::parse("billing").unwrap(),
            message: Message::parse("paid").unwrap(),
            to: vec!["bob@example.org".into()],
            priority: Priority::default(),
            key: key.map(str::to_owned),
            fire_at: Timestamp::from_micros(1_767_225_600_123_456),
        }
    }

    #[test]
    fn what_is_stored_keeps_its_shape() {
        let event = order(Some("k")).event(&Clock::system()).unwrap();
        assert_eq!(
            std::str::from_utf8(&event.data).unwrap(),
            r#"{"user_id":"0199f3a2-7c1e-7d3a-9b42-5a0c1d2e3f40","email":"ann@example.org","topic":"billing","message":"paid","#
                .to_owned()
                + r#""to":["bob@example.org"],"priority":4,"key":"k","fire_at":"2026-01-01T00:00:00.123456Z"}"#
        );
        assert_eq!(Order::read(&event.data).unwrap(), order(Some("k")));
        assert_eq!(
            (event.id.as_str(), event.key.as_deref()),
            ("a457fe0a052e5a6ecbb1f81208cfe93e", Some("0199f3a2-7c1e-7d3a-9b42-5a0c1d2e3f40"))
        );
    }

    #[test]
    fn a_key_names_one_event_and_none_names_another_each_time() {
        let id = |order: Order| order.event(&Clock::system()).unwrap().id;
        let later = Order { fire_at: Timestamp::from_micros(0), ..order(Some("k")) };
        assert_eq!(id(order(Some("k"))), id(later));
        assert_ne!(id(order(Some("k"))), id(order(Some("l"))));
        assert_ne!(id(order(None)), id(order(None)));
    }

    #[test]
    fn what_no_event_can_hold_is_refused() {
        let to = vec!["somebody-with-a-long-name@a-long-domain.example.org".to_owned(); 1_000];
        let message = Message::parse(&"\u{1}".repeat(Message::MAX_BYTES)).unwrap();
        let refused = Order { message, to, ..order(None) }.event(&Clock::system()).unwrap_err();
        assert!(matches!(refused, Error::ScheduledTooLarge { .. }), "{refused}");
    }
}

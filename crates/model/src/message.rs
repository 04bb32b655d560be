//! The message itself and the envelope it travels in.

use std::{fmt, sync::Arc};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{Error, Visitor},
};

use crate::{Email, Invalid, NotificationId, Timestamp, TopicId, TopicName, UserId};

/// What a notification says: text of at most [`Message::MAX_BYTES`], without U+0000 (Postgres cannot keep it).
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(try_from = "String", into = "String")]
#[schema(value_type = String)]
pub struct Message(Arc<str>);

impl Message {
    /// Large enough for a rendered card, small enough that 256 of them share a batch.
    pub const MAX_BYTES: usize = 64 * 1024;

    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let refuse = |why: String| Err(Invalid::new("message", why));
        if text.is_empty() {
            return refuse("is empty".into());
        }
        if text.len() > Self::MAX_BYTES {
            return refuse(format!("has {} bytes, more than {}", text.len(), Self::MAX_BYTES));
        }
        if text.contains('\0') {
            return refuse("holds U+0000".into());
        }
        Ok(Self(Arc::from(text)))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Message {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        Self::parse(&text)
    }
}

impl From<Message> for String {
    fn from(message: Message) -> String {
        message.0.as_ref().to_owned()
    }
}

/// Bodies are never logged: only the length shows.
impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Message({} bytes)", self.0.len())
    }
}

/// 0 (least) to 9 (most urgent); 4 where nothing is said, as in JMS and AMQP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, utoipa::ToSchema)]
#[serde(into = "u8")]
#[schema(value_type = u8, default = 4)]
pub struct Priority(u8);

impl<'de> Deserialize<'de> for Priority {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Level;

        impl Visitor<'_> for Level {
            type Value = Priority;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a whole number from 0 to 9")
            }

            fn visit_u64<E: Error>(self, level: u64) -> Result<Priority, E> {
                let priority = u8::try_from(level).ok().and_then(|level| Priority::try_from(level).ok());
                priority.ok_or_else(|| E::custom(format_args!("priority {level} is not 0 to 9")))
            }
        }

        from.deserialize_u64(Level)
    }
}

impl Default for Priority {
    fn default() -> Self {
        Self(4)
    }
}

impl TryFrom<u8> for Priority {
    type Error = Invalid;

    fn try_from(level: u8) -> Result<Self, Invalid> {
        if level <= 9 { Ok(Self(level)) } else { Err(Invalid::new("priority", format!("{level} is not 0 to 9"))) }
    }
}

impl From<Priority> for u8 {
    fn from(priority: Priority) -> u8 {
        priority.0
    }
}

/// Recipients that one notification may name; a larger audience is a topic of its own.
pub const RECIPIENTS_MAX: usize = 1_000;

/// A committed notification, as the log of its topic holds it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Notification {
    pub id: NotificationId,
    pub topic_id: TopicId,
    pub topic: TopicName,
    /// Its place in the topic: 1, 2, 3 … without gaps.
    pub offset: u64,
    /// Its place among the topic's broadcasts, without gaps; absent where it was sent to named recipients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broadcast_no: Option<u64>,
    pub from_user_id: UserId,
    /// The sender's e-mail address.
    pub from: Email,
    pub message: Message,
    /// The recipients; empty means every subscriber.
    #[serde(default)]
    pub to: Vec<UserId>,
    #[serde(default)]
    pub priority: Priority,
    pub inserted_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_bounded_and_clean() {
        assert!(Message::parse(&"m".repeat(Message::MAX_BYTES)).is_ok());
        for bad in [String::new(), "m".repeat(Message::MAX_BYTES + 1), "a\0b".into()] {
            assert!(Message::parse(&bad).is_err());
        }
    }

    #[test]
    fn debug_shows_no_body() {
        assert_eq!(format!("{:?}", Message::parse("salary").unwrap()), "Message(6 bytes)");
    }

    #[test]
    fn priorities_end_at_nine() {
        assert!(Priority::try_from(9).is_ok());
        assert_eq!(Priority::try_from(10).unwrap_err().to_string(), "priority 10 is not 0 to 9");
    }
}

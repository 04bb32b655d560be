//! The event: what a publisher gives, and what became of it.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use notifyx_model::{Category, EventId, Invalid, Priority, Timestamp};

use crate::store::Slot;

/// What an event is about: 1 to [`EventKey::MAX_BYTES`] bytes without control characters; only carried.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EventKey(Arc<str>);

impl EventKey {
    /// A key of Kafka or an MQTT topic of the usual length fits; more belongs into the data.
    pub const MAX_BYTES: usize = 255;

    pub fn parse(text: &str) -> Result<Self, Invalid> {
        text_of("key", text, Self::MAX_BYTES).map(Self)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Who gave the event, as the gateway names them: a user's id, an API key's id.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Owner(Arc<str>);

impl Owner {
    /// A UUID with a word before it, twice over.
    pub const MAX_BYTES: usize = 128;

    pub fn parse(text: &str) -> Result<Self, Invalid> {
        text_of("owner", text, Self::MAX_BYTES).map(Self)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// 1 to `max` bytes without control characters.
pub(crate) fn text_of(what: &'static str, text: &str, max: usize) -> Result<Arc<str>, Invalid> {
    match text {
        "" => Err(Invalid::new(what, "is empty")),
        _ if text.len() > max => Err(Invalid::new(what, format!("has {} bytes, more than {max}", text.len()))),
        _ if text.contains(char::is_control) => Err(Invalid::new(what, "holds a control character")),
        _ => Ok(Arc::from(text)),
    }
}

/// An event as it was given. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// Unique in its category as long as the event is kept: an id seen before *is* that event.
    pub id: EventId,
    pub category: Category,
    pub key: Option<EventKey>,
    pub priority: Priority,
    /// JSON of at most [`NewEvent::DATA_MAX_BYTES`], as it came; the door has seen that it is JSON.
    pub data: Bytes,
    pub created_at: Timestamp,
    pub fire_at: Timestamp,
    /// `None`: it was given anonymously.
    pub owner: Option<Owner>,
    /// The recurring schedule that made it.
    pub recurring: Option<EventId>,
}

impl NewEvent {
    /// A rendered page or a small picture; what is larger belongs into an object store, with its address here.
    pub const DATA_MAX_BYTES: usize = 256 * 1024;
}

/// Data is never logged: only its length shows.
impl fmt::Debug for NewEvent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewEvent")
            .field("id", &self.id)
            .field("category", &self.category)
            .field("priority", &self.priority)
            .field("fire_at", &self.fire_at)
            .field("data", &format_args!("{} bytes", self.data.len()))
            .finish_non_exhaustive()
    }
}

/// An event that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub given: NewEvent,
    pub place: Place,
}

impl Event {
    /// `None`: it waits.
    pub fn offset(&self) -> Option<u64> {
        match self.place {
            Place::Waiting { .. } => None,
            Place::Fired { offset, .. } => Some(offset),
        }
    }

    /// `None`: it has fired.
    pub fn slot(&self) -> Option<Slot> {
        match self.place {
            Place::Waiting { seq } => Some(Slot { at: self.given.fire_at, seq }),
            Place::Fired { .. } => None,
        }
    }
}

/// Where an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the schedule: its number in order of arrival. It has one `fire_at` for ever: rescheduling takes a new number.
    Waiting { seq: u64 },
    /// In the log: its place in the category, from 1 without gaps, and when it came there.
    Fired { offset: u64, at: Timestamp },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_owners_are_bounded_and_clean() {
        assert!(EventKey::parse(&"k".repeat(EventKey::MAX_BYTES)).is_ok());
        let long = EventKey::parse(&"k".repeat(256)).unwrap_err();
        assert_eq!(long.to_string(), "key has 256 bytes, more than 255");
        for bad in ["", "a\0b", "a\nb"] {
            assert!(EventKey::parse(bad).is_err() && Owner::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn debug_shows_no_data() {
        let event = NewEvent {
            id: EventId::parse("e").unwrap(),
            category: Category::parse("c").unwrap(),
            key: None,
            priority: Priority::default(),
            data: Bytes::from_static(b"{\"salary\":1}"),
            created_at: Timestamp::from_micros(0),
            fire_at: Timestamp::from_micros(0),
            owner: None,
            recurring: None,
        };
        let shown = format!("{event:?}");
        assert!(shown.contains("12 bytes") && !shown.contains("salary"), "{shown}");
    }
}

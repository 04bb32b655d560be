//! A recurring schedule as it is kept: what it makes, by which rule, and where it stands. The rule itself is read elsewhere.

use std::str::FromStr;

use bytes::Bytes;
use notifyx_model::{Category, EventId, Invalid, Priority, Timestamp};

use crate::event::{EventKey, Owner};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recurring {
    pub id: EventId,
    pub category: Category,
    pub key: Option<EventKey>,
    pub priority: Priority,
    pub data: Bytes,
    /// As its owner wrote it.
    pub rule: String,
    /// An IANA time zone.
    pub zone: String,
    pub on_missed: OnMissed,
    /// No occurrence before, none after.
    pub start_at: Option<Timestamp>,
    pub end_at: Option<Timestamp>,
    /// Occurrences in all.
    pub count: Option<u64>,
    pub owner: Option<Owner>,
    pub created_at: Timestamp,
    pub state: State,
    /// The newest nominal time that became an event.
    pub last_at: Option<Timestamp>,
    /// Occurrences that became events.
    pub made: u64,
    /// Occurrences that were missed and skipped.
    pub skipped: u64,
}

/// Where a recurring schedule stands; `next` is the next nominal time that is neither made nor skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Active { next: Timestamp },
    Paused { next: Timestamp },
    Finished,
}

impl State {
    pub fn next(self) -> Option<Timestamp> {
        match self {
            Self::Active { next } | Self::Paused { next } => Some(next),
            Self::Finished => None,
        }
    }

    pub fn is_paused(self) -> bool {
        matches!(self, Self::Paused { .. })
    }
}

/// What becomes of occurrences whose time passed while nobody was there to make them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnMissed {
    FireAll,
    FireLast,
    Skip,
}

impl OnMissed {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FireAll => "fire_all",
            Self::FireLast => "fire_last",
            Self::Skip => "skip",
        }
    }
}

impl FromStr for OnMissed {
    type Err = Invalid;

    fn from_str(text: &str) -> Result<Self, Invalid> {
        match text {
            "fire_all" => Ok(Self::FireAll),
            "fire_last" => Ok(Self::FireLast),
            "skip" => Ok(Self::Skip),
            other => Err(Invalid::new("on_missed", format!("`{other}` is not fire_all, fire_last or skip"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn on_missed_reads_back_what_it_writes() {
        for on_missed in [OnMissed::FireAll, OnMissed::FireLast, OnMissed::Skip] {
            assert_eq!(on_missed.as_str().parse(), Ok(on_missed));
        }
        assert!("never".parse::<OnMissed>().is_err());
    }
}

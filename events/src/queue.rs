//! The near future in memory: what fires next, in which order, and what is to be read from the store for it.
//!
//! The [`Agenda`] holds a [`Window`] for each category in which something waits: a bounded piece of its schedule, the nearest
//! events first; the store holds all of it. No I/O and no clock live here: whoever drives the schedule says what time it is, reads
//! the pages that are asked for, and tells what was committed, after it was. What is here and no longer in the store does no harm
//! (firing it finds nothing); what is in the store and not here is behind the window's edge, and will be read.

mod agenda;
mod lateness;
#[cfg(test)]
mod model;
mod window;

use notifyx_model::Timestamp;

pub use self::{
    agenda::{Agenda, Bounds, Figures, Refill},
    lateness::{Lateness, Punctuality},
    window::{Page, Placed, Window},
};
use crate::store::Slot;

/// A slot in 16 bytes, ordered as slots are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    micros: i64,
    seq: u64,
}

impl Key {
    /// Before every event.
    const FIRST: Self = Self { micros: i64::MIN, seq: 0 };

    /// Behind every event that is due.
    fn end_of(now: Timestamp) -> Self {
        Self { micros: now.as_micros(), seq: u64::MAX }
    }

    fn after(self) -> Self {
        Self { micros: self.micros, seq: self.seq.saturating_add(1) }
    }

    /// The slot before it, as a cursor; `None` for the beginning.
    fn cursor(self) -> Option<Slot> {
        // Sequences are SQL's: they end at `i64::MAX`.
        const SEQ_MAX: u64 = i64::MAX.unsigned_abs();
        match self {
            Self::FIRST => None,
            Self { micros, seq: 0 } => Some(Self { micros: micros.saturating_sub(1), seq: SEQ_MAX }.slot()),
            Self { micros, seq } => Some(Self { micros, seq: (seq - 1).min(SEQ_MAX) }.slot()),
        }
    }

    fn slot(self) -> Slot {
        Slot { at: Timestamp::from_micros(self.micros), seq: self.seq }
    }
}

impl From<Slot> for Key {
    fn from(slot: Slot) -> Self {
        Self { micros: slot.at.as_micros(), seq: slot.seq }
    }
}

//! Events: one durable log of what happened, and the schedule of what will.
//!
//! Every event is appended to the log of its category, at an offset that is taken in the transaction that commits it: offsets
//! follow commit order and have no gaps. The schedule holds events until their time; firing moves them to the log in one
//! transaction, in which the delete decides, so that an event fires once whoever tries.

mod error;
pub mod event;
pub mod queue;
pub mod recurrence;
pub mod recurring;
pub mod store;
pub mod writer;

pub use crate::error::Error;

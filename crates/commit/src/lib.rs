//! Two-phase commit between one coordinator and two participants.
//!
//! Here live the states, the rules of a participant (pure decisions), the coordinator and its recovery. Storage and transport
//! are behind traits: this crate opens no database and no socket. One invariant carries the rest: what makes a decision single
//! is the compare-and-set on the coordinator's `state`; everything else may be lost, doubled or late.

mod hash;
pub mod participant;

pub use hash::RequestHash;

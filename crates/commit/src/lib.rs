//! Two-phase commit between one coordinator and two participants.
//!
//! Here live the states, the rules of a participant (pure decisions), the coordinator and its recovery. Storage and transport
//! are behind traits: this crate opens no database and no socket. One invariant carries the rest: what makes a decision single
//! is the compare-and-set on the coordinator's `state`; everything else may be lost, doubled or late.

pub mod ballot;
mod config;
mod coordinator;
mod hash;
pub mod participant;
mod port;
mod store;
#[cfg(feature = "testing")]
pub mod testing;
mod transaction;

pub use config::Config;
pub use coordinator::{AppliedSink, Coordinator, Outcome, Ports, Transaction};
pub use hash::RequestHash;
pub use port::{CallFailed, Participant};
pub use store::{
    Acked, Begin, Begun, Claim, CoordinatorStore, Deferred, Figures, Intervened, Page, Resolve, StoreError, Terms,
    Verdict, VerdictOn,
};
pub use transaction::{Parties, Party, Record, State, Votes};

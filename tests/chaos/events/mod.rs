//! Random runs of what is scheduled: events given, moved and cancelled through every gateway while processes and databases are struck,
//! recurring schedules and scheduled notifications beside them, and listeners of all three kinds that come back with their offset.
//!
//! What must hold is in `story` (what was answered is true), `recurring` (each nominal time once) and `audience` (everybody hears each
//! offset once, in order). Nothing is asked of how fast it goes, but that everything is there within [`run::BOUND`] of healing.

mod audience;
mod client;
mod log;
mod notifier;
mod poster;
mod recurring;
mod run;
mod story;

pub(crate) use run::run;

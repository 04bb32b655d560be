//! Random runs: the real binaries on real databases, killed and stopped at random under load, then healed; after that every
//! invariant holds, and every client was told the truth. There are two kinds of load: notifications published through two-phase
//! commit, and what is scheduled (`events`).
//!
//! A run follows from its seed as far as real processes allow: which faults in which order, who asks for what. It prints the
//! seed, and one line of figures at its end. `NOTIFYX_CHAOS_SEED` repeats a run, `NOTIFYX_CHAOS_NOTIFICATIONS` and
//! `NOTIFYX_CHAOS_EVENTS` set its size:
//!
//! ```text
//! NOTIFYX_CHAOS_NOTIFICATIONS=10000 cargo test -p notifyx --test chaos -- --nocapture separate
//! ```

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it is")]

#[path = "../blackbox/harness/mod.rs"]
#[expect(dead_code, unused_imports, unused_macros, reason = "the black-box tests use the rest")]
mod harness;

mod books;
mod events;
mod invariants;
mod ledger;
mod member;
mod plan;
mod publisher;
mod recovered;
mod run;
mod settings;
mod stage;
mod storm;
mod subscriber;

use harness::Form;

/// A process per service, two of gateway, persist and counter-2pc, on a PostgreSQL server that crashes too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn separate_processes_keep_every_promise_through_random_faults() {
    run::run(Form::Separate).await;
}

/// Everything in one process on SQLite.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_process_keeps_every_promise_through_random_faults() {
    run::run(Form::Up).await;
}

/// Two of events and of the gateway, on a PostgreSQL server that crashes too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn separate_processes_fire_each_event_once_through_random_faults() {
    events::run(Form::Separate).await;
}

/// Everything in one process on SQLite.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_process_fires_each_event_once_through_random_faults() {
    events::run(Form::Up).await;
}

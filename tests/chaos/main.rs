//! Random runs: the real binaries on real databases, killed and stopped at random under publish load, then healed; after
//! that every invariant of two-phase commit holds, and every client was told the truth.
//!
//! A run follows from its seed as far as real processes allow: which faults in which order, who publishes what. It prints the
//! seed, and one line of figures at its end. `NOTIFYX_CHAOS_SEED` repeats a run, `NOTIFYX_CHAOS_NOTIFICATIONS` sets its size:
//!
//! ```text
//! NOTIFYX_CHAOS_NOTIFICATIONS=10000 cargo test -p notifyx --test chaos -- --nocapture separate
//! ```

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it is")]

#[path = "../blackbox/harness/mod.rs"]
#[expect(dead_code, unused_imports, unused_macros, reason = "the black-box tests use the rest")]
mod harness;

mod books;
mod invariants;
mod ledger;
mod member;
mod plan;
mod publisher;
mod recovered;
mod run;
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

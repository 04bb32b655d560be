//! Fault enumeration: the real coordinator, participants and stores, with a named fault point before and after every durable
//! write and every send, each crossed with each fault; then pairs during recovery. The protocol's invariants hold after each.
//!
//! `NOTIFYX_FAULTS=all` runs every pair, and every single case on Postgres, rather than a sample of them; a number: one in so many.
//! `NOTIFYX_FAULTS_CASE` names a case as it is printed, or a part of it: only such ones run. `NOTIFYX_FAULTS_VERBOSE` prints each.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it is")]

mod books;
mod cases;
mod client;
mod databases;
mod desk;
mod link;
mod points;
mod run;
mod time;
mod world;

//! Fault enumeration: the real coordinator, participants and stores, with a named fault point before and after every durable
//! write and every send, each crossed with each fault; then pairs during recovery. The protocol's invariants hold after each.
//!
//! `NOTIFYX_FAULTS=all` runs every pair rather than a sample of them; `NOTIFYX_FAULTS_CASE=substring` only such cases.

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

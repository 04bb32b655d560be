//! Black-box tests: the real binary, started as its users start it, talked to from outside.
//!
//! Each file is one subject; each scenario runs against `notifyx up` and against services as separate processes, unless it is
//! about one of them. What is waited for has a deadline, and what a test started is gone after it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails where it is")]

#[expect(dead_code, reason = "the random runs in tests/chaos stand on it too")]
mod harness;

mod bad_input;
mod command_line;
mod crash;
mod delivery;
mod event_channel;
mod event_terminal;
mod events;
mod gateways;
mod inner_doors;
mod keys;
mod main_job;
mod neighbours;
mod operators;
mod publishing;
mod schedule;
mod scheduled;
mod sessions;
mod shutdown;
mod streams;
mod user_channel;

//! The mesh through real connections: against services, a registry and an auth that the tests can break.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod calls;
mod registry;
mod rpcs;
mod sessions;
mod support;

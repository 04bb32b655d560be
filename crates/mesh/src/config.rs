//! The mesh's settings: a part of the configuration of each service that calls others.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Every value has a default; a service's file names only what it changes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct MeshConfig {
    /// The deadline of a call that names none. Longer than a slow commit, shorter than a person's patience.
    pub call_ms: u64,
    /// Tries of one call, the first included: with two instances the third is the first one again, after its restart.
    pub attempts_max: u32,
    /// Failures in a row that open an instance's breaker: more than one lost packet, fewer than users would notice.
    pub breaker_failures: u32,
    /// How long a breaker rejects before its first probe; doubled after each probe that fails.
    pub breaker_open_ms: u64,
    /// The longest wait between two probes: how late a recovered instance is noticed.
    pub breaker_open_max_ms: u64,
}

impl Default for MeshConfig {
    fn default() -> Self {
        Self { call_ms: 2_000, attempts_max: 3, breaker_failures: 5, breaker_open_ms: 500, breaker_open_max_ms: 5_000 }
    }
}

impl MeshConfig {
    pub(crate) fn deadline(&self) -> Duration {
        Duration::from_millis(self.call_ms)
    }
}

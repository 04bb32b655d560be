//! The coordinator's bounds. The defaults are the protocol's.

use std::time::Duration;

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// From BEGIN to the last moment at which COMMIT can be decided; judged by the coordinator's database.
    pub deadline_ms: u64,
    /// How long other gateways leave a transaction to the one that drives it. Longer than the deadline, so that
    /// recovery aborts nothing that could still commit.
    pub lease_ms: u64,
    /// One prepare call; tried twice, and twice this is still within the deadline.
    pub prepare_timeout_ms: u64,
    /// One commit or rollback call: a slow fsync of a whole group fits.
    pub apply_timeout_ms: u64,
    /// One call of the coordinator's store.
    pub store_timeout_ms: u64,
    /// How long a publisher is kept waiting for the decision to be applied before it is told 202.
    pub answer_within_ms: u64,
    /// The pause after the first failed commit or rollback; it doubles.
    pub retry_first_ms: u64,
    /// The longest pause between two tries.
    pub retry_max_ms: u64,
    /// Tries that a participant refused in the same way before the transaction is quarantined.
    pub quarantine_after_tries: u32,
    /// The pause between tries of a quarantined transaction: slow, because an operator must look anyway.
    pub quarantine_retry_ms: u64,
    /// How often abandoned transactions are looked for.
    pub recover_every_ms: u64,
    /// Notifications that share one group. At most 512, what a participant takes in one call.
    pub group_items: usize,
    /// Bytes of JSON that share one group: below the 1 MiB that doors take.
    pub group_bytes: usize,
    /// Groups under way at once. Two: while one waits for its fsyncs, the other prepares. More make the groups smaller, and each
    /// costs the same few writes: with four, 64 publishers got 10 % (Postgres) to 30 % (SQLite) less done, and 8 even less.
    pub groups_in_flight: usize,
    /// Publishes that wait for a group; beyond it they are told to come back.
    pub queue_items: usize,
    /// How long closed transactions answer for themselves and for their idempotency keys.
    pub keep_closed_days: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            deadline_ms: 5_000,
            lease_ms: 10_000,
            prepare_timeout_ms: 1_000,
            apply_timeout_ms: 2_000,
            store_timeout_ms: 3_000,
            answer_within_ms: 500,
            retry_first_ms: 50,
            retry_max_ms: 30_000,
            quarantine_after_tries: 10,
            quarantine_retry_ms: 300_000,
            recover_every_ms: 1_000,
            group_items: 256,
            group_bytes: 900_000,
            groups_in_flight: 2,
            queue_items: 8_192,
            keep_closed_days: 7,
        }
    }
}

impl Config {
    /// What is wrong with it, as a sentence that names the key.
    pub fn check(&self) -> Result<(), String> {
        let within = |key: &str, value: u64, least: u64, most: u64| {
            if (least..=most).contains(&value) {
                Ok(())
            } else {
                Err(format!("{key} = {value} is not {least} to {most}"))
            }
        };
        within("deadline_ms", self.deadline_ms, 100, 600_000)?;
        within("prepare_timeout_ms", self.prepare_timeout_ms, 10, self.deadline_ms / 2)?;
        within("lease_ms", self.lease_ms, self.deadline_ms + 1, 3_600_000)?;
        within("apply_timeout_ms", self.apply_timeout_ms, 10, 60_000)?;
        within("store_timeout_ms", self.store_timeout_ms, 10, 60_000)?;
        within("answer_within_ms", self.answer_within_ms, 1, 60_000)?;
        within("retry_first_ms", self.retry_first_ms, 1, 60_000)?;
        within("retry_max_ms", self.retry_max_ms, self.retry_first_ms, 3_600_000)?;
        within("quarantine_after_tries", u64::from(self.quarantine_after_tries), 1, 1_000)?;
        within("quarantine_retry_ms", self.quarantine_retry_ms, 1_000, 86_400_000)?;
        within("recover_every_ms", self.recover_every_ms, 10, 60_000)?;
        within("group_items", self.group_items as u64, 1, notifyx_wire::rest::commit::BATCH_MAX as u64)?;
        within("group_bytes", self.group_bytes as u64, 1, 1_000_000)?;
        within("groups_in_flight", self.groups_in_flight as u64, 1, 64)?;
        within("queue_items", self.queue_items as u64, 1, 1_000_000)?;
        within("keep_closed_days", u64::from(self.keep_closed_days), 7, 3_650)
    }

    pub fn deadline(&self) -> Duration {
        Duration::from_millis(self.deadline_ms)
    }

    pub fn lease(&self) -> Duration {
        Duration::from_millis(self.lease_ms)
    }

    pub(crate) fn keep_closed(&self) -> Duration {
        Duration::from_secs(u64::from(self.keep_closed_days) * 24 * 3_600)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_pass_their_own_check() {
        assert_eq!(Config::default().check(), Ok(()));
    }

    #[test]
    fn a_lease_that_ends_before_the_deadline_is_refused() {
        let short = Config { lease_ms: 5_000, ..Config::default() };
        assert_eq!(short.check().unwrap_err(), "lease_ms = 5000 is not 5001 to 3600000");
    }
}

//! How the coordinator reaches a participant. The gateway implements it over the mesh, tests in memory.

use std::time::Duration;

use async_trait::async_trait;
use notifyx_wire::rest::commit::{Ack, GidBatch, PrepareBatch, Vote};

/// One of the two participants. Every call may be repeated: the participant is idempotent by gid.
#[async_trait]
pub trait Participant: Send + Sync + 'static {
    /// `POST /api/2pc/prepare`: one vote per item, in order.
    async fn prepare(&self, batch: &PrepareBatch, within: Duration) -> Result<Vec<Vote>, CallFailed>;

    /// `POST /api/2pc/commit`: one ack per gid, in order.
    async fn commit(&self, batch: &GidBatch, within: Duration) -> Result<Vec<Ack>, CallFailed>;

    /// `POST /api/2pc/rollback`: one ack per gid, in order.
    async fn rollback(&self, batch: &GidBatch, within: Duration) -> Result<Vec<Ack>, CallFailed>;
}

/// A call that brought no answer about its items.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct CallFailed {
    pub reason: String,
    /// The same call would fail in the same way (a 4xx): counts towards quarantine. False for timeouts, 5xx and the like,
    /// which are retried for ever.
    pub repeats: bool,
}

//! A participant as the coordinator reaches it: the cluster's batch routes, over the mesh.

use std::time::Duration;

use async_trait::async_trait;
use notifyx_commit::{CallFailed, Participant, Party};
use notifyx_mesh::{Call, CallError, Mesh};
use notifyx_model::{Fault, Kind};
use notifyx_wire::rest::commit::{Ack, Acks, GidBatch, PrepareBatch, Vote, Votes};
use serde::{Serialize, de::DeserializeOwned};

#[derive(Debug)]
pub(crate) struct Remote {
    mesh: Mesh,
    party: Party,
}

impl Remote {
    pub(crate) fn new(mesh: Mesh, party: Party) -> Self {
        Self { mesh, party }
    }

    /// Every step may be repeated, so the mesh may try another instance within the time.
    async fn call<T: DeserializeOwned>(
        &self,
        path: &'static str,
        body: &impl Serialize,
        within: Duration,
    ) -> Result<T, CallFailed> {
        let call = Call::post(path).json(body).deadline(within).idempotent();
        let answer = self.mesh.call(self.party.name(), call).await.and_then(|answer| answer.json());
        answer.map_err(|error| CallFailed { repeats: repeats(&error), reason: error.to_string() })
    }
}

#[async_trait]
impl Participant for Remote {
    async fn prepare(&self, batch: &PrepareBatch, within: Duration) -> Result<Vec<Vote>, CallFailed> {
        let answer: Votes = self.call("/api/2pc/prepare", batch, within).await?;
        Ok(answer.votes)
    }

    async fn commit(&self, batch: &GidBatch, within: Duration) -> Result<Vec<Ack>, CallFailed> {
        let answer: Acks = self.call("/api/2pc/commit", batch, within).await?;
        Ok(answer.acks)
    }

    async fn rollback(&self, batch: &GidBatch, within: Duration) -> Result<Vec<Ack>, CallFailed> {
        let answer: Acks = self.call("/api/2pc/rollback", batch, within).await?;
        Ok(answer.acks)
    }
}

/// Whether the same call would fail in the same way. A peer that answers what cannot be used speaks another version, or
/// takes another secret: an operator must look.
fn repeats(error: &CallError) -> bool {
    match error {
        CallError::Unreachable { .. } | CallError::Timeout { .. } | CallError::Cut { .. } => false,
        CallError::Broken { .. } => true,
        CallError::Refused(..) => match error.kind() {
            Kind::TooMany | Kind::Unavailable | Kind::Timeout | Kind::Internal => false,
            Kind::Invalid
            | Kind::Unauthenticated
            | Kind::Forbidden
            | Kind::NotFound
            | Kind::Conflict
            | Kind::Mismatch
            | Kind::TooLarge => true,
        },
    }
}

#[cfg(test)]
mod tests {
    use notifyx_wire::rest::Problem;

    use super::*;

    fn refused(status: u16) -> CallError {
        let problem = Problem {
            success: false,
            status,
            title: String::new(),
            code: String::new(),
            detail: String::new(),
            request_id: None,
        };
        CallError::Refused(Box::new(problem), None)
    }

    #[test]
    fn what_may_heal_is_told_from_what_repeats() {
        for status in [429, 500, 502, 503, 504] {
            assert!(!repeats(&refused(status)), "{status}");
        }
        for status in [400, 401, 403, 404, 413, 422] {
            assert!(repeats(&refused(status)), "{status}");
        }
        assert!(!repeats(&CallError::Timeout { service: "persist" }));
    }
}

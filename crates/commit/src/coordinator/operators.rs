//! What operators do by hand: look, have it tried again now, and close what nobody can finish.

use notifyx_model::{Gid, OperatorName};
use tracing::warn;

use super::Coordinator;
use crate::{Intervened, Page, Record, Resolve, StoreError};

impl Coordinator {
    /// A page of transactions, whoever began them.
    pub async fn list(&self, page: Page) -> Result<Vec<Record>, StoreError> {
        self.inner.stored(self.inner.ports.store.list(page)).await
    }

    /// Makes an open transaction due now: recovery, here or at another gateway, tries again in its next round.
    pub async fn retry(&self, gid: Gid, by: Option<&OperatorName>) -> Result<Intervened, StoreError> {
        let intervened = self.inner.stored(self.inner.ports.store.retry(gid)).await?;
        if let Intervened::Done(_) = &intervened {
            warn!(%gid, operator = by.map(OperatorName::as_str), "transaction {gid} is tried again, as an operator asked");
        }
        Ok(intervened)
    }

    /// Closes a quarantined transaction with what an operator found. The decision stays, and nothing is sent to a participant.
    pub async fn resolve(&self, resolve: &Resolve) -> Result<Intervened, StoreError> {
        let intervened = self.inner.stored(self.inner.ports.store.resolve(resolve)).await?;
        if let Intervened::Done(record) = &intervened {
            let Resolve { gid, outcome, by, reason } = resolve;
            let decision = record.state.as_str();
            warn!(%gid, operator = %by, %outcome, decision, %reason, "transaction {gid} was resolved as {outcome} by {by}");
            self.inner.metrics.resolved(*outcome);
        }
        Ok(intervened)
    }
}

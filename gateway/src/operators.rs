//! What operators ask about transactions: to see all of them, to have one tried again, to close one that nobody can finish.

use notifyx_commit::{Coordinator, Intervened, Page, Record, Resolve, State};
use notifyx_model::{Clock, Gid, OperatorName};
use notifyx_wire::rest::commit::{Standing, TransactionDetails, TransactionPage};

use crate::Error;

/// As everywhere in this API.
const PAGE: u32 = 50;
const PAGE_MAX: u32 = 500;

#[derive(Debug)]
pub(crate) struct Operators {
    coordinator: Coordinator,
    clock: Clock,
}

impl Operators {
    pub(crate) fn new(coordinator: Coordinator, clock: Clock) -> Self {
        Self { coordinator, clock }
    }

    pub(crate) async fn get(&self, gid: Gid) -> Result<TransactionDetails, Error> {
        let record = self.coordinator.find(gid).await?;
        Ok(self.details(&record.ok_or(Error::TransactionNotFound(gid))?))
    }

    /// By gid, which is oldest first.
    pub(crate) async fn list(
        &self,
        standing: Standing,
        after: Option<Gid>,
        limit: Option<u32>,
    ) -> Result<TransactionPage, Error> {
        let limit = limit.unwrap_or(PAGE);
        if !(1..=PAGE_MAX).contains(&limit) {
            return Err(Error::BadLimit { limit, most: PAGE_MAX });
        }
        // One more than is shown tells whether a page follows.
        let mut records = self.coordinator.list(Page { standing, after, limit: limit + 1 }).await?;
        let more = records.len() > limit as usize;
        records.truncate(limit as usize);
        let next = records.last().filter(|_| more).map(|record| record.gid);
        Ok(TransactionPage { transactions: records.iter().map(|record| self.details(record)).collect(), next })
    }

    pub(crate) async fn retry(&self, gid: Gid, by: Option<&OperatorName>) -> Result<TransactionDetails, Error> {
        match self.coordinator.retry(gid, by).await? {
            Intervened::Done(record) => Ok(self.details(&record)),
            Intervened::Refused(record) if record.closed_at.is_none() && record.state == State::Preparing => {
                Err(Error::NotDecided(gid))
            }
            Intervened::Refused(_) => Err(Error::TransactionClosed(gid)),
            Intervened::Unknown => Err(Error::TransactionNotFound(gid)),
        }
    }

    pub(crate) async fn resolve(&self, resolve: &Resolve) -> Result<TransactionDetails, Error> {
        let gid = resolve.gid;
        match self.coordinator.resolve(resolve).await? {
            Intervened::Done(record) => Ok(self.details(&record)),
            Intervened::Refused(record) if record.closed_at.is_some() => Err(Error::TransactionClosed(gid)),
            Intervened::Refused(_) => Err(Error::NotQuarantined(gid)),
            Intervened::Unknown => Err(Error::TransactionNotFound(gid)),
        }
    }

    fn details(&self, record: &Record) -> TransactionDetails {
        record.details(self.clock.now())
    }
}

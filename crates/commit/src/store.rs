//! What the coordinator keeps, behind a trait: one method = one transaction. The gateway implements it on SQLite and Postgres.
//!
//! Every method takes a whole group, sets are locked in order of gid, and deadlines and leases are judged by one clock: the
//! database's own (`clock_timestamp()`) on Postgres, which all gateways share, and the passed clock on SQLite.

use std::time::Duration;

use async_trait::async_trait;
use notifyx_model::{Gid, InstanceId, OperatorName, Remark, UserId};
use notifyx_wire::rest::commit::{Heuristic, Standing};

use crate::{Parties, Record, RequestHash, State, Votes};

#[async_trait]
pub trait CoordinatorStore: Send + Sync + 'static {
    /// BEGIN, durable: inserts PREPARING, except where the user's key is already held by a transaction that was not aborted.
    /// One answer per item, in order; two items with one key in one batch are answered like two calls.
    async fn begin(&self, batch: &[Begin], terms: Terms) -> Result<Vec<Begun>, StoreError>;

    /// DECIDE, durable, the only commit point: PREPARING → COMMIT if asked for and before the deadline, otherwise
    /// PREPARING → ABORT; the votes are kept with it. A row that is decided already stays as it is. Answers what each row says afterwards, in order;
    /// `None` where there is no such row.
    async fn decide(&self, batch: &[VerdictOn]) -> Result<Vec<Option<State>>, StoreError>;

    /// Notes who applied the decision; closes, and takes out of quarantine, what both have applied. Unknown and closed gids are
    /// skipped.
    async fn acknowledge(&self, batch: &[Acked]) -> Result<(), StoreError>;

    /// Notes failed tries and when the next is due: no gateway claims the transaction before.
    async fn defer(&self, batch: &[Deferred]) -> Result<(), StoreError>;

    /// Takes over at most `limit` unclosed transactions whose lease ran out, longest overdue first; concurrent callers get
    /// different ones.
    async fn claim(&self, claim: Claim) -> Result<Vec<Record>, StoreError>;

    /// Gives up the leases (and pauses) of what this owner left open, quarantine aside, so that anyone may take over now. For
    /// an owner that stops and decides nothing any more.
    async fn release(&self, owner: InstanceId) -> Result<(), StoreError>;

    async fn find(&self, gid: Gid) -> Result<Option<Record>, StoreError>;

    /// The transaction that holds this user's key: the one that was not aborted.
    async fn find_by_key(&self, user_id: UserId, key: &str) -> Result<Option<Record>, StoreError>;

    /// A page in order of gid, which is that of their beginning.
    async fn list(&self, page: Page) -> Result<Vec<Record>, StoreError>;

    /// Makes an open transaction due now, whatever its lease or pause: whichever gateway looks next tries again. Refused once it
    /// is closed, and while it can still be decided by whoever began it.
    async fn retry(&self, gid: Gid) -> Result<Intervened, StoreError>;

    /// Closes a quarantined transaction with what an operator found. Refused on any other; one compare-and-set.
    async fn resolve(&self, resolve: &Resolve) -> Result<Intervened, StoreError>;

    /// Deletes at most `limit` transactions that were closed longer than `keep` ago; an unclosed one never. Answers how many.
    async fn trim(&self, keep: Duration, limit: u32) -> Result<u64, StoreError>;

    async fn figures(&self) -> Result<Figures, StoreError>;
}

#[derive(Clone, Debug)]
pub struct Begin {
    pub gid: Gid,
    pub user_id: UserId,
    /// 1 to 255 bytes, without U+0000.
    pub idem_key: Option<String>,
    pub request: RequestHash,
}

/// Who begins, and for how long.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    pub owner: InstanceId,
    pub deadline: Duration,
    pub lease: Duration,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begun {
    New,
    /// The same request under the same key (or gid) was begun before.
    Known(Box<Record>),
    /// The key (or gid) was used for another request.
    Mismatch(Gid),
}

#[derive(Clone, Debug)]
pub struct VerdictOn {
    pub gid: Gid,
    pub verdict: Verdict,
    pub votes: Votes,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Commit,
    Abort { reason: String },
}

impl Verdict {
    /// The reason of an abort that was asked to be a commit.
    pub const TOO_LATE: &'static str = "the deadline passed before it could be decided";
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acked {
    pub gid: Gid,
    pub by: Parties,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deferred {
    pub gid: Gid,
    pub tries: u32,
    pub refusals: u32,
    pub again_in: Duration,
    /// Why it is quarantined, if it is from now on.
    pub quarantine: Option<String>,
}

#[derive(Clone, Copy, Debug)]
pub struct Claim {
    pub owner: InstanceId,
    pub lease: Duration,
    pub limit: u32,
}

#[derive(Clone, Copy, Debug)]
pub struct Page {
    pub standing: Standing,
    /// The last gid of the page before.
    pub after: Option<Gid>,
    pub limit: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolve {
    pub gid: Gid,
    pub outcome: Heuristic,
    pub by: OperatorName,
    pub reason: Remark,
}

/// What became of an operator's wish; how the transaction stands since, or still.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Intervened {
    Done(Record),
    /// It stands otherwise: nothing was changed.
    Refused(Record),
    Unknown,
}

/// What stands open, for metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Not closed.
    pub open: u64,
    /// Not closed, and past the deadline.
    pub in_doubt: u64,
    pub quarantined: u64,
    /// Age of the oldest that is not closed; zero where none is.
    pub oldest: Duration,
}

/// The store did not answer, or broke off: whether a write took place is not known.
#[derive(Debug, thiserror::Error)]
#[error("the coordinator's store failed")]
pub struct StoreError(#[source] Box<dyn std::error::Error + Send + Sync>);

impl StoreError {
    pub fn new(source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self(source.into())
    }
}

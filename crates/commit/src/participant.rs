//! What a participant does with a prepare, a commit and a rollback: pure decisions, shared by persist and counter-2pc and by
//! both of their backends. No I/O: the caller reads its `ptxn` row, asks [`Judge`], and does what the verdict says, all in
//! one local transaction.
//!
//! # How to use it
//! Keep `ptxn(gid pk, origin, user_id, state, req_hash, payload, prepared_at, expired)`; [`State`] and [`Origin`] know their
//! texts.
//!
//! ```text
//! prepare   INSERT … state='PREPARED' … ON CONFLICT (gid) DO NOTHING RETURNING gid   -- in order of gid
//!           returned:      new, and nobody else can take this gid now. Check and reserve.
//!                          A business "no": set this row to ABORTED, vote No(problem).
//!           not returned:  SELECT … WHERE gid IN (…) ORDER BY gid FOR UPDATE, then judge.prepare(Some(&row), …)
//! commit    SELECT … FOR UPDATE; judge.commit(row, …): Apply → effect and state='COMMITTED' in this transaction
//! rollback  coordinator: INSERT … state='ABORTED' … ON CONFLICT DO NOTHING first: what is returned is a tombstone and done;
//!           then SELECT … FOR UPDATE the rest; judge.rollback(row, …): Release → give back, state='ABORTED'
//! ```
//! Insert first, because a row that is not there cannot be locked: a late prepare and its rollback would both find nothing.
//! On SQLite the single writer makes reading first just as good; then judge with `None` where nothing was found.
//!
//! By the coordinator's routes ask as [`Asker::Coordinator`]: a refused prepare is `Vote::No(problem(&refusal))`, a refused
//! commit or rollback is `Ack::Violation(problem(&refusal))`. By the routes for people ask as [`Asker::User`]: the refusal
//! is a [`Fault`](notifyx_model::Fault) and answers for itself (403, 404, 409, 422). A gid that stands twice in one batch is judged twice, the
//! second time with the row as the first left it (or answered like the first).
//!
//! A person may choose the id. Look it up before anything else (`judge.prepare(row, …)`: a repetition is answered like the
//! first, whatever has changed meanwhile); what is new passes [`Judge::chosen`] before it is checked and inserted. A business
//! "no" by hand leaves no row: nobody but its author could repeat it.
//!
//! Each second: release what [`Judge::expired`] says (by hand, older than [`BY_HAND`]) and mark it `expired`, and count rows
//! that are prepared since before `now - `[`ALARM`] into an alarm metric; those stay prepared.

mod metrics;
mod refusal;
mod row;
#[cfg(test)]
mod tests;

use std::time::Duration;

use notifyx_model::{Gid, Timestamp, UserId};

use crate::RequestHash;

pub use metrics::Metrics;
pub use refusal::Refusal;
pub use row::{NO_REQUEST, Origin, Row, State, Unknown};

/// A prepare by hand is rolled back after this: long enough to type the commit, short enough to hold nothing for ever.
pub const BY_HAND: Duration = Duration::from_secs(60);
/// With everything reachable no transaction is open longer (the protocol's time bound): a row that is raises an alarm.
pub const ALARM: Duration = Duration::from_secs(45);
/// Terminal rows are kept longer than the coordinator keeps its closed ones (7 days), so that none is asked for in vain.
pub const RETENTION: Duration = Duration::from_secs(30 * 24 * 3600);
/// How far the time in an id that a person chose may be from now. Far above what clocks differ by and a command line waits in
/// an editor; far below [`RETENTION`], so that an id that was forgotten is never taken for a new one.
pub const CHOSEN_WITHIN: Duration = Duration::from_secs(600);

/// On whose behalf a step is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    Coordinator,
    User(UserId),
}

impl Asker {
    /// The origin of rows this asker makes.
    pub const fn origin(self) -> Origin {
        match self {
            Self::Coordinator => Origin::Coordinator,
            Self::User(_) => Origin::Client,
        }
    }
}

/// What to do with a prepare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnPrepare {
    /// Nothing is known of this gid: check, reserve, insert PREPARED and say yes. If a check says no: insert ABORTED, say no.
    Reserve,
    /// It was prepared (or committed) before: say yes, change nothing.
    Yes,
    /// Say no, change nothing.
    No(Refusal),
}

/// What to do with a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnCommit {
    /// Bring about the effect and set COMMITTED, in this transaction.
    Apply,
    /// It was committed before: say done, change nothing.
    Done,
    Refuse(Refusal),
}

/// What to do with a rollback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnRollback {
    /// Give back what was reserved and set ABORTED.
    Release,
    /// Insert ABORTED, so that a prepare that is still on its way is refused.
    Tombstone,
    /// It was rolled back before: say done, change nothing.
    Done,
    Refuse(Refusal),
}

/// Decides, at one moment, by the passed clock.
#[derive(Clone, Copy, Debug)]
pub struct Judge {
    now: Timestamp,
    by_hand: Duration,
}

impl Judge {
    /// With the protocol's bound for prepares by hand, [`BY_HAND`].
    pub const fn at(now: Timestamp) -> Self {
        Self { now, by_hand: BY_HAND }
    }

    /// With another bound for prepares by hand, from configuration.
    #[must_use]
    pub const fn by_hand(self, bound: Duration) -> Self {
        Self { by_hand: bound, ..self }
    }

    pub fn prepare(&self, found: Option<&Row>, asker: Asker, request: &RequestHash) -> OnPrepare {
        let Some(row) = found else { return OnPrepare::Reserve };
        let refusal = match (asker, row.origin) {
            // Whoever came first holds the id.
            (Asker::Coordinator, Origin::Client) => Refusal::OtherRequest,
            (Asker::User(_), Origin::Coordinator) => Refusal::Foreign,
            (Asker::User(user), Origin::Client) if user != row.user_id => Refusal::Foreign,
            (Asker::Coordinator, Origin::Coordinator) | (Asker::User(_), Origin::Client) => match row.state {
                // A tombstone knows no request; a late prepare is told that it is over, not that it is another.
                State::Aborted => Self::over(row),
                State::Prepared if self.expired(row) => Refusal::Expired,
                State::Prepared | State::Committed if row.request != *request => Refusal::OtherRequest,
                State::Prepared | State::Committed => return OnPrepare::Yes,
            },
        };
        OnPrepare::No(refusal)
    }

    pub fn commit(&self, found: Option<&Row>, asker: Asker) -> OnCommit {
        match Self::own(found, asker) {
            Err(Refusal::NotFound) if asker == Asker::Coordinator => OnCommit::Refuse(Refusal::NothingPrepared),
            Err(refusal) => OnCommit::Refuse(refusal),
            Ok(row) => match row.state {
                State::Committed => OnCommit::Done,
                State::Aborted => OnCommit::Refuse(Self::over(row)),
                State::Prepared if self.expired(row) => OnCommit::Refuse(Refusal::Expired),
                State::Prepared => OnCommit::Apply,
            },
        }
    }

    pub fn rollback(&self, found: Option<&Row>, asker: Asker) -> OnRollback {
        match Self::own(found, asker) {
            // A person's row under the coordinator's gid refuses the coordinator's prepare as a tombstone would: done.
            Err(Refusal::NotFound) if asker == Asker::Coordinator => {
                if found.is_none() {
                    OnRollback::Tombstone
                } else {
                    OnRollback::Done
                }
            }
            // No tombstone by hand: anybody could fill the table.
            Err(refusal) => OnRollback::Refuse(refusal),
            Ok(row) => match row.state {
                State::Prepared => OnRollback::Release,
                State::Aborted => OnRollback::Done,
                State::Committed => OnRollback::Refuse(Refusal::Committed),
            },
        }
    }

    /// Whether a person may choose this id for something new. Ids sort by the time they were made, and are forgotten by it: one
    /// from elsewhere would never be forgotten, and one from long ago cannot be told from one that was.
    pub fn chosen(&self, gid: Gid) -> Result<(), Refusal> {
        let made = gid.uuid().get_timestamp().filter(|_| gid.uuid().get_version_num() == 7).map(|made| made.to_unix());
        let fresh = made.is_some_and(|(seconds, nanos)| {
            let made = i128::from(seconds) * 1_000_000 + i128::from(nanos / 1_000);
            made.abs_diff(self.now.as_micros().into()) <= CHOSEN_WITHIN.as_micros()
        });
        if fresh { Ok(()) } else { Err(Refusal::IdInvalid) }
    }

    /// Whether the sweep should release this row: prepared by hand, and not decided in time. What the coordinator prepared
    /// never expires: after a yes the participant never decides alone.
    pub fn expired(&self, row: &Row) -> bool {
        row.origin == Origin::Client && row.state == State::Prepared && row.prepared_at + self.by_hand <= self.now
    }

    /// Rows by hand that were prepared at or before this moment have expired: for the sweep's statement.
    pub fn expired_before(&self) -> Timestamp {
        self.now - self.by_hand
    }

    fn own(found: Option<&Row>, asker: Asker) -> Result<&Row, Refusal> {
        let row = found.ok_or(Refusal::NotFound)?;
        match (asker, row.origin) {
            (Asker::Coordinator, Origin::Client) => Err(Refusal::NotFound),
            (Asker::User(_), Origin::Coordinator) => Err(Refusal::Foreign),
            (Asker::User(user), Origin::Client) if user != row.user_id => Err(Refusal::Foreign),
            (Asker::User(_), Origin::Client) | (Asker::Coordinator, Origin::Coordinator) => Ok(row),
        }
    }

    /// Why an ABORTED row is.
    const fn over(row: &Row) -> Refusal {
        if row.expired { Refusal::Expired } else { Refusal::Aborted }
    }
}

//! A participant: each function is one local transaction. What to do is asked of the real rules
//! ([`notifyx_commit::participant::Judge`]), the very ones persist and counter-2pc ask; here is only the doing.

use notifyx_commit::{
    RequestHash,
    participant::{Asker, Judge, NO_REQUEST, OnCommit, OnPrepare, OnRollback, Origin, Refusal, Row},
};
use notifyx_model::{Timestamp, UserId};

use crate::{rules::Broken, state::Kept};

/// Of the one request there is under a gid.
const REQUEST: RequestHash = RequestHash([1; 32]);
/// How a participant answers a commit or a rollback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ack {
    Done,
    Violation,
}

/// The vote: `Ok` is yes. `willing`: the business rules have nothing against it.
pub(crate) fn prepare(kept: &mut Kept, willing: bool, broken: Option<Broken>) -> Result<(), Option<Refusal>> {
    let found = row(*kept).filter(|_| broken != Some(Broken::AbortedPreparesAgain) || !kept.aborted());
    match judge().prepare(found.as_ref(), Asker::Coordinator, &REQUEST) {
        OnPrepare::Reserve if willing => {
            *kept = Kept::Prepared;
            Ok(())
        }
        OnPrepare::Reserve => {
            *kept = Kept::Refused;
            Err(None)
        }
        OnPrepare::Yes => Ok(()),
        OnPrepare::No(refusal) => Err(Some(refusal)),
    }
}

pub(crate) fn commit(kept: &mut Kept, broken: Option<Broken>) -> Ack {
    match judge().commit(row(*kept).as_ref(), Asker::Coordinator) {
        OnCommit::Apply => {
            *kept = Kept::Committed;
            Ack::Done
        }
        OnCommit::Done => Ack::Done,
        OnCommit::Refuse(Refusal::NothingPrepared) if broken == Some(Broken::MissingCommitDone) => Ack::Done,
        OnCommit::Refuse(_) => Ack::Violation,
    }
}

pub(crate) fn rollback(kept: &mut Kept, broken: Option<Broken>) -> Ack {
    match judge().rollback(row(*kept).as_ref(), Asker::Coordinator) {
        OnRollback::Tombstone if broken == Some(Broken::NoTombstone) => Ack::Done,
        OnRollback::Release | OnRollback::Tombstone => {
            *kept = Kept::RolledBack;
            Ack::Done
        }
        OnRollback::Done => Ack::Done,
        OnRollback::Refuse(_) => Ack::Violation,
    }
}

fn row(kept: Kept) -> Option<Row> {
    kept.state().map(|state| Row {
        origin: Origin::Coordinator,
        user_id: UserId::from_uuid(uuid::Uuid::nil()),
        state,
        // A tombstone knows no request; of an aborted row nobody asks.
        request: if kept.aborted() { NO_REQUEST } else { REQUEST },
        prepared_at: now(),
        expired: false,
    })
}

fn judge() -> Judge {
    Judge::at(now())
}

/// What the coordinator prepared knows no time: any moment is as good.
fn now() -> Timestamp {
    Timestamp::from_micros(0)
}

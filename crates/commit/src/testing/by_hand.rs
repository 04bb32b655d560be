//! Two-phase commit by hand, as every participant answers it: each step in each state, held against a participant's own door.

use std::{fmt::Debug, time::Duration};

use async_trait::async_trait;
use notifyx_model::Gid;
use serde_json::{Value, json};

use crate::participant::BY_HAND;

/// What stands under the id before the step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Under {
    Nothing,
    Prepared,
    Committed,
    RolledBack,
    /// 60 s after the prepare, to the microsecond; the sweep has not come by.
    Late,
    /// The same after the sweep.
    Swept,
    AnotherUsers,
    ACoordinators,
}
use Under::{ACoordinators, AnotherUsers, Committed, Late, Nothing, Prepared, RolledBack, Swept};

/// The columns of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Prepare,
    /// Another request under the same id.
    PrepareAnother,
    Commit,
    Rollback,
}

/// Ann takes the steps of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    Ann,
    Bob,
}
use Who::{Ann, Bob};

/// Status and code of a problem; no code where it is none.
type Said = (u16, &'static str);
const OK: Said = (200, "");
const ABORTED: Said = (409, "transaction_aborted");
const COMMITTED: Said = (409, "transaction_committed");
const EXPIRED: Said = (409, "transaction_expired");
const OTHER: Said = (422, "request_mismatch");
const UNKNOWN: Said = (404, "transaction_not_found");
const FOREIGN: Said = (403, "transaction_foreign");

const STEPS: [Step; 4] = [Step::Prepare, Step::PrepareAnother, Step::Commit, Step::Rollback];

/// The table of `docs/TWO_PHASE_COMMIT.md`, with the answers to [`STEPS`].
const TABLE: [(Under, [Said; 4]); 8] = [
    (Nothing, [OK, OK, UNKNOWN, UNKNOWN]),
    (Prepared, [OK, OTHER, OK, OK]),
    (Committed, [OK, OTHER, OK, COMMITTED]),
    (RolledBack, [ABORTED, ABORTED, ABORTED, OK]),
    (Late, [EXPIRED, EXPIRED, EXPIRED, OK]),
    (Swept, [EXPIRED, EXPIRED, EXPIRED, OK]),
    (AnotherUsers, [FOREIGN, FOREIGN, FOREIGN, FOREIGN]),
    (ACoordinators, [FOREIGN, FOREIGN, FOREIGN, FOREIGN]),
];

/// A participant's door, on a clock that a test moves.
#[async_trait(?Send)]
pub trait ByHand {
    /// How a path is spelt: as at every participant, or as this one's own.
    type Spelling: Copy + Debug;

    fn new_id(&self) -> Gid;

    /// Takes a step; answers status and body.
    async fn take(&self, step: Step, how: Self::Spelling, who: Who, id: Gid) -> (u16, Value);

    /// A coordinator prepares under this id, and is told yes.
    async fn prepare_as_coordinator(&self, id: Gid);

    /// It commits, and is told that this is done.
    async fn commit_as_coordinator(&self, id: Gid);

    fn pass(&self, span: Duration);

    /// How many prepares the sweep has rolled back.
    async fn swept(&self) -> u64;

    /// Waits until it has rolled back so many.
    async fn swept_becomes(&self, count: u64);
}

/// Holds the whole table against a door whose sweep does not come by, and one whose sweep always does.
pub async fn check<D: ByHand>(unswept: &D, swept: &D, spellings: &[D::Spelling]) {
    for (under, expected) in TABLE {
        for how in spellings {
            let door = if under == Swept { swept } else { unswept };
            for (step, said) in STEPS.into_iter().zip(expected) {
                check_step(door, *how, under, step, said).await;
            }
        }
    }
}

async fn check_step<D: ByHand>(door: &D, how: D::Spelling, under: Under, step: Step, said: Said) {
    let id = set(door, how, under).await;
    // Twice: whatever the answer, it is the answer. A new id is taken by whatever comes first.
    for _ in 0..2 {
        let (status, body) = door.take(step, how, Ann, id).await;
        assert_eq!((status, body["code"].as_str().unwrap_or("")), said, "{how:?} {under:?} {step:?}: {body}");
        if matches!(step, Step::Prepare | Step::PrepareAnother) && said == OK {
            assert_eq!(body["data"]["request_id"], json!(id), "{body}");
        }
    }
    // What is not the caller's was left as it was: whoever prepared it commits it.
    match under {
        AnotherUsers => done(door, Step::Commit, how, Bob, id).await,
        ACoordinators => door.commit_as_coordinator(id).await,
        Nothing | Prepared | Committed | RolledBack | Late | Swept => {}
    }
}

/// An id under which this stands.
pub async fn set<D: ByHand>(door: &D, how: D::Spelling, under: Under) -> Gid {
    let (id, before) = (door.new_id(), door.swept().await);
    match under {
        Nothing => {}
        AnotherUsers => done(door, Step::Prepare, how, Bob, id).await,
        ACoordinators => door.prepare_as_coordinator(id).await,
        Prepared | Committed | RolledBack | Late | Swept => done(door, Step::Prepare, how, Ann, id).await,
    }
    match under {
        Committed => done(door, Step::Commit, how, Ann, id).await,
        RolledBack => done(door, Step::Rollback, how, Ann, id).await,
        Late => door.pass(BY_HAND),
        Swept => {
            door.pass(BY_HAND);
            door.swept_becomes(before + 1).await;
        }
        Nothing | Prepared | AnotherUsers | ACoordinators => {}
    }
    id
}

async fn done<D: ByHand>(door: &D, step: Step, how: D::Spelling, who: Who, id: Gid) {
    let (status, body) = door.take(step, how, who, id).await;
    assert_eq!(status, 200, "{how:?} {step:?}: {body}");
}

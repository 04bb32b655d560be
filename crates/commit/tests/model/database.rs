//! The coordinator's database, which both gateways share: each function is one durable write, the model's form of a method
//! of `CoordinatorStore`. The real statements are held to the same by the conformance suite in gateway/src/transactions.

use notifyx_commit::Party;

use crate::{
    rules::Broken,
    state::{Decision, Row, Set, State},
};

/// The answer to BEGIN: whose transaction it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begun {
    New,
    Known(usize),
}

/// Inserts PREPARING, unless the gid is there or the key is held by a transaction that was not aborted. All attempts share
/// one key.
pub(crate) fn begin<const N: usize>(state: &mut State<N>, txn: usize, broken: Option<Broken>) -> Begun {
    if state.txns[txn].row.is_some() {
        return Begun::Known(txn);
    }
    let holds = |t: &usize| state.txns[*t].decision().is_some_and(|decision| decision != Decision::Abort);
    if let Some(holder) = (0..N).find(holds).filter(|_| broken != Some(Broken::KeyNotUnique)) {
        return Begun::Known(holder);
    }
    state.txns[txn].row = Some(Row {
        state: Decision::Preparing,
        acked: Set::default(),
        quarantined: false,
        closed: false,
        late: false,
        free: false,
        decided_late: false,
    });
    Begun::New
}

/// The compare-and-set; answers what the row says afterwards.
pub(crate) fn decide(row: &mut Row, commit: bool, broken: Option<Broken>) -> Decision {
    if row.state == Decision::Preparing || broken == Some(Broken::NoCompareAndSet) {
        let in_time = !row.late || broken == Some(Broken::LateCommit);
        row.state = if commit && in_time { Decision::Commit } else { Decision::Abort };
        row.decided_late = commit && in_time && row.late;
        // Deadlines are for deciding.
        row.late = false;
    }
    row.state
}

/// Notes that a participant has applied the decision; closes when both have.
pub(crate) fn acknowledge(row: &mut Row, party: Party, broken: Option<Broken>) {
    if row.state == Decision::Preparing || row.closed {
        return;
    }
    row.acked = row.acked.with(party);
    if row.acked == Set::BOTH || broken == Some(Broken::ClosedByOneAck) {
        row.closed = true;
        row.quarantined = false;
        // Leases are for what is open.
        row.free = false;
    }
}

/// Takes a transaction over: a new lease.
pub(crate) fn claim(row: &mut Row, broken: Option<Broken>) -> bool {
    let forgotten = match broken {
        Some(Broken::NoRecovery) => true,
        Some(Broken::DecidedForgotten) => row.state != Decision::Preparing,
        _ => false,
    };
    let due = !row.closed && (row.free || broken == Some(Broken::NoLease)) && !forgotten;
    if due {
        row.free = false;
    }
    due
}

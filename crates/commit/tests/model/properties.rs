//! What must hold, in every state that can be reached, and what must be possible, so that it does not hold for want of
//! anything happening. Numbers are those of the protocol's invariants.

use stateright::{Model, Property};

use crate::{
    protocol::{Action, Protocol},
    rules::{Bounds, Budget},
    state::{Chase, Decision, Driver, Kept, State, Sum, Told, Txn, Vote},
};

/// 1, between the participants.
pub(crate) const AGREED: &str = "never committed at one participant and aborted at the other";
/// 1, between participants and coordinator.
pub(crate) const DECIDED: &str = "a participant commits by the decision only";
/// 1, likewise.
pub(crate) const OBEYED: &str = "no participant aborts what is decided to commit";
/// 3
pub(crate) const RELEASED: &str = "nothing is prepared under a closed gid";
/// 4
pub(crate) const TOLD: &str = "what a client was told is so, and never flips";
/// 4, of the answer 201.
pub(crate) const CREATED: &str = "201 means applied by both";
/// 4, of the answer 409.
pub(crate) const REFUSED: &str = "409 means a business no";
/// 5
pub(crate) const KEY: &str = "a key is held by one gid that is not aborted, and no other is told committed";
/// 6, and with it 1 in its full form: at the end all three agree.
pub(crate) const CLOSED: &str = "closed means applied by both";
/// 7
pub(crate) const QUARANTINED: &str = "nothing is quarantined";
pub(crate) const IN_TIME: &str = "no commit is decided after its deadline";
/// Liveness: every run that is fair once everything has healed. Nothing but a lease that runs out could close a circle
/// there, and there is one for each gid; so a run ends, and this looks at where.
pub(crate) const ENDS: &str = "once everything has healed all is closed, one lease later at the latest";
pub(crate) const FAULTLESS: &str = "without a fault nothing is aborted but by a business no";

/// Which promises apply within the model's bounds, and what must be possible within them.
pub(crate) fn of<const N: usize>(model: &Protocol<N>) -> Vec<Property<Protocol<N>>> {
    let Bounds { deadlines, leases, heals, silences, crashes, lost_rows, .. } = model.bounds;
    let faults = deadlines || [leases, silences, crashes].iter().any(|budget| *budget != Budget::NONE);
    let mut properties = vec![
        Property::always(DECIDED, |_, state: &State<N>| state.txns.iter().all(decided)),
        Property::always(RELEASED, |_, state: &State<N>| state.txns.iter().all(released)),
        Property::always(TOLD, |_, state: &State<N>| state.txns.iter().all(told)),
        Property::always(CREATED, |_, state: &State<N>| state.txns.iter().all(created)),
        Property::always(REFUSED, |_, state: &State<N>| state.txns.iter().all(refused)),
        Property::always(KEY, |_, state: &State<N>| key(state)),
        Property::always(CLOSED, |_, state: &State<N>| state.txns.iter().all(closed)),
        Property::always(IN_TIME, |_, state: &State<N>| state.txns.iter().all(in_time)),
    ];
    if lost_rows == Budget::NONE {
        properties.push(Property::always(AGREED, |_, state: &State<N>| state.txns.iter().all(agreed)));
        properties.push(Property::always(OBEYED, |_, state: &State<N>| state.txns.iter().all(obeyed)));
        properties.push(Property::always(QUARANTINED, |_, state: &State<N>| !state.txns.iter().any(quarantined)));
    } else {
        // A late repetition of a prepare that was lost may meet a business no: then they differ, and it stays open.
        properties.push(Property::sometimes("a lost prepare is quarantined", |_, state: &State<N>| {
            state.txns.iter().any(quarantined)
        }));
    }
    if heals {
        properties.push(Property::always(ENDS, ends));
    }
    if !faults {
        properties.push(Property::always(FAULTLESS, |_, state: &State<N>| state.txns.iter().all(faultless)));
    }
    if model.broken.is_none() {
        properties.extend(possible(&model.bounds));
    }
    properties
}

fn possible<const N: usize>(bounds: &Bounds) -> Vec<Property<Protocol<N>>> {
    let Bounds { silences, crashes, leases, refusals, .. } = *bounds;
    let (recovers, twice) = (leases != Budget::NONE, leases.spend(1).is_some());
    let leaves = [silences, crashes].iter().any(|budget| *budget != Budget::NONE);
    let mut properties = vec![Property::sometimes("a publish commits", |_, state: &State<N>| {
        state.txns.iter().any(|txn| txn.told.has(Told::APPLIED))
    })];
    if refusals {
        properties.push(Property::sometimes(
            "a publish is refused, and the other rolls back",
            |_, state: &State<N>| {
                state.txns.iter().any(|txn| txn.told.has(Told::REFUSED) && txn.kept.contains(&Kept::RolledBack))
            },
        ));
    }
    if N > 1 {
        properties.push(Property::sometimes("a repeated key is answered with the first gid", |_, state: &State<N>| {
            state.txns.iter().any(|txn| txn.driver == Driver::Referred)
        }));
        properties.push(Property::sometimes(
            "a key that an abort freed commits under another gid",
            |_, state: &State<N>| {
                [Decision::Abort, Decision::Commit]
                    .iter()
                    .all(|is| state.txns.iter().any(|txn| txn.decision() == Some(*is)))
            },
        ));
    }
    if recovers {
        properties.push(Property::sometimes("a prepare meets a tombstone", |_, state: &State<N>| {
            let buried = |txn: &Txn| matches!(txn.driver, Driver::Voting(votes) if votes.contains(&Vote::Buried));
            state.txns.iter().any(|txn| buried(txn) && txn.kept.contains(&Kept::RolledBack))
        }));
        properties.push(Property::sometimes("two yes come too late, and obey the abort", |_, state: &State<N>| {
            let wants = |txn: &Txn| matches!(txn.driver, Driver::Deciding { sum: Sum::Commit, .. });
            state.txns.iter().any(|txn| wants(txn) && txn.decision() == Some(Decision::Abort))
        }));
    }
    if recovers && leaves {
        properties.push(Property::sometimes("recovery aborts what was left undecided", |_, state: &State<N>| {
            state.txns.iter().any(|txn| txn.recovery.contains(&Chase::Aborting) && txn.driver == Driver::Over)
        }));
        properties.push(Property::sometimes("recovery commits what was left decided", |_, state: &State<N>| {
            let commits = |chase: &Chase| matches!(chase, Chase::Settling { decision: Decision::Commit, .. });
            let left = |txn: &Txn| txn.driver == Driver::Over && txn.kept.contains(&Kept::Prepared);
            state.txns.iter().any(|txn| left(txn) && txn.recovery.iter().any(commits))
        }));
    }
    if twice {
        properties.push(Property::sometimes(
            "both gateways bring about one decision at once",
            |_, state: &State<N>| {
                let settles = |chase: &Chase| matches!(chase, Chase::Settling { .. });
                state.txns.iter().any(|txn| txn.recovery.iter().all(settles))
            },
        ));
    }
    properties
}

fn agreed(txn: &Txn) -> bool {
    !(txn.kept.contains(&Kept::Committed) && txn.kept.iter().any(|kept| kept.aborted()))
}

fn decided(txn: &Txn) -> bool {
    match txn.decision() {
        Some(Decision::Commit) => true,
        Some(Decision::Preparing | Decision::Abort) => !txn.kept.contains(&Kept::Committed),
        None => txn.kept == [Kept::Nothing; 2],
    }
}

fn obeyed(txn: &Txn) -> bool {
    txn.decision() != Some(Decision::Commit) || !txn.kept.iter().any(|kept| kept.aborted())
}

fn released(txn: &Txn) -> bool {
    !(txn.row.is_some_and(|row| row.closed) && txn.kept.contains(&Kept::Prepared))
}

fn told(txn: &Txn) -> bool {
    let (committed, aborted) = (txn.told.has(Told::COMMITTED), txn.told.has(Told::ABORTED));
    // `aborted` may be told before it is written, where nobody is left who could commit it.
    if txn.decision() == Some(Decision::Commit) { !aborted } else { !committed }
}

fn created(txn: &Txn) -> bool {
    !txn.told.has(Told::APPLIED) || txn.kept == [Kept::Committed; 2]
}

fn refused(txn: &Txn) -> bool {
    !txn.told.has(Told::REFUSED) || txn.kept.contains(&Kept::Refused)
}

fn key<const N: usize>(state: &State<N>) -> bool {
    let holds = |txn: &&Txn| txn.decision().is_some_and(|decision| decision != Decision::Abort);
    let committed = |txn: &&Txn| txn.told.has(Told::COMMITTED);
    state.txns.iter().filter(holds).count() <= 1 && state.txns.iter().filter(committed).count() <= 1
}

fn closed(txn: &Txn) -> bool {
    match txn.row.filter(|row| row.closed).map(|row| row.state) {
        None => true,
        Some(Decision::Preparing) => false,
        Some(Decision::Commit) => txn.kept == [Kept::Committed; 2],
        Some(Decision::Abort) => txn.kept.iter().all(|kept| kept.aborted()),
    }
}

fn in_time(txn: &Txn) -> bool {
    !txn.row.is_some_and(|row| row.decided_late)
}

fn quarantined(txn: &Txn) -> bool {
    txn.row.is_some_and(|row| row.quarantined)
}

fn faultless(txn: &Txn) -> bool {
    txn.decision() != Some(Decision::Abort) || txn.kept.contains(&Kept::Refused)
}

/// Steps that may happen but need not (a message of old that arrives, a deadline, a client that asks again) end nothing.
fn ends<const N: usize>(model: &Protocol<N>, state: &State<N>) -> bool {
    let goes_on = |index: usize| {
        let txn = &state.txns[index];
        txn.driven()
            || [Action::LeaseRunsOut(index), Action::Claim(index, 0)].into_iter().any(|action| {
                let mut possible = Vec::new();
                model.actions(state, &mut possible);
                possible.contains(&action) && model.next_state(state, action).is_some()
            })
    };
    let open = |txn: &Txn| txn.open() && !quarantined(txn);
    !state.healed || !state.txns.iter().any(open) || (0..N).any(goes_on)
}

//! The model: which steps are possible in a state, and what each makes of it.

use notifyx_commit::Party;
use stateright::{Model, Property};

use crate::{
    coordinator::{Caller, Step, calls},
    properties,
    rules::{Bounds, Broken, Budget},
    state::{Chase, Decision, Driver, GATEWAYS, Kept, Message, Spent, State, Told, Txn, at},
};

/// The protocol with `N` attempts of one client under one key.
#[derive(Clone, Debug)]
pub(crate) struct Protocol<const N: usize> {
    pub(crate) bounds: Bounds,
    pub(crate) broken: Option<Broken>,
    /// Keeps gateways and participants apart by name: more states, and a run that can be read.
    pub(crate) named: bool,
}

/// One step, with the index of its gid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// A client asks a gateway, for the first time or again.
    Publish(usize, u8),
    /// A call is carried out and answered.
    Answered(usize, Caller, Message),
    /// The same, and the participant says its business "no".
    Refused(usize, Caller, Message),
    /// A call is carried out, and its answer lost.
    AnswerLost(usize, Caller, Message),
    /// A call brings no answer.
    Unanswered(usize, Caller, Message),
    /// A request arrives that nobody waits for.
    Arrives(usize, Message),
    /// The same, and the participant notes its business "no".
    ArrivesRefused(usize, Message),
    DeadlinePasses(usize),
    LeaseRunsOut(usize),
    Claim(usize, u8),
    GatewayCrashes(u8),
    ParticipantCrashes(Party),
    /// A participant's database loses what was prepared.
    RowIsLost(usize, Party),
    /// Only where that rule is broken.
    DecidesAlone(usize, Party),
    EverythingHeals,
}

const CALLERS: [Caller; 3] = [Caller::Driver, Caller::Recovery(0), Caller::Recovery(1)];

impl<const N: usize> Model for Protocol<N> {
    type State = State<N>;
    type Action = Action;

    fn init_states(&self) -> Vec<State<N>> {
        vec![State { txns: [Txn::NEW; N], spent: Spent::default(), healed: false }]
    }

    fn actions(&self, state: &State<N>, actions: &mut Vec<Action>) {
        if let Some(next) = state.txns.iter().position(|txn| txn.driver == Driver::Idle) {
            actions.extend(GATEWAYS.map(|gateway| Action::Publish(next, gateway)));
        }
        for index in 0..N {
            self.of_calls(state, index, actions);
            self.of_time(state, index, actions);
            self.of_participants(state, index, actions);
        }
        if state.healed {
            return;
        }
        actions.extend(GATEWAYS.map(Action::GatewayCrashes));
        actions.extend(Party::ALL.map(Action::ParticipantCrashes));
        if self.bounds.heals {
            actions.push(Action::EverythingHeals);
        }
    }

    fn next_state(&self, last: &State<N>, action: Action) -> Option<State<N>> {
        let mut next = *last;
        self.step(&mut next, action)?;
        for txn in &mut next.txns {
            self.settle(txn);
        }
        // What changes nothing is no step, and a fault without effect was none.
        let unchanged = State { spent: last.spent, ..next } == *last;
        (!unchanged).then(|| if self.named { next } else { next.canonical() })
    }

    fn properties(&self) -> Vec<Property<Self>> {
        properties::of(self)
    }
}

impl<const N: usize> Protocol<N> {
    fn of_calls(&self, state: &State<N>, index: usize, actions: &mut Vec<Action>) {
        let txn = &state.txns[index];
        for caller in CALLERS {
            for call in calls(txn, caller) {
                actions.push(Action::Answered(index, caller, call));
                if self.may_refuse(txn, call) {
                    actions.push(Action::Refused(index, caller, call));
                }
                if !state.healed && self.bounds.silences.spend(state.spent.silences).is_some() {
                    actions.push(Action::AnswerLost(index, caller, call));
                    actions.push(Action::Unanswered(index, caller, call));
                }
            }
        }
        let strays = self.bounds.strays.spend(state.spent.strays).is_some();
        for message in Message::ALL.into_iter().filter(|message| txn.sent.has(*message)) {
            // Nobody ever waits for an ack to be written: it is no stray.
            let ack = matches!(message, Message::Acknowledge(_));
            if strays || ack {
                actions.push(Action::Arrives(index, message));
            }
            if strays && self.may_refuse(txn, message) {
                actions.push(Action::ArrivesRefused(index, message));
            }
        }
    }

    fn may_refuse(&self, txn: &Txn, message: Message) -> bool {
        let Message::Prepare(party) = message else { return false };
        self.bounds.refusals && txn.kept[at(party)] == Kept::Nothing
    }

    fn of_time(&self, state: &State<N>, index: usize, actions: &mut Vec<Action>) {
        let txn = &state.txns[index];
        let Some(row) = txn.row else { return };
        if self.bounds.deadlines && row.state == Decision::Preparing && !row.late {
            actions.push(Action::DeadlinePasses(index));
        }
        // Healed, whoever works is done before its lease runs out; and one lease must do.
        let may = self.bounds.leases.spend(state.spent.leases).is_some();
        let runs_out = if state.healed { !txn.driven() && !txn.waited } else { may };
        if runs_out && txn.open() && !row.free {
            actions.push(Action::LeaseRunsOut(index));
        }
        if txn.open() && (row.free || self.broken == Some(Broken::NoLease)) {
            let idle = |gateway: &u8| txn.recovery[usize::from(*gateway)] == Chase::Idle;
            actions.extend(GATEWAYS.into_iter().filter(idle).map(|gateway| Action::Claim(index, gateway)));
        }
    }

    fn of_participants(&self, state: &State<N>, index: usize, actions: &mut Vec<Action>) {
        for party in Party::ALL {
            if state.txns[index].kept[at(party)] != Kept::Prepared {
                continue;
            }
            if self.broken == Some(Broken::DecidesAlone) {
                actions.push(Action::DecidesAlone(index, party));
            }
            if !state.healed && self.bounds.lost_rows.spend(state.spent.lost_rows).is_some() {
                actions.push(Action::RowIsLost(index, party));
            }
        }
    }

    /// `None` where there is no budget for it.
    fn step(&self, state: &mut State<N>, action: Action) -> Option<()> {
        let Bounds { silences, strays, crashes, leases, lost_rows, .. } = self.bounds;
        let spent = &mut state.spent;
        match action {
            Action::Arrives(_, Message::Acknowledge(_)) => {}
            Action::AnswerLost(..) | Action::Unanswered(..) => spent.silences = silences.spend(spent.silences)?,
            Action::Arrives(..) | Action::ArrivesRefused(..) => spent.strays = strays.spend(spent.strays)?,
            Action::GatewayCrashes(_) | Action::ParticipantCrashes(_) => {
                spent.crashes = crashes.spend(spent.crashes)?;
            }
            Action::LeaseRunsOut(_) if !state.healed => spent.leases = leases.spend(spent.leases)?,
            Action::RowIsLost(..) => spent.lost_rows = lost_rows.spend(spent.lost_rows)?,
            _ => {}
        }
        match action {
            Action::Publish(txn, gateway) => self.at(state, txn).publish(gateway),
            Action::Answered(txn, caller, call) => self.at(state, txn).answered(caller, call, true),
            Action::Refused(txn, caller, call) => self.at(state, txn).answered(caller, call, false),
            Action::AnswerLost(txn, caller, call) => {
                self.at(state, txn).arrives(call, true);
                self.at(state, txn).unanswered(caller, call);
            }
            Action::Unanswered(txn, caller, call) => self.at(state, txn).unanswered(caller, call),
            Action::Arrives(txn, message) => self.at(state, txn).arrives(message, true),
            Action::ArrivesRefused(txn, message) => self.at(state, txn).arrives(message, false),
            Action::DeadlinePasses(txn) => state.txns[txn].row.as_mut()?.late = true,
            Action::LeaseRunsOut(txn) => {
                state.txns[txn].row.as_mut()?.free = true;
                state.txns[txn].waited |= state.healed;
            }
            Action::Claim(txn, gateway) => self.at(state, txn).claim(gateway),
            Action::GatewayCrashes(gateway) => self.crash(state, gateway),
            Action::ParticipantCrashes(party) => self.cut(state, party),
            Action::RowIsLost(txn, party) => state.txns[txn].kept[at(party)] = Kept::Nothing,
            Action::DecidesAlone(txn, party) => state.txns[txn].kept[at(party)] = Kept::RolledBack,
            Action::EverythingHeals => {
                state.healed = true;
                // No faults are left to count.
                state.spent = Spent::default();
            }
        }
        Some(())
    }

    fn at<'a>(&self, state: &'a mut State<N>, txn: usize) -> Step<'a, N> {
        let acks_at_once = state.healed || self.bounds.strays == Budget::NONE;
        Step { state, txn, acks_at_once, broken: self.broken }
    }

    /// A gateway loses all it had in memory; the clients that waited there hear nothing.
    fn crash(&self, state: &mut State<N>, gateway: u8) {
        for index in 0..N {
            let txn = state.txns[index];
            let waits = !matches!(txn.driver, Driver::Idle | Driver::Referred | Driver::Over);
            if waits && txn.home == gateway {
                self.at(state, index).end(Caller::Driver);
            }
            self.at(state, index).end(Caller::Recovery(gateway));
        }
    }

    /// A participant keeps nothing in memory between calls: its crash cuts those under way, each carried out or not.
    fn cut(&self, state: &mut State<N>, party: Party) {
        for index in 0..N {
            for caller in CALLERS {
                let txn = state.txns[index];
                let of_party = |call: &Message| {
                    [Message::Prepare(party), Message::Commit(party), Message::Rollback(party)].contains(call)
                };
                for call in calls(&txn, caller).filter(of_party) {
                    self.at(state, index).unanswered(caller, call);
                }
            }
        }
    }

    /// What follows of itself after a step: clients ask for the status all the time, and what can have no effect any more
    /// is forgotten.
    fn settle(&self, txn: &mut Txn) {
        match txn.decision() {
            Some(Decision::Commit) => txn.told.add(Told::COMMITTED),
            Some(Decision::Abort) => txn.told.add(Told::ABORTED),
            Some(Decision::Preparing) | None => {}
        }
        if self.broken.is_none() && self.bounds.lost_rows == Budget::NONE {
            forget(txn);
        }
    }
}

/// Requests that change nothing whenever they arrive, as long as databases and rules hold: rows are there to stay, and final
/// states are final. Merges states that differ in them only.
fn forget(txn: &mut Txn) {
    if let Some(row) = txn.row {
        txn.sent.forget(Message::Begin);
        if row.state != Decision::Preparing {
            txn.sent.forget(Message::DecideCommit);
            txn.sent.forget(Message::DecideAbort);
        }
        for party in Party::ALL.into_iter().filter(|party| row.closed || row.acked.has(*party)) {
            txn.sent.forget(Message::Acknowledge(party));
        }
    }
    for party in Party::ALL {
        let kept = txn.kept[at(party)];
        if kept != Kept::Nothing {
            txn.sent.forget(Message::Prepare(party));
        }
        if kept.terminal() {
            txn.sent.forget(Message::Commit(party));
            txn.sent.forget(Message::Rollback(party));
        }
    }
}

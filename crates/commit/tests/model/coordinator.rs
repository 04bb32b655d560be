//! A gateway's steps: what it does when a call is answered, and when it is not. What votes add up to and what the publisher is
//! told are asked of the real rules ([`notifyx_commit::ballot`]); what is async there is taken apart here, one durable write
//! or one call at a time.

use notifyx_commit::{Outcome, Party, Verdict, ballot, participant::Refusal};
use notifyx_model::{Fault, Gid};
use notifyx_wire::rest::{Problem, commit};

use crate::{
    database::{self, Begun},
    participant::{self, Ack},
    rules::Broken,
    state::{Chase, Decision, Driver, Message, Set, State, Sum, Told, Txn, Vote, at},
};

/// Whose call it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// The gateway that was asked to publish.
    Driver,
    /// Recovery at this gateway.
    Recovery(u8),
}

/// The calls under way of one caller.
pub(crate) fn calls(txn: &Txn, caller: Caller) -> impl Iterator<Item = Message> + use<> {
    let mut calls = [None; 2];
    match (caller, txn.driver) {
        (Caller::Driver, Driver::Beginning) => calls[0] = Some(Message::Begin),
        (Caller::Driver, Driver::Voting(votes)) => {
            calls = Party::ALL.map(|party| votes[at(party)].open().then_some(Message::Prepare(party)));
        }
        (Caller::Driver, Driver::Deciding { sum, .. }) => calls[0] = Some(decide(sum)),
        (Caller::Driver, Driver::Settling { decision, owed }) => calls = settle(decision, owed),
        (Caller::Driver, Driver::Idle | Driver::Referred | Driver::Over) => {}
        (Caller::Recovery(gateway), _) => match txn.recovery[usize::from(gateway)] {
            Chase::Idle => {}
            Chase::Aborting => calls[0] = Some(Message::DecideAbort),
            Chase::Settling { decision, owed } => calls = settle(decision, owed),
        },
    }
    calls.into_iter().flatten()
}

fn decide(sum: Sum) -> Message {
    if sum == Sum::Commit { Message::DecideCommit } else { Message::DecideAbort }
}

fn settle(decision: Decision, owed: Set) -> [Option<Message>; 2] {
    Party::ALL.map(|party| owed.has(party).then(|| phase_two(decision, party)))
}

fn phase_two(decision: Decision, party: Party) -> Message {
    if decision == Decision::Commit { Message::Commit(party) } else { Message::Rollback(party) }
}

/// One transaction in its world, and the rule that is broken.
pub(crate) struct Step<'a, const N: usize> {
    pub(crate) state: &'a mut State<N>,
    pub(crate) txn: usize,
    /// An ack is written with the answer that brings it.
    pub(crate) acks_at_once: bool,
    pub(crate) broken: Option<Broken>,
}

impl<const N: usize> Step<'_, N> {
    fn now(&mut self) -> &mut Txn {
        &mut self.state.txns[self.txn]
    }

    /// A client asks a gateway to publish.
    pub(crate) fn publish(&mut self, gateway: u8) {
        let txn = self.now();
        txn.home = gateway;
        txn.driver = Driver::Beginning;
        txn.sent.add(Message::Begin);
    }

    /// The call is carried out and its caller is told. `willing`: a new prepare meets no business "no".
    pub(crate) fn answered(&mut self, caller: Caller, call: Message, willing: bool) {
        let broken = self.broken;
        match call {
            Message::Begin => {
                let begun = database::begin(self.state, self.txn, broken);
                self.begun(begun);
            }
            Message::Prepare(party) => {
                let vote = match participant::prepare(&mut self.now().kept[at(party)], willing, broken) {
                    Ok(()) => Vote::Yes,
                    // Of a tombstone, or of a "no" whose answer was lost: the coordinator cannot tell.
                    Err(Some(Refusal::Aborted)) => Vote::Buried,
                    Err(_) => Vote::No,
                };
                self.voted(party, vote);
            }
            Message::DecideCommit | Message::DecideAbort => {
                let Some(row) = &mut self.now().row else { return };
                let decision = database::decide(row, call == Message::DecideCommit, broken);
                match caller {
                    Caller::Driver => self.decided(decision),
                    Caller::Recovery(gateway) => self.settle(Caller::Recovery(gateway), decision, Set::BOTH),
                }
            }
            Message::Commit(party) => {
                let ack = participant::commit(&mut self.now().kept[at(party)], broken);
                self.acked(caller, party, ack);
            }
            Message::Rollback(party) => {
                let ack = participant::rollback(&mut self.now().kept[at(party)], broken);
                self.acked(caller, party, ack);
            }
            Message::Acknowledge(_) => {}
        }
    }

    /// The call is carried out, and nobody hears of it.
    pub(crate) fn arrives(&mut self, message: Message, willing: bool) {
        let (broken, index) = (self.broken, self.txn);
        let txn = self.now();
        match message {
            Message::Begin => {
                database::begin(self.state, index, broken);
            }
            Message::Prepare(party) => {
                let _ = participant::prepare(&mut txn.kept[at(party)], willing, broken);
            }
            Message::DecideCommit | Message::DecideAbort => {
                if let Some(row) = &mut txn.row {
                    database::decide(row, message == Message::DecideCommit, broken);
                }
            }
            Message::Acknowledge(party) => {
                if let Some(row) = &mut txn.row {
                    database::acknowledge(row, party, broken);
                }
            }
            Message::Commit(party) => {
                participant::commit(&mut txn.kept[at(party)], broken);
            }
            Message::Rollback(party) => {
                participant::rollback(&mut txn.kept[at(party)], broken);
            }
        }
    }

    /// The call brings no answer. What of it was carried out, or will be, is another matter.
    pub(crate) fn unanswered(&mut self, caller: Caller, call: Message) {
        let Caller::Driver = caller else {
            // An undecided one is left to the next claim, a decided one deferred into its lease: forgotten here either way.
            return self.end(caller);
        };
        match (self.now().driver, call) {
            (Driver::Beginning, _) => {
                // "the transaction could not be begun": 503.
                self.now().told.add(Told::ABORTED);
                self.end(caller);
            }
            (Driver::Voting(votes), Message::Prepare(party)) => {
                let vote = if votes[at(party)] == Vote::First { Vote::Second } else { Vote::Silent };
                self.voted(party, vote);
            }
            (Driver::Deciding { sum, again: false }, _) => self.now().driver = Driver::Deciding { sum, again: true },
            (Driver::Deciding { sum, again: true }, _) => {
                let outcome = real(sum).undecided(gid());
                self.tell(&outcome);
                if self.broken == Some(Broken::AbortedWhenUnknown) {
                    self.now().told.add(Told::ABORTED);
                }
                self.end(caller);
            }
            // Tried again from memory it is the same call under way; deferred into the lease it is forgotten here.
            _ => self.end(caller),
        }
    }

    /// Recovery takes the transaction over.
    pub(crate) fn claim(&mut self, gateway: u8) {
        let broken = self.broken;
        let txn = self.now();
        let Some(row) = &mut txn.row else { return };
        if !database::claim(row, broken) {
            return;
        }
        let (decision, acked) = (row.state, row.acked);
        if decision == Decision::Preparing && broken != Some(Broken::RecoveryCommits) {
            txn.recovery[usize::from(gateway)] = Chase::Aborting;
            txn.sent.add(Message::DecideAbort);
            return;
        }
        if decision == Decision::Preparing {
            row.state = Decision::Commit;
        }
        let decision = match broken {
            Some(Broken::RecoveryFlips) => Decision::Abort,
            Some(Broken::RecoveryCommits) => row.state,
            _ => decision,
        };
        self.settle(Caller::Recovery(gateway), decision, ballot::owed(acked.into()).into());
    }

    /// The caller's memory of this transaction is gone: finished, given up, or crashed.
    pub(crate) fn end(&mut self, caller: Caller) {
        let txn = self.now();
        match caller {
            Caller::Driver => {
                txn.driver = Driver::Over;
                txn.home = 0;
            }
            Caller::Recovery(gateway) => txn.recovery[usize::from(gateway)] = Chase::Idle,
        }
    }

    fn begun(&mut self, begun: Begun) {
        match begun {
            Begun::New => {
                let txn = self.now();
                txn.driver = Driver::Voting([Vote::First; 2]);
                for party in Party::ALL {
                    txn.sent.add(Message::Prepare(party));
                }
            }
            Begun::Known(holder) => {
                self.end(Caller::Driver);
                if holder != self.txn {
                    self.now().driver = Driver::Referred;
                }
                // What the status says the client is told anyway. `standing` asks for a commit again.
                let known = &mut self.state.txns[holder];
                if known.decision() == Some(Decision::Commit) {
                    for party in Party::ALL {
                        known.sent.add(Message::Commit(party));
                    }
                }
            }
        }
    }

    fn voted(&mut self, party: Party, vote: Vote) {
        let broken = self.broken;
        let txn = self.now();
        let Driver::Voting(mut votes) = txn.driver else { return };
        votes[at(party)] = vote;
        if votes.iter().any(|vote| vote.open()) {
            txn.driver = Driver::Voting(votes);
            return;
        }
        let mut sum = add_up(votes, broken);
        if broken == Some(Broken::OneYes) && votes.contains(&Vote::Yes) && votes.contains(&Vote::Silent) {
            sum = Sum::Commit;
        }
        if broken == Some(Broken::AnswerBeforeDecide) && sum == Sum::Commit {
            txn.told.add(Told::COMMITTED);
        }
        if broken == Some(Broken::CommitBeforeDecide) && sum == Sum::Commit {
            for party in Party::ALL {
                txn.sent.add(Message::Commit(party));
            }
        }
        txn.driver = Driver::Deciding { sum, again: false };
        txn.sent.add(match real(sum).verdict() {
            Verdict::Commit => Message::DecideCommit,
            Verdict::Abort { .. } => Message::DecideAbort,
        });
    }

    fn decided(&mut self, decision: Decision) {
        let Driver::Deciding { sum, .. } = self.now().driver else { return };
        let outcome = real(sum).outcome(gid(), Some(decision.into()), None);
        self.tell(&outcome);
        self.settle(Caller::Driver, decision, Set::BOTH);
    }

    fn settle(&mut self, caller: Caller, decision: Decision, owed: Set) {
        let txn = self.now();
        for message in settle(decision, owed).into_iter().flatten() {
            txn.sent.add(message);
        }
        match caller {
            Caller::Driver => txn.driver = Driver::Settling { decision, owed },
            Caller::Recovery(gateway) => txn.recovery[usize::from(gateway)] = Chase::Settling { decision, owed },
        }
    }

    /// A participant has answered about the decision.
    fn acked(&mut self, caller: Caller, party: Party, ack: Ack) {
        let (broken, at_once) = (self.broken, self.acks_at_once);
        let txn = self.now();
        let (decision, owed) = match caller {
            Caller::Driver => match txn.driver {
                Driver::Settling { decision, owed } => (decision, owed),
                _ => return,
            },
            Caller::Recovery(gateway) => match txn.recovery[usize::from(gateway)] {
                Chase::Settling { decision, owed } => (decision, owed),
                Chase::Idle | Chase::Aborting => return,
            },
        };
        let Some(row) = &mut txn.row else { return };
        if ack == Ack::Violation {
            row.quarantined |= !row.closed;
            return self.end(caller);
        }
        // Written off this path: it may be late or lost as any message, unless all is healed or nothing is late.
        if at_once {
            database::acknowledge(row, party, broken);
        } else {
            txn.sent.add(Message::Acknowledge(party));
        }
        let owed = owed.without(party);
        let created = owed.is_empty() || broken == Some(Broken::CreatedByOne);
        if created && caller == Caller::Driver && decision == Decision::Commit {
            txn.told.add(Told::APPLIED);
        }
        match caller {
            _ if owed.is_empty() => self.end(caller),
            Caller::Driver => txn.driver = Driver::Settling { decision, owed },
            Caller::Recovery(gateway) => txn.recovery[usize::from(gateway)] = Chase::Settling { decision, owed },
        }
    }

    fn tell(&mut self, outcome: &Outcome) {
        let told = &mut self.now().told;
        match outcome {
            Outcome::Committed { .. } => told.add(Told::COMMITTED),
            Outcome::Refused { .. } => {
                told.add(Told::ABORTED);
                told.add(Told::REFUSED);
            }
            Outcome::Aborted { .. } => told.add(Told::ABORTED),
            Outcome::Unknown { .. } => {}
            Outcome::NotBegun { .. } | Outcome::Known { .. } | Outcome::Mismatch { .. } | Outcome::Busy(_) => {
                unreachable!("votes do not add up to that")
            }
        }
    }
}

/// Asks the real rule.
fn add_up(votes: [Vote; 2], broken: Option<Broken>) -> Sum {
    let [persist, counter] = votes.map(|vote| match vote {
        Vote::Yes => Ok(commit::Vote::Yes),
        Vote::Buried if broken != Some(Broken::BuriedIsFinal) => Ok(commit::Vote::No(no(Refusal::Aborted.code()))),
        Vote::No | Vote::Buried => Ok(commit::Vote::No(no("topic_inactive"))),
        Vote::First | Vote::Second | Vote::Silent => Err(String::new()),
    });
    match ballot::Sum::of(persist, counter) {
        ballot::Sum::Commit => Sum::Commit,
        ballot::Sum::Refuse(_) => Sum::Refuse,
        ballot::Sum::Fail(_) => Sum::Fail,
    }
}

fn real(sum: Sum) -> ballot::Sum {
    match sum {
        Sum::Commit => ballot::Sum::Commit,
        Sum::Refuse => ballot::Sum::Refuse(no("topic_inactive")),
        Sum::Fail => ballot::Sum::Fail(String::new()),
    }
}

fn no(code: &str) -> Problem {
    let text = String::new;
    Problem { success: false, status: 409, title: text(), code: code.into(), detail: text(), request_id: None }
}

/// Rules do not look at which.
fn gid() -> Gid {
    Gid::from_uuid(uuid::Uuid::nil())
}

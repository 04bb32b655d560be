//! What the world holds at one moment: per transaction the coordinator's row, each participant's row, what was sent, and
//! what gateways have in memory. Small and `Copy`: there are millions of them.

use notifyx_commit::{Parties, Party, participant};

/// The two gateways. Alike, but not one: each crashes on its own.
pub(crate) const GATEWAYS: [u8; 2] = [0, 1];

/// Everything. `N` is the number of attempts of one client under one idempotency key; each brings a gid of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct State<const N: usize> {
    pub(crate) txns: [Txn; N],
    pub(crate) spent: Spent,
    /// From here on nothing fails any more.
    pub(crate) healed: bool,
}

/// How many faults there were, of those kinds that are counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Spent {
    pub(crate) silences: u8,
    pub(crate) strays: u8,
    pub(crate) crashes: u8,
    pub(crate) leases: u8,
    pub(crate) lost_rows: u8,
}

/// One gid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Txn {
    /// The gateway that was asked for it.
    pub(crate) home: u8,
    pub(crate) driver: Driver,
    /// What recovery does about it, at each gateway.
    pub(crate) recovery: [Chase; 2],
    pub(crate) row: Option<Row>,
    /// At persist and at counter-2pc.
    pub(crate) kept: [Kept; 2],
    pub(crate) sent: Sent,
    pub(crate) told: Told,
    /// A lease has run out since everything healed.
    pub(crate) waited: bool,
}

/// The coordinator's row.
#[expect(clippy::struct_excessive_bools, reason = "each is a column, or a time that has come")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Row {
    pub(crate) state: Decision,
    pub(crate) acked: Set,
    pub(crate) quarantined: bool,
    pub(crate) closed: bool,
    /// The deadline has passed.
    pub(crate) late: bool,
    /// The lease has run out.
    pub(crate) free: bool,
    /// History: COMMIT was decided after the deadline.
    pub(crate) decided_late: bool,
}

/// `notifyx_commit::State` with an order, by which states are made canonical.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Decision {
    Preparing,
    Commit,
    Abort,
}

impl From<Decision> for notifyx_commit::State {
    fn from(decision: Decision) -> Self {
        match decision {
            Decision::Preparing => Self::Preparing,
            Decision::Commit => Self::Commit,
            Decision::Abort => Self::Abort,
        }
    }
}

/// A participant's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kept {
    Nothing,
    Prepared,
    Committed,
    /// ABORTED by a business "no".
    Refused,
    /// ABORTED by a rollback: of what was prepared, or a tombstone.
    RolledBack,
}

impl Kept {
    pub(crate) const fn state(self) -> Option<participant::State> {
        match self {
            Self::Nothing => None,
            Self::Prepared => Some(participant::State::Prepared),
            Self::Committed => Some(participant::State::Committed),
            Self::Refused | Self::RolledBack => Some(participant::State::Aborted),
        }
    }

    pub(crate) const fn aborted(self) -> bool {
        matches!(self, Self::Refused | Self::RolledBack)
    }

    pub(crate) const fn terminal(self) -> bool {
        matches!(self, Self::Committed | Self::Refused | Self::RolledBack)
    }
}

/// Whoever was asked to publish, and how far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Driver {
    /// The client has not asked yet.
    Idle,
    /// BEGIN is under way.
    Beginning,
    /// PREPARE is under way.
    Voting([Vote; 2]),
    /// DECIDE is under way, for the second time if the first brought no answer.
    Deciding { sum: Sum, again: bool },
    /// COMMIT or ROLLBACK is under way to those that owe it.
    Settling { decision: Decision, owed: Set },
    /// BEGIN found the key taken: the client was given the other gid.
    Referred,
    /// Ended, or crashed.
    Over,
}

/// What recovery does about one transaction at one gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Chase {
    Idle,
    /// It was claimed PREPARING: a decision to abort is under way.
    Aborting,
    Settling {
        decision: Decision,
        owed: Set,
    },
}

/// How a participant's vote stands with the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Vote {
    /// The first call is under way.
    First,
    /// The first brought no answer, the second is under way.
    Second,
    Yes,
    /// A business "no".
    No,
    /// It was rolled back before it could be prepared.
    Buried,
    /// Neither call brought an answer.
    Silent,
}

impl Vote {
    pub(crate) const fn open(self) -> bool {
        matches!(self, Self::First | Self::Second)
    }
}

/// What the votes add up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Sum {
    Commit,
    Refuse,
    Fail,
}

/// A set of participants, with an order; otherwise `notifyx_commit::Parties`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Set(u8);

impl Set {
    pub(crate) const BOTH: Self = Self(3);

    pub(crate) const fn has(self, party: Party) -> bool {
        self.0 & 1 << at(party) != 0
    }

    pub(crate) const fn with(self, party: Party) -> Self {
        Self(self.0 | 1 << at(party))
    }

    pub(crate) const fn without(self, party: Party) -> Self {
        Self(self.0 & !(1 << at(party)))
    }

    pub(crate) const fn is_empty(self) -> bool {
        self.0 == 0
    }

    const fn mirrored(self) -> Self {
        Self(self.0 >> 1 | (self.0 & 1) << 1)
    }
}

impl From<Parties> for Set {
    fn from(parties: Parties) -> Self {
        Self(u8::from(parties.persist) | u8::from(parties.counter) << 1)
    }
}

impl From<Set> for Parties {
    fn from(set: Set) -> Self {
        Self { persist: set.has(Party::Persist), counter: set.has(Party::Counter) }
    }
}

/// A request, to the coordinator's database or to a participant. Answers are no messages: see the model's notes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Message {
    Begin,
    DecideCommit,
    DecideAbort,
    Acknowledge(Party),
    Prepare(Party),
    Commit(Party),
    Rollback(Party),
}

impl Message {
    pub(crate) const ALL: [Self; 11] = [
        Self::Begin,
        Self::DecideCommit,
        Self::DecideAbort,
        Self::Acknowledge(Party::Persist),
        Self::Acknowledge(Party::Counter),
        Self::Prepare(Party::Persist),
        Self::Prepare(Party::Counter),
        Self::Commit(Party::Persist),
        Self::Commit(Party::Counter),
        Self::Rollback(Party::Persist),
        Self::Rollback(Party::Counter),
    ];

    /// The bit in [`Sent`]: those to a participant in pairs, so that a pair can be mirrored.
    const fn bit(self) -> u16 {
        1 << match self {
            Self::Begin => 0,
            Self::DecideCommit => 1,
            Self::DecideAbort => 2,
            Self::Acknowledge(party) => 4 + at(party),
            Self::Prepare(party) => 6 + at(party),
            Self::Commit(party) => 8 + at(party),
            Self::Rollback(party) => 10 + at(party),
        }
    }
}

/// What was ever sent: it may arrive at any time, any number of times, or never.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Sent(u16);

impl Sent {
    pub(crate) const fn has(self, message: Message) -> bool {
        self.0 & message.bit() != 0
    }

    pub(crate) const fn add(&mut self, message: Message) {
        self.0 |= message.bit();
    }

    pub(crate) const fn forget(&mut self, message: Message) {
        self.0 &= !message.bit();
    }

    const fn mirrored(self) -> Self {
        const FIRST: u16 = 0b0101_0101_0000;
        Self(self.0 & 0b1111 | (self.0 & FIRST) << 1 | (self.0 >> 1) & FIRST)
    }
}

/// What clients were told of a gid, ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Told(u8);

impl Told {
    /// 202 of a decision, 201, or `committed` by the status.
    pub(crate) const COMMITTED: Self = Self(1);
    /// 503, 409, or `aborted` by the status.
    pub(crate) const ABORTED: Self = Self(2);
    /// 201.
    pub(crate) const APPLIED: Self = Self(4);
    /// 409.
    pub(crate) const REFUSED: Self = Self(8);

    pub(crate) const fn has(self, what: Self) -> bool {
        self.0 & what.0 == what.0
    }

    pub(crate) const fn add(&mut self, what: Self) {
        self.0 |= what.0;
    }
}

impl Txn {
    pub(crate) const NEW: Self = Self {
        home: 0,
        driver: Driver::Idle,
        recovery: [Chase::Idle; 2],
        row: None,
        kept: [Kept::Nothing; 2],
        sent: Sent(0),
        told: Told(0),
        waited: false,
    };

    pub(crate) fn decision(&self) -> Option<Decision> {
        self.row.map(|row| row.state)
    }

    pub(crate) fn open(&self) -> bool {
        self.row.is_some_and(|row| !row.closed)
    }

    /// Somebody works on it.
    pub(crate) fn driven(&self) -> bool {
        !matches!(self.driver, Driver::Idle | Driver::Referred | Driver::Over)
            || self.recovery.iter().any(|chase| *chase != Chase::Idle)
    }

    /// With the gateways exchanged.
    fn swapped(mut self) -> Self {
        if self.driver != Driver::Idle {
            self.home = 1 - self.home;
        }
        self.recovery.swap(0, 1);
        self
    }

    /// With the participants exchanged.
    fn mirrored(mut self) -> Self {
        self.kept.swap(0, 1);
        self.sent = self.sent.mirrored();
        if let Some(row) = &mut self.row {
            row.acked = row.acked.mirrored();
        }
        match &mut self.driver {
            Driver::Voting(votes) => votes.swap(0, 1),
            Driver::Settling { owed, .. } => *owed = owed.mirrored(),
            Driver::Idle | Driver::Beginning | Driver::Deciding { .. } | Driver::Referred | Driver::Over => {}
        }
        for chase in &mut self.recovery {
            if let Chase::Settling { owed, .. } = chase {
                *owed = owed.mirrored();
            }
        }
        self
    }
}

impl<const N: usize> State<N> {
    /// Neither the gateways nor the participants are told apart by any rule: of the four states that differ in their
    /// names only, one stands for all.
    pub(crate) fn canonical(self) -> Self {
        let swapped = Self { txns: self.txns.map(Txn::swapped), ..self };
        let half = self.min(swapped);
        let mirrored = Self { txns: self.txns.map(Txn::mirrored), ..self };
        let both = Self { txns: swapped.txns.map(Txn::mirrored), ..self };
        half.min(mirrored).min(both)
    }
}

pub(crate) const fn at(party: Party) -> usize {
    match party {
        Party::Persist => 0,
        Party::Counter => 1,
    }
}

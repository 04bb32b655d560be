//! Within which bounds the model is explored, and which rule, if any, is broken on purpose.

/// A rule of the protocol, broken: each must be found out by a property (`main.rs` says which).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// DECIDE writes whatever `state` says.
    NoCompareAndSet,
    /// DECIDE commits after the deadline too.
    LateCommit,
    /// BEGIN does not look whether the key is taken.
    KeyNotUnique,
    /// The first ack closes.
    ClosedByOneAck,
    /// Claims take transactions whose lease has not run out.
    NoLease,
    /// Nobody claims anything.
    NoRecovery,
    /// Recovery claims only what is undecided.
    DecidedForgotten,
    /// Recovery decides COMMIT for what was left undecided.
    RecoveryCommits,
    /// Recovery sends ROLLBACK, whatever is decided.
    RecoveryFlips,
    /// A prepare that met a tombstone counts as a business "no".
    BuriedIsFinal,
    /// One yes and one silence make a commit.
    OneYes,
    /// COMMIT is sent with the votes, before DECIDE.
    CommitBeforeDecide,
    /// The client is told once both have voted yes.
    AnswerBeforeDecide,
    /// 503 where DECIDE brought no answer.
    AbortedWhenUnknown,
    /// 201 as soon as one participant has applied it.
    CreatedByOne,
    /// A rollback of what is not there leaves nothing behind.
    NoTombstone,
    /// A commit of what is not there is "done".
    MissingCommitDone,
    /// A prepare is accepted under an aborted gid.
    AbortedPreparesAgain,
    /// A participant aborts what it holds prepared.
    DecidesAlone,
}

/// How many times something may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Budget {
    /// As often as it likes: nothing is counted.
    Any,
    Times(u8),
}

impl Budget {
    pub(crate) const NONE: Self = Self::Times(0);

    /// What is spent after one more; `None` where there is no more.
    pub(crate) const fn spend(self, spent: u8) -> Option<u8> {
        match self {
            Self::Any => Some(spent),
            Self::Times(times) if spent < times => Some(spent + 1),
            Self::Times(_) => None,
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    /// Calls that bring their caller no answer, whether or not they were carried out (loss, time-outs, 5xx).
    pub(crate) silences: Budget,
    /// Requests that arrive when nobody waits for them any more: late, doubled, out of order.
    pub(crate) strays: Budget,
    /// Gateways and participants that crash and start again.
    pub(crate) crashes: Budget,
    /// Prepared rows that a participant's database loses, against its promise.
    pub(crate) lost_rows: Budget,
    /// Leases that run out, whether or not somebody works.
    pub(crate) leases: Budget,
    /// Deadlines may pass.
    pub(crate) deadlines: bool,
    /// Participants may say a business "no".
    pub(crate) refusals: bool,
    /// At any moment everything may heal; from there on it is checked that all ends.
    pub(crate) heals: bool,
}

impl Bounds {
    /// Any number of every fault of the protocol's matrix; databases keep what they promised.
    pub(crate) const UNLIMITED: Self = Self {
        silences: Budget::Any,
        strays: Budget::Any,
        crashes: Budget::Any,
        lost_rows: Budget::NONE,
        leases: Budget::Any,
        deadlines: true,
        refusals: true,
        heals: true,
    };

    /// Nothing fails, nobody is slow.
    pub(crate) const QUIET: Self = Self {
        silences: Budget::NONE,
        strays: Budget::NONE,
        crashes: Budget::NONE,
        lost_rows: Budget::NONE,
        leases: Budget::NONE,
        deadlines: false,
        refusals: true,
        heals: false,
    };
}

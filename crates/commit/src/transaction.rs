//! A transaction as the coordinator's database holds it.

use std::{fmt, str::FromStr};

use notifyx_model::{Gid, InstanceId, Timestamp, UserId};
use notifyx_wire::rest::commit::{
    Decision, Heuristic, ParticipantDetails, Resolution, TransactionDetails, TransactionState, TransactionStatus, Voted,
};

use crate::{RequestHash, participant::Unknown};

/// The coordinator's state of a transaction. COMMIT and ABORT are final, however long their applying takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    Preparing,
    Commit,
    Abort,
}

impl State {
    /// As it stands in the database.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Preparing => "PREPARING",
            Self::Commit => "COMMIT",
            Self::Abort => "ABORT",
        }
    }
}

impl FromStr for State {
    type Err = Unknown;

    fn from_str(text: &str) -> Result<Self, Unknown> {
        match text {
            "PREPARING" => Ok(Self::Preparing),
            "COMMIT" => Ok(Self::Commit),
            "ABORT" => Ok(Self::Abort),
            other => Err(Unknown::new("coordinator's State", other)),
        }
    }
}

/// The two participants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Party {
    Persist,
    Counter,
}

impl Party {
    pub const ALL: [Self; 2] = [Self::Persist, Self::Counter];

    /// The service's name in the registry, in metrics and in logs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Persist => "persist",
            Self::Counter => "counter-2pc",
        }
    }
}

impl fmt::Display for Party {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of participants: those that acknowledged the decision, or those that still owe it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Parties {
    pub persist: bool,
    pub counter: bool,
}

impl Parties {
    pub const NONE: Self = Self { persist: false, counter: false };
    pub const BOTH: Self = Self { persist: true, counter: true };

    pub const fn only(party: Party) -> Self {
        match party {
            Party::Persist => Self { persist: true, counter: false },
            Party::Counter => Self { persist: false, counter: true },
        }
    }

    pub const fn has(self, party: Party) -> bool {
        match party {
            Party::Persist => self.persist,
            Party::Counter => self.counter,
        }
    }

    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self { persist: self.persist || other.persist, counter: self.counter || other.counter }
    }

    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self { persist: self.persist && !other.persist, counter: self.counter && !other.counter }
    }

    pub fn count(self) -> u8 {
        u8::from(self.persist) + u8::from(self.counter)
    }
}

/// How each participant voted, as far as it was asked: recovery aborts without asking.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Votes {
    pub persist: Option<Voted>,
    pub counter: Option<Voted>,
}

impl Votes {
    pub const NONE: Self = Self { persist: None, counter: None };
}

/// One row of `txn`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub gid: Gid,
    /// Who publishes: the only user who may ask for the status.
    pub user_id: UserId,
    pub idem_key: Option<String>,
    pub request: RequestHash,
    pub state: State,
    /// As they stood when it was decided.
    pub votes: Votes,
    /// Why it was aborted or quarantined.
    pub reason: Option<String>,
    pub acked: Parties,
    /// Failed tries of phase 2 since it was decided, and how many of them failed in a way that repeats.
    pub tries: u32,
    pub refusals: u32,
    pub quarantined: bool,
    /// Who drives it, and until when others leave it alone.
    pub owner: InstanceId,
    pub lease_until: Timestamp,
    pub created_at: Timestamp,
    pub deadline: Timestamp,
    pub closed_at: Option<Timestamp>,
    /// Closed by an operator, rather than by both acks: what was found. It changes neither the decision nor what a participant
    /// holds.
    pub resolution: Option<Resolution>,
}

impl Record {
    /// As `GET /api/2pc/{gid}` answers.
    pub fn status(&self) -> TransactionStatus {
        TransactionStatus {
            gid: self.gid,
            state: self.told(),
            applied: self.acked.count(),
            reason: self.reason.clone(),
            deadline: self.deadline,
            closed_at: self.closed_at,
            outcome: self.resolution.as_ref().map(|resolution| resolution.outcome),
        }
    }

    /// As operators see it.
    pub fn details(&self, now: Timestamp) -> TransactionDetails {
        let participant = |party: Party, vote| ParticipantDetails {
            service: party.name().to_owned(),
            vote,
            acked: self.acked.has(party),
        };
        let age = self.closed_at.unwrap_or(now).since(self.created_at);
        TransactionDetails {
            status: self.status(),
            decision: match self.state {
                State::Preparing => None,
                State::Commit => Some(Decision::Committed),
                State::Abort => Some(Decision::Aborted),
            },
            user_id: self.user_id,
            idempotency_key: self.idem_key.clone(),
            participants: vec![
                participant(Party::Persist, self.votes.persist),
                participant(Party::Counter, self.votes.counter),
            ],
            tries: self.tries,
            refusals: self.refusals,
            created_at: self.created_at,
            age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
            owner: self.owner,
            lease_until: self.lease_until,
            resolution: self.resolution.clone(),
        }
    }

    /// The one word about it. `committed` and `aborted` are said only where that is so: not where an operator found
    /// something else, nor while that is open.
    fn told(&self) -> TransactionState {
        let found = self.resolution.as_ref().map(|resolution| resolution.outcome);
        match (self.state, found) {
            (State::Preparing, _) => TransactionState::Preparing,
            (_, None) if self.quarantined => TransactionState::Quarantined,
            (State::Commit, None | Some(Heuristic::Committed)) => TransactionState::Committed,
            (State::Abort, None | Some(Heuristic::RolledBack)) => TransactionState::Aborted,
            (State::Commit, Some(Heuristic::RolledBack | Heuristic::Mixed))
            | (State::Abort, Some(Heuristic::Committed | Heuristic::Mixed)) => TransactionState::Resolved,
        }
    }
}

//! What a coordinator makes of two votes, and what it tells the publisher: pure, as [`crate::participant`] is for participants.
//! No I/O; the model in `tests/model` asks the same functions.

use notifyx_model::{Fault, Gid};
use notifyx_wire::rest::{
    Problem,
    commit::{Applied, Vote},
};

use crate::{Outcome, Parties, State, Verdict, participant::Refusal};

/// What the votes on one transaction add up to.
#[derive(Clone, Debug, PartialEq)]
pub enum Sum {
    Commit,
    /// At least one business "no".
    Refuse(Problem),
    /// No "no", but not two yes either.
    Fail(String),
}

impl Sum {
    /// Of the votes of both participants; `Err` where one could not be asked or could not tell.
    pub fn of(persist: Result<Vote, String>, counter: Result<Vote, String>) -> Self {
        match (persist, counter) {
            (Ok(Vote::Yes), Ok(Vote::Yes)) => Self::Commit,
            // Persist's "no" is about the message and says more than the counter's.
            (Ok(Vote::No(problem)), _) | (_, Ok(Vote::No(problem))) if !rolled_back(&problem) => Self::Refuse(problem),
            (Ok(Vote::No(problem) | Vote::Error(problem)), _) | (_, Ok(Vote::No(problem) | Vote::Error(problem))) => {
                Self::Fail(problem.detail)
            }
            (Err(reason), _) | (_, Err(reason)) => Self::Fail(reason),
        }
    }

    /// What DECIDE is asked for.
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Commit => Verdict::Commit,
            Self::Refuse(problem) => Verdict::Abort { reason: format!("{}: {}", problem.code, problem.detail) },
            Self::Fail(reason) => Verdict::Abort { reason: reason.clone() },
        }
    }

    /// What the publisher is told, now that the row says `state`: the row is obeyed, whatever the votes were.
    pub fn outcome(self, gid: Gid, state: Option<State>, applied: Option<Applied>) -> Outcome {
        match (state, self) {
            (Some(State::Commit), _) => Outcome::Committed { gid, applied },
            (Some(State::Preparing), _) => Outcome::Unknown { gid },
            (Some(State::Abort) | None, Self::Refuse(problem)) => Outcome::Refused { gid, problem },
            (Some(State::Abort) | None, Self::Fail(reason)) => Outcome::Aborted { gid, reason },
            (Some(State::Abort) | None, Self::Commit) => Outcome::Aborted { gid, reason: Verdict::TOO_LATE.into() },
        }
    }

    /// What the publisher is told where DECIDE gave no answer. What was to be aborted will be, by recovery: nobody else can
    /// commit it. What was to be committed may be either.
    pub fn undecided(self, gid: Gid) -> Outcome {
        match self {
            Self::Commit => Outcome::Unknown { gid },
            Self::Refuse(problem) => Outcome::Refused { gid, problem },
            Self::Fail(reason) => Outcome::Aborted { gid, reason },
        }
    }
}

/// Who is sent a decision that was claimed from another: acknowledged by both and yet open, both are asked again, so that
/// their acks close it.
pub fn owed(acked: Parties) -> Parties {
    if acked == Parties::BOTH { Parties::BOTH } else { Parties::BOTH.without(acked) }
}

/// A "no" that no business rule said: recovery was faster than the prepare, and the publish may be sent again.
fn rolled_back(problem: &Problem) -> bool {
    problem.code == Refusal::Aborted.code()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn no(code: &str) -> Vote {
        let problem = Problem {
            success: false,
            status: 409,
            title: "Conflict".into(),
            code: code.into(),
            detail: code.into(),
            request_id: None,
        };
        Vote::No(problem)
    }

    #[test]
    fn a_prepare_that_recovery_overtook_is_no_final_no() {
        let buried = || Ok(no("transaction_aborted"));
        let inactive = || Ok(no("topic_inactive"));
        for (persist, counter) in
            [(buried(), Ok(Vote::Yes)), (Ok(Vote::Yes), buried()), (buried(), buried()), (buried(), Err("away".into()))]
        {
            assert!(matches!(Sum::of(persist, counter), Sum::Fail(_)));
        }
        for (persist, counter) in [(buried(), inactive()), (inactive(), buried())] {
            let Sum::Refuse(problem) = Sum::of(persist, counter) else { panic!("a business no stands") };
            assert_eq!(problem.code, "topic_inactive");
        }
    }
}

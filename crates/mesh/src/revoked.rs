//! What the revocation log has said lately, kept so that no answer from before a logout is believed after it.
//!
//! Each revocation raises a mark. An identity that was asked for at an earlier mark than that of a revocation which
//! concerns it is not believed: so it does not matter in which order the answer and the revocation arrived.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use notifyx_model::{Timestamp, TokenHash, UserId};
use notifyx_wire::rest::auth::Revocation;

/// A few megabytes. Beyond, all is forgotten, and with it everything asked for before.
const REVOKED_MAX: usize = 100_000;

/// Another instance of auth may answer from a cache that is a second behind the log.
const SETTLING: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
pub(crate) struct Revoked {
    /// A token does not come back: these are refused without asking.
    tokens: HashSet<TokenHash>,
    /// A user does, with new tokens.
    users: HashMap<UserId, Since>,
    mark: Mark,
    /// What was asked for before this mark is not believed, whomever it concerns.
    floor: Mark,
}

#[derive(Clone, Copy, Debug)]
struct Since {
    mark: Mark,
    at: Timestamp,
}

/// A place in the order of revocations, as this process met them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mark(u64);

impl Revoked {
    pub(crate) fn apply(&mut self, revocation: &Revocation, now: Timestamp) {
        if self.tokens.len() + self.users.len() >= REVOKED_MAX {
            self.forget();
        }
        self.mark.0 += 1;
        match revocation.token_hash {
            Some(hash) => {
                self.tokens.insert(hash);
            }
            None => {
                self.users.insert(revocation.user_id, Since { mark: self.mark, at: now });
            }
        }
    }

    /// Believes nothing that was asked for until now.
    pub(crate) fn forget(&mut self) {
        self.mark.0 += 1;
        self.floor = self.mark;
        self.tokens.clear();
        self.users.clear();
    }

    pub(crate) fn mark(&self) -> Mark {
        self.mark
    }

    pub(crate) fn has(&self, hash: &TokenHash) -> bool {
        self.tokens.contains(hash)
    }

    /// Whether an identity that was asked for at `mark`, at the time `asked_at`, may be kept and believed.
    pub(crate) fn allows(&self, user: UserId, hash: &TokenHash, mark: Mark, asked_at: Timestamp) -> bool {
        let settled = |since: &Since| mark >= since.mark && asked_at >= since.at + SETTLING;
        mark >= self.floor && !self.has(hash) && self.users.get(&user).is_none_or(settled)
    }
}

#[cfg(test)]
mod tests {
    use notifyx_model::{Clock, ManualClock};

    use super::*;

    fn of_token(user_id: UserId, hash: TokenHash) -> Revocation {
        Revocation { seq: 1, user_id, token_hash: Some(hash) }
    }

    #[test]
    fn an_answer_from_before_a_logout_is_not_believed_after_it() {
        let (hand, mut revoked) = (ManualClock::new(), Revoked::default());
        let (user, hash) = (UserId::new(&hand.clock()), TokenHash([1; 32]));
        let (mark, asked_at) = (revoked.mark(), hand.clock().now());
        assert!(revoked.allows(user, &hash, mark, asked_at));
        revoked.apply(&of_token(user, hash), hand.clock().now());
        assert!(!revoked.allows(user, &hash, mark, asked_at));
        assert!(
            !revoked.allows(user, &hash, revoked.mark(), hand.clock().now() + SETTLING * 9),
            "a token stays revoked"
        );
        assert!(revoked.allows(user, &TokenHash([2; 32]), mark, asked_at), "the user's other sessions stay");
    }

    #[test]
    fn a_user_whose_sessions_all_ended_may_begin_new_ones() {
        let (hand, mut revoked) = (ManualClock::new(), Revoked::default());
        let (user, hash) = (UserId::new(&hand.clock()), TokenHash([1; 32]));
        let before = revoked.mark();
        revoked.apply(&Revocation { seq: 1, user_id: user, token_hash: None }, hand.clock().now());
        assert!(!revoked.allows(user, &hash, before, hand.clock().now() + SETTLING));
        assert!(!revoked.allows(user, &hash, revoked.mark(), hand.clock().now()), "auth itself may be behind");
        hand.advance(SETTLING);
        assert!(revoked.allows(user, &hash, revoked.mark(), hand.clock().now()));
    }

    #[test]
    fn the_memory_is_bounded_and_forgets_to_the_safe_side() {
        let (clock, mut revoked) = (Clock::system(), Revoked::default());
        let user = UserId::new(&clock);
        let (mark, now) = (revoked.mark(), clock.now());
        for n in 0..=REVOKED_MAX {
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&n.to_le_bytes());
            revoked.apply(&of_token(user, TokenHash(hash)), now);
        }
        assert_eq!(revoked.tokens.len(), 1);
        assert!(!revoked.allows(user, &TokenHash([0xff; 32]), mark, now));
        assert!(revoked.allows(user, &TokenHash([0xff; 32]), revoked.mark(), now));
    }
}

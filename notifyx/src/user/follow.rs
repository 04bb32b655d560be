//! Where one topic of `notifyx subscribe` stands: what was printed, and what the server's answer to a join means for it.

use std::ops::RangeInclusive;

use notifyx_wire::phoenix::channel::Joined;

/// How far back a second join asks when the first asked too far: the server replays 1,000; a hundred are left for what is
/// published between the two.
const NEWEST: u64 = 900;

#[derive(Debug, Default)]
pub(crate) struct Follow {
    /// The last offset that was printed or that is behind us for another reason.
    pub(crate) last: Option<u64>,
    /// Was joined at least once: what fails now may pass.
    pub(crate) known: bool,
    /// The join on the present connection; empty where none was sent.
    pub(crate) join_ref: String,
    pub(crate) joined: bool,
    /// The present join is the second, for the newest only.
    narrowed: bool,
}

/// What a join brought.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// All that was asked for follows.
    Whole,
    /// More was missed than is replayed: these are not, and a second join has to ask for the rest.
    Narrow(RangeInclusive<u64>),
    /// These are not replayed: their history is no longer kept, or the topic counts anew.
    Gap(RangeInclusive<u64>),
}

impl Follow {
    pub(crate) fn from(last: Option<u64>) -> Self {
        Self { last, ..Self::default() }
    }

    /// The connection is gone, and the join with it.
    pub(crate) fn disconnect(&mut self) {
        self.join_ref.clear();
        self.joined = false;
        self.narrowed = false;
    }

    /// The server accepted the join.
    pub(crate) fn join(&mut self, joined: &Joined) -> Outcome {
        let head = joined.offset;
        let missed = self.last.filter(|&last| !joined.recovered && last != head);
        if let Some(last) = missed.filter(|&last| !self.narrowed && head.saturating_sub(last) > NEWEST) {
            let from = head - NEWEST;
            *self = Self { last: Some(from), narrowed: true, known: self.known, ..Self::default() };
            return Outcome::Narrow(last + 1..=from);
        }
        if !joined.recovered {
            self.last = Some(head);
        }
        self.known = true;
        self.joined = true;
        match missed {
            None => Outcome::Whole,
            Some(last) if last < head => Outcome::Gap(last + 1..=head),
            Some(_) => Outcome::Gap(1..=head),
        }
    }

    /// Whether this offset was not printed before; from now on it was. What arrives before the answer to the join belongs to
    /// an earlier one and comes again.
    pub(crate) fn advance(&mut self, offset: u64) -> bool {
        let new = self.joined && self.last.is_none_or(|last| offset > last);
        if new {
            self.last = Some(offset);
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use notifyx_model::{Clock, TopicId};

    use super::*;

    fn joined(offset: u64, recovered: bool) -> Joined {
        let topic_id = TopicId::new(&Clock::system());
        Joined { from_join: true, can_broadcast: false, topic_id, offset, recovered }
    }

    #[test]
    fn a_first_join_begins_at_the_head() {
        let mut topic = Follow::default();
        assert_eq!(topic.join(&joined(7, false)), Outcome::Whole, "nothing was asked for, nothing is missing");
        assert_eq!([7, 8].map(|offset| topic.advance(offset)), [false, true]);
    }

    #[test]
    fn what_was_printed_is_not_printed_again_after_a_rejoin() {
        let mut topic = Follow::from(Some(3));
        assert_eq!(topic.join(&joined(5, true)), Outcome::Whole);
        assert_eq!([3, 4, 5, 5, 6].map(|offset| topic.advance(offset)), [false, true, true, false, true]);
    }

    #[test]
    fn too_much_missed_asks_again_for_the_newest() {
        let mut topic = Follow::from(Some(3));
        assert_eq!(topic.join(&joined(5_000, false)), Outcome::Narrow(4..=4_100));
        assert!(!topic.advance(5_001), "it comes again after the second join");
        assert_eq!(topic.join(&joined(5_001, true)), Outcome::Whole);
        assert_eq!([4_100, 4_101, 5_001].map(|offset| topic.advance(offset)), [false, true, true]);
    }

    #[test]
    fn a_second_join_that_is_refused_too_leaves_the_gap_behind() {
        let mut topic = Follow::from(Some(3));
        topic.join(&joined(5_000, false));
        assert_eq!(topic.join(&joined(7_000, false)), Outcome::Gap(4_101..=7_000));
        assert_eq!([7_000, 7_001].map(|offset| topic.advance(offset)), [false, true]);
    }

    #[test]
    fn a_topic_that_counts_anew_is_followed_from_its_new_head() {
        let mut topic = Follow::from(Some(900));
        assert_eq!(topic.join(&joined(2, false)), Outcome::Gap(1..=2));
        assert!(topic.advance(3));
    }
}

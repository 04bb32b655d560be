//! Who may go within each topic: in order of their times, those of one instant together.
//!
//! A topic is a lane. What waits in one behind somebody that fails can be put aside: only its offset stays in memory, and it is read again
//! when it is its turn.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use notifyx_model::{Timestamp, TopicName};

#[derive(Debug, Default)]
pub(super) struct Lanes {
    by_topic: HashMap<TopicName, Lane>,
    /// All that is aside, whatever its lane.
    aside: BTreeSet<u64>,
    /// Lanes in which nothing is held, by the first offset that is aside in them.
    called: BTreeMap<u64, TopicName>,
}

#[derive(Debug, Default)]
struct Lane {
    held: BTreeMap<u64, Timestamp>,
    /// The same, by time.
    instants: BTreeMap<Timestamp, BTreeSet<u64>>,
    aside: BTreeSet<u64>,
}

/// What becomes of one that enters its lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// It may go at once.
    Free,
    Behind,
    /// It is not held: others that are aside come before it.
    Aside,
}

impl Lanes {
    /// One that was not seen before.
    pub(super) fn enter(&mut self, topic: &TopicName, offset: u64, at: Timestamp) -> Place {
        let lane = match self.by_topic.get_mut(topic) {
            Some(lane) => lane,
            None => self.by_topic.entry(topic.clone()).or_default(),
        };
        if lane.aside.is_empty() {
            return lane.hold(offset, at);
        }
        lane.aside.insert(offset);
        self.aside.insert(offset);
        Place::Aside
    }

    /// One that was aside; `None`: it was not.
    pub(super) fn come_back(&mut self, topic: &TopicName, offset: u64, at: Timestamp) -> Option<Place> {
        let lane = self.by_topic.get_mut(topic)?;
        if !lane.aside.remove(&offset) {
            return None;
        }
        self.aside.remove(&offset);
        self.called.remove(&offset);
        Some(lane.hold(offset, at))
    }

    /// It is done. Who may go now that could not before; some of them may have gone already.
    pub(super) fn leave(&mut self, topic: &TopicName, offset: u64) -> Vec<u64> {
        let Some(lane) = self.by_topic.get_mut(topic) else { return Vec::new() };
        let before = lane.turn();
        lane.release(offset);
        match (lane.turn(), lane.aside.first()) {
            (turn, _) if turn == before => return Vec::new(),
            (Some(turn), _) => return lane.instants[&turn].iter().copied().collect(),
            (None, Some(first)) => drop(self.called.insert(*first, topic.clone())),
            (None, None) => drop(self.by_topic.remove(topic)),
        }
        Vec::new()
    }

    /// Puts aside what `waits` behind somebody that `fails`. Their offsets.
    pub(super) fn put_aside(&mut self, fails: impl Fn(u64) -> bool, waits: impl Fn(u64) -> bool) -> Vec<u64> {
        let mut moved = Vec::new();
        for lane in self.by_topic.values_mut() {
            let Some(turn) = lane.turn() else { continue };
            if !lane.instants[&turn].iter().any(|offset| fails(*offset)) {
                continue;
            }
            let behind = lane.held.iter().filter(|(offset, at)| **at != turn && waits(**offset));
            let behind: Vec<u64> = behind.map(|(offset, _)| *offset).collect();
            for offset in &behind {
                lane.release(*offset);
            }
            lane.aside.extend(&behind);
            moved.extend(behind);
        }
        self.aside.extend(&moved);
        moved
    }

    /// The log begins here: what was aside before is gone.
    pub(super) fn forget_below(&mut self, oldest: u64) {
        if self.first_aside().is_none_or(|first| first >= oldest) {
            return;
        }
        self.aside = self.aside.split_off(&oldest);
        self.called.clear();
        self.by_topic.retain(|topic, lane| {
            lane.aside = lane.aside.split_off(&oldest);
            match (lane.held.is_empty(), lane.aside.first()) {
                (true, Some(first)) => drop(self.called.insert(*first, topic.clone())),
                (true, None) => return false,
                (false, _) => {}
            }
            true
        });
    }

    /// Lanes that wait to be read again, if any.
    pub(super) fn called(&self) -> HashSet<TopicName> {
        self.called.values().cloned().collect()
    }

    /// Where reading them begins.
    pub(super) fn first_called(&self) -> Option<u64> {
        self.called.keys().next().copied()
    }

    pub(super) fn first_aside(&self) -> Option<u64> {
        self.aside.first().copied()
    }

    pub(super) fn aside(&self) -> usize {
        self.aside.len()
    }
}

impl Lane {
    /// The time of those that may go: that of the first in the log.
    fn turn(&self) -> Option<Timestamp> {
        self.held.values().next().copied()
    }

    fn hold(&mut self, offset: u64, at: Timestamp) -> Place {
        self.held.insert(offset, at);
        self.instants.entry(at).or_default().insert(offset);
        if self.turn() == Some(at) { Place::Free } else { Place::Behind }
    }

    fn release(&mut self, offset: u64) {
        let Some(at) = self.held.remove(&offset) else { return };
        if let Some(together) = self.instants.get_mut(&at) {
            together.remove(&offset);
            if together.is_empty() {
                self.instants.remove(&at);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lanes(entering: &[(&str, i64)]) -> Lanes {
        let mut lanes = Lanes::default();
        for (offset, (topic, at)) in (1..).zip(entering) {
            lanes.enter(&name(topic), offset, time(*at));
        }
        lanes
    }

    fn name(topic: &str) -> TopicName {
        TopicName::parse(topic).unwrap()
    }

    fn time(at: i64) -> Timestamp {
        Timestamp::from_micros(at)
    }

    #[test]
    fn those_of_one_instant_are_free_together_and_the_next_when_all_before_them_are_done() {
        let (a, mut lanes) = (name("a"), Lanes::default());
        let places = [1, 1, 2, 1, 3].map(time).into_iter().zip(1..).map(|(at, offset)| lanes.enter(&a, offset, at));
        assert_eq!(places.collect::<Vec<_>>(), [Place::Free, Place::Free, Place::Behind, Place::Free, Place::Behind]);
        assert_eq!(lanes.enter(&name("b"), 6, time(9)), Place::Free, "each topic for itself");
        assert!(lanes.leave(&a, 1).is_empty() && lanes.leave(&a, 4).is_empty());
        assert_eq!(lanes.leave(&a, 2), [3]);
        assert_eq!(lanes.leave(&a, 3), [5]);
        assert!(lanes.leave(&a, 5).is_empty() && lanes.leave(&a, 5).is_empty());
    }

    #[test]
    fn the_first_in_the_log_goes_first_whatever_its_time() {
        let mut lanes = lanes(&[("a", 5), ("a", 4), ("a", 5)]);
        assert_eq!(lanes.leave(&name("a"), 1), [2], "the third was free already");
        assert_eq!(lanes.leave(&name("a"), 2), [3]);
    }

    #[test]
    fn what_waits_behind_a_failure_can_be_put_aside_and_comes_back_in_its_turn() {
        let (a, b) = (name("a"), name("b"));
        let mut lanes = lanes(&[("a", 1), ("a", 2), ("b", 1), ("b", 2), ("a", 3), ("a", 1)]);
        assert!(lanes.put_aside(|_| false, |_| true).is_empty(), "nobody fails");
        assert_eq!(lanes.put_aside(|offset| offset == 1, |offset| offset != 1), [2, 5]);
        assert_eq!((lanes.enter(&a, 7, time(3)), lanes.enter(&b, 8, time(2))), (Place::Aside, Place::Behind));
        assert_eq!((lanes.first_aside(), lanes.aside(), lanes.first_called()), (Some(2), 3, None));
        assert_eq!(lanes.come_back(&b, 4, time(2)), None, "it was not aside");

        lanes.leave(&a, 1);
        assert_eq!(lanes.first_called(), None, "one of its instant is there");
        lanes.leave(&a, 6);
        assert_eq!((lanes.first_called(), lanes.called()), (Some(2), HashSet::from([a.clone()])));
        assert_eq!(lanes.come_back(&a, 2, time(2)), Some(Place::Free));
        assert_eq!(lanes.come_back(&a, 5, time(3)), Some(Place::Behind));
        assert_eq!((lanes.first_called(), lanes.first_aside()), (None, Some(7)));
        assert_eq!(lanes.enter(&a, 9, time(4)), Place::Aside, "not before the one that is aside");
        assert_eq!(lanes.leave(&a, 2), [5]);
        lanes.leave(&a, 5);
        assert_eq!(lanes.first_called(), Some(7));
    }

    #[test]
    fn what_is_gone_from_the_log_is_not_waited_for() {
        let mut lanes = lanes(&[("a", 1), ("a", 2), ("a", 3), ("b", 1), ("b", 2)]);
        lanes.put_aside(|offset| offset == 1 || offset == 4, |_| true);
        lanes.leave(&name("a"), 1);
        lanes.leave(&name("b"), 4);
        assert_eq!((lanes.first_called(), lanes.aside()), (Some(2), 3));
        lanes.forget_below(3);
        assert_eq!((lanes.first_called(), lanes.aside()), (Some(3), 2));
        lanes.forget_below(9);
        assert_eq!((lanes.first_called(), lanes.first_aside(), lanes.aside()), (None, None, 0));
        assert_eq!(lanes.enter(&name("a"), 9, time(1)), Place::Free);
    }
}

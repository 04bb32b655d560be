//! What has fired and is not done, as far as it is held in memory: who is next, and up to where all is done.
//!
//! Notifications of one topic go in order of their times (`lanes`): one that has to be tried again holds up those of its topic that are due later,
//! and nobody else. Who has failed least goes first, so that one that always fails takes no other's place. The position is the last
//! offset below which nothing is left.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use notifyx_model::{EventId, Timestamp};
use notifyx_wire::{grpc::events as wire, rest::gateway::ScheduledState};
use tokio::time::Instant;

use super::{
    lanes::{Lanes, Place},
    order::{self, Order},
    pace::{Pace, pause},
};

/// Held at once: what is done above one that cannot be done yet is tried again after a crash, so not too many.
const ITEMS_MAX: usize = 1_024;

/// Of data held at once: 64 of the largest.
const BYTES_MAX: usize = 16 << 20;

/// Known only by their offsets, behind those that fail: some 5 MB.
const ASIDE_MAX: usize = 100_000;

#[derive(Debug)]
pub(super) struct Queue {
    /// Up to here it was read.
    read: u64,
    /// What was in the log when the consumer was taken over: others may have done some of it.
    inherited: u64,
    items: BTreeMap<u64, Item>,
    bytes: usize,
    lanes: Lanes,
    /// Those that may be tried now, after how many failures.
    ready: BTreeSet<(u32, u64)>,
    /// Those that failed, until when they rest.
    resting: BTreeSet<(Instant, u64)>,
    running: usize,
    pace: Pace,
    /// The last that failed, if nothing succeeded after it.
    failed_last: Option<u64>,
}

#[derive(Debug)]
struct Item {
    task: Task,
    bytes: usize,
    came_at: Timestamp,
    running: bool,
    failures: u32,
}

/// One to publish.
#[derive(Clone, Debug)]
pub(super) struct Task {
    pub(super) offset: u64,
    /// What no gateway wrote has none.
    pub(super) id: Option<EventId>,
    /// Nor this.
    pub(super) order: Option<Arc<Order>>,
    /// Its outcome may be known.
    pub(super) inherited: bool,
    /// Its outcome is known here, and has to be appended.
    pub(super) outcome: Option<ScheduledState>,
}

impl Queue {
    /// Of a consumer that stands at `position` of a log that ends at `head`.
    pub(super) fn new(position: u64, head: u64) -> Self {
        Self {
            read: position,
            inherited: head,
            items: BTreeMap::new(),
            bytes: 0,
            lanes: Lanes::default(),
            ready: BTreeSet::new(),
            resting: BTreeSet::new(),
            running: 0,
            pace: Pace::default(),
            failed_last: None,
        }
    }

    /// Behind which offset to read, and how many; `None`: there is no room. What was put aside and has its turn comes first.
    pub(super) fn wants(&self) -> Option<(u64, usize)> {
        let room = self.room()?;
        match self.lanes.first_called() {
            Some(first) => Some((first - 1, room)),
            None => (self.lanes.aside() < ASIDE_MAX).then_some((self.read, room)),
        }
    }

    fn room(&self) -> Option<usize> {
        let room = ITEMS_MAX.saturating_sub(self.items.len());
        (room > 0 && self.bytes < BYTES_MAX).then_some(room)
    }

    /// What was read, in order of offsets, from a log whose first is `oldest`.
    pub(super) fn add(&mut self, events: Vec<wire::Event>, oldest: u64) {
        let called = self.lanes.called();
        for event in events {
            let Some(offset) = event.offset else { continue };
            let fire_at = Timestamp::from_micros(event.fire_at_us);
            let order = Order::read(&event.data).ok().map(Arc::new);
            let place = match &order {
                _ if offset <= self.read => match &order {
                    Some(order) if called.contains(&order.topic) => self.lanes.come_back(&order.topic, offset, fire_at),
                    _ => None,
                },
                Some(order) => Some(self.lanes.enter(&order.topic, offset, fire_at)),
                None => Some(Place::Free),
            };
            self.read = self.read.max(offset);
            match place {
                None | Some(Place::Aside) => continue,
                Some(Place::Free) => drop(self.ready.insert((0, offset))),
                Some(Place::Behind) => {}
            }
            self.bytes += event.data.len();
            let id = order::id_of(&event).ok();
            let task = Task { offset, id, order, inherited: offset <= self.inherited, outcome: None };
            let came_at = Timestamp::from_micros(event.fired_at_us.unwrap_or(event.fire_at_us));
            self.items.insert(offset, Item { task, bytes: event.data.len(), came_at, running: false, failures: 0 });
        }
        self.lanes.forget_below(oldest);
        self.make_room();
    }

    /// Where all that is held stands behind those that fail, others could not be read.
    fn make_room(&mut self) {
        if self.room().is_some() || self.lanes.aside() >= ASIDE_MAX {
            return;
        }
        let items = &self.items;
        let fails = |offset: u64| items[&offset].failures > 0;
        let waits = |offset: u64| items[&offset].failures == 0 && !items[&offset].running;
        for offset in self.lanes.put_aside(fails, waits) {
            self.ready.remove(&(0, offset));
            self.bytes -= self.items.remove(&offset).map_or(0, |item| item.bytes);
        }
    }

    /// The next to try now, which from now on runs.
    pub(super) fn next(&mut self, now: Instant) -> Option<Task> {
        if !self.pace.allows(self.running, now) {
            return None;
        }
        while let Some((until, offset)) = self.resting.first().copied()
            && until <= now
        {
            self.resting.pop_first();
            self.ready.insert((self.items[&offset].failures, offset));
        }
        let (_, offset) = self.ready.pop_first()?;
        let item = self.items.get_mut(&offset).expect("what is ready is held");
        item.running = true;
        self.running += 1;
        Some(item.task.clone())
    }

    /// When there may be a next one without anything else happening.
    pub(super) fn wakes(&self, now: Instant) -> Option<Instant> {
        let first = if self.ready.is_empty() { self.resting.first()?.0 } else { now };
        // While all places are taken, the end of one of them is what is waited for.
        match self.pace.pauses(now) {
            Some(pause) => Some(first.max(pause)),
            None => (first > now).then_some(first),
        }
    }

    /// It leaves the queue.
    pub(super) fn done(&mut self, offset: u64) {
        self.pace.succeeded();
        self.failed_last = None;
        self.running -= 1;
        let Some(item) = self.items.remove(&offset) else { return };
        self.bytes -= item.bytes;
        let Some(order) = &item.task.order else { return };
        for freed in self.lanes.leave(&order.topic, offset) {
            let item = &self.items[&freed];
            if item.failures == 0 && !item.running {
                self.ready.insert((0, freed));
            }
        }
    }

    /// It stays, with what is known of its outcome, and is tried again.
    pub(super) fn failed(&mut self, offset: u64, outcome: Option<ScheduledState>, now: Instant, jitter: f64) {
        // One that fails by itself rests by itself: others are as punctual as ever.
        if self.failed_last.replace(offset) != Some(offset) {
            self.pace.failed(now, jitter);
        }
        self.running -= 1;
        if let Some(item) = self.items.get_mut(&offset) {
            self.resting.insert((now + pause(item.failures, jitter), offset));
            item.running = false;
            item.failures = item.failures.saturating_add(1);
            item.task.outcome = outcome;
        }
        self.make_room();
    }

    /// Up to here all is done.
    pub(super) fn position(&self) -> u64 {
        let (held, aside) = (self.items.keys().next().copied(), self.lanes.first_aside());
        held.into_iter().chain(aside).min().map_or(self.read, |first| first - 1)
    }

    /// Not done, as far as it is known: in memory, and beyond that up to `head`.
    pub(super) fn waiting(&self, head: u64) -> u64 {
        (self.items.len() + self.lanes.aside()) as u64 + head.saturating_sub(self.read)
    }

    /// When the oldest that is not done came into the queue.
    pub(super) fn oldest(&self) -> Option<Timestamp> {
        self.items.values().next().map(|item| item.came_at)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use notifyx_model::{Clock, Email, Message, Priority, TopicName, UserId};

    use super::*;

    fn event(offset: u64, topic: &str, at_s: i64, message: &str) -> wire::Event {
        let order = Order {
            user_id: UserId::new(&Clock::system()),
            email: Email::parse("ann@example.org").unwrap(),
            topic: TopicName::parse(topic).unwrap(),
            message: Message::parse(message).unwrap(),
            to: Vec::new(),
            priority: Priority::default(),
            key: None,
            fire_at: Timestamp::from_micros(0),
        };
        let new = order.event(&Clock::system()).unwrap();
        let fire_at_us = at_s * 1_000_000;
        wire::Event { id: new.id, data: new.data, fire_at_us, offset: Some(offset), ..wire::Event::default() }
    }

    fn queue(events: &[(&str, i64)]) -> Queue {
        let mut queue = Queue::new(0, 0);
        queue.add((1..).zip(events).map(|(offset, (topic, at))| event(offset, topic, *at, "m")).collect(), 1);
        queue
    }

    fn nexts(queue: &mut Queue, now: Instant) -> Vec<u64> {
        std::iter::from_fn(|| queue.next(now).map(|task| task.offset)).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn a_topic_goes_in_order_of_time_and_what_is_due_together_goes_together() {
        let now = Instant::now();
        let mut queue = queue(&[("a", 1), ("a", 1), ("b", 5), ("a", 2), ("a", 1), ("b", 4)]);
        assert_eq!(nexts(&mut queue, now), [1, 2, 3, 5]);
        queue.done(1);
        queue.done(5);
        queue.done(3);
        assert_eq!((nexts(&mut queue, now), queue.position()), (vec![6], 1));
        queue.done(2);
        assert_eq!((nexts(&mut queue, now), queue.position()), (vec![4], 3));
        queue.done(6);
        assert_eq!(queue.position(), 3);
        queue.done(4);
        assert_eq!((queue.position(), queue.waiting(8)), (6, 2));
    }

    #[tokio::test(start_paused = true)]
    async fn what_failed_rests_and_holds_up_its_topic_alone() {
        let mut now = Instant::now();
        let mut queue = queue(&[("a", 1), ("a", 2), ("b", 1)]);
        assert_eq!(nexts(&mut queue, now), [1, 3]);
        queue.failed(1, None, now, 0.0);
        queue.done(3);
        assert_eq!((nexts(&mut queue, now), queue.position()), (vec![], 0));
        let wakes = queue.wakes(now).unwrap();
        assert!(wakes > now && wakes <= now + Duration::from_secs(1));
        now = wakes;
        assert_eq!(nexts(&mut queue, now), [1]);
        assert_eq!(queue.wakes(now), None, "the end of what runs is waited for");
        queue.done(1);
        assert_eq!(nexts(&mut queue, now), [2]);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_always_fails_takes_no_others_place() {
        let mut now = Instant::now();
        let mut queue = queue(&[("a", 1)]);
        for _ in 0..9 {
            assert_eq!(nexts(&mut queue, now), [1]);
            queue.failed(1, None, now, 0.0);
            now = queue.wakes(now).unwrap();
        }
        queue.add(vec![event(2, "b", 1, "m"), event(3, "c", 1, "m")], 1);
        assert_eq!(nexts(&mut queue, now)[..2], [2, 3], "at once, and before the one that failed");
    }

    #[tokio::test(start_paused = true)]
    async fn while_a_service_is_away_one_is_tried_at_a_time_and_each_in_turn() {
        let mut now = Instant::now();
        let mut queue = queue(&[("a", 1), ("b", 1), ("c", 1)]);
        let mut tried = nexts(&mut queue, now);
        for _ in 0..7 {
            for offset in std::mem::take(&mut tried) {
                queue.failed(offset, None, now, 0.0);
            }
            assert!(nexts(&mut queue, now).is_empty(), "a pause");
            now = queue.wakes(now).unwrap();
            tried = nexts(&mut queue, now);
        }
        assert_eq!(tried.len(), 1);
        let mut order = Vec::new();
        for _ in 0..6 {
            let offset = tried[0];
            queue.failed(offset, None, now, 0.0);
            order.push(offset);
            now = queue.wakes(now).unwrap();
            tried = nexts(&mut queue, now);
            assert_eq!(tried.len(), 1);
        }
        let (first, again) = order.split_at(3);
        assert_eq!(first, again);
        assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), 3, "{order:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_topic_that_is_stuck_leaves_room_for_others_and_loses_nothing() {
        let mut now = Instant::now();
        let mut queue = queue(&(1..=1_024).map(|at| ("stuck", at)).collect::<Vec<_>>());
        assert_eq!((queue.wants(), nexts(&mut queue, now)), (None, vec![1]));
        queue.failed(1, None, now, 0.0);
        assert_eq!((queue.wants(), queue.position(), queue.waiting(1_026)), (Some((1_024, 1_023)), 0, 1_026));
        queue.add(vec![event(1_025, "stuck", 2_000, "m"), event(1_026, "well", 1, "m")], 1);
        assert_eq!(queue.wants(), Some((1_026, 1_022)));
        now = queue.wakes(now).unwrap();
        assert_eq!(nexts(&mut queue, now), [1_026, 1], "who did not fail goes first");
        queue.done(1_026);
        assert_eq!((queue.position(), queue.waiting(1_026)), (0, 1_025));

        // When the first is done the others come back, in their order.
        queue.done(1);
        assert_eq!((queue.wants(), queue.position()), (Some((1, 1_024)), 1));
        queue.add((2..=1_025).map(|offset| event(offset, "stuck", i64::try_from(offset).unwrap(), "m")).collect(), 1);
        for offset in 2..=1_025 {
            assert_eq!(nexts(&mut queue, now), [offset]);
            queue.done(offset);
        }
        assert_eq!((queue.position(), queue.waiting(1_026), queue.wants()), (1_026, 0, Some((1_026, ITEMS_MAX))));
    }

    #[test]
    fn it_is_bounded_in_events_and_in_bytes() {
        let mut queue = Queue::new(7, 7);
        assert_eq!(queue.wants(), Some((7, ITEMS_MAX)));
        queue.add((8..8 + 1_023).map(|offset| event(offset, "a", 1, "m")).collect(), 1);
        assert_eq!(queue.wants(), Some((1_030, 1)));
        queue.add(vec![event(1_031, "a", 1, "m")], 1);
        assert_eq!(queue.wants(), None);

        let large = "m".repeat(Message::MAX_BYTES);
        let mut queue = Queue::new(0, 0);
        queue.add((1..=256).map(|offset| event(offset, "a", 1, &large)).collect(), 1);
        assert_eq!(queue.wants(), None);
    }

    #[test]
    fn what_was_there_before_may_have_been_done_by_others() {
        let mut queue = Queue::new(2, 3);
        queue.add(vec![event(2, "a", 1, "m"), event(3, "a", 1, "m"), event(4, "a", 1, "m")], 1);
        let now = Instant::now();
        let tasks: Vec<_> = std::iter::from_fn(|| queue.next(now)).map(|task| (task.offset, task.inherited)).collect();
        assert_eq!(tasks, [(3, true), (4, false)]);
    }
}

//! What has fired and is not done, as far as it is held in memory: who is next, and up to where all is done.
//!
//! Notifications of one topic go in order of their times: one that has to be tried again holds up those of its topic that are due later,
//! and nobody else. Those of one instant go together. The position is the last offset below which nothing is left.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use notifyx_model::{EventId, Timestamp, TopicName};
use notifyx_wire::{grpc::events as wire, rest::gateway::ScheduledState};
use tokio::time::Instant;

use super::{
    order::{self, Order},
    pace::{Pace, pause},
};

/// Held at once: what is done above one that cannot be done yet is tried again after a crash, so not too many.
const ITEMS_MAX: usize = 1_024;

/// Of data held at once: 64 of the largest.
const BYTES_MAX: usize = 16 << 20;

#[derive(Debug)]
pub(super) struct Queue {
    /// Up to here it was read.
    read: u64,
    /// What was in the log when the consumer was taken over: others may have done some of it.
    inherited: u64,
    items: BTreeMap<u64, Item>,
    bytes: usize,
    running: usize,
    pace: Pace,
}

#[derive(Debug)]
struct Item {
    task: Task,
    bytes: usize,
    fire_at: Timestamp,
    fired_at: Timestamp,
    state: State,
    failures: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Ready,
    Running,
    /// After a failure.
    Resting(Instant),
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
        Self { read: position, inherited: head, items: BTreeMap::new(), bytes: 0, running: 0, pace: Pace::default() }
    }

    /// Behind which offset to read, and how many; `None`: there is no room.
    pub(super) fn wants(&self) -> Option<(u64, usize)> {
        let room = ITEMS_MAX - self.items.len().min(ITEMS_MAX);
        (room > 0 && self.bytes < BYTES_MAX).then_some((self.read, room))
    }

    /// What was read, in order of offsets.
    pub(super) fn add(&mut self, events: Vec<wire::Event>) {
        for event in events {
            let Some(offset) = event.offset.filter(|offset| *offset > self.read) else { continue };
            self.read = offset;
            self.bytes += event.data.len();
            let task = Task {
                offset,
                id: order::id_of(&event).ok(),
                order: Order::read(&event.data).ok().map(Arc::new),
                inherited: offset <= self.inherited,
                outcome: None,
            };
            let item = Item {
                task,
                bytes: event.data.len(),
                fire_at: Timestamp::from_micros(event.fire_at_us),
                fired_at: Timestamp::from_micros(event.fired_at_us.unwrap_or(event.fire_at_us)),
                state: State::Ready,
                failures: 0,
            };
            self.items.insert(offset, item);
        }
    }

    /// The next to try now, which from now on runs.
    pub(super) fn next(&mut self, now: Instant) -> Option<Task> {
        if !self.pace.allows(self.running, now) {
            return None;
        }
        let is_due = |item: &Item| match item.state {
            State::Ready => true,
            State::Running => false,
            State::Resting(until) => until <= now,
        };
        let offset = *self.unblocked().find(|(_, item)| is_due(item))?.0;
        let item = self.items.get_mut(&offset).expect("just found");
        item.state = State::Running;
        self.running += 1;
        Some(item.task.clone())
    }

    /// Those that nothing earlier of their topic holds up.
    fn unblocked(&self) -> impl Iterator<Item = (&u64, &Item)> {
        let mut first: HashMap<&TopicName, Timestamp> = HashMap::new();
        self.items.iter().filter(move |(_, item)| {
            let Some(order) = &item.task.order else { return true };
            *first.entry(&order.topic).or_insert(item.fire_at) == item.fire_at
        })
    }

    /// When there may be a next one without anything else happening.
    pub(super) fn wakes(&self, now: Instant) -> Option<Instant> {
        let due = self.unblocked().filter_map(|(_, item)| match item.state {
            State::Ready => Some(now),
            State::Running => None,
            State::Resting(until) => Some(until),
        });
        let first = due.min()?;
        // While all places are taken, the end of one of them is what is waited for.
        match self.pace.pauses(now) {
            Some(pause) => Some(first.max(pause)),
            None => (first > now).then_some(first),
        }
    }

    /// It leaves the queue.
    pub(super) fn done(&mut self, offset: u64) {
        self.pace.succeeded();
        self.running -= 1;
        if let Some(item) = self.items.remove(&offset) {
            self.bytes -= item.bytes;
        }
    }

    /// It stays, with what is known of its outcome, and is tried again.
    pub(super) fn failed(&mut self, offset: u64, outcome: Option<ScheduledState>, now: Instant, jitter: f64) {
        self.pace.failed(now, jitter);
        self.running -= 1;
        if let Some(item) = self.items.get_mut(&offset) {
            item.state = State::Resting(now + pause(item.failures, jitter));
            item.failures = item.failures.saturating_add(1);
            item.task.outcome = outcome;
        }
    }

    /// Up to here all is done.
    pub(super) fn position(&self) -> u64 {
        self.items.first_key_value().map_or(self.read, |(first, _)| first - 1)
    }

    /// Not done, as far as it is known: in memory, and beyond that up to `head`.
    pub(super) fn waiting(&self, head: u64) -> u64 {
        self.items.len() as u64 + head.saturating_sub(self.read)
    }

    /// When the oldest that is not done came into the queue.
    pub(super) fn oldest(&self) -> Option<Timestamp> {
        self.items.values().next().map(|item| item.fired_at)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use notifyx_model::{Clock, Email, Message, Priority, UserId};

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
        queue.add((1..).zip(events).map(|(offset, (topic, at))| event(offset, topic, *at, "m")).collect());
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

    #[test]
    fn it_is_bounded_in_events_and_in_bytes() {
        let mut queue = Queue::new(7, 7);
        assert_eq!(queue.wants(), Some((7, ITEMS_MAX)));
        queue.add((8..8 + 1_023).map(|offset| event(offset, "a", 1, "m")).collect());
        assert_eq!(queue.wants(), Some((1_030, 1)));
        queue.add(vec![event(1_031, "a", 1, "m")]);
        assert_eq!(queue.wants(), None);

        let large = "m".repeat(Message::MAX_BYTES);
        let mut queue = Queue::new(0, 0);
        queue.add((1..=256).map(|offset| event(offset, "a", 1, &large)).collect());
        assert_eq!(queue.wants(), None);
    }

    #[test]
    fn what_was_there_before_may_have_been_done_by_others() {
        let mut queue = Queue::new(2, 3);
        queue.add(vec![event(2, "a", 1, "m"), event(3, "a", 1, "m"), event(4, "a", 1, "m")]);
        let now = Instant::now();
        let tasks: Vec<_> = std::iter::from_fn(|| queue.next(now)).map(|task| (task.offset, task.inherited)).collect();
        assert_eq!(tasks, [(3, true), (4, false)]);
    }
}

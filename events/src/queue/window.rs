//! The nearest events of one category, bounded: the temporal queue.
//!
//! One invariant carries it: what waits before the *edge* is in the window; what waits from the edge on may be in the store alone.
//! So an event beyond the edge is not taken in, however much room there is: what lies between would be skipped.

use std::{cmp::Reverse, collections::BTreeMap};

use notifyx_model::{Priority, Timestamp};

use super::Key;
use crate::store::Slot;

/// An entry is 17 bytes; with a B-tree's own room it comes to about 30, a full window of 1,000 to 30 KB.
type Entries = BTreeMap<Key, Priority>;

#[derive(Debug)]
pub struct Window {
    entries: Entries,
    capacity: usize,
    /// `None`: nothing is behind the window.
    edge: Option<Key>,
    /// Something that had come had to leave at the edge.
    is_full: bool,
    /// A page is being read.
    reading: Option<Reading>,
    evicted: u64,
}

/// What came while a page is being read: the page may have been too early to hold it.
#[derive(Debug, Default)]
struct Reading {
    noted: Entries,
    /// The first of what was too much to note.
    noted_end: Option<Key>,
    /// The edge has moved since: the page no longer begins where the window ends.
    stale: bool,
}

/// What became of an event that was inserted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    Inside,
    /// It is in; the farthest had to leave, and is in the store.
    Evicted(Slot),
    /// It is in the store alone.
    Beyond,
}

/// What is to be read to fill the window again: so many from behind a cursor on, `None` being the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    pub after: Option<Slot>,
    pub limit: usize,
}

impl Window {
    /// Of a category in which nothing waits.
    pub fn new(capacity: usize) -> Self {
        Self {
            entries: Entries::new(),
            capacity: capacity.max(1),
            edge: None,
            is_full: false,
            reading: None,
            evicted: 0,
        }
    }

    /// From here on the store is to be asked: a category that waited before anybody looked. `None`: from the beginning.
    pub fn open(&mut self, from: Option<Slot>) {
        self.evict_from(from.map_or(Key::FIRST, Key::from), false);
    }

    /// All that waits before `end` is being told, for it was read in order of time over all categories: the edge is not before it. A
    /// window at whose edge something had to leave knows better, and so does one for which a page is being read.
    pub(super) fn raise(&mut self, end: Key) {
        if self.edge.is_some_and(|edge| edge < end) && !self.is_full && self.reading.is_none() {
            self.edge = Some(end);
        }
    }

    /// An event of the store, now committed. One that is here already stays.
    pub fn insert(&mut self, slot: Slot, priority: Priority) -> Placed {
        self.put(slot.into(), priority, self.capacity)
    }

    /// As [`Window::insert`], with less room than the window's own.
    pub(super) fn put(&mut self, key: Key, priority: Priority, capacity: usize) -> Placed {
        if self.edge.is_some_and(|edge| key >= edge) {
            self.note(key, priority);
            return Placed::Beyond;
        }
        if self.entries.insert(key, priority).is_some() || self.entries.len() <= capacity {
            return Placed::Inside;
        }
        let (farthest, _) = self.entries.last_key_value().expect("one was just inserted");
        let farthest = *farthest;
        self.evict_from(farthest, true);
        if farthest == key {
            return Placed::Beyond;
        }
        self.evicted += 1;
        Placed::Evicted(farthest.slot())
    }

    /// An event that left the schedule: cancelled, or moved to another slot. Whether it was here.
    pub fn remove(&mut self, slot: Slot) -> bool {
        let key = slot.into();
        if let Some(reading) = &mut self.reading {
            reading.noted.remove(&key);
        }
        self.entries.remove(&key).is_some()
    }

    /// An event that has another time, and with it another slot.
    pub fn reschedule(&mut self, from: Slot, to: Slot, priority: Priority) -> Placed {
        self.remove(from);
        self.insert(to, priority)
    }

    /// Takes what is due: by priority, then by time, then by arrival.
    pub fn due(&mut self, now: Timestamp, limit: usize) -> Vec<(Slot, Priority)> {
        let mut due: Vec<_> = self.due_until(Key::end_of(now)).collect();
        due.sort_unstable_by_key(|&(key, priority)| (Reverse(priority), key));
        due.truncate(limit);
        for (key, _) in &due {
            self.entries.remove(key);
        }
        due.into_iter().map(|(key, priority)| (key.slot(), priority)).collect()
    }

    pub(super) fn due_until(&self, end: Key) -> impl Iterator<Item = (Key, Priority)> {
        self.entries.range(..=end).map(|(key, priority)| (*key, *priority))
    }

    pub(super) fn take(&mut self, key: Key) {
        self.entries.remove(&key);
    }

    /// The page that is lacking, if one is: when only a quarter is left, so that the page arrives before the window is empty.
    /// Until it is [`refilled`](Window::refilled) or [given up](Window::refill_failed), no other is asked for.
    pub fn refill(&mut self) -> Option<Page> {
        self.wants_refill(self.capacity).then(|| self.begin_refill(self.capacity))
    }

    pub(super) fn wants_refill(&self, capacity: usize) -> bool {
        self.edge.is_some() && self.reading.is_none() && self.entries.len() <= capacity / 4
    }

    pub(super) fn begin_refill(&mut self, capacity: usize) -> Page {
        self.reading = Some(Reading::default());
        let after = self.edge.and_then(Key::cursor);
        Page { after, limit: capacity.saturating_sub(self.entries.len()).max(1) }
    }

    /// What was read. A page shorter than its limit was the last.
    pub fn refilled(&mut self, page: Page, read: &[(Slot, Priority)]) {
        self.fill(page, read.iter().map(|&(slot, priority)| (slot.into(), priority)), self.capacity);
    }

    pub(super) fn fill(&mut self, page: Page, read: impl ExactSizeIterator<Item = (Key, Priority)>, capacity: usize) {
        let Some(reading) = self.reading.take() else { return };
        if reading.stale {
            return;
        }
        let whole = read.len() < page.limit;
        let read: Vec<_> = read.collect();
        let end = if whole { None } else { read.last().map(|(key, _)| key.after()) };
        self.edge = match (end, reading.noted_end) {
            (Some(end), Some(noted)) => Some(end.min(noted)),
            (end, noted) => end.or(noted),
        };
        self.is_full = false;
        for (key, priority) in read.into_iter().chain(reading.noted) {
            self.put(key, priority, capacity);
        }
    }

    /// The page could not be read; it is asked for again.
    pub fn refill_failed(&mut self) {
        self.reading = None;
    }

    /// The earliest deadline. What is behind an empty window is not known.
    pub fn earliest(&self) -> Option<Slot> {
        self.first().map(Key::slot)
    }

    pub(super) fn first(&self) -> Option<Key> {
        self.entries.first_key_value().map(|(key, _)| *key)
    }

    pub fn latest(&self) -> Option<Slot> {
        self.entries.last_key_value().map(|(key, _)| key.slot())
    }

    pub fn len(&self) -> usize {
        self.entries.len()
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Whether the store may have more than the window.
    pub fn has_backlog(&self) -> bool {
        self.edge.is_some()
    }

    /// How many had to leave for a nearer one.
    pub fn evicted(&self) -> u64 {
        self.evicted
    }

    pub(super) fn edge(&self) -> Option<Key> {
        self.edge
    }

    /// Nothing waits, and nothing is on its way: the window can be forgotten.
    pub(super) fn is_idle(&self) -> bool {
        self.entries.is_empty() && self.edge.is_none() && self.reading.is_none()
    }

    fn evict_from(&mut self, key: Key, is_full: bool) {
        self.entries.split_off(&key);
        if self.edge.is_none_or(|edge| key < edge) {
            (self.edge, self.is_full) = (Some(key), is_full);
        }
        if let Some(reading) = &mut self.reading {
            *reading = Reading { stale: true, ..Reading::default() };
        }
    }

    fn note(&mut self, key: Key, priority: Priority) {
        let capacity = self.capacity;
        let Some(reading) = self.reading.as_mut().filter(|reading| !reading.stale) else { return };
        if reading.noted_end.is_some_and(|end| key >= end) {
            return;
        }
        reading.noted.insert(key, priority);
        if reading.noted.len() > capacity {
            reading.noted_end = reading.noted.pop_last().map(|(key, _)| key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(micros: i64, seq: u64) -> Slot {
        Slot { at: Timestamp::from_micros(micros), seq }
    }

    fn priority(level: u8) -> Priority {
        Priority::try_from(level).unwrap()
    }

    fn plain() -> Priority {
        Priority::default()
    }

    #[test]
    fn an_entry_is_narrow() {
        assert_eq!(size_of::<Key>() + size_of::<Priority>(), 17);
    }

    #[test]
    fn what_is_due_together_comes_by_priority_then_time_then_arrival() {
        let mut window = Window::new(10);
        for (at, seq, level) in [(10, 1, 4), (10, 2, 4), (5, 3, 4), (20, 4, 9), (30, 5, 9)] {
            window.insert(slot(at, seq), priority(level));
        }
        let order: Vec<u64> =
            window.due(Timestamp::from_micros(20), 10).into_iter().map(|(slot, _)| slot.seq).collect();
        assert_eq!(order, [4, 3, 1, 2]);
        assert_eq!(window.earliest(), Some(slot(30, 5)));
    }

    #[test]
    fn two_events_of_one_instant_are_two_events() {
        let mut window = Window::new(10);
        window.insert(slot(10, 1), plain());
        window.insert(slot(10, 2), plain());
        assert_eq!(window.due(Timestamp::from_micros(10), 10).len(), 2);
    }

    #[test]
    fn a_nearer_event_evicts_the_farthest() {
        let mut window = Window::new(2);
        assert_eq!(window.insert(slot(10, 1), plain()), Placed::Inside);
        assert_eq!(window.insert(slot(20, 2), plain()), Placed::Inside);
        assert_eq!(window.insert(slot(30, 3), plain()), Placed::Beyond);
        assert_eq!(window.insert(slot(5, 4), plain()), Placed::Evicted(slot(20, 2)));
        assert_eq!((window.len(), window.evicted(), window.has_backlog()), (2, 1, true));
        assert_eq!(window.earliest(), Some(slot(5, 4)));
    }

    #[test]
    fn an_event_beyond_the_edge_stays_out_while_the_store_has_nearer_ones() {
        let mut window = Window::new(2);
        for (at, seq) in [(10, 1), (20, 2), (30, 3)] {
            window.insert(slot(at, seq), plain());
        }
        window.due(Timestamp::from_micros(20), 10);
        assert!(window.is_empty());
        assert_eq!(window.insert(slot(40, 4), plain()), Placed::Beyond);
        let page = window.refill().unwrap();
        assert_eq!(page, Page { after: Some(slot(30, 2)), limit: 2 });
        assert_eq!(window.refill(), None);
        window.refilled(page, &[(slot(30, 3), plain()), (slot(40, 4), plain())]);
        assert_eq!(window.due(Timestamp::from_micros(40), 10).len(), 2);
    }

    #[test]
    fn what_comes_while_a_page_is_read_is_not_lost() {
        let mut window = Window::new(4);
        window.open(None);
        let page = window.refill().unwrap();
        assert_eq!(page, Page { after: None, limit: 4 });
        // Committed after the page was read.
        assert_eq!(window.insert(slot(20, 2), plain()), Placed::Beyond);
        window.refilled(page, &[(slot(10, 1), plain())]);
        assert_eq!((window.len(), window.has_backlog()), (2, false));
    }

    #[test]
    fn a_page_that_no_longer_begins_at_the_edge_is_read_again() {
        let mut window = Window::new(4);
        for (at, seq) in [(10, 1), (20, 2), (30, 3), (40, 4), (50, 5), (60, 6)] {
            window.insert(slot(at, seq), plain());
        }
        window.due(Timestamp::from_micros(30), 10);
        let page = window.refill().unwrap();
        assert_eq!(page.after, Some(slot(50, 4)));
        for seq in 7..11 {
            window.insert(slot(15, seq), plain());
        }
        // 40 has left: between it and the page would be a hole.
        window.refilled(page, &[(slot(50, 5), plain()), (slot(60, 6), plain())]);
        assert_eq!(window.latest(), Some(slot(15, 10)));
        assert!(window.has_backlog());
    }

    #[test]
    fn a_cancelled_or_moved_event_leaves() {
        let mut window = Window::new(4);
        window.insert(slot(10, 1), plain());
        window.insert(slot(20, 2), plain());
        assert!(window.remove(slot(10, 1)) && !window.remove(slot(10, 1)));
        window.reschedule(slot(20, 2), slot(5, 3), plain());
        assert_eq!((window.len(), window.earliest()), (1, Some(slot(5, 3))));
    }
}

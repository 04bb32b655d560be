//! The windows of all categories, and which of them is next.
//!
//! A category in which nothing waits has no window and costs nothing. The others stand in one ordered set by their earliest
//! deadline, so that the next of all is found at once, however many there are.

use std::{
    cmp::Reverse,
    collections::{BTreeSet, HashMap},
};

use notifyx_model::{Category, Priority, Timestamp};

use super::{Key, Page, Placed, Window};
use crate::store::{Due, Slot};

/// How much of the schedule is held in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Events of one category.
    pub window: usize,
    /// Events in all. When it is reached no window grows; a category without an event there still takes its nearest one.
    pub total: usize,
}

impl Default for Bounds {
    fn default() -> Self {
        // 30 KB a category, and 30 MB in all.
        Self { window: 1_000, total: 1_000_000 }
    }
}

/// How far beyond the batch asked for is looked for higher priorities: about a millisecond of sorting.
const SORTED_MAX: usize = 10_000;

/// What is noted during a look at most: more comes in the milliseconds of a page only if the store has stood still.
const NOTED_MAX: usize = 10_000;

/// A map that was this much larger gives its memory back.
const SHRINK: usize = 4;

#[derive(Debug, Default)]
pub struct Agenda {
    bounds: Bounds,
    queues: HashMap<Category, Queue>,
    /// By earliest deadline.
    next: BTreeSet<(Key, Category)>,
    /// Windows that a page is to be read for, by where it begins: the nearest first.
    hungry: BTreeSet<(Key, Category)>,
    total: usize,
    looking: Looking,
}

/// Whether the store is being read in order of time, over all categories.
#[derive(Debug, Default)]
enum Looking {
    #[default]
    No,
    /// With what came beyond an edge since the last page: a page may have been read too early to hold it.
    Noting(Vec<Due>),
    /// More came than is noted: what is read tells nothing about edges.
    Blindly,
}

/// A window, and under which keys it is listed.
#[derive(Debug)]
struct Queue {
    window: Window,
    next: Option<Key>,
    hungry: Option<Key>,
}

/// A page to read from the store for a category.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refill {
    pub category: Category,
    pub page: Page,
}

/// What a category's window holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figures {
    pub size: usize,
    pub capacity: usize,
    pub earliest: Option<Timestamp>,
    pub latest: Option<Timestamp>,
    /// The store may hold more than the window.
    pub backlog: bool,
    /// How many had to leave for nearer ones, since something waits.
    pub evicted: u64,
}

impl Agenda {
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, ..Self::default() }
    }

    /// A category of which something waits in the store from a slot on (`None`: from the beginning): its window is to be filled.
    pub fn open(&mut self, category: &Category, from: Option<Slot>) {
        self.change(category, |window, _| window.open(from));
    }

    /// An event that was committed to the schedule, or that was taken and could not be fired.
    pub fn insert(&mut self, due: &Due) -> Placed {
        let key = Key::from(due.slot);
        let placed = self.change(&due.category, |window, capacity| window.put(key, due.priority, capacity));
        if let (Placed::Beyond, Looking::Noting(noted)) = (placed, &mut self.looking) {
            if noted.len() < NOTED_MAX {
                noted.push(due.clone());
            } else {
                self.looking = Looking::Blindly;
            }
        }
        placed
    }

    /// From now on the store is read from its beginning in order of time, page by page; until it has been, no window is filled by itself.
    pub fn begin_look(&mut self) {
        self.looking = Looking::Noting(Vec::new());
    }

    /// The next page: all that waits before `end` and was not on a page before. A category that has something there has its edge behind
    /// it, whoever else is hungry.
    pub fn looked(&mut self, page: &[Due], end: Slot) {
        let end = Key::from(end).after();
        let noted = match &mut self.looking {
            Looking::Noting(noted) => Some(std::mem::take(noted)),
            Looking::No | Looking::Blindly => None,
        };
        for due in page.iter().chain(noted.iter().flatten()) {
            let key = Key::from(due.slot);
            self.change(&due.category, |window, capacity| {
                if noted.is_some() {
                    window.raise(end);
                }
                window.put(key, due.priority, capacity)
            });
        }
    }

    pub fn end_look(&mut self) {
        self.looking = Looking::No;
    }

    /// An event that left the schedule: cancelled, moved, or fired by somebody else. Whether it was here.
    pub fn remove(&mut self, category: &Category, slot: Slot) -> bool {
        self.queues.contains_key(category) && self.change(category, |window, _| window.remove(slot))
    }

    /// An event that has another time, and with it another slot.
    pub fn reschedule(&mut self, from: Slot, to: &Due) -> Placed {
        self.remove(&to.category, from);
        self.insert(to)
    }

    /// The earliest deadline of all.
    pub fn earliest(&self) -> Option<Timestamp> {
        self.next.first().map(|(key, _)| key.slot().at)
    }

    /// Takes what is due, of all categories: by priority, then by time, then by arrival. Where more than 10,000 events are
    /// due, that is the order among those which are due the longest.
    pub fn due(&mut self, now: Timestamp, limit: usize) -> Vec<Due> {
        let end = Key::end_of(now);
        let mut due: Vec<(Reverse<Priority>, Key, &Category)> = Vec::new();
        for (key, category) in &self.next {
            if *key > end || due.len() >= SORTED_MAX.max(limit) {
                break;
            }
            let ripe = self.queues[category].window.due_until(end);
            due.extend(ripe.map(|(key, priority)| (Reverse(priority), key, category)));
        }
        due.sort_unstable();
        due.truncate(limit);
        let due: Vec<Due> = due
            .into_iter()
            .map(|(Reverse(priority), key, category)| Due { category: category.clone(), slot: key.slot(), priority })
            .collect();
        for due in &due {
            self.change(&due.category, |window, _| window.take(due.slot.into()));
        }
        due
    }

    /// The next page to read, the nearest first. It is answered with [`Agenda::refilled`] or [`Agenda::refill_failed`].
    pub fn refill(&mut self) -> Option<Refill> {
        if let Looking::Noting(_) = self.looking {
            return None;
        }
        let (_, category) = self.hungry.first()?.clone();
        let page = self.change(&category, Window::begin_refill);
        Some(Refill { category, page })
    }

    /// Whether a page is to be read.
    pub fn is_hungry(&self) -> bool {
        !self.hungry.is_empty()
    }

    /// From where on a page is lacking, the nearest; and how many windows lack one.
    pub fn hunger(&self) -> Option<(Slot, usize)> {
        self.hungry.first().map(|(key, _)| (key.slot(), self.hungry.len()))
    }

    /// Gives back what it has needed for many more categories than now; a call a second is enough.
    pub fn sweep(&mut self) {
        if self.queues.capacity() > SHRINK * self.queues.len() {
            self.queues.shrink_to_fit();
        }
    }

    /// What was read for a window.
    pub fn refilled(&mut self, refill: &Refill, read: &[Due]) {
        let read = read.iter().map(|due| (due.slot.into(), due.priority));
        self.change(&refill.category, |window, capacity| window.fill(refill.page, read, capacity));
    }

    /// The page could not be read; it is asked for again.
    pub fn refill_failed(&mut self, refill: &Refill) {
        self.change(&refill.category, |window, _| window.refill_failed());
    }

    /// `None`: nothing waits there.
    pub fn figures(&self, category: &Category) -> Option<Figures> {
        let window = &self.queues.get(category)?.window;
        Some(Figures {
            size: window.len(),
            capacity: window.capacity(),
            earliest: window.earliest().map(|slot| slot.at),
            latest: window.latest().map(|slot| slot.at),
            backlog: window.has_backlog(),
            evicted: window.evicted(),
        })
    }

    /// Events in memory.
    pub fn len(&self) -> usize {
        self.total
    }

    pub fn is_empty(&self) -> bool {
        self.total == 0
    }

    /// Categories in which something waits.
    pub fn categories(&self) -> usize {
        self.queues.len()
    }

    /// Changes a window, within the room that it has, and lists it where it then belongs.
    fn change<T>(&mut self, category: &Category, change: impl FnOnce(&mut Window, usize) -> T) -> T {
        let mut queue = match self.queues.remove(category) {
            Some(queue) => queue,
            None => Queue { window: Window::new(self.bounds.window), next: None, hungry: None },
        };
        let before = queue.window.len();
        let capacity = self.capacity_of(&queue.window);
        let done = change(&mut queue.window, capacity);
        self.total = self.total + queue.window.len() - before;

        let capacity = self.capacity_of(&queue.window);
        let next = queue.window.first();
        let hungry = queue.window.edge().filter(|_| queue.window.wants_refill(capacity));
        relist(&mut self.next, category, &mut queue.next, next);
        relist(&mut self.hungry, category, &mut queue.hungry, hungry);
        if !queue.window.is_idle() {
            self.queues.insert(category.clone(), queue);
        }
        done
    }

    fn capacity_of(&self, window: &Window) -> usize {
        let room = self.bounds.total.saturating_sub(self.total);
        (window.len() + room).clamp(1, window.capacity())
    }
}

fn relist(list: &mut BTreeSet<(Key, Category)>, category: &Category, old: &mut Option<Key>, new: Option<Key>) {
    if *old == new {
        return;
    }
    if let Some(key) = old.take() {
        list.remove(&(key, category.clone()));
    }
    if let Some(key) = new {
        list.insert((key, category.clone()));
    }
    *old = new;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(category: &str, micros: i64, seq: u64, level: u8) -> Due {
        Due {
            category: Category::parse(category).unwrap(),
            slot: Slot { at: Timestamp::from_micros(micros), seq },
            priority: Priority::try_from(level).unwrap(),
        }
    }

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    #[test]
    fn due_events_come_in_order_across_categories() {
        let mut agenda = Agenda::new(Bounds::default());
        let events =
            [due("a", 30, 1, 4), due("b", 10, 2, 4), due("a", 20, 3, 4), due("c", 25, 4, 9), due("b", 99, 5, 9)];
        for event in &events {
            agenda.insert(event);
        }
        assert_eq!(agenda.earliest(), Some(at(10)));
        let order: Vec<u64> = agenda.due(at(30), 10).into_iter().map(|due| due.slot.seq).collect();
        assert_eq!(order, [4, 2, 3, 1]);
        assert_eq!(agenda.earliest(), Some(at(99)));
    }

    #[test]
    fn an_idle_category_is_forgotten() {
        let mut agenda = Agenda::new(Bounds::default());
        for seq in 0..1_000 {
            agenda.insert(&due(&format!("c{seq}"), 10, seq, 4));
        }
        assert_eq!((agenda.categories(), agenda.len()), (1_000, 1_000));
        agenda.remove(&Category::parse("c0").unwrap(), due("c0", 10, 0, 4).slot);
        assert!(!agenda.remove(&Category::parse("nobody").unwrap(), due("c0", 10, 0, 4).slot));
        assert_eq!(agenda.due(at(10), 10_000).len(), 999);
        assert_eq!((agenda.categories(), agenda.len(), agenda.earliest()), (0, 0, None));
        assert!(agenda.next.is_empty() && agenda.hungry.is_empty());
    }

    #[test]
    fn what_is_next_comes_in_whatever_its_category_lacks() {
        let mut agenda = Agenda::new(Bounds { window: 2, total: 1_000 });
        for seq in 0..50 {
            agenda.open(&Category::parse(&format!("c{seq}")).unwrap(), Some(due("c", 100, 1, 4).slot));
        }
        assert_eq!(agenda.hunger(), Some((due("c", 100, 1, 4).slot, 50)));
        agenda.begin_look();
        assert_eq!(agenda.refill(), None);
        // Committed after the page was read.
        assert_eq!(agenda.insert(&due("c7", 150, 10, 4)), Placed::Beyond);
        let page = [due("c49", 120, 5, 4), due("c49", 130, 6, 4), due("c49", 140, 7, 4), due("new", 160, 8, 4)];
        agenda.looked(&page, page[3].slot);
        agenda.looked(&[due("c49", 170, 9, 4)], due("c49", 170, 9, 4).slot);
        agenda.end_look();
        let seqs: Vec<u64> = agenda.due(at(1_000), 10).into_iter().map(|due| due.slot.seq).collect();
        // The third of c49 had to leave, and what comes behind it waits for its page.
        assert_eq!(seqs, [5, 6, 10, 8]);
        assert_eq!(agenda.insert(&due("c49", 135, 11, 4)), Placed::Inside);
        assert_eq!(agenda.insert(&due("c48", 135, 12, 4)), Placed::Beyond, "of it nothing was seen");
    }

    #[test]
    fn a_map_that_was_large_gives_its_memory_back() {
        let mut agenda = Agenda::new(Bounds::default());
        for seq in 0..10_000 {
            agenda.insert(&due(&format!("c{seq}"), 10, seq, 4));
        }
        agenda.due(at(10), 9_999);
        agenda.sweep();
        assert!(agenda.queues.capacity() < 100, "{}", agenda.queues.capacity());
    }

    #[test]
    fn an_agenda_that_is_full_keeps_the_nearest_of_each_category() {
        let mut agenda = Agenda::new(Bounds { window: 10, total: 4 });
        for seq in 0..6 {
            agenda.insert(&due("a", 100 - i64::try_from(seq).unwrap(), seq, 4));
        }
        agenda.insert(&due("b", 50, 10, 4));
        agenda.insert(&due("b", 40, 11, 4));
        assert_eq!(agenda.len(), 5);
        let b = agenda.figures(&Category::parse("b").unwrap()).unwrap();
        assert_eq!((b.size, b.earliest, b.backlog, b.evicted), (1, Some(at(40)), true, 1));
    }

    #[test]
    fn what_waited_before_anybody_looked_is_read_nearest_first() {
        let mut agenda = Agenda::new(Bounds::default());
        let (near, far) = (Category::parse("near").unwrap(), Category::parse("far").unwrap());
        agenda.open(&far, Some(due("far", 500, 7, 4).slot));
        agenda.open(&near, None);
        let refill = agenda.refill().unwrap();
        assert_eq!(refill, Refill { category: near, page: Page { after: None, limit: 1_000 } });
        agenda.refilled(&refill, &[due("near", 10, 1, 4)]);
        let refill = agenda.refill().unwrap();
        assert_eq!(refill.page.after, Some(due("far", 500, 6, 4).slot));
        agenda.refill_failed(&refill);
        assert_eq!(agenda.refill().as_ref(), Some(&refill));
        agenda.refilled(&refill, &[]);
        assert_eq!((agenda.categories(), agenda.refill()), (1, None));
    }
}

//! The agenda against a store that is a plain sorted list: a long random life of it, with little room, so that events are evicted and
//! pages read all the time. Seeds are fixed; a failure names its own.

use std::collections::{BTreeMap, HashMap};

use notifyx_model::{Category, Priority, Timestamp};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IteratorRandom};

use super::{Agenda, Bounds, Key, Refill};
use crate::store::{Due, Slot};

/// The truth: what waits, per category, in order.
#[derive(Default)]
struct Store {
    waiting: HashMap<Category, BTreeMap<Key, Priority>>,
    seq: u64,
}

impl Store {
    fn schedule(&mut self, category: &Category, at: i64, priority: Priority) -> Due {
        self.seq += 1;
        let slot = Slot { at: Timestamp::from_micros(at), seq: self.seq };
        self.waiting.entry(category.clone()).or_default().insert(slot.into(), priority);
        Due { category: category.clone(), slot, priority }
    }

    fn delete(&mut self, category: &Category, slot: Slot) -> bool {
        self.waiting.get_mut(category).is_some_and(|waiting| waiting.remove(&slot.into()).is_some())
    }

    fn read(&self, refill: &Refill) -> Vec<Due> {
        let after = refill.page.after.map_or(Key::FIRST, |slot| Key::from(slot).after());
        let due = |(key, priority): (&Key, &Priority)| Due {
            category: refill.category.clone(),
            slot: key.slot(),
            priority: *priority,
        };
        let waiting = self.waiting.get(&refill.category);
        waiting.into_iter().flat_map(|waiting| waiting.range(after..)).take(refill.page.limit).map(due).collect()
    }

    fn any(&self, rng: &mut StdRng) -> Option<(Category, Slot, Priority)> {
        let (category, waiting) = self.waiting.iter().filter(|(_, waiting)| !waiting.is_empty()).choose(rng)?;
        let (key, priority) = waiting.iter().choose(rng)?;
        Some((category.clone(), key.slot(), *priority))
    }

    /// Over all categories, in order of time.
    fn due(&self, until: i64, after: Option<Slot>, limit: usize) -> Vec<Due> {
        let all = self.waiting.iter().flat_map(|(category, waiting)| waiting.iter().map(move |one| (category, one)));
        let due = all.map(|(category, (key, priority))| Due {
            category: category.clone(),
            slot: key.slot(),
            priority: *priority,
        });
        let mut due: Vec<Due> =
            due.filter(|due| due.slot.at.as_micros() <= until && after.is_none_or(|after| due.slot > after)).collect();
        due.sort_by_key(|due| due.slot);
        due.truncate(limit);
        due
    }

    fn earliest(&self) -> Option<Timestamp> {
        self.waiting.values().filter_map(|waiting| waiting.keys().next()).min().map(|key| key.slot().at)
    }
}

/// A look that is on its way.
struct Look {
    until: i64,
    after: Option<Slot>,
    /// Read, not yet told.
    page: Option<Vec<Due>>,
}

const LOOK_PAGE: usize = 5;

struct World {
    seed: u64,
    rng: StdRng,
    store: Store,
    agenda: Agenda,
    bounds: Bounds,
    now: i64,
    categories: Vec<Category>,
    /// Read from the store, not yet told to the agenda.
    reads: Vec<(Refill, Vec<Due>)>,
    look: Option<Look>,
    /// Committed, not yet told to the agenda.
    commits: Vec<Due>,
    fired: u64,
    gone: u64,
}

impl World {
    fn new(seed: u64, bounds: Bounds) -> Self {
        let categories: Vec<_> = (0..4).map(|n| Category::parse(&format!("c{n}")).unwrap()).collect();
        let mut world = Self {
            seed,
            rng: StdRng::seed_from_u64(seed),
            store: Store::default(),
            agenda: Agenda::new(bounds),
            bounds,
            now: 0,
            categories,
            reads: Vec::new(),
            look: None,
            commits: Vec::new(),
            fired: 0,
            gone: 0,
        };
        // What waited before anybody looked.
        for _ in 0..world.rng.random_range(0..40) {
            world.schedule();
        }
        for category in &world.categories {
            world.agenda.open(category, None);
        }
        world.commits.clear();
        world
    }

    fn schedule(&mut self) {
        let category = self.categories.iter().choose(&mut self.rng).unwrap();
        // Few instants, so that many events share one; some have passed.
        let at = (self.now + self.rng.random_range(-2..30)) & !1;
        let priority = Priority::try_from(self.rng.random_range(0..=9)).unwrap();
        self.commits.push(self.store.schedule(category, at, priority));
    }

    fn tell_one_commit(&mut self) {
        if !self.commits.is_empty() {
            let at = self.rng.random_range(0..self.commits.len());
            let due = self.commits.swap_remove(at);
            self.agenda.insert(&due);
        }
    }

    fn begin_read(&mut self) {
        if let Some(refill) = self.agenda.refill() {
            let read = self.store.read(&refill);
            self.reads.push((refill, read));
        }
    }

    fn tell_one_read(&mut self) {
        if !self.reads.is_empty() {
            let at = self.rng.random_range(0..self.reads.len());
            let (refill, read) = self.reads.swap_remove(at);
            if self.rng.random_ratio(1, 10) {
                self.agenda.refill_failed(&refill);
            } else {
                self.agenda.refilled(&refill, &read);
            }
        }
    }

    fn begin_look(&mut self) {
        if self.look.is_none() && self.reads.is_empty() {
            self.agenda.begin_look();
            self.look = Some(Look { until: self.now + self.rng.random_range(0..30), after: None, page: None });
        }
    }

    fn go_on_looking(&mut self) {
        let Some(look) = &mut self.look else { return };
        let Some(page) = look.page.take() else {
            look.page = Some(self.store.due(look.until, look.after, LOOK_PAGE));
            return;
        };
        if let Some(last) = page.last() {
            look.after = Some(last.slot);
            self.agenda.looked(&page, last.slot);
        }
        if page.len() < LOOK_PAGE {
            self.agenda.end_look();
            self.look = None;
        }
    }

    fn cancel(&mut self) {
        if let Some((category, slot, _)) = self.store.any(&mut self.rng) {
            assert!(self.store.delete(&category, slot));
            self.agenda.remove(&category, slot);
            self.gone += 1;
        }
    }

    fn reschedule(&mut self) {
        if let Some((category, slot, priority)) = self.store.any(&mut self.rng) {
            assert!(self.store.delete(&category, slot));
            self.gone += 1;
            let to = self.store.schedule(&category, self.now + self.rng.random_range(0..30), priority);
            self.agenda.reschedule(slot, &to);
        }
    }

    fn fire(&mut self) {
        let limit = self.rng.random_range(1..20);
        let due = self.agenda.due(Timestamp::from_micros(self.now), limit);
        assert!(due.len() <= limit);
        assert!(due.is_sorted_by_key(|due| (std::cmp::Reverse(due.priority), due.slot)), "seed {}", self.seed);
        assert!(due.iter().all(|due| due.slot.at.as_micros() <= self.now), "seed {}: early", self.seed);
        if self.rng.random_ratio(1, 10) {
            // The store was away: nothing fired, and all of it is due again.
            for due in &due {
                self.agenda.insert(due);
            }
            return;
        }
        for due in due {
            self.fired += u64::from(self.store.delete(&due.category, due.slot));
        }
    }

    fn settle(&mut self) {
        while !self.commits.is_empty() {
            self.tell_one_commit();
        }
        while self.look.is_some() {
            self.go_on_looking();
        }
        loop {
            while !self.reads.is_empty() {
                self.tell_one_read();
            }
            self.begin_read();
            if self.reads.is_empty() {
                return;
            }
        }
    }

    fn check_bounds(&self) {
        let sizes = self.categories.iter().filter_map(|category| self.agenda.figures(category));
        let sizes: Vec<usize> = sizes.map(|figures| figures.size).collect();
        assert!(sizes.iter().all(|size| *size <= self.bounds.window), "seed {}: {sizes:?}", self.seed);
        assert_eq!(sizes.iter().sum::<usize>(), self.agenda.len(), "seed {}", self.seed);
        assert!(self.agenda.len() <= self.bounds.total + self.categories.len(), "seed {}", self.seed);
    }
}

fn bounds(seed: u64) -> Bounds {
    Bounds { window: 1 + usize::try_from(seed % 12).unwrap(), total: if seed.is_multiple_of(3) { 10 } else { 1_000 } }
}

#[test]
fn once_all_is_told_the_agenda_holds_the_nearest_of_the_store() {
    for seed in 0..300 {
        let mut world = World::new(seed, bounds(seed));
        for _ in 0..200 {
            match world.rng.random_range(0..11) {
                0..5 => world.schedule(),
                5 => world.cancel(),
                6 => world.reschedule(),
                7 => world.fire(),
                8 => world.begin_look(),
                _ => world.now += world.rng.random_range(0..4),
            }
            world.settle();
            world.check_bounds();
            assert_eq!(world.agenda.earliest(), world.store.earliest(), "seed {seed}");
            for category in &world.categories {
                let Some(figures) = world.agenda.figures(category) else { continue };
                let mut nearest = world.store.waiting[category].keys().take(figures.size);
                assert_eq!(nearest.next_back().map(|key| key.slot().at), figures.latest, "seed {seed}");
            }
        }
    }
}

#[test]
fn with_room_for_all_what_is_due_comes_exactly_as_the_store_would_sort_it() {
    for seed in 0..100 {
        let mut world = World::new(seed, Bounds::default());
        for _ in 0..100 {
            world.schedule();
        }
        world.settle();
        let now = Timestamp::from_micros(15);
        let mut expected: Vec<_> = (world.store.waiting.values().flatten())
            .filter(|(key, _)| key.slot().at <= now)
            .map(|(key, priority)| (std::cmp::Reverse(*priority), key.slot()))
            .collect();
        expected.sort_unstable();
        expected.truncate(50);
        let due: Vec<_> =
            world.agenda.due(now, 50).into_iter().map(|due| (std::cmp::Reverse(due.priority), due.slot)).collect();
        assert_eq!(due, expected, "seed {seed}");
    }
}

#[test]
fn nothing_is_lost_and_nothing_fires_twice_whatever_overtakes_what() {
    for seed in 0..1_000 {
        let mut world = World::new(seed, bounds(seed));
        for _ in 0..300 {
            match world.rng.random_range(0..20) {
                0..4 => world.schedule(),
                4..7 => world.tell_one_commit(),
                7..9 => world.begin_read(),
                9..11 => world.tell_one_read(),
                11 => world.cancel(),
                12 => world.reschedule(),
                13..15 => world.fire(),
                15 => world.begin_look(),
                16..19 => world.go_on_looking(),
                _ => world.now += world.rng.random_range(0..4),
            }
            world.check_bounds();
        }
        world.now += 100;
        for _ in 0..10_000 {
            world.settle();
            world.fire();
            if world.agenda.categories() == 0 {
                break;
            }
        }
        assert_eq!(world.store.earliest(), None, "seed {seed}: lost");
        assert_eq!(world.fired + world.gone, world.store.seq, "seed {seed}");
        assert_eq!((world.agenda.len(), world.agenda.earliest()), (0, None), "seed {seed}");
    }
}

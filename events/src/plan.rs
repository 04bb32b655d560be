//! The agenda of whoever drives the schedule, shared with those who change it.
//!
//! What was committed to the schedule is told here, after it was. Where another instance drives, nothing is kept: that one finds it
//! in the store. Holds a lock for microseconds, and never while anything is awaited.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use notifyx_model::{Category, Clock, EventId, Timestamp};
use tokio::sync::Notify;

use crate::{
    event::Event,
    metrics::Metrics,
    queue::{Agenda, Bounds, Figures, Lateness, Placed, Punctuality, Refill},
    store::{Due, Kept, Slot},
};

/// Overdue events of which it is known when they came: 10 MB. What comes beyond that is as late as its own time says.
const OVERDUE_MAX: usize = 100_000;

#[derive(Debug)]
pub struct Plan {
    bounds: Bounds,
    clock: Clock,
    state: Mutex<State>,
    pub(crate) calls: Calls,
    pub(crate) metrics: Metrics,
}

#[derive(Debug, Default)]
struct State {
    /// `None`: another instance drives.
    agenda: Option<Agenda>,
    /// The earliest of what was taken last, to be fired.
    firing: Option<Timestamp>,
    punctuality: Punctuality,
    /// When those came whose time had passed already: nobody is late with them before.
    overdue: HashMap<(Category, EventId), Timestamp>,
}

/// What the driver's loops are woken by, one each.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    /// An earlier deadline than all before.
    pub(crate) nearer: Notify,
    /// A window wants a page.
    pub(crate) hungry: Notify,
    /// The store may hold what nobody told.
    pub(crate) look: Notify,
    /// A recurring schedule is new, or goes on.
    pub(crate) recurring: Notify,
    /// Whose the lease is may have changed.
    pub(crate) lease: Notify,
}

impl Plan {
    pub fn new(bounds: Bounds, clock: Clock) -> Self {
        Self { bounds, clock, state: Mutex::default(), calls: Calls::default(), metrics: Metrics::default() }
    }

    /// Have everything looked at now rather than within a second: the clock was moved.
    pub fn look(&self) {
        let Calls { nearer, hungry, look, recurring, lease } = &self.calls;
        for call in [nearer, hungry, look, recurring, lease] {
            call.notify_one();
        }
    }

    /// Whether this instance drives the schedule.
    pub fn drives(&self) -> bool {
        self.state().agenda.is_some()
    }

    /// Events that are held in memory, of all categories.
    pub fn held(&self) -> usize {
        self.state().agenda.as_ref().map_or(0, Agenda::len)
    }

    /// `None`: nothing waits there, or another instance drives.
    pub fn figures(&self, category: &Category) -> Option<Figures> {
        self.state().agenda.as_ref()?.figures(category)
    }

    /// `None`: none fired of late.
    pub fn lateness(&self, category: &Category) -> Option<Lateness> {
        self.state().punctuality.of(category).cloned()
    }

    /// Events that a window of one category holds at most.
    pub fn capacity(&self) -> usize {
        self.bounds.window
    }

    /// These were given to the schedule.
    pub(crate) fn scheduled(&self, kept: &[Kept]) {
        let new = kept.iter().filter(|kept| !kept.duplicate).map(|kept| &kept.event);
        self.note_overdue(new.clone());
        self.change(|agenda| {
            for due in new.filter_map(due) {
                agenda.insert(&due);
            }
        });
    }

    /// These have another time, and left the slots where they waited before.
    pub(crate) fn moved<'a>(&self, moves: impl Iterator<Item = (&'a Event, Slot)> + Clone) {
        self.note_overdue(moves.clone().map(|(event, _)| event));
        self.change(|agenda| {
            for (event, from) in moves {
                if let Some(due) = due(event) {
                    agenda.reschedule(from, &due);
                }
            }
        });
    }

    /// How late those are which come after their time counts from now.
    fn note_overdue<'a>(&self, events: impl Iterator<Item = &'a Event>) {
        let now = self.clock.now();
        let is_overdue = |event: &&Event| event.slot().is_some_and(|slot| slot.at < now);
        let overdue: Vec<_> = events.filter(is_overdue).map(|event| (name(event), now)).collect();
        if !overdue.is_empty() && self.drives() {
            let known = &mut self.state().overdue;
            let room = OVERDUE_MAX.saturating_sub(known.len());
            known.extend(overdue.into_iter().take(room));
        }
    }

    /// These were taken out of it.
    pub(crate) fn cancelled<'a>(&self, events: impl Iterator<Item = &'a Event>) {
        self.change(|agenda| {
            for due in events.filter_map(due) {
                agenda.remove(&due.category, due.slot);
            }
        });
    }

    /// These wait, as the store says: those which are not here are taken in. For how many there was room.
    pub(crate) fn found(&self, waiting: &[Due]) -> usize {
        let taken = self.change(|agenda| waiting.iter().filter(|due| agenda.insert(due) != Placed::Beyond).count());
        taken.unwrap_or(0)
    }

    /// From now on the store is read in order of time.
    pub(crate) fn begin_look(&self) {
        self.change(Agenda::begin_look);
    }

    /// A page of that, which holds all that waits up to a slot.
    pub(crate) fn looked(&self, page: &[Due], end: Slot) {
        self.change(|agenda| agenda.looked(page, end));
    }

    pub(crate) fn end_look(&self) {
        self.change(Agenda::end_look);
    }

    /// Where a page of a window begins that is lacking, the nearest; and how many windows lack one.
    pub(crate) fn hunger(&self) -> Option<(Slot, usize)> {
        self.state().agenda.as_ref()?.hunger()
    }

    /// In these categories more waits from a slot on.
    pub(crate) fn open<'a>(&self, categories: impl Iterator<Item = &'a Category>, from: Option<Slot>) {
        self.change(|agenda| {
            for category in categories {
                agenda.open(category, from);
            }
        });
    }

    /// From now on this instance drives. It knows of nothing yet, and is told of what comes.
    pub(crate) fn begin(&self) {
        *self.state() = State { agenda: Some(Agenda::new(self.bounds)), ..State::default() };
        self.metrics.drives(true);
    }

    /// Another does.
    pub(crate) fn end(&self) {
        *self.state() = State::default();
        self.metrics.drives(false);
    }

    /// Takes what is due. What was taken before has fired, or was given back.
    pub(crate) fn due(&self, now: Timestamp, limit: usize) -> Vec<Due> {
        let mut state = self.state();
        let due = state.agenda.as_mut().map(|agenda| agenda.due(now, limit)).unwrap_or_default();
        state.firing = due.iter().map(|due| due.slot.at).min();
        let hungry = state.agenda.as_ref().is_some_and(Agenda::is_hungry);
        drop(state);
        if hungry {
            self.calls.hungry.notify_one();
        }
        due
    }

    /// The earliest of all that is here, is being fired, or is behind an edge and about to be read.
    pub(crate) fn known(&self) -> Option<Timestamp> {
        let state = self.state();
        let earliest = state.agenda.as_ref().and_then(Agenda::earliest);
        let edge = state.agenda.as_ref().and_then(Agenda::hunger).map(|(edge, _)| edge.at);
        earliest.into_iter().chain(state.firing).chain(edge).min()
    }

    pub(crate) fn earliest(&self) -> Option<Timestamp> {
        self.state().agenda.as_ref()?.earliest()
    }

    pub(crate) fn refill(&self) -> Option<Refill> {
        self.state().agenda.as_mut()?.refill()
    }

    pub(crate) fn refilled(&self, refill: &Refill, read: &[Due]) {
        self.change(|agenda| agenda.refilled(refill, read));
    }

    pub(crate) fn refill_failed(&self, refill: &Refill) {
        self.change(|agenda| agenda.refill_failed(refill));
    }

    /// These fired: how late each was, from when it could have fired at all.
    pub(crate) fn fired(&self, events: &[Event], now: Timestamp) {
        let State { punctuality, overdue, .. } = &mut *self.state();
        for event in events {
            let came = if overdue.is_empty() { None } else { overdue.remove(&name(event)) };
            let possible = event.given.fire_at;
            let late = now.since(came.map_or(possible, |came| came.max(possible)));
            punctuality.record(&event.given.category, late, now);
            self.metrics.fired(late);
        }
    }

    /// Gives up figures of categories that are silent, and memory.
    pub(crate) fn sweep(&self, now: Timestamp) {
        let mut state = self.state();
        state.punctuality.sweep(now);
        if let Some(agenda) = &mut state.agenda {
            agenda.sweep();
        }
    }

    /// Changes the agenda, if this instance has it, and wakes who waits for that.
    fn change<T>(&self, change: impl FnOnce(&mut Agenda) -> T) -> Option<T> {
        let mut state = self.state();
        let agenda = state.agenda.as_mut()?;
        let before = agenda.earliest();
        let done = change(agenda);
        let nearer = agenda.earliest().is_some_and(|at| before.is_none_or(|before| at < before));
        let hungry = agenda.is_hungry();
        drop(state);
        if nearer {
            self.calls.nearer.notify_one();
        }
        if hungry {
            self.calls.hungry.notify_one();
        }
        Some(done)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn name(event: &Event) -> (Category, EventId) {
    (event.given.category.clone(), event.given.id.clone())
}

/// `None`: it has fired.
fn due(event: &Event) -> Option<Due> {
    let slot = event.slot()?;
    Some(Due { category: event.given.category.clone(), slot, priority: event.given.priority })
}

//! Recurring schedules, as their owners handle them. What they make is the driver's work.

use std::{fmt, sync::Arc};

use bytes::Bytes;
use notifyx_model::{Category, Clock, EventId, Priority, Timestamp};

use crate::{
    Error,
    event::{EventKey, NewEvent, Owner},
    plan::Plan,
    recurrence::{Recurrence, Rule, Term, Zone},
    recurring::{OnMissed, Recurring, State},
    store::{Deleted, Kept, Page, Store},
    writer::Writer,
};

/// Occurrences that a deletion takes out of the schedule in one transaction: some ten milliseconds.
const DELETED_AT_ONCE: u32 = 1_000;

/// How often a change is tried while the driver moves the same schedule on: it does so once a second at most.
const TRIES: usize = 5;

pub struct Schedules {
    store: Arc<dyn Store>,
    writer: Writer,
    plan: Arc<Plan>,
    clock: Clock,
}

impl fmt::Debug for Schedules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Schedules").finish_non_exhaustive()
    }
}

/// What is to recur.
#[derive(Clone, Debug)]
pub struct NewRecurring {
    pub id: EventId,
    pub category: Category,
    pub key: Option<EventKey>,
    pub priority: Priority,
    pub data: Bytes,
    pub rule: Rule,
    pub zone: Zone,
    pub on_missed: OnMissed,
    pub start_at: Option<Timestamp>,
    pub end_at: Option<Timestamp>,
    pub count: Option<u64>,
    pub owner: Option<Owner>,
}

impl Schedules {
    pub fn new(store: Arc<dyn Store>, writer: Writer, plan: Arc<Plan>, clock: Clock) -> Self {
        Self { store, writer, plan, clock }
    }

    /// The same id again with the same rule is the same schedule, as it is.
    pub async fn create(&self, new: NewRecurring) -> Result<Recurring, Error> {
        let created_at = self.clock.now();
        let term = Term { created_at, start: new.start_at, end: new.end_at, count: new.count };
        let recurrence = Recurrence::new(new.rule, new.zone, term)?;
        let asked = Recurring {
            id: new.id,
            category: new.category,
            key: new.key,
            priority: new.priority,
            data: new.data,
            rule: recurrence.rule().to_string(),
            zone: recurrence.zone().name().to_owned(),
            on_missed: new.on_missed,
            start_at: new.start_at,
            end_at: new.end_at,
            count: new.count,
            owner: new.owner,
            created_at,
            state: State::Active { next: recurrence.first() },
            last_at: None,
            made: 0,
            skipped: 0,
        };
        let (kept, existed) = self.store.create_recurring(&asked).await?;
        if existed && !same_rule(&kept, &asked) {
            return Err(Error::ScheduleMismatch(asked.id));
        }
        self.plan.calls.recurring.notify_one();
        Ok(kept)
    }

    pub async fn get(&self, id: &EventId) -> Result<Recurring, Error> {
        self.store.find_recurring(id).await?.ok_or_else(|| Error::ScheduleNotFound(id.clone()))
    }

    /// By id, and behind which the next page begins; `None`: this was the last.
    pub async fn list(
        &self,
        category: Option<&Category>,
        after: Option<&EventId>,
        page: Page,
    ) -> Result<(Vec<Recurring>, Option<EventId>), Error> {
        let listed = self.store.list_recurring(category, after, page).await?;
        let bytes: usize = listed.iter().map(|recurring| recurring.data.len()).sum();
        let cut = listed.len() >= page.limit as usize || bytes >= page.bytes as usize;
        let last = listed.last().filter(|_| cut).map(|recurring| recurring.id.clone());
        Ok((listed, last))
    }

    /// No occurrence is made until it is resumed. One that waits already stays.
    pub async fn pause(&self, id: &EventId) -> Result<Recurring, Error> {
        self.change(id, |next| State::Paused { next }).await
    }

    /// Goes on. Occurrences of the pause were missed, and are treated as such.
    pub async fn resume(&self, id: &EventId) -> Result<Recurring, Error> {
        let recurring = self.change(id, |next| State::Active { next }).await?;
        self.plan.calls.recurring.notify_one();
        Ok(recurring)
    }

    /// An event of the schedule now, beside its rule. Named by its caller, it is not made twice.
    pub async fn run_now(&self, id: &EventId, event: Option<EventId>) -> Result<Kept, Error> {
        let recurring = self.get(id).await?;
        let now = self.clock.now();
        let event = NewEvent {
            id: event.unwrap_or_else(|| EventId::new(&self.clock)),
            category: recurring.category,
            key: recurring.key,
            priority: recurring.priority,
            data: recurring.data,
            created_at: now,
            fire_at: now,
            owner: recurring.owner,
            recurring: Some(recurring.id),
        };
        self.writer.append(vec![event]).await.pop().expect("one result for one event")
    }

    /// With its occurrences that wait; as it was. However many they are: they go in steps, and a deletion that is broken off goes on when
    /// it is asked for again.
    pub async fn delete(&self, id: &EventId) -> Result<Recurring, Error> {
        let mut was = None;
        loop {
            match self.store.delete_recurring(id, DELETED_AT_ONCE).await? {
                Some(Deleted::Ended(recurring)) => _ = was.get_or_insert(recurring),
                Some(Deleted::Gone(recurring)) => return Ok(was.unwrap_or(recurring)),
                // Between two steps another took the rest.
                None => return was.ok_or_else(|| Error::ScheduleNotFound(id.clone())),
            }
        }
    }

    async fn change(&self, id: &EventId, to: impl Fn(Timestamp) -> State) -> Result<Recurring, Error> {
        for _ in 0..TRIES {
            let recurring = self.get(id).await?;
            let Some(next) = recurring.state.next() else { return Err(Error::ScheduleFinished(id.clone())) };
            if recurring.state == to(next) {
                return Ok(recurring);
            }
            if let Some(changed) = self.store.change_recurring(id, recurring.state, to(next)).await? {
                return Ok(changed);
            }
        }
        Err(Error::ScheduleBusy(id.clone()))
    }
}

/// Whatever has become of it since, and whoever asks.
fn same_rule(kept: &Recurring, asked: &Recurring) -> bool {
    let Recurring { owner, created_at, state, last_at, made, skipped, .. } = kept.clone();
    *kept == Recurring { owner, created_at, state, last_at, made, skipped, ..asked.clone() }
}

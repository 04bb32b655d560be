//! Recurring schedules become events: a little ahead of their times, so that these fire like all others; each nominal time once.

use std::time::Duration;

use notifyx_chassis::reply;
use notifyx_model::{EventId, Timestamp};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::{Again, Driver, LOOK, answer, rest};
use crate::{
    Error,
    event::NewEvent,
    recurrence::{Look, MAKE_MAX, Recurrence},
    recurring::{Recurring, State},
    store::Occurrences,
};

/// Twice the time between two looks: an occurrence waits in the schedule before its time comes. A pause comes that much too late.
const AHEAD: Duration = LOOK.saturating_mul(2);

/// Recurring schedules per page.
const PAGE: u32 = 100;

/// Of one transaction, in data and rows, as for what callers schedule.
const TRANSACTION_BYTES: usize = 1 << 20;
const ROW_BYTES: usize = 1 << 10;

impl Driver {
    pub(super) async fn occur(&self, over: &CancellationToken) {
        let mut again = Again::default();
        while !over.is_cancelled() {
            match self.make_all(over).await {
                Ok(()) => {
                    again = Again::default();
                    rest(LOOK, &self.plan.calls.recurring, over).await;
                }
                Err(error) => {
                    warn!(error = %reply::chain(&error), "recurring schedules wait for the store: {error}");
                    again.rest(over).await;
                }
            }
        }
    }

    /// All occurrences that have come. Each round moves each schedule on, or parks it.
    async fn make_all(&self, over: &CancellationToken) -> Result<(), Error> {
        let now = self.clock.now();
        let look = Look { until: now + AHEAD, ..Look::at(now) };
        while !over.is_cancelled() {
            let due = answer(self.store.due_recurring(look.until, PAGE)).await?;
            for recurring in &due {
                self.make(recurring, look, now).await?;
            }
            if due.is_empty() {
                break;
            }
        }
        Ok(())
    }

    async fn make(&self, recurring: &Recurring, look: Look, now: Timestamp) -> Result<(), Error> {
        let Some(next) = recurring.state.next() else { return Ok(()) };
        let recurrence = match Recurrence::of(recurring) {
            Ok(recurrence) => recurrence,
            Err(invalid) => {
                let id = &recurring.id;
                error!("recurring schedule `{id}` is paused: its rule cannot be read: {invalid}");
                answer(self.store.change_recurring(id, recurring.state, State::Paused { next }, 0)).await?;
                return Ok(());
            }
        };
        let done = recurring.made + recurring.skipped;
        let mut up = recurrence.catch_up(next, done, recurring.on_missed, look);
        // What is skipped comes before what is made: the rest can wait for the next round.
        let fit = (TRANSACTION_BYTES / (recurring.data.len() + ROW_BYTES)).clamp(1, MAKE_MAX);
        if up.make.len() > fit {
            up.next = Some(up.make[fit]);
            up.make.truncate(fit);
        }
        let events = up.make.into_iter().map(|at| (at, self.occurrence(recurring, at, now))).collect();
        let then = up.next.map_or(State::Finished, |next| State::Active { next });
        let occurrences = Occurrences { id: recurring.id.clone(), next, events, then, skipped: up.skipped };
        let kept = answer(self.store.materialise(&occurrences)).await?;
        self.plan.scheduled(&kept);
        Ok(())
    }

    fn occurrence(&self, recurring: &Recurring, at: Timestamp, now: Timestamp) -> NewEvent {
        NewEvent {
            id: EventId::new(&self.clock),
            category: recurring.category.clone(),
            key: recurring.key.clone(),
            priority: recurring.priority,
            data: recurring.data.clone(),
            created_at: now,
            fire_at: at,
            owner: recurring.owner.clone(),
            recurring: Some(recurring.id.clone()),
        }
    }
}

//! Recurring schedules become events: a little ahead of their times, so that these fire like all others; each nominal time once.
//!
//! It goes in passes. Each begins with what comes now, of all schedules, and only then serves those that lag behind, because they were
//! paused or the service was down: a transaction of theirs, and what it made has fired before the next. So a schedule with a year to make
//! up for holds up nobody.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use notifyx_chassis::reply;
use notifyx_model::{Clock, EventId, Fault, Invalid, Kind, Timestamp};
use tokio::{task::spawn_blocking, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use super::{AGAIN_MIN, Again, Driver, LOOK, answer, rest};
use crate::{
    Error,
    event::NewEvent,
    recurrence::{Look, MAKE_MAX, Recurrence},
    recurring::{Recurring, State},
    store::{Occurrences, Reached},
};

/// Twice the time between two looks: an occurrence waits in the schedule before its time comes. A pause comes that much too late.
pub(super) const AHEAD: Duration = LOOK.saturating_mul(2);

/// Recurring schedules per page.
const PAGE: u32 = 100;

/// Of those that lag behind, whose occurrences are heavy or many: a transaction is full with one of them.
const PAGE_LATE: u32 = 10;

/// Of one transaction, in data and rows, as for what callers schedule.
const TRANSACTION_BYTES: usize = 1 << 20;
const ROW_BYTES: usize = 1 << 10;

/// What one look makes of a recurring schedule.
struct Step {
    occurrences: Occurrences,
    /// More of it has come than one transaction makes.
    goes_on: bool,
    bytes: usize,
}

/// A round over those that lag behind.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// The one that was served last.
    after: String,
    /// One of those that were served has more to make.
    goes_on: bool,
}

impl Driver {
    pub(super) async fn occur(&self, over: &CancellationToken) {
        let (mut again, mut round) = (Again::default(), Round::default());
        // When the last pass that came to its end began: since then only this work has kept anybody from looking.
        let mut passed: Option<Instant> = None;
        while !over.is_cancelled() {
            let began = Instant::now();
            let busy = passed.map_or(Duration::ZERO, |passed| began - passed);
            match self.pass(Look::new(self.clock.now(), AHEAD, busy), &mut round, over).await {
                Ok(goes_on) => {
                    (passed, again) = (Some(began), Again::default());
                    if goes_on {
                        self.rest_until_fired(over).await;
                    } else {
                        rest(LOOK, &self.plan.calls.recurring, over).await;
                    }
                }
                Err(error) => {
                    warn!(error = %reply::chain(&error), "recurring schedules wait for the store: {error}");
                    passed = None;
                    again.rest(over).await;
                }
            }
        }
    }

    /// Whether there is more to make at once.
    async fn pass(&self, look: Look, round: &mut Round, over: &CancellationToken) -> Result<bool, Error> {
        Ok(self.make_due(look, over).await? | self.make_late(look, round).await?)
    }

    /// What comes now, of all schedules.
    pub(super) async fn make_due(&self, look: Look, over: &CancellationToken) -> Result<bool, Error> {
        let (mut at, mut id, mut goes_on) = (look.missed_before, String::new(), false);
        while !over.is_cancelled() {
            let page = answer(self.store.due_recurring((at, &id), look.until, PAGE)).await?;
            let is_last = page.len() < PAGE as usize;
            if let Some(last) = page.last() {
                (at, id) = (last.at, last.id.clone());
            }
            let steps = self.steps(page, look).await?;
            let mut rest = steps.as_slice();
            while !rest.is_empty() {
                let (now, later) = rest.split_at(fitting(rest));
                goes_on |= self.make(now).await?;
                rest = later;
            }
            if is_last {
                break;
            }
        }
        Ok(goes_on)
    }

    /// Of those that lag behind, one transaction; whether there is more.
    pub(super) async fn make_late(&self, look: Look, round: &mut Round) -> Result<bool, Error> {
        let page = answer(self.store.late_recurring(look.missed_before, &round.after, PAGE_LATE)).await?;
        let is_last = page.len() < PAGE_LATE as usize;
        let end = page.last().map(|last| last.id.clone());
        let steps = self.steps(page, look).await?;
        let now = &steps[..fitting(&steps)];
        round.goes_on |= self.make(now).await?;
        match (now.last(), end) {
            (Some(last), _) if now.len() < steps.len() => round.after = last.occurrences.id.to_string(),
            (_, Some(end)) if !is_last => round.after = end,
            // Behind the last one the first comes again.
            _ => return Ok(std::mem::take(round).goes_on),
        }
        Ok(true)
    }

    /// In one transaction. If it fails because of what is in it, it is halved until what fails stands alone. Whether one of those that
    /// were made goes on.
    async fn make(&self, steps: &[Step]) -> Result<bool, Error> {
        let mut goes_on = false;
        // What is still to be made, the next of it last.
        let mut rest = if steps.is_empty() { Vec::new() } else { vec![steps] };
        while let Some(some) = rest.pop() {
            let occurrences: Vec<Occurrences> = some.iter().map(|step| step.occurrences.clone()).collect();
            match answer(self.store.materialise(&occurrences)).await {
                Ok(kept) => {
                    self.plan.scheduled(&kept);
                    goes_on |= some.iter().any(|step| step.goes_on);
                }
                Err(error) if error.kind() == Kind::Internal && some.len() > 1 => {
                    warn!("{} schedules cannot be served together ({error}): trying them in halves", some.len());
                    let (first, second) = some.split_at(some.len() / 2);
                    rest.extend([second, first]);
                }
                Err(error) if error.kind() == Kind::Internal => {
                    // It stays where it stands, and is tried again at the next pass.
                    let id = &some[0].occurrences.id;
                    error!(error = %reply::chain(&error), "recurring schedule `{id}` makes no events: {error}");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(goes_on)
    }

    /// What is to be made of each that can be read. Its rule is its owner's, and may take its time: it is not evaluated where others
    /// fire.
    async fn steps(&self, page: Vec<Reached>, look: Look) -> Result<Vec<Step>, Error> {
        let mut good = Vec::with_capacity(page.len());
        for Reached { id, recurring, .. } in page {
            match recurring {
                Ok(recurring) => good.push(recurring),
                Err(error) => {
                    error!(error = %reply::chain(&error), "recurring schedule `{id}` cannot be read: {error}");
                }
            }
        }
        if good.is_empty() {
            return Ok(Vec::new());
        }
        let clock = self.clock.clone();
        let looked_at = spawn_blocking(move || {
            // A rule that breaks off breaks off by itself.
            let broken = |_| Err(Invalid::new("rule", "breaks off when it is evaluated"));
            let look_at = |one: Recurring| {
                (catch_unwind(AssertUnwindSafe(|| step(&one, look, &clock))).unwrap_or_else(broken), one)
            };
            good.into_iter().map(look_at).collect::<Vec<_>>()
        });
        // The runtime stops last: nobody waits for this any more.
        let Ok(looked_at) = looked_at.await else { return std::future::pending().await };
        let mut steps = Vec::with_capacity(looked_at.len());
        for (step, recurring) in looked_at {
            match step {
                Ok(step) => steps.extend(step),
                Err(invalid) => self.park(&recurring, &invalid).await?,
            }
        }
        Ok(steps)
    }

    async fn park(&self, recurring: &Recurring, invalid: &Invalid) -> Result<(), Error> {
        let Some(next) = recurring.state.next() else { return Ok(()) };
        let id = &recurring.id;
        error!("recurring schedule `{id}` is paused: its rule cannot be read: {invalid}");
        answer(self.store.change_recurring(id, recurring.state, State::Paused { next })).await.map(drop)
    }

    /// Until nothing that is due waits, or a second: what is made late stands before what is due now, for its time is earlier.
    async fn rest_until_fired(&self, over: &CancellationToken) {
        let end = Instant::now() + LOOK;
        while self.plan.earliest().is_some_and(|at| at < self.clock.now()) && Instant::now() < end {
            rest(AGAIN_MIN, &self.plan.calls.recurring, over).await;
            if over.is_cancelled() {
                return;
            }
        }
    }
}

/// How many of the next fit into one transaction: at least one.
fn fitting(steps: &[Step]) -> usize {
    let mut bytes = 0;
    let fit = steps.iter().take_while(|step| {
        bytes += step.bytes;
        bytes <= TRANSACTION_BYTES
    });
    fit.count().clamp(steps.len().min(1), steps.len())
}

/// `None`: it comes no more.
fn step(recurring: &Recurring, look: Look, clock: &Clock) -> Result<Option<Step>, Invalid> {
    let Some(next) = recurring.state.next() else { return Ok(None) };
    let done = recurring.made + recurring.skipped;
    let mut up = Recurrence::of(recurring)?.catch_up(next, done, recurring.on_missed, look);
    let row_bytes = recurring.data.len() + ROW_BYTES;
    let fit = (TRANSACTION_BYTES / row_bytes).clamp(1, MAKE_MAX);
    // What is skipped comes before what is made: the rest can wait for the next pass.
    if up.make.len() > fit {
        up.next = Some(up.make[fit]);
        up.make.truncate(fit);
    }
    let now = clock.now();
    let event = |at: Timestamp| NewEvent {
        id: EventId::new(clock),
        category: recurring.category.clone(),
        key: recurring.key.clone(),
        priority: recurring.priority,
        data: recurring.data.clone(),
        created_at: now,
        fire_at: at,
        owner: recurring.owner.clone(),
        recurring: Some(recurring.id.clone()),
    };
    let bytes = ROW_BYTES + row_bytes * up.make.len();
    let events = up.make.into_iter().map(|at| (at, event(at))).collect();
    let goes_on = up.next.is_some_and(|next| next <= look.until);
    let id = recurring.id.clone();
    Ok(Some(Step { occurrences: Occurrences { id, next, events, then: up.next, skipped: up.skipped }, goes_on, bytes }))
}

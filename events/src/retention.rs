//! The sweep: makes room for the days to come, and drops events that are too old or too many, with their ids.
//!
//! In small transactions with pauses between them, so that it is never in the way; several instances may sweep at once.

use std::{sync::Arc, time::Duration};

use notifyx_chassis::reply;
use notifyx_model::{Category, Clock, EventId};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};
use tokio_util::sync::CancellationToken;

use crate::{Config, Error, store::Store};

/// Room for tomorrow and the day after is there in time, even if a sweep fails for a day.
const DAYS_AHEAD: u32 = 2;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Transactions of each sort before a sweep looks at something else.
const STEPS_MAX: usize = 100;

/// Categories per look.
const CATEGORIES: u32 = 1_000;

/// Ids looked at in one transaction.
const IDS: u32 = 1_000;

/// What a step takes at most before it counts as failed; a day of Postgres is dropped in one.
const STEP_MAX: Duration = Duration::from_secs(60);

pub struct Sweeper {
    store: Arc<dyn Store>,
    clock: Clock,
    interval: Duration,
    keep: Duration,
    /// Events of one category.
    keep_events: u64,
    /// Events per transaction.
    rows: u32,
    ids: Ids,
}

/// The walk over ids, which goes on at the next sweep.
#[derive(Default)]
struct Ids {
    after: Option<EventId>,
    /// Something was dropped since the walk began: another is to follow.
    again: bool,
}

impl std::fmt::Debug for Sweeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sweeper")
            .field("keep", &self.keep)
            .field("keep_events", &self.keep_events)
            .finish_non_exhaustive()
    }
}

impl Sweeper {
    pub fn new(store: Arc<dyn Store>, clock: Clock, config: &Config) -> Self {
        Self {
            store,
            clock,
            interval: Duration::from_millis(config.sweep_ms.get()),
            keep: config.keep_days.span(),
            keep_events: config.keep_events.get(),
            rows: config.trim_rows.get(),
            // What was dropped before the last stop may still have its ids.
            ids: Ids { after: None, again: true },
        }
    }

    /// Sweeps now and at each interval until `stop`.
    pub async fn run(&mut self, stop: &CancellationToken) {
        let mut ticks = interval(self.interval);
        // A sweep that took long is not followed by a burst of them.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while stop.run_until_cancelled(ticks.tick()).await.is_some() {
            // Given up at the end, a step is rolled back: the next start begins with it.
            if let Some(Err(error)) = stop.run_until_cancelled(self.sweep(stop)).await {
                tracing::warn!(error = %reply::chain(&error), "the sweep failed and will be tried again: {error}");
            }
        }
    }

    /// Until nothing is left to drop, or `stop`.
    pub(crate) async fn sweep(&mut self, stop: &CancellationToken) -> Result<(), Error> {
        self.open_days().await?;
        loop {
            let more = self.trim_old(stop).await? | self.trim_long(stop).await?;
            self.forget(stop).await?;
            if !more || stop.is_cancelled() {
                return Ok(());
            }
            self.open_days().await?;
        }
    }

    async fn open_days(&self) -> Result<(), Error> {
        let now = self.clock.now();
        for ahead in 0..=DAYS_AHEAD {
            step(self.store.open_day(now + DAY * ahead)).await?;
        }
        Ok(())
    }

    /// By age. Whether there is more.
    async fn trim_old(&mut self, stop: &CancellationToken) -> Result<bool, Error> {
        let before = self.clock.now() - self.keep;
        for _ in 0..STEPS_MAX {
            if stop.is_cancelled() || step(self.store.trim_before(before, self.rows)).await? == 0 {
                return Ok(false);
            }
            self.ids.again = true;
        }
        Ok(true)
    }

    /// By count. Whether there is more.
    async fn trim_long(&mut self, stop: &CancellationToken) -> Result<bool, Error> {
        let (mut after, mut steps): (Option<Category>, usize) = (None, 0);
        loop {
            let long = step(self.store.list_long(self.keep_events, after.as_ref(), CATEGORIES)).await?;
            for category in &long {
                loop {
                    if stop.is_cancelled() || steps == STEPS_MAX {
                        return Ok(!stop.is_cancelled());
                    }
                    steps += 1;
                    let gone = step(self.store.trim_to(category, self.keep_events, self.rows)).await?;
                    self.ids.again |= gone > 0;
                    if gone < u64::from(self.rows) {
                        break;
                    }
                }
            }
            match long.into_iter().last() {
                Some(last) => after = Some(last),
                None => return Ok(false),
            }
        }
    }

    /// Ids of what was dropped in bulk, some of them.
    async fn forget(&mut self, stop: &CancellationToken) -> Result<(), Error> {
        for _ in 0..STEPS_MAX {
            if self.ids.after.is_none() && !std::mem::take(&mut self.ids.again) || stop.is_cancelled() {
                break;
            }
            self.ids.after = step(self.store.forget(self.ids.after.as_ref(), IDS)).await?;
        }
        Ok(())
    }
}

/// One transaction; then the store is everybody else's for as long as that took.
async fn step<T>(asked: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let began = Instant::now();
    let done = tokio::time::timeout(STEP_MAX, asked).await.unwrap_or(Err(Error::Silent))?;
    sleep(began.elapsed()).await;
    Ok(done)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use notifyx_database::{Database, testing};
    use notifyx_model::{ManualClock, Priority};

    use super::*;
    use crate::{
        event::NewEvent,
        store::{self, MIGRATIONS},
    };

    async fn sweep_drops_what_is_old_and_what_is_too_much(database: &Database) {
        let hand = ManualClock::new();
        let (clock, store) = (hand.clock(), store::open(database, &hand.clock()));
        let (many, few) = (Category::parse("many").unwrap(), Category::parse("few").unwrap());
        let append = async |category: &Category, numbers: std::ops::Range<u32>| {
            let event = |i: u32| NewEvent {
                id: EventId::parse(&i.to_string()).unwrap(),
                category: category.clone(),
                key: None,
                priority: Priority::default(),
                data: Bytes::from_static(b"1"),
                created_at: clock.now(),
                fire_at: clock.now(),
                owner: None,
                recurring: None,
            };
            store.append(&numbers.map(event).collect::<Vec<_>>(), clock.now()).await.unwrap()
        };
        let config = Config {
            keep_days: 3.try_into().unwrap(),
            keep_events: 10.try_into().unwrap(),
            trim_rows: 4.try_into().unwrap(),
            ..Config::default()
        };
        let (mut sweeper, going) = (Sweeper::new(store.clone(), clock.clone(), &config), CancellationToken::new());
        sweeper.sweep(&going).await.unwrap();
        append(&few, 0..5).await;
        append(&many, 0..25).await;
        sweeper.sweep(&going).await.unwrap();
        let heads = store.heads(&[few.clone(), many.clone()]).await.unwrap();
        assert_eq!(heads.iter().map(|head| (head.offset, head.trimmed)).collect::<Vec<_>>(), [(5, 0), (25, 15)]);

        // A day more than asked: Postgres drops whole days.
        hand.advance(DAY * 4);
        append(&many, 25..26).await;
        sweeper.sweep(&going).await.unwrap();
        let heads = store.heads(&[few.clone(), many]).await.unwrap();
        assert_eq!(heads.iter().map(|head| (head.offset, head.trimmed)).collect::<Vec<_>>(), [(5, 5), (26, 25)]);
        assert!(!append(&few, 0..1).await[0].duplicate, "its id is free");

        let stopped = CancellationToken::new();
        stopped.cancel();
        sweeper.run(&stopped).await;
    }

    #[tokio::test]
    async fn on_sqlite() {
        sweep_drops_what_is_old_and_what_is_too_much(&testing::sqlite(&MIGRATIONS).await.database).await;
    }

    #[tokio::test]
    async fn on_postgres() {
        sweep_drops_what_is_old_and_what_is_too_much(&testing::postgres(&MIGRATIONS).await.database).await;
    }
}

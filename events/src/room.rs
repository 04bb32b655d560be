//! How many events may wait, and whether there is room for more.
//!
//! Known is an upper bound: what was counted in the store, and all that was let in since. It is counted anew where the bound says that
//! there is no room, and where the count is old, for other instances let in, too. What fires or is cancelled makes room at the next count.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use crate::{Error, store::Store};

/// How long a count is trusted. Another instance may have had the lease meanwhile, and let in what this one did not see.
const TRUSTED: Duration = Duration::from_secs(60);

/// Who asks while there is no room does not have it counted more often than this.
const COUNTED_EVERY: Duration = Duration::from_secs(1);

pub struct Room {
    store: Arc<dyn Store>,
    most: u64,
    known: Mutex<Known>,
    /// Somebody counts: the others go by what is known.
    counting: AtomicBool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// Never less than what waits, but for what other instances let in.
    at_most: u64,
    /// In all, since this instance began.
    let_in: u64,
    counted: Option<Instant>,
}

impl fmt::Debug for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Room").field("most", &self.most).field("known", &self.known()).finish_non_exhaustive()
    }
}

impl Room {
    pub fn new(store: Arc<dyn Store>, most: u64) -> Self {
        Self { store, most, known: Mutex::default(), counting: AtomicBool::new(false) }
    }

    /// Lets in so many events or fewer; how many.
    pub async fn enter(&self, events: usize) -> Result<usize, Error> {
        let wanted = events as u64;
        if self.known().is_doubtful(wanted, self.most) {
            self.count().await?;
        }
        let mut known = self.known();
        let entered = wanted.min(self.most.saturating_sub(known.at_most));
        known.at_most += entered;
        known.let_in += entered;
        Ok(usize::try_from(entered).expect("no more than were asked for"))
    }

    /// What is said to who finds no room.
    pub fn full(&self) -> Error {
        Error::ScheduleFull { most: self.most }
    }

    async fn count(&self) -> Result<(), Error> {
        let Some(_one) = One::of(&self.counting) else { return Ok(()) };
        let before = self.known().let_in;
        let count = self.store.count_waiting().await?;
        let mut known = self.known();
        // Of what was let in meanwhile it is not known whether it was counted.
        known.at_most = count + (known.let_in - before);
        known.counted = Some(Instant::now());
        Ok(())
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    fn is_doubtful(&self, wanted: u64, most: u64) -> bool {
        let Some(counted) = self.counted else { return true };
        let is_full = self.at_most + wanted > most;
        counted.elapsed() >= if is_full { COUNTED_EVERY } else { TRUSTED }
    }
}

/// The only one at a time, whatever becomes of it.
struct One<'a>(&'a AtomicBool);

impl<'a> One<'a> {
    fn of(taken: &'a AtomicBool) -> Option<Self> {
        (!taken.swap(true, Ordering::AcqRel)).then_some(Self(taken))
    }
}

impl Drop for One<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use notifyx_database::testing;
    use notifyx_model::{Category, Clock, EventId, ManualClock, Priority};

    use super::*;
    use crate::{
        event::NewEvent,
        store::{self, MIGRATIONS, Named},
    };

    fn event(id: &str, clock: &Clock) -> NewEvent {
        NewEvent {
            id: EventId::parse(id).unwrap(),
            category: Category::parse("a").unwrap(),
            key: None,
            priority: Priority::default(),
            data: Bytes::from_static(b"null"),
            created_at: clock.now(),
            fire_at: clock.now(),
            owner: None,
            recurring: None,
        }
    }

    /// The count becomes so much older.
    fn age(room: &Room, by: Duration) {
        let mut known = room.known();
        known.counted = known.counted.map(|at| at.checked_sub(by).unwrap());
    }

    #[tokio::test]
    async fn no_more_are_let_in_than_there_is_room_for() {
        let kept = testing::sqlite(&MIGRATIONS).await;
        let clock = ManualClock::new().clock();
        let store = store::open(&kept.database, &clock);
        store.schedule(&[event("1", &clock), event("2", &clock)]).await.unwrap();
        let room = Room::new(store.clone(), 5);
        assert_eq!(room.enter(2).await.unwrap(), 2, "two wait, and there is room for three");
        assert_eq!(room.enter(2).await.unwrap(), 1);
        assert_eq!(room.enter(1).await.unwrap(), 0);
        assert_eq!(
            room.full().to_string(),
            "5 events wait, as many as may: cancel some, or come back when some have fired"
        );

        // What was let in never came to the store, and one is cancelled: it is seen, but not at once.
        let named = Named { category: Category::parse("a").unwrap(), id: EventId::parse("1").unwrap() };
        store.cancel(&[named]).await.unwrap();
        assert_eq!(room.enter(9).await.unwrap(), 0);
        age(&room, COUNTED_EVERY);
        assert_eq!(room.enter(9).await.unwrap(), 4);
    }

    #[tokio::test]
    async fn what_others_let_in_is_seen_when_the_count_is_old() {
        let kept = testing::sqlite(&MIGRATIONS).await;
        let clock = ManualClock::new().clock();
        let store = store::open(&kept.database, &clock);
        let room = Room::new(store.clone(), 3);
        assert_eq!(room.enter(0).await.unwrap(), 0);
        store.schedule(&[event("1", &clock), event("2", &clock), event("3", &clock)]).await.unwrap();
        assert_eq!(room.enter(1).await.unwrap(), 1, "not yet");
        age(&room, TRUSTED);
        assert_eq!(room.enter(1).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn who_counts_and_is_given_up_is_in_nobodys_way() {
        let kept = testing::sqlite(&MIGRATIONS).await;
        let store = store::open(&kept.database, &ManualClock::new().clock());
        let room = Room::new(store, 1);
        drop(One::of(&room.counting).unwrap());
        assert!(One::of(&room.counting).is_some());
        assert_eq!(room.enter(2).await.unwrap(), 1);
    }
}

//! The rules of events: what is appended, scheduled, cancelled, given another time, and read.
//!
//! Any instance serves any of them. On the one that drives the schedule they are known to it at once, elsewhere within a second.

use std::{fmt, sync::Arc, time::Duration};

use notifyx_model::{Category, EventId, Timestamp};

use crate::{
    Error,
    event::{Event, NewEvent},
    plan::Plan,
    queue::Lateness,
    room::Room,
    store::{Change, Head, Kept, Named, Page, Read, Slot, Store, Which},
    writer::Writer,
};

pub struct Schedule {
    store: Arc<dyn Store>,
    writer: Writer,
    plan: Arc<Plan>,
    room: Room,
}

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Schedule").finish_non_exhaustive()
    }
}

/// Names an event: by its id alone where one category only has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRef {
    pub id: EventId,
    pub category: Option<Category>,
}

/// A category's queue, as the instance that drives the schedule sees it.
#[derive(Clone, Debug)]
pub struct Queue {
    pub category: Category,
    /// Events in the window.
    pub size: u64,
    pub capacity: u64,
    /// Of the window.
    pub earliest: Option<Timestamp>,
    pub latest: Option<Timestamp>,
    /// Events that wait in the store beyond the window.
    pub backlog: u64,
    /// Since this instance drives, and at most since the category was silent for an hour.
    pub fired: u64,
    /// `None`: none fired.
    pub lateness: Option<Quantiles>,
}

/// How late events were committed to the log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quantiles {
    pub p50: Duration,
    pub p90: Duration,
    pub p99: Duration,
    pub max: Duration,
}

impl Schedule {
    pub fn new(store: Arc<dyn Store>, writer: Writer, plan: Arc<Plan>, room: Room) -> Self {
        Self { store, writer, plan, room }
    }

    /// A result for each, in their order, once they are in the store. A time that has passed fires at once. Where there is no room for
    /// all, the first of them are taken.
    pub async fn schedule(&self, mut events: Vec<NewEvent>) -> Vec<Result<Kept, Error>> {
        let asked = events.len();
        match self.room.enter(asked).await {
            Ok(entered) => events.truncate(entered),
            Err(error) => {
                let error = Arc::new(error);
                return (0..asked).map(|_| Err(Error::Shared(error.clone()))).collect();
            }
        }
        let refused = asked - events.len();
        let mut results = self.writer.schedule(events).await;
        results.extend((0..refused).map(|_| Err(self.room.full())));
        results
    }

    /// A result for each, in their order, once they are in the log.
    pub async fn append(&self, events: Vec<NewEvent>) -> Vec<Result<Kept, Error>> {
        self.writer.append(events).await
    }

    /// Takes an event out of the schedule; as it was.
    pub async fn cancel(&self, event: &EventRef) -> Result<Event, Error> {
        let named = self.named(event).await?;
        done(self.writer.cancel(named.clone()).await?, named.id)
    }

    /// Gives an event of the schedule another time; as it is now. One that has fired at that time is there already: the order may have
    /// been given before, and its answer lost.
    pub async fn reschedule(&self, event: &EventRef, at: Timestamp) -> Result<Event, Error> {
        let named = self.named(event).await?;
        match self.writer.reschedule(named.clone(), at).await? {
            Change::Fired(event) if event.given.fire_at == at => Ok(event),
            change => done(change, named.id),
        }
    }

    pub async fn get(&self, event: &EventRef) -> Result<Event, Error> {
        let mut found = self.store.find(&event.id, event.category.as_ref()).await?;
        match (found.pop(), found.is_empty()) {
            (Some(event), true) => Ok(event),
            (Some(_), false) => Err(Error::IdAmbiguous(event.id.clone())),
            (None, _) => Err(Error::EventNotFound(event.id.clone())),
        }
    }

    /// What waits, soonest first, and behind which slot the next page begins; `None`: this was the last.
    pub async fn list(
        &self,
        which: Which<'_>,
        after: Option<Slot>,
        page: Page,
    ) -> Result<(Vec<Event>, Option<Slot>), Error> {
        let events = self.store.waiting(which, after, page).await?;
        let bytes: usize = events.iter().map(|event| event.given.data.len()).sum();
        let cut = events.len() >= page.limit as usize || bytes >= page.bytes as usize;
        let last = events.last().filter(|_| cut).and_then(Event::slot);
        Ok((events, last))
    }

    /// A category's log above an offset.
    pub async fn read(&self, category: &Category, after: u64, page: Page) -> Result<Read, Error> {
        self.store.read(category, after, page).await
    }

    /// Where categories stand, in the order asked.
    pub async fn heads(&self, categories: &[Category]) -> Result<Vec<Head>, Error> {
        self.store.heads(categories).await
    }

    /// How the queues of these categories do, in the order asked.
    pub async fn queues(&self, categories: &[Category]) -> Result<Vec<Queue>, Error> {
        Ok(self.store.heads(categories).await?.into_iter().map(|head| self.queue(head)).collect())
    }

    /// How the queues do in which something waits, by name.
    pub async fn list_queues(&self, after: Option<&Category>, limit: u32) -> Result<Vec<Queue>, Error> {
        Ok(self.store.backlogs(after, limit).await?.into_iter().map(|head| self.queue(head)).collect())
    }

    /// Who holds the schedule's lease now.
    pub async fn holder(&self) -> Result<Option<String>, Error> {
        Ok(self.store.lease().await?.map(|lease| lease.holder))
    }

    /// Orders, and pieces of those of many events, that wait for their transaction.
    pub fn queued(&self) -> usize {
        self.writer.queued()
    }

    fn queue(&self, head: Head) -> Queue {
        let (figures, lateness) = (self.plan.figures(&head.category), self.plan.lateness(&head.category));
        let size = figures.map_or(0, |figures| figures.size as u64);
        Queue {
            size,
            capacity: self.plan.capacity() as u64,
            earliest: figures.and_then(|figures| figures.earliest),
            latest: figures.and_then(|figures| figures.latest),
            backlog: head.waiting.saturating_sub(size),
            fired: lateness.as_ref().map_or(0, Lateness::fired),
            lateness: lateness.as_ref().and_then(quantiles),
            category: head.category,
        }
    }

    async fn named(&self, event: &EventRef) -> Result<Named, Error> {
        let category = match &event.category {
            Some(category) => category.clone(),
            None => self.get(event).await?.given.category,
        };
        Ok(Named { category, id: event.id.clone() })
    }
}

fn done(change: Change, id: EventId) -> Result<Event, Error> {
    match change {
        Change::Done(event) | Change::Moved(event, _) => Ok(event),
        Change::Fired(event) => {
            let offset = event.offset().unwrap_or_default();
            Err(Error::EventFired { id, category: event.given.category, offset })
        }
        Change::Unknown => Err(Error::EventNotFound(id)),
    }
}

fn quantiles(lateness: &Lateness) -> Option<Quantiles> {
    Some(Quantiles {
        p50: lateness.quantile(0.5)?,
        p90: lateness.quantile(0.9)?,
        p99: lateness.quantile(0.99)?,
        max: lateness.quantile(1.0)?,
    })
}

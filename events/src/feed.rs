//! What this instance appends to the log, for those who watch: the newest of it, bounded by its weight.
//!
//! Nobody is waited for: who reads too slowly is told that something is missing, and reads it from the store. What fires and what is
//! appended commits side by side, so offsets of one category may come out of order: a watcher puts them in order, as it does with
//! what other instances append.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::watch;

use crate::event::Event;

/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct Feed(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    ring: Mutex<Ring>,
    bytes_max: usize,
    /// The number of the next batch.
    end: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Ring {
    /// The newest, with what each weighs.
    batches: VecDeque<(Arc<[Event]>, usize)>,
    bytes: usize,
    end: u64,
}

impl Ring {
    fn begin(&self) -> u64 {
        self.end - self.batches.len() as u64
    }
}

/// What an event weighs besides its data.
const EVENT_BYTES: usize = 256;

/// What data and rows of these events weigh.
pub(crate) fn weight(events: &[Event]) -> usize {
    events.iter().map(|event| event.given.data.len() + EVENT_BYTES).sum()
}

impl Feed {
    /// Keeps about so many bytes for watchers that are behind, or one batch.
    pub fn new(bytes_max: usize) -> Self {
        Self(Arc::new(Inner { ring: Mutex::default(), bytes_max, end: watch::Sender::new(0) }))
    }

    /// What was committed just now.
    pub(crate) fn publish(&self, events: Vec<Event>) {
        if events.is_empty() {
            return;
        }
        let bytes = weight(&events);
        let end = {
            let mut ring = self.0.ring();
            ring.end += 1;
            if self.0.end.receiver_count() == 0 {
                ring.batches.clear();
                ring.bytes = 0;
            } else {
                ring.batches.push_back((events.into(), bytes));
                ring.bytes += bytes;
                while ring.bytes > self.0.bytes_max && ring.batches.len() > 1 {
                    ring.bytes -= ring.batches.pop_front().map_or(0, |(_, bytes)| bytes);
                }
            }
            ring.end
        };
        self.0.end.send_replace(end);
    }

    /// From now on.
    pub fn watch(&self) -> Watcher {
        // Publishing holds the ring: nothing gets lost between the two.
        let ring = self.0.ring();
        Watcher { next: ring.end, end: self.0.end.subscribe(), feed: self.0.clone() }
    }
}

impl Inner {
    fn ring(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
pub struct Watcher {
    feed: Arc<Inner>,
    next: u64,
    end: watch::Receiver<u64>,
}

/// What a watcher sees.
#[derive(Clone, Debug)]
pub enum News {
    /// As one transaction appended them.
    Appended(Arc<[Event]>),
    /// Something was appended that is no longer kept here.
    Missed,
}

impl Watcher {
    pub async fn next(&mut self) -> News {
        loop {
            if let Some(news) = self.look() {
                return news;
            }
            self.end.changed().await.expect("the watcher itself keeps the feed");
        }
    }

    fn look(&mut self) -> Option<News> {
        let ring = self.feed.ring();
        let begin = ring.begin();
        if self.next < begin {
            self.next = begin;
            return Some(News::Missed);
        }
        let place = usize::try_from(self.next - begin).ok()?;
        let (batch, _) = ring.batches.get(place)?;
        self.next += 1;
        Some(News::Appended(batch.clone()))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use notifyx_model::{Category, EventId, Priority, Timestamp};

    use super::*;
    use crate::event::{NewEvent, Place};

    fn event(offset: u64) -> Event {
        let at = Timestamp::from_micros(0);
        let given = NewEvent {
            id: EventId::parse(&offset.to_string()).unwrap(),
            category: Category::parse("a").unwrap(),
            key: None,
            priority: Priority::default(),
            data: Bytes::from(vec![b'1'; 1_000]),
            created_at: at,
            fire_at: at,
            owner: None,
            recurring: None,
        };
        Event { given, place: Place::Fired { offset, at } }
    }

    fn offset(news: &News) -> Option<u64> {
        match news {
            News::Appended(events) => events[0].offset(),
            News::Missed => None,
        }
    }

    #[tokio::test]
    async fn each_watcher_sees_what_was_appended_since_it_came() {
        let feed = Feed::new(1 << 20);
        feed.publish(vec![event(1)]);
        let mut early = feed.watch();
        feed.publish(vec![event(2)]);
        let mut late = feed.watch();
        let waiting = tokio::spawn(async move { late.next().await });
        feed.publish(vec![event(3)]);
        assert_eq!(offset(&waiting.await.unwrap()), Some(3));
        assert_eq!((offset(&early.next().await), offset(&early.next().await)), (Some(2), Some(3)));
    }

    #[tokio::test]
    async fn a_slow_watcher_is_told_what_it_missed_and_goes_on_with_what_is_kept() {
        let feed = Feed::new(3_000);
        let mut watcher = feed.watch();
        for number in 1..=10 {
            feed.publish(vec![event(number)]);
        }
        let mut seen = Vec::new();
        for _ in 0..3 {
            seen.push(offset(&watcher.next().await));
        }
        assert_eq!(seen, [None, Some(9), Some(10)]);
        drop(watcher);
        feed.publish(vec![event(11)]);
        assert_eq!(feed.0.ring().bytes, 0, "nobody watches: nothing is kept");
    }
}

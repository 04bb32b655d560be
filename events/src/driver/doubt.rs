//! Firings whose answer was lost: the next try finds nothing of what was committed all the same. What they appended is read back from the
//! log, so that those who watch hear of it and it is counted. A hint like all that the feed carries: the log itself lacks nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use notifyx_chassis::reply;
use notifyx_model::{Category, Timestamp};
use tracing::warn;

use super::{Driver, answer};
use crate::{
    Error,
    event::{Event, Place},
    store::{Due, Page},
};

/// Events that are looked at from a category's newest on, for those of one batch among what others appended since.
const PAGE: Page = Page { limit: 500, bytes: 4 << 20 };
const PAGES_MAX: usize = 4;

/// The numbers of events that may have fired, and the times of the tries.
#[derive(Debug, Default)]
pub(super) struct Doubt(HashMap<u64, BTreeSet<Timestamp>>);

/// What is missing of a category.
#[derive(Debug, Default)]
struct Missing {
    count: usize,
    times: BTreeSet<Timestamp>,
}

impl Doubt {
    /// A try at this time was not answered.
    pub(super) fn add(&mut self, due: &[Due], at: Timestamp) {
        for due in due {
            self.0.entry(due.slot.seq).or_default().insert(at);
        }
    }

    /// All that is due was tried again.
    pub(super) fn clear(&mut self) {
        self.0 = HashMap::new();
    }

    /// These were tried again, and of them these fired now.
    fn settle(&mut self, tried: &[Due], fired: &[Event]) -> BTreeMap<Category, Missing> {
        let mut missing: BTreeMap<Category, Missing> = BTreeMap::new();
        for due in tried {
            if let Some(times) = self.0.remove(&due.slot.seq) {
                let missing = missing.entry(due.category.clone()).or_default();
                missing.count += 1;
                missing.times.extend(times);
            }
        }
        for event in fired {
            if let Some(missing) = missing.get_mut(&event.given.category) {
                missing.count = missing.count.saturating_sub(1);
            }
        }
        missing.retain(|_, missing| missing.count > 0);
        missing
    }
}

impl Driver {
    /// Tells what earlier tries fired, now that these were tried again and only some of them fired.
    pub(super) async fn tell_doubtful(&self, doubt: &mut Doubt, tried: &[Due], fired: &[Event]) {
        if doubt.0.is_empty() {
            return;
        }
        for (category, missing) in doubt.settle(tried, fired) {
            match self.appended(&category, &missing, fired).await {
                Ok(events) => self.tell(events, *missing.times.last().expect("a try has its time")),
                Err(error) => {
                    let error = reply::chain(&error);
                    warn!(%error, "what was fired of `{category}` is not told: its watchers find it by themselves");
                }
            }
        }
    }

    /// What those tries appended, in order.
    async fn appended(&self, category: &Category, missing: &Missing, fired: &[Event]) -> Result<Vec<Event>, Error> {
        let (mut found, mut before) = (Vec::new(), None);
        let known: BTreeSet<Option<u64>> =
            fired.iter().filter(|event| event.given.category == *category).map(Event::offset).collect();
        let first = missing.times.first();
        for _ in 0..PAGES_MAX {
            let page = answer(self.store.read_back(category, before, PAGE)).await?.events;
            before = page.last().and_then(Event::offset);
            for event in page {
                let Place::Fired { offset, at } = event.place else { continue };
                if first.is_some_and(|first| at < *first) || found.len() == missing.count {
                    before = None;
                    break;
                }
                if missing.times.contains(&at) && !known.contains(&Some(offset)) {
                    found.push(event);
                }
            }
            if before.is_none() {
                break;
            }
        }
        found.reverse();
        Ok(found)
    }
}

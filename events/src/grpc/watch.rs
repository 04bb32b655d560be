//! Watch: what this instance appends, for one caller.
//!
//! Each category comes strictly by offset. What is missing between two events was appended by another instance, or is on its way here:
//! it is in the store, and is read from there. The caller is not waited for: nothing is read ahead of it but one page, and what the
//! feed no longer keeps is told as heads.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use futures_util::{Stream, stream};
use notifyx_chassis::reply;
use notifyx_model::Category;
use notifyx_wire::grpc::events::{self as wire, watch_reply};
use tonic::{Status, Streaming};

use super::{
    convert::{self, PAGE_BYTES, Refused},
    in_time, refuse,
};
use crate::{
    Error, Events,
    event::Event,
    feed::{News, Watcher},
    store::{Head, Page},
};

/// Events that are fetched for a watcher that was away, or behind a gap: who lacks more reads.
const CATCH_UP_MAX: u64 = 1_000;

/// Categories of one message, and of one stream: 100 MB of names at worst.
const CHANGE_MAX: usize = 10_000;
const WATCHED_MAX: usize = 1_000_000;

/// Categories whose heads are looked at together: some milliseconds.
const HEADS_MAX: usize = 1_000;

pub(super) struct Watch {
    rules: Arc<Events>,
    asked: Streaming<wire::WatchRequest>,
    /// The caller may say more.
    asking: bool,
    watcher: Watcher,
    /// What is watched: the last offset that the caller has, or has been told of.
    watched: HashMap<Category, u64>,
    /// To begin with, in the order asked.
    follows: VecDeque<(Category, Option<u64>)>,
    /// To be read from the store.
    gaps: VecDeque<Gap>,
    /// Categories of which something was missed.
    missed: Vec<Category>,
    /// To be said; of one message of the caller, one page, or one transaction.
    replies: VecDeque<watch_reply::News>,
}

/// Offsets of a category that are read from the store.
struct Gap {
    category: Category,
    after: u64,
    until: u64,
}

impl Watch {
    pub(super) fn new(rules: Arc<Events>, asked: Streaming<wire::WatchRequest>) -> Self {
        Self {
            watcher: rules.feed.watch(),
            rules,
            asked,
            asking: true,
            watched: HashMap::new(),
            follows: VecDeque::new(),
            gaps: VecDeque::new(),
            missed: Vec::new(),
            replies: VecDeque::new(),
        }
    }

    /// What the caller is told, made when the connection has room for it.
    pub(super) fn replies(self) -> impl Stream<Item = Result<wire::WatchReply, Status>> + Send {
        stream::unfold(Some(self), async |watch| {
            let mut watch = watch?;
            match watch.next().await {
                Ok(news) => Some((Ok(wire::WatchReply { news: Some(news) }), Some(watch))),
                // The caller comes again, with the offsets it has.
                Err(status) => Some((Err(status), None)),
            }
        })
    }

    async fn next(&mut self) -> Result<watch_reply::News, Status> {
        loop {
            if let Some(news) = self.replies.pop_front() {
                return Ok(news);
            }
            // In this order, so that whatever comes of a category comes behind what its caller lacks.
            if let Some(gap) = self.gaps.pop_front() {
                self.fill(gap).await.map_err(|error| reply::grpc(&error))?;
            } else if !self.follows.is_empty() {
                self.begin().await.map_err(|error| reply::grpc(&error))?;
            } else if !self.missed.is_empty() {
                self.tell_heads().await.map_err(|error| reply::grpc(&error))?;
            } else {
                tokio::select! {
                    asked = self.asked.message(), if self.asking => match asked? {
                        Some(change) => self.change(change)?,
                        None => self.asking = false,
                    },
                    news = self.watcher.next() => match news {
                        News::Appended(events) => self.appended(&events),
                        News::Missed => self.missed = self.watched.keys().cloned().collect(),
                    },
                }
            }
        }
    }

    fn change(&mut self, change: wire::WatchRequest) -> Result<(), Status> {
        let count = change.follow.len() + change.unfollow.len();
        if count > CHANGE_MAX {
            return Err(refuse(Refused::Categories { count, max: CHANGE_MAX }));
        }
        for name in &change.unfollow {
            // What is no name is not watched.
            if let Ok(category) = Category::parse(name) {
                self.watched.remove(&category);
            }
        }
        for wire::Follow { category, after } in change.follow {
            match Category::parse(&category) {
                Ok(category) => self.follows.push_back((category, after)),
                Err(invalid) => self.not_followed(category, &Refused::Event(invalid)),
            }
        }
        Ok(())
    }

    fn not_followed(&mut self, category: String, refused: &Refused) {
        let problem = Some(convert::problem(refused));
        self.replies.push_back(watch_reply::News::NotFollowed(wire::NotFollowed { category, problem }));
    }

    /// Some of those which are to be watched: what is above the heads that are read now will be seen by the watcher, which was there
    /// before.
    async fn begin(&mut self) -> Result<(), Error> {
        let some: Vec<_> = self.follows.drain(..self.follows.len().min(HEADS_MAX)).collect();
        let names: Vec<Category> = some.iter().map(|(category, _)| category.clone()).collect();
        let heads = in_time(self.rules.schedule.heads(&names)).await?;
        for ((category, after), head) in some.into_iter().zip(heads) {
            if self.watched.len() >= WATCHED_MAX && !self.watched.contains_key(&category) {
                self.not_followed(category.to_string(), &Refused::Watched { max: WATCHED_MAX });
                continue;
            }
            let recovered = after.is_none_or(|after| can_catch_up(after, &head));
            self.watched.insert(category.clone(), head.offset);
            self.replies
                .push_back(watch_reply::News::Followed(wire::Followed { head: Some(convert::head(&head)), recovered }));
            if let Some(after) = after.filter(|after| recovered && *after < head.offset) {
                self.gaps.push_back(Gap { category, after, until: head.offset });
            }
        }
        Ok(())
    }

    /// As one transaction appended them: what is watched, each category in order.
    fn appended(&mut self, events: &[Event]) {
        let mut fresh: Vec<(&Category, u64, &Event)> = Vec::new();
        for event in events {
            let category = &event.given.category;
            let (Some(offset), Some(last)) = (event.offset(), self.watched.get(category)) else { continue };
            if offset > *last {
                fresh.push((category, offset, event));
            }
        }
        fresh.sort_by_key(|(category, offset, _)| (*category, *offset));
        for fresh in fresh.chunk_by(|one, other| one.0 == other.0) {
            let (category, until) = (fresh[0].0, fresh[fresh.len() - 1].1);
            let Some(last) = self.watched.insert(category.clone(), until) else { continue };
            if until - last == fresh.len() as u64 {
                self.say(category, fresh.iter().map(|(_, _, event)| (*event).clone()).collect());
            } else if until - last <= CATCH_UP_MAX {
                self.gaps.push_back(Gap { category: category.clone(), after: last, until });
            } else {
                self.missed.push(category.clone());
            }
        }
    }

    /// In messages of bounded size.
    fn say(&mut self, category: &Category, events: Vec<Event>) {
        let mut bytes = 0;
        let mut message: Vec<wire::Event> = Vec::new();
        let replies = &mut self.replies;
        let mut send = |events: Vec<wire::Event>| {
            replies.push_back(watch_reply::News::Appended(wire::Appended { category: category.to_string(), events }));
        };
        for event in events {
            let more = event.given.data.len();
            if !message.is_empty() && bytes + more > PAGE_BYTES as usize {
                send(std::mem::take(&mut message));
                bytes = 0;
            }
            bytes += more;
            message.push(convert::event(event));
        }
        if !message.is_empty() {
            send(message);
        }
    }

    /// A page of a gap.
    async fn fill(&mut self, gap: Gap) -> Result<(), Error> {
        let Some(last) = self.watched.get(&gap.category).copied() else { return Ok(()) };
        let limit = u32::try_from(gap.until - gap.after).unwrap_or(u32::MAX);
        let page = Page { limit, bytes: PAGE_BYTES };
        let read = in_time(self.rules.schedule.read(&gap.category, gap.after, page)).await?;
        let (first, end) = (read.events.first().and_then(Event::offset), read.events.last().and_then(Event::offset));
        match (first, end) {
            (Some(first), Some(end)) if first == gap.after + 1 => {
                self.say(&gap.category, read.events);
                self.watched.insert(gap.category.clone(), last.max(end));
                if end < gap.until {
                    self.gaps.push_front(Gap { after: end, ..gap });
                }
            }
            // The retention was quicker: the caller learns where the category stands.
            _ => self.missed.push(gap.category),
        }
        Ok(())
    }

    /// Where some of those stand of which something was missed.
    async fn tell_heads(&mut self) -> Result<(), Error> {
        let some = self.missed.split_off(self.missed.len().saturating_sub(HEADS_MAX));
        let heads = in_time(self.rules.schedule.heads(&some)).await?;
        let mut told = Vec::new();
        for head in &heads {
            // Also where nothing seems to be new: what was missed may be what is known to be there.
            if let Some(last) = self.watched.get_mut(&head.category) {
                *last = head.offset.max(*last);
                told.push(convert::head(head));
            }
        }
        if !told.is_empty() {
            self.replies.push_back(watch_reply::News::Heads(wire::HeadsReply { heads: told }));
        }
        Ok(())
    }
}

/// All above `after` is kept, and it is not too much.
fn can_catch_up(after: u64, head: &Head) -> bool {
    after >= head.trimmed && head.offset.checked_sub(after).is_some_and(|lacks| lacks <= CATCH_UP_MAX)
}

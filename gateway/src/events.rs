//! Events as the front door handles them: who may, which event is meant, and how much of it is told.
//!
//! Nothing is told of an event before its category was looked at: what somebody may not read is not there.

use notifyx_chassis::{Denied, User, reply};
use notifyx_mesh::CallError;
use notifyx_model::{Category, EventId, Scopes, Timestamp, Verb};
use notifyx_wire::{
    grpc::events as wire,
    rest::{
        Problem,
        events::{PAGE_DEFAULT, PAGE_MAX, Queue, QueuePage},
    },
};

use crate::{
    Error,
    access::{self, Barred},
    live::Live,
};

/// For whom something is done.
#[derive(Clone, Debug)]
pub(crate) struct By {
    /// `None`: nobody in particular.
    pub(crate) user: Option<User>,
    /// Those of an API key.
    pub(crate) scopes: Option<Scopes>,
}

impl By {
    /// Nobody in particular.
    pub(crate) const ANYBODY: Self = Self { user: None, scopes: None };

    pub(crate) fn check(&self, verb: Verb, category: &Category) -> Result<(), Barred> {
        access::check(self.scopes.as_ref(), verb, category)
    }

    pub(crate) fn may(&self, verb: Verb, category: &str) -> bool {
        Category::parse(category).is_ok_and(|category| self.check(verb, &category).is_ok())
    }

    /// Whoever may publish without credentials may not, for that, change what others have published.
    pub(crate) fn check_known(&self) -> Result<(), Denied> {
        if self.user.is_some() { Ok(()) } else { Err(Denied::Missing) }
    }

    /// Whether a thing may be changed that was found by its id. Who may not even read it is told that it is not there.
    pub(crate) fn check_found(&self, category: &str, not_found: impl FnOnce() -> Error) -> Result<Category, Error> {
        let Ok(category) = Category::parse(category) else { return Err(not_found()) };
        match self.check(Verb::Publish, &category) {
            Ok(()) => Ok(category),
            Err(barred) if self.check(Verb::Subscribe, &category).is_ok() => Err(barred.into()),
            Err(_) => Err(not_found()),
        }
    }
}

/// An event to post, or why it cannot be.
pub(crate) type Asked = Result<(Category, wire::NewEvent), Problem>;

/// An event, and how much of it is told.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Told {
    pub(crate) event: wire::Event,
    pub(crate) duplicate: bool,
    pub(crate) data_omitted: bool,
}

impl Told {
    /// What a change found: with the data of others, which not everybody may read.
    fn found(event: wire::Event, by: &By) -> Self {
        let data_omitted = !by.may(Verb::Subscribe, &event.category);
        Self { event, duplicate: false, data_omitted }
    }

    /// What a post stored is what its publisher said; what it found may be what others said.
    fn posted(stored: wire::Stored, by: &By) -> Self {
        let wire::Stored { event, duplicate, data_omitted } = stored;
        let event = event.unwrap_or_default();
        let data_omitted = data_omitted || (duplicate && !by.may(Verb::Subscribe, &event.category));
        Self { event, duplicate, data_omitted }
    }

    /// What a schedule made.
    pub(crate) fn ran(stored: wire::Stored, by: &By) -> Self {
        Self { duplicate: stored.duplicate, ..Self::found(stored.event.unwrap_or_default(), by) }
    }
}

/// Which events of a category are listed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum State {
    /// The log, by offset.
    #[default]
    Fired,
    /// What waits, soonest first.
    Scheduled,
}

/// The same, with what they are about. The log has no index of keys.
#[derive(Debug)]
pub(crate) enum Which {
    Fired,
    /// Of one key, or all.
    Scheduled(Option<String>),
}

impl Which {
    pub(crate) fn new(state: State, key: Option<String>) -> Result<Self, Error> {
        match (state, key) {
            (State::Fired, None) => Ok(Self::Fired),
            (State::Fired, Some(_)) => Err(Error::KeyOfLog),
            (State::Scheduled, key) => Ok(Self::Scheduled(key)),
        }
    }
}

pub(crate) struct Page {
    pub(crate) events: Vec<wire::Event>,
    pub(crate) next: Option<String>,
    /// Of the log: its last offset, and the first that is still kept.
    pub(crate) bounds: Option<(u64, u64)>,
}

impl Live {
    /// What became of each, in their order.
    pub(crate) async fn post_events(&self, by: &By, events: Vec<Asked>) -> Vec<Result<Told, Problem>> {
        let mut good = Vec::with_capacity(events.len());
        let allowed = |(category, event): (Category, wire::NewEvent)| {
            by.check(Verb::Publish, &category).map(|()| event).map_err(|barred| reply::problem(&barred))
        };
        let places: Vec<Option<Problem>> = events
            .into_iter()
            .map(|asked| match asked.and_then(allowed) {
                Ok(event) => {
                    good.push(event);
                    None
                }
                Err(problem) => Some(problem),
            })
            .collect();
        let mut outcomes = self.backends.events.schedule(by.user.as_ref(), good).await.into_iter();
        let outcome = |place: Option<Problem>| match place {
            Some(problem) => Err(problem),
            None => Ok(Told::posted(outcomes.next().expect("an outcome for each event")?, by)),
        };
        places.into_iter().map(outcome).collect()
    }

    /// Whichever category has it where none is named.
    pub(crate) async fn event(&self, by: &By, id: &EventId, category: Option<&Category>) -> Result<wire::Event, Error> {
        let event = self.find_event(by, Verb::Subscribe, id, category).await?;
        if by.may(Verb::Subscribe, &event.category) { Ok(event) } else { Err(Error::EventNotFound(id.clone())) }
    }

    pub(crate) async fn cancel_event(&self, by: &By, id: &EventId, category: Option<Category>) -> Result<Told, Error> {
        let category = self.category_to_change(by, id, category).await?;
        let event = self.backends.events.cancel(by.user.as_ref(), id, &category).await?;
        Ok(Told::found(event, by))
    }

    pub(crate) async fn reschedule_event(
        &self,
        by: &By,
        id: &EventId,
        category: Option<Category>,
        at: Timestamp,
    ) -> Result<Told, Error> {
        let category = self.category_to_change(by, id, category).await?;
        let event = self.backends.events.reschedule(by.user.as_ref(), id, &category, at.as_micros()).await?;
        Ok(Told::found(event, by))
    }

    /// The category of an event that `by` may change there.
    async fn category_to_change(&self, by: &By, id: &EventId, category: Option<Category>) -> Result<Category, Error> {
        by.check_known()?;
        if let Some(category) = category {
            by.check(Verb::Publish, &category)?;
            return Ok(category);
        }
        let found = self.find_event(by, Verb::Publish, id, None).await?;
        by.check_found(&found.category, || Error::EventNotFound(id.clone()))
    }

    async fn find_event(
        &self,
        by: &By,
        verb: Verb,
        id: &EventId,
        category: Option<&Category>,
    ) -> Result<wire::Event, Error> {
        if let Some(category) = category {
            by.check(verb, category)?;
        }
        self.backends.events.get(id, category).await.map_err(|error| match error {
            // That others have the id is not for a key to know.
            CallError::Refused(problem, _) if problem.code == "id_ambiguous" && by.scopes.is_some() => {
                Error::EventNotFound(id.clone())
            }
            error => error.into(),
        })
    }

    /// A page of a category.
    pub(crate) async fn events(
        &self,
        by: &By,
        category: &Category,
        which: Which,
        after: Option<String>,
        limit: Option<u32>,
    ) -> Result<Page, Error> {
        by.check(Verb::Subscribe, category)?;
        let limit = page(limit)?;
        let category = category.to_string();
        match which {
            Which::Fired => {
                let after = after.map_or(Ok(0), |after| after.parse()).map_err(|_| Error::BadOffset)?;
                let read = self.backends.events.read(wire::ReadRequest { category, after, limit }).await?;
                let last = read.events.last().and_then(|event| event.offset);
                let next = last.filter(|last| *last < read.head).map(|last| last.to_string());
                Ok(Page { events: read.events, next, bounds: Some((read.head, read.oldest)) })
            }
            Which::Scheduled(key) => {
                let cursor = after.unwrap_or_default();
                let list = self.backends.events.list(wire::ListRequest { category, cursor, limit, key }).await;
                let list = list.map_err(Error::of_list)?;
                Ok(Page { events: list.events, next: some(list.next), bounds: None })
            }
        }
    }

    /// How the queue of a category does.
    pub(crate) async fn queue(&self, by: &By, category: &Category) -> Result<Queue, Error> {
        by.check(Verb::Subscribe, category)?;
        let request = wire::QueuesRequest { categories: vec![category.to_string()], ..wire::QueuesRequest::default() };
        let found = self.backends.events.queues(request).await?.queues.into_iter().next();
        Ok(found.map_or_else(
            || Queue::from(wire::Queue { category: category.to_string(), ..wire::Queue::default() }),
            Queue::from,
        ))
    }

    /// The queues of all categories that have something waiting, and that `by` may read.
    pub(crate) async fn queues(&self, by: &By, after: Option<String>, limit: Option<u32>) -> Result<QueuePage, Error> {
        let request = wire::QueuesRequest {
            cursor: after.unwrap_or_default(),
            limit: page(limit)?,
            ..wire::QueuesRequest::default()
        };
        let reply = self.backends.events.queues(request).await.map_err(Error::of_list)?;
        let readable = reply.queues.into_iter().filter(|queue| by.may(Verb::Subscribe, &queue.category));
        Ok(QueuePage { queues: readable.map(Queue::from).collect(), next: some(reply.next) })
    }
}

/// Items of a page.
pub(crate) fn page(limit: Option<u32>) -> Result<u32, Error> {
    match limit.unwrap_or(PAGE_DEFAULT) {
        limit @ 1..=PAGE_MAX => Ok(limit),
        limit => Err(Error::BadLimit { limit, most: PAGE_MAX }),
    }
}

/// Services say with an empty cursor that a page was the last.
pub(crate) fn some(next: String) -> Option<String> {
    Some(next).filter(|next| !next.is_empty())
}

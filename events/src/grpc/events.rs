//! `Events`: the log and the schedule.

use std::{pin::Pin, sync::Arc};

use futures_util::Stream;
use notifyx_model::{Category, Invalid};
use notifyx_wire::grpc::events::{self as wire, events_server};
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::{
    Desk,
    convert::{self, EVENTS_MAX, Origin, Refused},
    forward::{Forwarded, Repeat},
    refuse,
    watch::Watch,
};
use crate::{
    Error, Events,
    event::{EventKey, NewEvent},
    store::{Kept, Which},
};

/// Of Heads: an answer of a few MiB.
const HEADS_MAX: usize = 10_000;

/// Of Queues: each is looked at in the store and in the plan.
const QUEUES_MAX: usize = 1_000;

#[async_trait]
impl events_server::Events for Desk {
    async fn append(&self, request: Request<wire::AppendRequest>) -> Result<Response<wire::Stored>, Status> {
        let origin = self.origin(&request)?;
        let event = convert::appended(request.into_inner().event.unwrap_or_default(), &origin).map_err(refuse)?;
        let append = async |rules: Arc<Events>| {
            rules.schedule.append(vec![event]).await.pop().expect("one result for one event")
        };
        let kept = self.ask(append).await?;
        Ok(Response::new(convert::stored(kept)))
    }

    async fn append_many(&self, request: Request<wire::AppendManyRequest>) -> Result<Response<wire::Results>, Status> {
        let origin = self.origin(&request)?;
        let many = Many::read(request.into_inner().events, &origin, convert::appended)?;
        let events = many.good.clone();
        let kept = self.ask(async move |rules: Arc<Events>| Ok(rules.schedule.append(events).await)).await?;
        Ok(Response::new(many.results(kept)))
    }

    async fn schedule(&self, request: Request<wire::ScheduleRequest>) -> Result<Response<wire::Results>, Status> {
        let origin = self.origin(&request)?;
        let (forward, user) = (self.forwarding(request.get_ref().forwarded), Forwarded::of(&request)?);
        let mut asked = request.into_inner().events;
        // Named here, so that what is handed on and then done here is one event.
        let named = name(&mut asked, &origin);
        if let Some(forward) = forward {
            let request = wire::ScheduleRequest { events: asked.clone(), forwarded: true };
            let there = forward
                .ask(user, Repeat::Harmless, request, async |mut client, request| client.schedule(request).await);
            if let Some(results) = there.await? {
                return Ok(Response::new(results));
            }
        }
        let many = Many::read(asked, &origin, convert::scheduled)?;
        let events = many.good.clone();
        let mut kept = self.ask(async move |rules: Arc<Events>| Ok(rules.schedule.schedule(events).await)).await?;
        for kept in kept.iter_mut().flatten() {
            // Nobody but us knows these ids: it is what the holder stored for this very call before its answer was lost.
            kept.duplicate &= !named.contains(kept.event.given.id.as_str());
        }
        Ok(Response::new(many.results(kept)))
    }

    async fn cancel(&self, request: Request<wire::CancelRequest>) -> Result<Response<wire::Event>, Status> {
        let (forward, user) = (self.forwarding(request.get_ref().forwarded), Forwarded::of(&request)?);
        let mut request = request.into_inner();
        let event = convert::event_ref(request.event.clone()).map_err(refuse)?;
        if let Some(forward) = forward {
            request.forwarded = true;
            let there =
                forward.ask(user, Repeat::Harmful, request, async |mut client, request| client.cancel(request).await);
            if let Some(event) = there.await? {
                return Ok(Response::new(event));
            }
        }
        let event = self.ask(async move |rules: Arc<Events>| rules.schedule.cancel(&event).await).await?;
        Ok(Response::new(convert::event(event)))
    }

    async fn reschedule(&self, request: Request<wire::RescheduleRequest>) -> Result<Response<wire::Event>, Status> {
        let (forward, user) = (self.forwarding(request.get_ref().forwarded), Forwarded::of(&request)?);
        let mut request = request.into_inner();
        let event = convert::event_ref(request.event.clone()).map_err(refuse)?;
        let at = convert::ahead("fire_at", request.fire_at_us, self.clock.now()).map_err(refuse)?;
        if let Some(forward) = forward {
            request.forwarded = true;
            let there = forward
                .ask(user, Repeat::Harmless, request, async |mut client, request| client.reschedule(request).await);
            if let Some(event) = there.await? {
                return Ok(Response::new(event));
            }
        }
        let event = self.ask(async move |rules: Arc<Events>| rules.schedule.reschedule(&event, at).await).await?;
        Ok(Response::new(convert::event(event)))
    }

    async fn get(&self, request: Request<wire::EventRef>) -> Result<Response<wire::Event>, Status> {
        let event = convert::event_ref(Some(request.into_inner())).map_err(refuse)?;
        let event = self.ask(async move |rules: Arc<Events>| rules.schedule.get(&event).await).await?;
        Ok(Response::new(convert::event(event)))
    }

    async fn list(&self, request: Request<wire::ListRequest>) -> Result<Response<wire::ListReply>, Status> {
        let wire::ListRequest { category, cursor, limit, key } = request.into_inner();
        let (page, after) = (convert::page(limit).map_err(refuse)?, convert::slot(&cursor).map_err(refuse)?);
        let category = convert::category(&category).map_err(refuse)?;
        let key = key.as_deref().map(EventKey::parse).transpose().map_err(refuse)?;
        if key.is_some() && category.is_none() {
            return Err(refuse(Invalid::new("category", "is missing: a key is looked for in the category named")));
        }
        let list = async move |rules: Arc<Events>| {
            let which = match (&category, &key) {
                (None, _) => Which::All,
                (Some(category), None) => Which::Of(category),
                (Some(category), Some(key)) => Which::About(category, key),
            };
            rules.schedule.list(which, after, page).await
        };
        let (events, next) = self.ask(list).await?;
        let events = events.into_iter().map(convert::event).collect();
        Ok(Response::new(wire::ListReply { events, next: next.map(convert::cursor_of).unwrap_or_default() }))
    }

    async fn read(&self, request: Request<wire::ReadRequest>) -> Result<Response<wire::ReadReply>, Status> {
        let wire::ReadRequest { category, after, limit } = request.into_inner();
        let page = convert::page(limit).map_err(refuse)?;
        let category = Category::parse(&category).map_err(refuse)?;
        // No offset is as high: what is above it is nothing, too.
        let after = after.min(i64::MAX.unsigned_abs());
        let read = self.ask(async move |rules: Arc<Events>| rules.schedule.read(&category, after, page).await).await?;
        Ok(Response::new(convert::read(read)))
    }

    async fn heads(&self, request: Request<wire::HeadsRequest>) -> Result<Response<wire::HeadsReply>, Status> {
        let categories = convert::categories(&request.into_inner().categories, HEADS_MAX).map_err(refuse)?;
        let heads = self.ask(async move |rules: Arc<Events>| rules.schedule.heads(&categories).await).await?;
        Ok(Response::new(wire::HeadsReply { heads: heads.iter().map(convert::head).collect() }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<wire::WatchReply, Status>> + Send>>;

    async fn watch(
        &self,
        request: Request<Streaming<wire::WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let watch = Watch::new(self.rules.rules().clone(), request.into_inner());
        Ok(Response::new(Box::pin(watch.replies())))
    }

    async fn queues(&self, request: Request<wire::QueuesRequest>) -> Result<Response<wire::QueuesReply>, Status> {
        let (forward, user) = (self.forwarding(request.get_ref().forwarded), Forwarded::of(&request)?);
        let mut request = request.into_inner();
        let categories = convert::categories(&request.categories, QUEUES_MAX).map_err(refuse)?;
        let limit = convert::page(request.limit).map_err(refuse)?.limit;
        let after = convert::after(&request.cursor, Category::parse).map_err(refuse)?;
        if let Some(forward) = forward {
            request.forwarded = true;
            let there =
                forward.ask(user, Repeat::Harmless, request, async |mut client, request| client.queues(request).await);
            if let Some(queues) = there.await? {
                return Ok(Response::new(queues));
            }
        }
        let all = categories.is_empty();
        let look = async move |rules: Arc<Events>| {
            if all {
                rules.schedule.list_queues(after.as_ref(), limit).await
            } else {
                rules.schedule.queues(&categories).await
            }
        };
        let queues = self.ask(look).await?;
        let next = queues.last().filter(|_| all && queues.len() >= limit as usize);
        let next = next.map(|queue| queue.category.to_string()).unwrap_or_default();
        Ok(Response::new(wire::QueuesReply { queues: queues.iter().map(convert::queue).collect(), next }))
    }
}

/// The ids that were given to events without one.
fn name(events: &mut [wire::NewEvent], origin: &Origin) -> std::collections::HashSet<String> {
    let unnamed = events.iter_mut().filter(|event| event.id.is_empty());
    let name = |event: &mut wire::NewEvent| {
        event.id = notifyx_model::EventId::new(&origin.clock).to_string();
        event.id.clone()
    };
    unnamed.map(name).collect()
}

/// Many events of one request: what is refused by itself, and the good ones between.
struct Many {
    good: Vec<NewEvent>,
    /// In the order asked: `None` is the next of the good ones.
    places: Vec<Option<wire::Problem>>,
}

impl Many {
    fn read(
        events: Vec<wire::NewEvent>,
        origin: &Origin,
        parse: impl Fn(wire::NewEvent, &Origin) -> Result<NewEvent, Invalid>,
    ) -> Result<Self, Status> {
        let count = events.len();
        if !(1..=EVENTS_MAX).contains(&count) {
            return Err(refuse(Refused::Events { count }));
        }
        let mut many = Self { good: Vec::with_capacity(count), places: Vec::with_capacity(count) };
        for event in events {
            match parse(event, origin) {
                Ok(event) => {
                    many.good.push(event);
                    many.places.push(None);
                }
                Err(invalid) => many.places.push(Some(convert::problem(&Refused::Event(invalid)))),
            }
        }
        Ok(many)
    }

    /// `kept`: what became of the good ones.
    fn results(self, kept: Vec<Result<Kept, Error>>) -> wire::Results {
        let mut kept = kept.into_iter();
        let result = |place: Option<wire::Problem>| match place {
            Some(problem) => Err(problem),
            None => kept.next().expect("a result for each event").map_err(|error| convert::problem(&error)),
        };
        convert::results(self.places.into_iter().map(result).collect())
    }
}

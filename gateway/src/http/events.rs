//! Scheduled events: post them, look at them, move and cancel what waits, read what fired.

mod answer;
mod posted;

pub(super) use answer::created;

use std::sync::Arc;

use actix_web::{HttpResponse, web};
use notifyx_chassis::{Failure, Json, Query, Unparsed};
use notifyx_model::{Category, EventId};
use notifyx_wire::rest::{
    Problem,
    events::{AllRefused, BODY_BYTES_MAX, Event, EventPage, EventResult, PostedEvent, RescheduleEvent},
};
use serde::{Deserialize, Serialize};

use super::Gateway;
use crate::{
    Error,
    events::{By, State, Which},
    live::Live,
};

pub(super) fn routes(config: &mut web::ServiceConfig) {
    let many = web::resource("/events").app_data(Unparsed::max(BODY_BYTES_MAX));
    config
        .service(many.get(list).post(post))
        .service(web::resource("/events/{id}").get(get).patch(reschedule).delete(cancel));
}

/// Either is taken.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "what the description says; the body is read item by item")]
pub(crate) enum OneOrMany {
    One(PostedEvent),
    Many(Vec<PostedEvent>),
}

/// Either is answered, as it was asked.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "what the description says; answers are written as text")]
pub(crate) enum AnsweredOneOrMany {
    One(Event),
    Many(Vec<Event>),
}

/// Posts events for their time: one, or an array of up to 10,000, in a body of up to 8 MiB.
///
/// Each is taken or refused by itself. What is answered as stored is stored for good, and fires once. With an `id` of yours an event may
/// be posted again until it is answered: it is stored once, and then told with `duplicate`.
#[utoipa::path(post, path = "/events", tag = "events", request_body = OneOrMany, responses(
    (status = 201, description = "all are stored: the event (`Location` is where), or the array of them in the order in which they came", body = AnsweredOneOrMany),
    (status = 207, description = "some are stored: a result for each, in their order", body = Vec<EventResult>),
    (status = 400, description = "none is stored: `event_invalid` of one, `events_refused` with a result for each of many (with the \
        status of the problems, where they share one); `no_events`, `too_many_events`", body = AllRefused),
    (status = 401, body = Problem),
    (status = 403, description = "`out_of_scope` of an API key, `category_reserved`", body = Problem),
    (status = 413, description = "`body_too_large`; `data_too_large`: more than 262,144 bytes", body = Problem),
    (status = 429, description = "`schedule_full`: as many wait as may; try again after `Retry-After`", body = Problem),
    (status = 503, description = "nothing is stored where the code is `queue_full` or `service_unreachable`: try again after `Retry-After`", body = Problem),
    (status = 504, description = "it is not known whether anything is stored: post again what has an `id` of yours", body = Problem),
))]
pub(crate) async fn post(gateway: Gateway, by: By, body: Unparsed) -> Result<HttpResponse, Failure> {
    let post = |live: Arc<Live>| async move {
        let posted = posted::read(&body.0, live.clock.now())?;
        let mut outcomes = live.post_events(&by, posted.events).await;
        if posted.many {
            return Ok(answer::all_posted(outcomes));
        }
        answer::posted(outcomes.remove(0))
    };
    gateway.run(post).await.map(HttpResponse::from)
}

/// Names an event whose id several categories may have.
#[derive(Clone, Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct Within {
    /// The event's category; absent: whichever has the id.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    category: Option<Category>,
}

/// One event, waiting or fired.
#[utoipa::path(get, path = "/events/{id}", tag = "events", params(("id" = EventId, Path), Within), responses(
    (status = 200, body = Event),
    (status = 403, description = "the category that you name is not for you", body = Problem),
    (status = 404, description = "`event_not_found`, also once it is past the retention, and where you may not read it", body = Problem),
    (status = 409, description = "`id_ambiguous`: name the category", body = Problem),
))]
pub(crate) async fn get(
    gateway: Gateway,
    by: By,
    id: web::Path<EventId>,
    query: Query<Within>,
) -> Result<HttpResponse, Failure> {
    let event = gateway.run(|live| async move { live.event(&by, &id, query.category.as_ref()).await }).await?;
    Ok(answer::whole(&event).into())
}

/// Gives an event that waits another time. One that has passed fires at once. It may be repeated.
#[utoipa::path(patch, path = "/events/{id}", tag = "events", params(("id" = EventId, Path), Within), request_body = RescheduleEvent,
    responses(
    (status = 200, description = "as it is now", body = Event),
    (status = 400, description = "`event_invalid`: the time is out of bounds", body = Problem),
    (status = 403, body = Problem),
    (status = 404, body = Problem),
    (status = 409, description = "`event_fired`; `id_ambiguous`: name the category", body = Problem),
))]
pub(crate) async fn reschedule(
    gateway: Gateway,
    by: By,
    id: web::Path<EventId>,
    query: Query<Within>,
    body: Json<RescheduleEvent>,
) -> Result<HttpResponse, Failure> {
    let reschedule = |live: Arc<Live>| async move {
        let at = body.fire_at.fire_at("fireAt", live.clock.now()).map_err(Error::EventInvalid)?;
        live.reschedule_event(&by, &id, query.into_inner().category, at).await
    };
    Ok(answer::event(200, &gateway.run(reschedule).await?).into())
}

/// Takes an event out of the schedule.
#[utoipa::path(delete, path = "/events/{id}", tag = "events", params(("id" = EventId, Path), Within), responses(
    (status = 200, description = "as it was", body = Event),
    (status = 403, body = Problem),
    (status = 404, body = Problem),
    (status = 409, description = "`event_fired`; `id_ambiguous`: name the category", body = Problem),
))]
pub(crate) async fn cancel(
    gateway: Gateway,
    by: By,
    id: web::Path<EventId>,
    query: Query<Within>,
) -> Result<HttpResponse, Failure> {
    let category = query.into_inner().category;
    let event = gateway.run(|live| async move { live.cancel_event(&by, &id, category).await }).await?;
    Ok(answer::event(200, &event).into())
}

/// A page of up to 1,000: `after` is the `next` of the page before.
#[derive(Clone, Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct Paged {
    /// The `next` of the page before; absent for the first.
    #[serde(default)]
    pub(super) after: Option<String>,
    /// 1 to 1,000; 50 where nothing is said.
    #[serde(default)]
    pub(super) limit: Option<u32>,
}

#[derive(Clone, Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListQuery {
    #[param(value_type = String)]
    category: Category,
    /// `fired`, the log by offset, or `scheduled`, what waits with the soonest first; `fired` where nothing is said.
    #[serde(default)]
    #[param(inline)]
    state: State,
    /// Only what is about this, 1 to 255 bytes. Of what waits: it goes with `state=scheduled`.
    #[serde(default)]
    key: Option<String>,
    /// The `next` of the page before. Of the log it is an offset: the events above it are listed.
    #[serde(default)]
    after: Option<String>,
    /// 1 to 1,000; 50 where nothing is said.
    #[serde(default)]
    limit: Option<u32>,
}

/// A page of a category: its log, or what waits. It ends early where its data comes to 4 MiB.
#[utoipa::path(get, path = "/events", tag = "events", params(ListQuery), responses(
    (status = 200, body = EventPage),
    (status = 400, description = "`query_invalid`, `limit_invalid`, `cursor_invalid`; `event_invalid`: no event has such a key", body = Problem),
    (status = 403, body = Problem),
))]
pub(crate) async fn list(gateway: Gateway, by: By, query: Query<ListQuery>) -> Result<HttpResponse, Failure> {
    let ListQuery { category, state, key, after, limit } = query.into_inner();
    let list = |live: Arc<Live>| async move {
        let which = Which::new(state, key)?;
        let page = live.events(&by, &category, which, after, limit).await?;
        Ok::<_, Error>(answer::page(&page))
    };
    Ok(gateway.run(list).await?.into())
}

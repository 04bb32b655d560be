//! Recurring schedules: what makes an event every so often, or by a calendar's rule.

use actix_web::{HttpResponse, http::header::LOCATION, web};
use notifyx_chassis::{Failure, Json, Query};
use notifyx_model::{Category, EventId};
use notifyx_wire::rest::{
    Problem,
    events::{
        Event,
        schedules::{NewSchedule, Schedule, SchedulePage},
    },
};
use serde::Deserialize;

use super::{Gateway, events};
use crate::{events::By, schedules::Change};

pub(super) fn routes(config: &mut web::ServiceConfig) {
    config
        .service(web::resource("/schedules").get(list).post(create))
        .service(web::resource("/schedules/{id}").get(get).delete(delete))
        .service(web::resource("/schedules/{id}/pause").post(pause))
        .service(web::resource("/schedules/{id}/resume").post(resume))
        .service(web::resource("/schedules/{id}/run").post(run));
}

/// Makes a recurring schedule: each of its occurrences is an event of its category, made exactly once.
///
/// `every` counts time that has passed, and takes no notice of clocks that are put forward or back. `cron` follows the clocks of its
/// time zone: a time that is skipped in spring fires when the clocks have been put forward, one that comes twice in autumn fires the first time.
/// With an `id` of yours the request may be sent again.
#[utoipa::path(post, path = "/schedules", tag = "schedules", request_body = NewSchedule, responses(
    (status = 201, description = "`Location` is where it is", body = Schedule),
    (status = 400, description = "`schedule_invalid`, `body_invalid`", body = Problem),
    (status = 401, body = Problem),
    (status = 403, description = "`out_of_scope` of an API key, `category_reserved`", body = Problem),
    (status = 422, description = "`schedule_mismatch`: the id has another rule", body = Problem),
    (status = 503, body = Problem),
))]
pub(crate) async fn create(gateway: Gateway, by: By, body: Json<NewSchedule>) -> Result<HttpResponse, Failure> {
    let created = gateway.run(|live| async move { live.create_schedule(&by, body.into_inner()).await }).await?;
    let place = format!("/schedules/{}", created.id);
    Ok(HttpResponse::Created().insert_header((LOCATION, place)).json(created))
}

#[derive(Clone, Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListQuery {
    /// Only of this category.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    category: Option<Category>,
    /// The `next` of the page before.
    #[serde(default)]
    after: Option<String>,
    /// 1 to 1,000; 50 where nothing is said.
    #[serde(default)]
    limit: Option<u32>,
}

/// Recurring schedules, by id. An API key sees those of categories that it may subscribe to.
#[utoipa::path(get, path = "/schedules", tag = "schedules", params(ListQuery), responses(
    (status = 200, body = SchedulePage),
    (status = 400, description = "`query_invalid`, `limit_invalid`, `cursor_invalid`", body = Problem),
    (status = 403, body = Problem),
))]
pub(crate) async fn list(
    gateway: Gateway,
    by: By,
    query: Query<ListQuery>,
) -> Result<web::Json<SchedulePage>, Failure> {
    let ListQuery { category, after, limit } = query.into_inner();
    Ok(web::Json(gateway.run(|live| async move { live.schedules(&by, category, after, limit).await }).await?))
}

/// A recurring schedule, as it stands.
#[utoipa::path(get, path = "/schedules/{id}", tag = "schedules", params(("id" = EventId, Path)), responses(
    (status = 200, body = Schedule),
    (status = 404, description = "`schedule_not_found`, also where you may not read it", body = Problem),
))]
pub(crate) async fn get(gateway: Gateway, by: By, id: web::Path<EventId>) -> Result<web::Json<Schedule>, Failure> {
    Ok(web::Json(gateway.run(|live| async move { live.schedule(&by, &id).await }).await?))
}

/// Takes a schedule away, with its occurrence that waits. What fired stays in the log.
#[utoipa::path(delete, path = "/schedules/{id}", tag = "schedules", params(("id" = EventId, Path)), responses(
    (status = 200, description = "as it was", body = Schedule),
    (status = 403, body = Problem),
    (status = 404, body = Problem),
))]
pub(crate) async fn delete(gateway: Gateway, by: By, id: web::Path<EventId>) -> Result<web::Json<Schedule>, Failure> {
    change(&gateway, by, id.into_inner(), Change::Delete).await
}

/// No occurrence is made until it is resumed; one that waits already stays. It may be repeated.
#[utoipa::path(post, path = "/schedules/{id}/pause", tag = "schedules", params(("id" = EventId, Path)), responses(
    (status = 200, body = Schedule),
    (status = 403, body = Problem),
    (status = 404, body = Problem),
    (status = 409, description = "`schedule_finished`", body = Problem),
))]
pub(crate) async fn pause(gateway: Gateway, by: By, id: web::Path<EventId>) -> Result<web::Json<Schedule>, Failure> {
    change(&gateway, by, id.into_inner(), Change::Pause).await
}

/// Goes on. Occurrences of the pause were missed: `onMissed` says what becomes of them. It may be repeated.
#[utoipa::path(post, path = "/schedules/{id}/resume", tag = "schedules", params(("id" = EventId, Path)), responses(
    (status = 200, body = Schedule),
    (status = 403, body = Problem),
    (status = 404, body = Problem),
    (status = 409, description = "`schedule_finished`", body = Problem),
))]
pub(crate) async fn resume(gateway: Gateway, by: By, id: web::Path<EventId>) -> Result<web::Json<Schedule>, Failure> {
    change(&gateway, by, id.into_inner(), Change::Resume).await
}

async fn change(gateway: &Gateway, by: By, id: EventId, change: Change) -> Result<web::Json<Schedule>, Failure> {
    Ok(web::Json(gateway.run(|live| async move { live.change_schedule(&by, &id, change).await }).await?))
}

#[derive(Clone, Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct RunQuery {
    /// The event's id, so that a repeated request fires nothing twice; absent: a UUID is made.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    event_id: Option<EventId>,
}

/// Fires one event of the schedule now, beside its rule: its count and its next occurrence stay.
#[utoipa::path(post, path = "/schedules/{id}/run", tag = "schedules", params(("id" = EventId, Path), RunQuery), responses(
    (status = 201, description = "the event", body = Event),
    (status = 403, body = Problem),
    (status = 404, body = Problem),
))]
pub(crate) async fn run(
    gateway: Gateway,
    by: By,
    id: web::Path<EventId>,
    query: Query<RunQuery>,
) -> Result<HttpResponse, Failure> {
    let event_id = query.into_inner().event_id;
    let event = gateway.run(|live| async move { live.run_schedule(&by, &id, event_id.as_ref()).await }).await?;
    Ok(events::created(&event).into())
}

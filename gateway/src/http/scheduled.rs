//! Notifications that the caller has scheduled: list them, look at one, give it another time, take it back.

use actix_web::web;
use notifyx_chassis::{Caller, Failure, Json, Query};
use notifyx_model::EventId;
use notifyx_wire::rest::{
    Problem,
    gateway::{Reschedule, ScheduledNotification, ScheduledPage},
};

use super::{Gateway, Page, user};

pub(super) fn routes(config: &mut web::ServiceConfig) {
    config
        .service(web::resource("/notifications/scheduled").get(list))
        .service(web::resource("/notifications/scheduled/{id}").get(get).patch(reschedule).delete(cancel));
}

/// What the caller has scheduled and what waits for its time, soonest first.
#[utoipa::path(get, path = "/api/notifications/scheduled", tag = "notifications", params(Page), responses(
    (status = 200, body = ScheduledPage), (status = 401, body = Problem),
))]
pub(crate) async fn list(
    gateway: Gateway,
    caller: Caller,
    page: Query<Page>,
) -> Result<web::Json<ScheduledPage>, Failure> {
    let (by, Page { after, limit }) = (user(&caller)?, page.into_inner());
    Ok(web::Json(gateway.run(|live| async move { live.scheduled.list(&by, after, limit).await }).await?))
}

/// One of them, and what became of it: `scheduled`, `queued` (its time has come), `published` or `refused`.
///
/// It is kept for as long as events are, a week where nothing else is configured.
#[utoipa::path(get, path = "/api/notifications/scheduled/{id}", tag = "notifications",
    params(("id" = String, Path, description = "as it was answered")), responses(
    (status = 200, body = ScheduledNotification), (status = 404, body = Problem),
))]
pub(crate) async fn get(
    gateway: Gateway,
    caller: Caller,
    id: web::Path<EventId>,
) -> Result<web::Json<ScheduledNotification>, Failure> {
    let by = user(&caller)?;
    Ok(web::Json(gateway.run(|live| async move { live.scheduled.get(&by, &id).await }).await?))
}

/// Gives it another time.
#[utoipa::path(patch, path = "/api/notifications/scheduled/{id}", tag = "notifications", request_body = Reschedule,
    params(("id" = String, Path, description = "as it was answered")), responses(
    (status = 200, body = ScheduledNotification),
    (status = 400, description = "the time is out of bounds", body = Problem),
    (status = 404, body = Problem),
    (status = 409, description = "its time has come", body = Problem),
))]
pub(crate) async fn reschedule(
    gateway: Gateway,
    caller: Caller,
    id: web::Path<EventId>,
    body: Json<Reschedule>,
) -> Result<web::Json<ScheduledNotification>, Failure> {
    let by = user(&caller)?;
    let moved = gateway.run(|live| async move { live.scheduled.reschedule(&by, &id, &body.fire_at).await }).await?;
    Ok(web::Json(moved))
}

/// Takes it back: it is not published, and its key is free again. Answers what it was.
#[utoipa::path(delete, path = "/api/notifications/scheduled/{id}", tag = "notifications",
    params(("id" = String, Path, description = "as it was answered")), responses(
    (status = 200, body = ScheduledNotification),
    (status = 404, body = Problem),
    (status = 409, description = "its time has come", body = Problem),
))]
pub(crate) async fn cancel(
    gateway: Gateway,
    caller: Caller,
    id: web::Path<EventId>,
) -> Result<web::Json<ScheduledNotification>, Failure> {
    let by = user(&caller)?;
    Ok(web::Json(gateway.run(|live| async move { live.scheduled.cancel(&by, &id).await }).await?))
}

//! The queues of the schedule: how full, how far behind, how late.

use actix_web::web;
use notifyx_chassis::{Failure, Query};
use notifyx_model::Category;
use notifyx_wire::rest::{
    Problem,
    events::{Queue, QueuePage},
};

use super::{Gateway, events::Paged};
use crate::events::By;

pub(super) fn routes(config: &mut web::ServiceConfig) {
    config.service(web::resource("/queues").get(list)).service(web::resource("/queues/{category}").get(get));
}

/// The queues of categories that have something waiting, by name. An API key sees those that it may subscribe to.
#[utoipa::path(get, path = "/api/queues", tag = "events", params(Paged), responses(
    (status = 200, body = QueuePage),
    (status = 400, description = "`query_invalid`, `limit_invalid`, `cursor_invalid`", body = Problem),
    (status = 401, body = Problem),
))]
pub(crate) async fn list(gateway: Gateway, by: By, query: Query<Paged>) -> Result<web::Json<QueuePage>, Failure> {
    let Paged { after, limit } = query.into_inner();
    Ok(web::Json(gateway.run(|live| async move { live.queues(&by, after, limit).await }).await?))
}

/// The queue of a category; an empty one where nobody used it.
#[utoipa::path(get, path = "/api/queues/{category}", tag = "events", params(("category" = String, Path)), responses(
    (status = 200, body = Queue),
    (status = 400, description = "`path_invalid`: no category is called so", body = Problem),
    (status = 403, body = Problem),
))]
pub(crate) async fn get(gateway: Gateway, by: By, category: web::Path<Category>) -> Result<web::Json<Queue>, Failure> {
    Ok(web::Json(gateway.run(|live| async move { live.queue(&by, &category).await }).await?))
}

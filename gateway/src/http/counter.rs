//! Counters: what was published, by a user and to a topic.

use actix_web::web;
use notifyx_chassis::{Caller, Failure};
use notifyx_model::TopicId;
use notifyx_wire::rest::{
    Problem,
    counter::{TopicCounter, UserCounter},
};

use super::{Gateway, user};

pub(super) fn routes(config: &mut web::ServiceConfig) {
    config
        .service(web::resource("/counter").get(own))
        .service(web::resource("/counter/topics/{topic_id}").get(of_topic));
}

/// What the caller has published.
#[utoipa::path(get, path = "/api/counter", tag = "counters", responses(
    (status = 200, body = UserCounter), (status = 401, body = Problem),
))]
pub(crate) async fn own(gateway: Gateway, caller: Caller) -> Result<web::Json<UserCounter>, Failure> {
    let by = user(&caller)?;
    Ok(web::Json(gateway.run(|live| async move { live.backends.user_counter(&by, by.id).await }).await?))
}

/// What was published to a topic.
#[utoipa::path(get, path = "/api/counter/topics/{topic_id}", tag = "counters", params(("topic_id" = TopicId, Path)),
    responses((status = 200, body = TopicCounter), (status = 401, body = Problem)))]
pub(crate) async fn of_topic(
    gateway: Gateway,
    caller: Caller,
    topic: web::Path<TopicId>,
) -> Result<web::Json<TopicCounter>, Failure> {
    let by = user(&caller)?;
    Ok(web::Json(gateway.run(|live| async move { live.backends.topic_counter(&by, *topic).await }).await?))
}

//! Subscriptions: who receives a topic's notifications in the inbox, connected or not.

use actix_web::web;
use notifyx_chassis::{Caller, Failure, Query};
use notifyx_model::TopicId;
use notifyx_wire::rest::{Problem, gateway::Done, persist::Subscriber, persist::SubscriberPage};

use super::{Gateway, Page, user};

pub(super) fn routes(config: &mut web::ServiceConfig) {
    config.service(web::resource("/subscribers/{topic_id}").get(list).post(subscribe).delete(unsubscribe));
}

/// Subscribes the caller. Idempotent; notifications from now on reach its inbox.
#[utoipa::path(post, path = "/api/subscribers/{topic_id}", tag = "subscribers", params(("topic_id" = TopicId, Path)),
    responses((status = 200, body = Subscriber), (status = 404, body = Problem)))]
pub(crate) async fn subscribe(
    gateway: Gateway,
    caller: Caller,
    topic: web::Path<TopicId>,
) -> Result<web::Json<Subscriber>, Failure> {
    let by = user(&caller)?;
    Ok(web::Json(gateway.run(|live| async move { live.subscribe(&by, *topic).await }).await?))
}

/// A topic's subscribers, by user id.
#[utoipa::path(get, path = "/api/subscribers/{topic_id}", tag = "subscribers",
    params(("topic_id" = TopicId, Path), Page), responses((status = 200, body = SubscriberPage), (status = 404, body = Problem)))]
pub(crate) async fn list(
    gateway: Gateway,
    caller: Caller,
    topic: web::Path<TopicId>,
    page: Query<Page>,
) -> Result<web::Json<SubscriberPage>, Failure> {
    let by = user(&caller)?;
    let page =
        gateway.run(|live| async move { live.backends.subscribers(&by, *topic, &page.into_inner()).await }).await?;
    Ok(web::Json(page))
}

/// Ends the caller's subscription: its inbox no longer fills, and its sockets' channels of the topic are closed.
#[utoipa::path(delete, path = "/api/subscribers/{topic_id}", tag = "subscribers", params(("topic_id" = TopicId, Path)),
    responses((status = 200, body = Done), (status = 404, body = Problem)))]
pub(crate) async fn unsubscribe(
    gateway: Gateway,
    caller: Caller,
    topic: web::Path<TopicId>,
) -> Result<web::Json<Done>, Failure> {
    let by = user(&caller)?;
    gateway.run(|live| async move { live.unsubscribe(&by, *topic).await }).await?;
    Ok(web::Json(Done::YES))
}

//! Topics: list, create, look at, switch on and off, mark as seen.

use actix_web::{HttpResponse, web};
use notifyx_chassis::{Caller, Failure, Json, Query};
use notifyx_model::{TopicId, TopicName};
use notifyx_wire::rest::{
    Problem,
    persist::{NewTopic, SetStatus, Topic, TopicPage, Unread},
};
use serde::{Deserialize, Serialize};

use super::{Gateway, user};

pub(super) fn routes(config: &mut web::ServiceConfig) {
    config
        .service(web::resource("/topics").get(list).post(create))
        .service(web::resource("/topics/{id}").get(get))
        .service(web::resource("/topics/{id}/status").post(set_status))
        .service(web::resource("/topics/{id}/seen").post(seen_up_to));
}

#[derive(Clone, Debug, Deserialize, Serialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct TopicQuery {
    /// Only the topic of this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    name: Option<TopicName>,
    /// The `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    after: Option<TopicId>,
    /// At most 500; 50 where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    limit: Option<u32>,
}

/// Topics, by id.
#[utoipa::path(get, path = "/api/topics", tag = "topics", params(TopicQuery), responses(
    (status = 200, body = TopicPage), (status = 401, body = Problem),
))]
pub(crate) async fn list(
    gateway: Gateway,
    caller: Caller,
    query: Query<TopicQuery>,
) -> Result<web::Json<TopicPage>, Failure> {
    let by = user(&caller)?;
    let page = gateway.run(|live| async move { live.backends.topics(&by, &query.into_inner()).await }).await?;
    Ok(web::Json(page))
}

/// Creates a topic; the caller is its creator, the only one who publishes to it. Joining over a socket creates it too.
#[utoipa::path(post, path = "/api/topics", tag = "topics", request_body = NewTopic, responses(
    (status = 201, body = Topic),
    (status = 400, body = Problem),
    (status = 409, description = "the name is taken", body = Problem),
))]
pub(crate) async fn create(gateway: Gateway, caller: Caller, body: Json<NewTopic>) -> Result<HttpResponse, Failure> {
    let by = user(&caller)?;
    let topic = gateway.run(|live| async move { live.backends.create_topic(&by, &body).await }).await?;
    Ok(HttpResponse::Created().json(topic))
}

/// One topic.
#[utoipa::path(get, path = "/api/topics/{id}", tag = "topics", params(("id" = TopicId, Path)), responses(
    (status = 200, body = Topic), (status = 404, body = Problem),
))]
pub(crate) async fn get(gateway: Gateway, caller: Caller, id: web::Path<TopicId>) -> Result<web::Json<Topic>, Failure> {
    let by = user(&caller)?;
    Ok(web::Json(gateway.run(|live| async move { live.backends.topic(&by, *id).await }).await?))
}

/// Switches a topic on or off; the creator only. An inactive one keeps its history and takes nothing new.
#[utoipa::path(post, path = "/api/topics/{id}/status", tag = "topics", params(("id" = TopicId, Path)),
    request_body = SetStatus, responses(
    (status = 200, body = Topic), (status = 403, body = Problem), (status = 404, body = Problem),
))]
pub(crate) async fn set_status(
    gateway: Gateway,
    caller: Caller,
    id: web::Path<TopicId>,
    body: Json<SetStatus>,
) -> Result<web::Json<Topic>, Failure> {
    let by = user(&caller)?;
    Ok(web::Json(gateway.run(|live| async move { live.backends.set_status(&by, *id, &body).await }).await?))
}

#[derive(Clone, Copy, Debug, Deserialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpTo {
    /// Everything up to this offset becomes seen.
    up_to: u64,
}

/// Marks all of a topic as seen up to an offset. Idempotent.
#[utoipa::path(post, path = "/api/topics/{id}/seen", tag = "inbox", params(("id" = TopicId, Path), UpTo), responses(
    (status = 200, body = Unread), (status = 404, body = Problem),
))]
pub(crate) async fn seen_up_to(
    gateway: Gateway,
    caller: Caller,
    id: web::Path<TopicId>,
    query: Query<UpTo>,
) -> Result<web::Json<Unread>, Failure> {
    let by = user(&caller)?;
    let unread = gateway.run(|live| async move { live.seen_up_to(&by, *id, query.up_to).await }).await?;
    Ok(web::Json(unread))
}

//! `/api/topics`.

#![expect(unused_qualifications, reason = "what utoipa writes for query parameters")]

use actix_web::{
    HttpResponse,
    web::{Path, Query},
};
use notifyx_chassis::{Caller, Failure, Json};
use notifyx_model::{TopicId, TopicName};
use notifyx_wire::rest::{
    Problem,
    persist::{Heads, HeadsQuery, NewTopic, SetStatus, Topic, TopicPage},
};
use serde::Deserialize;
use utoipa::IntoParams;

use super::Rules;

/// Create a topic; the caller is its creator, and the only one who publishes to it. Creating does not subscribe.
#[utoipa::path(post, path = "/api/topics", tag = "topics", request_body = NewTopic, security(("token" = [])), responses(
    (status = 201, body = Topic),
    (status = 400, body = Problem, description = "`body_invalid`, `longevity_invalid`"),
    (status = 409, body = Problem, description = "`topic_name_taken`, `too_many_topics`"),
))]
pub(super) async fn create(rules: Rules, caller: Caller, body: Json<NewTopic>) -> Result<HttpResponse, Failure> {
    let creator = caller.user()?.id;
    let topic = rules.run(|persist| async move { persist.topics.create(creator, body.into_inner()).await }).await?;
    Ok(HttpResponse::Created().json(topic))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// Only the topic of this name.
    #[param(value_type = Option<String>)]
    name: Option<TopicName>,
    /// The last id of the page before.
    after: Option<TopicId>,
    /// 1 to 500; 50 where nothing is said.
    limit: Option<u32>,
}

/// All topics, by id, in pages.
#[utoipa::path(get, path = "/api/topics", tag = "topics", params(ListQuery),
    security(("token" = []), ("cluster" = [])), responses(
    (status = 200, body = TopicPage),
    (status = 400, body = Problem, description = "`query_invalid`, `limit_invalid`"),
))]
pub(super) async fn list(rules: Rules, _: Caller, query: Query<ListQuery>) -> Result<Json<TopicPage>, Failure> {
    let query = query.into_inner();
    let work = |persist: std::sync::Arc<crate::Persist>| async move {
        persist.topics.list(query.name.as_ref(), query.after, query.limit).await
    };
    Ok(Json(rules.run(work).await?))
}

/// One topic.
#[utoipa::path(get, path = "/api/topics/{id}", tag = "topics", params(("id" = TopicId, Path)),
    security(("token" = []), ("cluster" = [])), responses(
    (status = 200, body = Topic),
    (status = 404, body = Problem, description = "`topic_not_found`"),
))]
pub(super) async fn get(rules: Rules, _: Caller, id: Path<TopicId>) -> Result<Json<Topic>, Failure> {
    Ok(Json(rules.run(|persist| async move { persist.topics.get(*id).await }).await?))
}

/// Make a topic active or inactive; only its creator may. An inactive one keeps its history and subscribers and takes no new
/// notifications; what was prepared before is still committed.
#[utoipa::path(post, path = "/api/topics/{id}/status", tag = "topics", params(("id" = TopicId, Path)),
    request_body = SetStatus, security(("token" = [])), responses(
    (status = 200, body = Topic),
    (status = 403, body = Problem, description = "`not_creator`"),
    (status = 404, body = Problem, description = "`topic_not_found`"),
))]
pub(super) async fn set_status(
    rules: Rules,
    caller: Caller,
    id: Path<TopicId>,
    body: Json<SetStatus>,
) -> Result<Json<Topic>, Failure> {
    let user = caller.user()?.id;
    Ok(Json(rules.run(|persist| async move { persist.topics.set_status(user, *id, body.status).await }).await?))
}

/// Where topics stand, by name, at most 10,000; unknown ones are left out.
#[utoipa::path(post, path = "/api/topics/heads", tag = "cluster", request_body = HeadsQuery,
    security(("cluster" = [])), responses(
    (status = 200, body = Heads),
    (status = 413, body = Problem, description = "`batch_too_large`"),
))]
pub(super) async fn heads(rules: Rules, caller: Caller, body: Json<HeadsQuery>) -> Result<Json<Heads>, Failure> {
    caller.cluster()?;
    let heads = rules.run(|persist| async move { persist.topics.heads(&body.topics).await }).await?;
    Ok(Json(Heads { heads }))
}

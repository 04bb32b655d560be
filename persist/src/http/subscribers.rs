//! `/api/subscribers`, and joining.

#![expect(unused_qualifications, reason = "what utoipa writes for query parameters")]

use std::sync::Arc;

use actix_web::{
    HttpResponse,
    web::{Path, Query},
};
use notifyx_chassis::{Caller, Failure, Json, reply::problem};
use notifyx_model::{TopicId, UserId};
use notifyx_wire::rest::{
    Problem,
    persist::{JoinBatch, JoinResults, Outcome, Subscriber, SubscriberPage},
};
use serde::Deserialize;
use utoipa::IntoParams;

use super::Rules;
use crate::Persist;

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct ListQuery {
    /// The last user id of the page before.
    after: Option<UserId>,
    /// 1 to 500; 50 where nothing is said.
    limit: Option<u32>,
}

/// A topic's subscribers, by user id, in pages; for its creator and its subscribers.
#[utoipa::path(get, path = "/api/subscribers/{topic_id}", tag = "subscribers",
    params(("topic_id" = TopicId, Path), ListQuery), security(("token" = []), ("cluster" = [])), responses(
    (status = 200, body = SubscriberPage),
    (status = 403, body = Problem, description = "`not_subscribed`"),
    (status = 404, body = Problem, description = "`topic_not_found`"),
))]
pub(super) async fn list(
    rules: Rules,
    caller: Caller,
    topic: Path<TopicId>,
    query: Query<ListQuery>,
) -> Result<Json<SubscriberPage>, Failure> {
    // A service that names no user asks for itself.
    let reader = match caller.user() {
        Ok(user) => Some(user.id),
        Err(denied) => caller.cluster().map(|()| None).map_err(|_| denied)?,
    };
    let work =
        |persist: Arc<Persist>| async move { persist.subscribers.list(reader, *topic, query.after, query.limit).await };
    Ok(Json(rules.run(work).await?))
}

/// Subscribe the caller, from the topic's head on. A repetition changes nothing.
#[utoipa::path(post, path = "/api/subscribers/{topic_id}", tag = "subscribers", params(("topic_id" = TopicId, Path)),
    security(("token" = [])), responses(
    (status = 200, body = Subscriber),
    (status = 404, body = Problem, description = "`topic_not_found`"),
    (status = 409, body = Problem, description = "`too_many_subscriptions`"),
))]
pub(super) async fn subscribe(rules: Rules, caller: Caller, topic: Path<TopicId>) -> Result<Json<Subscriber>, Failure> {
    let user = caller.user()?.id;
    Ok(Json(rules.run(|persist| async move { persist.subscribers.subscribe(user, *topic).await }).await?))
}

/// End the caller's subscription; its inbox no longer holds the topic. A repetition changes nothing.
#[utoipa::path(delete, path = "/api/subscribers/{topic_id}", tag = "subscribers", params(("topic_id" = TopicId, Path)),
    security(("token" = [])), responses(
    (status = 204),
    (status = 404, body = Problem, description = "`topic_not_found`"),
))]
pub(super) async fn unsubscribe(rules: Rules, caller: Caller, topic: Path<TopicId>) -> Result<HttpResponse, Failure> {
    let user = caller.user()?.id;
    rules.run(|persist| async move { persist.subscribers.unsubscribe(user, *topic).await }).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Create topics that are missing and subscribe users, at most 1,000 at once. A repetition changes nothing.
#[utoipa::path(post, path = "/api/topics/join", tag = "cluster", request_body = JoinBatch,
    security(("cluster" = [])), responses(
    (status = 200, body = JoinResults, description = "one result per item: `too_many_subscriptions`, `too_many_topics`"),
    (status = 413, body = Problem, description = "`batch_too_large`"),
))]
pub(super) async fn join(rules: Rules, caller: Caller, body: Json<JoinBatch>) -> Result<Json<JoinResults>, Failure> {
    caller.cluster()?;
    let results = rules.run(|persist| async move { persist.subscribers.join(body.into_inner().items).await }).await?;
    let outcome =
        |result: Result<_, crate::Error>| result.map_or_else(|error| Outcome::Problem(problem(&error)), Outcome::Ok);
    Ok(Json(JoinResults { results: results.into_iter().map(outcome).collect() }))
}

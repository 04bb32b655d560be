//! The door: decodes, calls one rule, encodes.

#[cfg(test)]
mod tests;

use std::sync::Arc;

use actix_web::web::{self, Bytes, Data, Path, Query, ServiceConfig};
use notifyx_chassis::{Caller, Failure, Json, Shared, batch_bodies};
use notifyx_model::{Gid, TopicId, UserId};
use notifyx_wire::{
    header,
    rest::{
        Problem, Success,
        commit::{Acks, CommitRequest, GidBatch, PrepareBatch, Prepared, Votes},
        counter::{PrepareIncrement, TopicCounter, UserCounter},
    },
};
use serde::{Deserialize, de::DeserializeOwned};
use utoipa::{
    IntoParams, Modify, OpenApi,
    openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme},
};

use crate::{Counter, Error};

type Rules = Data<Shared<Counter>>;

pub(crate) fn routes(config: &mut ServiceConfig) {
    config
        .service(web::resource("/api/prepare_increment_2pc/{user_id}").post(prepare_by_hand))
        .service(web::resource("/api/commit_2pc/{user_id}").post(commit_by_hand))
        .service(web::resource("/api/rollback_2pc/{user_id}").delete(rollback_by_hand))
        .service(web::resource("/api/counter/topics/{topic_id}").get(topic_counter))
        .service(web::resource("/api/counter/{user_id}").get(user_counter))
        .service(
            web::scope("/api/2pc")
                .app_data(batch_bodies())
                .service(web::resource("/prepare").post(prepare))
                .service(web::resource("/commit").post(commit))
                .service(web::resource("/rollback").post(rollback)),
        );
}

/// What a user has published. Zero for a user who never did. One's own only, except for services.
#[utoipa::path(get, path = "/api/counter/{user_id}", tag = "counters", params(("user_id" = UserId, Path)),
    security(("token" = []), ("cluster" = [])), responses(
    (status = 200, body = UserCounter),
    (status = 403, body = Problem, description = "`counter_foreign`"),
))]
async fn user_counter(rules: Rules, caller: Caller, user_id: Path<UserId>) -> Result<Json<UserCounter>, Failure> {
    let user_id = user_id.into_inner();
    // A service that acts for nobody may look at anybody's.
    if caller.cluster().is_err() || caller.user().is_ok() {
        own(&caller, user_id)?;
    }
    Ok(Json(rules.run(|counter| async move { counter.counters.of_user(user_id).await }).await?))
}

/// What was published to a topic. Zero where nothing ever was.
#[utoipa::path(get, path = "/api/counter/topics/{topic_id}", tag = "counters", params(("topic_id" = TopicId, Path)),
    security(("token" = []), ("cluster" = [])), responses((status = 200, body = TopicCounter)))]
async fn topic_counter(rules: Rules, _: Caller, topic_id: Path<TopicId>) -> Result<Json<TopicCounter>, Failure> {
    let topic_id = topic_id.into_inner();
    Ok(Json(rules.run(|counter| async move { counter.counters.of_topic(topic_id).await }).await?))
}

/// Prepare an increment of one's own counter by hand, and of a topic's that one created. Commit it or roll it back with the
/// `request_id` of the answer within 60 s; several may be prepared at once. With a `request_id` of one's own a repetition
/// changes nothing. The body may be left out.
#[utoipa::path(post, path = "/api/prepare_increment_2pc/{user_id}", tag = "two-phase commit by hand",
    params(("user_id" = UserId, Path)), request_body = Option<PrepareIncrement>, security(("token" = [])), responses(
    (status = 200, body = Success<Prepared>),
    (status = 403, body = Problem, description = "`counter_foreign`, `not_creator`, `transaction_foreign`"),
    (status = 404, body = Problem, description = "`topic_not_found`"),
    (status = 409, body = Problem, description = "`transaction_aborted`, `transaction_expired`"),
    (status = 422, body = Problem, description = "`request_mismatch`: the `request_id` was used for another request"),
))]
async fn prepare_by_hand(
    rules: Rules,
    caller: Caller,
    user_id: Path<UserId>,
    body: Bytes,
) -> Result<Json<Success<Prepared>>, Failure> {
    let user_id = own(&caller, user_id.into_inner())?;
    let new: PrepareIncrement = decode(&body)?.unwrap_or_default();
    let work = |counter: Arc<Counter>| async move { counter.increments.prepare_by_hand(user_id, new).await };
    Ok(Json(Success::new(Prepared { request_id: rules.run(work).await? })))
}

/// Commit by hand what one prepared by hand: the answer is the counter afterwards. A repetition changes nothing.
#[utoipa::path(post, path = "/api/commit_2pc/{user_id}", tag = "two-phase commit by hand",
    params(("user_id" = UserId, Path)), request_body = CommitRequest, security(("token" = [])), responses(
    (status = 200, body = Success<UserCounter>),
    (status = 403, body = Problem, description = "`counter_foreign`, `transaction_foreign`"),
    (status = 404, body = Problem, description = "`transaction_not_found`"),
    (status = 409, body = Problem, description = "`transaction_aborted`, `transaction_expired`"),
))]
async fn commit_by_hand(
    rules: Rules,
    caller: Caller,
    user_id: Path<UserId>,
    body: Json<CommitRequest>,
) -> Result<Json<Success<UserCounter>>, Failure> {
    let (user_id, gid) = (own(&caller, user_id.into_inner())?, body.request_id);
    let work = |counter: Arc<Counter>| async move {
        counter.increments.commit_by_hand(user_id, gid).await?;
        counter.counters.of_user(user_id).await
    };
    Ok(Json(Success::new(rules.run(work).await?)))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct RollbackQuery {
    /// Here or in the body.
    request_id: Option<Gid>,
}

/// Roll back by hand what one prepared by hand: the answer is the counter afterwards. A repetition changes nothing.
#[utoipa::path(delete, path = "/api/rollback_2pc/{user_id}", tag = "two-phase commit by hand",
    params(("user_id" = UserId, Path)), request_body = Option<CommitRequest>, security(("token" = [])),
    responses(
    (status = 200, body = Success<UserCounter>),
    (status = 400, body = Problem, description = "`request_id_missing`"),
    (status = 403, body = Problem, description = "`counter_foreign`, `transaction_foreign`"),
    (status = 404, body = Problem, description = "`transaction_not_found`"),
    (status = 409, body = Problem, description = "`transaction_committed`"),
))]
async fn rollback_by_hand(
    rules: Rules,
    caller: Caller,
    user_id: Path<UserId>,
    query: Query<RollbackQuery>,
    body: Bytes,
) -> Result<Json<Success<UserCounter>>, Failure> {
    let user_id = own(&caller, user_id.into_inner())?;
    let told: Option<CommitRequest> = decode(&body)?;
    let gid = told.map(|body| body.request_id).or(query.request_id).ok_or(Error::NoRequestId)?;
    let work = |counter: Arc<Counter>| async move {
        counter.increments.rollback_by_hand(user_id, gid).await?;
        counter.counters.of_user(user_id).await
    };
    Ok(Json(Success::new(rules.run(work).await?)))
}

/// Prepare, at most 512 at once; a vote per item.
#[utoipa::path(post, path = "/api/2pc/prepare", tag = "cluster", request_body = PrepareBatch,
    security(("cluster" = [])), responses(
    (status = 200, body = Votes),
    (status = 413, body = Problem, description = "`batch_too_large`"),
))]
async fn prepare(rules: Rules, caller: Caller, body: Json<PrepareBatch>) -> Result<Json<Votes>, Failure> {
    caller.cluster()?;
    let votes = rules.run(|counter| async move { counter.increments.prepare(&body.items).await }).await?;
    Ok(Json(Votes { votes }))
}

/// Commit, at most 512 at once; an ack per gid.
#[utoipa::path(post, path = "/api/2pc/commit", tag = "cluster", request_body = GidBatch,
    security(("cluster" = [])), responses(
    (status = 200, body = Acks),
    (status = 413, body = Problem, description = "`batch_too_large`"),
))]
async fn commit(rules: Rules, caller: Caller, body: Json<GidBatch>) -> Result<Json<Acks>, Failure> {
    caller.cluster()?;
    let acks = rules.run(|counter| async move { counter.increments.commit(&body.gids).await }).await?;
    Ok(Json(Acks { acks }))
}

/// Roll back, at most 512 at once; an ack per gid. What was never prepared here cannot be any more.
#[utoipa::path(post, path = "/api/2pc/rollback", tag = "cluster", request_body = GidBatch,
    security(("cluster" = [])), responses(
    (status = 200, body = Acks),
    (status = 413, body = Problem, description = "`batch_too_large`"),
))]
async fn rollback(rules: Rules, caller: Caller, body: Json<GidBatch>) -> Result<Json<Acks>, Failure> {
    caller.cluster()?;
    let acks = rules.run(|counter| async move { counter.increments.rollback(&body.gids).await }).await?;
    Ok(Json(Acks { acks }))
}

/// Passes the user whose counter it is.
fn own(caller: &Caller, user_id: UserId) -> Result<UserId, Failure> {
    if caller.user()?.id == user_id { Ok(user_id) } else { Err(Error::ForeignCounter.into()) }
}

/// A body that may be left out, with or without its content type: `curl -X POST` sends neither.
fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<Option<T>, Error> {
    if body.trim_ascii().is_empty() {
        return Ok(None);
    }
    serde_json::from_slice(body).map(Some).map_err(|error| Error::Body(error.to_string()))
}

/// The description of this door.
#[derive(OpenApi)]
#[openapi(
    info(title = "Notifyx counter", description = "What was published, per user and per topic; a participant of two-phase commit."),
    paths(user_counter, topic_counter, prepare_by_hand, commit_by_hand, rollback_by_hand, prepare, commit, rollback),
    modifiers(&Schemes)
)]
pub(crate) struct ApiDoc;

struct Schemes;

impl Modify for Schemes {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        let components = api.components.get_or_insert_default();
        let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build();
        components.add_security_scheme("token", SecurityScheme::Http(bearer));
        let secret = ApiKeyValue::new(header::CLUSTER_SECRET);
        components.add_security_scheme("cluster", SecurityScheme::ApiKey(ApiKey::Header(secret)));
    }
}

//! The door: decodes, calls one rule, encodes.

mod by_hand;
#[cfg(test)]
mod tests;

use actix_web::web::{self, Data, Path, ServiceConfig};
use notifyx_chassis::{Caller, Failure, Json, Schemes, Shared, batch_bodies};
use notifyx_model::{TopicId, UserId};
use notifyx_wire::rest::{
    Problem,
    commit::{Acks, GidBatch, PrepareBatch, Votes},
    counter::{TopicCounter, UserCounter},
};
use utoipa::OpenApi;

use crate::{Counter, Error};

type Rules = Data<Shared<Counter>>;

pub(crate) fn routes(config: &mut ServiceConfig) {
    config
        .service(web::resource("/api/prepare_2pc").post(by_hand::prepare))
        .service(web::resource("/api/commit_2pc").post(by_hand::commit))
        .service(web::resource("/api/rollback_2pc").delete(by_hand::rollback))
        .service(web::resource("/api/prepare_increment_2pc/{user_id}").post(by_hand::prepare_of_user))
        .service(web::resource("/api/commit_2pc/{user_id}").post(by_hand::commit_of_user))
        .service(web::resource("/api/rollback_2pc/{user_id}").delete(by_hand::rollback_of_user))
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

/// The description of this door.
#[derive(OpenApi)]
#[openapi(
    info(title = "Notifyx counter", description = "What was published, per user and per topic; a participant of two-phase commit."),
    paths(
        user_counter,
        topic_counter,
        by_hand::prepare,
        by_hand::commit,
        by_hand::rollback,
        by_hand::prepare_of_user,
        by_hand::commit_of_user,
        by_hand::rollback_of_user,
        prepare,
        commit,
        rollback
    ),
    modifiers(&Schemes)
)]
pub(crate) struct ApiDoc;

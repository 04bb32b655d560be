//! Publishing by hand, and a topic's log.

#![expect(unused_qualifications, reason = "what utoipa writes for query parameters")]

use std::sync::Arc;

use actix_web::{
    HttpResponse,
    web::{Path, Query},
};
use notifyx_chassis::{ByHand, Caller, Failure, Json};
use notifyx_model::{Notification, TopicId};
use notifyx_wire::rest::{
    Problem, Success,
    commit::Prepared,
    persist::{Log, NewNotification},
};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{Rules, by_hand};
use crate::Persist;

/// Publish by hand: the participant alone, without a coordinator and without the counter. The gateway's route of the same name
/// is the one that counts.
///
/// With `is_2pc_locked` the notification is only prepared, as by `POST /api/prepare_2pc`. Without, it is committed at once.
#[utoipa::path(post, path = "/api/notifications", tag = "notifications", request_body = NewNotification,
    security(("token" = [])), responses(
    (status = 200, body = Success<Prepared>, description = "prepared"),
    (status = 201, body = Notification, description = "committed"),
    (status = 400, body = Problem, description = "`body_invalid`, `too_many_recipients`, `request_id_unexpected`; of a \
        prepare `request_id_invalid`"),
    (status = 403, body = Problem, description = "`not_creator`; of a prepare `transaction_foreign`"),
    (status = 404, body = Problem, description = "`topic_not_found`"),
    (status = 409, body = Problem, description = "`topic_inactive`, `recipient_not_subscribed`; of a prepare \
        `transaction_aborted`, `transaction_expired`"),
    (status = 422, body = Problem, description = "of a prepare `request_mismatch`"),
))]
pub(super) async fn publish(
    rules: Rules,
    caller: Caller,
    body: ByHand<NewNotification>,
) -> Result<HttpResponse, Failure> {
    let new = body.required()?;
    if new.is_2pc_locked {
        return Ok(HttpResponse::Ok().json(by_hand::prepared(&rules, &caller, new).await?.0));
    }
    let user = caller.user()?.clone();
    let work = |persist: Arc<Persist>| async move { persist.transactions.publish(user.id, user.email, new).await };
    let notification = rules.run(work).await?;
    Ok(HttpResponse::Created().json(notification))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct LogQuery {
    /// Offsets above this one.
    #[serde(default)]
    after: u64,
    /// 1 to 1,000; 50 where nothing is said.
    limit: Option<u32>,
}

/// A topic's notifications in order of offset, those to others with their recipients: for gateways, which filter. A page may
/// be shorter than its limit where messages are long: go on until the `offset` of the answer is reached.
#[utoipa::path(get, path = "/api/topics/{id}/log", tag = "cluster", params(("id" = TopicId, Path), LogQuery),
    security(("cluster" = [])), responses(
    (status = 200, body = Log),
    (status = 404, body = Problem, description = "`topic_not_found`"),
))]
pub(super) async fn log(
    rules: Rules,
    caller: Caller,
    id: Path<TopicId>,
    query: Query<LogQuery>,
) -> Result<Json<Log>, Failure> {
    caller.cluster()?;
    let work = |persist: Arc<Persist>| async move { persist.notifications.log(*id, query.after, query.limit).await };
    Ok(Json(rules.run(work).await?))
}

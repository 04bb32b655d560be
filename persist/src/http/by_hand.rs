//! Two-phase commit by hand: what a caller prepares, only that caller commits or rolls back.
//!
//! Each step has the path that every participant has (`/api/prepare_2pc` and so on) and persist's own spelling of it
//! (`/api/notifications…`); both lead to the same function here. Bodies are read whatever their content type says.

#![expect(unused_qualifications, reason = "what utoipa writes for query parameters")]

use std::sync::Arc;

use actix_web::web::{Path, Query};
use notifyx_chassis::{ByHand, Caller, Failure, Json};
use notifyx_model::Gid;
use notifyx_wire::rest::{
    Problem, Success,
    commit::{Applied, CommitRequest, Prepared},
    persist::NewNotification,
};
use serde::Deserialize;
use utoipa::IntoParams;

use super::Rules;
use crate::{Error, Persist};

/// Which transaction: here or in the body.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Which {
    request_id: Option<Gid>,
}

impl Which {
    fn or(&self, body: ByHand<CommitRequest>) -> Result<Gid, Error> {
        body.0.map(|body| body.request_id).or(self.request_id).ok_or(Error::NoRequestId)
    }
}

/// Prepare a notification by hand: commit or roll it back with the `request_id` of the answer within 60 s. Until then nobody
/// sees it. With a `request_id` of one's own a repetition changes nothing. What is refused leaves nothing behind.
#[utoipa::path(post, path = "/api/prepare_2pc", tag = "two-phase commit by hand", request_body = NewNotification,
    security(("token" = [])), responses(
    (status = 200, body = Success<Prepared>),
    (status = 400, body = Problem, description = "`body_invalid`, `too_many_recipients`, `request_id_invalid`"),
    (status = 403, body = Problem, description = "`not_creator`, `transaction_foreign`"),
    (status = 404, body = Problem, description = "`topic_not_found`"),
    (status = 409, body = Problem, description = "`topic_inactive`, `recipient_not_subscribed`, `transaction_aborted`, \
        `transaction_expired`"),
    (status = 422, body = Problem, description = "`request_mismatch`: the `request_id` was used for another request"),
))]
pub(super) async fn prepare(
    rules: Rules,
    caller: Caller,
    body: ByHand<NewNotification>,
) -> Result<Json<Success<Prepared>>, Failure> {
    prepared(&rules, &caller, body.required()?).await
}

/// What both spellings of a prepare do.
pub(super) async fn prepared(
    rules: &Rules,
    caller: &Caller,
    new: NewNotification,
) -> Result<Json<Success<Prepared>>, Failure> {
    let user = caller.user()?.clone();
    let work =
        |persist: Arc<Persist>| async move { persist.transactions.prepare_by_hand(user.id, user.email, new).await };
    Ok(Json(Success::new(Prepared { request_id: rules.run(work).await? })))
}

/// Commit by hand what the caller prepared by hand. A repetition is answered like the first (`data: null` once the notification
/// was trimmed). The `request_id` stands in the body or in the query.
#[utoipa::path(post, path = "/api/commit_2pc", tag = "two-phase commit by hand", params(Which),
    request_body = Option<CommitRequest>, security(("token" = [])), responses(
    (status = 200, body = Success<Option<Applied>>),
    (status = 400, body = Problem, description = "`request_id_missing`, `body_invalid`"),
    (status = 403, body = Problem, description = "`transaction_foreign`"),
    (status = 404, body = Problem, description = "`transaction_not_found`"),
    (status = 409, body = Problem, description = "`transaction_aborted`, `transaction_expired`"),
))]
pub(super) async fn commit(
    rules: Rules,
    caller: Caller,
    which: Query<Which>,
    body: ByHand<CommitRequest>,
) -> Result<Json<Success<Option<Applied>>>, Failure> {
    let (user, gid) = (caller.user()?.id, which.or(body)?);
    let work = |persist: Arc<Persist>| async move { persist.transactions.commit_by_hand(user, gid).await };
    Ok(Json(Success::new(rules.run(work).await?)))
}

/// As `POST /api/commit_2pc`.
#[utoipa::path(post, path = "/api/notifications/commit_2pc", tag = "two-phase commit by hand", params(Which),
    request_body = Option<CommitRequest>, security(("token" = [])), responses(
    (status = 200, body = Success<Option<Applied>>),
    (status = 400, body = Problem, description = "`request_id_missing`, `body_invalid`"),
    (status = 403, body = Problem, description = "`transaction_foreign`"),
    (status = 404, body = Problem, description = "`transaction_not_found`"),
    (status = 409, body = Problem, description = "`transaction_aborted`, `transaction_expired`"),
))]
pub(super) async fn commit_notification(
    rules: Rules,
    caller: Caller,
    which: Query<Which>,
    body: ByHand<CommitRequest>,
) -> Result<Json<Success<Option<Applied>>>, Failure> {
    commit(rules, caller, which, body).await
}

/// Roll back by hand what the caller prepared by hand. A repetition changes nothing. The `request_id` stands in the body or in
/// the query.
#[utoipa::path(delete, path = "/api/rollback_2pc", tag = "two-phase commit by hand", params(Which),
    request_body = Option<CommitRequest>, security(("token" = [])), responses(
    (status = 200, body = Success<Prepared>),
    (status = 400, body = Problem, description = "`request_id_missing`, `body_invalid`"),
    (status = 403, body = Problem, description = "`transaction_foreign`"),
    (status = 404, body = Problem, description = "`transaction_not_found`"),
    (status = 409, body = Problem, description = "`transaction_committed`"),
))]
pub(super) async fn rollback(
    rules: Rules,
    caller: Caller,
    which: Query<Which>,
    body: ByHand<CommitRequest>,
) -> Result<Json<Success<Prepared>>, Failure> {
    rolled_back(&rules, &caller, which.or(body)?).await
}

/// As `DELETE /api/rollback_2pc`.
#[utoipa::path(delete, path = "/api/notifications/rollback_2pc/{request_id}", tag = "two-phase commit by hand",
    params(("request_id" = Gid, Path)), security(("token" = [])), responses(
    (status = 200, body = Success<Prepared>),
    (status = 403, body = Problem, description = "`transaction_foreign`"),
    (status = 404, body = Problem, description = "`transaction_not_found`"),
    (status = 409, body = Problem, description = "`transaction_committed`"),
))]
pub(super) async fn rollback_notification(
    rules: Rules,
    caller: Caller,
    gid: Path<Gid>,
) -> Result<Json<Success<Prepared>>, Failure> {
    rolled_back(&rules, &caller, gid.into_inner()).await
}

async fn rolled_back(rules: &Rules, caller: &Caller, gid: Gid) -> Result<Json<Success<Prepared>>, Failure> {
    let user = caller.user()?.id;
    rules.run(|persist| async move { persist.transactions.rollback_by_hand(user, gid).await }).await?;
    Ok(Json(Success::new(Prepared { request_id: gid })))
}

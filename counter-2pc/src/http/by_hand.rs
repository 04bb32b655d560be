//! Two-phase commit by hand: what a caller prepares, only that caller commits or rolls back.
//!
//! Each step has the path that every participant has (`/api/prepare_2pc` and so on), for the caller's own counter, and the
//! counter's own spelling with the user's id; both lead to the same function here. Bodies are read whatever their content type
//! says.

#![expect(unused_qualifications, reason = "what utoipa writes for query parameters")]

use std::sync::Arc;

use actix_web::web::{Path, Query};
use notifyx_chassis::{ByHand, Caller, Failure, Json};
use notifyx_model::{Gid, UserId};
use notifyx_wire::rest::{
    Problem, Success,
    commit::{CommitRequest, Prepared},
    counter::{PrepareIncrement, UserCounter},
};
use serde::Deserialize;
use utoipa::IntoParams;

use super::{Rules, own};
use crate::{Counter, Error};

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

/// Prepare an increment of one's own counter by hand, and of a topic's that one created. Commit it or roll it back with the
/// `request_id` of the answer within 60 s; several may be prepared at once. With a `request_id` of one's own a repetition
/// changes nothing. The body may be left out. What is refused leaves nothing behind.
#[utoipa::path(post, path = "/api/prepare_2pc", tag = "two-phase commit by hand",
    request_body = Option<PrepareIncrement>, security(("token" = [])), responses(
    (status = 200, body = Success<Prepared>),
    (status = 400, body = Problem, description = "`body_invalid`, `request_id_invalid`"),
    (status = 403, body = Problem, description = "`not_creator`, `transaction_foreign`"),
    (status = 404, body = Problem, description = "`topic_not_found`"),
    (status = 409, body = Problem, description = "`transaction_aborted`, `transaction_expired`"),
    (status = 422, body = Problem, description = "`request_mismatch`: the `request_id` was used for another request"),
))]
pub(super) async fn prepare(
    rules: Rules,
    caller: Caller,
    body: ByHand<PrepareIncrement>,
) -> Result<Json<Success<Prepared>>, Failure> {
    let (user_id, new) = (caller.user()?.id, body.0.unwrap_or_default());
    let work = |counter: Arc<Counter>| async move { counter.increments.prepare_by_hand(user_id, new).await };
    Ok(Json(Success::new(Prepared { request_id: rules.run(work).await? })))
}

/// As `POST /api/prepare_2pc`, by the user's id.
#[utoipa::path(post, path = "/api/prepare_increment_2pc/{user_id}", tag = "two-phase commit by hand",
    params(("user_id" = UserId, Path)), request_body = Option<PrepareIncrement>, security(("token" = [])), responses(
    (status = 200, body = Success<Prepared>),
    (status = 400, body = Problem, description = "`body_invalid`, `request_id_invalid`"),
    (status = 403, body = Problem, description = "`counter_foreign`, `not_creator`, `transaction_foreign`"),
    (status = 404, body = Problem, description = "`topic_not_found`"),
    (status = 409, body = Problem, description = "`transaction_aborted`, `transaction_expired`"),
    (status = 422, body = Problem, description = "`request_mismatch`: the `request_id` was used for another request"),
))]
pub(super) async fn prepare_of_user(
    rules: Rules,
    caller: Caller,
    user_id: Path<UserId>,
    body: ByHand<PrepareIncrement>,
) -> Result<Json<Success<Prepared>>, Failure> {
    own(&caller, user_id.into_inner())?;
    prepare(rules, caller, body).await
}

/// Commit by hand what one prepared by hand: the answer is the counter afterwards. A repetition changes nothing. The
/// `request_id` stands in the body or in the query.
#[utoipa::path(post, path = "/api/commit_2pc", tag = "two-phase commit by hand", params(Which),
    request_body = Option<CommitRequest>, security(("token" = [])), responses(
    (status = 200, body = Success<UserCounter>),
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
) -> Result<Json<Success<UserCounter>>, Failure> {
    let (user_id, gid) = (caller.user()?.id, which.or(body)?);
    let work = |counter: Arc<Counter>| async move {
        counter.increments.commit_by_hand(user_id, gid).await?;
        counter.counters.of_user(user_id).await
    };
    Ok(Json(Success::new(rules.run(work).await?)))
}

/// As `POST /api/commit_2pc`, by the user's id.
#[utoipa::path(post, path = "/api/commit_2pc/{user_id}", tag = "two-phase commit by hand",
    params(("user_id" = UserId, Path), Which), request_body = Option<CommitRequest>, security(("token" = [])), responses(
    (status = 200, body = Success<UserCounter>),
    (status = 400, body = Problem, description = "`request_id_missing`, `body_invalid`"),
    (status = 403, body = Problem, description = "`counter_foreign`, `transaction_foreign`"),
    (status = 404, body = Problem, description = "`transaction_not_found`"),
    (status = 409, body = Problem, description = "`transaction_aborted`, `transaction_expired`"),
))]
pub(super) async fn commit_of_user(
    rules: Rules,
    caller: Caller,
    user_id: Path<UserId>,
    which: Query<Which>,
    body: ByHand<CommitRequest>,
) -> Result<Json<Success<UserCounter>>, Failure> {
    own(&caller, user_id.into_inner())?;
    commit(rules, caller, which, body).await
}

/// Roll back by hand what one prepared by hand: the answer is the counter afterwards. A repetition changes nothing. The
/// `request_id` stands in the body or in the query.
#[utoipa::path(delete, path = "/api/rollback_2pc", tag = "two-phase commit by hand", params(Which),
    request_body = Option<CommitRequest>, security(("token" = [])), responses(
    (status = 200, body = Success<UserCounter>),
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
) -> Result<Json<Success<UserCounter>>, Failure> {
    let (user_id, gid) = (caller.user()?.id, which.or(body)?);
    let work = |counter: Arc<Counter>| async move {
        counter.increments.rollback_by_hand(user_id, gid).await?;
        counter.counters.of_user(user_id).await
    };
    Ok(Json(Success::new(rules.run(work).await?)))
}

/// As `DELETE /api/rollback_2pc`, by the user's id.
#[utoipa::path(delete, path = "/api/rollback_2pc/{user_id}", tag = "two-phase commit by hand",
    params(("user_id" = UserId, Path), Which), request_body = Option<CommitRequest>, security(("token" = [])), responses(
    (status = 200, body = Success<UserCounter>),
    (status = 400, body = Problem, description = "`request_id_missing`, `body_invalid`"),
    (status = 403, body = Problem, description = "`counter_foreign`, `transaction_foreign`"),
    (status = 404, body = Problem, description = "`transaction_not_found`"),
    (status = 409, body = Problem, description = "`transaction_committed`"),
))]
pub(super) async fn rollback_of_user(
    rules: Rules,
    caller: Caller,
    user_id: Path<UserId>,
    which: Query<Which>,
    body: ByHand<CommitRequest>,
) -> Result<Json<Success<UserCounter>>, Failure> {
    own(&caller, user_id.into_inner())?;
    rollback(rules, caller, which, body).await
}

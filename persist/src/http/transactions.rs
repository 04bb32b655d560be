//! Two-phase commit: the batch form of the coordinator, and the second phase by hand.

use actix_web::web::Path;
use notifyx_chassis::{Caller, Failure, Json};
use notifyx_model::Gid;
use notifyx_wire::rest::{
    Problem, Success,
    commit::{Acks, Applied, CommitRequest, GidBatch, PrepareBatch, Prepared, Votes},
};

use super::Rules;

/// Prepare, at most 512 at once; a vote per item.
#[utoipa::path(post, path = "/api/2pc/prepare", tag = "cluster", request_body = PrepareBatch,
    security(("cluster" = [])), responses(
    (status = 200, body = Votes),
    (status = 413, body = Problem, description = "`batch_too_large`"),
))]
pub(super) async fn prepare(rules: Rules, caller: Caller, body: Json<PrepareBatch>) -> Result<Json<Votes>, Failure> {
    caller.cluster()?;
    let votes = rules.run(|persist| async move { persist.transactions.prepare(body.into_inner().items).await }).await?;
    Ok(Json(Votes { votes }))
}

/// Commit, at most 512 at once; an ack per gid. Notifications of one topic take their offsets in this order.
#[utoipa::path(post, path = "/api/2pc/commit", tag = "cluster", request_body = GidBatch,
    security(("cluster" = [])), responses(
    (status = 200, body = Acks),
    (status = 413, body = Problem, description = "`batch_too_large`"),
))]
pub(super) async fn commit(rules: Rules, caller: Caller, body: Json<GidBatch>) -> Result<Json<Acks>, Failure> {
    caller.cluster()?;
    let acks = rules.run(|persist| async move { persist.transactions.commit(&body.gids).await }).await?;
    Ok(Json(Acks { acks }))
}

/// Roll back, at most 512 at once; an ack per gid. What was never prepared here cannot be any more.
#[utoipa::path(post, path = "/api/2pc/rollback", tag = "cluster", request_body = GidBatch,
    security(("cluster" = [])), responses(
    (status = 200, body = Acks),
    (status = 413, body = Problem, description = "`batch_too_large`"),
))]
pub(super) async fn rollback(rules: Rules, caller: Caller, body: Json<GidBatch>) -> Result<Json<Acks>, Failure> {
    caller.cluster()?;
    let acks = rules.run(|persist| async move { persist.transactions.rollback(&body.gids).await }).await?;
    Ok(Json(Acks { acks }))
}

/// Commit by hand what the caller prepared by hand. A repetition is answered like the first (`data: null` once the notification
/// was trimmed).
#[utoipa::path(post, path = "/api/notifications/commit_2pc", tag = "notifications", request_body = CommitRequest,
    security(("token" = [])), responses(
    (status = 200, body = Success<Option<Applied>>),
    (status = 403, body = Problem, description = "`transaction_foreign`"),
    (status = 404, body = Problem, description = "`transaction_not_found`"),
    (status = 409, body = Problem, description = "`transaction_aborted`, `transaction_expired`"),
))]
pub(super) async fn commit_by_hand(
    rules: Rules,
    caller: Caller,
    body: Json<CommitRequest>,
) -> Result<Json<Success<Option<Applied>>>, Failure> {
    let user = caller.user()?.id;
    let work = |persist: std::sync::Arc<crate::Persist>| async move {
        persist.transactions.commit_by_hand(user, body.request_id).await
    };
    Ok(Json(Success::new(rules.run(work).await?)))
}

/// Roll back by hand what the caller prepared by hand. A repetition changes nothing.
#[utoipa::path(delete, path = "/api/notifications/rollback_2pc/{request_id}", tag = "notifications",
    params(("request_id" = Gid, Path)), security(("token" = [])), responses(
    (status = 200, body = Success<Prepared>),
    (status = 403, body = Problem, description = "`transaction_foreign`"),
    (status = 404, body = Problem, description = "`transaction_not_found`"),
    (status = 409, body = Problem, description = "`transaction_committed`"),
))]
pub(super) async fn rollback_by_hand(
    rules: Rules,
    caller: Caller,
    gid: Path<Gid>,
) -> Result<Json<Success<Prepared>>, Failure> {
    let (user, gid) = (caller.user()?.id, gid.into_inner());
    rules.run(|persist| async move { persist.transactions.rollback_by_hand(user, gid).await }).await?;
    Ok(Json(Success::new(Prepared { request_id: gid })))
}

//! Two-phase commit as the coordinator asks for it: in batches. The forms for people are in `by_hand`.

use notifyx_chassis::{Caller, Failure, Json};
use notifyx_wire::rest::{
    Problem,
    commit::{Acks, GidBatch, PrepareBatch, Votes},
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

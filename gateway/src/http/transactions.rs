//! Two-phase commits: where one stands, for its publisher; all of them, for operators.
//!
//! Operators show the cluster secret, as services do: what stands here is about everybody's publishes.

use actix_web::web;
use notifyx_chassis::{Caller, Failure, Json, Query};
use notifyx_commit::Resolve;
use notifyx_model::{Gid, OperatorName};
use notifyx_wire::rest::{
    Problem,
    commit::{ResolveRequest, Standing, TransactionDetails, TransactionPage, TransactionStatus},
};
use serde::{Deserialize, Serialize};

use super::Gateway;

pub(super) fn routes(config: &mut web::ServiceConfig) {
    config
        .service(web::resource("/2pc").get(list))
        .service(web::resource("/2pc/{gid}").get(status))
        .service(web::resource("/2pc/{gid}/retry").post(retry))
        .service(web::resource("/2pc/{gid}/resolve").post(resolve));
}

/// What is told depends on who asks.
#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(untagged)]
pub(crate) enum Told {
    Publisher(TransactionStatus),
    Operator(TransactionDetails),
}

/// Where a publish stands: `committed` and `aborted` are final. A publisher sees its own; with the cluster secret everything about
/// any transaction is told.
#[utoipa::path(get, path = "/api/2pc/{gid}", tag = "notifications", params(("gid" = Gid, Path)),
    security(("token" = []), ("cluster" = [])), responses(
    (status = 200, body = Told),
    (status = 401, body = Problem),
    (status = 404, body = Problem, description = "`transaction_not_found`"),
))]
pub(crate) async fn status(gateway: Gateway, caller: Caller, gid: web::Path<Gid>) -> Result<web::Json<Told>, Failure> {
    // A service that acts for a user is answered as that user.
    let told = if let Ok(by) = caller.user().cloned() {
        Told::Publisher(gateway.run(|live| async move { live.publisher.status(&by, *gid).await }).await?)
    } else {
        caller.cluster()?;
        Told::Operator(gateway.run(|live| async move { live.operators.get(*gid).await }).await?)
    };
    Ok(web::Json(told))
}

#[derive(Clone, Debug, Deserialize, Serialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListQuery {
    /// Which of them; the open ones where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    state: Option<Standing>,
    /// The `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    after: Option<Gid>,
    /// 1 to 500; 50 where nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    limit: Option<u32>,
}

/// Transactions, oldest first, in pages. For operators.
#[utoipa::path(get, path = "/api/2pc", tag = "operators", params(ListQuery), security(("cluster" = [])), responses(
    (status = 200, body = TransactionPage),
    (status = 400, body = Problem, description = "`query_invalid`, `limit_invalid`"),
    (status = 401, body = Problem),
    (status = 403, body = Problem, description = "`cluster_only`"),
))]
pub(crate) async fn list(
    gateway: Gateway,
    caller: Caller,
    query: Query<ListQuery>,
) -> Result<web::Json<TransactionPage>, Failure> {
    caller.cluster()?;
    let ListQuery { state, after, limit } = query.into_inner();
    let standing = state.unwrap_or(Standing::Open);
    Ok(web::Json(gateway.run(move |live| async move { live.operators.list(standing, after, limit).await }).await?))
}

#[derive(Clone, Debug, Deserialize, Serialize, utoipa::IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(crate) struct RetryQuery {
    /// Who asks for it, for the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[param(value_type = Option<String>)]
    operator: Option<OperatorName>,
}

/// Try an open transaction again now, out of its pause: recovery does within a second. For operators.
#[utoipa::path(post, path = "/api/2pc/{gid}/retry", tag = "operators", params(("gid" = Gid, Path), RetryQuery),
    security(("cluster" = [])), responses(
    (status = 200, description = "as it stands; ask again for what came of it", body = TransactionDetails),
    (status = 400, body = Problem, description = "`path_invalid`, `query_invalid`"),
    (status = 401, body = Problem),
    (status = 403, body = Problem, description = "`cluster_only`"),
    (status = 404, body = Problem, description = "`transaction_not_found`"),
    (status = 409, body = Problem, description = "`transaction_closed`, `not_decided`"),
))]
pub(crate) async fn retry(
    gateway: Gateway,
    caller: Caller,
    gid: web::Path<Gid>,
    query: Query<RetryQuery>,
) -> Result<web::Json<TransactionDetails>, Failure> {
    caller.cluster()?;
    let by = query.into_inner().operator;
    Ok(web::Json(gateway.run(move |live| async move { live.operators.retry(*gid, by.as_ref()).await }).await?))
}

/// Close a quarantined transaction with what was found: nothing is sent to a participant any more, and the decision stays. For
/// operators.
#[utoipa::path(post, path = "/api/2pc/{gid}/resolve", tag = "operators", params(("gid" = Gid, Path)),
    request_body = ResolveRequest, security(("cluster" = [])), responses(
    (status = 200, body = TransactionDetails),
    (status = 400, body = Problem, description = "`path_invalid`, `body_invalid`"),
    (status = 401, body = Problem),
    (status = 403, body = Problem, description = "`cluster_only`"),
    (status = 404, body = Problem, description = "`transaction_not_found`"),
    (status = 409, body = Problem, description = "`not_quarantined`, `transaction_closed`"),
))]
pub(crate) async fn resolve(
    gateway: Gateway,
    caller: Caller,
    gid: web::Path<Gid>,
    body: Json<ResolveRequest>,
) -> Result<web::Json<TransactionDetails>, Failure> {
    caller.cluster()?;
    let ResolveRequest { outcome, operator, reason } = body.into_inner();
    let resolve = Resolve { gid: *gid, outcome, by: operator, reason };
    Ok(web::Json(gateway.run(move |live| async move { live.operators.resolve(&resolve).await }).await?))
}

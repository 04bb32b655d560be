//! Two-phase commits: where one stands.

use actix_web::web;
use notifyx_chassis::{Caller, Failure};
use notifyx_model::Gid;
use notifyx_wire::rest::{Problem, commit::TransactionStatus};

use super::{Gateway, user};

pub(super) fn routes(config: &mut web::ServiceConfig) {
    config.service(web::resource("/2pc/{gid}").get(status));
}

/// Where a publish stands: `committed` and `aborted` are final. The publisher's own only.
#[utoipa::path(get, path = "/api/2pc/{gid}", tag = "notifications", params(("gid" = Gid, Path)), responses(
    (status = 200, body = TransactionStatus), (status = 404, body = Problem),
))]
pub(crate) async fn status(
    gateway: Gateway,
    caller: Caller,
    gid: web::Path<Gid>,
) -> Result<web::Json<TransactionStatus>, Failure> {
    let by = user(&caller)?;
    Ok(web::Json(gateway.run(|live| async move { live.publisher.status(&by, *gid).await }).await?))
}

//! The door: decodes, calls one rule, encodes.
//!
//! Writing needs the cluster's secret. Reading takes a user's token too, once auth is here to say whose it is. What
//! Prometheus scrapes is open.

#![expect(unused_qualifications, reason = "what utoipa writes for query parameters")]

use std::{sync::Arc, time::Duration};

use actix_web::{
    HttpResponse,
    web::{self, Data, Path, Query},
};
use notifyx_chassis::{Caller, Failure, Json};
use notifyx_model::{InstanceId, ServiceName};
use notifyx_wire::rest::{
    Problem,
    discovery::{Lease, Register, ServiceAddress, Services, TargetGroup},
};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;
use utoipa::{
    IntoParams, Modify, OpenApi,
    openapi::security::{ApiKey, ApiKeyValue, SecurityScheme},
};

use crate::instances::Instances;

/// What the door calls. It is all in memory, so it is called where the request came in.
#[derive(Clone)]
pub(crate) struct Discovery {
    pub(crate) instances: Arc<Instances>,
    /// Ends what waits for news when the service stops.
    pub(crate) stopping: CancellationToken,
}

type Rules = Data<Discovery>;

pub(crate) fn routes(config: &mut web::ServiceConfig) {
    config
        .service(web::resource("/api/register").post(register))
        .service(web::resource("/api/instances/{id}").put(renew).delete(release))
        .service(web::resource("/api/service_address/{service}").get(service_address))
        .service(web::resource("/api/services").get(services))
        .service(web::resource("/api/watch").get(watch))
        .service(web::resource("/prometheus/targets").get(targets))
        .service(web::resource("/api/{service}").delete(release_service));
}

/// Register an instance, or renew its lease.
#[utoipa::path(post, path = "/api/register", tag = "leases", request_body = Register, security(("cluster" = [])), responses(
    (status = 200, body = Lease),
    (status = 400, body = Problem, description = "`address_invalid`, `meta_invalid`, `body_invalid`"),
    (status = 409, body = Problem, description = "`instance_taken`: it is registered as another service"),
    (status = 429, body = Problem, description = "`registry_full`"),
))]
async fn register(rules: Rules, caller: Caller, body: Json<Register>) -> Result<Json<Lease>, Failure> {
    caller.cluster()?;
    Ok(Json(rules.instances.register(body.into_inner())?))
}

/// Renew a lease.
#[utoipa::path(put, path = "/api/instances/{id}", tag = "leases", params(("id" = InstanceId, Path)),
    security(("cluster" = [])), responses(
    (status = 200, body = Lease),
    (status = 404, body = Problem, description = "`instance_not_found`: its lease ran out; register again"),
))]
async fn renew(rules: Rules, caller: Caller, id: Path<InstanceId>) -> Result<Json<Lease>, Failure> {
    caller.cluster()?;
    Ok(Json(rules.instances.renew(*id)?))
}

/// Leave.
#[utoipa::path(delete, path = "/api/instances/{id}", tag = "leases", params(("id" = InstanceId, Path)),
    security(("cluster" = [])), responses(
    (status = 204),
    (status = 404, body = Problem, description = "`instance_not_found`"),
))]
async fn release(rules: Rules, caller: Caller, id: Path<InstanceId>) -> Result<HttpResponse, Failure> {
    caller.cluster()?;
    rules.instances.release(*id)?;
    Ok(HttpResponse::NoContent().finish())
}

/// Remove all instances of a service.
#[utoipa::path(delete, path = "/api/{service}", tag = "leases", params(("service" = ServiceName, Path)),
    security(("cluster" = [])), responses(
    (status = 204),
    (status = 404, body = Problem, description = "`service_not_found`"),
))]
async fn release_service(rules: Rules, caller: Caller, service: Path<ServiceName>) -> Result<HttpResponse, Failure> {
    caller.cluster()?;
    rules.instances.release_service(&service)?;
    Ok(HttpResponse::NoContent().finish())
}

/// One address of a service; its instances take turns.
#[utoipa::path(get, path = "/api/service_address/{service}", tag = "lists", params(("service" = ServiceName, Path)),
    security(("cluster" = [])), responses(
    (status = 200, body = ServiceAddress),
    (status = 404, body = Problem, description = "`service_not_found`: it has no instance now"),
))]
async fn service_address(
    rules: Rules,
    _caller: Caller,
    service: Path<ServiceName>,
) -> Result<Json<ServiceAddress>, Failure> {
    Ok(Json(rules.instances.next_address(&service)?))
}

/// All instances, with the time since each renewed its lease.
#[utoipa::path(get, path = "/api/services", tag = "lists", security(("cluster" = [])), responses(
    (status = 200, body = Services),
))]
async fn services(rules: Rules, _caller: Caller) -> Result<Json<Services>, Failure> {
    Ok(Json(rules.instances.list()))
}

#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
struct WatchQuery {
    /// The version that is known. Any other one, older or newer, is answered at once.
    #[serde(default)]
    after: u64,
    /// How long to wait for news; at most 30,000. 0: not at all.
    #[serde(default = "watch_wait_ms")]
    wait_ms: u64,
}

/// Below the idle time-outs of proxies.
fn watch_wait_ms() -> u64 {
    20_000
}

/// All instances, once their version is another than `after`; after `wait_ms` in any case.
#[utoipa::path(get, path = "/api/watch", tag = "lists", params(WatchQuery), security(("cluster" = [])), responses(
    (status = 200, body = Services),
))]
async fn watch(rules: Rules, _caller: Caller, query: Query<WatchQuery>) -> Result<Json<Services>, Failure> {
    let wait = Duration::from_millis(query.wait_ms);
    Ok(Json(rules.instances.watch(query.after, wait, &rules.stopping).await))
}

/// What to scrape, in the format of Prometheus' HTTP service discovery. Open, as the scraped pages are.
#[utoipa::path(get, path = "/prometheus/targets", tag = "lists", responses((status = 200, body = [TargetGroup])))]
async fn targets(rules: Rules) -> Json<Vec<TargetGroup>> {
    Json(rules.instances.targets())
}

/// The description of this door.
#[derive(OpenApi)]
#[openapi(
    info(title = "Notifyx discovery", description = "Which instances of which service there are."),
    paths(register, renew, release, release_service, service_address, services, watch, targets),
    modifiers(&Schemes)
)]
pub(crate) struct ApiDoc;

struct Schemes;

impl Modify for Schemes {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        let secret = ApiKeyValue::new(notifyx_wire::header::CLUSTER_SECRET);
        let components = api.components.get_or_insert_default();
        components.add_security_scheme("cluster", SecurityScheme::ApiKey(ApiKey::Header(secret)));
    }
}

#[cfg(test)]
mod tests;

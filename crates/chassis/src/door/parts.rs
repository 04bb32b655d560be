//! The frame of a door: what stands around its routes, whichever server serves them. Bodies have their bounds here, and what
//! cannot be read, or stands nowhere, its answers.

use std::fmt;

use actix_web::{
    HttpRequest, HttpResponse, ResponseError,
    error::{JsonPayloadError, PathError, QueryPayloadError},
    web::{self, ServiceConfig},
};
use notifyx_wire::json::Unfit;

use super::Routes;
use crate::{
    Failure,
    caller::Doorkeeper,
    inner::{self, Inner},
    json,
    request::{Requests, method_not_allowed},
};

/// Larger than any batch of the coordinator's short messages needs; a 2 MiB body is refused before it is read.
pub(crate) const BODY_BYTES_MAX: usize = 1024 * 1024;

/// A cluster call carries up to 512 messages of 64 kB.
const BATCH_BYTES_MAX: usize = 40 * 1024 * 1024;

/// A door's frame and routes, for any actix `App`: `App::new().wrap(from_fn(observe)).configure(|c| parts.configure(c))`.
#[derive(Clone)]
pub struct Parts {
    pub(super) doorkeeper: web::Data<Doorkeeper>,
    pub(super) requests: web::Data<Requests>,
    pub(super) inner: web::Data<Inner>,
    pub(super) routes: Option<Routes>,
}

impl Parts {
    pub fn configure(&self, config: &mut ServiceConfig) {
        config
            .app_data(self.doorkeeper.clone())
            .app_data(self.requests.clone())
            .app_data(self.inner.clone())
            .app_data(json_config(BODY_BYTES_MAX))
            .app_data(web::PayloadConfig::new(BODY_BYTES_MAX))
            .app_data(web::QueryConfig::default().error_handler(|error, _| bad_query(&error).into()))
            .app_data(web::PathConfig::default().error_handler(|error, _| bad_path(&error).into()));
        inner::routes(config);
        if let Some(routes) = &self.routes {
            routes(config);
        }
        config.default_service(web::to(not_found));
    }
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").finish_non_exhaustive()
    }
}

/// For a scope of cluster-only batch routes: `web::scope("/api/2pc").app_data(batch_bodies())`.
pub fn batch_bodies() -> web::JsonConfig {
    json_config(BATCH_BYTES_MAX)
}

fn json_config(bytes_max: usize) -> web::JsonConfig {
    web::JsonConfig::default().limit(bytes_max).error_handler(move |error, _| bad_json(&error, bytes_max).into())
}

fn bad_json(error: &JsonPayloadError, bytes_max: usize) -> Failure {
    match error {
        JsonPayloadError::OverflowKnownLength { .. } | JsonPayloadError::Overflow { .. } => json::too_large(bytes_max),
        JsonPayloadError::ContentType => json::not_json(),
        JsonPayloadError::Deserialize(error) => json::unfit(&Unfit::syntax(error)),
        other => Failure::made(400, "body_invalid", format!("the body could not be read: {other}")),
    }
}

/// Of doors that read it with actix' `web::Query`.
fn bad_query(error: &QueryPayloadError) -> Failure {
    let why = match error {
        QueryPayloadError::Deserialize(why) => why.to_string(),
        other => other.to_string(),
    };
    Failure::made(400, "query_invalid", format!("the query is not what this path takes: {why}"))
}

fn bad_path(error: &PathError) -> Failure {
    let why = match error {
        // Without actix' own words before it.
        PathError::Deserialize(why) => why.to_string(),
        other => other.to_string(),
    };
    Failure::made(400, "path_invalid", format!("the path holds an invalid value: {why}"))
}

async fn not_found(request: HttpRequest) -> HttpResponse {
    if request.resource_map().match_pattern(request.path()).is_some() {
        return method_not_allowed().error_response();
    }
    let shown: String = request.path().chars().take(200).collect();
    Failure::made(404, "route_not_found", format!("there is nothing at {} {shown}", request.method())).error_response()
}

//! `grpc.health.v1`: the same answer as `/ready`, for probes that speak gRPC.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures_util::{Stream, stream};
use tonic::{Request, Response, Status, async_trait};
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus, health_server};

use crate::inner::Inner;

/// How late a watcher hears of a change.
const LOOK: Duration = Duration::from_secs(1);

pub(super) struct Health {
    inner: Arc<Inner>,
    /// Beside the empty name, which means the whole server.
    names: Vec<&'static str>,
}

impl Health {
    pub(super) fn new(inner: Arc<Inner>, names: Vec<&'static str>) -> Self {
        Self { inner, names }
    }

    fn knows(&self, service: &str) -> bool {
        service.is_empty() || self.names.contains(&service)
    }
}

async fn state(inner: &Inner) -> ServingStatus {
    if inner.is_ready().await { ServingStatus::Serving } else { ServingStatus::NotServing }
}

fn says(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

#[async_trait]
impl health_server::Health for Health {
    async fn check(&self, request: Request<HealthCheckRequest>) -> Result<Response<HealthCheckResponse>, Status> {
        let service = &request.get_ref().service;
        if !self.knows(service) {
            return Err(Status::not_found("no such service is here"));
        }
        Ok(Response::new(says(state(&self.inner).await)))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send>>;

    /// The state at once, then each change of it.
    async fn watch(&self, request: Request<HealthCheckRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let (inner, known) = (self.inner.clone(), self.knows(&request.get_ref().service));
        let changes = stream::unfold(None, move |last| {
            let inner = inner.clone();
            async move {
                loop {
                    let now = if known { state(&inner).await } else { ServingStatus::ServiceUnknown };
                    if last != Some(now) {
                        return Some((Ok(says(now)), Some(now)));
                    }
                    tokio::time::sleep(LOOK).await;
                }
            }
        });
        Ok(Response::new(Box::pin(changes)))
    }
}

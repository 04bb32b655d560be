//! A service's gRPC door. The port that takes calls answers plain HTTP too: `/health`, `/ready`, `/metrics`, `/status`,
//! `/dashboard`, as every door does.
//!
//! Every call carries the cluster's secret, but for the health service: that one is for probes, as `/health` is.

mod accept;
mod body;
mod calls;
mod health;
mod methods;
mod plain;
#[cfg(test)]
mod tests;

use std::{convert::Infallible, fmt, net::SocketAddr, sync::Arc};

use hyper::{Request, Response};
use tokio::net::{TcpListener, TcpSocket};
use tokio_util::sync::CancellationToken;
use tonic::{Status, body::Body, codegen::Service, server::NamedService, service::Routes};
use tonic_health::pb::health_server::HealthServer;

use super::Door;
use crate::{
    Caller, Denied, Running, StartError,
    connections::BACKLOG,
    door::grpc::{accept::Patience, calls::Calls, health::Health, methods::Methods},
    reply,
    request::Requests,
};

/// For `max_decoding_message_size` and `max_encoding_message_size` of a service and of its clients; tonic's own bound is 4 MiB. The
/// largest request of the house has 8 MiB of events, each of which may be a few bytes longer here than in JSON.
pub const MESSAGE_BYTES_MAX: usize = 32 * 1024 * 1024;

/// What a gRPC door serves.
pub struct Services {
    routes: Routes,
    descriptors: &'static [u8],
    names: Vec<&'static str>,
}

impl Services {
    /// `descriptors`: the encoded `FileDescriptorSet` of all services that are added, for reflection and for the metrics' labels.
    pub fn new(descriptors: &'static [u8]) -> Self {
        Self { routes: Routes::default(), descriptors, names: Vec::new() }
    }

    #[must_use]
    pub fn with<S>(mut self, service: S) -> Self
    where
        S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
            + NamedService
            + Clone
            + Send
            + Sync
            + 'static,
        S::Future: Send + 'static,
    {
        self.routes = self.routes.add_service(service);
        self.names.push(S::NAME);
        self
    }
}

impl fmt::Debug for Services {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Services").field(&self.names).finish()
    }
}

/// Who makes a call that came through this door: a service of the cluster, possibly for a user.
pub fn caller<T>(request: &tonic::Request<T>) -> Result<&Caller, Status> {
    request.extensions().get().ok_or_else(|| reply::grpc(&Denied::Missing))
}

impl Door {
    /// Binds and serves on the shared runtime, where the services' rules run too. HTTP routes, and how tokens are resolved, are not this
    /// door's: it takes services of the cluster only.
    #[expect(clippy::unused_async, reason = "as `listen`: callers start services in async code")]
    pub async fn listen_grpc(self, services: Services, address: SocketAddr) -> Result<Running, StartError> {
        self.open_grpc(services, address, Patience::default())
    }

    fn open_grpc(self, services: Services, address: SocketAddr, patience: Patience) -> Result<Running, StartError> {
        let (name, runtime) = (self.name, self.context.runtime.clone());
        let bind = |source| StartError::Bind { address, source };
        let listener = {
            let _entered = runtime.enter();
            listen(address).map_err(bind)?
        };
        let bound = listener.local_addr().map_err(bind)?;
        let inner = Arc::new(self.inner);
        let known = [services.descriptors, tonic_health::pb::FILE_DESCRIPTOR_SET];
        let mut reflection = tonic_reflection::server::Builder::configure();
        for descriptors in known {
            reflection = reflection.register_encoded_file_descriptor_set(descriptors);
        }
        let broken = |error: &dyn fmt::Display| StartError::Other(format!("{name}: its gRPC description: {error}"));
        let reflection = reflection.build_v1().map_err(|error| broken(&error))?;
        let health = HealthServer::new(Health::new(inner.clone(), services.names));
        let routes = services.routes.add_service(health).add_service(reflection).prepare();
        let known = [known[0], known[1], tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET];
        let closing = CancellationToken::new();
        let calls = Calls {
            inner,
            cluster: self.context.cluster.clone(),
            routes,
            methods: Methods::new(&self.registry, &known).map_err(|error| broken(&error))?,
            requests: Requests::new(&self.registry),
            closing: closing.clone(),
        };
        let serving = runtime.spawn(accept::serve(name, listener, Arc::new(calls), patience, closing.clone()));
        tracing::info!(service = name, address = %bound, "{name} listens on {bound}");
        Ok(Running::of(name, bound, async move { closing.cancel() }, serving))
    }
}

/// Within a runtime.
fn listen(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // A service that is restarted need not wait for its predecessor's connections to be forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// What the door itself says no with.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("the service is stopping")]
    Stopping,
    #[error("more than {max} calls are being answered: try again in a moment")]
    TooMany { max: usize },
    #[error("the call was not answered within {ms} ms")]
    Late { ms: u128 },
}

impl notifyx_model::Fault for Refused {
    fn kind(&self) -> notifyx_model::Kind {
        match self {
            Self::Stopping => notifyx_model::Kind::Unavailable,
            Self::TooMany { .. } => notifyx_model::Kind::TooMany,
            Self::Late { .. } => notifyx_model::Kind::Timeout,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Stopping => "stopping",
            Self::TooMany { .. } => "too_many_calls",
            Self::Late { .. } => "deadline_exceeded",
        }
    }
}

/// An answer without a message.
fn refuse(status: Status) -> Response<Body> {
    status.into_http()
}

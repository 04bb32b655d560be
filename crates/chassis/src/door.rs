//! A service's HTTP door: its routes, and around them what every door has.

pub mod grpc;
mod parts;

use std::{
    fmt,
    future::Future,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use actix_web::{
    App, HttpServer,
    middleware::from_fn,
    web::{self, ServiceConfig},
};
use notifyx_database::Database;
use prometheus::Registry;
use serde::Serialize;

use crate::{
    Context, Identify, Running, StartError,
    caller::Doorkeeper,
    connections::{BACKLOG, DRAIN_SECONDS, KEEP_ALIVE, LINGER, REQUEST_HEAD_TIMEOUT},
    inner::Inner,
    observe,
    reply::chain,
    request::Requests,
    sampled,
};

pub(crate) use parts::BODY_BYTES_MAX;
pub use parts::{Parts, batch_bodies};

type Routes = Arc<dyn Fn(&mut ServiceConfig) + Send + Sync>;

/// Builds a door; [`Door::listen`] opens it, or [`Door::listen_grpc`].
pub struct Door {
    name: &'static str,
    context: Context,
    registry: Registry,
    inner: Inner,
    identify: Option<Arc<dyn Identify>>,
    trusted_proxies: Vec<IpAddr>,
    routes: Option<Routes>,
}

impl Door {
    pub fn new(name: &'static str, context: &Context) -> Self {
        let registry = Registry::new();
        crate::telemetry::build_info(&registry, name);
        let inner = Inner::new(name, context, registry.clone());
        let trusted_proxies = Vec::new();
        Self { name, context: context.clone(), registry, inner, identify: None, trusted_proxies, routes: None }
    }

    /// Where the service registers its own metrics. One registry per service: two platforms fit in one process.
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Shown on `/status` and `/dashboard`; secrets and passwords mask themselves when serialised.
    #[must_use]
    pub fn config(mut self, config: &impl Serialize) -> Self {
        self.inner.config = serde_json::to_value(config).unwrap_or_default();
        self
    }

    /// A condition of being ready.
    #[must_use]
    pub fn ready<F, Fut>(mut self, name: &'static str, check: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), String>> + Send + 'static,
    {
        self.inner.checks.push((name, Arc::new(move || Box::pin(check()))));
        self
    }

    /// The database: being ready needs it, and its connections are measured.
    #[must_use]
    pub fn database(self, database: &Database) -> Self {
        let (measured, database) = (database.clone(), database.clone());
        let sample = move || {
            let (open, idle) = measured.usage();
            vec![("idle", idle), ("used", (open as usize).saturating_sub(idle))]
        };
        let help = "database connections, used and idle";
        sampled::register(&self.registry, "notifyx_database_connections", help, "state", Box::new(sample));
        self.ready("database", move || {
            let database = database.clone();
            async move { database.ping().await.map_err(|error| chain(&error)) }
        })
    }

    /// What waits in the service's queues, by queue: `notifyx_queued{queue=…}`, looked at when somebody asks.
    #[must_use]
    pub fn queues(self, sample: impl Fn() -> Vec<(&'static str, usize)> + Send + Sync + 'static) -> Self {
        let help = "what waits in queues";
        sampled::register(&self.registry, "notifyx_queued", help, "queue", Box::new(sample));
        self
    }

    /// The service's own figures for `/status` and `/dashboard`; cheap, as pages ask often.
    #[must_use]
    pub fn figures(mut self, figures: impl Fn() -> serde_json::Value + Send + Sync + 'static) -> Self {
        self.inner.figures = Some(Arc::new(figures));
        self
    }

    /// How user tokens are resolved. Without it the door takes the cluster's secret only.
    #[must_use]
    pub fn identify(mut self, identify: Arc<dyn Identify>) -> Self {
        self.identify = Some(identify);
        self
    }

    /// Peers whose `X-Forwarded-For` is believed. Without them nobody's is.
    #[must_use]
    pub fn trusted_proxies(mut self, proxies: Vec<IpAddr>) -> Self {
        self.trusted_proxies = proxies;
        self
    }

    /// Serves the description at `/api/openapi.json`.
    #[must_use]
    pub fn openapi(mut self, api: utoipa::openapi::OpenApi) -> Self {
        self.inner.openapi = Some(api);
        self
    }

    #[must_use]
    pub fn routes(mut self, routes: impl Fn(&mut ServiceConfig) + Send + Sync + 'static) -> Self {
        self.routes = Some(Arc::new(routes));
        self
    }

    /// What the gateway's own server needs to give its REST side the same frame.
    pub fn parts(self) -> Parts {
        let doorkeeper = Doorkeeper {
            cluster: self.context.cluster,
            identify: self.identify,
            runtime: self.context.runtime,
            trusted_proxies: self.trusted_proxies.into(),
        };
        Parts {
            doorkeeper: web::Data::new(doorkeeper),
            requests: web::Data::new(Requests::new(&self.registry)),
            inner: web::Data::new(self.inner),
            routes: self.routes,
        }
    }

    /// Binds and serves. One worker: an inner service decodes and answers there, and works on the shared runtime.
    #[expect(clippy::unused_async, reason = "callers start services in async code; binding may come to wait")]
    pub async fn listen(self, address: SocketAddr) -> Result<Running, StartError> {
        let (name, runtime) = (self.name, self.context.runtime.clone());
        let parts = self.parts();
        let server = HttpServer::new(move || {
            let parts = parts.clone();
            App::new().wrap(from_fn(observe)).configure(move |config| parts.configure(config))
        })
        .workers(1)
        .backlog(BACKLOG)
        .keep_alive(KEEP_ALIVE)
        .client_request_timeout(REQUEST_HEAD_TIMEOUT)
        .client_disconnect_timeout(LINGER)
        .shutdown_timeout(DRAIN_SECONDS)
        .disable_signals()
        .bind(address)
        .map_err(|source| StartError::Bind { address, source })?;
        let bound = *server.addrs().first().expect("bind succeeded");
        let server = server.run();
        let handle = server.handle();
        let serving = runtime.spawn(server);
        tracing::info!(service = name, address = %bound, "{name} listens on {bound}");
        Ok(Running::new(name, bound, handle, serving))
    }
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").field("name", &self.name).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

//! A service that runs, and how it stops: first it says goodbye, then it drains, then it flushes.

use std::{fmt, future::Future, net::SocketAddr, pin::Pin};

use actix_web::dev::ServerHandle;
use tokio::{runtime::Handle, task::JoinHandle};
use tokio_util::sync::CancellationToken;

type Hook = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A service behind its open door. Dropping it does not stop it: call [`Running::stop`].
pub struct Running {
    name: &'static str,
    address: SocketAddr,
    close: Hook,
    serving: JoinHandle<std::io::Result<()>>,
    before: Vec<Hook>,
    after: Vec<Hook>,
}

impl Running {
    /// For a door that chassis did not build itself: the gateway's.
    pub fn new(
        name: &'static str,
        address: SocketAddr,
        server: ServerHandle,
        serving: JoinHandle<std::io::Result<()>>,
    ) -> Self {
        Self::of(name, address, async move { server.stop(true).await }, serving)
    }

    /// `close` begins the door's drain; `serving` ends with it.
    pub(crate) fn of(
        name: &'static str,
        address: SocketAddr,
        close: impl Future<Output = ()> + Send + 'static,
        serving: JoinHandle<std::io::Result<()>>,
    ) -> Self {
        Self { name, address, close: Box::pin(close), serving, before: Vec::new(), after: Vec::new() }
    }

    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Where it really listens, also when port 0 was asked for.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Runs before the door closes: leave the registry, close sockets.
    pub fn before_stop(&mut self, hook: impl Future<Output = ()> + Send + 'static) {
        self.before.push(Box::pin(hook));
    }

    /// Runs after the last request was answered, the hook added last first: flush batches, close the database.
    pub fn after_stop(&mut self, hook: impl Future<Output = ()> + Send + 'static) {
        self.after.push(Box::pin(hook));
    }

    /// Work beside the door. It goes on until the last request was answered; then it is told to stop, and waited for. What it
    /// needs for that must end after it, so its own hook is added before.
    pub fn beside<Work: Future<Output = ()> + Send + 'static>(
        &mut self,
        runtime: &Handle,
        work: impl FnOnce(CancellationToken) -> Work,
    ) {
        let stop = CancellationToken::new();
        let (name, working) = (self.name, runtime.spawn(work(stop.clone())));
        self.after_stop(async move {
            stop.cancel();
            if let Err(error) = working.await {
                tracing::warn!(service = name, %error, "the work beside the door of {name} ended badly");
            }
        });
    }

    /// Stops in order. Bounded by the server's own drain time; hooks bound themselves.
    pub async fn stop(self) {
        for hook in self.before {
            hook.await;
        }
        self.close.await;
        match self.serving.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(service = self.name, %error, "the server ended with an error"),
            Err(error) => tracing::warn!(service = self.name, %error, "the server's task ended badly"),
        }
        for hook in self.after.into_iter().rev() {
            hook.await;
        }
        tracing::info!(service = self.name, "{} has stopped", self.name);
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("name", &self.name).field("address", &self.address).finish_non_exhaustive()
    }
}

/// A service could not start; the sentence says what to do.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot listen on {address}")]
    Bind { address: SocketAddr, source: std::io::Error },
    #[error("cannot open the database")]
    Database(#[from] notifyx_database::OpenError),
    #[error("{0}")]
    Other(String),
}

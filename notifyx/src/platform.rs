//! Services that run in this process: started in order, awaited until ready, stopped the other way round within a bound.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use notifyx_chassis::{Cluster, Context, Running, StartError};
use notifyx_model::{Clock, Secret};
use serde::Deserialize;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::{exit::Failure, service::Service, settings::Settings};

/// A service opens its database and its door; a database that is away is not waited for longer.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// From the last start until every `/ready` says yes.
const READY_TIMEOUT: Duration = Duration::from_secs(30);

/// Short enough that nobody notices, long enough to cost nothing.
const READY_PAUSE: Duration = Duration::from_millis(25);

/// All of the stopping, whatever happens: below the 10 s after which container runtimes kill.
const STOP_TIMEOUT: Duration = Duration::from_millis(9_500);

/// Kept for each service that still has to stop, so that one that hangs takes no other's time to flush.
const STOP_RESERVE: Duration = Duration::from_millis(750);

#[derive(Debug)]
pub(crate) struct Platform {
    cluster: Cluster,
    discovery: Vec<String>,
    started: Vec<(Running, CancellationToken)>,
}

impl Platform {
    pub(crate) fn new(secret: Secret, discovery: Vec<String>) -> Self {
        Self { cluster: Cluster::new(secret), discovery, started: Vec::new() }
    }

    /// Starts one more service. The registry, where it is one of them, is the one the later ones use.
    pub(crate) async fn start(&mut self, service: Service, settings: &Settings) -> Result<(), Failure> {
        let shutdown = CancellationToken::new();
        let context = Context {
            clock: Clock::system(),
            shutdown: shutdown.clone(),
            runtime: tokio::runtime::Handle::current(),
            cluster: self.cluster.clone(),
            discovery: self.discovery.clone(),
        };
        let running = match timeout(START_TIMEOUT, service.start(settings, context)).await {
            Ok(Ok(running)) => running,
            Ok(Err(error)) => return Err(not_started(service, &error)),
            Err(_) => {
                return Err(Failure::Start(format!(
                    "{} did not start within {} s",
                    service.name(),
                    START_TIMEOUT.as_secs()
                )));
            }
        };
        if service == Service::Discovery {
            self.discovery = vec![format!("http://{}", reachable(running.address()))];
        }
        self.started.push((running, shutdown));
        Ok(())
    }

    /// Where each service listens.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = (&'static str, SocketAddr)> {
        self.started.iter().map(|(running, _)| (running.name(), running.address()))
    }

    /// Waits until every service says that it can do its work.
    pub(crate) async fn ready(&self) -> Result<(), Failure> {
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(2)).build();
        let client = client.map_err(|error| Failure::Start(format!("cannot make an HTTP client: {error}")))?;
        let deadline = Instant::now() + READY_TIMEOUT;
        for (name, address) in self.addresses() {
            let url = format!("http://{}/ready", reachable(address));
            let mut lacking = String::new();
            let patience = timeout_at(deadline, async {
                while let Err(why) = ask_ready(&client, &url).await {
                    lacking = why;
                    tokio::time::sleep(READY_PAUSE).await;
                }
            });
            if patience.await.is_err() {
                return Err(Failure::Start(format!(
                    "{name} is not ready after {} s: {lacking}",
                    READY_TIMEOUT.as_secs()
                )));
            }
        }
        Ok(())
    }

    /// The same without a deadline, saying from time to time what is lacking.
    pub(crate) async fn ready_some_day(&self) -> Result<(), Failure> {
        while let Err(failure) = self.ready().await {
            tracing::warn!("{failure}");
        }
        Ok(())
    }

    /// Stops what was started last first: the gateway says goodbye to its sockets while the services behind it still answer.
    pub(crate) async fn stop(mut self) {
        let deadline = Instant::now() + STOP_TIMEOUT;
        while let Some((running, shutdown)) = self.started.pop() {
            let name = running.name();
            shutdown.cancel();
            let others = u32::try_from(self.started.len()).expect("a handful of services");
            if timeout_at(deadline - STOP_RESERVE * others, running.stop()).await.is_err() {
                tracing::warn!(service = name, "{name} did not stop in time and is left behind");
            }
        }
    }
}

async fn ask_ready(client: &reqwest::Client, url: &str) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Ready {
        checks: Vec<Check>,
    }
    #[derive(Deserialize)]
    struct Check {
        name: String,
        error: Option<String>,
    }
    let answer = client.get(url).send().await.map_err(|error| error.to_string())?;
    if answer.status().is_success() {
        return Ok(());
    }
    let status = answer.status();
    let checks = answer.json::<Ready>().await.map(|ready| ready.checks).unwrap_or_default();
    let lacking: Vec<_> = checks.iter().filter_map(|c| Some(format!("{}: {}", c.name, c.error.as_ref()?))).collect();
    Err(if lacking.is_empty() { format!("it answers {status}") } else { lacking.join("; ") })
}

fn not_started(service: Service, error: &StartError) -> Failure {
    let name = service.name();
    let hint = match error {
        StartError::Bind { source, .. } if source.kind() == std::io::ErrorKind::AddrInUse => {
            "\nanother program listens there: stop it, or choose with --port (0: every port by the system)"
        }
        StartError::Bind { .. } | StartError::Database(_) | StartError::Other(_) => "",
    };
    Failure::Start(format!("{name} cannot start: {}{hint}", causes(error)))
}

/// An error and what was behind it; libraries like to repeat the cause in their own sentence.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.ends_with(&said) {
            text += ": ";
            text += &said;
        }
        next = cause.source();
    }
    text
}

/// A door on every network is reached over loopback from here.
pub(crate) fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

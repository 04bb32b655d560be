//! The edge: one port for REST, WebSockets and Server-Sent Events.
//!
//! actix-web serves REST; requests that ask for an upgrade leave it after the head, and from then on the socket is ours:
//! encoded once, written straight to the socket, no buffer while idle. Each worker thread has a [`Thread`] of its own, made
//! where it lives; nothing here is static.

mod connection;
mod handshake;
mod listener;
mod socket;
mod spool;
pub(crate) mod sse;
mod upgrade;
mod wanted;

use std::{
    cell::RefCell,
    io,
    net::{IpAddr, SocketAddr},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use actix_http::{HttpService, Request};
use actix_server::Server;
use actix_service::{IntoServiceFactory, fn_service, map_config};
use actix_web::{
    App, HttpResponse,
    dev::AppConfig,
    middleware::from_fn,
    web::{self, ServiceConfig},
};
use notifyx_chassis::{
    Context, Parts,
    connections::{BACKLOG, DRAIN_SECONDS, KEEP_ALIVE, LINGER, REQUEST_HEAD_TIMEOUT},
    observe,
};
use notifyx_model::Clock;
use tokio::{net::TcpStream, runtime::Handle};

use self::handshake::Entry;
use crate::{
    desk::Desk,
    hub::{Following, Hub, Metrics, Worker},
    platform::Platform,
};

/// One read buffer per worker thread. A client's burst of a hundred publishes fits.
const READ_BUFFER_BYTES: usize = 64 * 1024;

/// How the edge is set up.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Threads that serve sockets; one per core that fan-out may use.
    pub(crate) workers: usize,
    /// Pages of other hosts that may connect: `https://app.example.org`; `*` for all.
    pub(crate) allowed_origins: Vec<String>,
    /// Whether events may be listened to without credentials.
    pub(crate) anonymous: bool,
    /// Peers whose `X-Forwarded-For` is believed.
    pub(crate) trusted_proxies: Vec<IpAddr>,
    pub(crate) limits: Limits,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            workers: 2,
            allowed_origins: Vec::new(),
            anonymous: false,
            trusted_proxies: Vec::new(),
            limits: Limits::default(),
        }
    }
}

/// The bounds of sockets. At each the client is told, and may come back.
#[expect(clippy::struct_field_names, reason = "a bound is named as one")]
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    /// On this node, handshakes included; each needs a file descriptor. Beyond it: 503.
    pub(crate) sockets_max: usize,
    /// What may wait for one socket before it counts as slow (3008). A single larger write may always wait.
    pub(crate) queue_bytes_max: usize,
    pub(crate) queue_frames_max: usize,
    /// Twice the client's heartbeat.
    pub(crate) silence_max: Duration,
    /// For the client's answer to a close frame, also of one that reads slowly.
    pub(crate) goodbye_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sockets_max: 50_000,
            queue_bytes_max: 256 * 1024,
            queue_frames_max: 1024,
            silence_max: Duration::from_secs(60),
            goodbye_max: Duration::from_secs(5),
        }
    }
}

/// What one worker thread has.
pub(crate) struct Thread {
    desk: Rc<Desk>,
    limits: Rc<Limits>,
    entry: Entry,
    trusted_proxies: Vec<IpAddr>,
    metrics: Rc<Metrics>,
    buffer: RefCell<Vec<u8>>,
}

impl Thread {
    /// Attaches the thread that calls it to the hub. Needs its local task set.
    fn start(parts: ThreadParts) -> Rc<Self> {
        let ThreadParts { hub, following, platform, runtime, clock, options } = parts;
        let line = hub.attach();
        let metrics = Rc::new(hub.metrics().clone());
        let worker = Worker::new(line.id, hub, following, clock);
        tokio::task::spawn_local(worker.clone().run(line));
        Rc::new(Self {
            desk: Desk::new(worker, platform, runtime),
            limits: Rc::new(options.limits),
            entry: Entry { allowed_origins: options.allowed_origins, anonymous: options.anonymous },
            trusted_proxies: options.trusted_proxies,
            metrics,
            buffer: RefCell::new(vec![0; READ_BUFFER_BYTES]),
        })
    }

    fn hub(&self) -> &Hub {
        &self.desk.worker.hub
    }
}

/// What a worker thread is made from; crosses to it.
#[derive(Clone)]
struct ThreadParts {
    hub: Hub,
    following: Following,
    platform: Arc<dyn Platform>,
    runtime: Handle,
    clock: Clock,
    options: Options,
}

/// The edge of one gateway.
pub(crate) struct Edge {
    parts: ThreadParts,
}

impl Edge {
    /// Sockets come with [`Edge::serve`].
    pub(crate) fn new(
        hub: Hub,
        following: Following,
        platform: Arc<dyn Platform>,
        options: Options,
        context: &Context,
    ) -> Self {
        let (runtime, clock) = (context.runtime.clone(), context.clock.clone());
        Self { parts: ThreadParts { hub, following, platform, runtime, clock, options } }
    }

    /// Binds and builds the server; it serves once it is awaited. `rest` is the frame and the routes of the REST side.
    pub(crate) fn serve(&self, listen: SocketAddr, rest: &Parts) -> io::Result<(Server, SocketAddr)> {
        let (parts, rest) = (self.parts.clone(), rest.clone());
        let listener = std::net::TcpListener::from(bind(listen)?);
        let address = listener.local_addr()?;
        let stalled_max = self.parts.options.limits.silence_max;
        let server = Server::build()
            .workers(self.parts.options.workers.max(1))
            .backlog(BACKLOG)
            .shutdown_timeout(DRAIN_SECONDS)
            .disable_signals()
            .listen("gateway", listener, move || {
                let (thread, rest) = (Thread::start(parts.clone()), rest.clone());
                let own = thread.clone();
                let app = App::new().wrap(from_fn(observe)).configure(move |config| {
                    config.app_data(own).configure(not_a_handshake).configure(sse::routes);
                    rest.configure(config);
                });
                HttpService::build()
                    .keep_alive(KEEP_ALIVE)
                    .client_request_timeout(REQUEST_HEAD_TIMEOUT)
                    .client_disconnect_timeout(LINGER)
                    .local_addr(address)
                    .on_connect_ext(move |client, _| give_up_after(client, stalled_max))
                    .upgrade(fn_service(move |asked| upgrade::upgrade(thread.clone(), asked)))
                    .h1(map_config(IntoServiceFactory::<_, Request>::into_factory(app), |()| AppConfig::default()))
                    .tcp()
            })?
            .run();
        Ok((server, address))
    }
}

impl std::fmt::Debug for Edge {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Edge").field("options", &self.parts.options).finish_non_exhaustive()
    }
}

/// With the address free again at once after a stop, as servers have it.
fn bind(address: SocketAddr) -> io::Result<socket2::Socket> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(address), socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(BACKLOG).expect("a small number"))?;
    Ok(socket)
}

/// The HTTP server waits for ever for a client that takes nothing, a stream of events among others. The system gives up on
/// it instead; where that is not to be had, a client that is there and does not read keeps its connection.
fn give_up_after(client: &TcpStream, stalled_max: Duration) {
    let client = socket2::SockRef::from(client);
    let _ = client.set_tcp_nodelay(true);
    #[cfg(target_os = "linux")]
    let _ = client.set_tcp_user_timeout(Some(stalled_max));
    #[cfg(not(target_os = "linux"))]
    let _ = stalled_max;
}

/// A GET of a socket's path that asks for no upgrade comes here, not to the handshake.
fn not_a_handshake(config: &mut ServiceConfig) {
    for path in [handshake::PATH.to_owned(), format!("{}{{category}}", handshake::EVENTS_PATH)] {
        config.route(
            &path,
            web::to(|| async {
                let refusal = handshake::Refusal::NotWebSocket("the upgrade headers are missing".to_owned());
                Err::<HttpResponse, _>(notifyx_chassis::Failure::from(refusal))
            }),
        );
    }
}

#[cfg(test)]
mod tests;

//! gRPC: a call's terms, the line it is made on, and what a status says. Which instance, how long and how often is as
//! with every call of the mesh.

use std::{
    error::Error,
    fmt,
    task::{Context, Poll},
    time::Duration,
};

use notifyx_model::{Email, UserId};
use notifyx_wire::{grpc, rest::Problem};
use reqwest::header::{HeaderMap, HeaderValue};
use tonic::{
    Code, ConnectError, Status, TimeoutExpired,
    body::Body,
    codegen::{Service, http},
    transport::{Channel, Endpoint, channel::ResponseFuture},
};

use crate::{
    call::Terms,
    transport::{CONNECT_TIMEOUT, Failed},
};

/// A peer that vanished is noticed after half a minute, also by a stream that only listens.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// As the doors': a full batch need not wait for its peer's permission.
const STREAM_WINDOW: u32 = 4 * 1024 * 1024;
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;

pub(crate) fn endpoint(address: &str) -> Option<Endpoint> {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).ok()?;
    Some(
        endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW),
    )
}

/// The terms of a call over gRPC: `Rpc::new().user(id, &email).idempotent()`.
#[derive(Clone, Default)]
#[must_use]
pub struct Rpc {
    pub(crate) terms: Terms,
}

impl Rpc {
    /// Not taken for idempotent: say so with [`Rpc::idempotent`] where it is.
    pub fn new() -> Self {
        Self::default()
    }

    /// Asserts the user for whom the call is made. Believed because of the cluster's secret.
    pub fn user(mut self, id: UserId, email: &Email) -> Self {
        self.terms.user(id, email);
        self
    }

    /// The address of the person at the front door.
    pub fn client(mut self, address: &str) -> Self {
        self.terms.client(address);
        self
    }

    /// All tries together end within this time; two seconds (`call_ms`) where nothing is said. Of a stream: its beginning.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.terms.deadline = Some(deadline);
        self
    }

    /// Twice does no more than once: the call may be repeated when its outcome is not known.
    pub fn idempotent(mut self) -> Self {
        self.terms.idempotent = true;
        self
    }
}

/// Without the headers: they name users.
impl fmt::Debug for Rpc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rpc").field("idempotent", &self.terms.idempotent).finish_non_exhaustive()
    }
}

/// The way to one instance, for a generated client: `EventsClient::new(line)`. It adds what every call carries.
#[derive(Clone)]
pub struct Line {
    channel: Channel,
    headers: HeaderMap,
    deadline: Duration,
}

impl Line {
    pub(crate) fn new(channel: Channel, headers: HeaderMap, deadline: Duration) -> Self {
        Self { channel, headers, deadline }
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").finish_non_exhaustive()
    }
}

impl Service<http::Request<Body>> for Line {
    type Response = http::Response<Body>;
    type Error = tonic::transport::Error;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.channel.poll_ready(cx)
    }

    fn call(&mut self, mut request: http::Request<Body>) -> Self::Future {
        let headers = request.headers_mut();
        headers.extend(self.headers.clone());
        // So that the instance stops when nobody waits any more. Up to eight digits: the longest is over a day.
        let ms = self.deadline.as_millis().clamp(1, 99_999_999);
        headers.insert("grpc-timeout", HeaderValue::try_from(format!("{ms}m")).expect("digits"));
        self.channel.call(request)
    }
}

/// What a status that is not OK says.
pub(crate) enum Said {
    /// The instance refused, with its reason and, where it may help, when to try again.
    No(Problem, Option<Duration>),
    /// The deadline passed: tonic's own client looks at it too.
    Late,
    /// No answer of the instance came back, or none that can be used.
    Nothing(Failed),
}

pub(crate) fn read(status: &Status) -> Said {
    if let Some((problem, wait)) = grpc::refusal(status) {
        return Said::No(problem, wait);
    }
    // A status that was made at this side has a cause; one that was sent has none.
    if let Some(mut cause) = status.source() {
        loop {
            if cause.is::<ConnectError>() {
                return Said::Nothing(Failed::NotSent(status.message().to_owned()));
            }
            if cause.is::<TimeoutExpired>() {
                return Said::Late;
            }
            match cause.source() {
                Some(deeper) => cause = deeper,
                None => return Said::Nothing(Failed::Cut(cause.to_string())),
            }
        }
    }
    if status.code() == Code::OutOfRange {
        // What tonic says of a message beyond the bound, on either side.
        return Said::No(
            Problem {
                success: false,
                status: 413,
                title: "Payload Too Large".to_owned(),
                code: "message_too_large".to_owned(),
                detail: status.message().to_owned(),
                request_id: None,
            },
            None,
        );
    }
    Said::Nothing(Failed::Broken(format!("{}: {}", status.code(), status.message())))
}

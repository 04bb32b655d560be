//! `GET /events/{category}/stream`: a category's events as Server-Sent Events (`text/event-stream`).
//!
//! An `EventSource` comes back by itself where a stream ends or cannot be reached, and gives up for good where it is answered
//! anything but 200. So what passes soon (a restart, a store that is away) ends a stream; only what does not is refused.

use std::{
    convert::Infallible,
    pin::Pin,
    rc::{Rc, Weak},
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use actix_web::{
    HttpRequest, HttpResponse, HttpResponseBuilder, ResponseError,
    body::{BodySize, MessageBody},
    http::{
        Method,
        header::{self, HeaderName, HeaderValue},
    },
    web::{self, ServiceConfig},
};
use bytes::Bytes;
use notifyx_chassis::{Failure, client_address};
use notifyx_model::Category;
use notifyx_wire::rest::Problem;

use super::{
    Thread,
    handshake::{Refusal, check_origin},
    listener::{Listener, Ready},
    spool::Spool,
    upgrade::{Refused, enter},
    wanted::Wanted,
};
use crate::{
    hub::{Admission, Connection, Ending, Form, Outlet},
    platform::{Peer, SocketCredentials},
    session::Session,
};

/// What comes first, in milliseconds: soon enough to miss little, late enough for a gateway that restarts.
const RETRY: Bytes = Bytes::from_static(b"retry: 1000\n\n");

/// After 503.
const RETRY_AFTER: Duration = Duration::from_secs(1);

pub(super) fn routes(config: &mut ServiceConfig) {
    let resource = web::resource("/events/{category}/stream");
    config.service(resource.get(stream).head(look).route(web::method(Method::OPTIONS).to(preflight)));
}

/// The events of a category as they fire, as Server-Sent Events.
///
/// `id` is the offset, `event` is `event`, `data` the event and how many this connection has received (`count`). Where not all that was asked for
/// can follow, an event `gap` with `{"recovered": false, "offset"}` comes first. The same over a WebSocket is at `/ws/events/{category}`.
#[utoipa::path(get, path = "/events/{category}/stream", tag = "events", params(
    ("category" = Category, Path),
    ("from" = Option<u64>, Query, description = "the last offset you have: events above it come first"),
    ("token" = Option<String>, Query, description = "a session's token or an API key, where no header can be set"),
    ("Last-Event-ID" = Option<u64>, Header, description = "as `from`, and goes before it"),
), responses(
    (status = 200, content_type = "text/event-stream", body = String),
    (status = 400, description = "the category or `from` is malformed", body = Problem),
    (status = 401, body = Problem),
    (status = 403, description = "no scope of the key covers it, or it is the platform's own", body = Problem),
    (status = 503, description = "this node holds as many sockets as it may", body = Problem),
))]
pub(crate) async fn stream(request: HttpRequest) -> HttpResponse {
    let thread = thread(&request);
    let answer = open(&thread, &request).await;
    told(&thread, &request, answer)
}

/// Whether it would be streamed: the same refusals, and nothing else.
async fn look(request: HttpRequest) -> HttpResponse {
    let thread = thread(&request);
    let answer = admit(&thread, &request).await.map(|_| headers().finish());
    told(&thread, &request, answer)
}

/// A page that sets headers of its own, as an `EventSource` cannot, is asked about by its browser first.
async fn preflight(request: HttpRequest) -> HttpResponse {
    let thread = thread(&request);
    let mut answer = HttpResponse::NoContent();
    answer
        .insert_header((header::ACCESS_CONTROL_ALLOW_METHODS, "GET"))
        .insert_header((header::ACCESS_CONTROL_ALLOW_HEADERS, "authorization, cache-control, last-event-id"))
        .insert_header((header::ACCESS_CONTROL_MAX_AGE, "3600"));
    told(
        &thread,
        &request,
        check_origin(request.head(), &thread.entry.allowed_origins).map(|()| answer.finish()).map_err(Refused::from),
    )
}

/// Each worker thread serves its own requests.
fn thread(request: &HttpRequest) -> Rc<Thread> {
    request.app_data::<Rc<Thread>>().expect("the edge gives it to its own app").clone()
}

/// Pages of other hosts that may connect may also read the answer.
fn told(thread: &Thread, request: &HttpRequest, answer: Result<HttpResponse, Refused>) -> HttpResponse {
    let mut answer = answer.unwrap_or_else(|Refused(problem)| {
        let retry_after = (problem.status == 503).then_some(RETRY_AFTER);
        Failure::from_problem(problem, retry_after).error_response()
    });
    if let Some(origin) = request.headers().get(header::ORIGIN)
        && check_origin(request.head(), &thread.entry.allowed_origins).is_ok()
    {
        answer.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        answer.headers_mut().append(header::VARY, HeaderValue::from_static("origin"));
    }
    answer
}

async fn open(thread: &Rc<Thread>, request: &HttpRequest) -> Result<HttpResponse, Refused> {
    let spool = Rc::new(Spool::new(thread.limits.clone(), thread.metrics.clone()));
    spool.send(&RETRY, 1);
    if thread.hub().is_draining() {
        spool.end(Ending::Drain);
        return Ok(headers().body(Stream { spool, _held: None }));
    }
    let (Admitted { peer, category, from }, admission) = admit(thread, request).await?;
    let desk = &thread.desk;
    let ready = Ready::to(desk.clone(), category, from, (spool.clone(), Form::ServerSent)).await;
    let held = match desk.worker.connect(admission, &Arc::new(peer), spool.clone(), Weak::<Session>::new()) {
        Ok(connection) => {
            if ready.is_err() {
                spool.end(Ending::Unavailable);
            }
            Some((ready.ok().map(Ready::begin), connection))
        }
        Err(ending) => {
            spool.end(ending);
            None
        }
    };
    Ok(headers().body(Stream { spool, _held: held }))
}

struct Admitted {
    peer: Peer,
    category: Category,
    from: Option<u64>,
}

async fn admit(thread: &Thread, request: &HttpRequest) -> Result<(Admitted, Admission), Refused> {
    let head = request.head();
    check_origin(head, &thread.entry.allowed_origins)?;
    let category = category(head.uri.path()).ok_or(Refusal::Path)?;
    let Wanted { category, from, token } = Wanted::parse(category, head, &thread.entry)?;
    let address = client_address(head.peer_addr, &head.headers, &thread.trusted_proxies);
    let (peer, admission) = enter(thread, token.map(SocketCredentials::Token), address).await?;
    peer.may_subscribe(&category).map_err(Refusal::from)?;
    Ok((Admitted { peer, category, from }, admission))
}

/// As it is written in the path.
fn category(path: &str) -> Option<&str> {
    path.strip_prefix("/events/")?.strip_suffix("/stream")
}

fn headers() -> HttpResponseBuilder {
    let mut answer = HttpResponse::Ok();
    answer
        .content_type("text/event-stream")
        .insert_header((header::CACHE_CONTROL, "no-store"))
        // nginx would collect what is to be seen at once.
        .insert_header((HeaderName::from_static("x-accel-buffering"), "no"));
    answer
}

/// The body: what the spool has, for as long as the client is there.
struct Stream {
    spool: Rc<Spool>,
    _held: Option<(Option<Listener>, Connection)>,
}

impl MessageBody for Stream {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        self.spool.poll_next(cx).map(|next| next.map(Ok))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.spool.lose();
    }
}

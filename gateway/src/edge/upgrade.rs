//! From an HTTP request that asks for an upgrade to a running connection, or to a refusal.

use std::{
    convert::Infallible,
    rc::{Rc, Weak},
    sync::Arc,
    time::Duration,
};

use actix_codec::{Framed, FramedParts};
use actix_http::{Request, h1};
use bytes::{Bytes, BytesMut};
use notifyx_chassis::{client_address, reply};
use notifyx_wire::{header::REQUEST_ID, rest::Problem, trace::TraceContext};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::{
    Thread,
    connection::{Connection, Speaker},
    handshake::{Handshake, Refusal, Speaks},
    listener::Ready,
    socket::Socket,
};
use crate::{
    hub::{Admission, Ending, Form, Outlet},
    platform::{Peer, SocketCredentials},
    session::Session,
};

/// From the request's head to the first frame. Hashing a password takes its time when many log in at once.
const HANDSHAKE_DEADLINE: Duration = Duration::from_secs(10);

/// A client must take a few hundred bytes in this time.
const ANSWER_DEADLINE: Duration = Duration::from_secs(5);

/// actix hands over every request that asks for an upgrade. The connection runs as a task of its own: what actix held for
/// the request is most of its memory.
pub(super) async fn upgrade(
    thread: Rc<Thread>,
    (request, framed): (Request, Framed<TcpStream, h1::Codec>),
) -> Result<(), Infallible> {
    let FramedParts { io, read_buf, .. } = framed.into_parts();
    TraceContext::begin().scope(serve(thread, request, io, read_buf)).await;
    Ok(())
}

async fn serve(thread: Rc<Thread>, request: Request, io: TcpStream, read: BytesMut) {
    let outcome = match tokio::time::timeout(HANDSHAKE_DEADLINE, admit(&thread, &request)).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Refusal::Late.into()),
    };
    drop(request);
    let handshakes = &thread.metrics.handshakes;
    let (handshake, peer, admission) = match outcome {
        Ok(admitted) => admitted,
        Err(refused) => {
            handshakes.with_label_values(&[&refused.0.status.to_string()]).inc();
            return refuse(io, &refused.0).await;
        }
    };
    handshakes.with_label_values(&["101"]).inc();
    // Without it a quarter of the fan-out's speed is lost, and replies wait for acknowledgements.
    let _ = io.set_nodelay(true);
    open(thread, io, handshake, (Arc::new(peer), admission), read).await;
}

/// A problem and whatever made it.
pub(super) struct Refused(pub(super) Problem);

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        Self(reply::problem(&refusal))
    }
}

async fn admit(thread: &Thread, request: &Request) -> Result<(Handshake, Peer, Admission), Refused> {
    let handshake = Handshake::parse(request.head(), &thread.entry)?;
    if thread.hub().is_draining() {
        return Err(Refusal::Stopping.into());
    }
    let address = client_address(request.peer_addr(), request.head().headers(), &thread.trusted_proxies);
    let entered = enter(thread, handshake.credentials.clone(), address).await;
    let (peer, admission) = match (&handshake.speaks, entered) {
        // Phoenix clients know one refusal. Which of e-mail, password and token was wrong is nobody's business.
        (Speaks::Phoenix, Err(refused)) if matches!(refused.0.status, 400 | 401 | 403 | 404) => {
            return Err(Refusal::Wrong.into());
        }
        (_, entered) => entered?,
    };
    if let Speaks::Events { category, .. } = &handshake.speaks {
        peer.may_subscribe(category).map_err(Refusal::from)?;
    }
    Ok((handshake, peer, admission))
}

/// Who it is, and a place among the sockets of this node.
pub(super) async fn enter(
    thread: &Thread,
    credentials: Option<SocketCredentials>,
    address: String,
) -> Result<(Peer, Admission), Refused> {
    // Counted before the credentials are checked: handshakes are bounded too.
    let admission = thread.hub().admit(thread.limits.sockets_max).ok_or(Refusal::Full)?;
    let Some(credentials) = credentials else { return Ok((Peer::Anonymous, admission)) };
    let peer = thread.desk.call(|platform| async move { platform.authenticate(credentials, &address).await }).await;
    Ok((peer.map_err(Refused)?, admission))
}

async fn open(
    thread: Rc<Thread>,
    io: TcpStream,
    handshake: Handshake,
    (peer, admission): (Arc<Peer>, Admission),
    read: BytesMut,
) {
    let answer = Bytes::from(handshake.response());
    let has_heartbeat = matches!(handshake.speaks, Speaks::Phoenix);
    let socket = Rc::new(Socket::new(io, has_heartbeat, thread.limits.clone(), thread.metrics.clone()));
    let desk = thread.desk.clone();
    let opened = match handshake.speaks {
        Speaks::Phoenix => {
            socket.send(&answer, 1);
            Session::open(desk, (peer, admission), socket.clone())
                .map(|(session, connection)| (Speaker::Phoenix(session), connection))
        }
        Speaks::Events { category, from } => {
            let ready = Ready::to(desk.clone(), category, from, (socket.clone(), Form::WebSocket)).await;
            socket.send(&answer, 1);
            desk.worker.connect(admission, &peer, socket.clone(), Weak::<Session>::new()).map(|connection| {
                if ready.is_err() {
                    socket.end(Ending::Unavailable);
                }
                (Speaker::Events(ready.ok().map(Ready::begin)), connection)
            })
        }
    };
    match opened {
        Ok((speaker, connection)) => {
            let connection = Connection::new(thread, socket, speaker, connection);
            tokio::task::spawn_local(connection.run(read));
        }
        // Ended before it began: the close frame fits into an empty socket buffer.
        Err(ending) => socket.end(ending),
    }
}

async fn refuse(mut io: TcpStream, problem: &Problem) {
    let body = serde_json::to_string(problem).expect("a problem is plain data");
    let id = problem.request_id.as_ref().map(|id| format!("{REQUEST_ID}: {id}\r\n")).unwrap_or_default();
    let retry = if matches!(problem.status, 429 | 503) { "Retry-After: 1\r\n" } else { "" };
    let answer = format!(
        "HTTP/1.1 {} {}\r\nContent-Type: {}\r\nContent-Length: {}\r\nConnection: close\r\n{id}{retry}\r\n{body}",
        problem.status,
        problem.title,
        Problem::MEDIA_TYPE,
        body.len()
    );
    let sent = async {
        io.write_all(answer.as_bytes()).await?;
        io.shutdown().await
    };
    // Who does not take it goes without.
    let _ = tokio::time::timeout(ANSWER_DEADLINE, sent).await;
}

//! Connections: taken one by one, bounded in number, drained in order and cut if they do not drain.

use std::{
    convert::Infallible,
    future::Future,
    io::{self, Cursor},
    sync::Arc,
    time::Duration,
};

use hyper::{rt::Executor, service::service_fn};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::conn::auto::Builder,
};
use tokio::{
    io::{AsyncReadExt, join},
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    connections::{DRAIN_SECONDS, REQUEST_HEAD_TIMEOUT},
    door::grpc::calls::Calls,
};

/// The other services keep one connection each, and people look at pages.
const CONNECTIONS_MAX: usize = 1_024;
/// Calls and streams that one connection holds at a time; the rest waits at the caller.
const STREAMS_MAX: u32 = 1_024;
/// A peer that vanished is noticed after half a minute, however quiet its streams are.
const PING_INTERVAL: Duration = Duration::from_secs(20);
const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// Metadata of a call: a secret, a user, a trace.
const HEAD_BYTES_MAX: u32 = 16 * 1024;
/// Of one stream and of all of a connection: a full batch need not wait for its peer's permission.
const STREAM_WINDOW: u32 = 4 * 1024 * 1024;
const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;
/// What HTTP/2 begins with.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Where no connection can be taken (no file is left) there is no use in trying at once.
const PAUSE: Duration = Duration::from_millis(50);

/// How long peers are waited for.
#[derive(Clone, Copy)]
pub(super) struct Patience {
    /// With the first bytes of a connection.
    pub(super) first_bytes: Duration,
    /// With the last calls, once the door closes.
    pub(super) drain: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { first_bytes: REQUEST_HEAD_TIMEOUT, drain: Duration::from_secs(DRAIN_SECONDS) }
    }
}

/// Serves until `closing`, then drains: no new connection, no new call on those there are, streams end; what is left after
/// the time to drain is cut.
pub(super) async fn serve(
    name: &'static str,
    listener: TcpListener,
    calls: Arc<Calls>,
    patience: Patience,
    closing: CancellationToken,
) -> io::Result<()> {
    let (tasks, cut) = (TaskTracker::new(), CancellationToken::new());
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let keeper = Keeper { tasks: tasks.clone(), cut: cut.clone() };
    let accepting = async {
        loop {
            let place = places.clone().acquire_owned().await.expect("the semaphore is not closed");
            match listener.accept().await {
                Ok((stream, _)) => {
                    let (calls, closing) = (calls.clone(), closing.clone());
                    keeper.spawn(connection(stream, place, calls, keeper.clone(), patience.first_bytes, closing));
                }
                Err(error) => {
                    tracing::warn!(service = name, %error, "{name} cannot take a connection: {error}");
                    sleep(PAUSE).await;
                }
            }
        }
    };
    closing.run_until_cancelled(accepting).await;
    drop(listener);
    tasks.close();
    if timeout(patience.drain, tasks.wait()).await.is_err() {
        // A stream is ended by the stop, which is meant, and its caller comes again; a call has somebody who waits for its answer.
        match calls.methods.unanswered() {
            0 => tracing::debug!(service = name, "{name} cuts {} streams and connections", tasks.len()),
            lost => tracing::warn!(service = name, "{name} cuts {lost} calls that did not end"),
        }
        cut.cancel();
        tasks.wait().await;
    }
    Ok(())
}

async fn connection(
    stream: TcpStream,
    _place: OwnedSemaphorePermit,
    calls: Arc<Calls>,
    keeper: Keeper,
    patience: Duration,
    closing: CancellationToken,
) {
    let Ok(peer) = stream.peer_addr() else { return };
    // Small frames are not held back; where that cannot be set they only come later.
    let _ = stream.set_nodelay(true);
    let (mut input, output) = stream.into_split();
    let first = closing.run_until_cancelled(timeout(patience, first_bytes(&mut input))).await;
    let Some(Ok(Ok(first))) = first else { return };
    let stream = join(Cursor::new(first).chain(input), output);
    let mut http = Builder::new(keeper);
    http.http1().timer(TokioTimer::new()).header_read_timeout(REQUEST_HEAD_TIMEOUT);
    http.http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(PING_TIMEOUT)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEAD_BYTES_MAX)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    let service = service_fn(move |request| {
        let calls = calls.clone();
        async move { Ok::<_, Infallible>(calls.answer(request, peer).await) }
    });
    let mut connection = std::pin::pin!(http.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = closing.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // The peer went away, or was cut: its own matter.
        tracing::debug!(%peer, error = %error, "a connection ended badly");
    }
}

/// As many as tell which HTTP it will be: hyper waits for these for ever, and for what follows no longer than it is told.
async fn first_bytes(input: &mut OwnedReadHalf) -> io::Result<Vec<u8>> {
    let mut first = Vec::with_capacity(PREFACE.len());
    while first.len() < PREFACE.len() && PREFACE.starts_with(&first) {
        if input.read_buf(&mut first).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(first)
}

/// Runs what belongs to the door, so that it can be waited for and cut.
#[derive(Clone)]
struct Keeper {
    tasks: TaskTracker,
    cut: CancellationToken,
}

impl Keeper {
    fn spawn(&self, work: impl Future<Output: Send> + Send + 'static) {
        let cut = self.cut.clone();
        self.tasks.spawn(async move {
            cut.run_until_cancelled(work).await;
        });
    }
}

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for Keeper {
    fn execute(&self, work: F) {
        self.spawn(work);
    }
}

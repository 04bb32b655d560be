//! The writing half of one WebSocket: write at once, queue what does not fit, give up at the bound.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io::{self, IoSlice},
    net::Shutdown,
    rc::Rc,
    task::{Context, Poll, Waker},
};

use bytes::{Buf, Bytes};
use futures_util::future::LocalBoxFuture;
use notifyx_wire::websocket;
use socket2::SockRef;
use tokio::{net::TcpStream, sync::Notify, time::Instant};

use super::Limits;
use crate::hub::{Ending, Metrics, Outlet};

/// Of the silence that ends a client: so it is asked twice, and one lost answer is forgiven.
const ASKED_AFTER: f64 = 0.4;

/// Pieces per gathered write.
const GATHERED_MAX: usize = 64;

pub(super) struct Socket {
    pub(super) io: TcpStream,
    queue: RefCell<VecDeque<Piece>>,
    queued_bytes: Cell<usize>,
    queued_frames: Cell<usize>,
    phase: Cell<Phase>,
    /// When the client last sent anything.
    heard: Cell<Instant>,
    /// Of a client that sends nothing by itself: when it was last asked whether it is there.
    asked: Option<Cell<Instant>>,
    /// Of the connection's task.
    waker: RefCell<Option<Waker>>,
    drained: Notify,
    limits: Rc<Limits>,
    metrics: Rc<Metrics>,
}

/// Frames that go out together; the bytes are shared with other sockets.
struct Piece {
    bytes: Bytes,
    frames: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// A close frame is on its way or was sent; the client's is awaited.
    Closing {
        since: Instant,
    },
    /// Both sides have said goodbye: what is queued goes out, then the connection ends.
    Parting {
        since: Instant,
    },
    Gone,
}

impl Socket {
    /// A client with a heartbeat of its own is heard; any other is asked.
    pub(super) fn new(io: TcpStream, has_heartbeat: bool, limits: Rc<Limits>, metrics: Rc<Metrics>) -> Self {
        let now = Instant::now();
        Self {
            io,
            queue: RefCell::default(),
            queued_bytes: Cell::new(0),
            queued_frames: Cell::new(0),
            phase: Cell::new(Phase::Open),
            heard: Cell::new(now),
            asked: (!has_heartbeat).then(|| Cell::new(now)),
            waker: RefCell::default(),
            drained: Notify::new(),
            limits,
            metrics,
        }
    }

    pub(super) fn is_gone(&self) -> bool {
        self.phase.get() == Phase::Gone
    }

    pub(super) fn heard_now(&self) {
        self.heard.set(Instant::now());
    }

    /// The client closes: its code is said back, and nothing more.
    pub(super) fn part(&self, code: Option<u16>) {
        match self.phase.get() {
            Phase::Open => {
                self.write(&websocket::close(code, ""), 1);
                self.phase.set(Phase::Parting { since: Instant::now() });
            }
            Phase::Closing { since } => self.phase.set(Phase::Parting { since }),
            Phase::Parting { .. } | Phase::Gone => {}
        }
        self.wake();
    }

    /// The connection is lost or at its end.
    pub(super) fn lose(&self) {
        if self.phase.replace(Phase::Gone) != Phase::Gone {
            self.forget_queue();
            self.drained.notify_waiters();
            self.wake();
        }
    }

    /// Writes what waits while the client takes it. Called by the connection's task.
    pub(super) fn poll_flush(&self, cx: &mut Context<'_>) {
        self.keep(cx.waker());
        while self.queued_bytes.get() > 0 {
            match self.io.poll_write_ready(cx) {
                Poll::Ready(Ok(())) => self.flush(),
                Poll::Ready(Err(_)) => return self.lose(),
                Poll::Pending => return,
            }
        }
        match self.phase.get() {
            // What the client should see last is out: tell its system that nothing follows.
            Phase::Closing { .. } => {
                let _ = SockRef::from(&self.io).shutdown(Shutdown::Write);
            }
            Phase::Parting { .. } => self.lose(),
            Phase::Open | Phase::Gone => {}
        }
    }

    fn keep(&self, waker: &Waker) {
        let mut kept = self.waker.borrow_mut();
        match &mut *kept {
            Some(kept) => kept.clone_from(waker),
            None => *kept = Some(waker.clone()),
        }
    }

    fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// One system call when the client keeps up; a queue of shared bytes when it does not.
    fn write(&self, bytes: &Bytes, frames: usize) {
        let waits = self.queued_bytes.get();
        if waits > 0 {
            if waits + bytes.len() > self.limits.queue_bytes_max
                || self.queued_frames.get() + frames > self.limits.queue_frames_max
            {
                // Much may have come at once: what counts is whether the client takes it.
                self.flush();
            }
            let waits = self.queued_bytes.get();
            if waits + bytes.len() > self.limits.queue_bytes_max && waits > 0
                || self.queued_frames.get() + frames > self.limits.queue_frames_max
            {
                return self.end(Ending::Slow);
            }
            if waits > 0 {
                return self.enqueue(bytes.clone(), frames);
            }
        }
        match self.io.try_write(bytes) {
            Ok(written) if written == bytes.len() => {}
            Ok(written) => self.enqueue(bytes.slice(written..), frames),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.enqueue(bytes.clone(), frames),
            Err(_) => self.lose(),
        }
    }

    fn enqueue(&self, bytes: Bytes, frames: usize) {
        self.queued_bytes.set(self.queued_bytes.get() + bytes.len());
        self.queued_frames.set(self.queued_frames.get() + frames);
        self.metrics.queued_bytes.add(bytes.len() as i64);
        self.queue.borrow_mut().push_back(Piece { bytes, frames });
        self.wake();
    }

    /// What was written, or dropped, waits no longer.
    fn take_off(&self, bytes: usize, frames: usize) {
        self.queued_bytes.set(self.queued_bytes.get() - bytes);
        self.queued_frames.set(self.queued_frames.get() - frames);
        self.metrics.queued_bytes.sub(bytes as i64);
    }

    /// Writes until the client takes no more or nothing waits.
    fn flush(&self) {
        while self.queued_bytes.get() > 0 {
            let outcome = {
                let queue = self.queue.borrow();
                let mut gathered = [IoSlice::new(&[]); GATHERED_MAX];
                let pieces = queue.len().min(GATHERED_MAX);
                for (slice, piece) in gathered.iter_mut().zip(queue.iter()) {
                    *slice = IoSlice::new(&piece.bytes);
                }
                self.io.try_write_vectored(&gathered[..pieces])
            };
            match outcome {
                Ok(written) => self.written(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => return self.lose(),
            }
        }
    }

    fn written(&self, mut written: usize) {
        let (bytes, mut frames) = (written, 0);
        let mut queue = self.queue.borrow_mut();
        while written > 0 {
            let first = queue.front_mut().expect("no more was written than waited");
            if first.bytes.len() > written {
                first.bytes.advance(written);
                break;
            }
            written -= first.bytes.len();
            frames += first.frames;
            queue.pop_front();
        }
        if queue.is_empty() {
            // An idle socket holds no buffer.
            *queue = VecDeque::new();
            self.drained.notify_waiters();
        }
        drop(queue);
        self.take_off(bytes, frames);
    }

    /// Every system that speaks WebSocket answers a ping by itself.
    fn ask(&self, now: Instant) {
        let Some(asked) = &self.asked else { return };
        let quiet = now.duration_since(self.heard.get().max(asked.get()));
        if quiet >= self.limits.silence_max.mul_f64(ASKED_AFTER) {
            asked.set(now);
            self.send(&websocket::ping(), 1);
        }
    }

    fn forget_queue(&self) {
        self.queue.take();
        self.take_off(self.queued_bytes.get(), self.queued_frames.get());
    }
}

impl Outlet for Socket {
    fn send(&self, bytes: &Bytes, frames: usize) {
        if self.is_open() {
            self.write(bytes, frames);
        }
    }

    fn end(&self, ending: Ending) {
        if !self.is_open() {
            return;
        }
        self.metrics.endings.with_label_values(&[ending.reason()]).inc();
        self.phase.set(Phase::Closing { since: Instant::now() });
        if ending == Ending::Slow {
            // The piece that is half written must be finished, or the close frame could not be read.
            let kept = self.queue.borrow_mut().pop_front();
            self.forget_queue();
            if let Some(Piece { bytes, frames }) = kept {
                self.enqueue(bytes, frames);
            }
        }
        let close = websocket::close(Some(ending.code()), ending.reason());
        if self.queued_bytes.get() > 0 {
            self.enqueue(close, 1);
        } else {
            self.write(&close, 1);
        }
        self.drained.notify_waiters();
        self.wake();
    }

    fn is_open(&self) -> bool {
        self.phase.get() == Phase::Open
    }

    fn queued_bytes(&self) -> usize {
        self.queued_bytes.get()
    }

    fn drained(&self) -> LocalBoxFuture<'_, ()> {
        Box::pin(async {
            while self.queued_bytes.get() > 0 && self.is_open() {
                self.drained.notified().await;
            }
        })
    }

    fn sweep(&self, now: Instant) {
        match self.phase.get() {
            Phase::Open if now.duration_since(self.heard.get()) > self.limits.silence_max => self.end(Ending::Silent),
            Phase::Closing { since } | Phase::Parting { since }
                if now.duration_since(since) > self.limits.goodbye_max =>
            {
                self.lose();
            }
            Phase::Open => self.ask(now),
            Phase::Closing { .. } | Phase::Parting { .. } | Phase::Gone => {}
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.forget_queue();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::{io::AsyncReadExt, net::TcpListener};

    use super::*;

    #[tokio::test]
    async fn who_sends_nothing_by_itself_is_asked_twice_and_then_let_go() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (io, _) = listener.accept().await.unwrap();
        let metrics = Rc::new(Metrics::new(&prometheus::Registry::new()));
        let socket = Socket::new(io, false, Rc::new(Limits::default()), metrics);
        let begin = socket.heard.get();
        for second in 1..=61 {
            socket.sweep(begin + Duration::from_secs(second));
        }
        let mut found = [0; 8];
        client.read_exact(&mut found).await.unwrap();
        assert_eq!(found[..6], [0x89, 0, 0x89, 0, 0x88, 19], "two pings and a goodbye");
        assert_eq!(u16::from_be_bytes([found[6], found[7]]), Ending::Silent.code());
    }
}

//! One WebSocket connection: reads frames into whoever speaks over it, writes what its socket queued, until either side is gone.

use std::{
    future::poll_fn,
    io,
    rc::Rc,
    task::{Context, Poll},
};

use bytes::BytesMut;
use notifyx_wire::websocket::{Event, Reader, Violation, pong};

use super::{Thread, listener::Listener, socket::Socket};
use crate::{
    hub::{self, Ending, Outlet},
    session::Session,
};

pub(super) struct Connection {
    thread: Rc<Thread>,
    socket: Rc<Socket>,
    speaker: Speaker,
    reader: Reader,
    ended: bool,
    /// Keeps the socket on its worker's list until the connection is gone: also one that is closing is swept.
    _held: hub::Connection,
}

/// Who speaks over the connection.
pub(super) enum Speaker {
    Phoenix(Rc<Session>),
    /// Only the server speaks; `None` when it has said all.
    Events(Option<Listener>),
}

impl Speaker {
    fn text(&self, text: &str) {
        match self {
            Self::Phoenix(session) => session.text(text),
            // Nothing is asked here. Programs that send something to keep a connection open do no harm.
            Self::Events(_) => {}
        }
    }

    fn binary(&self, bytes: &[u8]) {
        match self {
            Self::Phoenix(session) => session.binary(bytes),
            Self::Events(_) => {}
        }
    }

    fn end(&mut self) {
        match self {
            Self::Phoenix(session) => session.end(),
            Self::Events(listener) => drop(listener.take()),
        }
    }
}

impl Connection {
    pub(super) fn new(thread: Rc<Thread>, socket: Rc<Socket>, speaker: Speaker, held: hub::Connection) -> Self {
        Self { thread, socket, speaker, reader: Reader::default(), ended: false, _held: held }
    }

    /// Serves the connection to its end. `first` came together with the handshake.
    pub(super) async fn run(mut self, mut first: BytesMut) {
        if !first.is_empty() {
            self.read(&mut first);
        }
        drop(first);
        poll_fn(|cx| self.poll(cx)).await;
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.poll_read(cx);
        self.socket.poll_flush(cx);
        if !self.socket.is_open() && !self.ended {
            self.ended = true;
            self.speaker.end();
        }
        if self.socket.is_gone() { Poll::Ready(()) } else { Poll::Pending }
    }

    /// Reads all there is. tokio's budget makes a client that never stops sending let others have their turn.
    fn poll_read(&mut self, cx: &mut Context<'_>) {
        let thread = self.thread.clone();
        let mut buffer = thread.buffer.borrow_mut();
        while !self.socket.is_gone() {
            match self.socket.io.poll_read_ready(cx) {
                Poll::Pending => return,
                Poll::Ready(Err(_)) => return self.socket.lose(),
                Poll::Ready(Ok(())) => match self.socket.io.try_read(&mut buffer) {
                    Ok(0) => return self.socket.lose(),
                    Ok(count) => self.read(&mut buffer[..count]),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(_) => return self.socket.lose(),
                },
            }
        }
    }

    fn read(&mut self, arrived: &mut [u8]) {
        let (socket, speaker) = (&self.socket, &self.speaker);
        socket.heard_now();
        let outcome = self.reader.read(arrived, |event| {
            match event {
                // After the server's goodbye only the client's counts.
                Event::Close(code) => socket.part(code),
                _ if !socket.is_open() => {}
                Event::Text(text) => speaker.text(text),
                Event::Binary(bytes) => speaker.binary(bytes),
                Event::Ping(payload) => socket.send(&pong(payload), 1),
                Event::Pong => {}
            }
            true
        });
        if let Err(violation) = outcome {
            // What follows cannot be read as frames.
            self.reader = Reader::default();
            if socket.is_open() {
                socket.end(Ending::from(violation));
            }
        }
    }
}

impl From<Violation> for Ending {
    fn from(violation: Violation) -> Self {
        match violation {
            Violation::Protocol => Self::Protocol,
            Violation::NotUtf8 => Self::NotUtf8,
            Violation::TooBig => Self::TooBig,
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.speaker.end();
    }
}

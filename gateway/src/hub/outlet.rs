//! The way out to one client, whatever carries it.

use std::rc::Rc;

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use notifyx_model::TopicName;
use tokio::time::Instant;

use super::run::Run;

/// Where a session's frames go. Nothing here waits: a client that does not keep up is ended by its outlet.
pub(crate) trait Outlet {
    /// Sends `frames` complete frames, or queues them. Ends a client whose queue is at its bound.
    fn send(&self, bytes: &Bytes, frames: usize);

    /// Ends the connection; the first ending is the one that counts.
    fn end(&self, ending: Ending);

    fn is_open(&self) -> bool;

    /// Bytes that wait for the client.
    fn queued_bytes(&self) -> usize;

    /// Resolves when nothing waits any more, or the connection ends.
    fn drained(&self) -> LocalBoxFuture<'_, ()>;

    /// Once a second: ends a client that has been silent too long, and drops one that does not let go.
    fn sweep(&self, now: Instant);
}

/// Who gets a stream through an outlet, and in which form: what it missed and what comes live go the same way.
pub(crate) trait Audience {
    /// Sends what lies above `after`, at once; answers how many messages that were.
    fn deliver(&self, run: &Run, after: u64) -> usize;

    fn outlet(&self) -> &dyn Outlet;
}

/// A Phoenix channel: its frames are the same for all.
pub(crate) struct Joined(pub(crate) Rc<dyn Outlet>);

impl Audience for Joined {
    fn deliver(&self, run: &Run, after: u64) -> usize {
        let Some((bytes, frames)) = run.after(after) else { return 0 };
        self.0.send(&bytes, frames);
        frames
    }

    fn outlet(&self) -> &dyn Outlet {
        &*self.0
    }
}

/// Who speaks through an outlet, and has to hear what concerns it beyond frames.
pub(crate) trait Listener {
    /// Something was asked, and is not answered yet.
    fn awaits_answers(&self) -> bool;

    /// Its user's subscription of this topic has ended.
    fn unsubscribed(&self, topic: &TopicName);
}

/// Why the server ends a connection. A client reconnects after every one of them: 1000 is never sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// The client broke RFC 6455.
    Protocol,
    NotUtf8,
    TooBig,
    /// The server is about to stop; another one, or the next, takes over.
    Drain,
    /// The session was revoked: logged out, or all of the user's sessions ended.
    Revoked,
    /// The session's time is over.
    Expired,
    /// Nothing was heard for too long.
    Silent,
    /// The client reads too slowly; it resumes with the last offset it has.
    Slow,
    /// What the client lacks cannot be read now.
    Unavailable,
}

impl Ending {
    /// The close code. 3000 to 3999 are the application's own.
    pub(crate) const fn code(self) -> u16 {
        match self {
            Self::Protocol => 1002,
            Self::NotUtf8 => 1007,
            Self::TooBig => 1009,
            Self::Drain => 1012,
            Self::Unavailable => 1013,
            Self::Revoked | Self::Expired => 3003,
            Self::Silent => 3004,
            Self::Slow => 3008,
        }
    }

    /// What the client is told, and the label in metrics.
    pub(crate) const fn reason(self) -> &'static str {
        match self {
            Self::Protocol => "protocol error",
            Self::NotUtf8 => "text is not UTF-8",
            Self::TooBig => "message too big",
            Self::Drain => "server restarts",
            Self::Revoked => "session revoked",
            Self::Expired => "session expired",
            Self::Silent => "heartbeat missing",
            Self::Slow => "slow consumer",
            Self::Unavailable => "try again later",
        }
    }
}

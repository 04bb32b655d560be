//! How long every HTTP door of the platform waits for its clients: the inner doors and the gateway's edge alike.

use std::time::Duration;

/// Connections that wait to be accepted: a node full of clients may reconnect at once.
pub const BACKLOG: u32 = 4_096;

/// Idle connections are kept longer than other services keep theirs, so that the client closes first; a publisher is not sent
/// away between two publishes.
pub const KEEP_ALIVE: Duration = Duration::from_secs(75);

/// A slow client may take this long for its request's head; idle time between requests is [`KEEP_ALIVE`]'s.
pub const REQUEST_HEAD_TIMEOUT: Duration = Duration::from_secs(30);

/// A request may be answered at its head: too large, without a valid token, to nowhere. So long what the client still writes is
/// read and thrown away; were the connection closed on it, it would see a broken pipe in place of the answer.
pub const LINGER: Duration = Duration::from_secs(3);

/// Requests in flight get this long to finish once the door closes.
pub const DRAIN_SECONDS: u64 = 5;

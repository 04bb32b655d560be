//! Bringing one listener up to date from the store, at the pace of its client.

use std::{rc::Rc, sync::Arc, time::Duration};

use notifyx_chassis::reply;
use notifyx_model::{Fault, Kind, UserId};
use notifyx_wire::rest::Problem;

use crate::{
    desk::Desk,
    feed::{Item, Source},
    hub::{Audience, Dispatch, Ending, NotLive, Outlet, Run, Seat},
};

/// Messages per read: 6 MB of the largest notifications.
const READ_MAX: u32 = 100;

/// More is not sent while this much waits, so that a client that reads at all is not taken for one that does not.
const AHEAD_BYTES_MAX: usize = 64 * 1024;

/// A client that takes nothing of what waits in this time does not read.
const TAKE_DEADLINE: Duration = Duration::from_secs(10);

/// And so does one that takes less. Whoever takes as much gets past the largest event, slow as it may be: a page of 4 MiB, which is
/// held meanwhile, takes such a client under three hours.
const TAKE_MIN: usize = 4 * 1024;

/// Rounds of reading on after too much came meanwhile. Who is not up to date then reads slower than is published.
const ROUNDS_MAX: usize = 64;

/// Why a listener cannot be brought up to date. It comes back with the offset it has, and is told where the stream stands.
#[derive(Debug, thiserror::Error)]
enum Lost {
    #[error("the log ends at {reached}, before {expected}")]
    LogTooShort { reached: u64, expected: u64 },
    #[error("what came after {after} is gone up to {trimmed}")]
    Trimmed { after: u64, trimmed: u64 },
    #[error("the stream has begun anew")]
    BegunAnew,
}

impl Fault for Lost {
    fn kind(&self) -> Kind {
        match self {
            Self::LogTooShort { .. } => Kind::Internal,
            Self::Trimmed { .. } | Self::BegunAnew => Kind::Unavailable,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::LogTooShort { .. } => "internal",
            Self::Trimmed { .. } => "history_trimmed",
            Self::BegunAnew => "stream_begun_anew",
        }
    }
}

/// What a listener lacks: all after `position`, up to and including `up_to`.
pub(super) struct CatchUp<S: Source> {
    pub(super) name: S::Name,
    pub(super) id: S::Id,
    pub(super) user: Option<UserId>,
    pub(super) audience: Rc<dyn Audience>,
    pub(super) position: u64,
    pub(super) up_to: u64,
}

/// What one read brought, encoded, for this listener only.
#[derive(Default)]
pub(super) struct Missed {
    dispatches: Vec<Dispatch>,
    pub(super) trimmed: u64,
}

impl Missed {
    /// An error where some of what came after `offset` is gone.
    pub(super) fn all_after(&self, offset: u64) -> Result<(), Problem> {
        if self.trimmed > offset {
            return Err(reply::problem(&Lost::Trimmed { after: offset, trimmed: self.trimmed }));
        }
        Ok(())
    }

    /// Leaves out what is not after `offset`.
    pub(super) fn skip(&mut self, offset: u64) {
        self.dispatches.retain(|dispatch| dispatch.offset() > offset);
    }
}

impl<S: Source> CatchUp<S> {
    /// Reads on. History that is trimmed between two pages was promised.
    async fn read_on(&mut self, desk: &Desk) -> Result<Missed, Problem> {
        let after = self.position;
        let page = self.read(desk).await?;
        page.all_after(after)?;
        Ok(page)
    }

    /// Reads the next page and moves on behind it. Nothing lacking, nothing read.
    pub(super) async fn read(&mut self, desk: &Desk) -> Result<Missed, Problem> {
        if self.position >= self.up_to {
            return Ok(Missed::default());
        }
        let (name, id, after) = (self.name.clone(), self.id, self.position);
        let page = desk.call(|platform| S::read(platform, name, id, after, READ_MAX)).await?;
        let reached = page.items.last().map_or(page.trimmed, Item::offset);
        if reached <= after {
            return Err(reply::problem(&Lost::LogTooShort { reached, expected: self.up_to }));
        }
        self.position = reached.min(self.up_to);
        let mine = |item: &S::Item| item.offset() <= self.up_to && S::is_for(item, self.user);
        let encode = |item: S::Item| S::encode(&self.name, Arc::new(item));
        let dispatches = page.items.into_iter().filter(mine).map(encode).collect();
        Ok(Missed { dispatches, trimmed: page.trimmed })
    }

    /// Sends what is lacking, page after page, and turns the seat live.
    pub(super) async fn run(
        mut self,
        desk: &Desk,
        is_over: impl Fn() -> bool,
        mut seat: Seat,
        first: Missed,
    ) -> Result<Seat, Problem> {
        let mut page = first;
        for _ in 0..ROUNDS_MAX {
            loop {
                if !self.send(desk, &is_over, &page).await {
                    return Ok(seat);
                }
                if self.position >= self.up_to {
                    break;
                }
                page = self.read_on(desk).await?;
            }
            match seat.go_live(self.up_to) {
                Ok(()) => return Ok(seat),
                Err(NotLive::Behind(handed)) => self.up_to = self.up_to.max(handed),
                Err(NotLive::BegunAnew) => return Err(reply::problem(&Lost::BegunAnew)),
            }
            page = self.read_on(desk).await?;
        }
        self.audience.outlet().end(Ending::Slow);
        Ok(seat)
    }

    /// False where there is nobody to send to any more.
    async fn send(&self, desk: &Desk, is_over: &impl Fn() -> bool, page: &Missed) -> bool {
        let outlet = self.audience.outlet();
        for run in Run::cut(&page.dispatches) {
            if outlet.queued_bytes() > AHEAD_BYTES_MAX && !is_taken(outlet).await {
                outlet.end(Ending::Slow);
            }
            if is_over() || !outlet.is_open() {
                return false;
            }
            let sent = self.audience.deliver(&run, 0);
            desk.worker.metrics.deliveries.inc_by(sent as u64);
        }
        true
    }
}

/// Waits until all that waits is taken; false where the client does not read.
async fn is_taken(outlet: &dyn Outlet) -> bool {
    let mut waits = outlet.queued_bytes();
    while tokio::time::timeout(TAKE_DEADLINE, outlet.drained()).await.is_err() {
        let before = std::mem::replace(&mut waits, outlet.queued_bytes());
        if before.saturating_sub(waits) < TAKE_MIN {
            return false;
        }
    }
    true
}

//! Bringing one member up to date from the store, at the pace of its client.

use std::{rc::Rc, time::Duration};

use bytes::Bytes;
use notifyx_model::{Notification, TopicId, UserId};
use notifyx_wire::rest::Problem;

use super::{Desk, Session, channel::Channel, fault::Fault};
use crate::{
    feed,
    hub::{Ending, Run, Seat},
};

/// Notifications per read: 6 MB of the largest.
const READ_MAX: u32 = 100;

/// More is not sent while this much waits, so that a client that reads at all is not taken for one that does not.
const AHEAD_BYTES_MAX: usize = 64 * 1024;

/// A client that does not take what waits in this time does not read.
const TAKE_DEADLINE: Duration = Duration::from_secs(10);

/// Rounds of reading on after too much came meanwhile. Who is not up to date then reads slower than is published.
const ROUNDS_MAX: usize = 64;

/// What a member lacks: all after `position`, up to and including `up_to`.
pub(super) struct CatchUp {
    pub(super) topic_id: TopicId,
    pub(super) user: UserId,
    pub(super) position: u64,
    pub(super) up_to: u64,
}

/// What one read brought, encoded, for this member only.
#[derive(Default)]
pub(super) struct Page {
    frames: Vec<(u64, Bytes)>,
    pub(super) trimmed: u64,
}

impl Page {
    /// Leaves out what is not after `offset`.
    pub(super) fn skip(&mut self, offset: u64) {
        self.frames.retain(|(o, _)| *o > offset);
    }
}

impl CatchUp {
    /// Reads the next page and moves on behind it. Nothing lacking, nothing read.
    pub(super) async fn read(&mut self, desk: &Desk) -> Result<Page, Problem> {
        if self.position >= self.up_to {
            return Ok(Page::default());
        }
        let (topic_id, after) = (self.topic_id, self.position);
        let log = desk.call(|platform| async move { platform.log(topic_id, after, READ_MAX).await }).await?;
        let reached = log.notifications.last().map_or(log.trimmed, |n| n.offset);
        if reached <= after {
            return Err(Fault::LogTooShort { reached, expected: self.up_to }.into());
        }
        self.position = reached.min(self.up_to);
        let mine = |n: &&Notification| n.offset <= self.up_to && (n.to.is_empty() || n.to.contains(&self.user));
        let frames = log.notifications.iter().filter(mine).map(|n| (n.offset, feed::encode(n))).collect();
        Ok(Page { frames, trimmed: log.trimmed })
    }

    /// Sends what is lacking, page after page, and turns the seat live.
    pub(super) async fn run(
        mut self,
        session: &Rc<Session>,
        channel: &Channel,
        mut seat: Seat,
        first: Page,
    ) -> Result<Seat, Problem> {
        let mut page = first;
        for _ in 0..ROUNDS_MAX {
            loop {
                if !send(session, channel, &page).await {
                    return Ok(seat);
                }
                if self.position >= self.up_to {
                    break;
                }
                page = self.read(&session.desk).await?;
            }
            match seat.go_live(self.up_to) {
                Ok(()) => return Ok(seat),
                Err(delivered) => self.up_to = self.up_to.max(delivered),
            }
            page = self.read(&session.desk).await?;
        }
        session.outlet.end(Ending::Slow);
        Ok(seat)
    }
}

/// False where there is nobody to send to any more.
async fn send(session: &Session, channel: &Channel, page: &Page) -> bool {
    for run in Run::cut(&page.frames) {
        if session.outlet.queued_bytes() > AHEAD_BYTES_MAX
            && tokio::time::timeout(TAKE_DEADLINE, session.outlet.drained()).await.is_err()
        {
            session.outlet.end(Ending::Slow);
        }
        if channel.has_ended() || !session.outlet.is_open() {
            return false;
        }
        if let Some((bytes, frames)) = run.after(0) {
            session.outlet.send(&bytes, frames);
            session.desk.worker.metrics.deliveries.inc_by(frames as u64);
        }
    }
    true
}

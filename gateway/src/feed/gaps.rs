//! What is lacking in a stream: it is waited for, then read from the store.

use std::{sync::Arc, time::Duration};

use notifyx_wire::{rest::Problem, trace::TraceContext};
use tokio::{
    task::{self, JoinError},
    time::Instant,
};

use super::{Feed, GAP_WAIT, Hints, Item, Page, Source};
use crate::desk::Unanswered;

/// After a read that failed or brought nothing.
const READ_AGAIN: Duration = Duration::from_secs(1);

/// Gaps read at once; others wait, so that a store that comes back is not run over.
const READS_AT_ONCE: usize = 16;

/// What a read of a gap brought.
pub(super) type Read<S> = Result<Page<<S as Source>::Item>, Problem>;

/// What is done about an offset that holds up others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lack {
    Nothing,
    /// `offset` is read at `at` unless it comes by itself.
    Waiting {
        offset: u64,
        at: Instant,
    },
    /// From `offset` on.
    Reading {
        offset: u64,
    },
}

impl<S: Source, H: Hints<S>> Feed<S, H> {
    /// Sets or clears the time at which the stream's gap is read.
    pub(super) fn await_gap(&mut self, name: &S::Name, wait: Duration) {
        let Some(followed) = self.streams.get_mut(name) else { return };
        let lacking = followed.order.lacking();
        match (followed.lack, lacking) {
            (Lack::Reading { .. }, _) | (Lack::Nothing, None) => {}
            (Lack::Waiting { offset, .. }, Some(lacking)) if offset == lacking => {}
            (lack, lacking) => {
                if let Lack::Waiting { at, .. } = lack {
                    self.due.remove(&(at, name.clone()));
                }
                followed.lack = match lacking {
                    None => Lack::Nothing,
                    Some(offset) => {
                        let at = Instant::now() + wait;
                        self.due.insert((at, name.clone()));
                        Lack::Waiting { offset, at }
                    }
                };
            }
        }
    }

    /// Begins the reads whose time has come.
    pub(super) fn read_due(&mut self) {
        let now = Instant::now();
        while let Some((at, _)) = self.due.first()
            && *at <= now
        {
            let (_, name) = self.due.pop_first().expect("it was looked at");
            let Some(followed) = self.streams.get_mut(&name) else { continue };
            if self.reads.len() >= READS_AT_ONCE {
                let at = now + GAP_WAIT;
                followed.lack = Lack::Waiting { offset: followed.order.lacking().unwrap_or_default(), at };
                self.due.insert((at, name));
                continue;
            }
            match (followed.order.lacking(), followed.id) {
                (Some(offset), Some(id)) => {
                    followed.lack = Lack::Reading { offset };
                    let platform = self.platform.clone();
                    let read = S::read(platform, name.clone(), id, offset - 1, S::READ_MAX);
                    let read = self.reads.spawn(TraceContext::begin().scope(read));
                    self.reading.insert(read.id(), (name, offset));
                }
                _ => followed.lack = Lack::Nothing,
            }
        }
    }

    /// A read has ended. One that panicked has failed: the stream would wait for it for ever.
    pub(super) async fn read(&mut self, read: Result<(task::Id, Read<S>), JoinError>) {
        let (id, page) = match read {
            Ok(read) => read,
            Err(broken) => (broken.id(), Err(Unanswered::Broken(broken).into())),
        };
        if let Some((name, offset)) = self.reading.remove(&id) {
            self.filled(&name, offset, page).await;
        }
    }

    /// Takes what the store had.
    async fn filled(&mut self, name: &S::Name, offset: u64, page: Read<S>) {
        let Some(followed) = self.streams.get_mut(name) else { return };
        if followed.lack != (Lack::Reading { offset }) {
            // The stream was begun anew meanwhile.
            return;
        }
        followed.lack = Lack::Nothing;
        let page = match page {
            Ok(page) => page,
            Err(problem) => {
                let stream = S::stream(name);
                self.metrics.failures.inc();
                tracing::warn!(%stream, "{stream} could not be read and waits: {}", problem.detail);
                self.await_gap(name, READ_AGAIN);
                return;
            }
        };
        followed.order.trimmed(page.trimmed);
        followed.order.heard(page.head);
        let read = page.items.len();
        let reached = page.items.last().map_or(page.head, Item::offset);
        for item in page.items {
            followed.order.take(Arc::new(item));
        }
        let delivered = self.advance(name).await;
        self.metrics.gaps_filled.inc_by(delivered.min(read) as u64);
        let lacking = self.streams.get(name).and_then(|followed| followed.order.lacking());
        if lacking == Some(offset) {
            // It was not there: do not ask in a circle.
            self.postpone(name, READ_AGAIN);
        } else if reached < page.head {
            // It was not the last page: what is missing is no hint that is late.
            self.postpone(name, Duration::ZERO);
        }
    }

    /// Gives what is lacking another time.
    fn postpone(&mut self, name: &S::Name, wait: Duration) {
        let Some(followed) = self.streams.get_mut(name) else { return };
        if let Lack::Waiting { at, .. } = followed.lack {
            self.due.remove(&(at, name.clone()));
            followed.lack = Lack::Nothing;
            self.await_gap(name, wait);
        }
    }
}

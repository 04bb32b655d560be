//! The way out of one stream of Server-Sent Events: what waits until the HTTP server asks for more.
//!
//! The server asks whenever the client has taken what it was given, so what waits here is what the client has not taken.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use tokio::{sync::Notify, time::Instant};

use super::Limits;
use crate::hub::{Ending, Metrics, Outlet};

/// A comment: it keeps proxies from closing what is silent, and finds out who has gone without a word.
const HEARTBEAT: Bytes = Bytes::from_static(b":\n\n");

/// Half of what proxies allow.
pub(super) const HEARTBEAT_AFTER: Duration = Duration::from_secs(15);

pub(super) struct Spool {
    queue: RefCell<VecDeque<(Bytes, usize)>>,
    queued_bytes: Cell<usize>,
    queued_frames: Cell<usize>,
    ended: Cell<bool>,
    /// When the client was last given anything.
    given: Cell<Instant>,
    /// Of the server's task.
    waker: RefCell<Option<Waker>>,
    drained: Notify,
    limits: Rc<Limits>,
    metrics: Rc<Metrics>,
}

impl Spool {
    pub(super) fn new(limits: Rc<Limits>, metrics: Rc<Metrics>) -> Self {
        Self {
            queue: RefCell::default(),
            queued_bytes: Cell::new(0),
            queued_frames: Cell::new(0),
            ended: Cell::new(false),
            given: Cell::new(Instant::now()),
            waker: RefCell::default(),
            drained: Notify::new(),
            limits,
            metrics,
        }
    }

    /// What the client gets next; `None` after the last.
    pub(super) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let next = self.queue.borrow_mut().pop_front();
        if let Some((bytes, frames)) = next {
            self.take_off(bytes.len(), frames);
            self.given.set(Instant::now());
            if self.queued_bytes.get() == 0 {
                // An idle stream holds no buffer.
                self.queue.take();
                self.drained.notify_waiters();
            }
            return Poll::Ready(Some(bytes));
        }
        if self.ended.get() {
            return Poll::Ready(None);
        }
        *self.waker.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }

    /// The client is gone.
    pub(super) fn lose(&self) {
        self.ended.set(true);
        self.forget_queue();
        self.drained.notify_waiters();
    }

    fn take_off(&self, bytes: usize, frames: usize) {
        self.queued_bytes.set(self.queued_bytes.get() - bytes);
        self.queued_frames.set(self.queued_frames.get() - frames);
        self.metrics.queued_bytes.sub(bytes as i64);
    }

    fn forget_queue(&self) {
        self.queue.take();
        self.take_off(self.queued_bytes.get(), self.queued_frames.get());
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Outlet for Spool {
    fn send(&self, bytes: &Bytes, frames: usize) {
        if self.ended.get() {
            return;
        }
        let (waits, count) = (self.queued_bytes.get(), self.queued_frames.get());
        if waits > 0
            && (waits + bytes.len() > self.limits.queue_bytes_max || count + frames > self.limits.queue_frames_max)
        {
            return self.end(Ending::Slow);
        }
        self.queued_bytes.set(waits + bytes.len());
        self.queued_frames.set(count + frames);
        self.metrics.queued_bytes.add(bytes.len() as i64);
        self.queue.borrow_mut().push_back((bytes.clone(), frames));
        self.wake();
    }

    fn end(&self, ending: Ending) {
        if self.ended.replace(true) {
            return;
        }
        self.metrics.endings.with_label_values(&[ending.reason()]).inc();
        if ending == Ending::Slow {
            self.forget_queue();
        }
        self.drained.notify_waiters();
        self.wake();
    }

    fn is_open(&self) -> bool {
        !self.ended.get()
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
        let silent = now.duration_since(self.given.get());
        if self.queued_bytes.get() > 0 {
            if silent > self.limits.silence_max {
                self.end(Ending::Slow);
            }
        } else if silent >= HEARTBEAT_AFTER {
            self.send(&HEARTBEAT, 1);
        }
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        self.forget_queue();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spool() -> (Spool, Instant) {
        let spool = Spool::new(Rc::new(Limits::default()), Rc::new(Metrics::new(&prometheus::Registry::new())));
        let begin = spool.given.get();
        (spool, begin)
    }

    fn next(spool: &Spool) -> Poll<Option<Bytes>> {
        spool.poll_next(&mut Context::from_waker(Waker::noop()))
    }

    #[tokio::test]
    async fn what_is_silent_gets_a_heartbeat_and_what_is_not_gets_none() {
        let (spool, begin) = spool();
        spool.sweep(begin + HEARTBEAT_AFTER / 2);
        assert_eq!(next(&spool), Poll::Pending);
        spool.sweep(begin + HEARTBEAT_AFTER);
        assert_eq!(next(&spool), Poll::Ready(Some(HEARTBEAT)));
        assert_eq!(next(&spool), Poll::Pending);
    }

    #[tokio::test]
    async fn what_is_not_taken_ends_the_stream() {
        let (spool, begin) = spool();
        spool.send(&Bytes::from_static(b"x"), 1);
        spool.sweep(begin + HEARTBEAT_AFTER);
        assert!(spool.is_open(), "no heartbeat on top of what waits");
        spool.sweep(begin + Duration::from_secs(61));
        assert_eq!((spool.is_open(), next(&spool)), (false, Poll::Ready(None)));
        assert_eq!(spool.metrics.queued_bytes.get(), 0);
    }

    #[tokio::test]
    async fn what_was_sent_before_the_end_still_goes_out_unless_it_was_too_much() {
        let (spool, _) = spool();
        spool.send(&Bytes::from_static(b"x"), 1);
        spool.end(Ending::Drain);
        spool.send(&Bytes::from_static(b"late"), 1);
        assert_eq!([next(&spool), next(&spool)], [Poll::Ready(Some(Bytes::from_static(b"x"))), Poll::Ready(None)]);
        let (spool, _) = self::spool();
        // One that is larger than all that may wait is sent alone.
        spool.send(&Bytes::from(vec![0; 300 * 1024]), 1);
        assert!(spool.is_open());
        spool.send(&Bytes::from_static(b"x"), 1);
        assert_eq!((spool.is_open(), next(&spool)), (false, Poll::Ready(None)));
    }
}

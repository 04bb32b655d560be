//! One run of numbered messages: when each was sent, answered, first and last delivered.
//!
//! Written by the publishers and by the crowd's thread at once; read when the run is over. Worker `w` of `n` sends the
//! messages `w`, `w + n`, …, and waits for each to land.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::Instant,
};

use notifyx_model::{Clock, Timestamp};
use tokio::sync::Notify;

use crate::latency::Latency;

#[derive(Debug)]
pub(crate) struct Flight {
    began: Instant,
    began_at: Timestamp,
    first_seq: u32,
    sockets: u32,
    slots: Box<[Slot]>,
    landed: Box<[Notify]>,
}

/// Nanoseconds since the flight began; 0 is "not yet".
#[derive(Debug)]
struct Slot {
    sent: AtomicU64,
    answered: AtomicU64,
    first: AtomicU64,
    last: AtomicU64,
    /// Sockets that do not have it.
    missing: AtomicU32,
}

impl Flight {
    pub(crate) fn new(first_seq: u32, messages: u32, sockets: u32, workers: u32) -> Self {
        let slot = |_| Slot {
            sent: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            first: AtomicU64::new(0),
            last: AtomicU64::new(0),
            missing: AtomicU32::new(sockets),
        };
        Self {
            began: Instant::now(),
            began_at: Clock::system().now(),
            first_seq,
            sockets,
            slots: (0..messages).map(slot).collect(),
            landed: (0..workers).map(|_| Notify::new()).collect(),
        }
    }

    /// The numbers that a worker sends, in order.
    pub(crate) fn of_worker(&self, worker: u32) -> impl Iterator<Item = u32> {
        let end = self.first_seq + u32::try_from(self.slots.len()).expect("made from a u32");
        (self.first_seq + worker..end).step_by(self.landed.len())
    }

    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1)
    }

    fn slot(&self, seq: u32) -> Option<(usize, &Slot)> {
        let index = seq.checked_sub(self.first_seq)? as usize;
        Some((index, self.slots.get(index)?))
    }

    pub(crate) fn sent(&self, seq: u32) {
        if let Some((_, slot)) = self.slot(seq) {
            slot.sent.store(self.now(), Ordering::Release);
        }
    }

    /// The message counts from this time on, whenever it was sent.
    pub(crate) fn due(&self, seq: u32, at: Timestamp) {
        if let Some((_, slot)) = self.slot(seq) {
            let nanos = u64::try_from(at.since(self.began_at).as_nanos()).unwrap_or(u64::MAX);
            slot.sent.store(nanos, Ordering::Release);
        }
    }

    /// Deliveries that are still to come.
    pub(crate) fn lacks(&self) -> u64 {
        self.slots.iter().map(|slot| u64::from(slot.missing.load(Ordering::Acquire))).sum()
    }

    pub(crate) fn answered(&self, seq: u32) {
        if let Some((_, slot)) = self.slot(seq) {
            slot.answered.store(self.now(), Ordering::Relaxed);
        }
    }

    /// One socket has the message: answers the nanoseconds since it was sent, or `None` for one that is not of this
    /// flight or came more often than there are sockets.
    pub(crate) fn delivered(&self, seq: u32, now: u64) -> Option<u64> {
        let (index, slot) = self.slot(seq)?;
        let missing = slot.missing.fetch_update(Ordering::AcqRel, Ordering::Acquire, |missing| missing.checked_sub(1));
        let missing = missing.ok()?;
        if missing == self.sockets {
            slot.first.store(now, Ordering::Relaxed);
        }
        if missing == 1 {
            slot.last.store(now, Ordering::Release);
            self.landed[index % self.landed.len()].notify_one();
        }
        Some(now.saturating_sub(slot.sent.load(Ordering::Acquire)))
    }

    /// Waits until the message that this worker sent last has reached every socket.
    pub(crate) async fn landed(&self, worker: u32) {
        self.landed[worker as usize].notified().await;
    }

    /// Sockets that do not have the message.
    pub(crate) fn missing(&self, seq: u32) -> u32 {
        self.slot(seq).map_or(0, |(_, slot)| slot.missing.load(Ordering::Acquire))
    }

    pub(crate) fn spans(&self) -> Spans {
        let mut spans = Spans::default();
        let mut fan_outs = Vec::with_capacity(self.slots.len());
        let (mut begin, mut end) = (u64::MAX, 0);
        for slot in &self.slots {
            let [sent, answered, first, last] =
                [&slot.sent, &slot.answered, &slot.first, &slot.last].map(|time| time.load(Ordering::Acquire));
            spans.publish.record(answered.saturating_sub(sent));
            spans.to_first.record(first.saturating_sub(sent));
            spans.fan_out.record(last.saturating_sub(first));
            fan_outs.push((first, last));
            (begin, end) = (begin.min(sent), end.max(last));
        }
        spans.wall_s = end.saturating_sub(begin) as f64 / 1e9;
        spans.fan_out_s = covered(fan_outs) as f64 / 1e9;
        spans
    }
}

/// What a flight took.
#[derive(Debug, Default)]
pub(crate) struct Spans {
    /// From sending a message to the publisher's answer.
    pub(crate) publish: Latency,
    /// From sending to the first delivery.
    pub(crate) to_first: Latency,
    /// From the first delivery to the last.
    pub(crate) fan_out: Latency,
    /// From the first sending to the last delivery.
    pub(crate) wall_s: f64,
    /// The part of it in which some message was between its first and its last delivery.
    pub(crate) fan_out_s: f64,
}

/// The length of what the spans cover together.
fn covered(mut spans: Vec<(u64, u64)>) -> u64 {
    spans.sort_unstable();
    let mut until = 0;
    let mut covered = 0;
    for (begin, end) in spans {
        covered += end.saturating_sub(begin.max(until));
        until = until.max(end);
    }
    covered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_lands_when_every_socket_has_it_and_once_only() {
        let flight = Flight::new(10, 2, 2, 1);
        flight.sent(10);
        assert!(flight.delivered(10, 500).is_some());
        assert_eq!(flight.missing(10), 1);
        assert!(flight.delivered(10, 700).is_some());
        assert_eq!(flight.delivered(10, 900), None, "twice at one socket");
        assert_eq!(flight.delivered(12, 900), None, "of another flight");
        assert_eq!(flight.delivered(9, 900), None, "of another flight");
    }

    #[test]
    fn a_message_that_is_due_counts_from_its_time() {
        let flight = Flight::new(0, 1, 1, 1);
        flight.due(0, flight.began_at + std::time::Duration::from_micros(500));
        assert_eq!((flight.lacks(), flight.delivered(0, 700_000), flight.lacks()), (1, Some(200_000), 0));
    }

    #[tokio::test]
    async fn a_worker_is_told_also_if_it_looks_later() {
        let flight = Flight::new(0, 4, 1, 2);
        assert_eq!(flight.of_worker(1).collect::<Vec<_>>(), [1, 3]);
        flight.delivered(1, 5);
        flight.landed(1).await;
    }

    #[test]
    fn overlapping_fan_outs_are_counted_once() {
        assert_eq!(covered(vec![(10, 20), (0, 5), (15, 30), (16, 18)]), 25);
        assert_eq!(covered(Vec::new()), 0);
    }
}

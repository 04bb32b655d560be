//! The order of one stream: what is next, what came too early, and whether something is lacking.

use std::{collections::BTreeMap, sync::Arc};

use super::source::Item;

/// Early arrivals kept per stream. Beyond it the farthest is let go: the store has it.
const EARLY_MAX: usize = 1024;
/// What they may weigh together: twice the heaviest read of a gap.
const EARLY_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Gives a stream's messages strictly by offset, each once, however they come.
#[derive(Debug)]
pub(crate) struct Order<T> {
    /// The offset to deliver next; `None` until the stream's place is known.
    next: Option<u64>,
    early: BTreeMap<u64, Arc<T>>,
    early_bytes: usize,
    /// The largest offset that anyone has spoken of.
    newest: u64,
    /// What had been delivered when the look at the head that is under way began.
    looked_from: Option<u64>,
    /// The last look found a log that ends before that.
    short: bool,
}

/// What became of an arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// It may be in line now.
    Kept,
    /// It was delivered before.
    Double,
}

impl<T> Default for Order<T> {
    fn default() -> Self {
        Self { next: None, early: BTreeMap::new(), early_bytes: 0, newest: 0, looked_from: None, short: false }
    }
}

impl<T: Item> Order<T> {
    /// The store says the stream stands at `head`. Answers the first offset that is delivered from now on: right after
    /// `head` if nothing was known, else where delivery stands.
    pub(crate) fn start(&mut self, head: u64) -> u64 {
        self.heard(head);
        let next = *self.next.get_or_insert(head + 1);
        self.forget_below(next);
        next
    }

    pub(crate) fn is_started(&self) -> bool {
        self.next.is_some()
    }

    /// Takes an arrival, in whatever order.
    pub(crate) fn take(&mut self, item: Arc<T>) -> Arrival {
        let (offset, bytes) = (item.offset(), item.bytes());
        self.heard(offset);
        if self.next.is_some_and(|next| offset < next) {
            return Arrival::Double;
        }
        if self.early.contains_key(&offset) {
            return Arrival::Double;
        }
        self.early.insert(offset, item);
        self.early_bytes += bytes;
        while self.early.len() > EARLY_MAX || self.early_bytes > EARLY_BYTES_MAX && self.early.len() > 1 {
            let farthest = self.early.pop_last();
            self.early_bytes -= farthest.map_or(0, |(_, item)| item.bytes());
        }
        Arrival::Kept
    }

    /// The one that is in line, if it is there.
    pub(crate) fn deliver(&mut self) -> Option<Arc<T>> {
        let next = self.next.as_mut()?;
        let first = self.early.first_entry().filter(|first| first.key() == next)?;
        *next += 1;
        let item = first.remove();
        self.early_bytes -= item.bytes();
        Some(item)
    }

    /// Somebody says the stream has come this far.
    pub(crate) fn heard(&mut self, offset: u64) {
        self.newest = self.newest.max(offset);
    }

    /// A look at the head begins.
    pub(crate) fn look_begins(&mut self) {
        self.looked_from = self.next.map(|next| next - 1);
    }

    /// The look found that the log ends at `head`. True where the store was put back to an older state: twice running it
    /// lacks what had been delivered when the look began. Once may be a copy of the store that is behind.
    pub(crate) fn is_put_back(&mut self, head: u64) -> bool {
        let short = self.looked_from.take().is_some_and(|delivered| head < delivered);
        let again = short && self.short;
        self.short = short;
        again
    }

    /// History up to here is gone: nobody can deliver it.
    pub(crate) fn trimmed(&mut self, offset: u64) {
        if let Some(next) = &mut self.next
            && *next <= offset
        {
            *next = offset + 1;
            self.forget_below(offset + 1);
        }
    }

    fn forget_below(&mut self, offset: u64) {
        self.early = self.early.split_off(&offset);
        self.early_bytes = self.early.values().map(|item| item.bytes()).sum();
    }

    /// The offset that holds up what is known to come after it.
    pub(crate) fn lacking(&self) -> Option<u64> {
        self.next.filter(|next| *next <= self.newest && !self.early.contains_key(next))
    }
}

#[cfg(test)]
mod tests {
    use notifyx_model::Notification;
    use notifyx_wire::grpc::events::Event;

    use super::*;
    use crate::testing::{event, notification};

    type Order = super::Order<Notification>;

    fn take(order: &mut Order, offset: u64) -> Arrival {
        order.take(Arc::new(notification("t", offset)))
    }

    fn delivered(order: &mut Order) -> Vec<u64> {
        std::iter::from_fn(|| order.deliver()).map(|n| n.offset).collect()
    }

    #[test]
    fn disorder_and_doubles_come_out_in_order_and_once() {
        let mut order = Order::default();
        assert_eq!(order.start(3), 4);
        assert_eq!([5, 4, 4, 7].map(|offset| take(&mut order, offset)), {
            use Arrival::{Double, Kept};
            [Kept, Kept, Double, Kept]
        });
        assert_eq!(delivered(&mut order), [4, 5]);
        assert_eq!(order.lacking(), Some(6));
        assert_eq!(take(&mut order, 5), Arrival::Double);
        take(&mut order, 6);
        assert_eq!((delivered(&mut order), order.lacking()), (vec![6, 7], None));
    }

    #[test]
    fn what_comes_before_the_start_waits_for_it() {
        let mut order = Order::default();
        for offset in [2, 3, 5] {
            take(&mut order, offset);
        }
        assert_eq!((delivered(&mut order), order.lacking()), (vec![], None));
        assert_eq!(order.start(2), 3);
        assert_eq!((delivered(&mut order), order.lacking()), (vec![3], Some(4)));
    }

    #[test]
    fn a_second_start_changes_nothing_but_what_is_heard() {
        let mut order = Order::default();
        order.start(3);
        assert_eq!(order.start(9), 4);
        assert_eq!(order.lacking(), Some(4));
    }

    #[test]
    fn a_head_of_the_store_reveals_a_lost_hint() {
        let mut order = Order::default();
        order.start(0);
        order.heard(2);
        assert_eq!(order.lacking(), Some(1));
    }

    #[test]
    fn a_log_that_twice_running_lacks_what_was_delivered_was_put_back() {
        let mut order = Order::default();
        order.start(3);
        let looks = |order: &mut Order, heads: &[u64]| -> Vec<bool> {
            let look = |head: &u64| {
                order.look_begins();
                order.is_put_back(*head)
            };
            heads.iter().map(look).collect()
        };
        assert_eq!(looks(&mut order, &[2, 3, 2, 4, 0]), [false; 5], "once is not twice");
        assert_eq!(looks(&mut order, &[2, 1]), [true, true]);
        // What is delivered while a look is under way is not missed in what it finds.
        for offset in 4..=5 {
            order.look_begins();
            take(&mut order, offset);
            assert_eq!(delivered(&mut order), [offset]);
            assert!(!order.is_put_back(offset - 1));
        }
        // A stream that is not begun lacks nothing.
        assert_eq!(looks(&mut Order::default(), &[0, 0]), [false; 2]);
    }

    #[test]
    fn trimmed_history_is_skipped() {
        let mut order = Order::default();
        order.start(0);
        take(&mut order, 6);
        order.trimmed(4);
        assert_eq!(order.lacking(), Some(5));
        order.trimmed(5);
        assert_eq!(delivered(&mut order), [6]);
    }

    #[test]
    fn early_arrivals_are_bounded_and_the_farthest_is_read_again_later() {
        let mut order = Order::default();
        order.start(0);
        let last = EARLY_MAX as u64 + 10;
        for offset in 2..=last {
            take(&mut order, offset);
        }
        assert_eq!(order.early.len(), EARLY_MAX);
        take(&mut order, 1);
        let delivered = delivered(&mut order);
        assert_eq!(delivered.len(), EARLY_MAX);
        assert_eq!(order.lacking(), Some(EARLY_MAX as u64 + 1));
        assert_eq!(order.early_bytes, 0);
    }

    #[test]
    fn early_arrivals_are_bounded_by_what_they_weigh_too() {
        let mut order = super::Order::default();
        order.start(0);
        for offset in 2..=200 {
            order.take(Arc::new(Event { data: vec![b'1'; 256 * 1024].into(), ..event("a", offset) }));
        }
        let kept = order.early.len();
        assert!((126..=128).contains(&kept), "{kept} events of 256 KiB");
        order.take(Arc::new(event("a", 1)));
        assert_eq!(std::iter::from_fn(|| order.deliver()).count(), kept + 1);
        assert_eq!(order.early_bytes, 0);
    }
}

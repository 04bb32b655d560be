//! How a stream's messages come to its members, and the numbers of broadcasts to who watches.

use std::rc::Rc;

use notifyx_model::TopicName;

use super::{SERVED_AT_ONCE, Worker};
use crate::hub::{
    Dispatch,
    run::Run,
    stream::{Stream, StreamName},
    watch::HeadFrame,
};

impl Worker {
    /// Hands a stream's messages to its members. What is for all between two targeted ones goes out joined.
    pub(super) async fn deliver(&self, stream: &Rc<Stream>, dispatches: &[Dispatch]) {
        let Some(last) = dispatches.last() else { return };
        // Who enters from now on, in a pause of this very delivery, reads these in the store.
        stream.hands_up_to(last.offset());
        let mut rest = dispatches;
        while let Some(first) = rest.first() {
            if !first.to().is_empty() {
                rest = &rest[1..];
                self.deliver_to_recipients(stream, first);
                continue;
            }
            let for_all = rest.iter().take_while(|dispatch| dispatch.to().is_empty()).count();
            let (now, after) = rest.split_at(for_all);
            rest = after;
            for (nth, run) in Run::cut(now).enumerate() {
                if nth > 0 {
                    // What other tasks write for their clients goes out before more is handed to them.
                    tokio::task::yield_now().await;
                }
                self.deliver_to_all(stream, &Rc::new(run)).await;
            }
            if let StreamName::Topic(topic) = &stream.name {
                self.tell_watchers(stream, topic, now).await;
            }
        }
    }

    async fn deliver_to_all(&self, stream: &Stream, run: &Rc<Run>) {
        let mut next = 0;
        loop {
            let mut sent = 0;
            let end = {
                let mut members = stream.members.borrow_mut();
                let end = members.capacity();
                for slot in next..end.min(next + SERVED_AT_ONCE) {
                    if let Some(member) = members.get_mut(slot) {
                        sent += member.deliver(run);
                    }
                }
                end
            };
            self.metrics.deliveries.inc_by(sent as u64);
            next += SERVED_AT_ONCE;
            if next >= end {
                return;
            }
            tokio::task::yield_now().await;
        }
    }

    fn deliver_to_recipients(&self, stream: &Rc<Stream>, dispatch: &Dispatch) {
        let run = Rc::new(Run::new(vec![dispatch.clone()]));
        let people = self.people.borrow();
        let mut members = stream.members.borrow_mut();
        let mut sent = 0;
        for user in dispatch.to() {
            let seats = people.get(user).map_or(&[][..], |person| &person.seats);
            for (_, slot) in seats.iter().filter(|(seat, _)| Rc::ptr_eq(seat, stream)) {
                if let Some(member) = members.get_mut(*slot) {
                    sent += member.deliver(&run);
                }
            }
            self.unread_changed(*user);
        }
        self.metrics.deliveries.inc_by(sent as u64);
    }

    async fn tell_watchers(&self, stream: &Stream, topic: &TopicName, broadcasts: &[Dispatch]) {
        if stream.watchers.borrow().is_empty() {
            return;
        }
        for broadcast_no in broadcasts.iter().filter_map(Dispatch::broadcast_no) {
            let mut head = HeadFrame::new(topic, broadcast_no);
            let mut next = 0;
            loop {
                let end = {
                    let mut watchers = stream.watchers.borrow_mut();
                    let end = watchers.capacity();
                    for slot in next..end.min(next + SERVED_AT_ONCE) {
                        if let Some(watcher) = watchers.get_mut(slot) {
                            watcher.tell(&mut head);
                        }
                    }
                    end
                };
                next += SERVED_AT_ONCE;
                if next >= end {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
    }
}

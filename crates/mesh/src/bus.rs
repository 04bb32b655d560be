//! The bus: hints that something was committed, from whoever committed it to the gateways that show it.
//!
//! A hint may be lost, and nothing but time is lost with it: the store is the truth, and gateways read it where a hint is
//! lacking. So publishing never waits and never fails.

use std::sync::Arc;

use notifyx_model::Notification;
use prometheus::{IntCounter, Registry};
use tokio::sync::broadcast;

/// The publishing end. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Bus {
    sender: broadcast::Sender<Arc<Notification>>,
    lost: IntCounter,
}

impl Bus {
    /// Within this process. Each receiver may be `capacity` hints behind; beyond that it loses the oldest.
    pub fn in_process(capacity: usize) -> Self {
        let lost = IntCounter::new("notifyx_mesh_bus_lost_total", "Hints that a receiver was too slow to take.")
            .expect("the name is valid");
        Self { sender: broadcast::Sender::new(capacity.max(1)), lost }
    }

    /// Shows the number of lost hints at a service's `/metrics`.
    #[must_use]
    pub fn counted_in(self, registry: &Registry) -> Self {
        registry.register(Box::new(self.lost.clone())).expect("a registry counts one bus");
        self
    }

    pub fn publish(&self, notification: Arc<Notification>) {
        // Nobody listens: nobody lacks the hint.
        let _ = self.sender.send(notification);
    }

    /// From now on.
    pub fn subscribe(&self) -> BusReceiver {
        BusReceiver { receiver: self.sender.subscribe(), lost: self.lost.clone() }
    }

    /// Hints lost so far, over all receivers.
    pub fn lost(&self) -> u64 {
        self.lost.get()
    }
}

/// A receiving end.
#[derive(Debug)]
pub struct BusReceiver {
    receiver: broadcast::Receiver<Arc<Notification>>,
    lost: IntCounter,
}

impl BusReceiver {
    /// The next hint, or `None` when the last [`Bus`] is gone. Dropping the future loses nothing.
    pub async fn recv(&mut self) -> Option<Arc<Notification>> {
        loop {
            match self.receiver.recv().await {
                Ok(notification) => return Some(notification),
                Err(broadcast::error::RecvError::Lagged(missed)) => self.lost.inc_by(missed),
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use notifyx_model::{Clock, Email, Message, NotificationId, Priority, TopicId, TopicName, UserId};

    use super::*;

    fn hint(offset: u64) -> Arc<Notification> {
        let clock = Clock::system();
        Arc::new(Notification {
            id: NotificationId::new(&clock),
            topic_id: TopicId::new(&clock),
            topic: TopicName::parse("billing").unwrap(),
            offset,
            broadcast_no: Some(offset),
            from_user_id: UserId::new(&clock),
            from: Email::parse("ann@example.org").unwrap(),
            message: Message::parse("paid").unwrap(),
            to: Vec::new(),
            priority: Priority::default(),
            inserted_at: clock.now(),
        })
    }

    #[tokio::test]
    async fn every_receiver_hears_every_hint() {
        let bus = Bus::in_process(8);
        bus.publish(hint(1));
        let (mut one, mut two) = (bus.subscribe(), bus.subscribe());
        bus.publish(hint(2));
        assert_eq!(one.recv().await.unwrap().offset, 2);
        assert_eq!(two.recv().await.unwrap().offset, 2);
        drop(bus);
        assert_eq!(one.recv().await, None);
    }

    #[tokio::test]
    async fn a_slow_receiver_loses_the_oldest_and_it_is_counted() {
        let bus = Bus::in_process(4);
        let mut slow = bus.subscribe();
        (1..=10).for_each(|offset| bus.publish(hint(offset)));
        assert_eq!(slow.recv().await.unwrap().offset, 7);
        assert_eq!(bus.lost(), 6);
    }
}

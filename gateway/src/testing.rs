//! For tests: a platform in memory whose answers can be held back, and a client without a socket.

mod client;
mod fake;
mod gate;
mod node;
mod watch;

use std::sync::Arc;

use notifyx_model::{
    Category, Clock, Email, Message, Notification, NotificationId, Priority, Scope, Scopes, Timestamp, TopicId,
    TopicName, UserId,
};
use notifyx_wire::grpc::events::Event;

use crate::platform::SocketUser;

pub(crate) use client::{Client, texts};
pub(crate) use fake::Fake;
use gate::Gate;
pub(crate) use node::{Node, feeds};
pub(crate) use watch::{FakeHint, FakeWatch};

pub(crate) fn topic(name: &str) -> TopicName {
    TopicName::parse(name).unwrap()
}

pub(crate) fn notification(name: &str, offset: u64) -> Notification {
    let clock = Clock::system();
    Notification {
        id: NotificationId::new(&clock),
        topic_id: TopicId::new(&clock),
        topic: topic(name),
        offset,
        broadcast_no: Some(offset),
        from_user_id: UserId::new(&clock),
        from: Email::parse("ann@example.org").unwrap(),
        message: Message::parse(&format!("message {offset}")).unwrap(),
        to: vec![],
        priority: Priority::default(),
        inserted_at: Timestamp::from_micros(1_767_225_600_000_000),
    }
}

pub(crate) fn category(name: &str) -> Category {
    Category::parse(name).unwrap()
}

pub(crate) fn event(name: &str, offset: u64) -> Event {
    let at = 1_767_225_600_000_000;
    Event {
        id: format!("e{offset}"),
        category: name.to_owned(),
        key: None,
        priority: 4,
        data: offset.to_string().into(),
        created_at_us: at,
        fire_at_us: at + 500_000,
        offset: Some(offset),
        fired_at_us: Some(at + 501_234),
        schedule_id: None,
    }
}

pub(crate) fn user_of(id: UserId) -> Arc<SocketUser> {
    Arc::new(SocketUser { id, email: Email::parse("ann@example.org").unwrap(), token_hash: None, expires_at: None })
}

/// What a key has that may listen to what a pattern covers.
pub(crate) fn subscribe(pattern: &str) -> Scopes {
    Scopes::new(vec![Scope::parse(&format!("subscribe:{pattern}")).unwrap()]).unwrap()
}

//! Scheduled notifications: publishes that are given now and happen at their time.
//!
//! One waits as an event of the platform's own category [`CATEGORY`] in the events service, which fires it at its time into that
//! category's log. The log above the consumer's position is the queue of what fired and is not published yet: the `consumer`, on one
//! gateway at a time, publishes it through the same path as any other publish, by its key, and what became of it is appended to
//! [`OUTCOMES`] before the position passes it.

mod calls;
mod consumer;
mod lanes;
mod metrics;
mod order;
mod pace;
mod queue;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use notifyx_chassis::User;
use notifyx_mesh::Mesh;
use notifyx_model::{Clock, EventId, Fault, GivenTime, InstanceId, Timestamp};
use notifyx_wire::{
    grpc::events as wire,
    rest::gateway::{ScheduledNotification, ScheduledPage, ScheduledState},
};
use tokio_util::sync::CancellationToken;

use crate::{
    Error,
    backends::Events,
    platform::NewPublish,
    publish::{Accepted, Publisher},
};
use calls::Calls;
use consumer::{Consumer, Press};
use order::{Order, outcome_id};

pub(crate) use metrics::Metrics;

/// Where scheduled notifications wait and fire. Public doors refuse names that begin with `$`.
const CATEGORY: &str = "$notifications";

/// What became of them: one event each, named after its place in the log of [`CATEGORY`].
const OUTCOMES: &str = "$notifications.outcomes";

/// Items of a page, as of all lists of the gateway.
const PAGE_MAX: u32 = 500;
const PAGE_DEFAULT: u32 = 50;

/// What users ask about the notifications that they have scheduled.
#[derive(Debug)]
pub(crate) struct Scheduled {
    calls: Calls,
    publisher: Publisher,
    clock: Clock,
}

impl Scheduled {
    pub(crate) fn new(events: Events, mesh: Mesh, publisher: Publisher, clock: Clock) -> Self {
        Self { calls: Calls::new(events, mesh), publisher, clock }
    }

    /// Publishes what fires, whenever no other gateway does, until `stop`. On the current runtime.
    pub(crate) fn start(&self, metrics: Metrics, stop: CancellationToken) -> consumer::Running {
        let holder = InstanceId::new(&self.clock).to_string();
        let (log, press) = (Arc::new(self.calls.clone()), Arc::new(self.publisher.clone()));
        Consumer::new(log, press, holder, self.clock.clone(), metrics).start(stop)
    }

    /// Takes a publish for later. Refused is what would be refused now, so that the publisher hears of it: it is looked at again at its time.
    /// The same request under the same key is the same scheduled notification, and is answered as it stands.
    pub(crate) async fn schedule(
        &self,
        by: &User,
        new: NewPublish,
        fire_at: &GivenTime,
    ) -> Result<ScheduledNotification, Error> {
        let fire_at = fire_at.fire_at("fire_at", self.clock.now())?;
        self.publisher.check(by, &new).await?;
        let order = Order::new(by, new, fire_at);
        let stored = self.calls.schedule(by, order.event(&self.clock)?).await?;
        let event = stored.event.unwrap_or_default();
        if stored.duplicate && Order::read(&event.data)? != order {
            return Err(Error::KeyReused);
        }
        self.show(event).await
    }

    /// Those of the user that wait for their time, soonest first.
    pub(crate) async fn list(
        &self,
        by: &User,
        after: Option<String>,
        limit: Option<u32>,
    ) -> Result<ScheduledPage, Error> {
        let limit = limit.unwrap_or(PAGE_DEFAULT);
        if !(1..=PAGE_MAX).contains(&limit) {
            return Err(Error::BadLimit { limit, most: PAGE_MAX });
        }
        let page = self.calls.list(by, after.unwrap_or_default(), limit).await.map_err(Error::of_list)?;
        let mut notifications = Vec::with_capacity(page.events.len());
        for event in page.events {
            notifications.push(shown(&event, ScheduledState::Scheduled)?);
        }
        Ok(ScheduledPage { notifications, next: Some(page.next).filter(|next| !next.is_empty()) })
    }

    pub(crate) async fn get(&self, by: &User, id: &EventId) -> Result<ScheduledNotification, Error> {
        self.show(self.own(by, id).await?).await
    }

    /// Takes it back. As it was.
    pub(crate) async fn cancel(&self, by: &User, id: &EventId) -> Result<ScheduledNotification, Error> {
        self.own(by, id).await?;
        let event = self.calls.cancel(by, id).await.map_err(|error| late(error, id))?;
        shown(&event, ScheduledState::Scheduled)
    }

    /// Gives it another time. As it is now.
    pub(crate) async fn reschedule(
        &self,
        by: &User,
        id: &EventId,
        fire_at: &GivenTime,
    ) -> Result<ScheduledNotification, Error> {
        let fire_at = fire_at.fire_at("fire_at", self.clock.now())?;
        self.own(by, id).await?;
        let event = self.calls.reschedule(by, id, fire_at).await.map_err(|error| late(error, id))?;
        self.show(event).await
    }

    /// Another's is not found.
    async fn own(&self, by: &User, id: &EventId) -> Result<wire::Event, Error> {
        let event = self.calls.find(CATEGORY, id).await?;
        let own = event.filter(|event| event.key.as_deref() == Some(by.id.to_string().as_str()));
        own.ok_or_else(|| Error::ScheduledNotFound(id.clone()))
    }

    async fn show(&self, event: wire::Event) -> Result<ScheduledNotification, Error> {
        let state = match event.offset {
            None => ScheduledState::Scheduled,
            Some(offset) => {
                let outcome = self.calls.outcome(&outcome_id(offset)).await?;
                outcome.unwrap_or(ScheduledState::Queued)
            }
        };
        shown(&event, state)
    }
}

fn shown(event: &wire::Event, state: ScheduledState) -> Result<ScheduledNotification, Error> {
    let Order { topic, message, to, priority, key, .. } = Order::read(&event.data)?;
    Ok(ScheduledNotification {
        success: true,
        id: order::id_of(event)?,
        topic,
        message,
        to,
        priority,
        key,
        created_at: Timestamp::from_micros(event.created_at_us),
        fire_at: Timestamp::from_micros(event.fire_at_us),
        state,
    })
}

#[async_trait]
impl Press for Publisher {
    async fn publish(&self, id: &EventId, order: &Order) -> Result<Accepted, Error> {
        self.publish(&order.user(), order.publish(id)).await
    }
}

/// The events service speaks of events; who asked here speaks of a notification.
fn late(error: Error, id: &EventId) -> Error {
    match error.code() {
        "event_fired" => Error::ScheduledFired(id.clone()),
        "event_not_found" => Error::ScheduledNotFound(id.clone()),
        _ => error,
    }
}

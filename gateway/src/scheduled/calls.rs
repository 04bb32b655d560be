//! What is asked of the events service for scheduled notifications: what any door asks of it, and its place in the log.
//!
//! Each call may be repeated: events are named before they are given, outcomes are named after what they are of, and positions only move
//! forward.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use bytes::Bytes;
use notifyx_chassis::User;
use notifyx_mesh::{CallError, Mesh, Rpc};
use notifyx_model::{Category, EventId, Fault, Kind, Timestamp};
use notifyx_wire::{
    grpc::events::{self as wire, consumers_client::ConsumersClient, events_client::EventsClient},
    rest::gateway::ScheduledState,
};
use prometheus::Registry;
use tokio::{runtime::Handle, sync::Notify};
use tokio_util::sync::CancellationToken;

use super::{
    CATEGORY, OUTCOMES,
    consumer::{LEASE, Log, NAME},
};
use crate::{
    Error,
    backends::{EVENTS, Events},
    feed::Hints,
    watch::{self, Watching},
};

/// Of Read.
const PAGE_MAX: usize = 1_000;

/// When a service that is full or away is to be asked again.
const AGAIN: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub(super) struct Calls {
    events: Events,
    mesh: Mesh,
    /// In no registry: what is counted there are the feed's streams.
    watch: watch::Metrics,
}

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Calls").finish_non_exhaustive()
    }
}

impl Calls {
    pub(super) fn new(events: Events, mesh: Mesh) -> Self {
        Self { events, mesh, watch: watch::Metrics::new(&Registry::new()) }
    }

    pub(super) async fn schedule(&self, by: &User, event: wire::NewEvent) -> Result<wire::Stored, Error> {
        let stored = self.events.schedule(Some(by), vec![event]).await.pop().expect("a result for each event");
        stored.map_err(|problem| {
            let again = matches!(problem.status, 429 | 503).then_some(AGAIN);
            CallError::Refused(Box::new(problem), again).into()
        })
    }

    pub(super) async fn cancel(&self, by: &User, id: &EventId) -> Result<wire::Event, Error> {
        self.events.cancel(Some(by), id, &name(CATEGORY)).await
    }

    pub(super) async fn reschedule(&self, by: &User, id: &EventId, to: Timestamp) -> Result<wire::Event, Error> {
        self.events.reschedule(Some(by), id, &name(CATEGORY), to.as_micros()).await
    }

    /// What waits of a user, soonest first.
    pub(super) async fn list(&self, by: &User, cursor: String, limit: u32) -> Result<wire::ListReply, CallError> {
        let (category, key) = (CATEGORY.to_owned(), Some(by.id.to_string()));
        self.events.list(wire::ListRequest { category, cursor, limit, key }).await
    }

    pub(super) async fn find(&self, category: &'static str, id: &EventId) -> Result<Option<wire::Event>, CallError> {
        match self.events.get(id, Some(&name(category))).await {
            Ok(event) => Ok(Some(event)),
            Err(error) if error.kind() == Kind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What became of one that fired; `None`: nothing yet.
    pub(super) async fn outcome(&self, id: &EventId) -> Result<Option<ScheduledState>, Error> {
        let event = self.find(OUTCOMES, id).await?;
        event.map(|event| serde_json::from_slice(&event.data).map_err(Error::BadScheduled)).transpose()
    }
}

fn name(category: &'static str) -> Category {
    Category::parse(category).expect("it is a name")
}

#[async_trait]
impl Log for Calls {
    async fn acquire(&self, holder: &str) -> Result<wire::Consumer, CallError> {
        let request = wire::AcquireRequest {
            consumer: NAME.to_owned(),
            category: CATEGORY.to_owned(),
            holder: holder.to_owned(),
            lease_us: i64::try_from(LEASE.as_micros()).expect("some seconds"),
        };
        let ask = |line| {
            let request = request.clone();
            async move { ConsumersClient::new(line).acquire(request).await }
        };
        self.mesh.rpc(EVENTS, Rpc::new().idempotent(), ask).await
    }

    async fn commit(&self, epoch: u64, position: u64) -> Result<(), CallError> {
        let request = wire::CommitRequest { consumer: NAME.to_owned(), epoch, position };
        let ask = |line| {
            let request = request.clone();
            async move { ConsumersClient::new(line).commit(request).await }
        };
        self.mesh.rpc(EVENTS, Rpc::new().idempotent(), ask).await.map(drop)
    }

    async fn release(&self, epoch: u64) -> Result<(), CallError> {
        let request = wire::ReleaseRequest { consumer: NAME.to_owned(), epoch };
        let ask = |line| {
            let request = request.clone();
            async move { ConsumersClient::new(line).release(request).await }
        };
        self.mesh.rpc(EVENTS, Rpc::new().idempotent(), ask).await.map(drop)
    }

    async fn read(&self, after: u64, limit: usize) -> Result<wire::ReadReply, CallError> {
        let limit = u32::try_from(limit.min(PAGE_MAX)).expect("a page is small");
        self.events.read(wire::ReadRequest { category: CATEGORY.to_owned(), after, limit }).await
    }

    async fn outcome(&self, id: &EventId) -> Result<Option<ScheduledState>, Error> {
        self.outcome(id).await
    }

    async fn conclude(&self, id: &EventId, key: Option<String>, outcome: &ScheduledState) -> Result<(), CallError> {
        let event = wire::NewEvent {
            id: id.to_string(),
            category: OUTCOMES.to_owned(),
            key,
            data: Bytes::from(serde_json::to_vec(outcome).expect("words and numbers are JSON")),
            ..wire::NewEvent::default()
        };
        let request = wire::AppendRequest { event: Some(event) };
        let ask = |line| {
            let request = request.clone();
            async move { EventsClient::new(line).append(request).await }
        };
        self.mesh.rpc(EVENTS, Rpc::new().idempotent(), ask).await.map(drop)
    }

    async fn listen(&self, bell: Arc<Notify>, over: CancellationToken) {
        let (watching, mut watch) = Watching::start(&self.mesh, self.watch.clone(), &Handle::current());
        watch.follow(&name(CATEGORY));
        while let Some(Some(_)) = over.run_until_cancelled(watch.next()).await {
            bell.notify_one();
        }
        watching.stop().await;
    }
}

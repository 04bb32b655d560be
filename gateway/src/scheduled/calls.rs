//! What is asked of the events service for scheduled notifications.
//!
//! Each call may be repeated: events are named before they are given, outcomes are named after what they are of, and positions only move
//! forward.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use notifyx_chassis::{User, grpc::MESSAGE_BYTES_MAX};
use notifyx_mesh::{CallError, Line, Mesh, Rpc};
use notifyx_model::{Category, EventId, Fault, Kind, Timestamp};
use notifyx_wire::{
    grpc::events::{self as wire, consumers_client::ConsumersClient, event_result, events_client::EventsClient},
    rest::{Problem, gateway::ScheduledState},
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
    backends::EVENTS,
    feed::Hints,
    watch::{self, Watching},
};

#[derive(Clone, Debug)]
pub(super) struct Calls {
    mesh: Mesh,
    /// In no registry: what is counted there are the feed's streams.
    watch: watch::Metrics,
}

fn client(line: Line) -> EventsClient<Line> {
    EventsClient::new(line).max_decoding_message_size(MESSAGE_BYTES_MAX).max_encoding_message_size(MESSAGE_BYTES_MAX)
}

fn for_user(by: &User) -> Rpc {
    Rpc::new().user(by.id, &by.email)
}

fn named(category: &str, id: &EventId) -> wire::EventRef {
    wire::EventRef { id: id.to_string(), category: category.to_owned() }
}

impl Calls {
    pub(super) fn new(mesh: Mesh) -> Self {
        Self { mesh, watch: watch::Metrics::new(&Registry::new()) }
    }

    pub(super) async fn schedule(&self, by: &User, event: wire::NewEvent) -> Result<wire::Stored, CallError> {
        let request = wire::ScheduleRequest { events: vec![event], forwarded: false };
        let ask = |line| {
            let request = request.clone();
            async move { client(line).schedule(request).await }
        };
        let results = self.mesh.rpc(EVENTS, for_user(by).idempotent(), ask).await?;
        match results.results.into_iter().next().and_then(|result| result.result) {
            Some(event_result::Result::Stored(stored)) => Ok(stored),
            Some(event_result::Result::Problem(problem)) => Err(refused(problem)),
            None => Err(CallError::Broken { service: EVENTS, why: "no result for an event".to_owned() }),
        }
    }

    pub(super) async fn cancel(&self, by: &User, id: &EventId) -> Result<wire::Event, CallError> {
        let request = wire::CancelRequest { event: Some(named(CATEGORY, id)), forwarded: false };
        let ask = |line| {
            let request = request.clone();
            async move { client(line).cancel(request).await }
        };
        self.mesh.rpc(EVENTS, for_user(by), ask).await
    }

    pub(super) async fn reschedule(&self, by: &User, id: &EventId, to: Timestamp) -> Result<wire::Event, CallError> {
        let (event, fire_at_us) = (Some(named(CATEGORY, id)), to.as_micros());
        let request = wire::RescheduleRequest { event, fire_at_us, forwarded: false };
        let ask = |line| {
            let request = request.clone();
            async move { client(line).reschedule(request).await }
        };
        self.mesh.rpc(EVENTS, for_user(by).idempotent(), ask).await
    }

    /// What waits of a user, soonest first.
    pub(super) async fn list(&self, by: &User, cursor: String, limit: u32) -> Result<wire::ListReply, CallError> {
        let (category, key) = (CATEGORY.to_owned(), Some(by.id.to_string()));
        let request = wire::ListRequest { category, cursor, limit, key };
        let ask = |line| {
            let request = request.clone();
            async move { client(line).list(request).await }
        };
        self.mesh.rpc(EVENTS, for_user(by).idempotent(), ask).await
    }

    pub(super) async fn find(&self, category: &str, id: &EventId) -> Result<Option<wire::Event>, CallError> {
        let request = named(category, id);
        let ask = |line| {
            let request = request.clone();
            async move { client(line).get(request).await }
        };
        match self.mesh.rpc(EVENTS, Rpc::new().idempotent(), ask).await {
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
        let request = wire::ReadRequest { category: CATEGORY.to_owned(), after, limit };
        let ask = |line| {
            let request = request.clone();
            async move { client(line).read(request).await }
        };
        self.mesh.rpc(EVENTS, Rpc::new().idempotent(), ask).await
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
            async move { client(line).append(request).await }
        };
        self.mesh.rpc(EVENTS, Rpc::new().idempotent(), ask).await.map(drop)
    }

    async fn listen(&self, bell: Arc<Notify>, over: CancellationToken) {
        let (watching, mut watch) = Watching::start(&self.mesh, self.watch.clone(), &Handle::current());
        watch.follow(&Category::parse(CATEGORY).expect("it is a name"));
        while let Some(Some(_)) = over.run_until_cancelled(watch.next()).await {
            bell.notify_one();
        }
        watching.stop().await;
    }
}

/// Of Read.
const PAGE_MAX: usize = 1_000;

/// One item's refusal, as that of a whole call.
fn refused(problem: wire::Problem) -> CallError {
    let wire::Problem { status, code, detail } = problem;
    let status = u16::try_from(status).unwrap_or(500);
    let title = "Refused".to_owned();
    CallError::Refused(Box::new(Problem { success: false, status, title, code, detail, request_id: None }), None)
}

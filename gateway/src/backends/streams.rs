//! What listeners need of the events service: where categories stand, and their logs.
//!
//! Heads that are asked for at once share a call: a reconnect storm costs the service a few, not one per socket.

use notifyx_batch::{Batcher, Options};
use notifyx_chassis::{grpc::MESSAGE_BYTES_MAX, reply};
use notifyx_mesh::{CallError, Line, Mesh, Rpc};
use notifyx_model::Category;
use notifyx_wire::{
    grpc::events::{self as wire, events_client::EventsClient},
    rest::Problem,
};

use crate::{
    Error,
    platform::{CategoryHead, EventLog},
};

pub(crate) const EVENTS: &str = "events";

/// Heads in one call; the service's own bound is 10,000.
const HEADS_PER_CALL: usize = 1_000;
/// A node full of sockets may reconnect at once.
const HEADS_WAITING_MAX: usize = 100_000;

#[derive(Clone)]
pub(super) struct Streams {
    mesh: Mesh,
    heads: Batcher<Category, Result<CategoryHead, Problem>>,
}

impl Streams {
    /// Needs the shared runtime.
    pub(super) fn new(mesh: Mesh) -> Self {
        let options = Options {
            name: "heads",
            items_max: HEADS_PER_CALL,
            bytes_max: HEADS_PER_CALL * Category::MAX_BYTES,
            queue_max: HEADS_WAITING_MAX,
            in_flight: 2,
        };
        let caller = mesh.clone();
        let weigh = |category: &Category| category.as_str().len();
        Self { mesh, heads: Batcher::start(options, weigh, move |categories| heads_of_all(caller.clone(), categories)) }
    }

    pub(super) fn waiting(&self) -> usize {
        self.heads.queued()
    }

    pub(super) async fn close(&self) {
        self.heads.close().await;
    }
}

/// For listeners.
impl super::Backends {
    pub(crate) async fn category_head(&self, category: &Category) -> Result<CategoryHead, Problem> {
        match self.streams.heads.submit(category.clone()).await {
            Ok(head) => head,
            Err(rejected) => Err(reply::problem(&Error::from(rejected))),
        }
    }

    pub(crate) async fn category_heads(&self, categories: Vec<Category>) -> Result<Vec<CategoryHead>, CallError> {
        heads(&self.streams.mesh, categories).await
    }

    pub(crate) async fn event_log(&self, category: &Category, after: u64, limit: u32) -> Result<EventLog, CallError> {
        let request = wire::ReadRequest { category: category.to_string(), after, limit };
        let read = |line| {
            let request = request.clone();
            async move { client(line).read(request).await }
        };
        let wire::ReadReply { events, head, oldest } = self.streams.mesh.rpc(EVENTS, terms(), read).await?;
        Ok(EventLog { events, offset: head, trimmed: oldest.saturating_sub(1) })
    }
}

async fn heads_of_all(mesh: Mesh, categories: Vec<Category>) -> Vec<Result<CategoryHead, Problem>> {
    let count = categories.len();
    match heads(&mesh, categories).await {
        Ok(heads) => heads.into_iter().map(Ok).collect(),
        Err(error) => vec![Err(reply::problem(&error)); count],
    }
}

/// In the order asked.
async fn heads(mesh: &Mesh, categories: Vec<Category>) -> Result<Vec<CategoryHead>, CallError> {
    let request = wire::HeadsRequest { categories: categories.iter().map(ToString::to_string).collect() };
    let ask = |line| {
        let request = request.clone();
        async move { client(line).heads(request).await }
    };
    let heads = mesh.rpc(EVENTS, terms(), ask).await?.heads;
    if heads.len() != categories.len() {
        let why = format!("{} heads for {} categories", heads.len(), categories.len());
        return Err(CallError::Broken { service: EVENTS, why });
    }
    let head = |(category, head): (Category, wire::Head)| CategoryHead {
        category,
        offset: head.offset,
        trimmed: head.oldest.saturating_sub(1),
    };
    Ok(categories.into_iter().zip(heads).map(head).collect())
}

fn terms() -> Rpc {
    Rpc::new().idempotent()
}

fn client(line: Line) -> EventsClient<Line> {
    EventsClient::new(line).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

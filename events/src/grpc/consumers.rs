//! `Consumers`: who follows a log, and how far it has come.

use std::{sync::Arc, time::Duration};

use notifyx_model::{Category, Invalid};
use notifyx_wire::grpc::events::{self as wire, consumers_server};
use tonic::{Request, Response, Status, async_trait};

use super::{Desk, refuse};
use crate::{
    Events,
    consumer::{Consumer, ConsumerName, Holder},
};

/// A round trip on a slow day, or nobody could prolong what it has.
const LEASE_MIN: Duration = Duration::from_millis(100);

/// As long as the category stands when its holder is lost.
const LEASE_MAX: Duration = Duration::from_secs(60);

#[async_trait]
impl consumers_server::Consumers for Desk {
    async fn acquire(&self, request: Request<wire::AcquireRequest>) -> Result<Response<wire::Consumer>, Status> {
        let wire::AcquireRequest { consumer, category, holder, lease_us } = request.into_inner();
        let (name, holder) = (ConsumerName::parse(&consumer).map_err(refuse)?, Holder::parse(&holder).map_err(refuse)?);
        let (category, span) = (Category::parse(&category).map_err(refuse)?, lease(lease_us).map_err(refuse)?);
        let acquire = async move |rules: Arc<Events>| rules.consumers.acquire(&name, &category, &holder, span).await;
        self.ask(acquire).await.map(answer)
    }

    async fn commit(&self, request: Request<wire::CommitRequest>) -> Result<Response<wire::Consumer>, Status> {
        let wire::CommitRequest { consumer, epoch, position } = request.into_inner();
        let name = ConsumerName::parse(&consumer).map_err(refuse)?;
        self.ask(async move |rules: Arc<Events>| rules.consumers.commit(&name, epoch, position).await).await.map(answer)
    }

    async fn release(&self, request: Request<wire::ReleaseRequest>) -> Result<Response<wire::Consumer>, Status> {
        let wire::ReleaseRequest { consumer, epoch } = request.into_inner();
        let name = ConsumerName::parse(&consumer).map_err(refuse)?;
        self.ask(async move |rules: Arc<Events>| rules.consumers.release(&name, epoch).await).await.map(answer)
    }
}

fn lease(micros: i64) -> Result<Duration, Invalid> {
    let span = u64::try_from(micros).map(Duration::from_micros).ok();
    span.filter(|span| (LEASE_MIN..=LEASE_MAX).contains(span))
        .ok_or_else(|| Invalid::new("lease", format!("is {micros} µs, not between {LEASE_MIN:?} and {LEASE_MAX:?}")))
}

fn answer(consumer: Consumer) -> Response<wire::Consumer> {
    Response::new(wire::Consumer {
        name: consumer.name.as_str().to_owned(),
        category: consumer.category.to_string(),
        position: consumer.position,
        head: consumer.head,
        holder: consumer.holder,
        epoch: consumer.term,
        left_us: i64::try_from(consumer.left.as_micros()).unwrap_or(i64::MAX),
    })
}

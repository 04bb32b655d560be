//! `Schedules`: what recurs.

use std::sync::Arc;

use notifyx_chassis::reply;
use notifyx_model::EventId;
use notifyx_wire::grpc::events::{self as wire, schedules_server};
use tonic::{Request, Response, Status, async_trait};

use super::{Desk, convert, refuse, refuse_schedule};
use crate::{Error, Events, recurring::Recurring};

#[async_trait]
impl schedules_server::Schedules for Desk {
    async fn create(&self, request: Request<wire::NewSchedule>) -> Result<Response<wire::RecurringSchedule>, Status> {
        let origin = self.origin(&request)?;
        let new = convert::recurring(request.into_inner(), &origin).map_err(|error| reply::grpc(&error))?;
        answer(self.ask(async move |rules: Arc<Events>| rules.schedules.create(new).await).await?)
    }

    async fn get(&self, request: Request<wire::ScheduleRef>) -> Result<Response<wire::RecurringSchedule>, Status> {
        let id = named(&request)?;
        answer(self.ask(async move |rules: Arc<Events>| rules.schedules.get(&id).await).await?)
    }

    async fn list(
        &self,
        request: Request<wire::ListSchedulesRequest>,
    ) -> Result<Response<wire::ListSchedulesReply>, Status> {
        let wire::ListSchedulesRequest { category, cursor, limit } = request.into_inner();
        let page = convert::page(limit).map_err(refuse)?;
        let category = convert::category(&category).map_err(refuse)?;
        let after = convert::after(&cursor, EventId::parse).map_err(refuse)?;
        let list = async move |rules: Arc<Events>| {
            let (listed, next) = rules.schedules.list(category.as_ref(), after.as_ref(), page).await?;
            Ok((listed.into_iter().map(convert::recurring_schedule).collect::<Result<_, Error>>()?, next))
        };
        let (schedules, next) = self.ask(list).await?;
        let next = next.map(|id| id.to_string()).unwrap_or_default();
        Ok(Response::new(wire::ListSchedulesReply { schedules, next }))
    }

    async fn pause(&self, request: Request<wire::ScheduleRef>) -> Result<Response<wire::RecurringSchedule>, Status> {
        let id = named(&request)?;
        answer(self.ask(async move |rules: Arc<Events>| rules.schedules.pause(&id).await).await?)
    }

    async fn resume(&self, request: Request<wire::ScheduleRef>) -> Result<Response<wire::RecurringSchedule>, Status> {
        let id = named(&request)?;
        answer(self.ask(async move |rules: Arc<Events>| rules.schedules.resume(&id).await).await?)
    }

    async fn run_now(&self, request: Request<wire::RunNowRequest>) -> Result<Response<wire::Stored>, Status> {
        let wire::RunNowRequest { id, event_id } = request.into_inner();
        let id = EventId::parse(&id).map_err(refuse_schedule)?;
        let event = convert::id_or_new(&event_id, &self.clock).map_err(refuse)?;
        let run = async move |rules: Arc<Events>| rules.schedules.run_now(&id, Some(event)).await;
        Ok(Response::new(convert::stored(self.ask(run).await?)))
    }

    async fn delete(&self, request: Request<wire::ScheduleRef>) -> Result<Response<wire::RecurringSchedule>, Status> {
        let id = named(&request)?;
        answer(self.ask(async move |rules: Arc<Events>| rules.schedules.delete(&id).await).await?)
    }
}

fn named(request: &Request<wire::ScheduleRef>) -> Result<EventId, Status> {
    EventId::parse(&request.get_ref().id).map_err(refuse_schedule)
}

fn answer(recurring: Recurring) -> Result<Response<wire::RecurringSchedule>, Status> {
    convert::recurring_schedule(recurring).map(Response::new).map_err(|error| reply::grpc(&error))
}

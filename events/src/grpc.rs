//! The service's door: `proto/events.proto` over the rules. A call is decoded, one rule is asked, its answer is encoded.
//!
//! A call runs to its end even if its caller goes away, and ends in bounded time. On an instance that does not drive the schedule,
//! what changes the schedule is handed to the one that does, which knows of it at once.

mod consumers;
mod convert;
mod events;
mod forward;
mod schedules;
#[cfg(test)]
mod tests;
mod watch;

use std::{sync::Arc, time::Duration};

use notifyx_chassis::{
    Context, Shared,
    grpc::{self, MESSAGE_BYTES_MAX},
    reply,
};
use notifyx_mesh::Mesh;
use notifyx_model::{Clock, Fault, Invalid};
use notifyx_wire::grpc::{
    DESCRIPTORS,
    events::{consumers_server::ConsumersServer, events_server::EventsServer, schedules_server::SchedulesServer},
};
use tokio::time::timeout;
use tonic::{Request, Status};

use crate::{
    Error, Events,
    event::Owner,
    grpc::{convert::Origin, forward::Forward},
};

/// Of a request: 8 MiB of events at the front door may be somewhat longer here.
const REQUEST_BYTES_MAX: usize = 16 << 20;

/// All that a call waits for the store. With the 6 s of handing it on below the 30 s of the door, so that the answer says who was silent.
const ANSWER_MAX: Duration = Duration::from_secs(23);

/// All services. `others`: the way to the instances with which this one shares its database.
pub(crate) fn services(context: &Context, rules: Arc<Events>, others: Option<Mesh>) -> grpc::Services {
    let forward = others.map(|mesh| Forward::new(mesh, rules.clone()));
    let desk = Desk { rules: Shared::of(context, rules), clock: context.clock.clone(), forward };
    let events = EventsServer::new(desk.clone())
        .max_decoding_message_size(REQUEST_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let consumers = ConsumersServer::new(desk.clone());
    let schedules = SchedulesServer::new(desk)
        .max_decoding_message_size(REQUEST_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    grpc::Services::new(DESCRIPTORS).with(events).with(schedules).with(consumers)
}

/// What calls are answered from. Cheap to clone.
#[derive(Clone)]
struct Desk {
    rules: Shared<Events>,
    clock: Clock,
    /// `None`: no other instance has this database.
    forward: Option<Forward>,
}

impl Desk {
    /// What a rule says, in bounded time.
    async fn ask<T, F, Fut>(&self, rule: F) -> Result<T, Status>
    where
        T: Send + 'static,
        F: FnOnce(Arc<Events>) -> Fut,
        Fut: Future<Output = Result<T, Error>> + Send + 'static,
    {
        self.rules.run(|rules| in_time(rule(rules))).await.map_err(|error| reply::grpc(&error))
    }

    /// For whom a call is made.
    fn origin<T>(&self, request: &Request<T>) -> Result<Origin, Status> {
        let owner = match grpc::caller(request)?.user() {
            Ok(user) => Some(Owner::parse(&user.id.to_string()).map_err(refuse)?),
            Err(_) => None,
        };
        Ok(Origin { owner, clock: self.clock.clone() })
    }
}

/// What the store says, or that it said nothing in time.
async fn in_time<T>(asked: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    timeout(ANSWER_MAX, asked).await.unwrap_or(Err(Error::Silent))
}

/// What the door itself refuses.
fn refuse(refused: impl Into<convert::Refused>) -> Status {
    reply::grpc(&refused.into() as &dyn Fault)
}

/// As [`refuse`], of a recurring schedule.
fn refuse_schedule(invalid: Invalid) -> Status {
    reply::grpc(&Error::from(invalid))
}

//! What the gateway asks of the events service: typed calls, each for its user and with its deadline.
//!
//! Single events that come at once share a call. Events without an id get one here, so that a call may be repeated.

use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use notifyx_batch::{Batcher, Options, Rejected};
use notifyx_chassis::{User, grpc::MESSAGE_BYTES_MAX, reply};
use notifyx_mesh::{CallError, Line, Mesh, Rpc};
use notifyx_model::{Category, Clock, EventId};
use notifyx_wire::{
    grpc::events::{self as wire, events_client::EventsClient, schedules_client::SchedulesClient},
    rest::Problem,
};
use tokio::sync::Semaphore;
use tonic::{Response, Status};

use crate::{Error, backends::EVENTS};

/// An instance that does not drive the schedule asks the one that does first, for up to 5 s. Below the patience of clients: our own
/// command line waits 15 s.
const CHANGE_DEADLINE: Duration = Duration::from_secs(12);

/// A page of 4 MiB from a store that is busy.
const READ_DEADLINE: Duration = Duration::from_secs(5);

/// Single events in one call: as many as make it cheap, few enough that the first does not wait for the last.
const SINGLES_PER_CALL: usize = 512;
/// Sixteen of the largest.
const SINGLES_BYTES: usize = 4 * 1024 * 1024;
/// Requests that may wait; beyond that they are answered 503 with Retry-After.
const SINGLES_WAITING_MAX: usize = 8_192;
/// Calls under way at once: the service commits the one while the other travels.
const SINGLES_IN_FLIGHT: usize = 4;

/// What stands around an event's data in a call.
const AROUND_BYTES: usize = 256;

/// Of arrays under way at once, in KiB: eight of the largest. Beyond that they are answered as single ones are.
const ARRAYS_KIB: usize = 64 * 1024;

/// What became of one event.
pub(crate) type Outcome = Result<wire::Stored, Problem>;

/// An event that came alone.
struct Single {
    by: Option<User>,
    event: wire::NewEvent,
}

#[derive(Clone)]
pub(crate) struct Events {
    mesh: Mesh,
    clock: Clock,
    singles: Batcher<Single, Outcome>,
    /// What arrays may still take, in KiB.
    arrays: Arc<Semaphore>,
}

impl Events {
    /// Needs the shared runtime.
    pub(super) fn new(mesh: Mesh, clock: Clock) -> Self {
        let options = Options {
            name: "events",
            items_max: SINGLES_PER_CALL,
            bytes_max: SINGLES_BYTES,
            queue_max: SINGLES_WAITING_MAX,
            in_flight: SINGLES_IN_FLIGHT,
        };
        let caller = mesh.clone();
        let singles = Batcher::start(
            options,
            |single: &Single| weight(&single.event),
            move |items| schedule_singles(caller.clone(), items),
        );
        Self { mesh, clock, singles, arrays: Arc::new(Semaphore::new(ARRAYS_KIB)) }
    }

    /// A result for each, in their order.
    pub(crate) async fn schedule(&self, by: Option<&User>, mut events: Vec<wire::NewEvent>) -> Vec<Outcome> {
        let named_here: Vec<bool> = events.iter_mut().map(|event| self.name(&mut event.id)).collect();
        let mut outcomes = match events.len() {
            0 => Vec::new(),
            1 => vec![self.schedule_single(by, events.remove(0)).await],
            _ => self.schedule_array(by, events).await,
        };
        for (outcome, named_here) in outcomes.iter_mut().zip(named_here) {
            if let Ok(stored) = outcome {
                // Nobody but us knows that id: an earlier try stored it, and its answer was lost.
                stored.duplicate &= !named_here;
            }
        }
        outcomes
    }

    async fn schedule_single(&self, by: Option<&User>, event: wire::NewEvent) -> Outcome {
        match self.singles.submit(Single { by: by.cloned(), event }).await {
            Ok(outcome) => outcome,
            Err(rejected) => Err(reply::problem(&Error::from(rejected))),
        }
    }

    async fn schedule_array(&self, by: Option<&User>, events: Vec<wire::NewEvent>) -> Vec<Outcome> {
        let kib = events.iter().map(weight).sum::<usize>().div_ceil(1024).min(ARRAYS_KIB);
        match self.arrays.try_acquire_many(u32::try_from(kib).expect("it is bounded")) {
            Ok(_place) => schedule_all(&self.mesh, by, events).await,
            Err(_) => vec![Err(reply::problem(&Error::from(Rejected::Full("arrays of events")))); events.len()],
        }
    }

    /// Whichever category has it where none is named.
    pub(crate) async fn get(&self, id: &EventId, category: Option<&Category>) -> Result<wire::Event, CallError> {
        let event = named(id, category);
        ask(&self.mesh, reading(), log, event, async |mut client, event| client.get(event).await).await
    }

    /// Not repeated: the second time would find it gone, and say so.
    pub(crate) async fn cancel(
        &self,
        by: Option<&User>,
        id: &EventId,
        category: &Category,
    ) -> Result<wire::Event, Error> {
        let request = wire::CancelRequest { event: Some(named(id, Some(category))), forwarded: false };
        let canceled =
            ask(&self.mesh, changing(by), log, request, async |mut client, request| client.cancel(request).await).await;
        canceled.map_err(|error| Error::of_change(error, "ask for the event to see whether it still waits"))
    }

    pub(crate) async fn reschedule(
        &self,
        by: Option<&User>,
        id: &EventId,
        category: &Category,
        fire_at_us: i64,
    ) -> Result<wire::Event, Error> {
        let event = Some(named(id, Some(category)));
        let request = wire::RescheduleRequest { event, fire_at_us, forwarded: false };
        let call = async |mut client: EventsClient<Line>, request| client.reschedule(request).await;
        let moved = ask(&self.mesh, changing(by).idempotent(), log, request, call).await;
        moved.map_err(|error| Error::of_change(error, "the same request may be sent again"))
    }

    /// What waits in a category, soonest first.
    pub(crate) async fn list(&self, request: wire::ListRequest) -> Result<wire::ListReply, CallError> {
        ask(&self.mesh, reading(), log, request, async |mut client, request| client.list(request).await).await
    }

    /// A category's log, by offset.
    pub(crate) async fn read(&self, request: wire::ReadRequest) -> Result<wire::ReadReply, CallError> {
        ask(&self.mesh, reading(), log, request, async |mut client, request| client.read(request).await).await
    }

    /// The holder of the lease knows; whoever is asked asks it.
    pub(crate) async fn queues(&self, request: wire::QueuesRequest) -> Result<wire::QueuesReply, CallError> {
        let terms = reading().deadline(CHANGE_DEADLINE);
        ask(&self.mesh, terms, log, request, async |mut client, request| client.queues(request).await).await
    }

    // What recurs.

    pub(crate) async fn create_schedule(
        &self,
        by: Option<&User>,
        mut new: wire::NewSchedule,
    ) -> Result<wire::RecurringSchedule, Error> {
        self.name(&mut new.id);
        let call = async |mut client: SchedulesClient<Line>, new| client.create(new).await;
        let created = ask(&self.mesh, changing(by).idempotent(), recurring, new, call).await;
        created.map_err(|error| Error::of_change(error, "with an `id` of yours the same request may be sent again"))
    }

    pub(crate) async fn find_schedule(&self, id: &EventId) -> Result<wire::RecurringSchedule, CallError> {
        let call = async |mut client: SchedulesClient<Line>, id| client.get(id).await;
        ask(&self.mesh, reading(), recurring, schedule_ref(id), call).await
    }

    pub(crate) async fn schedules(
        &self,
        request: wire::ListSchedulesRequest,
    ) -> Result<wire::ListSchedulesReply, CallError> {
        let call = async |mut client: SchedulesClient<Line>, request| client.list(request).await;
        ask(&self.mesh, reading(), recurring, request, call).await
    }

    pub(crate) async fn pause(&self, by: Option<&User>, id: &EventId) -> Result<wire::RecurringSchedule, Error> {
        let call = async |mut client: SchedulesClient<Line>, id| client.pause(id).await;
        let paused = ask(&self.mesh, changing(by).idempotent(), recurring, schedule_ref(id), call).await;
        paused.map_err(|error| Error::of_change(error, "the same request may be sent again"))
    }

    pub(crate) async fn resume(&self, by: Option<&User>, id: &EventId) -> Result<wire::RecurringSchedule, Error> {
        let call = async |mut client: SchedulesClient<Line>, id| client.resume(id).await;
        let resumed = ask(&self.mesh, changing(by).idempotent(), recurring, schedule_ref(id), call).await;
        resumed.map_err(|error| Error::of_change(error, "the same request may be sent again"))
    }

    /// Not repeated, as cancelling is not.
    pub(crate) async fn delete_schedule(
        &self,
        by: Option<&User>,
        id: &EventId,
    ) -> Result<wire::RecurringSchedule, Error> {
        let call = async |mut client: SchedulesClient<Line>, id| client.delete(id).await;
        let deleted = ask(&self.mesh, changing(by), recurring, schedule_ref(id), call).await;
        deleted.map_err(|error| Error::of_change(error, "ask for the schedule to see whether it is still there"))
    }

    /// `event_id`: the same again fires nothing twice.
    pub(crate) async fn run_now(
        &self,
        by: Option<&User>,
        id: &EventId,
        event_id: Option<&EventId>,
    ) -> Result<wire::Stored, Error> {
        let mut event_id = event_id.map(ToString::to_string).unwrap_or_default();
        let named_here = self.name(&mut event_id);
        let request = wire::RunNowRequest { id: id.to_string(), event_id };
        let call = async |mut client: SchedulesClient<Line>, request| client.run_now(request).await;
        let ran = ask(&self.mesh, changing(by).idempotent(), recurring, request, call).await;
        let mut stored =
            ran.map_err(|error| Error::of_change(error, "with an `eventId` of yours it may be sent again"))?;
        stored.duplicate &= !named_here;
        Ok(stored)
    }

    /// Posts that wait for a call, for a gauge.
    pub(crate) fn waiting(&self) -> usize {
        self.singles.queued()
    }

    pub(super) async fn close(&self) {
        self.singles.close().await;
    }

    /// Gives an id to what has none; whether it did.
    fn name(&self, id: &mut String) -> bool {
        let unnamed = id.is_empty();
        if unnamed {
            *id = EventId::new(&self.clock).to_string();
        }
        unnamed
    }
}

/// In memory, in bytes.
fn weight(event: &wire::NewEvent) -> usize {
    event.data.len() + AROUND_BYTES
}

async fn schedule_singles(mesh: Mesh, singles: Vec<Single>) -> Vec<Outcome> {
    let call = |by: Option<User>, events| {
        let mesh = mesh.clone();
        async move { schedule_all(&mesh, by.as_ref(), events).await }
    };
    by_user(singles, call).await
}

/// One call for each of the users that sent something: a call is made for one. The outcomes are in the order of what was sent.
async fn by_user<Fut: Future<Output = Vec<Outcome>>>(
    singles: Vec<Single>,
    schedule: impl Fn(Option<User>, Vec<wire::NewEvent>) -> Fut,
) -> Vec<Outcome> {
    let mut groups: Vec<(Option<User>, Vec<usize>, Vec<wire::NewEvent>)> = Vec::new();
    for (place, Single { by, event }) in singles.into_iter().enumerate() {
        match groups.iter_mut().find(|(user, ..)| *user == by) {
            Some((_, places, events)) => {
                places.push(place);
                events.push(event);
            }
            None => groups.push((by, vec![place], vec![event])),
        }
    }
    let calls = groups.into_iter().map(|(by, places, events)| {
        let outcomes = schedule(by, events);
        async move { places.into_iter().zip(outcomes.await).collect::<Vec<_>>() }
    });
    let mut placed: Vec<(usize, Outcome)> = join_all(calls).await.into_iter().flatten().collect();
    placed.sort_unstable_by_key(|(place, _)| *place);
    placed.into_iter().map(|(_, outcome)| outcome).collect()
}

/// Events that all have an id: the call may be repeated.
async fn schedule_all(mesh: &Mesh, by: Option<&User>, events: Vec<wire::NewEvent>) -> Vec<Outcome> {
    let count = events.len();
    let request = wire::ScheduleRequest { events, forwarded: false };
    let call = async |mut client: EventsClient<Line>, request| client.schedule(request).await;
    let answer = ask(mesh, changing(by).idempotent(), log, request, call).await.and_then(|answer| whole(answer, count));
    match answer {
        Ok(results) => results.into_iter().map(outcome).collect(),
        Err(error) => {
            let error = Error::of_change(
                error,
                "events with an `id` of yours may be posted again, others may then be there twice",
            );
            vec![Err(reply::problem(&error)); count]
        }
    }
}

fn whole(answer: wire::Results, count: usize) -> Result<Vec<wire::EventResult>, CallError> {
    match answer.results.len() {
        results if results == count => Ok(answer.results),
        results => Err(broken(format!("{results} results for {count} events"))),
    }
}

fn outcome(result: wire::EventResult) -> Outcome {
    match result.result {
        Some(wire::event_result::Result::Stored(stored)) if stored.event.is_some() => Ok(stored),
        Some(wire::event_result::Result::Problem(problem)) => Err(told(problem)),
        Some(wire::event_result::Result::Stored(_)) | None => {
            Err(reply::problem(&broken("a result that says nothing".to_owned())))
        }
    }
}

fn broken(why: String) -> CallError {
    CallError::Broken { service: EVENTS, why }
}

/// As problem+json says it.
fn told(problem: wire::Problem) -> Problem {
    let status = u16::try_from(problem.status).ok().filter(|status| (400..600).contains(status)).unwrap_or(500);
    reply::made(status, &problem.code, problem.detail)
}

/// The log and the schedule.
fn log(line: Line) -> EventsClient<Line> {
    EventsClient::new(line).max_decoding_message_size(MESSAGE_BYTES_MAX).max_encoding_message_size(MESSAGE_BYTES_MAX)
}

/// What recurs.
fn recurring(line: Line) -> SchedulesClient<Line> {
    SchedulesClient::new(line).max_decoding_message_size(MESSAGE_BYTES_MAX).max_encoding_message_size(MESSAGE_BYTES_MAX)
}

async fn ask<C, R, T, Fut>(
    mesh: &Mesh,
    terms: Rpc,
    client: impl Fn(Line) -> C,
    request: R,
    call: impl Fn(C, R) -> Fut,
) -> Result<T, CallError>
where
    R: Clone,
    Fut: Future<Output = Result<Response<T>, Status>>,
{
    mesh.rpc(EVENTS, terms, |line| call(client(line), request.clone())).await
}

fn named(id: &EventId, category: Option<&Category>) -> wire::EventRef {
    wire::EventRef { id: id.to_string(), category: category.map(ToString::to_string).unwrap_or_default() }
}

fn schedule_ref(id: &EventId) -> wire::ScheduleRef {
    wire::ScheduleRef { id: id.to_string() }
}

fn reading() -> Rpc {
    Rpc::new().deadline(READ_DEADLINE).idempotent()
}

fn changing(by: Option<&User>) -> Rpc {
    let terms = Rpc::new().deadline(CHANGE_DEADLINE);
    match by {
        Some(user) => terms.user(user.id, &user.email),
        None => terms,
    }
}

#[cfg(test)]
mod tests {
    use std::{future::ready, sync::Mutex};

    use notifyx_model::{Email, UserId};

    use super::*;

    fn single(by: Option<&User>, id: &str) -> Single {
        Single { by: by.cloned(), event: wire::NewEvent { id: id.into(), ..wire::NewEvent::default() } }
    }

    #[tokio::test]
    async fn single_events_of_a_user_share_a_call_and_each_gets_its_own_outcome() {
        let user = |name: &str| User {
            id: UserId::new(&Clock::system()),
            email: Email::parse(&format!("{name}@example.org")).unwrap(),
        };
        let (ann, bob) = (user("ann"), user("bob"));
        let singles = [(Some(&ann), "1"), (Some(&bob), "2"), (None, "3"), (Some(&ann), "4"), (Some(&bob), "bad")];
        let calls = Mutex::new(Vec::new());
        let call = |by: Option<User>, events: Vec<wire::NewEvent>| {
            let ids: Vec<String> = events.into_iter().map(|event| event.id).collect();
            calls.lock().unwrap().push((by.map(|user| user.email.to_string()), ids.join(" ")));
            let answer = |id: String| match id.as_str() {
                "bad" => Err(told(wire::Problem { status: 429, code: "busy".into(), detail: "later".into() })),
                _ => Ok(wire::Stored {
                    event: Some(wire::Event { id, ..wire::Event::default() }),
                    ..wire::Stored::default()
                }),
            };
            ready(ids.into_iter().map(answer).collect())
        };
        let outcomes = by_user(singles.map(|(by, id)| single(by, id)).into(), call).await;
        let told = |outcome: &Outcome| match outcome {
            Ok(stored) => stored.event.as_ref().unwrap().id.clone(),
            Err(problem) => format!("{} {}", problem.status, problem.detail),
        };
        assert_eq!(outcomes.iter().map(told).collect::<Vec<_>>(), ["1", "2", "3", "4", "429 later"]);
        let mut calls = calls.into_inner().unwrap();
        calls.sort_unstable();
        let of = |user: &User, ids: &str| (Some(user.email.to_string()), ids.to_owned());
        assert_eq!(calls, [(None, "3".to_owned()), of(&ann, "1 4"), of(&bob, "2 bad")]);
    }

    #[test]
    fn an_answer_that_says_nothing_is_no_success() {
        let results = vec![wire::EventResult::default()];
        assert!(whole(wire::Results { results: results.clone() }, 2).is_err());
        for result in whole(wire::Results { results }, 1).unwrap() {
            assert_eq!(outcome(result).unwrap_err().status, 500);
        }
        let empty = wire::event_result::Result::Stored(wire::Stored::default());
        assert_eq!(outcome(wire::EventResult { result: Some(empty) }).unwrap_err().status, 500);
    }
}

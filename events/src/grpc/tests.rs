//! The service as its callers see it: a real door on a free port, on SQLite.

mod watch;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures_util::{Stream, StreamExt, stream};
use notifyx_chassis::{Cluster, Context, Door, Running};
use notifyx_database::{Database, DatabaseUrl, testing};
use notifyx_mesh::{Mesh, MeshConfig};
use notifyx_model::{Clock, Secret};
use notifyx_wire::{
    grpc::{
        events::{
            self as wire, consumers_client::ConsumersClient, event_result, events_client::EventsClient,
            schedules_client::SchedulesClient, watch_reply,
        },
        refusal,
    },
    header,
};
use tempfile::TempDir;
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Status, Streaming, codegen::InterceptedService, service::Interceptor, transport::Channel};

use crate::{Config, Events, NAME, Work, store::MIGRATIONS};

const SECRET: &str = "cluster-secret";

/// Everything has to happen within it, however slow the machine is.
const PATIENCE: Duration = Duration::from_secs(120);

const SECOND_US: i64 = 1_000_000;

#[derive(Clone)]
struct Ours;

impl Interceptor for Ours {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert(header::CLUSTER_SECRET, SECRET.parse().unwrap());
        Ok(request)
    }
}

type Line = InterceptedService<Channel, Ours>;

struct Service {
    folder: TempDir,
    running: Running,
    events: EventsClient<Line>,
    schedules: SchedulesClient<Line>,
    consumers: ConsumersClient<Line>,
}

fn context() -> Context {
    Context {
        clock: Clock::system(),
        shutdown: CancellationToken::new(),
        runtime: tokio::runtime::Handle::current(),
        cluster: Cluster::new(Secret::new(SECRET)),
        discovery: Vec::new(),
    }
}

async fn open() -> Service {
    open_in(TempDir::new().unwrap()).await
}

async fn open_in(folder: TempDir) -> Service {
    open_as(folder, Config::default()).await
}

async fn open_as(folder: TempDir, config: Config) -> Service {
    let config = Config {
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        database: DatabaseUrl::sqlite(folder.path().join("events.db")),
        ..config
    };
    let running = crate::start(config, context()).await.unwrap();
    let channel = Channel::from_shared(format!("http://{}", running.address())).unwrap().connect().await.unwrap();
    Service {
        folder,
        running,
        events: EventsClient::with_interceptor(channel.clone(), Ours),
        schedules: SchedulesClient::with_interceptor(channel.clone(), Ours),
        consumers: ConsumersClient::with_interceptor(channel, Ours),
    }
}

/// By the service's clock.
fn now_us() -> i64 {
    Clock::system().now().as_micros()
}

fn event(id: &str, fire_at_us: i64) -> wire::NewEvent {
    wire::NewEvent {
        id: id.into(),
        category: "orders".into(),
        data: format!(r#"{{"of":"{id}"}}"#).into(),
        fire_at_us: Some(fire_at_us),
        ..wire::NewEvent::default()
    }
}

fn named(id: &str) -> wire::EventRef {
    wire::EventRef { id: id.into(), category: String::new() }
}

/// In words: `stored`, `duplicate`, or the code.
fn told(results: wire::Results) -> Vec<String> {
    let told = |result: wire::EventResult| match result.result.unwrap() {
        event_result::Result::Stored(stored) if stored.duplicate => "duplicate".to_owned(),
        event_result::Result::Stored(_) => "stored".to_owned(),
        event_result::Result::Problem(problem) => problem.code,
    };
    results.results.into_iter().map(told).collect()
}

fn code(status: &Status) -> (Code, String) {
    (status.code(), refusal(status).map_or_else(|| "foreign".to_owned(), |(problem, _)| problem.code))
}

impl Service {
    async fn schedule(&mut self, events: Vec<wire::NewEvent>) -> Vec<String> {
        let request = wire::ScheduleRequest { events, forwarded: false };
        told(self.events.schedule(request).await.unwrap().into_inner())
    }

    async fn append(&mut self, ids: impl Iterator<Item = String>) {
        let events: Vec<_> = ids.map(|id| event(&id, 0)).collect();
        let results = self.events.append_many(wire::AppendManyRequest { events }).await.unwrap().into_inner();
        assert!(told(results).iter().all(|word| word == "stored"));
    }

    async fn log(&mut self) -> Vec<wire::Event> {
        let read = wire::ReadRequest { category: "orders".into(), after: 0, limit: 1_000 };
        self.events.read(read).await.unwrap().into_inner().events
    }

    async fn watch(&mut self, changes: impl Stream<Item = wire::WatchRequest> + Send + 'static) -> Watching {
        Watching(self.events.watch(changes).await.unwrap().into_inner())
    }

    /// Stops in order, and leaves what is kept.
    async fn stop(self) -> TempDir {
        drop((self.events, self.schedules));
        self.running.stop().await;
        self.folder
    }
}

struct Watching(Streaming<wire::WatchReply>);

impl Watching {
    async fn next(&mut self) -> watch_reply::News {
        let next = timeout(PATIENCE, self.0.message()).await.expect("something is to come").unwrap();
        next.unwrap().news.unwrap()
    }

    async fn followed(&mut self) -> (u64, bool) {
        let watch_reply::News::Followed(followed) = self.next().await else { panic!("not yet") };
        (followed.head.unwrap().offset, followed.recovered)
    }

    /// The next so many.
    async fn events(&mut self, count: usize) -> Vec<wire::Event> {
        let mut events = Vec::new();
        while events.len() < count {
            match self.next().await {
                watch_reply::News::Appended(appended) => events.extend(appended.events),
                other => panic!("no events: {other:?}"),
            }
        }
        assert_eq!(events.len(), count);
        events
    }
}

fn follow(after: Option<u64>) -> wire::WatchRequest {
    wire::WatchRequest { follow: vec![wire::Follow { category: "orders".into(), after }], unfollow: Vec::new() }
}

fn only(change: wire::WatchRequest) -> impl Stream<Item = wire::WatchRequest> + Send + 'static {
    stream::iter([change]).chain(stream::pending())
}

fn offsets(events: &[wire::Event]) -> Vec<u64> {
    events.iter().map(|event| event.offset.unwrap()).collect()
}

fn ids(events: &[wire::Event]) -> Vec<&str> {
    events.iter().map(|event| event.id.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_scheduled_fires_once_and_every_watcher_sees_it() {
    let mut service = open().await;
    let mut one = service.watch(only(follow(None))).await;
    let mut other = service.watch(only(follow(Some(0)))).await;
    assert_eq!((one.followed().await, other.followed().await), ((0, true), (0, true)));
    let soon = now_us() + 50_000;
    assert_eq!(service.schedule(vec![event("b", soon + 1), event("a", soon)]).await, ["stored", "stored"]);
    assert_eq!(service.schedule(vec![event("a", soon + 60 * SECOND_US)]).await, ["duplicate"]);
    for watching in [&mut one, &mut other] {
        let seen = watching.events(2).await;
        assert_eq!((ids(&seen), offsets(&seen)), (vec!["a", "b"], vec![1, 2]));
        assert_eq!(seen[0].data, r#"{"of":"a"}"#);
        assert!(seen.iter().all(|event| event.fired_at_us.unwrap() >= event.fire_at_us), "never early");
    }
    assert_eq!(ids(&service.log().await), ["a", "b"]);
    let stored = service.events.append(wire::AppendRequest { event: Some(event("c", 0)) }).await.unwrap().into_inner();
    assert_eq!(stored.event.unwrap().offset, Some(3));
    assert_eq!(ids(&one.events(1).await), ["c"], "a and b came once");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_good_ones_of_a_mixed_batch_are_kept() {
    let mut service = open().await;
    let later = now_us() + 3_600 * SECOND_US;
    let mut bad = [event("", later), event("no time", later), event("x", later), event("y", -1), event("z", i64::MAX)];
    bad[0].category = "a/b".into();
    bad[2].fire_at_us = None;
    let mut batch = vec![event("good", later)];
    batch.extend(bad);
    batch.push(event("good", later));
    let refused = "event_invalid";
    assert_eq!(service.schedule(batch).await, ["stored", refused, refused, refused, refused, refused, "duplicate"]);
    let list = service.events.list(wire::ListRequest::default()).await.unwrap().into_inner();
    assert_eq!((ids(&list.events), list.next.as_str()), (vec!["good"], ""));
    for events in [Vec::new(), vec![event("many", later); 10_001]] {
        let request = wire::ScheduleRequest { events, forwarded: false };
        let refused = service.events.schedule(request).await.unwrap_err();
        assert_eq!(code(&refused), (Code::InvalidArgument, "too_many_events".into()));
    }
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_can_be_moved_and_cancelled_and_what_fired_cannot() {
    let mut service = open().await;
    let later = now_us() + 3_600 * SECOND_US;
    assert_eq!(service.schedule(vec![event("a", later), event("b", later)]).await, ["stored", "stored"]);
    let request = wire::CancelRequest { event: Some(named("b")), forwarded: false };
    assert_eq!(service.events.cancel(request.clone()).await.unwrap().into_inner().fire_at_us, later);
    let gone = service.events.cancel(request).await.unwrap_err();
    assert_eq!(code(&gone), (Code::NotFound, "event_not_found".into()));

    let mut watching = service.watch(only(follow(None))).await;
    watching.followed().await;
    let too_far = wire::RescheduleRequest { event: Some(named("a")), fire_at_us: i64::MAX, forwarded: false };
    let refused = service.events.reschedule(too_far).await.unwrap_err();
    assert_eq!(code(&refused), (Code::InvalidArgument, "event_invalid".into()));
    let now = wire::RescheduleRequest { event: Some(named("a")), fire_at_us: 1, forwarded: false };
    assert_eq!(service.events.reschedule(now).await.unwrap().into_inner().fire_at_us, 1);
    assert_eq!(ids(&watching.events(1).await), ["a"], "a time that has passed fires at once");
    let late = wire::CancelRequest { event: Some(named("a")), forwarded: false };
    let refused = service.events.cancel(late).await.unwrap_err();
    assert_eq!(code(&refused), (Code::FailedPrecondition, "event_fired".into()));
    let fired = service.events.get(named("a")).await.unwrap().into_inner();
    assert_eq!((fired.offset, fired.fired_at_us.is_some()), (Some(1), true));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_fires_what_is_overdue_and_nothing_twice() {
    let mut service = open().await;
    let mut watching = service.watch(only(follow(None))).await;
    watching.followed().await;
    service.append(std::iter::once("before".to_owned())).await;
    assert_eq!(ids(&watching.events(1).await), ["before"]);
    // Far enough that the service has stopped by then, on most machines; where it has not, it fires before it stops.
    let due = now_us() + 2 * SECOND_US;
    service.schedule((0..50).map(|n| event(&format!("e{n}"), due)).collect()).await;
    let folder = service.stop().await;
    while now_us() < due {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut service = open_in(folder).await;
    let mut watching = service.watch(only(follow(Some(1)))).await;
    let (head, recovered) = watching.followed().await;
    assert!(recovered, "at {head}");
    let seen = watching.events(50).await;
    assert_eq!(offsets(&seen), (2..=51).collect::<Vec<_>>());
    assert_eq!(service.log().await.len(), 51);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_come_in_pages() {
    let mut service = open().await;
    let later = now_us() + 3_600 * SECOND_US;
    service.schedule((0..7).map(|n| event(&format!("e{n}"), later + n % 3)).collect()).await;
    let mut request = wire::ListRequest { category: "orders".into(), limit: 3, ..wire::ListRequest::default() };
    let mut seen = Vec::new();
    for size in [3, 3, 1] {
        let page = service.events.list(request.clone()).await.unwrap().into_inner();
        assert_eq!(page.events.len(), size);
        seen.extend(page.events.into_iter().map(|event| event.id));
        request.cursor = page.next;
    }
    assert_eq!(
        (seen, request.cursor),
        (["e0", "e3", "e6", "e1", "e4", "e2", "e5"].map(str::to_owned).into(), String::new())
    );
    for (cursor, limit, refused) in [("x", 0, "cursor_invalid"), ("", 1_001, "page_invalid")] {
        let request = wire::ListRequest { cursor: cursor.into(), limit, ..wire::ListRequest::default() };
        let status = service.events.list(request).await.unwrap_err();
        assert_eq!(code(&status), (Code::InvalidArgument, refused.into()));
    }
    let queues = service.events.queues(wire::QueuesRequest::default()).await.unwrap().into_inner();
    assert_eq!((queues.queues.len(), queues.next.as_str()), (1, ""));
    let queue = &queues.queues[0];
    assert_eq!((queue.size + queue.backlog, queue.capacity, queue.fired), (7, 1_000, 0));
    let heads = wire::HeadsRequest { categories: vec!["orders".into(), "unused".into()] };
    let heads = service.events.heads(heads).await.unwrap().into_inner().heads;
    assert_eq!(heads.iter().map(|head| (head.offset, head.oldest)).collect::<Vec<_>>(), [(0, 1), (0, 1)]);
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recurring_schedule_is_made_paused_run_by_hand_and_deleted() {
    use wire::new_schedule::Rule;
    let mut service = open().await;
    let ten_years = 3_653 * 86_400 * SECOND_US;
    let new = |rule| wire::NewSchedule {
        id: "daily".into(),
        category: "orders".into(),
        rule: Some(rule),
        ..wire::NewSchedule::default()
    };
    let made = service.schedules.create(new(Rule::EveryUs(ten_years))).await.unwrap().into_inner();
    let rule = made.rule.clone().unwrap();
    assert_eq!((rule.on_missed(), rule.rule), (wire::OnMissed::FireLast, Some(Rule::EveryUs(ten_years))));
    assert_eq!((rule.data, rule.priority), ("null".into(), Some(4)));
    assert_eq!(made.next_at_us, Some(made.created_at_us + ten_years));
    let again = service.schedules.create(new(Rule::EveryUs(ten_years))).await.unwrap().into_inner();
    assert_eq!(again.created_at_us, made.created_at_us, "the same schedule");
    let cron = wire::Cron { expression: "0 9 * * MON-FRI".into(), time_zone: "Europe/Berlin".into() };
    let other = service.schedules.create(new(Rule::Cron(cron.clone()))).await.unwrap_err();
    assert_eq!(code(&other), (Code::AlreadyExists, "schedule_mismatch".into()));
    let nowhere = wire::Cron { time_zone: "Mars/Olympus".into(), ..cron.clone() };
    for bad in [Rule::EveryUs(ten_years + 1), Rule::EveryUs(0), Rule::Cron(nowhere)] {
        let refused = service.schedules.create(new(bad)).await.unwrap_err();
        assert_eq!(code(&refused), (Code::InvalidArgument, "schedule_invalid".into()));
    }

    let id = || wire::ScheduleRef { id: "daily".into() };
    let paused = service.schedules.pause(id()).await.unwrap().into_inner();
    assert_eq!((paused.paused, paused.next_at_us), (true, None));
    let run = wire::RunNowRequest { id: "daily".into(), event_id: "by-hand".into() };
    let stored = service.schedules.run_now(run.clone()).await.unwrap().into_inner();
    let fired = stored.event.unwrap();
    assert_eq!((fired.schedule_id.as_deref(), fired.offset, stored.duplicate), (Some("daily"), Some(1), false));
    assert!(service.schedules.run_now(run).await.unwrap().into_inner().duplicate);
    assert!(!service.schedules.resume(id()).await.unwrap().into_inner().paused);

    let daily = wire::NewSchedule { id: "cron".into(), ..new(Rule::Cron(cron.clone())) };
    let daily = service.schedules.create(daily).await.unwrap().into_inner().rule.unwrap();
    assert_eq!(daily.rule, Some(Rule::Cron(cron)));
    let page = wire::ListSchedulesRequest { limit: 1, ..wire::ListSchedulesRequest::default() };
    let first = service.schedules.list(page.clone()).await.unwrap().into_inner();
    assert_eq!((first.schedules.len(), first.next.as_str()), (1, "cron"));
    let page = wire::ListSchedulesRequest { cursor: first.next, limit: 10, ..page };
    let last = service.schedules.list(page).await.unwrap().into_inner();
    assert_eq!((last.schedules[0].rule.as_ref().unwrap().id.as_str(), last.next.as_str()), ("daily", ""));
    service.schedules.delete(id()).await.unwrap();
    let gone = service.schedules.get(id()).await.unwrap_err();
    assert_eq!(code(&gone), (Code::NotFound, "schedule_not_found".into()));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_door_shows_how_the_service_is() {
    let mut service = open().await;
    service.append(std::iter::once("a".to_owned())).await;
    let (http, base) = (reqwest::Client::new(), format!("http://{}", service.running.address()));
    assert_eq!(http.get(format!("{base}/ready")).send().await.unwrap().status(), 200);
    let metrics = http.get(format!("{base}/metrics")).send().await.unwrap().text().await.unwrap();
    for shown in [
        r#"notifyx_events_batches_total{act="append"} 1"#,
        r#"notifyx_events_written_total{act="append"} 1"#,
        "notifyx_events_lateness_seconds_count 0",
        "notifyx_events_lease_held",
        r#"notifyx_queued{queue="writes"} 0"#,
    ] {
        assert!(metrics.contains(shown), "{shown} in {metrics}");
    }
    let status = http.get(format!("{base}/status")).header(header::CLUSTER_SECRET, SECRET).send().await.unwrap();
    assert!(status.text().await.unwrap().contains("late_ms_mean"));
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_is_listed_by_what_it_is_about() {
    let mut service = open().await;
    let later = now_us() + 3_600 * SECOND_US;
    let about = |id: &str, key: &str, more| wire::NewEvent { key: Some(key.into()), ..event(id, later + more) };
    service.schedule(vec![about("a", "x", 2), about("b", "y", 1), about("c", "x", 1), event("d", later)]).await;
    let (category, key) = ("orders".to_owned(), Some("x".to_owned()));
    let mut request = wire::ListRequest { category, key, limit: 1, ..wire::ListRequest::default() };
    for id in ["c", "a"] {
        let page = service.events.list(request.clone()).await.unwrap().into_inner();
        assert_eq!(ids(&page.events), [id]);
        request.cursor = page.next;
    }
    request.category.clear();
    let status = service.events.list(request).await.unwrap_err();
    assert_eq!(code(&status), (Code::InvalidArgument, "event_invalid".into()), "of which category?");
    service.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_is_taken_moved_and_given_back() {
    let mut service = open().await;
    service.append((0..5).map(|n| n.to_string())).await;
    let acquire = |holder: &str, lease_us| wire::AcquireRequest {
        consumer: "mailer".into(),
        category: "orders".into(),
        holder: holder.into(),
        lease_us,
    };
    let taken = service.consumers.acquire(acquire("ann", 60 * SECOND_US)).await.unwrap().into_inner();
    assert_eq!((taken.holder.as_str(), taken.epoch, taken.position, taken.head), ("ann", 1, 0, 5));
    assert!(taken.left_us > 0 && taken.left_us <= 60 * SECOND_US);
    let other = service.consumers.acquire(acquire("bob", SECOND_US)).await.unwrap().into_inner();
    assert_eq!((other.holder.as_str(), other.epoch), ("ann", 1), "another's is no error");

    let commit = |consumer: &str, epoch, position| wire::CommitRequest { consumer: consumer.into(), epoch, position };
    let moved = service.consumers.commit(commit("mailer", 1, 3)).await.unwrap().into_inner();
    assert_eq!((moved.position, moved.head), (3, 5));
    let release = wire::ReleaseRequest { consumer: "mailer".into(), epoch: 1 };
    assert_eq!(service.consumers.release(release).await.unwrap().into_inner().left_us, 0);
    let next = service.consumers.acquire(acquire("bob", SECOND_US)).await.unwrap().into_inner();
    assert_eq!((next.holder.as_str(), next.epoch, next.position), ("bob", 2, 3));

    for (bad, refused) in [
        (commit("mailer", 1, 4), (Code::FailedPrecondition, "consumer_lost")),
        (commit("mailer", 2, 6), (Code::InvalidArgument, "event_invalid")),
        (commit("nobody", 1, 1), (Code::NotFound, "consumer_not_found")),
        (commit("", 1, 1), (Code::InvalidArgument, "event_invalid")),
    ] {
        let status = service.consumers.commit(bad).await.unwrap_err();
        assert_eq!(code(&status), (refused.0, refused.1.into()));
    }
    for (bad, refused) in [
        (acquire("ann", 0), (Code::InvalidArgument, "event_invalid")),
        (acquire("ann", -1), (Code::InvalidArgument, "event_invalid")),
        (acquire("", SECOND_US), (Code::InvalidArgument, "event_invalid")),
        (
            wire::AcquireRequest { category: "b".into(), ..acquire("a", SECOND_US) },
            (Code::FailedPrecondition, "consumer_elsewhere"),
        ),
    ] {
        let status = service.consumers.acquire(bad).await.unwrap_err();
        assert_eq!(code(&status), (refused.0, refused.1.into()));
    }
    service.stop().await;
}

/// One of two instances on a database, which drives only if its work is run.
async fn instance(database: &Database, others: Option<Mesh>) -> (Running, Arc<Events>, Work) {
    let context = context();
    let (events, mut work) = Events::new(&Config::default(), database, &context.clock);
    work.alone = false;
    let events = Arc::new(events);
    let services = super::services(&context, events.clone(), others);
    let running = Door::new(NAME, &context).listen_grpc(services, ([127, 0, 0, 1], 0).into()).await.unwrap();
    (running, events, work)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_instance_without_the_lease_is_given_its_holder_knows_at_once() {
    let kept = testing::sqlite(&MIGRATIONS).await;
    let (holder, driving, work) = instance(&kept.database, None).await;
    let (address, stop) = (holder.address().to_string(), CancellationToken::new());
    let working = tokio::spawn(work.run(address.clone(), stop.clone()));
    let driven = async {
        while !driving.plan.drives() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, driven).await.expect("it drives");

    let metrics = prometheus::Registry::new();
    let mesh = Mesh::fixed(&MeshConfig::default(), &[(NAME, address)], Secret::new(SECRET), Clock::system(), &metrics);
    let (running, given, _work) = instance(&kept.database, Some(mesh)).await;
    let channel = Channel::from_shared(format!("http://{}", running.address())).unwrap().connect().await.unwrap();
    let mut client = EventsClient::with_interceptor(channel, Ours);
    let later = now_us() + 3_600 * SECOND_US;
    let mut schedule = async |ids: &[&str]| {
        let events = ids.iter().map(|id| event(id, later)).collect();
        let results = client.schedule(wire::ScheduleRequest { events, forwarded: false }).await.unwrap().into_inner();
        (told(results), client.clone())
    };
    let (stored, mut client_too) = schedule(&["a", "", "a"]).await;
    assert_eq!(stored, ["stored", "stored", "duplicate"]);
    assert!(!given.plan.drives());
    assert_eq!(driving.plan.held(), 2, "told by the call itself");
    let queues = client_too.queues(wire::QueuesRequest::default()).await.unwrap().into_inner().queues;
    assert_eq!((queues[0].size, queues[0].backlog), (2, 0), "as the holder sees it");
    client_too.cancel(wire::CancelRequest { event: Some(named("a")), forwarded: false }).await.unwrap();
    assert_eq!(driving.plan.held(), 1);
    let again = client_too.cancel(wire::CancelRequest { event: Some(named("a")), forwarded: false }).await.unwrap_err();
    assert_eq!(code(&again), (Code::NotFound, "event_not_found".into()), "the holder's own word");

    // Its door is gone, and its lease is not over: the call is served where it came.
    holder.stop().await;
    assert_eq!(schedule(&["b", ""]).await.0, ["stored", "stored"]);
    drop((client_too, client));
    stop.cancel();
    working.await.unwrap();
    running.stop().await;
}

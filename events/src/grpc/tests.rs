//! The service as its callers see it: a real door on a free port, on SQLite.

mod consumers;
mod instances;
mod recurring;
mod schedule;
mod watch;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use futures_util::{Stream, StreamExt, stream};
use notifyx_chassis::{Cluster, Context, Door, Running};
use notifyx_database::{Database, DatabaseUrl};
use notifyx_mesh::Mesh;
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

use crate::{Config, Events, NAME, Work};

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

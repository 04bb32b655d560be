use std::{pin::Pin, sync::Arc, time::Duration};

use futures_util::{Stream, StreamExt, stream};
use notifyx_model::{Clock, Email, Secret, UserId};
use notifyx_wire::{
    grpc::{
        DESCRIPTORS,
        events::{
            AppendManyRequest, AppendRequest, CancelRequest, Event, EventRef, HeadsReply, HeadsRequest, ListReply,
            ListRequest, NewEvent, QueuesReply, QueuesRequest, ReadReply, ReadRequest, RescheduleRequest, Results,
            ScheduleRequest, Stored, WatchReply, WatchRequest,
            events_client::EventsClient,
            events_server::{Events, EventsServer},
            watch_reply::News,
        },
        refusal,
    },
    header,
    trace::TraceContext,
};
use prost::Message;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Notify,
    time::timeout,
};
use tonic::{Code, Request, Response, Status, Streaming, async_trait, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use super::*;
use crate::{Cluster, Context};

const SECRET: &str = "cluster-secret";
/// Far above what anything here takes, on any machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Answers an append with its caller; one to `held` when it is released. A watch says one thing and stays open.
#[derive(Clone, Default)]
struct Little {
    entered: Arc<Notify>,
    released: Arc<Notify>,
}

fn no<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("not here"))
}

#[async_trait]
impl Events for Little {
    async fn append(&self, request: Request<AppendRequest>) -> Result<Response<Stored>, Status> {
        let user = caller(&request)?.user().map_or_else(|_| "nobody".to_owned(), |user| user.email.to_string());
        let trace = TraceContext::current().map(TraceContext::request_id);
        let event = request.into_inner().event.unwrap_or_default();
        if event.category == "held" {
            self.entered.notify_one();
            self.released.notified().await;
        }
        let event = Event { id: user, key: trace, ..Event::default() };
        Ok(Response::new(Stored { event: Some(event), ..Stored::default() }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchReply, Status>> + Send>>;

    async fn watch(&self, _: Request<Streaming<WatchRequest>>) -> Result<Response<Self::WatchStream>, Status> {
        let first = WatchReply { news: Some(News::Heads(HeadsReply::default())) };
        Ok(Response::new(Box::pin(stream::iter([Ok(first)]).chain(stream::pending()))))
    }

    async fn append_many(&self, _: Request<AppendManyRequest>) -> Result<Response<Results>, Status> {
        no()
    }

    async fn schedule(&self, _: Request<ScheduleRequest>) -> Result<Response<Results>, Status> {
        no()
    }

    async fn cancel(&self, _: Request<CancelRequest>) -> Result<Response<Event>, Status> {
        no()
    }

    async fn reschedule(&self, _: Request<RescheduleRequest>) -> Result<Response<Event>, Status> {
        no()
    }

    async fn get(&self, _: Request<EventRef>) -> Result<Response<Event>, Status> {
        no()
    }

    async fn list(&self, _: Request<ListRequest>) -> Result<Response<ListReply>, Status> {
        no()
    }

    async fn read(&self, _: Request<ReadRequest>) -> Result<Response<ReadReply>, Status> {
        no()
    }

    async fn heads(&self, _: Request<HeadsRequest>) -> Result<Response<HeadsReply>, Status> {
        no()
    }

    async fn queues(&self, _: Request<QueuesRequest>) -> Result<Response<QueuesReply>, Status> {
        no()
    }
}

async fn open() -> (Running, Context, Channel) {
    open_with(&Little::default(), Patience::default()).await
}

async fn open_with(little: &Little, patience: Patience) -> (Running, Context, Channel) {
    let context = Context {
        clock: Clock::system(),
        shutdown: CancellationToken::new(),
        runtime: tokio::runtime::Handle::current(),
        cluster: Cluster::new(Secret::new(SECRET)),
        discovery: Vec::new(),
    };
    let services = Services::new(DESCRIPTORS).with(EventsServer::new(little.clone()));
    let door = Door::new("events", &context);
    let running = door.open_grpc(services, "127.0.0.1:0".parse().unwrap(), patience).unwrap();
    let channel = Channel::from_shared(format!("http://{}", running.address())).unwrap().connect().await.unwrap();
    (running, context, channel)
}

/// From a service of the cluster.
fn ours<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert(header::CLUSTER_SECRET, SECRET.parse().unwrap());
    request
}

fn append(category: &str) -> AppendRequest {
    AppendRequest { event: Some(NewEvent { category: category.into(), ..NewEvent::default() }) }
}

fn code(status: &Status) -> (Code, String) {
    let told = refusal(status).map_or_else(|| "foreign".to_owned(), |(problem, _)| problem.code);
    (status.code(), told)
}

#[tokio::test]
async fn a_call_needs_the_clusters_secret_and_may_name_a_user() {
    let (running, _, channel) = open().await;
    let mut events = EventsClient::new(channel);
    let refused = events.append(append("a")).await.unwrap_err();
    assert_eq!(code(&refused), (Code::Unauthenticated, "credentials_missing".into()));
    let mut wrong = Request::new(append("a"));
    wrong.metadata_mut().insert(header::CLUSTER_SECRET, "guess".parse().unwrap());
    let refused = events.append(wrong).await.unwrap_err();
    assert_eq!(code(&refused), (Code::Unauthenticated, "cluster_secret_invalid".into()));
    let refused = events.watch(stream::pending::<WatchRequest>()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "streams too");

    let said = |stored: Response<Stored>| stored.into_inner().event.unwrap();
    assert_eq!(said(events.append(ours(append("a"))).await.unwrap()).id, "nobody");
    let mut for_ann = ours(append("a"));
    let ann = (UserId::new(&Clock::system()), Email::parse("ann@example.org").unwrap());
    for_ann.metadata_mut().insert(header::ASSERTED_USER, format!("{} {}", ann.0, ann.1).parse().unwrap());
    let trace = TraceContext::begin();
    for_ann.metadata_mut().insert(header::TRACEPARENT, trace.to_string().parse().unwrap());
    let event = said(events.append(for_ann).await.unwrap());
    assert_eq!((event.id, event.key), ("ann@example.org".into(), Some(trace.request_id())));
    let mut nonsense = ours(append("a"));
    nonsense.metadata_mut().insert(header::ASSERTED_USER, "ann".parse().unwrap());
    let refused = events.append(nonsense).await.unwrap_err();
    assert_eq!(code(&refused), (Code::InvalidArgument, "header_invalid".into()));
    running.stop().await;
}

#[tokio::test]
async fn a_message_beyond_the_bound_is_refused() {
    let (running, _, channel) = open().await;
    let mut large = append("a");
    large.event.as_mut().unwrap().data = vec![b' '; 5 * 1024 * 1024].into();
    let refused = EventsClient::new(channel).append(ours(large)).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange, "{refused:?}");
    running.stop().await;
}

#[tokio::test]
async fn a_call_ends_by_its_deadline() {
    let (running, _, _) = open().await;
    // By hand: tonic's client would end the call itself.
    let message = append("held").encode_to_vec();
    let mut body = vec![0];
    body.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    body.extend(message);
    for (deadline, code) in [("50m", "4"), ("soon", "3")] {
        let call = reqwest::Client::new()
            .post(format!("http://{}/notifyx.events.v1.Events/Append", running.address()))
            .header("content-type", "application/grpc")
            .header("grpc-timeout", deadline)
            .header(header::CLUSTER_SECRET, SECRET)
            .body(body.clone());
        let answer = timeout(PATIENCE, call.send()).await.unwrap().unwrap();
        assert_eq!(answer.headers()["grpc-status"], code, "{deadline}");
    }
    running.stop().await;
}

#[tokio::test]
async fn probes_need_no_secret_and_see_what_ready_says() {
    let (running, context, channel) = open().await;
    let mut health = HealthClient::new(channel);
    let ask = |service: &str| HealthCheckRequest { service: service.into() };
    for service in ["", "notifyx.events.v1.Events"] {
        assert_eq!(health.check(ask(service)).await.unwrap().into_inner().status(), ServingStatus::Serving);
    }
    assert_eq!(health.check(ask("nobody")).await.unwrap_err().code(), Code::NotFound);
    let mut watch = health.watch(ask("")).await.unwrap().into_inner();
    assert_eq!(watch.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
    context.shutdown.cancel();
    assert_eq!(health.check(ask("")).await.unwrap().into_inner().status(), ServingStatus::NotServing);
    let told = timeout(PATIENCE, watch.message()).await.unwrap().unwrap().unwrap();
    assert_eq!(told.status(), ServingStatus::NotServing);
    running.stop().await;
}

#[tokio::test]
async fn reflection_lists_the_services() {
    let (running, _, channel) = open().await;
    let mut reflection = ServerReflectionClient::new(channel);
    let list = MessageRequest::ListServices(String::new());
    let request = ServerReflectionRequest { host: String::new(), message_request: Some(list) };
    let mut answers = reflection.server_reflection_info(ours(stream::iter([request]))).await.unwrap().into_inner();
    let Some(MessageResponse::ListServicesResponse(list)) = answers.message().await.unwrap().unwrap().message_response
    else {
        panic!("not a list");
    };
    let names: Vec<_> = list.service.into_iter().map(|service| service.name).collect();
    for expected in ["notifyx.events.v1.Events", "notifyx.events.v1.Schedules", "grpc.health.v1.Health"] {
        assert!(names.iter().any(|name| name == expected), "{expected} in {names:?}");
    }
    running.stop().await;
}

#[tokio::test]
async fn the_same_port_answers_plain_http() {
    let (running, context, channel) = open().await;
    let (http, base) = (reqwest::Client::new(), format!("http://{}", running.address()));
    EventsClient::new(channel.clone()).append(ours(append("a"))).await.unwrap();
    let unknown = http.post(format!("{base}/nobody.Knows/This")).header("content-type", "application/grpc");
    assert_eq!(unknown.send().await.unwrap().headers()["grpc-status"], "16", "a stranger learns nothing");
    let get = async |path: &str| http.get(format!("{base}{path}")).send().await.unwrap();
    let health: serde_json::Value = get("/health").await.json().await.unwrap();
    assert_eq!((&health["status"], &health["service"]), (&"up".into(), &"events".into()));
    assert_eq!(get("/ready").await.status(), 200);
    let metrics = get("/metrics").await.text().await.unwrap();
    let counted = r#"notifyx_grpc_calls_total{code="OK",method="/notifyx.events.v1.Events/Append"} 1"#;
    assert!(metrics.contains(counted), "{metrics}");
    assert!(metrics.contains(r#"{code="UNAUTHENTICATED",method="unmatched"} 1"#), "{metrics}");
    assert!(metrics.contains("notifyx_build_info"), "{metrics}");
    for path in ["/status", "/dashboard"] {
        assert_eq!(get(path).await.status(), 401, "{path}");
        let entered = http.get(format!("{base}{path}")).header(header::CLUSTER_SECRET, SECRET).send().await.unwrap();
        assert_eq!(entered.status(), 200, "{path}");
        let browser = http.get(format!("{base}{path}")).basic_auth("ops", Some(SECRET)).send().await.unwrap();
        assert_eq!(browser.status(), 200, "{path}");
    }
    let nothing = get("/api/topics").await;
    assert_eq!(
        (nothing.status().as_u16(), &nothing.headers()["content-type"]),
        (404, &"application/problem+json".parse().unwrap())
    );
    assert_eq!(http.post(format!("{base}/health")).send().await.unwrap().status(), 405);
    context.shutdown.cancel();
    assert_eq!(get("/ready").await.status(), 503);
    running.stop().await;
}

#[tokio::test]
async fn an_orderly_stop_ends_streams_and_lets_calls_finish() {
    let little = Little::default();
    let (running, _, channel) = open_with(&little, Patience { drain: PATIENCE, ..Patience::default() }).await;
    let address = running.address();
    let mut events = EventsClient::new(channel);
    let mut watch = events.watch(ours(stream::pending::<WatchRequest>())).await.unwrap().into_inner();
    assert!(watch.message().await.unwrap().is_some());
    let call = tokio::spawn(async move { events.append(ours(append("held"))).await });
    little.entered.notified().await;
    let stop = tokio::spawn(running.stop());
    let ended = watch.message().await.unwrap_err();
    assert_eq!(code(&ended), (Code::Unavailable, "stopping".into()));
    little.released.notify_one();
    assert_eq!(call.await.unwrap().unwrap().into_inner().event.unwrap().id, "nobody");
    timeout(PATIENCE, stop).await.unwrap().unwrap();
    assert!(TcpStream::connect(address).await.is_err(), "the port is free");
}

#[tokio::test]
async fn a_call_that_does_not_end_is_cut() {
    let little = Little::default();
    let soon = Patience { drain: Duration::from_millis(50), ..Patience::default() };
    let (running, _, channel) = open_with(&little, soon).await;
    let mut events = EventsClient::new(channel);
    let call = tokio::spawn(async move { events.append(ours(append("held"))).await });
    little.entered.notified().await;
    timeout(PATIENCE, running.stop()).await.unwrap();
    assert!(call.await.unwrap().is_err());
}

#[tokio::test]
async fn a_peer_that_does_not_say_which_http_it_speaks_is_sent_away() {
    let soon = Patience { first_bytes: Duration::from_millis(50), ..Patience::default() };
    let (running, _, _) = open_with(&Little::default(), soon).await;
    for said in ["", "P", "PRI * HTTP/2.0\r\n"] {
        let mut peer = TcpStream::connect(running.address()).await.unwrap();
        peer.write_all(said.as_bytes()).await.unwrap();
        let read = timeout(PATIENCE, peer.read(&mut [0; 64])).await.unwrap();
        assert!(matches!(read, Ok(0) | Err(_)), "{said:?}: {read:?}");
    }
    running.stop().await;
}

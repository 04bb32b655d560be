//! Calls over gRPC through real connections: the same turns, bounds and second tries as over HTTP.

use std::{convert::Infallible, future::pending, net::SocketAddr, time::Duration};

use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto::Builder,
};
use notifyx_mesh::{BreakerState, CallError, Line, Mesh, MeshConfig, Rpc};
use notifyx_model::{Clock, Email, Fault, InstanceId, Kind, UserId};
use notifyx_wire::{
    grpc::{
        self,
        events::{
            ListSchedulesReply, ListSchedulesRequest, NewSchedule, RecurringSchedule, RunNowRequest, ScheduleRef,
            Stored,
            schedules_client::SchedulesClient,
            schedules_server::{Schedules, SchedulesServer},
        },
    },
    header,
    rest::Problem,
};
use tokio::{net::TcpListener, task::JoinSet};
use tonic::{Code, Request, Response, Status, async_trait, codegen::Service, service::Routes};

use crate::support::{SECRET, breakers, fixed_address, mesh};

const UNREACHABLE: CallError = CallError::Unreachable { service: "persist" };
const TIMEOUT: CallError = CallError::Timeout { service: "persist" };

fn config() -> MeshConfig {
    MeshConfig { breaker_failures: 3, breaker_open_ms: 60_000, breaker_open_max_ms: 60_000, ..MeshConfig::default() }
}

/// What a peer does with a `get`; the rest it does not know.
#[derive(Clone, Copy)]
enum Peer {
    /// Answers its name and what came along.
    Says(&'static str),
    Refuses(Code, u16, Option<Duration>),
    Hangs,
}

fn no<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("not here"))
}

#[async_trait]
impl Schedules for Peer {
    async fn get(&self, request: Request<ScheduleRef>) -> Result<Response<RecurringSchedule>, Status> {
        match *self {
            Self::Says(name) => {
                let sent =
                    |name: &str| request.metadata().get(name).map(|value| value.to_str().unwrap_or("?").to_owned());
                let came = [header::CLUSTER_SECRET, header::ASSERTED_USER, header::TRACEPARENT, "grpc-timeout"];
                let rule = NewSchedule {
                    id: name.into(),
                    data: came.map(|name| sent(name).unwrap_or_default()).join("|").into(),
                    ..NewSchedule::default()
                };
                Ok(Response::new(RecurringSchedule { rule: Some(rule), ..RecurringSchedule::default() }))
            }
            Self::Refuses(code, status, wait) => {
                let (title, detail) = ("Refused".to_owned(), "no".to_owned());
                let problem = Problem { success: false, status, title, code: "so".into(), detail, request_id: None };
                Err(grpc::status(code, &problem, wait))
            }
            Self::Hangs => pending().await,
        }
    }

    async fn create(&self, _: Request<NewSchedule>) -> Result<Response<RecurringSchedule>, Status> {
        no()
    }

    async fn list(&self, _: Request<ListSchedulesRequest>) -> Result<Response<ListSchedulesReply>, Status> {
        no()
    }

    async fn pause(&self, _: Request<ScheduleRef>) -> Result<Response<RecurringSchedule>, Status> {
        no()
    }

    async fn resume(&self, _: Request<ScheduleRef>) -> Result<Response<RecurringSchedule>, Status> {
        no()
    }

    async fn run_now(&self, _: Request<RunNowRequest>) -> Result<Response<Stored>, Status> {
        no()
    }

    async fn delete(&self, _: Request<ScheduleRef>) -> Result<Response<RecurringSchedule>, Status> {
        no()
    }
}

impl Peer {
    /// Serves until the test ends.
    async fn start(self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let routes = Routes::new(SchedulesServer::new(self)).prepare();
        tokio::spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let routes = routes.clone();
                connections.spawn(async move {
                    let service = service_fn(move |request: hyper::Request<Incoming>| {
                        let mut routes = routes.clone();
                        async move { Ok::<_, Infallible>(routes.call(request).await.unwrap()) }
                    });
                    // How it ends is what tests look at from the other side.
                    let _ = Builder::new(TokioExecutor::new()).serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        address
    }
}

async fn get(line: Line) -> Result<Response<RecurringSchedule>, Status> {
    SchedulesClient::new(line).get(ScheduleRef { id: "a".into() }).await
}

async fn name(mesh: &Mesh, rpc: Rpc) -> Result<String, CallError> {
    mesh.rpc("persist", rpc, get).await.map(|answer| answer.rule.unwrap().id)
}

#[tokio::test]
async fn instances_take_turns_and_learn_who_calls() {
    let (mesh, _) = mesh(&config(), &[Peer::Says("one").start().await, Peer::Says("two").start().await]);
    let mut named = Vec::new();
    for _ in 0..4 {
        named.push(name(&mesh, Rpc::new()).await.unwrap());
    }
    named.sort();
    assert_eq!(named, ["one", "one", "two", "two"]);
    let (id, email) = (UserId::new(&Clock::system()), Email::parse("ann@example.org").unwrap());
    let rpc = Rpc::new().user(id, &email).deadline(Duration::from_secs(60));
    let rule = mesh.rpc("persist", rpc, get).await.unwrap().rule.unwrap();
    let came = String::from_utf8(rule.data.to_vec()).unwrap();
    let came: Vec<_> = came.split('|').collect();
    assert_eq!(came[..2], [SECRET, &format!("{id} {email}")]);
    assert!(came[2].starts_with("00-"), "{came:?}");
    assert!(came[3].strip_suffix('m').unwrap().parse::<u32>().unwrap() <= 60_000, "{came:?}");
}

#[tokio::test]
async fn a_refusal_keeps_its_kind_its_code_and_its_words() {
    let (mesh, _) = mesh(&config(), &[Peer::Refuses(Code::FailedPrecondition, 409, None).start().await]);
    for _ in 0..5 {
        let error = name(&mesh, Rpc::new().idempotent()).await.unwrap_err();
        assert_eq!((error.kind(), error.code(), error.to_string()), (Kind::Conflict, "so", "no".into()));
    }
    assert_eq!(breakers(&mesh), [BreakerState::Closed], "to say no is to be well");
}

#[tokio::test]
async fn one_that_is_full_and_says_when_to_come_back_is_alive() {
    let wait = Some(Duration::from_secs(2));
    let (mesh, _) = mesh(&config(), &[Peer::Refuses(Code::Unavailable, 503, wait).start().await]);
    for _ in 0..5 {
        let error = name(&mesh, Rpc::new()).await.unwrap_err();
        assert_eq!((error.kind(), error.retry_after()), (Kind::Unavailable, wait));
    }
    assert_eq!(breakers(&mesh), [BreakerState::Closed]);
}

#[tokio::test]
async fn what_was_never_sent_goes_elsewhere_and_opens_a_breaker() {
    let (mesh, _) = mesh(&config(), &[fixed_address(), Peer::Says("one").start().await]);
    for _ in 0..20 {
        assert_eq!(name(&mesh, Rpc::new()).await, Ok("one".into()));
    }
    assert!(breakers(&mesh).contains(&BreakerState::Open));
}

#[tokio::test]
async fn an_instance_that_hangs_leaves_time_for_another_if_that_does_no_harm() {
    let (mesh, _) = mesh(
        &MeshConfig { breaker_failures: 1_000, ..config() },
        &[Peer::Hangs.start().await, Peer::Says("well").start().await],
    );
    for _ in 0..2 {
        assert_eq!(name(&mesh, Rpc::new().idempotent()).await, Ok("well".into()));
    }
    let mut outcomes = Vec::new();
    for _ in 0..2 {
        outcomes.push(name(&mesh, Rpc::new().deadline(Duration::from_secs(1))).await);
    }
    assert!(outcomes.contains(&Err(TIMEOUT)), "{outcomes:?}");
}

#[tokio::test]
async fn a_very_instance_is_asked_and_no_other() {
    let (mesh, _) = mesh(&config(), &[Peer::Says("one").start().await, Peer::Says("two").start().await]);
    let there = mesh.instances("persist").next().await;
    assert_eq!(there.len(), 2);
    for peer in &there {
        let mut named = Vec::new();
        for _ in 0..3 {
            let answer = mesh.rpc_at("persist", peer.instance, Rpc::new(), get).await.unwrap();
            named.push(answer.rule.unwrap().id);
        }
        assert!(named.windows(2).all(|pair| pair[0] == pair[1]), "{named:?}");
    }
    let nobody = InstanceId::new(&Clock::system());
    assert_eq!(mesh.rpc_at("persist", nobody, Rpc::new(), get).await, Err(UNREACHABLE));
}

#[tokio::test]
async fn a_method_that_a_peer_does_not_know_is_told() {
    let (mesh, _) = mesh(&config(), &[Peer::Hangs.start().await]);
    let list = async |line| SchedulesClient::new(line).list(ListSchedulesRequest::default()).await;
    let error = mesh.rpc("persist", Rpc::new(), list).await.unwrap_err();
    assert!(matches!(error, CallError::Broken { .. }), "{error}");
}

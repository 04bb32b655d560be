//! The watch against a service that says what the test wants.

use std::{net::SocketAddr, time::Duration};

use futures_util::{StreamExt, stream, stream::BoxStream};
use notifyx_chassis::{Cluster, Context, Door, Running, grpc};
use notifyx_mesh::MeshConfig;
use notifyx_model::{Clock, Secret};
use notifyx_wire::grpc::{
    DESCRIPTORS,
    events::{
        self as wire,
        events_server::{Events, EventsServer},
        watch_reply::News,
    },
};
use tokio::time::timeout;
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::*;
use crate::testing;

/// Longer than anything here takes on a busy machine: who waits so long waits in vain.
const PATIENCE: Duration = Duration::from_secs(60);

/// One watch stream, as the service sees it.
struct Watched {
    asked: Streaming<wire::WatchRequest>,
    replies: mpsc::Sender<Result<wire::WatchReply, Status>>,
}

impl Watched {
    /// What the gateway asks to follow, and to follow no more.
    async fn asked(&mut self) -> (Vec<String>, Vec<String>) {
        let request = timeout(PATIENCE, self.asked.message()).await.unwrap().unwrap().unwrap();
        let mut follow: Vec<String> = request.follow.into_iter().map(|follow| follow.category).collect();
        follow.sort();
        (follow, request.unfollow)
    }

    async fn say(&self, news: News) {
        self.replies.send(Ok(wire::WatchReply { news: Some(news) })).await.unwrap();
    }
}

/// What the fake says to all that the watch has no reason to ask.
fn only_watched() -> Status {
    Status::unimplemented("this service is only watched")
}

struct Service(mpsc::Sender<Watched>);

#[async_trait]
impl Events for Service {
    type WatchStream = BoxStream<'static, Result<wire::WatchReply, Status>>;

    async fn watch(
        &self,
        request: Request<Streaming<wire::WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (replies, said) = mpsc::channel(16);
        self.0.send(Watched { asked: request.into_inner(), replies }).await.unwrap();
        let said = stream::unfold(said, async |mut said| said.recv().await.map(|reply| (reply, said)));
        Ok(Response::new(said.boxed()))
    }

    async fn append(&self, _: Request<wire::AppendRequest>) -> Result<Response<wire::Stored>, Status> {
        Err(only_watched())
    }

    async fn append_many(&self, _: Request<wire::AppendManyRequest>) -> Result<Response<wire::Results>, Status> {
        Err(only_watched())
    }

    async fn schedule(&self, _: Request<wire::ScheduleRequest>) -> Result<Response<wire::Results>, Status> {
        Err(only_watched())
    }

    async fn cancel(&self, _: Request<wire::CancelRequest>) -> Result<Response<wire::Event>, Status> {
        Err(only_watched())
    }

    async fn reschedule(&self, _: Request<wire::RescheduleRequest>) -> Result<Response<wire::Event>, Status> {
        Err(only_watched())
    }

    async fn get(&self, _: Request<wire::EventRef>) -> Result<Response<wire::Event>, Status> {
        Err(only_watched())
    }

    async fn list(&self, _: Request<wire::ListRequest>) -> Result<Response<wire::ListReply>, Status> {
        Err(only_watched())
    }

    async fn read(&self, _: Request<wire::ReadRequest>) -> Result<Response<wire::ReadReply>, Status> {
        Err(only_watched())
    }

    async fn heads(&self, _: Request<wire::HeadsRequest>) -> Result<Response<wire::HeadsReply>, Status> {
        Err(only_watched())
    }

    async fn queues(&self, _: Request<wire::QueuesRequest>) -> Result<Response<wire::QueuesReply>, Status> {
        Err(only_watched())
    }
}

/// An instance of the service, and the streams that it is asked for.
async fn service() -> (Running, mpsc::Receiver<Watched>) {
    let context = Context {
        clock: Clock::system(),
        shutdown: CancellationToken::new(),
        runtime: Handle::current(),
        cluster: Cluster::new(Secret::new("secret")),
        discovery: vec![],
    };
    let (sender, watched) = mpsc::channel(16);
    let services = grpc::Services::new(DESCRIPTORS).with(EventsServer::new(Service(sender)));
    let running = Door::new("events", &context).listen_grpc(services, SocketAddr::from(([127, 0, 0, 1], 0))).await;
    (running.unwrap(), watched)
}

fn watch(services: &[&Running]) -> (Watching, Watch, Metrics) {
    let registry = Registry::new();
    let instances: Vec<_> = services.iter().map(|service| (EVENTS, service.address().to_string())).collect();
    let mesh = Mesh::fixed(&MeshConfig::default(), &instances, Secret::new("secret"), Clock::system(), &registry);
    let metrics = Metrics::new(&registry);
    let (watching, watch) = Watching::start(&mesh, metrics.clone(), &Handle::current());
    (watching, watch, metrics)
}

async fn next(watched: &mut mpsc::Receiver<Watched>) -> Watched {
    timeout(PATIENCE, watched.recv()).await.expect("a stream is opened").unwrap()
}

/// The next hint, in words.
async fn hint(watch: &mut Watch) -> String {
    match timeout(PATIENCE, watch.next()).await.expect("a hint comes").unwrap() {
        Hint::Items(name, events) => {
            format!("{name}: {:?}", events.iter().map(|event| event.offset()).collect::<Vec<_>>())
        }
        Hint::Head(name, offset) => format!("{name} at {offset}"),
    }
}

fn appended(category: &str, offsets: &[u64]) -> News {
    let events = offsets.iter().map(|offset| testing::event(category, *offset)).collect();
    News::Appended(wire::Appended { category: category.into(), events })
}

fn head(category: &str, offset: u64) -> wire::Head {
    wire::Head { category: category.into(), offset, oldest: 1 }
}

#[tokio::test]
async fn what_is_followed_is_asked_of_every_instance_and_what_it_appends_is_a_hint() {
    let ((one, mut of_one), (two, mut of_two)) = (service().await, service().await);
    let (watching, mut watch, metrics) = watch(&[&one, &two]);
    let (mut one, mut two) = (next(&mut of_one).await, next(&mut of_two).await);
    watch.follow(&testing::category("a"));
    for stream in [&mut one, &mut two] {
        assert_eq!(stream.asked().await, (vec!["a".into()], vec![]));
    }
    one.say(News::Followed(wire::Followed { head: Some(head("a", 3)), recovered: true })).await;
    assert_eq!(hint(&mut watch).await, "a at 3");
    two.say(appended("a", &[4, 5])).await;
    assert_eq!(hint(&mut watch).await, "a: [4, 5]");
    one.say(News::Heads(wire::HeadsReply { heads: vec![head("a", 8), head("b", 1)] })).await;
    assert_eq!((hint(&mut watch).await, hint(&mut watch).await), ("a at 8".into(), "b at 1".into()));
    assert_eq!((metrics.streams.get(), metrics.breaks.get()), (2, 0));
    watch.unfollow(&testing::category("a"));
    assert_eq!(one.asked().await, (vec![], vec!["a".into()]));
    watching.stop().await;
    assert_eq!(metrics.streams.get(), 0);
}

#[tokio::test]
async fn a_stream_that_breaks_is_opened_again_and_told_all_that_is_followed() {
    let (service, mut streams) = service().await;
    let (_watching, mut watch, metrics) = watch(&[&service]);
    let mut first = next(&mut streams).await;
    for name in ["a", "b"] {
        watch.follow(&testing::category(name));
    }
    let mut asked = first.asked().await.0;
    if asked.len() < 2 {
        asked.extend(first.asked().await.0);
    }
    assert_eq!(asked, ["a", "b"]);
    first.replies.send(Err(Status::unavailable("stopping"))).await.unwrap();
    let mut second = next(&mut streams).await;
    assert_eq!(second.asked().await, (vec!["a".into(), "b".into()], vec![]));
    second.say(appended("b", &[1])).await;
    assert_eq!(hint(&mut watch).await, "b: [1]");
    assert_eq!((metrics.streams.get(), metrics.breaks.get()), (1, 1));
    // Also one that ends without a word.
    drop(second);
    assert_eq!(next(&mut streams).await.asked().await.0.len(), 2);
}

#[tokio::test]
async fn who_breaks_off_without_a_word_leaves_no_stream_behind() {
    let (service, mut streams) = service().await;
    let (watching, _watch, _) = watch(&[&service]);
    let mut stream = next(&mut streams).await;
    drop(watching);
    let said = timeout(PATIENCE, stream.asked.message()).await.expect("the stream ends");
    assert!(!matches!(said, Ok(Some(_))), "nothing was asked");
}

#[tokio::test]
async fn what_cannot_be_meant_harms_nothing() {
    let (service, mut streams) = service().await;
    let (_watching, mut watch, metrics) = watch(&[&service]);
    let stream = next(&mut streams).await;
    stream.replies.send(Ok(wire::WatchReply { news: None })).await.unwrap();
    stream.say(appended("no/category", &[1])).await;
    stream.say(News::Followed(wire::Followed { head: None, recovered: true })).await;
    stream.say(News::NotFollowed(wire::NotFollowed { category: "a".into(), problem: None })).await;
    stream.say(appended("a", &[1])).await;
    assert_eq!(hint(&mut watch).await, "a: [1]");
    assert_eq!(metrics.breaks.get(), 0);
}

#[tokio::test]
async fn a_feed_that_does_not_read_holds_the_stream_and_loses_nothing() {
    let (service, mut streams) = service().await;
    let (_watching, mut watch, _) = watch(&[&service]);
    let stream = next(&mut streams).await;
    let count = HINTS_MAX as u64 * 3;
    let said = tokio::spawn(async move {
        for offset in 1..=count {
            stream.say(appended("a", &[offset])).await;
        }
        stream
    });
    for offset in 1..=count {
        assert_eq!(hint(&mut watch).await, format!("a: [{offset}]"));
    }
    drop(said.await.unwrap());
}

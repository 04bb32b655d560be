//! The doors by which events are posted and listened to: the gateway's (REST and plain WebSockets, with a user's token), and the events
//! service's own (gRPC, with the cluster's secret), beside which one sees what the gateway adds.

use std::{
    fmt::Write,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use clap::ValueEnum;
use notifyx_wire::{
    grpc::events::{self as wire, event_result, events_client::EventsClient, watch_reply},
    header::CLUSTER_SECRET,
};
use serde::Serialize;
use tokio::{task::JoinHandle, time::timeout};
use tonic::{
    Request,
    metadata::{Ascii, MetadataValue},
    transport::{Channel, Endpoint},
};

use super::{Events, burst::New};
use crate::{
    connect::{Greeting, connect_all},
    crowd::{Crowd, Tally},
    error::Error,
    flight::Flight,
    frame,
    http::{Connection, Post as Head},
    notifyx::{Account, Notifyx},
    payload::{self, Finder},
    process::Process,
};

/// Longer than any deadline of the service.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ValueEnum)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Door {
    Gateway,
    Events,
}

/// A platform, with clients that listen.
pub(super) struct Stand {
    platform: Notifyx,
    ears: Ears,
}

enum Ears {
    /// One socket for each client and category.
    Sockets { crowd: Crowd, account: Account },
    /// One stream for all categories.
    Watch { inner: Inner, heard: Arc<Mutex<Heard>>, stream: JoinHandle<()> },
}

#[derive(Clone)]
struct Inner {
    client: EventsClient<Channel>,
    secret: MetadataValue<Ascii>,
}

impl Inner {
    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert(CLUSTER_SECRET, self.secret.clone());
        request
    }
}

/// What the stream brought of one flight.
struct Heard {
    flight: Arc<Flight>,
    finder: Finder,
    tally: Tally,
}

impl Heard {
    fn hear(&mut self, events: &[wire::Event]) {
        let now = self.flight.now();
        for event in events {
            match self.finder.seq(&event.data) {
                None => self.tally.other += 1,
                Some(seq) => match self.flight.delivered(seq, now) {
                    Some(nanos) => self.tally.latency.record(nanos),
                    None => self.tally.stray += 1,
                },
            }
        }
    }
}

fn name(category: u32) -> String {
    format!("bench-{category}")
}

impl Stand {
    pub(super) async fn connect(args: &Events, platform: Notifyx) -> Result<Self, Error> {
        let ears = match args.door {
            Door::Gateway => {
                let account = platform.account("events").await?;
                // A WebSocket library would answer the server's pings: who says nothing is taken for gone.
                let crowd = Crowd::start(Some(frame::pong()))?;
                let greeting = |number| Greeting {
                    path: Some(format!(
                        "/ws/events/{}?token={}",
                        name(number % args.categories),
                        account.token.as_str()
                    )),
                    join: None,
                    joined: None,
                };
                connect_all(platform.gateway, args.clients * args.categories, greeting, |socket| crowd.add(socket))?;
                Ears::Sockets { crowd, account }
            }
            Door::Events => watch(args, &platform).await?,
        };
        Ok(Self { platform, ears })
    }

    pub(super) fn process(&self) -> Option<Process> {
        self.platform.process
    }

    /// From now on the clients wait for this flight's events.
    pub(super) fn begin(&self, flight: Arc<Flight>) -> Result<(), Error> {
        match &self.ears {
            Ears::Sockets { crowd, .. } => crowd.begin(flight),
            Ears::Watch { heard, .. } => {
                let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
                (heard.flight, heard.tally) = (flight, Tally::default());
                Ok(())
            }
        }
    }

    /// What arrived since `begin`.
    pub(super) fn finish(&self) -> Result<Tally, Error> {
        match &self.ears {
            Ears::Sockets { crowd, .. } => crowd.finish(),
            Ears::Watch { heard, stream, .. } if stream.is_finished() => {
                let tally = heard.lock().unwrap_or_else(PoisonError::into_inner).tally.clone();
                Err(Error::failed(format!("the stream ended after {} events", tally.latency.count())))
            }
            Ears::Watch { heard, .. } => Ok(heard.lock().unwrap_or_else(PoisonError::into_inner).tally.clone()),
        }
    }

    /// A connection of its own to post by.
    pub(super) async fn post(&self, payload_bytes: usize) -> Result<Post, Error> {
        let to = match &self.ears {
            Ears::Sockets { account, .. } => {
                let (gateway, token) = (self.platform.gateway, account.token.as_str());
                let post = Head::new(gateway, "/events", "application/json", Some(token));
                To::Gateway(Connection::open(gateway).await?, post)
            }
            Ears::Watch { inner, .. } => To::Events(inner.clone()),
        };
        Ok(Post { payload_bytes, to })
    }

    pub(super) fn stop(self) -> Result<(), Error> {
        match self.ears {
            Ears::Sockets { crowd, .. } => crowd.stop(),
            Ears::Watch { stream, .. } => {
                stream.abort();
                Ok(())
            }
        }
    }
}

async fn watch(args: &Events, platform: &Notifyx) -> Result<Ears, Error> {
    let Some((address, secret)) = platform.events() else {
        return Err(Error::failed(
            "only a platform that is started here can be asked behind its gateway: --notifyx PROGRAM",
        ));
    };
    let endpoint = Endpoint::from_shared(format!("http://{address}")).map_err(Error::failed)?.tcp_nodelay(true);
    let channel =
        endpoint.connect().await.map_err(|error| Error::failed(format!("connecting to {address}: {error}")))?;
    let inner = Inner { client: EventsClient::new(channel), secret: secret.parse().map_err(Error::failed)? };
    let follow = (0..args.categories).map(|category| wire::Follow { category: name(category), after: None }).collect();
    let (ask, asked) = tokio::sync::mpsc::channel(1);
    // Never full: it is the first.
    let _ = ask.try_send(wire::WatchRequest { follow, unfollow: Vec::new() });
    let asked = futures_util::stream::unfold((ask, asked), async |(ask, mut asked)| {
        let change = asked.recv().await?;
        // It stays open as long as we listen.
        Some((change, (ask, asked)))
    });
    let mut news = inner.client.clone().watch(inner.request(asked)).await.map_err(Error::failed)?.into_inner();
    for _ in 0..args.categories {
        // Each is followed before anything is posted.
        timeout(ANSWER_TIMEOUT, news.message()).await.map_err(Error::failed)?.map_err(Error::failed)?;
    }
    let nothing = Arc::new(Flight::new(0, 0, 0, 1));
    let heard = Arc::new(Mutex::new(Heard { flight: nothing, finder: Finder::default(), tally: Tally::default() }));
    let listening = heard.clone();
    let stream = tokio::spawn(async move {
        while let Ok(Some(reply)) = news.message().await {
            if let Some(watch_reply::News::Appended(appended)) = reply.news {
                listening.lock().unwrap_or_else(PoisonError::into_inner).hear(&appended.events);
            }
        }
    });
    Ok(Ears::Watch { inner, heard, stream })
}

/// Somebody who posts.
pub(super) struct Post {
    payload_bytes: usize,
    to: To,
}

enum To {
    Gateway(Connection, Head),
    Events(Inner),
}

impl Post {
    /// Returns when they are in the store; one that is not ends the measurement.
    pub(super) async fn post(&mut self, events: &[New]) -> Result<(), Error> {
        match &mut self.to {
            To::Gateway(connection, post) => {
                let answer = connection.post(post, body(events, self.payload_bytes).as_bytes()).await?;
                if answer.status == 201 { Ok(()) } else { Err(answer.refused("POST /events")) }
            }
            To::Events(inner) => {
                let data = |seq| format!("\"{}\"", payload::text(seq, self.payload_bytes)).into();
                let event = |new: &New| wire::NewEvent {
                    category: name(new.category),
                    data: data(new.seq),
                    fire_at_us: Some(new.fire_at.as_micros()),
                    ..wire::NewEvent::default()
                };
                let request = wire::ScheduleRequest { events: events.iter().map(event).collect(), forwarded: false };
                let stored = inner.client.schedule(inner.request(request)).await.map_err(Error::failed)?;
                for result in stored.into_inner().results {
                    if let Some(event_result::Result::Problem(problem)) = result.result {
                        return Err(Error::failed(format!("an event was refused: {}", problem.detail)));
                    }
                }
                Ok(())
            }
        }
    }
}

/// The body of `POST /events`.
fn body(events: &[New], payload_bytes: usize) -> String {
    let mut body = String::with_capacity(events.len() * (payload_bytes + 80) + 2);
    for (i, New { category, fire_at, seq }) in events.iter().enumerate() {
        let (before, at, data) =
            (if i == 0 { '[' } else { ',' }, fire_at.as_micros(), payload::text(*seq, payload_bytes));
        let written = write!(body, r#"{before}{{"category":"{}","fireAt":{at},"data":"{data}"}}"#, name(*category));
        written.expect("a string takes what is written");
    }
    body.push(']');
    body
}

#[cfg(test)]
mod tests {
    use notifyx_model::Timestamp;

    use super::*;

    #[test]
    fn a_body_is_json_and_carries_the_numbers() {
        let new = |seq| New { category: 3, fire_at: Timestamp::from_micros(1_700_000_000_000_000), seq };
        let body: serde_json::Value = serde_json::from_str(&body(&[new(1), new(2)], 20)).unwrap();
        let expected = serde_json::json!({
            "category": "bench-3", "fireAt": 1_700_000_000_000_000_i64, "data": payload::text(2, 20),
        });
        assert_eq!((&body[1], body.as_array().unwrap().len()), (&expected, 2));
    }
}

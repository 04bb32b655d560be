//! Who listens to a category: over a plain WebSocket, Server-Sent Events, or a channel. Each gives the same events.

use std::{fmt, time::Duration};

use futures_util::StreamExt;
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{self, Message},
};
use url::Url;

use super::{Ending, Socket};

/// Longer than anything that is to come may take under the load of these tests.
const EVENT_WITHIN: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Plain,
    Sse,
    Channel,
}

pub(crate) struct Listener {
    source: Source,
    /// The Phoenix topic.
    channel: String,
    /// What a stream says first of which not all could be given that was asked for; here, where a channel's reply said so.
    gap: Option<Value>,
}

/// Why there is none.
enum NoStream {
    Refused(u16),
    Broken(String),
}

impl From<tungstenite::Error> for NoStream {
    fn from(error: tungstenite::Error) -> Self {
        match error {
            tungstenite::Error::Http(response) => Self::Refused(response.status().as_u16()),
            error => Self::Broken(error.to_string()),
        }
    }
}

enum Source {
    Plain(Box<WebSocketStream<MaybeTlsStream<TcpStream>>>),
    Sse(Lines),
    Channel(Box<Socket>),
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("channel", &self.channel).finish_non_exhaustive()
    }
}

impl Listener {
    /// `from`: what lies above this offset comes first. The status of the refusal where it is refused.
    pub(crate) async fn open(
        way: Way,
        gateway: &str,
        token: Option<&str>,
        category: &str,
        from: Option<u64>,
    ) -> Result<Self, u16> {
        let connecting = Self::connect(way, gateway, token, category, from);
        match timeout(EVENT_WITHIN, connecting).await.expect("an answer") {
            Ok(listener) => Ok(listener),
            Err(NoStream::Refused(status)) => Err(status),
            Err(NoStream::Broken(why)) => panic!("no stream of {category} at {gateway}: {why}"),
        }
    }

    /// For tests that end the server under the client: `None` where there is no stream to be had now.
    pub(crate) async fn try_open(
        way: Way,
        gateway: &str,
        token: &str,
        category: &str,
        from: u64,
        within: Duration,
    ) -> Option<Self> {
        timeout(within, Self::connect(way, gateway, Some(token), category, Some(from))).await.ok()?.ok()
    }

    async fn connect(
        way: Way,
        gateway: &str,
        token: Option<&str>,
        category: &str,
        from: Option<u64>,
    ) -> Result<Self, NoStream> {
        let (channel, mut gap) = (format!("events:{category}"), None);
        let source = match way {
            Way::Plain => {
                let url = url("ws", gateway, &["ws", "events", category], token, from);
                Source::Plain(Box::new(connect_async(url.as_str()).await?.0))
            }
            Way::Sse => {
                let url = url("http", gateway, &["events", category, "stream"], token, None);
                let mut request = reqwest::Client::builder().no_proxy().build().expect("plain HTTP").get(url);
                if let Some(from) = from {
                    request = request.header("Last-Event-ID", from);
                }
                let response = request.send().await.map_err(|error| NoStream::Broken(error.to_string()))?;
                if response.status() != 200 {
                    return Err(NoStream::Refused(response.status().as_u16()));
                }
                assert_eq!(response.headers()["content-type"], "text/event-stream");
                Source::Sse(Lines { response, waiting: Vec::new() })
            }
            Way::Channel => {
                let params: Vec<_> = token.map(|token| ("token", token)).into_iter().collect();
                let mut socket = Socket::connect_to(gateway, &params).await?;
                let params = from.map_or(json!({}), |from| json!({ "last_offset": from }));
                let joined = socket.join_now(&channel, params).await.map_err(NoStream::Broken)?;
                match (from, joined["recovered"].as_bool()) {
                    (None, Some(false)) | (Some(_), Some(true)) => {}
                    (Some(_), Some(false)) => gap = Some(json!({ "recovered": false, "offset": joined["offset"] })),
                    _ => panic!("joined from {from:?} with {joined}"),
                }
                Source::Channel(Box::new(socket))
            }
        };
        Ok(Self { source, channel, gap })
    }

    /// The next event.
    pub(crate) async fn event(&mut self) -> Value {
        let next = timeout(EVENT_WITHIN, self.next()).await;
        let next = next.unwrap_or_else(|_| panic!("no event within {EVENT_WITHIN:?}"));
        next.unwrap_or_else(|ending| panic!("the stream ended with {ending:?}"))
    }

    pub(crate) async fn events(&mut self, count: usize) -> Vec<Value> {
        let mut events = Vec::with_capacity(count);
        while events.len() < count {
            events.push(self.event().await);
        }
        events
    }

    /// The next event, or how the stream ended.
    pub(crate) async fn next(&mut self) -> Result<Value, Ending> {
        if let Some(gap) = self.gap.take() {
            return Ok(gap);
        }
        match &mut self.source {
            Source::Plain(stream) => loop {
                match stream.next().await {
                    Some(Ok(Message::Text(text))) => return Ok(parse(&text)),
                    Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                    Some(Ok(Message::Close(frame))) => return Err(frame.map(|frame| frame.code.into())),
                    Some(Ok(Message::Binary(bytes))) => panic!("nobody asked for a binary frame: {bytes:?}"),
                    None | Some(Err(_)) => return Err(None),
                }
            },
            Source::Sse(lines) => lines.next().await.ok_or(None),
            Source::Channel(socket) => loop {
                let frame = socket.outcome().await?;
                if frame.topic == self.channel && frame.event == "event" {
                    return Ok(frame.payload);
                }
            },
        }
    }
}

/// A stream of Server-Sent Events, line by line.
struct Lines {
    response: reqwest::Response,
    waiting: Vec<u8>,
}

impl Lines {
    /// The data of the next event; its id is the offset.
    async fn next(&mut self) -> Option<Value> {
        let (mut id, mut data) = (String::new(), String::new());
        loop {
            let line = self.line().await?;
            match line.split_once(':').map(|(field, value)| (field, value.strip_prefix(' ').unwrap_or(value))) {
                Some(("id", value)) => value.clone_into(&mut id),
                Some(("data", value)) => data.push_str(value),
                Some(("event" | "retry" | "", _)) => {}
                None if line.is_empty() && !data.is_empty() => {
                    let event = parse(&data);
                    assert_eq!(event["offset"].to_string(), id, "{event}");
                    return Some(event);
                }
                None if line.is_empty() => {}
                _ => panic!("no field of an event: {line:?}"),
            }
        }
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.waiting.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.waiting.drain(..=end).collect();
                return Some(String::from_utf8(line).expect("UTF-8").trim_end_matches(['\r', '\n']).to_owned());
            }
            self.waiting.extend_from_slice(&self.response.chunk().await.ok()??);
        }
    }
}

fn parse(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text}"))
}

fn url(scheme: &str, gateway: &str, path: &[&str], token: Option<&str>, from: Option<u64>) -> Url {
    let mut url = Url::parse(&format!("{scheme}://{gateway}")).expect("an address");
    url.path_segments_mut().expect("it has a path").extend(path);
    if let Some(token) = token {
        url.query_pairs_mut().append_pair("token", token);
    }
    if let Some(from) = from {
        url.query_pairs_mut().append_pair("from", &from.to_string());
    }
    url
}

//! A Phoenix client of our own for what the official one hides: close codes, raw order, frames nobody asked for.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use serde_json::{Value, json};
use tokio::{
    net::TcpStream,
    sync::Mutex,
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{self, Message},
};

/// Longer than any frame may take under the load of these tests.
const FRAME_WITHIN: Duration = Duration::from_secs(60);

/// As Phoenix clients do, and sooner: the server ends who says nothing for a minute, however slow the client's machine is.
const HEARTBEAT_EVERY: Duration = Duration::from_secs(15);

/// The reference of those heartbeats; nobody sees their replies.
const HEARTBEAT: &str = "still here";

type Stream = WebSocketStream<MaybeTlsStream<TcpStream>>;

#[derive(Debug)]
pub(crate) struct Socket {
    stream: SplitStream<Stream>,
    sink: Arc<Mutex<SplitSink<Stream, Message>>>,
    /// Says that the client is there, also while the test is busy elsewhere.
    beating: JoinHandle<()>,
    /// What arrived while something else was waited for, in order.
    backlog: VecDeque<Frame>,
    /// Topic → the reference of its join.
    joined: HashMap<String, String>,
    last_ref: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Frame {
    pub(crate) join_ref: Value,
    pub(crate) reference: Value,
    pub(crate) topic: String,
    pub(crate) event: String,
    pub(crate) payload: Value,
}

/// How a socket ended: the close code, or none where the connection just broke.
pub(crate) type Ending = Option<u16>;

impl Socket {
    /// The status of the refusal where it is refused.
    pub(crate) async fn open(address: &str, params: &[(&str, &str)]) -> Result<Self, u16> {
        Self::open_url(&socket_url(address, params)).await
    }

    pub(crate) async fn open_url(url: &str) -> Result<Self, u16> {
        match timeout(FRAME_WITHIN, Self::connect(url)).await.expect("an answer to the upgrade") {
            Ok(socket) => Ok(socket),
            Err(tungstenite::Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("no WebSocket at {url}: {error}"),
        }
    }

    /// For tests that end the server under the client: `None` where there is no socket to be had now.
    pub(crate) async fn try_open(address: &str, params: &[(&str, &str)], within: Duration) -> Option<Self> {
        timeout(within, Self::connect(&socket_url(address, params))).await.ok()?.ok()
    }

    /// Whatever becomes of it.
    pub(super) async fn connect_to(address: &str, params: &[(&str, &str)]) -> Result<Self, tungstenite::Error> {
        Self::connect(&socket_url(address, params)).await
    }

    async fn connect(url: &str) -> Result<Self, tungstenite::Error> {
        let (stream, _) = connect_async(url).await?;
        let (sink, stream) = stream.split();
        let sink = Arc::new(Mutex::new(sink));
        let beating = tokio::spawn(beat(sink.clone()));
        Ok(Self { stream, sink, beating, backlog: VecDeque::new(), joined: HashMap::new(), last_ref: 0 })
    }

    /// Joins and gives the response.
    pub(crate) async fn join(&mut self, topic: &str, params: Value) -> Value {
        self.try_join(topic, params).await.unwrap_or_else(|refused| panic!("{topic} was not joined: {refused}"))
    }

    pub(crate) async fn try_join(&mut self, topic: &str, params: Value) -> Result<Value, Value> {
        let reference = self.next_ref();
        self.joined.insert(topic.to_owned(), reference.clone());
        self.send_text(json!([reference, reference, topic, "phx_join", params]).to_string()).await;
        self.reply(&reference).await
    }

    /// Pushes and waits for the reply: what `ok` or `error` carries.
    pub(crate) async fn push(&mut self, topic: &str, event: &str, payload: Value) -> Result<Value, Value> {
        let reference = self.send(topic, event, payload).await;
        self.reply(&reference).await
    }

    /// Pushes without waiting; the reference names the reply.
    pub(crate) async fn send(&mut self, topic: &str, event: &str, payload: Value) -> String {
        let reference = self.next_ref();
        let join_ref = self.joined.get(topic);
        self.send_text(json!([join_ref, reference, topic, event, payload]).to_string()).await;
        reference
    }

    /// Joins without waiting, where the server may be gone; the reference names the reply.
    pub(crate) async fn try_send_join(&mut self, topic: &str, params: Value) -> Option<String> {
        let reference = self.next_ref();
        self.joined.insert(topic.to_owned(), reference.clone());
        self.try_send_text(json!([reference, reference, topic, "phx_join", params]).to_string()).await?;
        Some(reference)
    }

    /// Joins where the server may be gone: the response, or why there is none.
    pub(super) async fn join_now(&mut self, topic: &str, params: Value) -> Result<Value, String> {
        let reference = self.try_send_join(topic, params).await.ok_or("the socket takes nothing")?;
        loop {
            let mut frame = self.next().await.map_err(|ending| format!("the socket ended with {ending:?}"))?;
            if frame.event == "phx_reply" && frame.reference == reference {
                let ok = frame.payload["status"] == "ok";
                return if ok { Ok(frame.payload["response"].take()) } else { Err(frame.payload.to_string()) };
            }
            self.backlog.push_back(frame);
        }
    }

    /// `None` where the socket takes nothing any more.
    pub(crate) async fn try_send_text(&mut self, text: String) -> Option<()> {
        timeout(FRAME_WITHIN, self.write(Message::text(text))).await.ok()?.ok()
    }

    pub(crate) async fn send_text(&mut self, text: String) {
        self.send_message(Message::text(text)).await;
    }

    pub(crate) async fn send_message(&mut self, message: Message) {
        timeout(FRAME_WITHIN, self.write(message)).await.expect("the server reads").expect("an open socket");
    }

    async fn write(&self, message: Message) -> Result<(), tungstenite::Error> {
        self.sink.lock().await.send(message).await
    }

    pub(crate) async fn reply(&mut self, reference: &str) -> Result<Value, Value> {
        let what = format!("the reply to {reference}");
        let frame = self.wait(&what, |frame| frame.event == "phx_reply" && frame.reference == reference).await;
        let mut payload = frame.payload;
        let response = payload["response"].take();
        match payload["status"].as_str() {
            Some("ok") => Ok(response),
            Some("error") => Err(response),
            _ => panic!("a reply is ok or error: {payload}"),
        }
    }

    /// The next push of this event on the topic.
    pub(crate) async fn event(&mut self, topic: &str, event: &str) -> Value {
        self.wait(&format!("{event} on {topic}"), |frame| frame.topic == topic && frame.event == event).await.payload
    }

    /// The next notification of a topic, by its bare name.
    pub(crate) async fn notification(&mut self, topic: &str) -> Value {
        self.event(&format!("notification:{topic}"), "new_notification").await
    }

    /// The next `count` notifications of a topic as `(offset, message)`.
    pub(crate) async fn notifications(&mut self, topic: &str, count: usize) -> Vec<(u64, String)> {
        let mut all = Vec::with_capacity(count);
        for _ in 0..count {
            let pushed = self.notification(topic).await;
            let message = pushed["message"].as_str().expect("text").to_owned();
            all.push((pushed["offset"].as_u64().expect("an offset"), message));
        }
        all
    }

    /// A heartbeat there and back: the server has read all that was sent before.
    pub(crate) async fn heartbeat(&mut self) {
        let reference = self.next_ref();
        self.send_text(json!([null, reference, "phoenix", "heartbeat", {}]).to_string()).await;
        assert_eq!(self.reply(&reference).await, Ok(json!({})));
    }

    /// The first frame that arrived and was not asked for yet, if it is `wanted`; waits for it otherwise.
    pub(crate) async fn wait(&mut self, what: &str, wanted: impl Fn(&Frame) -> bool) -> Frame {
        if let Some(at) = self.backlog.iter().position(&wanted) {
            return self.backlog.remove(at).expect("just found");
        }
        loop {
            let next = timeout(FRAME_WITHIN, self.next()).await;
            let next = next.unwrap_or_else(|_| panic!("no {what} within {FRAME_WITHIN:?}, but {:#?}", self.backlog));
            let frame = next.unwrap_or_else(|ending| panic!("the socket ended with {ending:?} before {what}"));
            if wanted(&frame) {
                return frame;
            }
            self.backlog.push_back(frame);
        }
    }

    /// Reads to the end of the socket.
    pub(crate) async fn ending(&mut self, within: Duration) -> Ending {
        let end = async {
            loop {
                match self.next().await {
                    Ok(frame) => self.backlog.push_back(frame),
                    Err(ending) => return ending,
                }
            }
        };
        timeout(within, end).await.unwrap_or_else(|_| panic!("the socket is still open after {within:?}"))
    }

    /// The next frame that arrives, or how the socket ended.
    pub(crate) async fn outcome(&mut self) -> Result<Frame, Ending> {
        self.next().await
    }

    /// The next frame of Phoenix, or how the socket ended.
    async fn next(&mut self) -> Result<Frame, Ending> {
        loop {
            match self.stream.next().await {
                Some(Ok(Message::Text(text))) => {
                    let (join_ref, reference, topic, event, payload): (_, Value, _, _, _) =
                        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error} in {text}"));
                    if reference != HEARTBEAT {
                        return Ok(Frame { join_ref, reference, topic, event, payload });
                    }
                }
                Some(Ok(Message::Close(frame))) => return Err(frame.map(|frame| frame.code.into())),
                Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => {}
                Some(Ok(Message::Binary(bytes))) => panic!("nobody asked for a binary frame: {bytes:?}"),
                None | Some(Err(_)) => return Err(None),
            }
        }
    }

    fn next_ref(&mut self) -> String {
        self.last_ref += 1;
        self.last_ref.to_string()
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        self.beating.abort();
    }
}

/// Until the socket takes nothing more.
async fn beat(sink: Arc<Mutex<SplitSink<Stream, Message>>>) {
    let heartbeat = Message::text(json!([null, HEARTBEAT, "phoenix", "heartbeat", {}]).to_string());
    loop {
        sleep(HEARTBEAT_EVERY).await;
        if sink.lock().await.send(heartbeat.clone()).await.is_err() {
            return;
        }
    }
}

fn socket_url(address: &str, params: &[(&str, &str)]) -> String {
    let mut url = url::Url::parse(&format!("ws://{address}/socket/websocket")).expect("an address");
    url.query_pairs_mut().extend_pairs(params).append_pair("vsn", "2.0.0");
    url.into()
}

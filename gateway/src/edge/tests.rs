//! The edge over real sockets, with two worker threads.

mod ending;
mod frames;
mod handshake;
mod streams;

use futures_util::{SinkExt, StreamExt};
use notifyx_chassis::{Cluster, Door};
use notifyx_model::{ManualClock, Secret, TokenHash, UserId};
use notifyx_wire::rest::auth::Revocation;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{Error, Message, protocol::CloseFrame},
};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    feed::Feeds,
    hub::Ending,
    testing::{Fake, feeds},
};

/// Longer than anything here takes on a busy machine: who waits so long waits in vain.
const PATIENCE: Duration = Duration::from_secs(60);

struct Gateway {
    address: SocketAddr,
    platform: Arc<Fake>,
    hub: Hub,
    hand: ManualClock,
    // Held, so that they run as long as the test.
    _feeds: Feeds,
}

impl Gateway {
    fn start() -> Self {
        Self::with(Limits::default())
    }

    /// Who is told goodbye may take its time to read so far.
    fn patient() -> Self {
        Self::with(Limits { goodbye_max: PATIENCE, ..Limits::default() })
    }

    fn with(limits: Limits) -> Self {
        Self::set(Options { limits, ..Options::default() })
    }

    fn set(options: Options) -> Self {
        let hand = ManualClock::new();
        let platform = Fake::with_clock(hand.clock());
        let context = Context {
            clock: hand.clock(),
            shutdown: CancellationToken::new(),
            runtime: Handle::current(),
            cluster: Cluster::new(Secret::new("secret")),
            discovery: vec![],
        };
        let hub = Hub::new(Metrics::new(&prometheus::Registry::new()));
        let (feeds, following) = feeds(&hub, &platform);
        let edge = Edge::new(hub.clone(), following, platform.clone(), options, &context);
        let rest = Door::new("gateway", &context).parts();
        let (server, address) = edge.serve("127.0.0.1:0".parse().unwrap(), &rest).unwrap();
        tokio::spawn(server);
        Self { address, platform, hub, hand, _feeds: feeds }
    }

    fn user(&self) -> UserId {
        UserId::new(&self.platform.clock)
    }

    fn url(&self, token: &str) -> String {
        format!("ws://{}/socket/websocket?vsn=2.0.0&token={token}", self.address)
    }

    async fn connect(&self, user: UserId) -> Peer {
        self.connect_with(&format!("{user}0")).await
    }

    async fn connect_with(&self, token: &str) -> Peer {
        let (stream, response) = connect_async(self.url(token)).await.unwrap();
        assert_eq!(response.status(), 101);
        Peer(stream)
    }

    async fn joined(&self, name: &str) -> Peer {
        let mut peer = self.connect(self.user()).await;
        peer.join(name).await;
        peer
    }

    /// Status and body of a request written by hand.
    async fn http(&self, request: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
        let answer = String::from_utf8(answer).unwrap();
        (answer[9..12].parse().unwrap(), answer)
    }

    async fn upgrade(&self, target: &str, more: &str) -> (u16, String) {
        self.http(&handshake(target, more)).await
    }

    /// A connection after its handshake, to send bytes that a proper client would not.
    async fn raw(&self) -> Raw {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let target = format!("/socket/websocket?vsn=2.0.0&token={}0", self.user());
        stream.write_all(handshake(&target, "").as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        assert!(head.starts_with(b"HTTP/1.1 101"));
        // Once a ping is answered, the session is open.
        stream.write_all(&[0x89, 0x80, 0, 0, 0, 0]).await.unwrap();
        assert_eq!(stream.read_u16().await.unwrap(), 0x8a00);
        Raw(stream)
    }

    /// Waits until nothing waits for any socket: it is counted off after it was written.
    async fn nothing_queued(&self) {
        let written = async {
            while self.hub.metrics().queued_bytes.get() > 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(PATIENCE, written).await.expect("all is written");
    }

    fn ended(&self, ending: Ending) -> u64 {
        self.hub.metrics().endings.with_label_values(&[ending.reason()]).get()
    }
}

fn handshake(target: &str, more: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{more}\r\n"
    )
}

struct Peer(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Peer {
    async fn send(&mut self, frame: Value) {
        self.0.send(Message::text(frame.to_string())).await.unwrap();
    }

    async fn message(&mut self) -> Result<Message, Error> {
        let message = tokio::time::timeout(PATIENCE, self.0.next()).await.expect("it comes");
        message.unwrap_or(Err(Error::ConnectionClosed))
    }

    async fn next(&mut self) -> Value {
        loop {
            match self.message().await.unwrap() {
                Message::Text(text) => return serde_json::from_str(&text).unwrap(),
                Message::Close(frame) => panic!("closed: {frame:?}"),
                _ => {}
            }
        }
    }

    async fn join(&mut self, name: &str) {
        self.send(json!(["1", "1", format!("notification:{name}"), "phx_join", {}])).await;
        assert_eq!(self.next().await[4]["status"], "ok");
    }

    async fn offset(&mut self) -> u64 {
        let frame = self.next().await;
        frame[4]["offset"].as_u64().unwrap_or_else(|| panic!("{frame}"))
    }

    /// The code with which the server closes, whatever comes before.
    async fn close_code(&mut self) -> u16 {
        loop {
            match self.message().await {
                Ok(Message::Close(frame)) => return frame.expect("the server says why").code.into(),
                Ok(_) => {}
                Err(error) => panic!("it ended without a close frame: {error}"),
            }
        }
    }
}

struct Raw(TcpStream);

impl Raw {
    /// The code of the close frame that is the next frame, and that the connection ends after it.
    async fn close_code(mut self) -> u16 {
        let mut rest = Vec::new();
        tokio::time::timeout(PATIENCE, self.0.read_to_end(&mut rest)).await.expect("it ends").unwrap();
        assert_eq!(rest[0], 0x88, "a close frame comes: {rest:?}");
        u16::from_be_bytes([rest[2], rest[3]])
    }
}

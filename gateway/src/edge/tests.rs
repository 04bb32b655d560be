//! The edge over real sockets, with two worker threads.

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
const PATIENCE: Duration = Duration::from_secs(20);

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

#[tokio::test(flavor = "multi_thread")]
async fn handshakes_are_refused_before_any_frame() {
    let gateway = Gateway::start();
    let token = format!("{}0", gateway.user());
    for (target, more, status, why) in [
        (format!("/socket/websocket?token={token}"), "", 403, "version_not_spoken"),
        (format!("/socket/websocket?vsn=1.0.0&token={token}"), "", 403, "version_not_spoken"),
        ("/socket/websocket?vsn=2.0.0".to_owned(), "", 403, "credentials_missing"),
        ("/socket/websocket?vsn=2.0.0&token=nobody-knows-this-token".to_owned(), "", 403, "credentials_invalid"),
        (
            format!("/socket/websocket?vsn=2.0.0&token={token}"),
            "Origin: http://evil.example\r\n",
            403,
            "origin_not_allowed",
        ),
        (format!("/elsewhere?vsn=2.0.0&token={token}"), "", 404, "route_not_found"),
    ] {
        let (found, answer) = gateway.upgrade(&target, more).await;
        assert_eq!(found, status, "{target}");
        assert!(answer.contains(why) && answer.contains("application/problem+json"), "{answer}");
    }
    gateway.platform.set_broken(true);
    let (status, _) = gateway.upgrade(&format!("/socket/websocket?vsn=2.0.0&token={token}"), "").await;
    assert_eq!(status, 503, "nobody can say that the credentials are wrong");
    assert_eq!(gateway.hub.sockets(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_without_upgrade_headers_is_400_and_rest_is_beside() {
    let gateway = Gateway::start();
    let plain = |target: &str| format!("GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    assert_eq!(gateway.http(&plain("/socket/websocket?vsn=2.0.0")).await.0, 400);
    assert_eq!(gateway.http(&plain("/health")).await.0, 200);
    let version = handshake("/socket/websocket?vsn=2.0.0", "").replace("Version: 13", "Version: 7");
    assert_eq!(gateway.http(&version).await.0, 400);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_still_writes_its_body_gets_the_answer() {
    let gateway = Gateway::start();
    // Larger than the buffers between the two, so that a door that closes early breaks the pipe.
    let body = " ".repeat(12 * 1024 * 1024);
    let head = format!("POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", body.len());
    assert_eq!(gateway.http(&(head + &body)).await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_node_holds_so_many_sockets_and_no_more() {
    let gateway = Gateway::with(Limits { sockets_max: 1, ..Limits::default() });
    let mut peer = gateway.connect(gateway.user()).await;
    let target = format!("/socket/websocket?vsn=2.0.0&token={}0", gateway.user());
    let (status, answer) = gateway.upgrade(&target, "").await;
    assert_eq!((status, answer.contains("Retry-After: 1")), (503, true));
    peer.0.close(None).await.unwrap();
    while peer.message().await.is_ok() {}
    gateway.hub.counted().wait_for(|count| *count == 0).await.unwrap();
    gateway.connect(gateway.user()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_reaches_sockets_of_all_worker_threads_in_order() {
    let gateway = Gateway::start();
    let mut peers = Vec::new();
    for _ in 0..6 {
        peers.push(gateway.joined("t").await);
    }
    for at in 0..100 {
        gateway.platform.announce("t", &at.to_string());
    }
    for peer in &mut peers {
        for offset in 1..=100 {
            assert_eq!(peer.offset().await, offset);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pings_and_closes_are_answered() {
    let gateway = Gateway::start();
    let mut peer = gateway.connect(gateway.user()).await;
    peer.0.send(Message::Ping("are you there".into())).await.unwrap();
    assert_eq!(peer.message().await.unwrap(), Message::Pong("are you there".into()));
    peer.0.close(Some(CloseFrame { code: 4000.into(), reason: "bye".into() })).await.unwrap();
    assert_eq!(peer.close_code().await, 4000);
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_that_come_with_the_handshake_are_read() {
    let gateway = Gateway::start();
    let mut stream = TcpStream::connect(gateway.address).await.unwrap();
    let target = format!("/socket/websocket?vsn=2.0.0&token={}0", gateway.user());
    let mut bytes = handshake(&target, "").into_bytes();
    // A ping with the mask of nothing.
    bytes.extend([0x89, 0x81, 0, 0, 0, 0, b'!']);
    stream.write_all(&bytes).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\x8a\x01!") {
        answer.push(stream.read_u8().await.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_the_protocol_is_closed_with_its_code_and_harms_nobody() {
    let gateway = Gateway::start();
    let mut witness = gateway.joined("t").await;
    let oversized = [&[0x81, 0x80 | 127][..], &200_000_u64.to_be_bytes(), &[0; 4]].concat();
    for (bytes, code) in [
        (b"\x81\x01x".to_vec(), 1002),
        (b"GET / HTTP/1.1\r\n\r\n".to_vec(), 1002),
        (b"\x81\x82\x00\x00\x00\x00\xff\xfe".to_vec(), 1007),
        (oversized, 1009),
    ] {
        let mut raw = gateway.raw().await;
        raw.0.write_all(&bytes).await.unwrap();
        assert_eq!(raw.close_code().await, code);
    }
    gateway.platform.announce("t", "m");
    assert_eq!(witness.offset().await, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_is_closed_as_slow_and_others_do_not_notice() {
    let gateway = Gateway::start();
    let mut fast = gateway.joined("t").await;
    let mut slow = gateway.joined("t").await;
    let message = "m".repeat(60_000);
    let mut published = 0;
    while gateway.ended(Ending::Slow) == 0 {
        published += 1;
        assert!(published < 1_000, "the slow one was never noticed");
        gateway.platform.announce("t", &message);
        assert_eq!(fast.offset().await, published);
    }
    // Whole frames, then the reason: it can resume from the last of them.
    let mut last = 0;
    let code = loop {
        match slow.message().await.unwrap() {
            Message::Text(text) => {
                let frame: Value = serde_json::from_str(&text).unwrap();
                last += 1;
                assert_eq!(frame[4]["offset"], last);
            }
            Message::Close(frame) => break u16::from(frame.unwrap().code),
            _ => {}
        }
    };
    assert_eq!((code, last < published), (3008, true));
    gateway.platform.announce("t", "m");
    assert_eq!(fast.offset().await, published + 1);
    assert_eq!(gateway.hub.metrics().queued_bytes.get(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_reads_late_gets_everything() {
    let gateway = Gateway::start();
    let mut late = gateway.joined("t").await;
    let mut other = gateway.joined("t").await;
    // Less than the bound, more than fits at once.
    for _ in 0..2_000 {
        gateway.platform.announce("t", "m");
        other.offset().await;
    }
    for offset in 1..=2_000 {
        assert_eq!(late.offset().await, offset);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_says_1012_to_all_in_time_and_lets_nobody_in() {
    let gateway = Gateway::start();
    let mut peers = Vec::new();
    for _ in 0..4 {
        peers.push(gateway.joined("t").await);
    }
    let draining = tokio::spawn({
        let hub = gateway.hub.clone();
        async move { hub.drain(PATIENCE).await }
    });
    for peer in &mut peers {
        assert_eq!(peer.close_code().await, 1012);
        // Only who reads on answers the close.
        while peer.message().await.is_ok() {}
    }
    assert_eq!(draining.await.unwrap(), 0);
    let target = format!("/socket/websocket?vsn=2.0.0&token={}0", gateway.user());
    assert_eq!(gateway.upgrade(&target, "").await.0, 503);
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_does_not_wait_for_ever() {
    let gateway = Gateway::start();
    let mute = gateway.raw().await;
    let left = gateway.hub.drain(Duration::from_millis(50)).await;
    assert_eq!(left, 1, "a client that does not answer");
    assert_eq!(mute.close_code().await, 1012);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_logout_closes_the_sockets_of_its_session_only() {
    let gateway = Gateway::start();
    let user = gateway.user();
    let mut one = gateway.connect_with(&format!("{user}1")).await;
    let mut two = gateway.connect_with(&format!("{user}2")).await;
    let mut other = gateway.connect(gateway.user()).await;
    let revocation = Revocation { seq: 1, user_id: user, token_hash: Some(TokenHash([b'1'; 32])) };
    gateway.hub.revoke(&revocation).await;
    assert_eq!(one.close_code().await, 3003);
    two.join("t").await;
    gateway.hub.revoke(&Revocation { token_hash: None, ..revocation }).await;
    assert_eq!(two.close_code().await, 3003);
    other.join("t").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_revoked_closes_its_sockets_only() {
    let gateway = Gateway::start();
    let owner = gateway.user();
    let mut one = gateway.connect_with(&format!("nxk_{owner}1*")).await;
    let mut two = gateway.connect_with(&format!("nxk_{owner}2*")).await;
    let mut session = gateway.connect_with(&format!("{owner}3")).await;
    let revocation = Revocation { seq: 1, user_id: owner, token_hash: Some(TokenHash([b'1'; 32])) };
    gateway.hub.revoke(&revocation).await;
    assert_eq!(one.close_code().await, 3003);
    session.join("t").await;
    gateway.hand.advance(Duration::from_secs(3_600));
    assert_eq!(two.close_code().await, 3003, "it expired");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_shows_nothing_comes_in_only_where_anybody_may() {
    let open = Gateway::set(Options { anonymous: true, ..Options::default() });
    let (stream, _) = connect_async(format!("ws://{}/socket/websocket?vsn=2.0.0", open.address)).await.unwrap();
    let mut peer = Peer(stream);
    peer.send(json!([null, "1", "phoenix", "heartbeat", {}])).await;
    assert_eq!(peer.next().await[1], "1");
    let (status, answer) = open.upgrade("/socket/websocket?vsn=2.0.0&token=nobody-knows-this-token", "").await;
    assert_eq!(status, 403, "who shows a token is held to it: {answer}");
    open.hub.drain(PATIENCE).await;
    assert_eq!(peer.close_code().await, 1012);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_expires_closes_its_sockets() {
    let gateway = Gateway::start();
    let mut peer = gateway.joined("t").await;
    gateway.hand.advance(Duration::from_secs(3_600));
    assert_eq!(peer.close_code().await, 3003);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_silent_too_long_is_closed() {
    let gateway = Gateway::with(Limits { silence_max: Duration::from_millis(50), ..Limits::default() });
    assert_eq!(gateway.raw().await.close_code().await, 3004);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_let_go_is_let_go() {
    let limits = Limits { goodbye_max: Duration::from_millis(50), ..Limits::default() };
    let gateway = Gateway::with(limits);
    let mut raw = gateway.raw().await;
    raw.0.write_all(b"\x81\x01x").await.unwrap();
    let mut sockets = gateway.hub.counted();
    tokio::time::timeout(PATIENCE, sockets.wait_for(|count| *count == 0)).await.unwrap().unwrap();
    drop(raw);
}

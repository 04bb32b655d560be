//! Streams of events over real connections: plain WebSockets and Server-Sent Events.

use tokio::io::{AsyncBufReadExt, BufReader};

use super::*;
use crate::{
    hub::{StreamName, ToWorker, WorkerId},
    testing,
};

impl Gateway {
    /// `orders?from=3`, with a user's token.
    fn target(&self, of: &str) -> String {
        let sign = if of.contains('?') { '&' } else { '?' };
        format!("{of}{sign}token={}0", self.user())
    }

    /// A plain socket.
    async fn plain(&self, of: &str) -> Peer {
        self.plain_as(&self.target(of)).await
    }

    async fn plain_as(&self, target: &str) -> Peer {
        let (stream, _) = connect_async(format!("ws://{}/ws/events/{target}", self.address)).await.unwrap();
        Peer(stream)
    }

    /// A stream of Server-Sent Events.
    async fn stream(&self, of: &str, more: &str) -> ServerSent {
        let target = self.target(&of.replacen('?', "/stream?", 1));
        let target = if of.contains('?') { target } else { target.replacen('?', "/stream?", 1) };
        self.stream_as(&target, more).await
    }

    async fn stream_as(&self, target: &str, more: &str) -> ServerSent {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("GET /events/{target} HTTP/1.1\r\nHost: localhost\r\n{more}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut reading = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(reading.read_line(&mut head).await.unwrap(), 0, "{head}");
        }
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        ServerSent { reading, head: head.to_lowercase(), text: String::new() }
    }

    async fn nobody_left(&self) {
        let mut sockets = self.hub.counted();
        tokio::time::timeout(PATIENCE, sockets.wait_for(|count| *count == 0)).await.unwrap().unwrap();
    }
}

impl Peer {
    /// `[offset, count]` of the next event.
    async fn counted(&mut self) -> [u64; 2] {
        let event = self.next().await;
        ["offset", "count"].map(|member| event[member].as_u64().unwrap_or_else(|| panic!("{event}")))
    }
}

struct ServerSent {
    reading: BufReader<TcpStream>,
    head: String,
    text: String,
}

impl ServerSent {
    /// The next block, without the empty line that ends it; `None` at the end.
    async fn block(&mut self) -> Option<String> {
        loop {
            if let Some((block, rest)) = self.text.split_once("\n\n") {
                let block = block.to_owned();
                self.text = rest.to_owned();
                return Some(block);
            }
            let more = tokio::time::timeout(PATIENCE, self.chunk()).await.expect("something comes");
            self.text.push_str(&more?);
        }
    }

    async fn chunk(&mut self) -> Option<String> {
        let mut size = String::new();
        self.reading.read_line(&mut size).await.unwrap();
        let mut chunk = vec![0; usize::from_str_radix(size.trim(), 16).unwrap() + 2];
        self.reading.read_exact(&mut chunk).await.unwrap();
        chunk.truncate(chunk.len() - 2);
        (!chunk.is_empty()).then(|| String::from_utf8(chunk).unwrap())
    }

    /// `[id, offset, count]` of the next event.
    async fn counted(&mut self) -> [u64; 3] {
        let block = self.block().await.expect("an event comes");
        let (id, rest) = block.split_once("\nevent: event\ndata: ").unwrap_or_else(|| panic!("{block}"));
        let event: Value = serde_json::from_str(rest).unwrap();
        [
            id.strip_prefix("id: ").unwrap().parse().unwrap(),
            event["offset"].as_u64().unwrap(),
            event["count"].as_u64().unwrap(),
        ]
    }

    async fn begins(&mut self) {
        assert_eq!(self.block().await.unwrap(), "retry: 1000");
    }

    /// That nothing but comments comes before the end.
    async fn ends(mut self) {
        while let Some(block) = self.block().await {
            assert_eq!(block, ":", "nothing is said after the end");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_are_refused_with_what_is_wrong() {
    let gateway = Gateway::start();
    let token = format!("token={}0", gateway.user());
    let key = format!("token=nxk_{}0orders.*", gateway.user());
    let long = "c".repeat(300);
    for (of, query, more, status, why) in [
        ("orders", "", "", 401, "credentials_missing"),
        ("orders", "token=x", "", 401, "token_invalid"),
        ("orders", "token=nobody-knows-this-token", "", 401, "away"),
        ("orders", "", "Authorization: Basic YTpi\r\n", 400, "header_invalid"),
        ("orders", &key, "", 403, "out_of_scope"),
        ("$orders", &token, "", 403, "category_reserved"),
        ("a%2Fb", &token, "", 400, "category_invalid"),
        (&long, &token, "", 400, "category_invalid"),
        ("orders", &format!("{token}&from=-1"), "", 400, "from_invalid"),
        ("orders", &format!("{token}&from=1.5"), "", 400, "from_invalid"),
        ("orders", &token, "Origin: http://evil.example\r\n", 403, "origin_not_allowed"),
    ] {
        let (found, answer) = gateway.upgrade(&format!("/ws/events/{of}?{query}"), more).await;
        assert_eq!((found, answer.contains(why)), (status, true), "/ws/events/{of}?{query}: {answer}");
        let request =
            format!("GET /events/{of}/stream?{query} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{more}\r\n");
        let (found, answer) = gateway.http(&request).await;
        assert_eq!((found, answer.contains(why)), (status, true), "/events/{of}/stream?{query}: {answer}");
        assert!(answer.contains("application/problem+json"), "{answer}");
    }
    assert_eq!(gateway.upgrade(&format!("/ws/events/a/b?{token}"), "").await.0, 404);
    let plain = format!("GET /ws/events/a?{token} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let (status, answer) = gateway.http(&plain).await;
    assert_eq!((status, answer.contains("handshake_invalid")), (400, true), "{answer}");
    assert_eq!(gateway.hub.sockets(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_event_comes_once_in_order_and_each_connection_counts_for_itself() {
    let gateway = Gateway::start();
    let mut first = gateway.plain("orders").await;
    let mut sent = gateway.stream("orders", "").await;
    sent.begins().await;
    gateway.platform.fire("orders", "{\"n\": 1}");
    let Message::Text(text) = first.message().await.unwrap() else { panic!("events are text") };
    assert!(text.starts_with(r#"{"id":"e1","category":"orders","#) && text.ends_with(r#","count":1}"#), "{text}");
    assert!(text.contains(r#""data":{"n": 1},"offset":1,"firedAt":"#), "data is as it was posted: {text}");
    assert_eq!(sent.counted().await, [1, 1, 1]);
    let mut second = gateway.plain("orders").await;
    let mut other = gateway.plain("payments").await;
    for _ in 2..=50 {
        gateway.platform.fire("orders", "null");
    }
    gateway.platform.fire("payments", "null");
    for offset in 2..=50 {
        assert_eq!(first.counted().await, [offset, offset]);
        assert_eq!(second.counted().await, [offset, offset - 1]);
        assert_eq!(sent.counted().await, [offset; 3]);
    }
    assert_eq!(other.counted().await, [1, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_back_goes_on_after_what_it_has() {
    let gateway = Gateway::start();
    for _ in 0..5 {
        gateway.platform.append("orders", "1");
    }
    let mut peer = gateway.plain("orders?from=3").await;
    let mut queried = gateway.stream("orders?from=3", "").await;
    let mut remembered = gateway.stream("orders?from=1", "Last-Event-ID: 3\r\n").await;
    queried.begins().await;
    remembered.begins().await;
    gateway.platform.fire("orders", "1");
    for (count, offset) in (1..).zip(4..=6) {
        assert_eq!(peer.counted().await, [offset, count]);
        assert_eq!(queried.counted().await, [offset, offset, count]);
        assert_eq!(remembered.counted().await, [offset, offset, count]);
    }
    let mut new = gateway.plain("orders").await;
    gateway.platform.fire("orders", "1");
    assert_eq!(new.counted().await, [7, 1], "who asks for nothing gets what comes");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_brought_back_is_said_first() {
    let gateway = Gateway::start();
    for _ in 0..1_001 {
        gateway.platform.append("many", "1");
        gateway.platform.append("trimmed", "1");
    }
    gateway.platform.append("few", "1");
    gateway.platform.trim_events("trimmed", 990);
    for (category, from, head) in [("many", 0, 1_001), ("trimmed", 980, 1_001), ("few", 9, 1), ("none", 1, 0)] {
        let mut peer = gateway.plain(&format!("{category}?from={from}")).await;
        let mut sent = gateway.stream(&format!("{category}?from={from}"), "").await;
        assert_eq!(peer.next().await, json!({ "recovered": false, "offset": head }), "{category}");
        sent.begins().await;
        let said = format!("id: {head}\nevent: gap\ndata: {{\"recovered\":false,\"offset\":{head}}}");
        assert_eq!(sent.block().await.unwrap(), said);
        gateway.platform.fire(category, "1");
        assert_eq!(peer.counted().await, [head + 1, 1]);
        assert_eq!(sent.counted().await, [head + 1, head + 1, 1]);
    }
    // What an `EventSource` sends by itself is never refused.
    let mut strange = gateway.stream("few", "Last-Event-ID: of-another-server\r\n").await;
    strange.begins().await;
    assert!(strange.block().await.unwrap().ends_with("\nevent: gap\ndata: {\"recovered\":false,\"offset\":2}"));
    let mut peer = gateway.plain("many?from=2").await;
    assert_eq!(peer.counted().await, [3, 1], "a thousand are brought back");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_plain_client_says_is_read_and_let_go() {
    let gateway = Gateway::start();
    let mut peer = gateway.plain("orders").await;
    for message in [Message::text("[1,2"), Message::text("ping"), Message::binary(vec![0xff; 1_000])] {
        peer.0.send(message).await.unwrap();
    }
    peer.0.send(Message::Ping("there?".into())).await.unwrap();
    assert_eq!(peer.message().await.unwrap(), Message::Pong("there?".into()));
    gateway.platform.fire("orders", "1");
    assert_eq!(peer.counted().await, [1, 1]);
    peer.0.send(Message::text("x".repeat(200_000))).await.unwrap();
    assert_eq!(peer.close_code().await, 1009);
    let mut peer = gateway.plain("orders").await;
    peer.0.close(Some(CloseFrame { code: 4000.into(), reason: "bye".into() })).await.unwrap();
    assert_eq!(peer.close_code().await, 4000);
    gateway.nobody_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_of_more_than_a_queue_holds_is_no_slowness() {
    const BURST: u64 = 4_000;
    let gateway = Gateway::start();
    let mut peer = gateway.plain("orders").await;
    let mut sent = gateway.stream("orders", "").await;
    sent.begins().await;
    for _ in 0..BURST {
        gateway.platform.fire("orders", "\"some thing that is not very long, and not very short\"");
    }
    let reading = async {
        for offset in 1..=BURST {
            assert_eq!(sent.counted().await, [offset; 3]);
        }
    };
    let listening = async {
        for offset in 1..=BURST {
            assert_eq!(peer.counted().await, [offset; 2]);
        }
    };
    tokio::join!(reading, listening);
    gateway.nothing_queued().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_is_ended_as_slow_and_others_do_not_notice() {
    let gateway = Gateway::patient();
    let mut fast = gateway.plain("orders").await;
    let mut slow = gateway.plain("orders").await;
    let mut slow_sent = gateway.stream("orders", "").await;
    let data = format!("\"{}\"", "x".repeat(60_000));
    let mut fired = 0;
    while gateway.ended(Ending::Slow) < 2 {
        fired += 1;
        assert!(fired < 1_000, "the slow ones were never noticed");
        gateway.platform.fire("orders", &data);
        assert_eq!(fast.counted().await, [fired, fired]);
    }
    let mut last = 0;
    let code = loop {
        match slow.message().await.unwrap() {
            Message::Text(text) => {
                let event: Value = serde_json::from_str(&text).unwrap();
                last += 1;
                assert_eq!((&event["offset"], &event["count"]), (&json!(last), &json!(last)), "nothing is left out");
            }
            Message::Close(frame) => break u16::from(frame.unwrap().code),
            _ => {}
        }
    };
    assert_eq!((code, last < fired), (3008, true));
    let mut back = gateway.plain(&format!("orders?from={last}")).await;
    assert_eq!(back.counted().await, [last + 1, 1]);
    slow_sent.begins().await;
    let mut last = 0;
    while let Some(block) = slow_sent.block().await {
        last += 1;
        assert!(block.starts_with(&format!("id: {last}\n")), "whole events, and no other");
    }
    assert!(last < fired, "it ended before the last");
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_nobody_reads_does_not_keep_its_place() {
    let limits = Limits { silence_max: Duration::from_secs(3), ..Limits::default() };
    let gateway = Gateway::with(limits);
    let unread = gateway.stream("orders", "").await;
    // One that reads, so that no more is fired than goes out.
    let mut fast = gateway.stream("orders", "").await;
    fast.begins().await;
    let data = format!("\"{}\"", "x".repeat(200_000));
    while gateway.ended(Ending::Slow) == 0 {
        gateway.platform.fire("orders", &data);
        fast.counted().await;
    }
    drop(fast);
    gateway.nobody_left().await;
    drop(unread);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_gone_is_noticed() {
    let gateway = Gateway::start();
    let peer = gateway.plain("orders").await;
    let sent = gateway.stream("orders", "").await;
    assert_eq!(gateway.hub.sockets(), 2);
    drop((peer, sent));
    let mut sockets = gateway.hub.counted();
    let gone = async {
        while tokio::time::timeout(Duration::from_millis(50), sockets.wait_for(|count| *count == 0)).await.is_err() {
            gateway.platform.fire("orders", "1");
        }
    };
    tokio::time::timeout(PATIENCE, gone).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revoked_or_expired_key_ends_what_was_opened_with_it() {
    let gateway = Gateway::start();
    let owner = gateway.user();
    let (one, two) = (format!("token=nxk_{owner}1ord*"), format!("token=nxk_{owner}2ord*"));
    let mut peers =
        [gateway.plain_as(&format!("orders?{one}")).await, gateway.plain_as(&format!("orders?{two}")).await];
    let mut sents = [
        gateway.stream_as(&format!("orders/stream?{one}"), "").await,
        gateway.stream_as(&format!("orders/stream?{two}"), "").await,
    ];
    for sent in &mut sents {
        sent.begins().await;
    }
    let [revoked, mut kept] = sents;
    let revocation = Revocation { seq: 1, user_id: owner, token_hash: Some(TokenHash([b'1'; 32])) };
    gateway.hub.revoke(&revocation).await;
    assert_eq!(peers[0].close_code().await, 3003);
    revoked.ends().await;
    gateway.platform.fire("orders", "1");
    assert_eq!(peers[1].counted().await, [1, 1]);
    assert_eq!(kept.counted().await, [1, 1, 1]);
    gateway.hand.advance(Duration::from_secs(3_600));
    assert_eq!(peers[1].close_code().await, 3003);
    kept.ends().await;
    gateway.nobody_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_ends_every_stream_and_a_browser_tries_again() {
    let gateway = Gateway::start();
    let mut peer = gateway.plain("orders").await;
    let mut sent = gateway.stream("orders", "").await;
    sent.begins().await;
    let draining = tokio::spawn({
        let hub = gateway.hub.clone();
        async move { hub.drain(PATIENCE).await }
    });
    assert_eq!(peer.close_code().await, 1012);
    sent.ends().await;
    while peer.message().await.is_ok() {}
    assert_eq!(draining.await.unwrap(), 0);
    assert_eq!(gateway.upgrade(&format!("/ws/events/{}", gateway.target("orders")), "").await.0, 503);
    let mut late = gateway.stream("orders", "").await;
    late.begins().await;
    late.ends().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_listens_to_a_stream_that_begins_anew_is_told_to_come_back() {
    let gateway = Gateway::start();
    let mut peer = gateway.plain("orders").await;
    let mut sent = gateway.stream("orders", "").await;
    sent.begins().await;
    // One whose handshake is under way: it is welcomed before it is ended.
    gateway.platform.joins.close();
    let (mut late, ()) = tokio::join!(gateway.plain("orders?from=7"), async {
        gateway.platform.joins.has_waiting(1).await;
        for worker in 0..2 {
            let stream = StreamName::Category(testing::category("orders"));
            gateway.hub.tell(WorkerId(worker), ToWorker::BeginAnew(stream)).await;
        }
        assert_eq!(peer.close_code().await, 1013);
        sent.ends().await;
        gateway.platform.joins.open();
    });
    assert_eq!(late.close_code().await, 1013);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_shakes_hands_while_all_must_prove_themselves_anew_must_too() {
    let gateway = Gateway::start();
    let mut open = gateway.plain("orders").await;
    // Their credentials were found good; where the stream stands is not known yet.
    gateway.platform.joins.close();
    let (mut peer, (), ()) = tokio::join!(
        gateway.plain("orders?from=7"),
        async {
            let mut sent = gateway.stream("orders?from=7", "").await;
            sent.begins().await;
            sent.ends().await;
        },
        async {
            gateway.platform.joins.has_waiting(2).await;
            gateway.hub.reconnect_all().await;
            assert_eq!(open.close_code().await, 1012);
            gateway.platform.joins.open();
        }
    );
    assert_eq!(peer.close_code().await, 1012);
    let mut again = gateway.plain("orders").await;
    gateway.platform.fire("orders", "1");
    assert_eq!(again.counted().await, [1, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_count_among_the_sockets_of_a_node() {
    let gateway = Gateway::with(Limits { sockets_max: 1, ..Limits::default() });
    let sent = gateway.stream("orders", "").await;
    let (status, answer) = gateway.upgrade(&format!("/ws/events/{}", gateway.target("orders")), "").await;
    assert_eq!((status, answer.contains("sockets_max_reached")), (503, true), "{answer}");
    let target = gateway.target("orders/stream");
    let request = format!("GET /events/{target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    let (status, answer) = gateway.http(&request).await;
    assert_eq!((status, answer.to_lowercase().contains("retry-after: 1")), (503, true), "{answer}");
    drop(sent);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_store_is_away_a_client_is_told_to_come_back() {
    let gateway = Gateway::start();
    gateway.platform.append("orders", "1");
    let open = Gateway::set(Options { anonymous: true, ..Options::default() });
    // Without credentials nothing but the store is asked.
    open.platform.set_broken(true);
    let mut peer = open.plain_as("orders").await;
    assert_eq!(peer.close_code().await, 1013);
    let mut sent = open.stream_as("orders/stream", "").await;
    sent.begins().await;
    sent.ends().await;
    open.platform.set_broken(false);
    let mut peer = open.plain_as("orders").await;
    open.platform.fire("orders", "1");
    assert_eq!(peer.counted().await, [1, 1]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_door_of_streams_says_what_it_is() {
    let listed = "http://app.example:3333";
    let gateway = Gateway::set(Options { allowed_origins: vec![listed.to_owned()], ..Options::default() });
    let origin = format!("Origin: {listed}\r\n");
    let sent = gateway.stream("orders", &origin).await;
    for line in [
        "content-type: text/event-stream\r\n",
        "cache-control: no-store\r\n",
        "x-accel-buffering: no\r\n",
        "access-control-allow-origin: http://app.example:3333\r\n",
        "vary: origin\r\n",
    ] {
        assert!(sent.head.contains(line), "{}", sent.head);
    }
    let ask = async |method: &str, more: &str| {
        let target = gateway.target("orders/stream");
        let (status, answer) = gateway
            .http(&format!("{method} /events/{target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{more}\r\n"))
            .await;
        (status, answer.to_lowercase())
    };
    let (status, answer) = ask("HEAD", "").await;
    assert_eq!(
        (status, answer.contains("text/event-stream"), answer.ends_with("\r\n\r\n")),
        (200, true, true),
        "{answer}"
    );
    let (status, answer) = ask("OPTIONS", &origin).await;
    assert_eq!((status, answer.contains("access-control-allow-headers: authorization")), (204, true), "{answer}");
    assert_eq!(ask("OPTIONS", "Origin: http://evil.example\r\n").await.0, 403);
    let (status, answer) = ask("POST", "Content-Length: 0\r\n").await;
    assert_eq!((status, answer.contains("method_not_allowed")), (405, true), "{answer}");
    let (status, answer) = gateway
        .http("GET /events/orders/stream HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer nobody-knows-this\r\n\r\n")
        .await;
    assert_eq!(status, 401, "{answer}");
}

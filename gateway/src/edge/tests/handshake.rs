//! Who comes in, and what stands beside the sockets on the same port.

use super::*;

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

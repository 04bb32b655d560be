//! How a socket ends: the node stops, its token does, or its client is silent.

use super::*;

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

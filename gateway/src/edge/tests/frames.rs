//! What goes over a socket, and how fast its client reads.

use super::*;

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
    let gateway = Gateway::patient();
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
    gateway.nothing_queued().await;
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

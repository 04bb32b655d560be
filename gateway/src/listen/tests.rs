//! Listening, where what a stream was before reaches into what it is now.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use super::*;
use crate::{
    hub::{StreamName, ToWorker, WorkerId},
    testing::{Client, Node, category, event},
};

/// Asks to join `events:t`, with these params.
fn ask(client: &Client, params: &Value) {
    client.send(&json!(["1", "1", "events:t", "phx_join", params]));
}

/// What the join is answered.
async fn answer(client: &Client) -> Value {
    let reply = client.next().await;
    assert_eq!(reply[4]["status"], "ok", "{reply}");
    reply[4]["response"].clone()
}

/// The log has events 1 to 5. A burst with event 2, that the feed sent before it let go of the stream, comes only now.
async fn a_late_burst(node: &Node) {
    for _ in 1..=5 {
        node.platform.append("t", "1");
    }
    let burst = [Categories::encode(&category("t"), event("t", 2).into())].into();
    let stream = StreamName::Category(category("t"));
    assert!(node.hub.tell(WorkerId(0), ToWorker::Dispatch { stream, burst }).await);
    // Time moves when nothing else does: it was taken.
    sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_late_burst_does_not_say_where_the_stream_stands() {
    Node::run(async |node| {
        node.platform.joins.close();
        let (first, second) = (node.client(), node.client());
        ask(&first, &json!({}));
        node.platform.joins.has_waiting(1).await;
        a_late_burst(&node).await;
        ask(&second, &json!({ "last_offset": 2 }));
        sleep(Duration::from_millis(1)).await;
        node.platform.joins.open();
        assert_eq!(answer(&first).await, json!({ "offset": 5, "recovered": false }));
        assert_eq!(answer(&second).await, json!({ "offset": 5, "recovered": true }));
        node.platform.fire("t", "1");
        assert_eq!(first.offsets_of("event", 1).await, [6]);
        assert_eq!(second.offsets_of("event", 4).await, [3, 4, 5, 6]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_late_burst_does_not_begin_a_stream_that_nobody_could_begin() {
    Node::run(async |node| {
        node.platform.set_broken(true);
        let (failed, next) = (node.client(), node.client());
        ask(&failed, &json!({}));
        assert_eq!(failed.next().await[4]["status"], "error");
        a_late_burst(&node).await;
        node.platform.set_broken(false);
        ask(&next, &json!({}));
        assert_eq!(answer(&next).await["offset"], 5);
        node.platform.fire("t", "1");
        assert_eq!(next.offsets_of("event", 1).await, [6]);
    })
    .await;
}

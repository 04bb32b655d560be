//! Listening, where what a stream was before reaches into what it is now.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use super::*;
use crate::{
    hub::{Ending, StreamName, ToWorker, WorkerId},
    platform::Platform,
    testing::{Client, Node, category, event, topic},
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

#[tokio::test(start_paused = true)]
async fn history_that_is_trimmed_while_it_is_read_is_not_left_out_in_silence() {
    Node::run(async |node| {
        for _ in 1..=150 {
            node.platform.append("t", "1");
        }
        let client = node.client();
        // The first page of a hundred waits until the client takes it.
        client.outlet.queued.set(usize::MAX);
        ask(&client, &json!({ "last_offset": 0 }));
        assert_eq!(answer(&client).await, json!({ "offset": 150, "recovered": true }));
        node.platform.trim_events("t", 120);
        client.outlet.queued.set(0);
        client.outlet.drained.notify_waiters();
        assert_eq!(client.offsets_of("event", 100).await, (1..=100).collect::<Vec<u64>>());
        assert_eq!(client.next().await[3], "phx_error");
        ask(&client, &json!({ "last_offset": 100 }));
        assert_eq!(answer(&client).await, json!({ "offset": 150, "recovered": false }));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_little_at_a_time_is_brought_up_to_date_and_one_that_takes_next_to_nothing_is_not() {
    Node::run(async |node| {
        node.platform.append("t", "1");
        for (taken, past) in [(8 * 1024, true), (100, false)] {
            let client = node.client();
            client.outlet.queued.set(256 * 1024);
            ask(&client, &json!({ "last_offset": 0 }));
            answer(&client).await;
            let outlet = &client.outlet;
            while outlet.queued.get() > taken && outlet.ended.get().is_none() {
                sleep(Duration::from_secs(9)).await;
                outlet.queued.set(outlet.queued.get() - taken);
            }
            assert_eq!(outlet.ended.get(), (!past).then_some(Ending::Slow));
            if past {
                outlet.queued.set(0);
                outlet.drained.notify_waiters();
                assert_eq!(client.offsets_of("event", 1).await, [1]);
            }
        }
    })
    .await;
}

// A store that was put back to an older state.

#[tokio::test(start_paused = true)]
async fn who_listens_comes_back_when_the_log_was_put_back() {
    Node::run(async |node| {
        let (live, other) = (node.client(), node.client());
        ask(&live, &json!({}));
        answer(&live).await;
        other.send(&json!(["1", "1", "events:other", "phx_join", {}]));
        other.next().await;
        for _ in 1..=3 {
            node.platform.fire("t", "1");
        }
        assert_eq!(live.offsets_of("event", 3).await, [1, 2, 3]);
        node.platform.put_events_back("t", 1);
        assert_eq!(live.outlet.ends().await, Ending::Unavailable);
        assert_eq!(other.outlet.ended.get(), None, "nobody else is concerned");
        let back = node.client();
        ask(&back, &json!({ "last_offset": 3 }));
        assert_eq!(answer(&back).await, json!({ "offset": 1, "recovered": false }));
        node.platform.fire("t", "1");
        assert_eq!(back.offsets_of("event", 1).await, [2]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn who_is_being_brought_up_to_date_joins_again_when_the_stream_begins_anew() {
    Node::run(async |node| {
        for _ in 1..=3 {
            node.platform.append("t", "1");
        }
        let (client, asking) = (node.client(), node.client());
        // It has not taken anything yet when the stream begins anew.
        client.outlet.queued.set(usize::MAX);
        ask(&client, &json!({ "last_offset": 0 }));
        assert_eq!(answer(&client).await["recovered"], true);
        // And this one has not heard yet where it begins.
        node.platform.joins.close();
        ask(&asking, &json!({ "last_offset": 2 }));
        node.platform.joins.has_waiting(1).await;
        let stream = StreamName::Category(category("t"));
        assert!(node.hub.tell(WorkerId(0), ToWorker::BeginAnew(stream)).await);
        sleep(Duration::from_millis(1)).await;
        node.platform.joins.open();
        client.outlet.queued.set(0);
        client.outlet.drained.notify_waiters();
        assert_eq!(client.offsets_of("event", 3).await, [1, 2, 3]);
        assert_eq!(client.next().await[3], "phx_error");
        answer(&asking).await;
        assert_eq!(asking.offsets_of("event", 1).await, [3]);
        assert_eq!(asking.next().await[3], "phx_error");
        assert_eq!((client.outlet.ended.get(), asking.outlet.ended.get()), (None, None), "their sockets stay");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn who_watches_a_topic_is_told_anew_what_is_unread_when_its_log_was_put_back() {
    Node::run(async |node| {
        let client = node.client();
        node.platform.join(&topic("t"), client.user).await.unwrap();
        client.send(&json!(["u", "u", format!("user:{}", client.user), "phx_join", {}]));
        answer(&client).await;
        for number in 1..=3 {
            node.platform.announce("t", "m");
            assert_eq!(client.next().await[4]["broadcast_no"], number);
        }
        node.platform.put_back("t", 1);
        let unread = client.next().await;
        assert_eq!((&unread[3], &unread[4]["topics"][0]["broadcast_no"]), (&json!("unread"), &json!(1)));
        node.platform.announce("t", "m");
        assert_eq!(client.next().await[4]["broadcast_no"], 2);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_worker_thread_that_panics_makes_its_sockets_come_back() {
    Node::run(async |node| {
        let (broken, other) = (node.client(), node.client());
        for client in [&broken, &other] {
            ask(client, &json!({}));
            answer(client).await;
        }
        broken.outlet.bug.set(true);
        node.platform.fire("t", "1");
        for client in [&broken, &other] {
            assert_eq!(client.outlet.ends().await, Ending::Unavailable);
        }
        broken.outlet.bug.set(false);
        let back = node.client();
        ask(&back, &json!({ "last_offset": 0 }));
        assert_eq!(answer(&back).await, json!({ "offset": 1, "recovered": true }));
        node.platform.fire("t", "1");
        assert_eq!(back.offsets_of("event", 2).await, [1, 2]);
    })
    .await;
}

//! What a member missed: it comes after the reply, before what is live, at the client's pace.

use std::time::Duration;

use serde_json::json;

use super::joined;
use crate::{hub::Ending, listen, testing::Node};

#[tokio::test(start_paused = true)]
async fn a_resumed_join_gets_what_was_missed_what_came_meanwhile_and_what_follows() {
    Node::run(async |node| {
        let (ann, ben) = (node.client(), node.client());
        joined(&ann, "t", json!({})).await;
        for at in 1..=5 {
            node.platform.announce("t", &at.to_string());
        }
        ann.offsets(5).await;
        // The log answers late: meanwhile 6 and 7 are committed, and 7 is announced first.
        node.platform.logs.close();
        ben.send(&json!(["1", "1", "notification:t", "phx_join", { "last_offset": 2 }]));
        node.platform.logs.has_waiting(1).await;
        let six = node.platform.commit("t", "6", &[]);
        node.platform.announce("t", "7");
        node.platform.bus.publish(six);
        ann.offsets(2).await;
        node.platform.logs.open();
        let response = ben.next().await[4]["response"].clone();
        assert_eq!((&response["offset"], &response["recovered"]), (&json!(5), &json!(true)));
        node.platform.announce("t", "8");
        assert_eq!(ben.offsets(6).await, [3, 4, 5, 6, 7, 8]);
        ben.silence().await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_first_join_of_a_node_misses_nothing_that_no_hint_tells_of() {
    Node::run(async |node| {
        let client = node.client();
        node.platform.create("t", client.user);
        node.platform.commit("t", "1", &[]);
        assert_eq!(joined(&client, "t", json!({ "last_offset": 0 })).await["recovered"], true);
        assert_eq!(client.offsets(1).await, [1]);
        node.platform.commit("t", "2", &[]);
        assert_eq!(client.offsets(1).await, [2]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_resumed_join_gets_targeted_ones_only_if_they_are_its_own() {
    Node::run(async |node| {
        let (ann, ben) = (node.client(), node.client());
        node.platform.create("t", ann.user);
        for to in [&[][..], &[ann.user], &[ben.user], &[ann.user, ben.user]] {
            node.platform.commit("t", "m", to);
        }
        joined(&ben, "t", json!({ "last_offset": 0 })).await;
        assert_eq!(ben.offsets(3).await, [1, 3, 4]);
        ben.silence().await;
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_recovered_is_said() {
    Node::run(async |node| {
        let creator = node.user();
        node.platform.create("t", creator);
        for _ in 0..=listen::MISSED_MAX {
            node.platform.commit("t", "m", &[]);
        }
        let newest = listen::MISSED_MAX + 1;
        for (last_offset, recovered) in [(0, false), (1, true), (newest, true), (newest + 1, false)] {
            let client = node.client();
            let response = joined(&client, "t", json!({ "last_offset": last_offset })).await;
            assert_eq!((&response["recovered"], &response["offset"]), (&json!(recovered), &json!(newest)));
            let missed: Vec<u64> = if recovered { (last_offset + 1..=newest).collect() } else { vec![] };
            assert_eq!(client.offsets(missed.len()).await, missed);
            client.silence().await;
        }
        node.platform.trim("t", 900);
        assert_eq!(joined(&node.client(), "t", json!({ "last_offset": 899 })).await["recovered"], false);
        assert_eq!(joined(&node.client(), "t", json!({ "last_offset": 900 })).await["recovered"], true);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_member_that_gets_too_much_while_it_catches_up_reads_on_in_the_store() {
    Node::run(async |node| {
        let (ann, ben) = (node.client(), node.client());
        joined(&ann, "t", json!({})).await;
        node.platform.announce("t", "1");
        ann.offsets(1).await;
        node.platform.logs.close();
        ben.send(&json!(["1", "1", "notification:t", "phx_join", { "last_offset": 0 }]));
        node.platform.logs.has_waiting(1).await;
        for _ in 0..700 {
            node.platform.announce("t", "m");
        }
        ann.offsets(700).await;
        node.platform.logs.open();
        ben.next().await;
        assert_eq!(ben.offsets(701).await, (1..=701).collect::<Vec<u64>>());
        node.platform.announce("t", "live");
        assert_eq!(ben.offsets(1).await, [702]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_client_is_brought_up_to_date_at_its_pace() {
    Node::run(async |node| {
        let (creator, client) = (node.user(), node.client());
        node.platform.create("t", creator);
        for _ in 0..10 {
            node.platform.commit("t", &"m".repeat(30_000), &[]);
        }
        client.outlet.queued.set(usize::MAX);
        client.send(&json!(["1", "1", "notification:t", "phx_join", { "last_offset": 0 }]));
        client.next().await;
        let early = tokio::time::timeout(Duration::from_secs(5), client.next()).await;
        assert!(early.is_err(), "nothing is sent while much waits");
        client.outlet.queued.set(0);
        client.outlet.drained.notify_waiters();
        assert_eq!(client.offsets(10).await.len(), 10);
        assert_eq!(client.outlet.ended.get(), None);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_client_that_takes_nothing_is_ended_as_slow() {
    Node::run(async |node| {
        let (creator, client) = (node.user(), node.client());
        node.platform.create("t", creator);
        node.platform.commit("t", "m", &[]);
        client.outlet.queued.set(usize::MAX);
        client.send(&json!(["1", "1", "notification:t", "phx_join", { "last_offset": 0 }]));
        client.next().await;
        client.outlet.drained.notified().await;
        assert_eq!(client.outlet.ended.get(), Some(Ending::Slow));
    })
    .await;
}

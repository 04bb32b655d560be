//! How a session ends.

use std::{rc::Rc, time::Duration};

use serde_json::json;

use super::joined;
use crate::{hub::Ending, testing::Node};

#[tokio::test(start_paused = true)]
async fn draining_waits_a_moment_for_answers() {
    Node::run(async |node| {
        let (idle, busy, stuck) = (node.client(), node.client(), node.client());
        joined(&busy, "t", json!({})).await;
        node.platform.publishes.close();
        busy.send(&json!(["1", "2", "notification:t", "new_notification", { "message": "m" }]));
        node.platform.publishes.has_waiting(1).await;
        node.platform.joins.close();
        stuck.send(&json!(["1", "1", "notification:t", "phx_join", {}]));
        let hub = node.hub.clone();
        tokio::spawn(async move { hub.drain(Duration::from_secs(5)).await });
        tokio::time::sleep(Duration::from_millis(20)).await;
        let ended = || [&idle, &busy, &stuck].map(|client| client.outlet.ended.get());
        assert_eq!(ended(), [Some(Ending::Drain), None, None]);
        node.platform.publishes.open();
        assert!(busy.nexts(2).await.iter().any(|frame| frame[1] == "2"));
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(ended(), [Some(Ending::Drain), Some(Ending::Drain), None]);
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(ended()[2], Some(Ending::Drain));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_session_that_ends_leaves_nothing_behind() {
    Node::run(async |node| {
        let client = node.client();
        joined(&client, "t", json!({})).await;
        client.send(&json!(["2", "2", format!("user:{}", client.user), "phx_join", {}]));
        client.next().await;
        let (session, metrics) = (Rc::downgrade(&client.session), node.hub.metrics().clone());
        client.session.end();
        assert_eq!(metrics.channels.get(), 0);
        drop(client);
        tokio::time::sleep(Duration::from_secs(15)).await;
        assert!(session.upgrade().is_none());
        assert_eq!(metrics.topics.followed.get(), 0, "the feed has forgotten the topic");
    })
    .await;
}

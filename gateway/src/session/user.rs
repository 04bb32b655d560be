//! Joining `user:<id>`: what a person has not seen, and what keeps that up to date while the channel is open.

use std::{collections::HashSet, rc::Rc, sync::Arc, time::Duration};

use futures_util::FutureExt;
use notifyx_model::TopicName;
use notifyx_wire::{
    phoenix::{
        Status,
        channel::{HEAD, HeadPushed, UNREAD, USER_PREFIX},
        text,
    },
    rest::{
        Problem,
        persist::{Unread, UnreadInTopic},
    },
    websocket,
};

use super::{
    Session,
    channel::{Channel, Place},
    join,
};
use crate::{
    desk::{CALL_DEADLINE, Desk, Unanswered},
    hub::Watch,
    platform::SocketUser,
};

/// Changes that come together are told once.
const COALESCED: Duration = Duration::from_millis(100);

/// After a read that failed.
const READ_AGAIN: Duration = Duration::from_secs(2);

/// Topics per read of heads, as persist allows.
const HEADS_MAX: usize = 10_000;

pub(super) async fn join(
    session: &Rc<Session>,
    channel: &Rc<Channel>,
    user: &Arc<SocketUser>,
    reference: Option<&str>,
) {
    let desk = &session.desk;
    let (viewing, first) = desk.worker.watch(user.id, session.outlet.clone());
    if first {
        let keeper = tokio::task::spawn_local(keep(desk.clone(), viewing.watch.clone(), user.clone()));
        viewing.watch.kept_by(keeper.abort_handle());
    }
    let read = tokio::time::timeout(CALL_DEADLINE, refresh(desk, &viewing.watch, user)).await;
    let read = read.unwrap_or_else(|_| Err(Unanswered::Late.into()));
    if channel.has_ended() {
        return;
    }
    let joins = &desk.worker.metrics.joins;
    match read {
        Ok(unread) => {
            joins.with_label_values(&["joined"]).inc();
            session.answer(channel, reference, Status::Ok, &unread);
            session.close_replaced(channel);
            viewing.ready();
            for UnreadInTopic { topic, broadcast_no, .. } in unread.topics {
                if let Some(newest) = viewing.watch.newest(&topic).filter(|newest| *newest > broadcast_no) {
                    let head = HeadPushed { topic, broadcast_no: newest };
                    session.send(&text::broadcast(&channel.topic, HEAD, &head));
                }
            }
            channel.settle(Place::User(viewing));
        }
        Err(problem) => {
            joins.with_label_values(&["failed"]).inc();
            join::fail(session, channel, reference, &problem);
        }
    }
}

/// Tells of changes until the last channel of this person on this thread is closed.
async fn keep(desk: Rc<Desk>, watch: Rc<Watch>, user: Arc<SocketUser>) {
    let topic = format!("{USER_PREFIX}{}", watch.user);
    loop {
        watch.changed.notified().await;
        tokio::time::sleep(COALESCED).await;
        // What changed meanwhile is in what is read now.
        let _ = watch.changed.notified().now_or_never();
        match refresh(&desk, &watch, &user).await {
            Ok(unread) => watch.send(&websocket::text(&text::broadcast(&topic, UNREAD, &unread))),
            Err(problem) => {
                tracing::debug!(user = %watch.user, "what user {} has not seen could not be read: {}", watch.user, problem.detail);
                tokio::time::sleep(READ_AGAIN).await;
                watch.changed.notify_one();
            }
        }
    }
}

/// Reads what is unread, and watches exactly the topics it names.
async fn refresh(desk: &Desk, watch: &Rc<Watch>, user: &Arc<SocketUser>) -> Result<Unread, Problem> {
    let permit = desk.unread_reads.acquire().await.map_err(|_| Unanswered::Stopping)?;
    let unread = {
        let user = user.clone();
        desk.call(|platform| async move { platform.unread(&user).await }).await?
    };
    drop(permit);
    let named: HashSet<&TopicName> = unread.topics.iter().map(|t| &t.topic).collect();
    desk.worker.unwatch_topics(watch, |name| named.contains(name));
    let fresh: Vec<&UnreadInTopic> = unread.topics.iter().filter(|t| !watch.is_watching(&t.topic)).collect();
    let begun = begin(desk, watch, &fresh).await;
    if begun.is_err() {
        // Half begun is not begun: the next refresh tries again.
        let fresh: HashSet<&TopicName> = fresh.iter().map(|t| &t.topic).collect();
        desk.worker.unwatch_topics(watch, |name| !fresh.contains(name));
    }
    begun.map(|()| unread)
}

/// Watches topics: from now on what comes is told, and what came since `unread` was read is looked up.
async fn begin(desk: &Desk, watch: &Rc<Watch>, fresh: &[&UnreadInTopic]) -> Result<(), Problem> {
    let worker = &desk.worker;
    for UnreadInTopic { topic, broadcast_no, .. } in fresh {
        let place = worker.watch_topic(watch, topic, *broadcast_no);
        if place.covered().is_none() {
            worker.following.topics.follow(topic, worker.id).await.map_err(Unanswered::from)?;
        }
    }
    for chunk in fresh.chunks(HEADS_MAX) {
        let names: Vec<TopicName> = chunk.iter().map(|t| t.topic.clone()).collect();
        for head in desk.call(|platform| async move { platform.heads(names).await }).await? {
            worker.following.topics.begin(&head.topic, head.topic_id, head.offset).await.map_err(Unanswered::from)?;
            watch.heard(&head.topic, head.broadcast_no);
        }
    }
    Ok(())
}

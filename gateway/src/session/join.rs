//! Joining `notification:<topic>` or `events:<category>`: who is let in, what the reply says, and how it goes on. That nothing is missed
//! and nothing comes twice is the matter of [`listen`].

use std::rc::Rc;

use notifyx_chassis::reply;
use notifyx_model::{Category, TopicName};
use notifyx_wire::{
    phoenix::{
        Status,
        channel::{EventsJoined, JoinParams, Joined},
        text,
    },
    rest::Problem,
};
use serde::Serialize;
use serde_json::json;

use super::{
    Session,
    channel::{Channel, Kind, Place, Stage},
};
use crate::{
    desk::{CALL_DEADLINE, Unanswered},
    feed::{Source, Topics},
    hub::{self, Audience},
    listen::{self, Listening, Standing},
    platform::SocketUser,
};

/// Joins a topic, which subscribes the user to it.
pub(super) async fn topic(
    session: &Rc<Session>,
    channel: &Rc<Channel>,
    (name, user): (&TopicName, &SocketUser),
    params: JoinParams,
    reference: Option<&str>,
) {
    let (desk, user) = (&session.desk, user.id);
    let prepare = async {
        let entered = listen::enter::<Topics>(desk, name, Some(user), audience(session)).await?;
        let topic = {
            let name = name.clone();
            desk.call(|platform| async move { platform.join(&name, user).await }).await?
        };
        let standing = Standing { id: topic.id, head: topic.offset, trimmed: topic.trimmed };
        let listening = entered.begin(desk, standing, params.last_offset).await?;
        let joined = Joined {
            from_join: true,
            can_broadcast: topic.creator_id == user,
            topic_id: topic.id,
            offset: listening.head,
            recovered: listening.recovered,
        };
        Ok((listening, joined))
    };
    join(session, channel, reference, prepare).await;
}

/// Joins a category of events.
pub(super) async fn category(
    session: &Rc<Session>,
    channel: &Rc<Channel>,
    name: &Category,
    params: JoinParams,
    reference: Option<&str>,
) {
    let prepare = async {
        let listening = listen::category(&session.desk, name, params.last_offset, audience(session)).await?;
        let joined = EventsJoined { offset: listening.head, recovered: listening.recovered };
        Ok((listening, joined))
    };
    join(session, channel, reference, prepare).await;
}

fn audience(session: &Session) -> Rc<dyn Audience> {
    Rc::new(hub::Joined(session.outlet.clone()))
}

/// Answers, and brings the client up to date.
async fn join<S: Source>(
    session: &Rc<Session>,
    channel: &Rc<Channel>,
    reference: Option<&str>,
    prepare: impl Future<Output = Result<(Listening<S>, impl Serialize), Problem>>,
) {
    let prepared = tokio::time::timeout(CALL_DEADLINE, prepare).await;
    let prepared = prepared.unwrap_or_else(|_| Err(Unanswered::Late.into()));
    if channel.has_ended() {
        return;
    }
    let joins = &session.desk.worker.metrics.joins;
    let (listening, joined) = match prepared {
        Ok(prepared) => prepared,
        Err(problem) => {
            joins.with_label_values(&["failed"]).inc();
            return fail(session, channel, reference, &problem);
        }
    };
    joins.with_label_values(&["joined"]).inc();
    session.answer(channel, reference, Status::Ok, &joined);
    channel.stage.set(Stage::CatchingUp);
    session.close_replaced(channel);
    if let Kind::Notification { user, .. } = &channel.kind {
        // It subscribed.
        session.desk.worker.hub.unread_changed(user.id);
    }
    match listening.run(&session.desk, || channel.has_ended()).await {
        Ok(seat) if !channel.has_ended() => channel.settle(Place::Stream(seat)),
        Ok(_) => {}
        Err(problem) => {
            let topic = &channel.topic;
            tracing::warn!(%topic, "a client could not be brought up to date on `{topic}`: {}", problem.detail);
            // It rejoins with the offset it has.
            if !channel.has_ended() {
                session.remove(channel);
                channel.end();
                session.send(&text::error(channel.join_ref.as_deref(), &channel.topic));
            }
        }
    }
}

/// The channel was not joined; what waits behind the join hears so.
pub(super) fn fail(session: &Session, channel: &Rc<Channel>, reference: Option<&str>, problem: &Problem) {
    session.remove(channel);
    session.answer(channel, reference, Status::Error, &reply::phoenix(problem));
    session.close_replaced(channel);
    for waiting in channel.waiting.take() {
        let response = json!({ "reason": "unmatched topic" });
        session.answer(channel, waiting.reference.as_deref(), Status::Error, &response);
    }
    channel.end();
}

//! Joining `notification:<topic>`: nothing missed, nothing twice, in order, whoever publishes meanwhile.
//!
//! First the seat is taken, and all that comes is kept; then persist subscribes and says where the topic stands (`H`); then
//! the feed says from where on it delivers. Up to the larger of the two the store is read, above it what was kept is sent,
//! and the seat turns live in one step.

use std::rc::Rc;

use notifyx_chassis::reply;
use notifyx_model::{TopicName, UserId};
use notifyx_wire::{
    phoenix::{
        Status,
        channel::{JoinParams, Joined},
        text,
    },
    rest::{Problem, persist::Topic},
};
use serde_json::json;

use super::{
    CALL_DEADLINE, Session,
    catch_up::{CatchUp, Page},
    channel::{Channel, Place, Stage},
    fault::Fault,
};
use crate::{hub::Seat, platform::SocketUser};

/// A client that missed more reads its inbox instead.
pub(super) const MISSED_MAX: u64 = 1_000;

/// Joins, answers, and brings the client up to date.
pub(super) async fn join(
    session: &Rc<Session>,
    channel: &Rc<Channel>,
    (name, user): (&TopicName, &SocketUser),
    params: JoinParams,
    reference: Option<&str>,
) {
    let prepared = tokio::time::timeout(CALL_DEADLINE, prepare(session, name, user.id, params)).await;
    let prepared = prepared.unwrap_or_else(|_| Err(Fault::Late(CALL_DEADLINE).into()));
    if channel.has_ended() {
        return;
    }
    let joins = &session.desk.worker.metrics.joins;
    let Prepared { seat, joined, catch_up, first } = match prepared {
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
    session.desk.worker.hub.unread_changed(user.id);
    match catch_up.run(session, channel, seat, first).await {
        Ok(seat) if !channel.has_ended() => channel.settle(Place::Topic(seat)),
        Ok(_) => {}
        Err(problem) => {
            tracing::warn!(topic = %name, "a client could not be brought up to date on topic `{name}`: {}", problem.detail);
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

struct Prepared {
    seat: Seat,
    joined: Joined,
    catch_up: CatchUp,
    first: Page,
}

async fn prepare(session: &Session, name: &TopicName, user: UserId, params: JoinParams) -> Result<Prepared, Problem> {
    let desk = &session.desk;
    let following = &desk.worker.following;
    let mut seat = desk.worker.enter(name, user, session.outlet.clone());
    if seat.covered().is_none() {
        following.follow(name, desk.worker.id).await.map_err(Fault::from)?;
    }
    let topic = {
        let name = name.clone();
        desk.call(|platform| async move { platform.join(&name, user).await }).await?
    };
    let covered = match seat.covered() {
        Some(covered) => covered,
        None => seat.feed_begins(following.start(name, topic.id, topic.offset).await.map_err(Fault::from)?),
    };
    let mut recovered = is_recoverable(params, &topic);
    let after = if recovered { params.last_offset.unwrap_or(topic.offset) } else { topic.offset };
    let mut catch_up = CatchUp { topic_id: topic.id, user, position: after, up_to: covered.max(topic.offset) };
    let mut first = catch_up.read(desk).await?;
    if recovered && first.trimmed > after {
        // History was trimmed between the two reads.
        recovered = false;
        catch_up.position = catch_up.position.max(topic.offset);
        first.skip(topic.offset);
    }
    let joined = Joined {
        from_join: true,
        can_broadcast: topic.creator_id == user,
        topic_id: topic.id,
        offset: topic.offset,
        recovered,
    };
    Ok(Prepared { seat, joined, catch_up, first })
}

/// Whether all that came after `last_offset` can be delivered.
fn is_recoverable(params: JoinParams, topic: &Topic) -> bool {
    params
        .last_offset
        .is_some_and(|last| last <= topic.offset && last >= topic.trimmed && topic.offset - last <= MISSED_MAX)
}

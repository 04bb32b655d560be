//! Sessions: Phoenix channels over any outlet. Who is connected, what it has joined, what it asks.
//!
//! A session lives on one worker thread. Messages of one channel are handled one after another, so that a client's publishes
//! keep their order; channels do not wait for each other. Every call to the platform runs on the shared runtime, and what
//! comes back is sent from here.

mod channel;
mod fault;
mod join;
mod request;
mod user;

use std::{
    cell::RefCell,
    rc::{Rc, Weak},
    sync::Arc,
};

use notifyx_chassis::reply;
use notifyx_model::{GivenTime, TopicName};
use notifyx_wire::{
    phoenix::{
        CONTROL_TOPIC, Frame, FrameError, HEARTBEAT, JOIN, LEAVE, Status,
        channel::{NotificationAccepted, NotificationScheduled, OWN_NOTIFICATIONS, OwnNotification, OwnNotifications},
        text,
    },
    rest::Problem,
    websocket,
};
use serde::Serialize;
use serde_json::json;

use crate::{
    desk::Desk,
    hub::{Admission, Connection, Ending, Listener, Outlet},
    platform::{NewPublish, Peer, SocketUser},
};
use channel::{Channel, Kind, Load, Share, Stage, Waiting};
use fault::Fault;
use request::Request;

/// As Phoenix allows.
const CHANNELS_MAX: usize = 100;

/// Messages of one channel, and of one socket, that may wait for their turn; a client that awaits replies has one or two.
const WAITING_PER_CHANNEL_MAX: usize = 128;
const WAITING_PER_SOCKET_MAX: usize = 512;

/// What they may hold together: enough for 16 of the largest messages.
const WAITING_BYTES_MAX: usize = 1024 * 1024;

/// What a refused frame says of itself is said back up to this length, so that a client finds the join or push it belongs
/// to; a mistyped topic is not longer, and an answer is not to be as large as the largest message.
const ECHO_BYTES_MAX: usize = 4096;

/// One client.
pub(crate) struct Session {
    desk: Rc<Desk>,
    peer: Arc<Peer>,
    outlet: Rc<dyn Outlet>,
    channels: RefCell<Vec<Rc<Channel>>>,
    load: Rc<Load>,
}

impl Session {
    /// Registers the client, for as long as the connection is held. An error is the reason to end it at once.
    pub(crate) fn open(
        desk: Rc<Desk>,
        (peer, admission): (Arc<Peer>, Admission),
        outlet: Rc<dyn Outlet>,
    ) -> Result<(Rc<Self>, Connection), Ending> {
        let session = Rc::new(Self { desk, peer, outlet, channels: RefCell::default(), load: Rc::default() });
        let listener: Weak<Self> = Rc::downgrade(&session);
        let connection = session.desk.worker.connect(admission, &session.peer, session.outlet.clone(), listener)?;
        Ok((session, connection))
    }

    /// Leaves everything. What was asked before is still done, unanswered.
    pub(crate) fn end(&self) {
        for channel in self.channels.take() {
            self.desk.worker.metrics.channels.dec();
            channel.end();
        }
    }

    pub(crate) fn text(self: &Rc<Self>, text: &str) {
        match Frame::read_text(text) {
            Ok(frame) => match frame.check() {
                Ok(()) => self.frame(&frame),
                Err(error) => self.bad_frame(Some(&frame), &error),
            },
            Err(error) => self.bad_frame(None, &error),
        }
    }

    pub(crate) fn binary(self: &Rc<Self>, bytes: &[u8]) {
        match Frame::parse_binary(bytes) {
            Ok(frame) => self.frame(&frame),
            Err(error) => self.bad_frame(None, &error),
        }
    }

    /// Answers what waits for an answer, where the frame could be read that far. One that names no channel harms none: the
    /// client hears of it on the topic that is everyone's.
    fn bad_frame(&self, frame: Option<&Frame<'_>>, error: &FrameError) {
        self.desk.worker.metrics.bad_frames.inc();
        let response = json!({ "reason": "bad_frame", "error": error.to_string() });
        let (join_ref, reference, topic) = frame
            .map(|frame| (frame.join_ref.as_deref(), frame.reference.as_deref(), &*frame.topic))
            .filter(|(join_ref, reference, topic)| {
                join_ref.map_or(0, str::len) + reference.map_or(0, str::len) + topic.len() <= ECHO_BYTES_MAX
            })
            .unwrap_or((None, None, CONTROL_TOPIC));
        self.send(&text::reply(join_ref, reference, topic, Status::Error, &response));
    }

    fn frame(self: &Rc<Self>, frame: &Frame<'_>) {
        match (&*frame.topic, &*frame.event) {
            (CONTROL_TOPIC, HEARTBEAT) => {
                let reference = frame.reference.as_deref();
                self.send(&text::reply(None, reference, CONTROL_TOPIC, Status::Ok, &json!({})));
            }
            (_, JOIN) => self.join(frame),
            (_, LEAVE) => self.leave(frame),
            _ => self.push(frame),
        }
    }

    fn find(&self, topic: &str) -> Option<Rc<Channel>> {
        self.channels.borrow().iter().find(|channel| *channel.topic == *topic).cloned()
    }

    fn join(self: &Rc<Self>, frame: &Frame<'_>) {
        let (topic, join_ref) = (&*frame.topic, frame.join_ref.as_deref());
        let reference = frame.reference.as_deref();
        let refuse = |response: &serde_json::Value| {
            self.desk.worker.metrics.joins.with_label_values(&["refused"]).inc();
            self.send(&text::reply(join_ref, reference, topic, Status::Error, response));
        };
        let (kind, request) = match Kind::parse(topic, &self.peer) {
            None => return refuse(&json!({ "reason": "unmatched topic" })),
            Some(Err(fault)) => return refuse(&reply::phoenix(&fault.into())),
            Some(Ok(kind)) => match Request::parse(&kind, topic, JOIN, frame.payload) {
                Ok(request) => (kind, request),
                Err(fault) => return refuse(&reply::phoenix(&fault.into())),
            },
        };
        let old = self.find(topic);
        if old.is_none() && self.channels.borrow().len() >= CHANNELS_MAX {
            return refuse(&json!({ "reason": "too many channels joined" }));
        }
        if let Err(fault) = self.has_room(0) {
            return refuse(&reply::phoenix(&fault.into()));
        }
        // A second join takes the first one's place; an unfinished first join passes on whom it was to replace.
        let mut replaces = Vec::new();
        if let Some(old) = old {
            self.remove(&old);
            old.end();
            replaces = old.replaces.take();
            replaces.push(old.join_ref.clone());
        }
        let channel = Rc::new(Channel::new(topic, kind, join_ref, replaces));
        self.channels.borrow_mut().push(channel.clone());
        self.desk.worker.metrics.channels.inc();
        self.wait(&channel, request, reference);
    }

    fn leave(self: &Rc<Self>, frame: &Frame<'_>) {
        let (topic, join_ref) = (&*frame.topic, frame.join_ref.as_deref());
        let reference = frame.reference.as_deref();
        let Some(channel) = self.find(topic) else {
            return self.send(&text::reply(join_ref, reference, topic, Status::Ok, &json!({})));
        };
        if !concerns(&channel, join_ref) {
            return;
        }
        if channel.stage.get() == Stage::Joined && channel.working.get() {
            // What was sent before the leave is done before it.
            return self.wait(&channel, Request::Leave, reference);
        }
        self.leave_now(&channel, reference);
    }

    fn leave_now(&self, channel: &Rc<Channel>, reference: Option<&str>) {
        self.remove(channel);
        channel.end();
        self.answer(channel, reference, Status::Ok, &json!({}));
        self.close_replaced(channel);
        self.close(channel.join_ref.as_deref(), &channel.topic);
    }

    fn push(self: &Rc<Self>, frame: &Frame<'_>) {
        let reference = frame.reference.as_deref();
        let Some(channel) = self.find(&frame.topic) else {
            let response = json!({ "reason": "unmatched topic" });
            return self.send(&text::reply(None, reference, &frame.topic, Status::Error, &response));
        };
        if !concerns(&channel, frame.join_ref.as_deref()) {
            return;
        }
        let request = Request::parse(&channel.kind, &channel.topic, &frame.event, frame.payload)
            .and_then(|request| self.has_room(request.bytes()).map(|()| request));
        let full = channel.waiting.borrow().len() >= WAITING_PER_CHANNEL_MAX;
        match request {
            Ok(_) if full => self.refuse(&channel, reference, Fault::TooMany { waiting: WAITING_PER_CHANNEL_MAX }),
            Ok(request) => self.wait(&channel, request, reference),
            Err(fault) => self.refuse(&channel, reference, fault),
        }
    }

    fn has_room(&self, bytes: usize) -> Result<(), Fault> {
        let waiting = self.load.messages.get();
        if waiting >= WAITING_PER_SOCKET_MAX || self.load.bytes.get() + bytes > WAITING_BYTES_MAX {
            return Err(Fault::TooMany { waiting });
        }
        Ok(())
    }

    /// Puts a request in line, and sees that somebody takes it.
    fn wait(self: &Rc<Self>, channel: &Rc<Channel>, request: Request, reference: Option<&str>) {
        let share = Share::of(&self.load, request.bytes());
        channel.waiting.borrow_mut().push_back(Waiting { request, reference: reference.map(Into::into), share });
        if !channel.working.replace(true) {
            tokio::task::spawn_local(work(self.clone(), channel.clone()));
        }
    }

    /// Answers one request. A join answers by itself: it has more to say.
    async fn perform(self: &Rc<Self>, channel: &Rc<Channel>, request: Request, reference: Option<&str>) {
        self.desk.worker.metrics.requests.with_label_values(&[request.event()]).inc();
        let done = match (request, &channel.kind) {
            (Request::Join(params), Kind::Notification { name, user }) => {
                return join::topic(self, channel, (name, user), params, reference).await;
            }
            (Request::Join(params), Kind::Events(name)) => {
                return join::category(self, channel, name, params, reference).await;
            }
            (Request::Join(_), Kind::User(user)) => return user::join(self, channel, user, reference).await,
            (Request::Leave, _) => {
                if !channel.has_ended() {
                    self.leave_now(channel, reference);
                }
                return;
            }
            (Request::Publish(new), Kind::Notification { name, user }) => {
                let fire_at = new.fire_at;
                let new = NewPublish {
                    topic: name.clone(),
                    message: new.message,
                    to: new.to,
                    priority: new.priority,
                    key: new.key,
                };
                match fire_at {
                    None => self.publish(channel, user, reference, new).await,
                    Some(fire_at) => self.schedule(channel, user, reference, new, fire_at).await,
                }
            }
            (Request::OwnNotifications, Kind::Notification { name, user }) => {
                let (user, name) = (user.clone(), name.clone());
                let inbox = self.desk.call(|platform| async move { platform.inbox(&user, &name).await }).await;
                inbox.map(|inbox| self.own_notifications(channel, reference, inbox))
            }
            (Request::Seen(id), Kind::Notification { user, .. } | Kind::User(user)) => {
                let (by, user) = (user.clone(), user.id);
                let seen = self.desk.call(|platform| async move { platform.seen(&by, id).await }).await;
                self.desk.worker.hub.unread_changed(user);
                seen.map(|unread| self.answer(channel, reference, Status::Ok, &unread))
            }
            (Request::Unsubscribe, Kind::Notification { name, user }) => {
                let (by, user, name) = (user.clone(), user.id, name.clone());
                let gone = self.desk.call(|platform| async move { platform.unsubscribe(&by, &name).await }).await;
                self.desk.worker.hub.unread_changed(user);
                gone.map(|()| self.unsubscribe(channel, reference))
            }
            (
                Request::Publish(_) | Request::OwnNotifications | Request::Unsubscribe,
                Kind::User(_) | Kind::Events(_),
            )
            | (Request::Seen(_), Kind::Events(_)) => {
                unreachable!("such a request is refused when it is parsed")
            }
        };
        if let Err(problem) = done {
            self.answer(channel, reference, Status::Error, &reply::phoenix(&problem));
        }
    }

    async fn publish(
        &self,
        channel: &Channel,
        user: &Arc<SocketUser>,
        reference: Option<&str>,
        new: NewPublish,
    ) -> Result<(), Problem> {
        let user = user.clone();
        let published = self.desk.call(|platform| async move { platform.publish(&user, new).await }).await?;
        let message = if published.offset.is_some() { "published" } else { "accepted, and about to be delivered" };
        let accepted = NotificationAccepted {
            success: true,
            message: message.to_owned(),
            id: published.id,
            offset: published.offset,
        };
        self.answer(channel, reference, Status::Ok, &accepted);
        Ok(())
    }

    async fn schedule(
        &self,
        channel: &Channel,
        user: &Arc<SocketUser>,
        reference: Option<&str>,
        new: NewPublish,
        fire_at: GivenTime,
    ) -> Result<(), Problem> {
        let user = user.clone();
        let kept = self.desk.call(|platform| async move { platform.schedule(&user, new, fire_at).await }).await?;
        let scheduled = NotificationScheduled {
            success: true,
            message: "scheduled".to_owned(),
            scheduled_id: kept.id,
            fire_at: kept.fire_at,
        };
        self.answer(channel, reference, Status::Ok, &scheduled);
        Ok(())
    }

    fn own_notifications(
        &self,
        channel: &Channel,
        reference: Option<&str>,
        inbox: Vec<notifyx_wire::rest::persist::InboxItem>,
    ) {
        self.answer(channel, reference, Status::Ok, &json!({}));
        let own =
            OwnNotifications { success: true, notifications: inbox.into_iter().map(OwnNotification::from).collect() };
        self.send(&text::push(channel.join_ref.as_deref(), &channel.topic, OWN_NOTIFICATIONS, &own));
    }

    /// Without the subscription there is no stream. Closing the channel keeps the client from joining, and so
    /// subscribing, again by itself.
    fn unsubscribe(&self, channel: &Rc<Channel>, reference: Option<&str>) {
        self.answer(channel, reference, Status::Ok, &json!({ "success": true }));
        self.close_channel(channel);
    }

    fn close_channel(&self, channel: &Rc<Channel>) {
        if !channel.has_ended() {
            self.remove(channel);
            channel.end();
            self.close(channel.join_ref.as_deref(), &channel.topic);
        }
    }

    fn remove(&self, channel: &Rc<Channel>) {
        let mut channels = self.channels.borrow_mut();
        if let Some(at) = channels.iter().position(|c| Rc::ptr_eq(c, channel)) {
            channels.remove(at);
            self.desk.worker.metrics.channels.dec();
        }
    }

    fn refuse(&self, channel: &Channel, reference: Option<&str>, fault: Fault) {
        self.answer(channel, reference, Status::Error, &reply::phoenix(&fault.into()));
    }

    fn answer(&self, channel: &Channel, reference: Option<&str>, status: Status, response: &impl Serialize) {
        self.send(&text::reply(channel.join_ref.as_deref(), reference, &channel.topic, status, response));
    }

    /// Those whose place the channel took hear of it after its own answer.
    fn close_replaced(&self, channel: &Channel) {
        for join_ref in channel.replaces.take() {
            self.close(join_ref.as_deref(), &channel.topic);
        }
    }

    fn close(&self, join_ref: Option<&str>, topic: &str) {
        self.send(&text::close(join_ref, topic));
    }

    fn send(&self, text: &str) {
        self.outlet.send(&websocket::text(text), 1);
    }
}

impl Listener for Session {
    fn awaits_answers(&self) -> bool {
        self.load.messages.get() > 0
    }

    /// Ends the stream as if this socket had asked. A join that has no answer yet may be the newer wish, and goes on.
    fn unsubscribed(&self, topic: &TopicName) {
        let concerned = |channel: &&Rc<Channel>| {
            matches!(&channel.kind, Kind::Notification { name, .. } if name == topic)
                && channel.stage.get() != Stage::Joining
        };
        let channel = self.channels.borrow().iter().find(concerned).cloned();
        if let Some(channel) = channel {
            self.close_channel(&channel);
        }
    }
}

/// Takes what waits in a channel, one after another, and ends when nothing does.
async fn work(session: Rc<Session>, channel: Rc<Channel>) {
    loop {
        let Some(Waiting { request, reference, share }) = channel.waiting.borrow_mut().pop_front() else { break };
        session.perform(&channel, request, reference.as_deref()).await;
        drop(share);
    }
    channel.waiting.borrow_mut().shrink_to_fit();
    channel.working.set(false);
}

/// A message with another join's ref comes from before a rejoin. One without any is for whatever is joined now.
fn concerns(channel: &Channel, join_ref: Option<&str>) -> bool {
    join_ref.is_none() || join_ref == channel.join_ref.as_deref()
}

#[cfg(test)]
mod tests;

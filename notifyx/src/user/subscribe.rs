//! `notifyx subscribe`: prints what is published, live, over restarts of the server.
//!
//! For each topic the last offset that was printed is remembered; a lost connection is made again and joins from there, so
//! that nothing is missed and nothing printed twice.

use std::{collections::BTreeMap, ops::RangeInclusive};

use notifyx_model::TopicName;
use notifyx_wire::{
    phoenix::{
        CLOSE, ERROR, JOIN, REPLY,
        channel::{JoinParams, Joined, NEW_NOTIFICATION, NOTIFICATION_PREFIX, NotificationPushed},
    },
    rest::Problem,
};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::{
    client::Client,
    follow::{Follow, Outcome},
    live::{ANSWER_TIMEOUT, Arrived, Live, Lost, Reply},
    pause::Pauses,
    print::{self, Output, Style, clean, moment},
};
use crate::{args::Subscribe, exit::Failure};

/// Phoenix' own bound of channels on a socket.
const TOPICS_MAX: usize = 100;

pub(crate) async fn run(client: &Client, output: Output, subscribe: Subscribe) -> Result<(), Failure> {
    let last = subscribe.from.map(|from| from.saturating_sub(1));
    let topics: BTreeMap<TopicName, Follow> =
        subscribe.topics.into_iter().map(|name| (name, Follow::from(last))).collect();
    if topics.len() > TOPICS_MAX {
        return Err(Failure::Usage(format!("at most {TOPICS_MAX} topics at once")));
    }
    let mut following = Following { client, output, topics };
    tokio::select! {
        ended = following.follow() => ended,
        // The way to end it, not a mishap.
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

struct Following<'a> {
    client: &'a Client,
    output: Output,
    topics: BTreeMap<TopicName, Follow>,
}

/// Why a connection ended.
enum End {
    Final(Failure),
    Again(String),
    /// Every subscription was ended elsewhere: there is nothing left to listen to.
    Over,
}

impl From<Lost> for End {
    fn from(lost: Lost) -> Self {
        match lost {
            Lost::Credentials(why) => {
                Self::Final(Failure::Credentials(format!("{why}: log in again with `notifyx login`")))
            }
            Lost::Passing(why) => Self::Again(why),
        }
    }
}

impl Following<'_> {
    /// Until something cannot pass, or nothing is left to follow.
    async fn follow(&mut self) -> Result<(), Failure> {
        let mut pauses = Pauses::default();
        loop {
            let since = Instant::now();
            let why = match self.connection().await {
                Err(End::Final(failure)) => return Err(failure),
                Err(End::Over) => return Ok(()),
                Err(End::Again(why)) => why,
                Ok(never) => match never {},
            };
            let server = self.client.server();
            if !self.topics.values().any(|topic| topic.known) {
                return Err(Failure::Unreachable { server: server.to_string(), why });
            }
            if self.topics.values().all(|topic| topic.joined) {
                self.output.remark(&format!("-- lost {server}: {}; connecting again", clean(&why)));
                event(self.output, &json!({ "event": "disconnected", "why": why }))?;
            }
            for topic in self.topics.values_mut() {
                topic.disconnect();
            }
            pauses.wait(since).await;
        }
    }

    /// One connection, to its end.
    async fn connection(&mut self) -> Result<std::convert::Infallible, End> {
        let token = self.client.token().map_err(End::Final)?;
        let mut live = Live::connect(self.client.server(), token).await?;
        let mut joined_by = Instant::now() + ANSWER_TIMEOUT;
        loop {
            if self.join_missing(&mut live).await? {
                joined_by = Instant::now() + ANSWER_TIMEOUT;
            }
            let frame = if self.topics.values().all(|topic| topic.joined) {
                live.next().await?
            } else {
                let answered = tokio::time::timeout_at(joined_by, live.next()).await;
                answered.map_err(|_| End::Again("it does not answer a join".into()))??
            };
            self.take(&frame)?;
        }
    }

    /// Joins each topic for which no join was sent on this connection; whether there was one.
    async fn join_missing(&mut self, live: &mut Live) -> Result<bool, End> {
        let mut any = false;
        for (name, topic) in self.topics.iter_mut().filter(|(_, topic)| topic.join_ref.is_empty()) {
            any = true;
            topic.join_ref = live.reference();
            let (join_ref, params) = (topic.join_ref.as_str(), JoinParams { last_offset: topic.last });
            live.push(Some(join_ref), join_ref, &format!("{NOTIFICATION_PREFIX}{name}"), JOIN, &params).await?;
        }
        Ok(any)
    }

    fn take(&mut self, frame: &Arrived) -> Result<(), End> {
        let name = frame.topic.strip_prefix(NOTIFICATION_PREFIX).unwrap_or_default();
        // Heartbeats' answers and topics that nobody asked for.
        let Some(topic) = self.topics.get_mut(name) else { return Ok(()) };
        match frame.event.as_str() {
            REPLY if frame.reference.as_ref() == Some(&topic.join_ref) => {
                let reply = serde_json::from_str::<Reply>(&frame.payload).map_err(|error| strange(&error))?;
                if reply.status != "ok" {
                    return Err(refused(name, topic, &reply));
                }
                let joined = serde_json::from_value::<Joined>(reply.response).map_err(|error| strange(&error))?;
                joined_now(self.output, name, topic, &joined).map_err(End::Final)
            }
            NEW_NOTIFICATION => {
                let pushed =
                    serde_json::from_str::<NotificationPushed>(&frame.payload).map_err(|error| strange(&error))?;
                // What was printed before the connection was lost may come again.
                if topic.advance(pushed.offset) { show(self.output, &pushed).map_err(End::Final) } else { Ok(()) }
            }
            // The subscription was ended elsewhere. To join again would make it anew, against its owner's wish.
            CLOSE if frame.join_ref.as_ref() == Some(&topic.join_ref) => self.ended(name),
            ERROR if frame.join_ref.as_ref() == Some(&topic.join_ref) => {
                Err(End::Again(format!("it could not keep up the channel of {name}")))
            }
            _ => Ok(()),
        }
    }

    fn ended(&mut self, name: &str) -> Result<(), End> {
        self.output.remark(&format!("-- the subscription to {} was ended", clean(name)));
        event(self.output, &json!({ "event": "ended", "topic": name })).map_err(End::Final)?;
        self.topics.remove(name);
        if self.topics.is_empty() { Err(End::Over) } else { Ok(()) }
    }
}

/// The server and this program do not understand each other; another version of it may answer next time.
fn strange(error: &serde_json::Error) -> End {
    End::Again(format!("it sends what this version of notifyx does not read: {error}"))
}

/// On the first join a refusal is the answer. Later it was possible once, and may be again.
fn refused(name: &str, topic: &Follow, reply: &Reply) -> End {
    let text = |field: &str| reply.response.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let status = reply.response.get("status").and_then(Value::as_u64).and_then(|status| u16::try_from(status).ok());
    let (code, detail) = (text("reason"), text("error"));
    let detail = if detail.is_empty() { format!("joining {name} was refused: {code}") } else { detail };
    let problem =
        Problem { success: false, status: status.unwrap_or(400), title: String::new(), code, detail, request_id: None };
    match Failure::from_problem(problem, None) {
        failure @ (Failure::Refused(_) | Failure::Credentials(_)) if !topic.known => End::Final(failure),
        failure => End::Again(failure.to_string()),
    }
}

fn joined_now(output: Output, name: &str, topic: &mut Follow, joined: &Joined) -> Result<(), Failure> {
    let known = topic.known;
    let lost = match topic.join(joined) {
        Outcome::Whole => None,
        Outcome::Narrow(lost) | Outcome::Gap(lost) => Some(lost),
    };
    if let Some((from, to)) = lost.map(RangeInclusive::into_inner) {
        output.remark(&format!(
            "-- {name}: number {from} to {to} are not replayed; see `notifyx inbox --topic {name:?}`"
        ));
        event(output, &json!({ "event": "gap", "topic": name, "from": from, "to": to }))?;
    }
    if !topic.joined {
        return Ok(());
    }
    if known {
        output.remark(&format!("-- listening to {name} again"));
    } else {
        let how = if joined.can_broadcast { "yours to publish to" } else { "published by its creator" };
        output.remark(&format!("-- subscribed to {name} ({how}); Ctrl-C ends the listening, not the subscription"));
    }
    event(output, &json!({ "event": "joined", "topic": name, "offset": joined.offset, "recovered": joined.recovered }))
}

fn show(output: Output, pushed: &NotificationPushed) -> Result<(), Failure> {
    #[derive(Serialize)]
    struct Record<'a> {
        event: &'static str,
        #[serde(flatten)]
        pushed: &'a NotificationPushed,
    }
    output.answer(&Record { event: "notification", pushed }, || {
        format!(
            "{} {} {} {}: {}",
            moment(pushed.inserted_at),
            output.paint(Style::Strong, &pushed.topic),
            output.paint(Style::Faint, format!("#{}", pushed.offset)),
            output.paint(Style::Faint, &pushed.from),
            clean(pushed.message.as_str()),
        )
    })
}

/// For scripts only; people are told by remarks.
fn event(output: Output, record: &Value) -> Result<(), Failure> {
    if output.json() { print::record(record) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_final_only_before_the_first_join() {
        let reply = Reply {
            status: "error".into(),
            response: json!({ "success": false, "reason": "topic_inactive", "error": "topic `a` is inactive", "status": 409 }),
        };
        let mut known = Follow::default();
        known.known = true;
        assert!(matches!(refused("a", &Follow::default(), &reply), End::Final(failure) if failure.code() == 1));
        assert!(matches!(refused("a", &known, &reply), End::Again(why) if why == "topic `a` is inactive"));
        let away = Reply { response: json!({ "reason": "service_unreachable", "status": 503 }), ..reply };
        assert!(matches!(refused("a", &Follow::default(), &away), End::Again(_)));
    }
}

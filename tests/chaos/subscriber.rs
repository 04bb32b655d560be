//! A client that listens: it joins its topics, goes on from the last offset it has whenever it is cut off, and notes what
//! reaches it. That this comes in order and once is judged on arrival; that nothing lacks, by the reckoning.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::harness::{Person, Socket};

/// Nothing heard for so long: a heartbeat asks whether anybody is there.
const QUIET: Duration = Duration::from_secs(2);
/// Heartbeats without an answer before the client connects anew: a gateway that is stopped for long is left.
const UNANSWERED_MAX: u32 = 3;
const CONNECT_WITHIN: Duration = Duration::from_secs(4);
const AGAIN: Duration = Duration::from_millis(200);

/// What one subscriber has seen; shared with the reckoning.
#[derive(Default)]
pub(crate) struct Seen {
    /// Topic → offset and id of the notification, in order of arrival.
    topics: Mutex<BTreeMap<String, Vec<(u64, Uuid)>>>,
    /// What no client may meet.
    pub(crate) wrongs: Mutex<Vec<String>>,
    /// Topics joined in the present connection.
    pub(crate) joined: AtomicUsize,
    pub(crate) connections: AtomicUsize,
    pub(crate) stop: AtomicBool,
}

pub(crate) struct Subscriber {
    pub(crate) name: String,
    pub(crate) person: Person,
    pub(crate) topics: Vec<String>,
    /// The first is where it likes to be.
    pub(crate) gateways: Vec<String>,
    pub(crate) seen: Arc<Seen>,
}

impl Seen {
    pub(crate) fn of(&self, topic: &str) -> Vec<(u64, Uuid)> {
        self.topics.lock().unwrap().get(topic).cloned().unwrap_or_default()
    }

    fn last(&self, topic: &str) -> u64 {
        self.topics.lock().unwrap().get(topic).and_then(|seen| seen.last()).map_or(0, |(offset, _)| *offset)
    }

    fn wrong(&self, what: String) {
        self.wrongs.lock().unwrap().push(what);
    }

    fn arrived(&self, who: &str, topic: &str, payload: &Value) {
        let (offset, id) = (payload["offset"].as_u64(), payload["id"].as_str().and_then(|id| id.parse().ok()));
        let (Some(offset), Some(id)) = (offset, id) else {
            return self.wrong(format!("{who}: a notification of {topic} without offset or id: {payload}"));
        };
        let last = self.last(topic);
        if offset <= last {
            self.wrong(format!("{who}: offset {offset} of {topic} came after {last}"));
        }
        self.topics.lock().unwrap().entry(topic.to_owned()).or_default().push((offset, id));
    }
}

impl Subscriber {
    /// Listens until it is told to stop.
    pub(crate) async fn run(self) {
        for gateway in self.gateways.iter().cycle() {
            if self.seen.stop.load(Ordering::SeqCst) {
                return;
            }
            let params = [("token", self.person.token.as_str())];
            if let Some(socket) = Socket::try_open(gateway, &params, CONNECT_WITHIN).await {
                self.seen.connections.fetch_add(1, Ordering::SeqCst);
                self.listen(socket).await;
                self.seen.joined.store(0, Ordering::SeqCst);
            }
            sleep(AGAIN).await;
        }
    }

    /// Until the connection is of no more use.
    async fn listen(&self, mut socket: Socket) -> Option<()> {
        let mut joins = HashMap::new();
        for topic in &self.topics {
            let params = json!({ "last_offset": self.seen.last(topic) });
            joins.insert(socket.try_send_join(&format!("notification:{topic}"), params).await?, topic.as_str());
        }
        let mut unanswered = 0;
        while !self.seen.stop.load(Ordering::SeqCst) {
            let Ok(outcome) = timeout(QUIET, socket.outcome()).await else {
                unanswered += 1;
                if unanswered > UNANSWERED_MAX {
                    return None;
                }
                socket.try_send_text(json!([null, "heartbeat", "phoenix", "heartbeat", {}]).to_string()).await?;
                continue;
            };
            unanswered = 0;
            let frame = outcome.ok()?;
            let joined = frame.reference.as_str().and_then(|reference| joins.remove(reference));
            match (frame.event.as_str(), frame.topic.strip_prefix("notification:")) {
                ("new_notification", Some(topic)) => self.seen.arrived(&self.name, topic, &frame.payload),
                ("phx_reply", Some(topic)) if joined == Some(topic) => {
                    // Refused, because persist is away: it connects anew.
                    (frame.payload["status"] == "ok").then_some(())?;
                    if frame.payload["response"]["recovered"] != true {
                        self.seen.wrong(format!("{}: {topic} was not recovered: {}", self.name, frame.payload));
                    }
                    self.seen.joined.fetch_add(1, Ordering::SeqCst);
                }
                // A channel that could not be brought up to date ends: rejoined with the offset that is there.
                ("phx_error" | "phx_close", Some(_)) => return None,
                _ => {}
            }
        }
        Some(())
    }
}

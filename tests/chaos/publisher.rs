//! A client that publishes as the contract tells it to: every notification under a key of its own, the same request again
//! until the answer is final, through whichever gateway answers.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use crate::{
    harness::{Answer, Api, Person, try_send},
    ledger::{Answers, End, Entry, Told},
};

/// A client's patience with one request: shorter than the longest pauses, so that the other gateway is tried meanwhile.
const PATIENCE: Duration = Duration::from_secs(4);

/// What all publishers of a run share.
#[derive(Default)]
pub(crate) struct Load {
    pub(crate) stop: AtomicBool,
    pub(crate) committed: AtomicUsize,
    pub(crate) answers: Mutex<Answers>,
    /// From when on nobody tries any more; set once everything is healed.
    pub(crate) give_up_at: Mutex<Option<Instant>>,
}

/// A topic of the publisher's account, and whom it reaches.
#[derive(Clone)]
pub(crate) struct Topic {
    pub(crate) name: String,
    pub(crate) id: Uuid,
    /// Ids of its subscribers.
    pub(crate) subscribers: Vec<String>,
}

pub(crate) struct Publisher {
    pub(crate) name: String,
    pub(crate) person: Person,
    pub(crate) topics: Vec<Topic>,
    /// Somebody who subscribes to none of them: naming them is answered with a final no.
    pub(crate) stranger: String,
    pub(crate) gateways: Vec<Api>,
    pub(crate) load: Arc<Load>,
    dice: StdRng,
    at: usize,
}

impl Publisher {
    pub(crate) fn new(
        name: String,
        person: &Person,
        topics: Vec<Topic>,
        stranger: String,
        gateways: &[String],
        load: Arc<Load>,
        seed: u64,
    ) -> Self {
        let gateways = gateways.iter().map(|address| person.at(address).api).collect();
        let dice = StdRng::seed_from_u64(seed);
        Self { name, person: person.clone(), topics, stranger, gateways, load, dice, at: 0 }
    }

    /// Publishes one after the other until it is told to stop, and gives what it was told.
    pub(crate) async fn run(mut self) -> Vec<Entry> {
        let mut entries = Vec::new();
        while !self.load.stop.load(Ordering::SeqCst) {
            // In bursts: publishes that meet share a group.
            if self.dice.random_bool(0.6) {
                sleep(Duration::from_millis(self.dice.random_range(0..400))).await;
            }
            let mut entry = self.draft(entries.len());
            entry.end = self.publish(&mut entry).await;
            if matches!(entry.end, End::Committed(_)) {
                self.load.committed.fetch_add(1, Ordering::SeqCst);
            }
            entries.push(entry);
        }
        entries
    }

    fn draft(&mut self, number: usize) -> Entry {
        let topic = self.topics.choose(&mut self.dice).expect("a publisher has topics");
        let to = match self.dice.random_range(0..100) {
            0..20 => vec![topic.subscribers.choose(&mut self.dice).expect("a topic has subscribers").clone()],
            20..23 => vec![self.stranger.clone()],
            _ => Vec::new(),
        };
        Entry {
            user: self.person.id.parse().expect("an id"),
            key: format!("{}.{number}", self.name),
            topic: topic.name.clone(),
            to,
            told: Vec::new(),
            unanswered: 0,
            end: End::Unsettled("nothing was sent".into()),
        }
    }

    /// One notification, until the answer is final.
    async fn publish(&mut self, entry: &mut Entry) -> End {
        let mut last = String::new();
        loop {
            if self.is_late() {
                return End::Unsettled(last);
            }
            self.at = self.dice.random_range(0..self.gateways.len());
            let Some(answer) = self.ask(entry).await else {
                last = "no answer".into();
                self.pause().await;
                continue;
            };
            last = format!("{} {}", answer.status, answer.text);
            match answer.status {
                201 => {
                    let gid = gid(&answer);
                    entry.told.push(Told::Committed(gid));
                    return End::Committed(gid);
                }
                202 => {
                    let gid = gid(&answer);
                    entry.told.push(Told::Open(gid));
                    // Asking for the status and repeating the request are both right.
                    if self.dice.random_bool(0.5) {
                        match self.follow(gid, entry, &mut last).await {
                            Followed::Committed => return End::Committed(gid),
                            Followed::Aborted => {}
                            Followed::Odd(why) => return End::Odd(why),
                        }
                    } else {
                        self.pause().await;
                    }
                }
                409 if entry.to.contains(&self.stranger) => {
                    entry.told.push(Told::Refused);
                    return End::Refused;
                }
                503 | 504 => {
                    let freed = answer.json()["code"] == "aborted";
                    entry.told.push(if freed { Told::NotPublished } else { Told::Unavailable });
                    if self.dice.random_bool(0.2) {
                        return End::GivenUp;
                    }
                    self.pause().await;
                }
                _ => return End::Odd(last),
            }
        }
    }

    /// Sends the request under its key; `None` where there was no answer.
    async fn ask(&self, entry: &mut Entry) -> Option<Answer> {
        let asked = send(&self.gateways[self.at], entry).await;
        let word = asked.as_ref().map_or("none".to_owned(), |answer| answer.status.to_string());
        *self.load.answers.lock().unwrap().entry(word).or_default() += 1;
        match asked {
            Ok(answer) => Some(answer),
            Err(error) => {
                // Without a connection nothing was sent.
                entry.unanswered += u32::from(!error.is_connect());
                None
            }
        }
    }

    /// Asks `Location` until it is final.
    async fn follow(&mut self, gid: Uuid, entry: &mut Entry, last: &mut String) -> Followed {
        while !self.is_late() {
            let gateway = self.gateways.choose(&mut self.dice).expect("there is a gateway").clone();
            let request = gateway.request(Method::GET, &format!("/api/2pc/{gid}")).timeout(PATIENCE);
            let Ok(answer) = try_send(request).await else {
                self.pause().await;
                continue;
            };
            *last = format!("{} {}", answer.status, answer.text);
            match answer.status {
                200 => match answer.json()["state"].as_str() {
                    Some("committed") => {
                        entry.told.push(Told::Committed(gid));
                        return Followed::Committed;
                    }
                    Some("aborted") => {
                        entry.told.push(Told::Aborted(gid));
                        return Followed::Aborted;
                    }
                    Some("preparing") => entry.told.push(Told::Open(gid)),
                    _ => return Followed::Odd(last.clone()),
                },
                503 | 504 => {}
                _ => return Followed::Odd(last.clone()),
            }
            self.pause().await;
        }
        // The caller sees that it is late.
        Followed::Aborted
    }

    fn is_late(&self) -> bool {
        self.load.give_up_at.lock().unwrap().is_some_and(|at| Instant::now() >= at)
    }

    async fn pause(&mut self) {
        sleep(Duration::from_millis(self.dice.random_range(50..400))).await;
    }
}

enum Followed {
    Committed,
    Aborted,
    Odd(String),
}

fn gid(answer: &Answer) -> Uuid {
    answer.json()["gid"].as_str().and_then(|gid| gid.parse().ok()).unwrap_or_else(|| panic!("a gid in {}", answer.text))
}

async fn send(gateway: &Api, entry: &Entry) -> Result<Answer, reqwest::Error> {
    let body = json!({ "topic": entry.topic, "message": entry.key, "to": entry.to });
    let request = gateway.request(Method::POST, "/api/notifications").header("Idempotency-Key", &entry.key);
    try_send(request.json(&body).timeout(PATIENCE)).await
}

/// Asks again with a key that was committed, until there is an answer: what it names.
pub(crate) async fn ask_again(gateways: &[Api], entry: &Entry, until: Instant) -> Result<Value, String> {
    let mut last = String::new();
    for gateway in gateways.iter().cycle() {
        match send(gateway, entry).await {
            Ok(answer) if matches!(answer.status, 201 | 202) => return Ok(answer.json()),
            Ok(answer) if !matches!(answer.status, 503 | 504) => {
                return Err(format!("{} {}", answer.status, answer.text));
            }
            Ok(answer) => last = format!("{} {}", answer.status, answer.text),
            Err(error) => last = error.to_string(),
        }
        if Instant::now() >= until {
            break;
        }
        sleep(Duration::from_millis(100)).await;
    }
    Err(last)
}

/// By name.
pub(crate) fn topics_of(publishers: &[Publisher]) -> HashMap<String, Uuid> {
    publishers.iter().flat_map(|publisher| &publisher.topics).map(|topic| (topic.name.clone(), topic.id)).collect()
}

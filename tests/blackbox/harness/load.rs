//! Publishing under load, and the reckoning after it: what was accepted is there, once, and the counters agree.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::Instant};

use super::{Answer, Person, try_send};

/// The protocol's bound is 45 s after everything is reachable again; four times that where a busy machine has to be reached, and everything
/// that was tried is tried again.
const SETTLED_WITHIN: Duration = Duration::from_secs(180);

/// Publishers at work.
pub(crate) struct Load {
    tasks: JoinSet<Vec<Attempt>>,
    stop: Arc<AtomicBool>,
    accepted: Arc<AtomicUsize>,
    publisher: Publisher,
}

#[derive(Clone)]
struct Publisher {
    person: Person,
    topic: String,
}

/// One publish, under a key of its own, and what became of it as far as the client was told.
#[derive(Clone, Debug)]
pub(crate) struct Attempt {
    key: String,
    /// None where the connection broke.
    answer: Option<Answer>,
}

impl Attempt {
    fn is(&self, status: u16) -> bool {
        self.answer.as_ref().is_some_and(|answer| answer.status == status)
    }
}

impl Load {
    /// Publishes from so many tasks, each one message after the other.
    pub(crate) fn start(person: &Person, topic: &str, tasks: usize) -> Self {
        let publisher = Publisher { person: person.clone(), topic: topic.to_owned() };
        let mut load = Self {
            tasks: JoinSet::new(),
            stop: Arc::default(),
            accepted: Arc::default(),
            publisher: publisher.clone(),
        };
        for task in 0..tasks {
            let (publisher, stop, accepted) = (publisher.clone(), load.stop.clone(), load.accepted.clone());
            load.tasks.spawn(async move {
                let mut attempts = Vec::new();
                while !stop.load(Ordering::SeqCst) {
                    let key = format!("{task}.{}", attempts.len());
                    let answer = publisher.publish(&key).await;
                    let broken = answer.is_none();
                    let attempt = Attempt { key, answer };
                    if attempt.is(201) {
                        accepted.fetch_add(1, Ordering::SeqCst);
                    }
                    attempts.push(attempt);
                    if broken {
                        // The server is gone: one unanswered publish per task is what a crash leaves.
                        break;
                    }
                }
                attempts
            });
        }
        load
    }

    /// Waits until so many more were answered with 201.
    pub(crate) async fn accepted(&self, more: usize, within: Duration) {
        let (enough, deadline) = (self.accepted.load(Ordering::SeqCst) + more, Instant::now() + within);
        while self.accepted.load(Ordering::SeqCst) < enough {
            assert!(Instant::now() < deadline, "fewer than {more} publishes were accepted within {within:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ends the publishing and gives what was tried.
    pub(crate) async fn stop(mut self) -> Reckoning {
        self.stop.store(true, Ordering::SeqCst);
        let mut attempts = Vec::new();
        while let Some(done) = self.tasks.join_next().await {
            attempts.extend(done.expect("a publisher does not panic"));
        }
        Reckoning { publisher: self.publisher, attempts }
    }
}

impl Publisher {
    async fn publish(&self, key: &str) -> Option<Answer> {
        let body = json!({ "topic": self.topic, "message": key });
        let request = self.person.api.request(Method::POST, "/api/notifications").header("Idempotency-Key", key);
        try_send(request.json(&body)).await.ok()
    }

    /// Repeats a publish, as the contract tells a client to, until it is answered with 201.
    async fn insist(&self, key: &str, deadline: Instant) -> Value {
        loop {
            let answer = self.publish(key).await.expect("the server is there again");
            match answer.status {
                201 => return answer.json(),
                202 | 503 => {}
                _ => panic!("{key}: {} {}", answer.status, answer.text),
            }
            assert!(Instant::now() < deadline, "{key} is not settled: {} {}", answer.status, answer.text);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

/// What was tried, to be compared with what is there.
pub(crate) struct Reckoning {
    publisher: Publisher,
    attempts: Vec<Attempt>,
}

impl Reckoning {
    /// How many were answered with this status.
    pub(crate) fn count(&self, status: u16) -> usize {
        self.attempts.iter().filter(|attempt| attempt.is(status)).count()
    }

    /// Every answer that there was, for a failure's text.
    pub(crate) fn summary(&self) -> BTreeMap<String, usize> {
        self.attempts.iter().fold(BTreeMap::new(), |mut counts, attempt| {
            let key = attempt.answer.as_ref().map_or("broken".to_owned(), |answer| answer.status.to_string());
            *counts.entry(key).or_default() += 1;
            counts
        })
    }

    /// Every 201 is in the subscriber's inbox exactly once, before anything is repeated.
    pub(crate) async fn nothing_is_lost(&self, subscriber: &Person) {
        let inbox = subscriber.inbox(&self.publisher.topic).await;
        let mut times: BTreeMap<&str, usize> = BTreeMap::new();
        for notification in &inbox {
            *times.entry(notification["message"].as_str().expect("text")).or_default() += 1;
        }
        for attempt in self.attempts.iter().filter(|attempt| attempt.is(201)) {
            assert_eq!(times.get(attempt.key.as_str()), Some(&1), "{attempt:?}");
        }
        assert!(times.values().all(|times| *times == 1), "doubled: {times:?}");
    }

    /// Repeats every publish until it is accepted; then each is there once, and all counts agree. `at` is where the
    /// publisher finds the gateway now.
    pub(crate) async fn settle(mut self, at: &str, subscriber: &Person, topic_id: &str) {
        self.publisher.person = self.publisher.person.at(at);
        let deadline = Instant::now() + SETTLED_WITHIN;
        let publisher = &self.publisher;
        for some in self.attempts.chunks(32) {
            let settled = futures_util::future::join_all(some.iter().map(|a| publisher.insist(&a.key, deadline))).await;
            for (attempt, settled) in some.iter().zip(settled) {
                // A key that was committed once always answers with the same notification.
                if attempt.is(201) || attempt.is(202) {
                    let told = attempt.answer.as_ref().expect("it has a status").json();
                    assert_eq!(told["id"], settled["id"], "{attempt:?}");
                }
            }
        }
        let inbox = subscriber.inbox(&publisher.topic).await;
        let messages: BTreeSet<_> = inbox.iter().map(|n| n["message"].as_str().expect("text")).collect();
        let keys: BTreeSet<_> = self.attempts.iter().map(|attempt| attempt.key.as_str()).collect();
        assert_eq!(messages, keys);
        let total = keys.len() as u64;
        let offsets = inbox.iter().rev().map(|n| n["offset"].as_u64().expect("an offset"));
        assert!(offsets.eq(1..=total), "each once, without a gap");
        assert_eq!(publisher.person.counter().await, total, "the publisher's counter");
        assert_eq!(publisher.person.topic_counter(topic_id).await, total, "the topic's counter");
        assert_eq!(subscriber.unread(&publisher.topic).await.1, total, "unread");
    }
}

//! A client as the contract tells it to be: it asks whichever gateway it likes, and asks again until the answer is final.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use notifyx_model::Clock;
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use reqwest::RequestBuilder;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::story::{Act, Answer, Story};
use crate::harness::{Api, Person, try_send};

/// Mostly a client gives up before a stopped process goes on, and asks the other gateway; a patient one hears what comes of that.
const PATIENCE: Duration = Duration::from_secs(4);
const GREAT_PATIENCE: Duration = Duration::from_secs(15);
const PATIENT: f64 = 0.2;

/// What all clients of a run share.
#[derive(Default)]
pub(crate) struct Load {
    pub(crate) stop: AtomicBool,
    /// Things that were given and taken.
    pub(crate) taken: AtomicUsize,
    /// Answers by status, `none` where there was none.
    pub(crate) answers: Mutex<BTreeMap<String, usize>>,
    /// From when on nobody tries any more; set once everything is healed.
    pub(crate) give_up_at: Mutex<Option<Instant>>,
}

pub(crate) struct Client<'a> {
    doors: Vec<Api>,
    load: &'a Load,
    pub(crate) dice: StdRng,
}

/// What one request came to.
pub(crate) struct Asked {
    pub(crate) at_us: i64,
    pub(crate) door: String,
    pub(crate) answer: Answer,
    /// Null where there is none.
    pub(crate) body: Value,
}

/// The wall clock, in microseconds.
pub(crate) fn now_us() -> i64 {
    Clock::system().now().as_micros()
}

/// What a time in an answer says, in microseconds.
pub(crate) fn micros(time: &Value) -> i64 {
    let text = time.as_str().unwrap_or_else(|| panic!("no time: {time}"));
    text.parse::<jiff::Timestamp>().unwrap_or_else(|error| panic!("{error}: {text}")).as_microsecond()
}

impl<'a> Client<'a> {
    pub(crate) fn new(person: &Person, gateways: &[String], load: &'a Load, seed: u64) -> Self {
        let doors = gateways.iter().map(|gateway| person.at(gateway).api).collect();
        Self { doors, load, dice: StdRng::seed_from_u64(seed) }
    }

    pub(crate) fn goes_on(&self) -> bool {
        !self.load.stop.load(Ordering::SeqCst)
    }

    /// Sends a request through one of the gateways, once.
    pub(crate) async fn ask(&mut self, request: impl Fn(&Api) -> RequestBuilder) -> Asked {
        let patience = if self.dice.random_bool(PATIENT) { GREAT_PATIENCE } else { PATIENCE };
        let door = self.doors.choose(&mut self.dice).expect("there is a gateway");
        let (answer, body, word) = match try_send(request(door).timeout(patience)).await {
            Ok(answer) => {
                let body = serde_json::from_str(&answer.text).unwrap_or(Value::Null);
                (Answer::of(answer.status, &body), body, answer.status.to_string())
            }
            // Without a connection nothing was sent.
            Err(error) if error.is_connect() => (Answer::Untaken("no connection".into()), Value::Null, "none".into()),
            Err(_) => (Answer::Unknown("no answer".into()), Value::Null, "none".into()),
        };
        *self.load.answers.lock().unwrap().entry(word).or_default() += 1;
        Asked { at_us: now_us(), door: door.address.clone(), answer, body }
    }

    /// Asks for one thing until the answer is final: the body, if it is done.
    pub(crate) async fn insist(
        &mut self,
        story: &mut Story,
        act: Act,
        request: impl Fn(&Api) -> RequestBuilder,
    ) -> Option<Value> {
        loop {
            let Asked { at_us, door, answer, body } = self.ask(&request).await;
            story.tell(at_us, &door, act, answer.clone());
            if answer.is_final() {
                let done = answer == Answer::Done;
                self.count(usize::from(done && matches!(act, Act::Give(_))));
                return done.then_some(body);
            }
            if self.is_late() {
                story.tell(now_us(), &door, act, Answer::Odd("none, long after everything was healed".to_owned()));
                return None;
            }
            self.pause().await;
        }
    }

    pub(crate) fn count(&self, taken: usize) {
        self.load.taken.fetch_add(taken, Ordering::SeqCst);
    }

    pub(crate) fn is_late(&self) -> bool {
        self.load.give_up_at.lock().unwrap().is_some_and(|at| Instant::now() >= at)
    }

    pub(crate) async fn pause(&mut self) {
        sleep(Duration::from_millis(self.dice.random_range(50..400))).await;
    }

    /// A time for something: mostly some seconds ahead, sometimes past. In whole milliseconds, as it is written in requests.
    pub(crate) fn time(&mut self) -> i64 {
        let ahead_ms = if self.dice.random_bool(0.15) { -1_000 } else { self.dice.random_range(0..6_000) };
        (now_us() / 1_000 + ahead_ms) * 1_000
    }
}

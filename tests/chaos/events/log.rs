//! The logs as they stand, read page by page through the front door.

use std::{collections::HashMap, time::Duration};

use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{client::micros, story::Happened};
use crate::harness::{Answer, Api, try_send};

/// An event of the log.
#[derive(Clone, Debug)]
pub(crate) struct Fired {
    pub(crate) offset: u64,
    pub(crate) id: String,
    /// What its poster calls it.
    pub(crate) name: String,
    /// Of the recurring schedule that made it.
    pub(crate) schedule: Option<String>,
    pub(crate) due_us: i64,
    pub(crate) at_us: i64,
}

/// By category, in order of offset.
pub(crate) struct Logs(pub(crate) HashMap<String, Vec<Fired>>);

impl Logs {
    pub(crate) async fn read(api: &Api, categories: &[String], until: Instant) -> Self {
        let mut logs = HashMap::new();
        for category in categories {
            logs.insert(category.clone(), above(api, category, 0, until).await);
        }
        Self(logs)
    }

    pub(crate) fn of(&self, category: &str) -> &[Fired] {
        self.0.get(category).map_or(&[], Vec::as_slice)
    }

    /// Each time that something of this name happened.
    pub(crate) fn happened(&self, category: &str, name: &str) -> Vec<Happened> {
        let named = self.of(category).iter().filter(|event| event.name == name);
        named.map(|event| Happened { due_us: Some(event.due_us), at_us: event.at_us }).collect()
    }

    /// Offsets that are not each once, from 1 on, and ids that are there twice.
    pub(crate) fn violations(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for (category, events) in &self.0 {
            let mut ids: HashMap<&str, u64> = HashMap::new();
            for (expected, event) in (1..).zip(events) {
                if event.offset != expected {
                    wrong.push(format!("{category} has {event:?} where offset {expected} belongs"));
                    break;
                }
                if let Some(before) = ids.insert(&event.id, event.offset) {
                    wrong.push(format!("{category} has {} at {before} and at {}", event.id, event.offset));
                }
            }
        }
        wrong
    }
}

/// The log of a category above an offset.
pub(crate) async fn above(api: &Api, category: &str, after: u64, until: Instant) -> Vec<Fired> {
    let mut all: Vec<Fired> = Vec::new();
    loop {
        let after = all.last().map_or(after, |event| event.offset);
        let page = get(api, &format!("/events?category={category}&after={after}&limit=1000"), until).await;
        let page = page["events"].as_array().expect("a list");
        if page.is_empty() {
            return all;
        }
        all.extend(page.iter().map(fired));
    }
}

/// Asks until there is an answer.
pub(crate) async fn get(api: &Api, path: &str, until: Instant) -> Value {
    loop {
        let answer = try_send(api.request(reqwest::Method::GET, path)).await;
        let said = match answer {
            Ok(answer @ Answer { status: 200, .. }) => return answer.json(),
            Ok(Answer { status, text, .. }) if !matches!(status, 503 | 504) => panic!("GET {path}: {status} {text}"),
            Ok(answer) => answer.text,
            Err(error) => error.to_string(),
        };
        assert!(Instant::now() < until, "GET {path} is still answered with {said}");
        sleep(Duration::from_millis(100)).await;
    }
}

fn fired(event: &Value) -> Fired {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    Fired {
        offset: event["offset"].as_u64().expect("an offset"),
        id: text(&event["id"]).expect("an id"),
        name: text(&event["data"]["n"]).unwrap_or_default(),
        schedule: text(&event["scheduleId"]),
        due_us: micros(&event["fireAt"]),
        at_us: micros(&event["firedAt"]),
    }
}

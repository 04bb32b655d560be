//! Schedules notifications under keys, moves and takes back some; whom they are for looks into the inbox.

use std::collections::HashMap;

use rand::Rng;
use reqwest::Method;
use serde_json::json;
use tokio::time::Instant;

use super::{
    client::{Client, micros},
    log::get,
    story::{Act, Happened, Story},
};
use crate::harness::Api;

pub(crate) struct Notifier<'a> {
    pub(crate) name: String,
    pub(crate) client: Client<'a>,
    pub(crate) topic: &'a str,
}

/// A scheduled notification; its message is its key, and its story's name.
pub(crate) struct Notification {
    pub(crate) story: Story,
    /// `None`: that it was taken nobody was told.
    pub(crate) id: Option<String>,
}

impl Notifier<'_> {
    /// One after the other until it is told to stop.
    pub(crate) async fn run(mut self) -> Vec<Notification> {
        let mut all = Vec::new();
        while self.client.goes_on() {
            all.push(self.schedule(all.len()).await);
            self.client.pause().await;
        }
        all
    }

    async fn schedule(&mut self, number: usize) -> Notification {
        let key = format!("{}.{number}", self.name);
        let mut story = Story::new(self.topic, &key);
        let at = self.client.time();
        let body = json!({ "topic": self.topic, "message": key, "fire_at": at / 1_000 });
        let give =
            |door: &Api| door.request(Method::POST, "/api/notifications").header("Idempotency-Key", &key).json(&body);
        let given = self.client.insist(&mut story, Act::Give(at), give).await;
        let id = given.map(|given| given["id"].as_str().expect("an id").to_owned());
        if let Some(id) = &id {
            let path = format!("/api/notifications/scheduled/{id}");
            if self.client.dice.random_bool(0.2) {
                let to = self.client.time();
                let body = json!({ "fire_at": to / 1_000 });
                let moved = |door: &Api| door.request(Method::PATCH, &path).json(&body);
                self.client.insist(&mut story, Act::Move(to), moved).await;
            }
            if self.client.dice.random_bool(0.2) {
                self.client.insist(&mut story, Act::Cancel, |door| door.request(Method::DELETE, &path)).await;
            }
        }
        Notification { story, id }
    }
}

/// What reached somebody, by message: when.
pub(crate) struct Inbox(HashMap<String, Vec<Happened>>);

impl Inbox {
    pub(crate) async fn read(api: &Api, topic: &str, until: Instant) -> Self {
        let mut inbox: HashMap<String, Vec<Happened>> = HashMap::new();
        let mut after = String::new();
        loop {
            let page = get(api, &format!("/api/notifications?topic_name={topic}&limit=500{after}"), until).await;
            for notification in page["notifications"].as_array().expect("a list") {
                let message = notification["message"].as_str().expect("text").to_owned();
                let at_us = micros(&notification["inserted_at"]);
                inbox.entry(message).or_default().push(Happened { due_us: None, at_us });
            }
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => return Self(inbox),
            }
        }
    }

    pub(crate) fn of(&self, message: &str) -> &[Happened] {
        self.0.get(message).map_or(&[], Vec::as_slice)
    }
}

//! Makes recurring schedules of a few occurrences, runs some by hand, deletes some; and what must hold for each nominal time.

use std::collections::BTreeSet;

use rand::{Rng, seq::IndexedRandom};
use reqwest::Method;
use serde_json::{Value, json};

use super::{
    client::{Client, now_us},
    log::{Fired, Logs},
    story::{Act, Happened, Story},
};

/// Between two occurrences: the shortest there is.
const EVERY_US: i64 = 1_000_000;

pub(crate) struct Maker<'a> {
    pub(crate) name: String,
    pub(crate) client: Client<'a>,
    pub(crate) category: &'a str,
}

/// A recurring schedule, and what its maker was told.
pub(crate) struct Recurring {
    /// It is given when it is created, and cancelled when it is deleted.
    pub(crate) story: Story,
    /// The event that it was asked to fire beside its rule.
    pub(crate) run: Option<Story>,
    start_us: i64,
    count: i64,
    on_missed: &'static str,
}

impl Maker<'_> {
    /// One after the other until it is told to stop.
    pub(crate) async fn run(mut self) -> Vec<Recurring> {
        let mut all = Vec::new();
        while self.client.goes_on() {
            all.push(self.make(all.len()).await);
            self.client.pause().await;
        }
        all
    }

    async fn make(&mut self, number: usize) -> Recurring {
        let id = format!("{}.{number}", self.name);
        let start_us = self.client.time();
        let mut recurring = Recurring {
            story: Story::new(self.category, &id),
            run: None,
            start_us,
            count: self.client.dice.random_range(2..6),
            on_missed: ["fire_all", "fire_last", "skip"].choose(&mut self.client.dice).expect("there are three"),
        };
        let Recurring { count, on_missed, .. } = recurring;
        let body = json!({ "id": id, "category": self.category, "every": "1s", "startAt": start_us / 1_000, "count": count,
            "onMissed": on_missed, "data": { "n": "" } });
        let create = |door: &crate::harness::Api| door.request(Method::POST, "/schedules").json(&body);
        self.client.insist(&mut recurring.story, Act::Give(start_us), create).await;
        if self.client.dice.random_bool(0.2) {
            let event = format!("{id}.run");
            let path = format!("/schedules/{id}/run?eventId={event}");
            let mut story = Story::new(self.category, event);
            let now = now_us();
            self.client.insist(&mut story, Act::Give(now), |door| door.request(Method::POST, &path)).await;
            recurring.run = Some(story);
        }
        // One that may be created once more by a request that is under way is left alone.
        if self.client.dice.random_bool(0.2) && recurring.story.is_certain() {
            self.client.pause().await;
            let path = format!("/schedules/{id}");
            self.client.insist(&mut recurring.story, Act::Cancel, |door| door.request(Method::DELETE, &path)).await;
        }
        recurring
    }
}

impl Recurring {
    pub(crate) fn id(&self) -> &str {
        &self.story.name
    }

    /// `shown`: as it stands, where it still does.
    pub(crate) fn violations(&self, logs: &Logs, shown: Option<&Value>) -> Vec<String> {
        let run = self.run.as_ref().map(|story| story.name.as_str());
        let of_this = logs.of(&self.story.place).iter().filter(|event| event.schedule.as_deref() == Some(self.id()));
        let (by_hand, made): (Vec<&Fired>, Vec<&Fired>) = of_this.partition(|event| Some(event.id.as_str()) == run);
        let mut wrong = self.story.odd();
        if let Some(story) = &self.run {
            // Its time is that of whichever request was first.
            let happened = by_hand.iter().map(|event| Happened { due_us: None, at_us: event.at_us });
            wrong.extend(story.violations(&happened.collect::<Vec<_>>()));
        }
        let mut met = BTreeSet::new();
        for event in &made {
            let since = event.due_us - self.start_us;
            if since < 0 || since % EVERY_US != 0 {
                wrong.push(format!("fired for a time that is none of its own: {event:?}"));
            }
            if !met.insert(event.due_us) {
                wrong.push(format!("fired twice for one time: {event:?}"));
            }
            if event.at_us < event.due_us {
                wrong.push(format!("fired early: {event:?}"));
            }
        }
        if let Some(shown) = shown {
            let (created, skipped) = (shown["created"].as_i64(), shown["skipped"].as_i64());
            if created != i64::try_from(met.len()).ok() || created.zip(skipped).map(|(c, s)| c + s) != Some(self.count)
            {
                wrong.push(format!("fired {} times of {}, but it says {shown}", met.len(), self.count));
            }
            if self.on_missed == "fire_all" && skipped != Some(0) {
                wrong.push(format!("is to fire whatever it missed, and says {shown}"));
            }
        }
        // From the first on that comes after it was created.
        let first = met.first().copied().unwrap_or_default();
        let apart = |(k, time): (i64, &i64)| *time != first + k * EVERY_US;
        if self.on_missed == "fire_all" && (0..).zip(&met).any(apart) {
            wrong.push(format!("is to fire whatever it missed, and fired for {met:?}"));
        }
        if met.last().is_some_and(|last| last - first >= self.count * EVERY_US) {
            wrong.push(format!("fired for more than {} times: {met:?}", self.count));
        }
        wrong.into_iter().map(|what| format!("schedule {} {what}", self.id())).collect()
    }
}

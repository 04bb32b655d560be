//! Posts events, alone and in arrays, with ids of its own and without, and moves or cancels some before their time.

use rand::{Rng, seq::IndexedRandom};
use reqwest::Method;
use serde_json::{Value, json};

use super::{
    client::{Asked, Client, now_us},
    story::{Act, Answer, Story},
};

/// Events of one array.
const ARRAY_MAX: usize = 12;

pub(crate) struct Poster<'a> {
    pub(crate) name: String,
    pub(crate) client: Client<'a>,
    pub(crate) categories: &'a [String],
}

impl Poster<'_> {
    /// Until it is told to stop: the stories of its events, each with its number in `data`.
    pub(crate) async fn run(mut self) -> Vec<Story> {
        let mut stories = Vec::new();
        while self.client.goes_on() {
            // In bursts: posts that meet share a transaction.
            if self.client.dice.random_bool(0.6) {
                self.client.pause().await;
            }
            let count = if self.client.dice.random_bool(0.7) { 1 } else { self.client.dice.random_range(2..ARRAY_MAX) };
            let named = self.client.dice.random_bool(0.7);
            let drafts: Vec<Draft> = (0..count).map(|i| self.draft(stories.len() + i, named)).collect();
            let mut given = self.post(&drafts).await;
            if let ([story], [draft]) = (&mut *given, &*drafts) {
                self.change(story, draft).await;
            }
            stories.extend(given);
        }
        stories
    }

    fn draft(&mut self, number: usize, named: bool) -> Draft {
        let category = self.categories.choose(&mut self.client.dice).expect("there are categories").clone();
        let name = format!("{}.{number}", self.name);
        let priority = self.client.dice.random_range(0..=9);
        Draft { category, name, named, fire_at_us: self.client.time(), priority }
    }

    /// Until all have their final answer; those without an id are posted once, as a second time would be a second event.
    async fn post(&mut self, drafts: &[Draft]) -> Vec<Story> {
        let mut stories: Vec<Story> = drafts.iter().map(|draft| Story::new(&draft.category, &draft.name)).collect();
        let bodies: Vec<Value> = drafts.iter().map(Draft::body).collect();
        let body = if let [body] = &*bodies { body.clone() } else { json!(bodies) };
        loop {
            let Asked { at_us, door, answer, body: said } =
                self.client.ask(|door| door.request(Method::POST, "/events").json(&body)).await;
            let answers = each(&answer, &said, drafts);
            for ((story, draft), answer) in stories.iter_mut().zip(drafts).zip(&answers) {
                story.tell(at_us, &door, Act::Give(draft.fire_at_us), answer.clone());
            }
            let done = answers.iter().all(Answer::is_final);
            if done || !drafts[0].named {
                self.client.count(answers.iter().filter(|answer| **answer == Answer::Done).count());
                return stories;
            }
            if self.client.is_late() {
                let odd = Answer::Odd("none, long after everything was healed".to_owned());
                for (story, draft) in stories.iter_mut().zip(drafts) {
                    story.tell(now_us(), &door, Act::Give(draft.fire_at_us), odd.clone());
                }
                return stories;
            }
            self.client.pause().await;
        }
    }

    /// Perhaps another time, perhaps none.
    async fn change(&mut self, story: &mut Story, draft: &Draft) {
        if !draft.named || !story.stands() {
            return;
        }
        let path = format!("/events/{}?category={}", draft.name, draft.category);
        while self.client.dice.random_bool(0.4) {
            let to = self.client.time();
            let body = json!({ "fireAt": to / 1_000 });
            let moved = |door: &crate::harness::Api| door.request(Method::PATCH, &path).json(&body);
            self.client.insist(story, Act::Move(to), moved).await;
        }
        if self.client.dice.random_bool(0.3) {
            self.client.insist(story, Act::Cancel, |door| door.request(Method::DELETE, &path)).await;
        }
    }
}

struct Draft {
    category: String,
    name: String,
    /// Whether its name is the event's id.
    named: bool,
    fire_at_us: i64,
    priority: u8,
}

impl Draft {
    fn body(&self) -> Value {
        let mut body = json!({ "category": self.category, "fireAt": self.fire_at_us / 1_000, "priority": self.priority,
            "data": { "n": self.name } });
        if self.named {
            body["id"] = json!(self.name);
        }
        body
    }

    /// The answer, if the event in it is this one.
    fn checked(&self, event: &Value) -> Answer {
        let same = event["data"]["n"] == json!(self.name) && event["category"] == json!(self.category);
        if same { Answer::Done } else { Answer::Odd(format!("201 {event}")) }
    }
}

/// What the answer to a request says of each of its events, in their order.
fn each(answer: &Answer, said: &Value, drafts: &[Draft]) -> Vec<Answer> {
    if let ([draft], Answer::Done) = (drafts, answer) {
        return vec![draft.checked(said)];
    }
    let list = said.as_array().or(said["results"].as_array());
    match list {
        Some(list) if list.len() == drafts.len() => {
            let one = |(draft, said): (&Draft, &Value)| match said["status"].as_u64() {
                // An event: all were stored.
                None => draft.checked(said),
                Some(201) => draft.checked(&said["event"]),
                Some(status) => Answer::of(u16::try_from(status).expect("a status"), &said["problem"]),
            };
            drafts.iter().zip(list).map(one).collect()
        }
        Some(_) => drafts.iter().map(|_| Answer::Odd(said.to_string())).collect(),
        None => drafts.iter().map(|_| answer.clone()).collect(),
    }
}

//! The front door as a program without our types would use it: JSON in, JSON out, a deadline on every call.

use std::time::Duration;

use reqwest::{Method, RequestBuilder, header::HeaderMap};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use super::{Socket, unique};

/// Longer than any answer may take under the load of these tests.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

#[derive(Clone, Debug)]
pub(crate) struct Api {
    http: reqwest::Client,
    pub(crate) address: String,
    token: Option<String>,
}

#[derive(Clone, Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) text: String,
}

impl Api {
    pub(crate) fn new(address: &str) -> Self {
        let http = reqwest::Client::builder().no_proxy().timeout(ANSWER_WITHIN).build().expect("plain HTTP");
        Self { http, address: address.to_owned(), token: None }
    }

    #[must_use]
    pub(crate) fn with_token(mut self, token: &str) -> Self {
        self.token = Some(token.to_owned());
        self
    }

    pub(crate) fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("http://{}{path}", self.address));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        send(self.request(Method::GET, path)).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        send(self.request(Method::DELETE, path)).await
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Answer {
        send(self.request(Method::POST, path).json(&body)).await
    }
}

/// Sends it; that there is an answer is expected of every door.
pub(crate) async fn send(request: RequestBuilder) -> Answer {
    try_send(request).await.unwrap_or_else(|error| panic!("no answer: {error:?}"))
}

/// For tests that end the server under the request.
pub(crate) async fn try_send(request: RequestBuilder) -> Result<Answer, reqwest::Error> {
    let response = request.send().await?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    Ok(Answer { status, headers, text: response.text().await? })
}

impl Answer {
    /// The body of an answer that has this status.
    #[track_caller]
    pub(crate) fn expect(&self, status: u16) -> Value {
        assert_eq!(self.status, status, "{}", self.text);
        self.json()
    }

    #[track_caller]
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error} in {:?}", self.text))
    }

    /// The code of an answer that refuses, in the form that every refusal has.
    #[track_caller]
    pub(crate) fn refused(&self, status: u16) -> String {
        assert_eq!(self.status, status, "{}", self.text);
        assert_eq!(self.headers["content-type"], "application/problem+json", "{}", self.text);
        let problem = self.json();
        assert_eq!((&problem["status"], &problem["success"]), (&json!(status), &json!(false)), "{problem}");
        assert_eq!(problem["request_id"], self.headers["x-request-id"].to_str().expect("hexadecimal"), "{problem}");
        assert!(!problem["detail"].as_str().expect("a sentence").is_empty(), "{problem}");
        problem["code"].as_str().expect("a word").to_owned()
    }
}

/// A registered user with a session.
#[derive(Clone, Debug)]
pub(crate) struct Person {
    pub(crate) api: Api,
    pub(crate) id: String,
    pub(crate) email: String,
    pub(crate) password: String,
    pub(crate) token: String,
}

impl Person {
    pub(crate) async fn register(anonymous: Api, name: &str) -> Self {
        let password = format!("the password of {name}");
        let mut email = String::new();
        let registered = patiently(|| {
            // Another one each time: whether the one before is taken by now is not known.
            email = format!("{}@example.org", unique(name));
            anonymous.post("/api/register_user", json!({ "email": email, "password": password }))
        });
        let id = registered.await.expect(201)["id"].as_str().expect("an id").to_owned();
        let token = log_in(&anonymous, &email, &password).await;
        Self { api: anonymous.with_token(&token), id, email, password, token }
    }

    /// The same person in another session.
    pub(crate) async fn another_session(&self) -> Self {
        let token = log_in(&Api::new(&self.api.address), &self.email, &self.password).await;
        Self { api: self.api.clone().with_token(&token), token, ..self.clone() }
    }

    /// The same person at another door: the gateway after a restart, an inner service.
    pub(crate) fn at(&self, address: &str) -> Self {
        Self { api: Api::new(address).with_token(&self.token), ..self.clone() }
    }

    /// An open socket.
    pub(crate) async fn socket(&self) -> Socket {
        let opened = Socket::open(&self.api.address, &[("token", &self.token)]).await;
        opened.unwrap_or_else(|status| panic!("the socket of {} was refused with {status}", self.email))
    }

    /// The id of a topic that this person creates.
    pub(crate) async fn create_topic(&self, name: &str) -> String {
        let topic = self.api.post("/api/topics", json!({ "name": name })).await.expect(201);
        topic["id"].as_str().expect("an id").to_owned()
    }

    pub(crate) async fn subscribe(&self, topic_id: &str) {
        self.api.post(&format!("/api/subscribers/{topic_id}"), json!({})).await.expect(200);
    }

    /// Publishes to every subscriber and gives the answer of a 201.
    pub(crate) async fn publish(&self, topic: &str, message: &str) -> Value {
        self.api.post("/api/notifications", json!({ "topic": topic, "message": message })).await.expect(201)
    }

    /// The whole inbox of a topic, newest first.
    pub(crate) async fn inbox(&self, topic: &str) -> Vec<Value> {
        let (mut all, mut after) = (Vec::new(), String::new());
        loop {
            let page =
                self.api.get(&format!("/api/notifications?topic_name={topic}&limit=500{after}")).await.expect(200);
            all.extend(page["notifications"].as_array().expect("a list").iter().cloned());
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => return all,
            }
        }
    }

    /// What is unread, in total and in one topic.
    pub(crate) async fn unread(&self, topic: &str) -> (u64, u64) {
        let unread = self.api.get("/api/notifications/unread").await.expect(200);
        let topics = unread["topics"].as_array().expect("a list");
        let of_topic =
            topics.iter().find(|t| t["topic"] == topic).map_or(0, |t| t["unread"].as_u64().expect("a count"));
        (unread["total"].as_u64().expect("a count"), of_topic)
    }

    /// What this person published.
    pub(crate) async fn counter(&self) -> u64 {
        let counter = self.api.get("/api/counter").await.expect(200);
        assert_eq!(counter["user_id"], self.id, "{counter}");
        counter["counter"].as_u64().expect("a count")
    }

    pub(crate) async fn topic_counter(&self, topic_id: &str) -> u64 {
        let counter = self.api.get(&format!("/api/counter/topics/{topic_id}")).await.expect(200);
        counter["counter"].as_u64().expect("a count")
    }
}

async fn log_in(anonymous: &Api, email: &str, password: &str) -> String {
    let credentials = json!({ "email": email, "password": password });
    let session = patiently(|| anonymous.post("/api/login", credentials.clone())).await.expect(200);
    session["token"].as_str().expect("a token").to_owned()
}

/// Passwords are hashed one per core: where all tests log in at once, some are told to come back.
async fn patiently<Fut: Future<Output = Answer>>(mut ask: impl FnMut() -> Fut) -> Answer {
    let deadline = Instant::now() + ANSWER_WITHIN;
    loop {
        let answer = ask().await;
        if !matches!(answer.status, 503 | 504) || Instant::now() > deadline {
            return answer;
        }
        sleep(Duration::from_millis(100)).await;
    }
}

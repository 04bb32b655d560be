//! Auth through its real door, on port 0.

mod door;
mod keys;
mod people;
mod sessions;

use notifyx_chassis::{Cluster, Context, Running};
use notifyx_database::DatabaseUrl;
use notifyx_model::{Clock, Secret};
use notifyx_wire::{
    header,
    rest::{
        Problem,
        auth::{LoggedIn, Registered},
    },
};
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use crate::Config;

const SECRET: &str = "the-cluster-secret";

struct Auth {
    running: Running,
    base: String,
    http: reqwest::Client,
    _folder: Option<TempDir>,
}

impl Auth {
    async fn open(clock: Clock) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database = DatabaseUrl::sqlite(folder.path().join("auth.db"));
        Self { _folder: Some(folder), ..Self::on(clock, database, |_| ()).await }
    }

    async fn on(clock: Clock, database: DatabaseUrl, change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config { listen: "127.0.0.1:0".parse().unwrap(), database, ..Config::default() };
        change(&mut config);
        let running = crate::start(config, context(clock, Vec::new())).await.unwrap();
        let base = format!("http://{}", running.address());
        Self { running, base, http: reqwest::Client::new(), _folder: None }
    }

    fn get(&self, path: &str) -> RequestBuilder {
        self.http.get(format!("{}{path}", self.base))
    }

    fn post(&self, path: &str, body: &Value) -> RequestBuilder {
        self.http.post(format!("{}{path}", self.base)).json(body)
    }

    fn delete(&self, path: &str) -> RequestBuilder {
        self.http.delete(format!("{}{path}", self.base))
    }

    async fn register(&self, email: &str) -> Registered {
        let answer = self.post("/api/users", &credentials(email)).send().await.unwrap();
        assert_eq!(answer.status(), 201);
        answer.json().await.unwrap()
    }

    async fn login(&self, email: &str) -> LoggedIn {
        let answer = self.post("/api/users/login", &credentials(email)).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        answer.json().await.unwrap()
    }

    async fn who(&self, session: &LoggedIn) -> Response {
        self.get("/api/users/self").bearer_auth(session.token.as_str()).send().await.unwrap()
    }

    async fn logout(&self, session: &LoggedIn) {
        let answer = self.delete("/api/users/logout").bearer_auth(session.token.as_str()).send().await.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.json::<Value>().await.unwrap(), json!({ "success": true }));
    }
}

fn context(clock: Clock, discovery: Vec<String>) -> Context {
    Context {
        clock,
        shutdown: CancellationToken::new(),
        runtime: tokio::runtime::Handle::current(),
        cluster: Cluster::new(Secret::new(SECRET)),
        discovery,
    }
}

fn credentials(email: &str) -> Value {
    json!({ "email": email, "password": "correct horse" })
}

fn cluster(call: RequestBuilder) -> RequestBuilder {
    call.header(header::CLUSTER_SECRET, SECRET)
}

async fn problem(call: RequestBuilder) -> (u16, String) {
    let answer = call.send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], Problem::MEDIA_TYPE);
    let problem: Problem = answer.json().await.unwrap();
    (problem.status, problem.code)
}

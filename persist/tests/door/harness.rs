//! Persist behind its real door, on port 0 and with a clock that the test moves.

use notifyx_chassis::{Cluster, Context, Running};
use notifyx_database::DatabaseUrl;
use notifyx_model::{Clock, Gid, ManualClock, NotificationId, Secret, UserId};
use notifyx_persist::{Config, start};
use notifyx_wire::header;
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

pub(crate) const SECRET: &str = "the cluster's secret of these tests";

pub(crate) struct Door {
    pub(crate) running: Running,
    base: String,
    client: reqwest::Client,
    pub(crate) hand: ManualClock,
    pub(crate) clock: Clock,
    _folder: TempDir,
}

#[derive(Clone, Copy)]
pub(crate) enum As {
    Nobody,
    Service,
    User(UserId),
}
pub(crate) use As::{Nobody, Service, User};

pub(crate) async fn open() -> Door {
    open_with(|_| {}).await
}

/// With other bounds than the defaults.
pub(crate) async fn open_with(change: impl FnOnce(&mut Config)) -> Door {
    let (folder, hand) = (tempfile::tempdir().unwrap(), ManualClock::new());
    let mut config = Config {
        listen: "127.0.0.1:0".parse().unwrap(),
        database: DatabaseUrl::sqlite(folder.path().join("persist.db")),
        topics_per_user_max: 2,
        ..Config::default()
    };
    change(&mut config);
    let context = Context {
        clock: hand.clock(),
        shutdown: CancellationToken::new(),
        runtime: tokio::runtime::Handle::current(),
        cluster: Cluster::new(Secret::new(SECRET)),
        discovery: Vec::new(),
    };
    let running = start(config, context).await.unwrap();
    let base = format!("http://{}", running.address());
    Door { running, base, client: reqwest::Client::new(), clock: hand.clock(), hand, _folder: folder }
}

impl Door {
    pub(crate) fn user(&self) -> UserId {
        UserId::new(&self.clock)
    }

    pub(crate) fn request(&self, caller: As, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.base));
        match caller {
            Nobody => request,
            Service => request.header(header::CLUSTER_SECRET, SECRET),
            User(id) => request
                .header(header::CLUSTER_SECRET, SECRET)
                .header(header::ASSERTED_USER, format!("{id} u-{}@example.org", id.uuid().simple())),
        }
    }

    pub(crate) async fn answer(&self, request: reqwest::RequestBuilder) -> (u16, Value) {
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let text = response.text().await.unwrap();
        (status, if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() })
    }

    pub(crate) async fn get(&self, caller: As, path: &str) -> (u16, Value) {
        self.answer(self.request(caller, Method::GET, path)).await
    }

    pub(crate) async fn post(&self, caller: As, path: &str, body: Value) -> (u16, Value) {
        self.answer(self.request(caller, Method::POST, path).json(&body)).await
    }

    pub(crate) async fn delete(&self, caller: As, path: &str) -> (u16, Value) {
        self.answer(self.request(caller, Method::DELETE, path)).await
    }

    /// The topic's id.
    pub(crate) async fn join(&self, topic: &str, user: UserId) -> String {
        let items = json!({ "items": [{ "topic": topic, "user_id": user }] });
        let (status, body) = self.post(Service, "/api/topics/join", items).await;
        assert_eq!(status, 200, "{body}");
        body["results"][0]["ok"]["id"].as_str().unwrap_or_else(|| panic!("{body}")).to_owned()
    }

    pub(crate) fn item(&self, topic: &str, from: UserId, message: &str, to: &[UserId]) -> Value {
        json!({ "gid": Gid::new(&self.clock), "publish": {
            "notification_id": NotificationId::new(&self.clock), "topic_id": topic, "from_user_id": from,
            "from": "ann@example.org", "message": message, "to_users": to,
        }})
    }

    pub(crate) async fn step(&self, step: &str, items: &[Value]) -> Value {
        let gids: Vec<_> = items.iter().map(|item| item["gid"].clone()).collect();
        let (status, body) = self.post(Service, &format!("/api/2pc/{step}"), json!({ "gids": gids })).await;
        assert_eq!(status, 200, "{body}");
        body["acks"].clone()
    }

    /// One sample of `/metrics`, by its name with its labels.
    pub(crate) async fn metric(&self, sample: &str) -> u64 {
        let text = self.request(Nobody, Method::GET, "/metrics").send().await.unwrap().text().await.unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix(sample)?.strip_prefix(' '));
        line.map_or(0, |value| value.parse().unwrap())
    }

    /// Waits until a sample has this value: the sweep's work is seen there.
    pub(crate) async fn metric_becomes(&self, sample: &str, value: u64) {
        let reached = async {
            while self.metric(sample).await != value {
                tokio::task::yield_now().await;
            }
        };
        let within = std::time::Duration::from_secs(60);
        tokio::time::timeout(within, reached).await.unwrap_or_else(|_| panic!("{sample} never became {value}"));
    }
}

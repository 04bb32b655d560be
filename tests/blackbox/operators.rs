//! What operators do about transactions, over REST and on the command line: see them, have one tried again, close one.
//!
//! A quarantine is made as it comes about: a participant's database loses a commit while the coordinator still waits for its ack.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection, SqliteConnection, sqlite::SqliteConnectOptions};
use uuid::Uuid;

use crate::harness::{Answer, Form, Options, Person, Platform, Terminal, in_both_forms, send, unique};

in_both_forms!(who_is_no_operator_is_refused, what_makes_no_sense_is_refused);

/// Recovery looks each second; a machine may be slow.
const WITHIN: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_ends_a_quarantine_on_sqlite() {
    an_operator_ends_a_quarantine(Form::Up).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_ends_a_quarantine_on_postgres() {
    an_operator_ends_a_quarantine(Form::Separate).await;
}

async fn an_operator_ends_a_quarantine(form: Form) {
    let platform = Platform::start(form).await;
    let (ann, topic) = publisher(&platform).await;
    let operator = Operator::new(&platform);
    let mut gids = Vec::new();
    for message in ["to be mended", "to be closed"] {
        let gid = closed(&ann, &operator, &topic, message).await;
        lose_a_commit(&platform, &gid).await;
        quarantined(&operator, &gid).await;
        gids.push(gid);
    }
    let [mended, closed] = [&gids[0], &gids[1]];

    // Both are listed and shown, and the publisher is told that it is looked at.
    let listed = operator.run(&["ls", "--state", "quarantined", "--json"]).await.records(0);
    assert!(listed.iter().map(|one| &one["gid"]).eq([mended, closed]), "oldest first: {listed:?}");
    let shown = operator.run(&["show", mended, "--json"]).await.records(0).remove(0);
    assert_eq!(
        (&shown["state"], &shown["decision"], &shown["applied"]),
        (&json!("quarantined"), &json!("committed"), &json!(1))
    );
    assert_eq!(
        shown["participants"],
        json!([
            { "service": "persist", "vote": "yes", "acked": true },
            { "service": "counter-2pc", "vote": "yes", "acked": false },
        ])
    );
    assert!(shown["reason"].as_str().unwrap().starts_with("counter-2pc: "), "{shown}");
    assert!(shown["age_ms"].as_u64().unwrap() > 0 && shown["user_id"] == ann.id, "{shown}");
    let told = operator.run(&["ls"]).await;
    assert!(told.code == 0 && told.out.lines().count() == 3 && told.out.contains("quarantined"), "{}", told.out);
    assert_eq!(status(&ann, mended).await["state"], "quarantined");

    // Nothing is resolved while it can still be mended: the lost row comes back, and a retry does not wait for the pause.
    bring_back(&platform, mended).await;
    operator.run(&["retry", mended]).await.expect(0);
    until(&operator, mended, |one| one["closed_at"].is_string()).await;
    let now = status(&ann, mended).await;
    assert_eq!((&now["state"], &now["applied"], &now["outcome"]), (&json!("committed"), &json!(2), &Value::Null));

    // What cannot be mended is closed, by name and with a reason.
    let reason = "ticket 7: the counter was restored from Monday";
    let resolved = operator
        .run(&["resolve", closed, "--outcome", "mixed", "--reason", reason, "--operator", "Ann of Ops", "--json"])
        .await
        .records(0)
        .remove(0);
    assert_eq!(
        (&resolved["state"], &resolved["decision"], &resolved["applied"]),
        (&json!("resolved"), &json!("committed"), &json!(1)),
        "the decision stays, and nobody is said to have applied what it did not: {resolved}"
    );
    let resolution = &resolved["resolution"];
    assert_eq!(
        (&resolution["outcome"], &resolution["operator"], &resolution["reason"]),
        (&json!("mixed"), &json!("Ann of Ops"), &json!(reason))
    );
    assert_eq!(resolved["closed_at"], resolution["at"]);
    let now = status(&ann, closed).await;
    assert_eq!(
        (&now["state"], &now["outcome"], &now["resolution"]),
        (&json!("resolved"), &json!("mixed"), &Value::Null)
    );
    let shown = operator.run(&["show", closed]).await;
    assert!(shown.code == 0 && shown.out.contains(reason) && shown.out.contains("Ann of Ops"), "{}", shown.out);

    // It is done: no second word, no more tries, nothing open.
    for gid in [mended, closed] {
        let again = operator.run(&["resolve", gid, "--outcome", "committed", "--reason", "r", "--operator", "o"]).await;
        again.expect(1);
        assert!(again.err.contains("is closed"), "{}", again.err);
        operator.run(&["retry", gid]).await.expect(1);
    }
    assert!(operator.run(&["ls", "--json"]).await.records(0).is_empty());
    assert_eq!(operator.run(&["ls", "--state", "resolved", "--json"]).await.records(0).len(), 1);
    let metrics = platform.anonymous().get("/metrics").await.text;
    assert!(metrics.contains("notifyx_2pc_resolved_total{outcome=\"mixed\"} 1"), "{metrics}");
    let deadline = Instant::now() + WITHIN;
    while !platform.anonymous().get("/metrics").await.text.contains("notifyx_2pc_quarantined 0") {
        assert!(Instant::now() < deadline, "the gauge follows within a second");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// What is open and well is nothing to resolve; a retry of it is allowed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_quarantined_is_not_resolved() {
    let platform = Platform::start(Form::Up).await;
    let (ann, topic) = publisher(&platform).await;
    let operator = Operator::new(&platform);
    let gid = closed(&ann, &operator, &topic, "not acknowledged yet").await;
    let far = "UPDATE txn SET acked_counter = FALSE, closed_at = NULL, lease_until = 9000000000000000 WHERE gid = $1";
    change(&platform, "gateway", far, &[&gid]).await;
    let resolve = json!({ "outcome": "mixed", "operator": "ann", "reason": "impatience" });
    assert_eq!(operator.post(&format!("/api/2pc/{gid}/resolve"), resolve).await.refused(409), "not_quarantined");
    let open = operator.get("/api/2pc?state=open").await.expect(200);
    assert_eq!(open["transactions"][0]["gid"], gid.as_str(), "{open}");
    operator.post(&format!("/api/2pc/{gid}/retry?operator=ann"), json!({})).await.expect(200);
    until(&operator, &gid, |one| one["closed_at"].is_string()).await;
    let resolve = json!({ "outcome": "mixed", "operator": "ann", "reason": "too late" });
    assert_eq!(operator.post(&format!("/api/2pc/{gid}/resolve"), resolve).await.refused(409), "transaction_closed");
    assert_eq!(status(&ann, &gid).await["state"], "committed");
}

/// `notifyx up` makes a secret where none is set; the command line finds it in the data folder.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_secret_is_found_where_up_keeps_it() {
    let options = Options { variables: vec![("NOTIFYX_CLUSTER__SECRET", "")], ..Options::default() };
    let platform = Platform::start_with(Form::Up, options).await;
    let terminal = Terminal::new(platform.gateway());
    let folder = platform.folder();
    let folder = folder.to_str().unwrap();
    assert!(terminal.run(&["2pc", "ls", "--data", folder, "--json"]).await.records(0).is_empty());
    terminal.run(&["2pc", "ls", "--secret-file", &format!("{folder}/cluster.secret")]).await.expect(0);
    terminal.run(&["2pc", "ls", "--data", terminal.home().to_str().unwrap()]).await.expect(4);
}

async fn who_is_no_operator_is_refused(platform: &Platform) {
    let (ann, topic) = publisher(platform).await;
    let gid = ann.publish(&topic, "hers").await["gid"].as_str().unwrap().to_owned();
    let bob = platform.person("bob").await;
    let resolve = json!({ "outcome": "mixed", "operator": "bob", "reason": "curious" });
    let anonymous = platform.anonymous();
    for (path, body) in [(format!("/api/2pc/{gid}/retry"), json!({})), (format!("/api/2pc/{gid}/resolve"), resolve)] {
        assert_eq!(ann.api.post(&path, body.clone()).await.refused(403), "cluster_only");
        assert_eq!(anonymous.post(&path, body).await.refused(401), "credentials_missing");
    }
    assert_eq!(ann.api.get("/api/2pc").await.refused(403), "cluster_only");
    assert_eq!(anonymous.get("/api/2pc").await.refused(401), "credentials_missing");
    assert_eq!(anonymous.get(&format!("/api/2pc/{gid}")).await.refused(401), "credentials_missing");
    // A publisher sees its own, and no more of it than concerns it.
    let hers = status(&ann, &gid).await;
    assert!(hers["state"] == "committed" && hers["participants"].is_null() && hers["owner"].is_null(), "{hers}");
    assert_eq!(bob.api.get(&format!("/api/2pc/{gid}")).await.refused(404), "transaction_not_found");
    let wrong = anonymous.request(Method::GET, "/api/2pc").header("x-notifyx-cluster", "not-the-secret-of-it");
    assert_eq!(send(wrong).await.refused(401), "cluster_secret_invalid");
    let terminal = Terminal::new(platform.gateway());
    terminal.run(&["2pc", "ls", "--secret-file", "/dev/null"]).await.expect(2);
}

async fn what_makes_no_sense_is_refused(platform: &Platform) {
    let (ann, topic) = publisher(platform).await;
    let (operator, unknown) = (Operator::new(platform), Uuid::now_v7());
    let gid = closed(&ann, &operator, &topic, "closed").await;
    for query in ["limit=0", "limit=501", "state=odd", "after=odd", "page=2"] {
        let refused = operator.get(&format!("/api/2pc?{query}")).await.refused(400);
        assert!(refused == "limit_invalid" || refused == "query_invalid", "{query}: {refused}");
    }
    assert_eq!(operator.get("/api/2pc/odd").await.refused(400), "path_invalid");
    assert_eq!(operator.get(&format!("/api/2pc/{unknown}")).await.refused(404), "transaction_not_found");
    let good = json!({ "outcome": "rolled_back", "operator": "ann", "reason": "none" });
    for (name, value) in [
        ("outcome", json!("odd")),
        ("outcome", json!(null)),
        ("operator", json!("")),
        ("operator", json!("a\nb")),
        ("operator", json!("o".repeat(101))),
        ("reason", json!("")),
        ("reason", json!("r".repeat(1_001))),
        ("reason", json!(7)),
        ("more", json!(true)),
    ] {
        let mut bad = good.clone();
        bad[name] = value;
        assert_eq!(operator.post(&format!("/api/2pc/{gid}/resolve"), bad).await.refused(400), "body_invalid");
    }
    for (path, code, status) in [
        (format!("/api/2pc/{unknown}/resolve"), "transaction_not_found", 404),
        (format!("/api/2pc/{unknown}/retry"), "transaction_not_found", 404),
        (format!("/api/2pc/{gid}/resolve"), "transaction_closed", 409),
        (format!("/api/2pc/{gid}/retry"), "transaction_closed", 409),
        ("/api/2pc/odd/retry".to_owned(), "path_invalid", 400),
        (format!("/api/2pc/{gid}/retry?operator="), "query_invalid", 400),
    ] {
        assert_eq!(operator.post(&path, good.clone()).await.refused(status), code, "{path}");
    }
    // Pages: every one once, in order.
    for message in ["two", "three"] {
        ann.publish(&topic, message).await;
    }
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let page = operator.get(&format!("/api/2pc?state=all&limit=2{after}")).await.expect(200);
        let page_of = page["transactions"].as_array().unwrap();
        assert!((1..=2).contains(&page_of.len()), "{page}");
        seen.extend(page_of.iter().map(|one| one["gid"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert!(seen.is_sorted() && seen.len() >= 3 && seen.contains(&gid), "{seen:?}");
}

/// The cluster's secret in a hand, over REST and at a terminal.
struct Operator {
    terminal: Terminal,
    api: crate::harness::Api,
    secret: String,
    file: String,
}

impl Operator {
    fn new(platform: &Platform) -> Self {
        let terminal = Terminal::new(platform.gateway());
        let file = terminal.home().join("secret");
        std::fs::write(&file, &platform.secret).unwrap();
        let (file, api, secret) = (file.to_str().unwrap().to_owned(), platform.anonymous(), platform.secret.clone());
        Self { terminal, api, secret, file }
    }

    async fn run(&self, args: &[&str]) -> crate::harness::Said {
        self.terminal.run(&[&["2pc", "--secret-file", &self.file], args].concat()).await
    }

    async fn get(&self, path: &str) -> Answer {
        send(self.api.request(Method::GET, path).header("x-notifyx-cluster", &self.secret)).await
    }

    async fn post(&self, path: &str, body: Value) -> Answer {
        send(self.api.request(Method::POST, path).header("x-notifyx-cluster", &self.secret).json(&body)).await
    }
}

async fn publisher(platform: &Platform) -> (Person, String) {
    let ann = platform.person("ann").await;
    let topic = unique("operators");
    ann.create_topic(&topic).await;
    (ann, topic)
}

/// Published and closed: the answer goes out when the decision is applied, the row of it is closed a little later, and would be closed
/// again if a test changed it before.
async fn closed(ann: &Person, operator: &Operator, topic: &str, message: &str) -> String {
    let gid = ann.publish(topic, message).await["gid"].as_str().unwrap().to_owned();
    until(operator, &gid, |one| one["closed_at"].is_string()).await;
    gid
}

/// As its publisher sees it.
async fn status(ann: &Person, gid: &str) -> Value {
    ann.api.get(&format!("/api/2pc/{gid}")).await.expect(200)
}

async fn until(operator: &Operator, gid: &str, wanted: impl Fn(&Value) -> bool) {
    let deadline = Instant::now() + WITHIN;
    loop {
        let one = operator.get(&format!("/api/2pc/{gid}")).await.expect(200);
        if wanted(&one) {
            return;
        }
        assert!(Instant::now() < deadline, "{one}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn quarantined(operator: &Operator, gid: &str) {
    until(operator, gid, |one| one["state"] == "quarantined").await;
}

/// What a restored backup does: the counter knows nothing of a commit that the coordinator has no ack for.
async fn lose_a_commit(platform: &Platform, gid: &str) {
    let aside = aside(gid);
    change(platform, "counter-2pc", "UPDATE ptxn SET gid = $2 WHERE gid = $1", &[gid, &aside]).await;
    let open = "UPDATE txn SET acked_counter = FALSE, closed_at = NULL, lease_until = 0 WHERE gid = $1";
    change(platform, "gateway", open, &[gid]).await;
}

async fn bring_back(platform: &Platform, gid: &str) {
    change(platform, "counter-2pc", "UPDATE ptxn SET gid = $1 WHERE gid = $2", &[gid, &aside(gid)]).await;
}

/// An id under which nobody looks for it.
fn aside(gid: &str) -> String {
    Uuid::from_u128(!gid.parse::<Uuid>().unwrap().as_u128()).to_string()
}

/// Changes one row in a service's database, beside the running service.
async fn change(platform: &Platform, service: &str, statement: &str, ids: &[&str]) {
    let ids = ids.iter().map(|id| id.parse::<Uuid>().unwrap());
    let changed = match platform.form {
        Form::Up => {
            let file = platform.folder().join(format!("{service}.db"));
            let options = SqliteConnectOptions::new().filename(file).busy_timeout(WITHIN);
            let mut connection = SqliteConnection::connect_with(&options).await.unwrap();
            let query = ids.fold(sqlx::query(statement), sqlx::query::Query::bind);
            let changed = query.execute(&mut connection).await.unwrap().rows_affected();
            connection.close().await.unwrap();
            changed
        }
        Form::Separate => {
            let mut connection = PgConnection::connect(&platform.database(service)).await.unwrap();
            let query = ids.fold(sqlx::query(statement), sqlx::query::Query::bind);
            let changed = query.execute(&mut connection).await.unwrap().rows_affected();
            connection.close().await.unwrap();
            changed
        }
    };
    assert_eq!(changed, 1, "{statement}");
}

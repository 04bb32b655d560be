//! Coming in and going: log-ins, their limits, and how a session ends.

use std::time::{Duration, Instant};

use notifyx_database::{DatabaseUrl, testing};
use notifyx_model::{Clock, ManualClock};
use notifyx_wire::{
    header,
    rest::auth::{Identity, Revocations},
};
use serde_json::{Value, json};

use super::{Auth, cluster, credentials, problem};

#[tokio::test]
async fn a_person_registers_logs_in_and_out() {
    let auth = Auth::open(Clock::system()).await;
    let ann = auth.register("Ann@Example.org").await;
    assert_eq!(ann.email.as_str(), "ann@example.org");
    assert_eq!(problem(auth.post("/api/users", &credentials("ANN@example.ORG"))).await, (409, "email_taken".into()));

    let session = auth.login("ann@EXAMPLE.org").await;
    assert_eq!((session.success, session.id), (true, ann.id));
    let identity: Identity = auth.who(&session).await.json().await.unwrap();
    assert_eq!((identity.id, identity.email, identity.expires_at), (ann.id, ann.email, session.expires_at));
    let older = auth.get("/api/users/self").header(header::DURIAN_TOKEN, session.token.as_str()).send().await.unwrap();
    assert_eq!(older.status(), 200);

    let other = auth.login("ann@example.org").await;
    auth.logout(&session).await;
    assert_eq!(auth.who(&session).await.status(), 401);
    assert_eq!(auth.who(&other).await.status(), 200, "the other session goes on");
    let again = auth.delete("/api/users/logout").bearer_auth(session.token.as_str());
    assert_eq!(problem(again).await, (401, "token_invalid".into()));
    assert_eq!(auth.get("/api/noop").send().await.unwrap().status(), 204);
    assert_eq!(auth.get("/ready").send().await.unwrap().status(), 200);
    auth.running.stop().await;
}

#[tokio::test]
async fn a_wrong_password_is_answered_like_an_unknown_address() {
    let auth = Auth::open(Clock::system()).await;
    auth.register("ann@example.org").await;
    let mut answers = Vec::new();
    for (email, password) in
        [("ann@example.org", "wrong horse"), ("bob@example.org", "correct horse"), ("ann@example.org", "short")]
    {
        let answer =
            auth.post("/api/users/login", &json!({ "email": email, "password": password })).send().await.unwrap();
        let headers: Vec<_> = answer.headers().keys().map(ToString::to_string).collect();
        let mut body: Value = answer.json().await.unwrap();
        body.as_object_mut().unwrap().remove("request_id");
        answers.push((headers, body));
    }
    assert_eq!(answers[0].1["code"], "credentials_wrong");
    assert_eq!(answers[0].1["status"], 401);
    assert_eq!(answers[0], answers[1]);
    assert_eq!(answers[0], answers[2]);
    auth.running.stop().await;
}

#[tokio::test]
async fn failed_logins_are_limited_and_the_limit_passes() {
    let hand = ManualClock::new();
    let folder = tempfile::tempdir().unwrap();
    let auth = Auth::on(hand.clock(), DatabaseUrl::sqlite(folder.path().join("auth.db")), |config| {
        config.login_failures_per_account_max = 2.try_into().unwrap();
        config.login_failures_per_address_max = 4.try_into().unwrap();
    })
    .await;
    auth.register("ann@example.org").await;
    let wrong = |email: &str| auth.post("/api/users/login", &json!({ "email": email, "password": "wrong horse" }));
    for _ in 0..2 {
        assert_eq!(problem(wrong("ann@example.org")).await, (401, "credentials_wrong".into()));
    }
    let limited = auth.post("/api/users/login", &credentials("ann@example.org")).send().await.unwrap();
    assert_eq!(limited.status(), 429, "also with the right password");
    assert_eq!(limited.headers()["retry-after"], "301");
    let verified = cluster(auth.post("/api/users/verify", &credentials("ann@example.org")));
    assert_eq!(problem(verified).await, (429, "login_limited".into()));

    // The address is what the front door says, if it proves itself; a stranger's word counts for nothing.
    for _ in 0..2 {
        assert_eq!(problem(wrong("bob@example.org").header(header::CLIENT_ADDRESS, "203.0.113.1")).await.0, 401);
    }
    let cid = wrong("cid@example.org").header(header::CLIENT_ADDRESS, "203.0.113.2");
    assert_eq!(problem(cid).await, (429, "login_limited".into()));
    let cid = cluster(wrong("cid@example.org")).header(header::CLIENT_ADDRESS, "203.0.113.2");
    assert_eq!(problem(cid).await, (401, "credentials_wrong".into()));

    hand.advance(Duration::from_secs(301));
    auth.login("ann@example.org").await;
    auth.running.stop().await;
}

#[tokio::test]
async fn an_expired_token_is_refused() {
    let hand = ManualClock::new();
    let auth = Auth::open(hand.clock()).await;
    auth.register("ann@example.org").await;
    let session = auth.login("ann@example.org").await;
    assert_eq!(auth.who(&session).await.status(), 200);
    hand.advance(Duration::from_hours(720));
    assert_eq!(auth.who(&session).await.status(), 401);
    auth.running.stop().await;
}

#[tokio::test]
async fn the_log_tells_of_a_logout() {
    let auth = Auth::open(Clock::system()).await;
    let ann = auth.register("ann@example.org").await;
    let session = auth.login("ann@example.org").await;
    let user = auth.get("/api/revocations").bearer_auth(session.token.as_str());
    assert_eq!(problem(user).await, (403, "cluster_only".into()));
    let head: Revocations = cluster(auth.get("/api/revocations")).send().await.unwrap().json().await.unwrap();
    assert_eq!(head, Revocations::default());
    let waiting = tokio::spawn(cluster(auth.get("/api/revocations?after=0&wait_ms=20000")).send());
    auth.logout(&session).await;
    let log: Revocations = waiting.await.unwrap().unwrap().json().await.unwrap();
    assert_eq!((log.head, log.revoked[0].user_id, log.revoked[0].token_hash), (1, ann.id, Some(session.token.hash())));

    // A wait does not hold up the stop.
    let waiting = tokio::spawn(cluster(auth.get("/api/revocations?after=1&wait_ms=30000")).send());
    tokio::time::timeout(Duration::from_secs(25), auth.running.stop()).await.unwrap();
    let _ = waiting.await.unwrap();
}

/// Both share one Postgres, as two hosts would. Up to thirty rounds: a machine that is busy with other tests may miss a second, and another.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_logout_at_one_instance_is_seen_by_the_other_within_a_second() {
    let database = testing::postgres_url("auth_two").await;
    let one = Auth::on(Clock::system(), database.clone(), |_| ()).await;
    let two = Auth::on(Clock::system(), database, |_| ()).await;
    one.register("ann@example.org").await;
    let mut quickest = Duration::MAX;
    for round in 0..30 {
        let session = one.login("ann@example.org").await;
        assert_eq!(two.who(&session).await.status(), 200, "and is in its cache now");
        let path = format!("/api/revocations?after={round}&wait_ms=20000");
        let followed = tokio::spawn(cluster(two.get(&path)).send());

        one.logout(&session).await;
        let logged_out = Instant::now();
        let log: Revocations = followed.await.unwrap().unwrap().json().await.unwrap();
        quickest = quickest.min(logged_out.elapsed());
        assert_eq!(log.revoked[0].token_hash, Some(session.token.hash()));
        assert_eq!(two.who(&session).await.status(), 401);
        assert_eq!(one.who(&session).await.status(), 401);
        if quickest < Duration::from_secs(1) {
            break;
        }
    }
    assert!(quickest < Duration::from_secs(1), "{quickest:?}");
    tokio::join!(one.running.stop(), two.running.stop());
}

//! Who asks for whom.

use notifyx_model::{Clock, UserId};
use notifyx_wire::rest::auth::{Identity, Resolved, User, UserPage};
use serde_json::json;

use super::{Auth, cluster, credentials, problem};

#[tokio::test]
async fn people_are_listed_in_pages_and_found() {
    let auth = Auth::open(Clock::system()).await;
    for n in 0..3 {
        auth.register(&format!("u{n}@example.org")).await;
    }
    assert_eq!(problem(auth.get("/api/users")).await, (401, "credentials_missing".into()));
    let token = auth.login("u0@example.org").await.token;
    let get = |path: String| auth.get(&path).bearer_auth(token.as_str()).send();
    let first: UserPage = get("/api/users?limit=2".into()).await.unwrap().json().await.unwrap();
    let next = first.next.unwrap();
    let last: UserPage = get(format!("/api/users?limit=2&after={next}")).await.unwrap().json().await.unwrap();
    let emails: Vec<_> = first.users.iter().chain(&last.users).map(|user| user.email.as_str()).collect();
    assert_eq!((emails, last.next), (vec!["u0@example.org", "u1@example.org", "u2@example.org"], None));
    for _ in 0..2 {
        let user: User = get(format!("/api/users/{next}")).await.unwrap().json().await.unwrap();
        assert_eq!(user, first.users[1]);
    }
    let metrics = auth.get("/metrics").send().await.unwrap().text().await.unwrap();
    assert!(metrics.contains(r#"notifyx_auth_lookups_total{cache="user",outcome="hit"} 1"#), "{metrics}");
    auth.running.stop().await;
}

#[tokio::test]
async fn services_check_credentials_and_resolve_people() {
    let auth = Auth::open(Clock::system()).await;
    let ann = auth.register("ann@example.org").await;
    let token = auth.login("ann@example.org").await.token;
    for (path, body) in
        [("/api/users/verify", credentials("ann@example.org")), ("/api/users/resolve", json!({ "emails": [] }))]
    {
        assert_eq!(problem(auth.post(path, &body)).await.0, 401);
        assert_eq!(problem(auth.post(path, &body).bearer_auth(token.as_str())).await, (403, "cluster_only".into()));
    }
    let verified = cluster(auth.post("/api/users/verify", &credentials("ann@example.org"))).send().await.unwrap();
    assert_eq!(verified.json::<Identity>().await.unwrap().id, ann.id);
    let wrong = json!({ "email": "ann@example.org", "password": "wrong horse" });
    assert_eq!(problem(cluster(auth.post("/api/users/verify", &wrong))).await, (401, "credentials_wrong".into()));

    let named =
        json!({ "emails": ["Ann@example.org", "nobody@example.org"], "ids": [ann.id, UserId::new(&Clock::system())] });
    let found = cluster(auth.post("/api/users/resolve", &named)).send().await.unwrap();
    let found = found.json::<Resolved>().await.unwrap().users;
    assert_eq!(found.iter().map(|user| user.id).collect::<Vec<_>>(), [ann.id]);
    let many: Vec<_> = (0..=1_000).map(|n| format!("u{n}@example.org")).collect();
    let many = cluster(auth.post("/api/users/resolve", &json!({ "emails": many })));
    assert_eq!(problem(many).await, (400, "too_many_people".into()));
    auth.running.stop().await;
}

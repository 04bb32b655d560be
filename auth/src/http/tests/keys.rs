//! API keys.

use notifyx_model::Clock;
use notifyx_wire::rest::{
    Problem,
    auth::{
        Revocations,
        keys::{CreatedKey, KeyIdentity, Keys},
    },
};
use reqwest::RequestBuilder;
use serde_json::{Value, json};

use super::{Auth, cluster, problem};

#[tokio::test]
async fn a_key_is_made_listed_used_and_revoked() {
    let auth = Auth::open(Clock::system()).await;
    let ann = auth.register("ann@example.org").await;
    let session = auth.login("ann@example.org").await;
    let token = session.token.as_str();
    let body = json!({ "name": "shop", "scopes": ["publish:orders.*", "subscribe:paid"], "ttl_s": 3_600 });
    let answer = auth.post("/api/keys", &body).bearer_auth(token).send().await.unwrap();
    assert_eq!(answer.status(), 201);
    let created: CreatedKey = answer.json().await.unwrap();
    assert_eq!((created.about.name.as_str(), created.about.last_used_at), ("shop", None));
    let forever = json!({ "name": "shop", "scopes": ["publish:*"] });
    auth.post("/api/keys", &forever).bearer_auth(token).send().await.unwrap().error_for_status().unwrap();

    let listed = auth.get("/api/keys").bearer_auth(token).send().await.unwrap().text().await.unwrap();
    assert!(!listed.contains(created.key.as_str()), "the key is told once");
    let listed: Keys = serde_json::from_str(&listed).unwrap();
    assert_eq!((listed.keys.len(), listed.keys[0].expires_at, &listed.keys[1]), (2, None, &created.about));

    let with_key = |call: RequestBuilder| call.bearer_auth(created.key.as_str());
    let found: KeyIdentity = with_key(auth.get("/api/keys/self")).send().await.unwrap().json().await.unwrap();
    assert_eq!((found.key_id, found.id, found.email), (created.about.id, ann.id, ann.email));
    assert_eq!((found.scopes, found.expires_at), (created.about.scopes, created.about.expires_at));
    assert_eq!(problem(auth.get("/api/keys/self").bearer_auth(token)).await, (400, "no_key".into()));

    let place = format!("/api/keys/{}", created.about.id);
    for call in [
        auth.get("/api/users/self"),
        auth.get("/api/users"),
        auth.delete("/api/users/logout"),
        auth.get("/api/keys"),
        auth.post("/api/keys", &body),
        auth.delete(&place),
        auth.get("/status"),
    ] {
        assert_eq!(problem(with_key(call)).await, (403, "key_refused".into()));
    }

    auth.register("bob@example.org").await;
    let bob = auth.login("bob@example.org").await;
    let foreign = auth.delete(&place).bearer_auth(bob.token.as_str());
    assert_eq!(problem(foreign).await, (404, "key_not_found".into()));
    let revoked = auth.delete(&place).bearer_auth(token).send().await.unwrap();
    assert_eq!((revoked.status().as_u16(), revoked.json::<Value>().await.unwrap()), (200, json!({ "success": true })));
    assert_eq!(problem(with_key(auth.get("/api/keys/self"))).await, (401, "key_invalid".into()));
    let again = auth.delete(&place).bearer_auth(token).send().await.unwrap();
    assert_eq!(again.status(), 200, "the first answer may have been lost");
    let foreign = auth.delete(&place).bearer_auth(bob.token.as_str());
    assert_eq!(problem(foreign).await, (404, "key_not_found".into()));
    let log: Revocations = cluster(auth.get("/api/revocations?after=0")).send().await.unwrap().json().await.unwrap();
    assert_eq!((log.head, log.revoked[0].token_hash), (1, Some(created.key.hash())));
    auth.running.stop().await;
}

#[tokio::test]
async fn a_key_out_of_bounds_is_not_made() {
    let auth = Auth::open(Clock::system()).await;
    auth.register("ann@example.org").await;
    let token = auth.login("ann@example.org").await.token;
    let post = |body: &Value| auth.post("/api/keys", body).bearer_auth(token.as_str());
    let many = |count| (0..count).map(|n| format!("publish:c{n}")).collect::<Vec<_>>();
    for (name, scopes, why) in [
        ("shop", json!(["delete:orders"]), "neither"),
        ("shop", json!(["orders"]), "neither"),
        ("shop", json!(["publish:or*ders"]), "at its end"),
        ("shop", json!(["publish:a/b"]), "holds a /"),
        ("shop", json!([format!("publish:{}", "c".repeat(300))]), "more than 200"),
        ("shop", json!([]), "is empty"),
        ("shop", json!(many(33)), "33 entries, more than 32"),
        ("shop", json!("publish:*"), "expected an array"),
        ("", json!(["publish:*"]), "is empty"),
        (&"n".repeat(65), json!(["publish:*"]), "65 bytes, more than 64"),
        ("a\u{0}b", json!(["publish:*"]), "control character"),
    ] {
        let body = json!({ "name": name, "scopes": scopes });
        let told: Problem = post(&body).send().await.unwrap().json().await.unwrap();
        assert_eq!((told.status, told.code.as_str()), (400, "body_invalid"), "{body}");
        assert!(told.detail.contains(why), "{}", told.detail);
    }
    for end in [
        json!({ "ttl_s": 0 }),
        json!({ "ttl_s": u64::MAX }),
        json!({ "expires_at": "2020-01-01T00:00:00Z" }),
        json!({ "expires_at": "9999-01-01T00:00:00Z" }),
        json!({ "expires_at": "2030-01-01T00:00:00Z", "ttl_s": 60 }),
    ] {
        let mut body = json!({ "name": "shop", "scopes": ["publish:*"] });
        body.as_object_mut().unwrap().extend(end.as_object().unwrap().clone());
        assert_eq!(problem(post(&body)).await, (400, "key_end_invalid".into()), "{body}");
    }
    assert_eq!(problem(auth.delete("/api/keys/7").bearer_auth(token.as_str())).await, (400, "path_invalid".into()));
    for _ in 0..100 {
        let body = json!({ "name": "shop", "scopes": many(1) });
        assert_eq!(post(&body).send().await.unwrap().status(), 201);
    }
    let one_more = post(&json!({ "name": "shop", "scopes": many(1) }));
    assert_eq!(problem(one_more).await, (409, "too_many_keys".into()));
    auth.running.stop().await;
}

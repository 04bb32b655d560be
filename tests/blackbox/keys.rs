//! API keys: made at the terminal, good for what they are for and nothing else, dead everywhere once revoked.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Api, Platform, Socket, Terminal, in_both_forms, unique};

in_both_forms!(a_key_lives_from_create_to_revoke, a_key_is_no_session);

/// Promised within a second. A machine that runs all tests at once is given more, and less than the five minutes for which an identity is
/// remembered where nobody says that it ended.
const REVOKED_WITHIN: Duration = Duration::from_secs(60);

async fn a_key_lives_from_create_to_revoke(platform: &Platform) {
    let ann = Terminal::new(platform.gateway());
    let email = format!("{}@example.org", unique("ann"));
    ann.log_in(&email).await;
    let nothing = ann.run(&["keys", "ls"]).await;
    assert!(nothing.code == 0 && nothing.out.is_empty() && nothing.err.contains("keys create"), "{}", nothing.err);

    let create = ["keys", "create", "--name", "shop", "--scope", "publish:orders.*", "--scope", "subscribe:paid"];
    let made = ann.run(&[&create[..], &["--expires", "90d", "--json"]].concat()).await.records(0);
    let (key, id) = (made[0]["key"].as_str().unwrap(), made[0]["id"].as_str().unwrap());
    assert!(key.starts_with("nxk_") && key.len() == 47, "{key}");
    // For people, and for `KEY=$(…)`: the key and nothing else on standard output.
    let shown = ann.run(&["keys", "create", "--name", "other", "--scope", "publish:*"]).await;
    assert!(shown.code == 0 && shown.out.starts_with("nxk_") && shown.out.lines().count() == 1, "{}", shown.out);

    let listed = ann.run(&["keys", "ls", "--json"]).await.records(0);
    assert_eq!(listed.iter().map(|key| key["name"].as_str().unwrap()).collect::<Vec<_>>(), ["other", "shop"]);
    assert_eq!(listed[1]["scopes"], json!(["publish:orders.*", "subscribe:paid"]));
    assert!(listed[0]["expires_at"].is_null() && listed[1]["expires_at"].is_string(), "{listed:?}");
    let table = ann.run(&["keys", "ls"]).await;
    assert!(table.out.contains(id) && table.out.contains("publish:orders.*"), "{}", table.out);
    assert!(!table.out.contains(key) && !listed.iter().any(|row| row.to_string().contains(key)), "it is shown once");

    let service = Api::new(platform.gateway()).with_token(key);
    let this = service.get("/api/keys/self").await.expect(200);
    assert_eq!((&this["key_id"], &this["email"], &this["name"]), (&json!(id), &json!(email), &json!("shop")));

    ann.run(&["keys", "revoke", id]).await.expect(0);
    let dead = async {
        while service.get("/api/keys/self").await.status != 401 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(REVOKED_WITHIN, dead).await.expect("the key is dead");
    assert_eq!(service.get("/api/keys/self").await.refused(401), "key_invalid");
    ann.run(&["keys", "revoke", id]).await.expect(0);
    ann.run(&["keys", "revoke", "0199f3a2-7c1e-7d3a-9b42-5a0c1d2e3f40"]).await.expect(1);
    assert_eq!(ann.run(&["keys", "ls", "--json"]).await.records(0).len(), 1);
    ann.run(&["keys", "create", "--name", "x", "--scope", "publish:a*b"]).await.expect(2);
}

async fn a_key_is_no_session(platform: &Platform) {
    let (ann, bob) = tokio::join!(platform.person("ann"), platform.person("bob"));
    let new = json!({ "name": "shop", "scopes": ["publish:*", "subscribe:*"] });
    let made = ann.api.post("/api/keys", new.clone()).await.expect(201);
    let (key, id) = (made["key"].as_str().unwrap(), made["id"].as_str().unwrap());
    let service = Api::new(platform.gateway()).with_token(key);
    let topic = unique("anns");
    let topic_id = ann.create_topic(&topic).await;
    for path in ["/api/users/self", "/api/keys", "/api/topics", "/api/notifications", "/api/counter", "/status"] {
        let refused = service.get(path).await;
        assert_eq!(refused.refused(403), "key_refused", "{path}");
        assert!(refused.json()["detail"].as_str().unwrap().contains("log in"), "{path}");
    }
    let posts: [(&str, Value); 5] = [
        ("/api/keys", new.clone()),
        ("/api/logout", json!({})),
        ("/api/topics", json!({ "name": unique("keys") })),
        ("/api/notifications", json!({ "topic": topic, "message": "m" })),
        (&format!("/api/subscribers/{topic_id}"), json!({})),
    ];
    for (path, body) in posts {
        assert_eq!(service.post(path, body).await.refused(403), "key_refused", "{path}");
    }
    assert_eq!(service.delete(&format!("/api/keys/{id}")).await.refused(403), "key_refused");
    let mut socket = Socket::open(platform.gateway(), &[("token", key)]).await.unwrap();
    for channel in [format!("notification:{topic}"), format!("user:{}", ann.id)] {
        let refused = socket.try_join(&channel, json!({})).await.unwrap_err();
        assert_eq!(refused["reason"], "users_only", "channels of topics and inboxes are the user's: {channel}");
    }
    socket.join(&format!("events:{}", unique("orders")), json!({})).await;
    for door in ["auth", "persist", "counter-2pc", "discovery"] {
        for address in platform.instances(door) {
            let inner = Api::new(address).with_token(key);
            assert_eq!(inner.get("/status").await.refused(403), "key_refused", "{door}");
        }
    }
    assert_eq!(bob.api.delete(&format!("/api/keys/{id}")).await.refused(404), "key_not_found");
    assert!(bob.api.get("/api/keys").await.expect(200)["keys"].as_array().unwrap().is_empty());
    service.get("/api/keys/self").await.expect(200);
    let made_up = Api::new(platform.gateway()).with_token(&format!("nxk_{}", "a".repeat(43)));
    assert_eq!(made_up.get("/api/topics").await.refused(401), "key_invalid");
}

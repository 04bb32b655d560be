//! The doors of the services behind the gateway: what they tell to whom.

use std::collections::BTreeSet;

use reqwest::Method;
use serde_json::json;

use crate::harness::{Platform, SERVICES, in_both_forms, send};

in_both_forms!(
    every_door_tells_how_it_is,
    what_is_for_services_needs_the_secret,
    the_registry_tells_prometheus_its_targets,
    the_public_api_describes_itself,
);

async fn every_door_tells_how_it_is(platform: &Platform) {
    let ann = platform.person("ann").await;
    for service in SERVICES {
        for address in platform.instances(service) {
            let (open, hers) = (crate::harness::Api::new(address), ann.at(address).api);
            assert_eq!(open.get("/health").await.expect(200)["status"], "up");
            let ready = open.get("/ready").await.expect(200);
            assert_eq!((&ready["ready"], &ready["service"]), (&json!(true), &json!(service)), "{ready}");
            let metrics = open.get("/metrics").await;
            assert!(
                metrics.status == 200 && metrics.text.contains("notifyx_build_info"),
                "{service}: {}",
                metrics.text
            );
            assert!(metrics.text.contains("notifyx_http_requests_total"), "{service}: {}", metrics.text);

            open.get("/status").await.refused(401);
            open.get("/dashboard").await.refused(401);
            let by_secret = open.request(Method::GET, "/status").header("x-notifyx-cluster", &platform.secret);
            let status = send(by_secret).await.expect(200);
            assert_eq!((&status["service"], &status["ready"]), (&json!(service), &json!(true)), "{status}");
            assert!(!status.to_string().contains(&platform.secret), "the secret shows");
            let prompted = open.request(Method::GET, "/dashboard").basic_auth("operator", Some(&platform.secret));
            let page = send(prompted).await;
            assert!(page.status == 200 && page.text.contains(service), "{}", page.text);
            hers.get("/status").await.expect(200);
            assert_eq!(hers.get("/dashboard").await.status, 200);
        }
    }
}

async fn what_is_for_services_needs_the_secret(platform: &Platform) {
    let ann = platform.person("ann").await;
    let gid = uuid::Uuid::now_v7();
    let cluster_only = [
        ("auth", Method::POST, "/api/users/resolve".to_owned(), json!({ "emails": [ann.email] })),
        ("auth", Method::GET, "/api/revocations".to_owned(), json!({})),
        ("persist", Method::POST, "/api/topics/join".to_owned(), json!({ "items": [] })),
        ("persist", Method::POST, "/api/topics/heads".to_owned(), json!({ "topics": [] })),
        ("persist", Method::POST, "/api/2pc/commit".to_owned(), json!({ "gids": [gid] })),
        ("counter-2pc", Method::POST, "/api/2pc/prepare".to_owned(), json!({ "items": [] })),
        ("counter-2pc", Method::POST, "/api/2pc/rollback".to_owned(), json!({ "gids": [gid] })),
        ("discovery", Method::POST, "/api/register".to_owned(), json!({ "service": "auth", "address": "127.0.0.1:1" })),
        ("discovery", Method::DELETE, "/api/persist".to_owned(), json!({})),
    ];
    for (service, method, path, body) in cluster_only {
        let door = platform.door(service);
        let call = |door: &crate::harness::Api| door.request(method.clone(), &path).json(&body);
        send(call(&door)).await.refused(401);
        let hers = door.clone().with_token(&ann.token);
        assert_eq!(send(call(&hers)).await.refused(403), "cluster_only", "{service} {path}");
        let guessed = call(&door).header("x-notifyx-cluster", "a guess");
        assert_eq!(send(guessed).await.refused(401), "cluster_secret_invalid");
        let asserted = call(&door).header("x-notifyx-user", format!("{} {}", ann.id, ann.email));
        send(asserted).await.refused(401);
    }
    // Whose inbox it is, the token says, not the header beside it.
    let bob = platform.person("bob").await;
    let topic = crate::harness::unique("private");
    let topic_id = bob.create_topic(&topic).await;
    bob.publish(&topic, "bob's").await;
    let persist = platform.door("persist").with_token(&ann.token);
    let claimed = persist
        .request(Method::GET, "/api/notifications")
        .header("x-notifyx-user", format!("{} {}", bob.id, bob.email));
    assert_eq!(send(claimed).await.expect(200)["notifications"], json!([]));
    // And the creator's right is checked behind the gateway too.
    let body = json!({ "topic_id": topic_id, "message": "not mine" });
    persist.post("/api/notifications", body).await.refused(403);
}

async fn the_registry_tells_prometheus_its_targets(platform: &Platform) {
    let registry = platform.door("discovery");
    let groups = registry.get("/prometheus/targets").await.expect(200);
    let targets: BTreeSet<_> = groups
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|group| {
            assert!(group["labels"].is_object(), "{group}");
            group["targets"].as_array().unwrap().iter().map(|target| target.as_str().unwrap().to_owned())
        })
        .collect();
    for service in ["gateway", "auth", "persist", "counter-2pc"] {
        for address in platform.instances(service) {
            assert!(targets.contains(address), "{service} at {address} is not among {targets:?}");
        }
    }
}

async fn the_public_api_describes_itself(platform: &Platform) {
    let api = platform.anonymous();
    let described = api.get("/api/openapi.json").await.expect(200);
    for path in ["/api/register_user", "/api/login", "/api/notifications", "/api/2pc/{gid}", "/api/counter"] {
        assert!(described["paths"][path].is_object(), "{path}");
    }
    let page = api.get("/docs/").await;
    assert!(page.status == 200 && page.text.contains("swagger"), "{}", page.text);
}

//! Sessions: who may open one, and that its end is everywhere at once.

use std::time::Duration;

use serde_json::json;

use crate::harness::{Platform, SERVICES, Socket, in_both_forms, unique};

in_both_forms!(a_logout_is_everywhere, credentials_open_a_socket_or_do_not, the_answer_to_a_wrong_login_tells_nothing);

/// Promised within a second. A machine that runs all tests at once is given more, and less than the five minutes for which an identity is
/// remembered where nobody says that it ended.
const REVOKED_WITHIN: Duration = Duration::from_secs(60);

async fn a_logout_is_everywhere(platform: &Platform) {
    let ann = platform.person("ann").await;
    let other = ann.another_session().await;
    let (mut socket, mut others) = tokio::join!(ann.socket(), other.socket());
    let topic = unique("kept");
    socket.join(&format!("notification:{topic}"), json!({})).await;
    others.join(&format!("notification:{topic}"), json!({})).await;
    // Every door has met the token, so that it would be found in every cache.
    let doors = SERVICES;
    for door in doors {
        for address in platform.instances(door) {
            ann.at(address).api.get("/status").await.expect(200);
        }
    }

    ann.api.post("/api/logout", json!({})).await.expect(200);
    let code = socket.ending(REVOKED_WITHIN).await;
    assert_eq!(code, Some(3003));
    let dead = async {
        for door in doors {
            for address in platform.instances(door) {
                let status = ann.at(address).api;
                while status.get("/status").await.status != 401 {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        }
    };
    tokio::time::timeout(REVOKED_WITHIN, dead).await.expect("the token is dead at every door");
    assert_eq!(ann.api.get("/api/notifications").await.refused(401), "token_invalid");
    assert_eq!(Socket::open(platform.gateway(), &[("token", &ann.token)]).await.err(), Some(403));

    // The other session lives on.
    other.publish(&topic, "still here").await;
    assert_eq!(others.notification(&topic).await["message"], "still here");
}

async fn credentials_open_a_socket_or_do_not(platform: &Platform) {
    let ann = platform.person("ann").await;
    let at = platform.gateway();
    ann.socket().await.heartbeat().await;
    let by_password = [("email", ann.email.as_str()), ("password", ann.password.as_str())];
    Socket::open(at, &by_password).await.unwrap().heartbeat().await;

    let refused: [&[(&str, &str)]; 6] = [
        &[],
        &[("token", "a-token-that-nobody-was-given")],
        &[("token", "")],
        &[("email", &ann.email), ("password", "not the password")],
        &[("email", "nobody@example.org"), ("password", &ann.password)],
        &[("email", "nonsense"), ("password", "")],
    ];
    for params in refused {
        assert_eq!(Socket::open(at, params).await.err(), Some(403), "{params:?}");
    }
    for vsn in ["", "&vsn=1.0.0", "&vsn=3.0.0", "&vsn=x"] {
        let url = format!("ws://{at}/socket/websocket?token={}{vsn}", ann.token);
        assert_eq!(Socket::open_url(&url).await.err(), Some(403), "{vsn}");
    }
    let no_upgrade = platform.anonymous().get(&format!("/socket/websocket?vsn=2.0.0&token={}", ann.token)).await;
    assert_eq!(no_upgrade.status, 400, "{}", no_upgrade.text);
}

async fn the_answer_to_a_wrong_login_tells_nothing(platform: &Platform) {
    let ann = platform.person("ann").await;
    let anonymous = platform.anonymous();
    let log_in = |email: &str, password: &str| {
        let body = json!({ "email": email, "password": password });
        let anonymous = anonymous.clone();
        async move { anonymous.post("/api/login", body).await }
    };
    let wrong_password = log_in(&ann.email, "not the password").await;
    let nobody = log_in(&format!("{}@example.org", unique("nobody")), "not the password").await;
    assert_eq!(
        (wrong_password.refused(401), nobody.refused(401)),
        ("credentials_wrong".into(), "credentials_wrong".into())
    );
    assert_eq!(wrong_password.json()["detail"], nobody.json()["detail"]);
    // The address in any case is the same account.
    log_in(&ann.email.to_uppercase(), &ann.password).await.expect(200);
    let again = json!({ "email": ann.email.to_uppercase(), "password": "another password" });
    assert_eq!(anonymous.post("/api/register_user", again).await.refused(409), "email_taken");
    // Older clients send the token in a header of its own.
    let older = anonymous.request(reqwest::Method::GET, "/api/users/self").header("durian-token", &ann.token);
    assert_eq!(crate::harness::send(older).await.expect(200)["email"], ann.email);
}

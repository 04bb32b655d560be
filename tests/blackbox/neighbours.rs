//! Several platforms on one machine: side by side they do not meet; on the same data the second is refused.

use std::time::Duration;

use serde_json::json;

use crate::harness::{Form, Platform, Process, Socket, unique};

const ENDS_WITHIN: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_platforms_stand_side_by_side() {
    let (shared, own) = tokio::join!(Platform::shared(Form::Up), Platform::start(Form::Up));
    let (here, there) = tokio::join!(shared.person("ann"), own.person("ann"));
    let topic = unique("the-same-name");
    let ((), ()) = tokio::join!(
        async {
            here.subscribe(&here.create_topic(&topic).await).await;
            here.publish(&topic, "here").await;
        },
        async {
            there.subscribe(&there.create_topic(&topic).await).await;
            there.publish(&topic, "there").await;
        }
    );
    for (person, message) in [(&here, "here"), (&there, "there")] {
        person.api.get("/api/users/self").await.expect(200);
        let inbox = person.inbox(&topic).await;
        assert_eq!(inbox.iter().map(|n| &n["message"]).collect::<Vec<_>>(), [&json!(message)]);
    }
    assert_eq!(there.at(shared.gateway()).api.get("/api/users/self").await.refused(401), "token_invalid");
    assert_eq!(Socket::open(own.gateway(), &[("token", &here.token)]).await.err(), Some(403));
    // Nor do their services know each other's secrets.
    let call = own.door("persist").request(reqwest::Method::GET, "/status").header("x-notifyx-cluster", &shared.secret);
    crate::harness::send(call).await.refused(401);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_one_on_the_same_data_is_refused() {
    let platform = Platform::start(Form::Up).await;
    let mut second = Process::spawn("the second", &mut platform.command("up"), None);
    let status = second.exited(ENDS_WITHIN).await;
    assert_eq!(status.code(), Some(5), "{}", second.log());
    let said = second.log();
    assert!(said.contains(&platform.folder().display().to_string()), "it names the place: {said}");
    platform.anonymous().get("/ready").await.expect(200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_port_that_is_taken_is_named() {
    let platform = Platform::shared(Form::Up).await;
    let port = platform.gateway().rsplit(':').next().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let mut command = crate::harness::notifyx();
    command.args(["up", "--port", port, "--data"]).arg(folder.path());
    for service in ["AUTH", "PERSIST", "COUNTER_2PC", "EVENTS", "DISCOVERY"] {
        command.env(format!("NOTIFYX_{service}__LISTEN"), "127.0.0.1:0");
    }
    let mut second = Process::spawn("the second", &mut command, None);
    assert_eq!(second.exited(ENDS_WITHIN).await.code(), Some(5), "{}", second.log());
    assert!(second.log().contains(platform.gateway()), "{}", second.log());
}

//! The commands for users, as a script meets them.

use std::{os::unix::fs::PermissionsExt, time::Duration};

use serde_json::{Value, json};

use crate::harness::{Form, Options, Platform, Process, Terminal, fixed_port, in_both_forms, unique};

in_both_forms!(a_day_at_the_terminal, every_ending_has_its_code);

const LINE_WITHIN: Duration = Duration::from_secs(60);

async fn a_day_at_the_terminal(platform: &Platform) {
    let (ann, bob) = (Terminal::new(platform.gateway()), Terminal::new(platform.gateway()));
    let (anns, bobs) = (format!("{}@example.org", unique("ann")), format!("{}@example.org", unique("bob")));
    tokio::join!(ann.log_in(&anns), bob.log_in(&bobs));
    let kept = ann.home().join("session.json");
    assert_eq!(std::fs::metadata(kept).unwrap().permissions().mode() & 0o777, 0o600);

    let topic = unique("terminal");
    let created = ann.run(&["topics", "create", &topic, "--json"]).await.records(0);
    assert_eq!(created[0]["name"], topic.as_str());
    let listed = ann.run(&["topics", "--json"]).await.records(0);
    assert!(listed.iter().any(|t| t["name"] == topic.as_str()), "{listed:?}");

    let mut live = bob.start(&["subscribe", &topic, "--json"]);
    assert_eq!(record(&mut live).await["event"], "joined");
    let published = ann.run(&["publish", &topic, "from the terminal", "--json"]).await.records(0);
    assert_eq!((&published[0]["success"], &published[0]["offset"]), (&json!(true), &json!(1)));
    let pushed = record(&mut live).await;
    assert_eq!((&pushed["message"], &pushed["id"]), (&json!("from the terminal"), &published[0]["id"]));
    ann.run_with(&["publish", &topic, "-", "--to", &bobs, "--priority", "8"], "from a pipe\n").await.expect(0);
    assert_eq!(record(&mut live).await["message"], "from a pipe");

    let inbox = bob.run(&["inbox", "--json", "--unread"]).await.records(0);
    let messages: Vec<_> = inbox.iter().map(|n| n["message"].as_str().unwrap()).collect();
    assert_eq!(messages, ["from a pipe", "from the terminal"]);
    let id = inbox[0]["id"].as_str().unwrap();
    bob.run(&["seen", id]).await.expect(0);
    assert_eq!(bob.run(&["inbox", "--json", "--unread"]).await.records(0).len(), 1);
    // For people: a line each, without colour where there is no terminal.
    let shown = bob.run(&["inbox"]).await;
    assert!(shown.code == 0 && shown.out.contains("from a pipe") && !shown.out.contains('\u{1b}'), "{}", shown.out);

    let status = ann.run(&["status", "--json"]).await.records(0);
    assert!(!status.is_empty() && status.iter().any(|line| line.to_string().contains("persist")), "{status:?}");
    bob.run(&["unsubscribe", &topic]).await.expect(0);
    // Who listens is told, and does not subscribe anew.
    assert_eq!(record(&mut live).await["event"], "ended");
    assert_eq!(live.exited(LINE_WITHIN).await.code(), Some(0));
    ann.run(&["publish", &topic, "bob is gone"]).await.expect(0);
    assert_eq!(
        bob.run(&["inbox", "--json"]).await.records(0).iter().filter(|n| n["message"] == "bob is gone").count(),
        0
    );
    ann.run(&["logout"]).await.expect(0);
    ann.run(&["inbox"]).await.expect(4);
}

async fn every_ending_has_its_code(platform: &Platform) {
    let ann = Terminal::new(platform.gateway());
    ann.run(&["inbox"]).await.expect(4);
    let email = format!("{}@example.org", unique("ann"));
    ann.log_in(&email).await;
    ann.run_with(&["register", &email, "--password-stdin"], "another password\n").await.expect(1);
    ann.run_with(&["login", &email, "--password-stdin"], "not the password\n").await.expect(4);
    ann.run_with(&["register", "new@example.org", "--password-stdin"], "short\n").await.expect(1);
    ann.run(&["publish", &unique("unknown"), "m"]).await.expect(1);
    ann.run(&["publish", &"t".repeat(300), "m"]).await.expect(2);
    ann.run(&["publish", "t", "m", "--priority", "10"]).await.expect(2);
    ann.run(&["nonsense"]).await.expect(2);
    ann.run(&["seen", &uuid::Uuid::now_v7().to_string()]).await.expect(1);
    ann.run(&["unsubscribe", &unique("unknown")]).await.expect(1);
    // In JSON a failure is an object as well.
    let failed = ann.run(&["publish", &unique("unknown"), "m", "--json"]).await;
    let line = if failed.err.trim().is_empty() { &failed.out } else { &failed.err };
    let problem: Value = serde_json::from_str(line.trim()).unwrap_or_else(|error| panic!("{error}: {line}"));
    assert!(problem.to_string().contains("topic_not_found"), "{problem}");
    let nobody = Terminal::new("127.0.0.1:9");
    nobody.run_with(&["login", &email, "--password-stdin"], "any password\n").await.expect(3);
    nobody.run(&["up", "--listen", "nonsense"]).await.expect(2);
    nobody.run(&["auth", "--port", "0"]).await.expect(2);
    nobody.run(&["completions", "bash"]).await.expect(0);
    nobody.run(&["config", "--default"]).await.expect(0);
}

/// Not shared: the server is ended in between.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_survives_the_server() {
    let mut platform = Platform::start_with(Form::Up, Options { port: fixed_port(), ..Options::default() }).await;
    let (ann, bob) = (Terminal::new(platform.gateway()), Terminal::new(platform.gateway()));
    let (anns, bobs) = (format!("{}@example.org", unique("ann")), format!("{}@example.org", unique("bob")));
    tokio::join!(ann.log_in(&anns), bob.log_in(&bobs));
    let topic = unique("survivor");
    ann.run(&["topics", "create", &topic]).await.expect(0);
    let mut live = bob.start(&["subscribe", &topic, "--json"]);
    assert_eq!(record(&mut live).await["event"], "joined");
    ann.run(&["publish", &topic, "before"]).await.expect(0);
    assert_eq!(record(&mut live).await["message"], "before");

    platform.process("up").kill();
    assert_eq!(record(&mut live).await["event"], "disconnected");
    platform.start_process("up").await;
    platform.ready().await;
    ann.run(&["publish", &topic, "after"]).await.expect(0);
    // It joined before or after that publish; either way it prints it once.
    let mut events = Vec::new();
    while events.iter().all(|event: &Value| event["event"] != "notification") {
        events.push(record(&mut live).await);
    }
    assert_eq!(events.last().unwrap()["message"], "after", "{events:?}");
    let joined = events.iter().find(|event| event["event"] == "joined").unwrap();
    assert_eq!(joined["recovered"], true, "{events:?}");
    ann.run(&["publish", &topic, "the last"]).await.expect(0);
    assert_eq!(record(&mut live).await["message"], "the last");

    live.signal("INT");
    assert_eq!(live.exited(LINE_WITHIN).await.code(), Some(0));
}

async fn record(process: &mut Process) -> Value {
    let line = process.line(LINE_WITHIN).await.unwrap_or_else(|| panic!("it ended\n{}", process.log()));
    serde_json::from_str(&line).expect("one JSON object per line")
}

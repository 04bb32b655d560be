//! Events at the terminal: posted, listed, moved, cancelled, made to recur; by a user, with an API key, and by anybody.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{Form, Options, Platform, Terminal, in_both_forms, unique, until};

/// For a line of what is live, on a machine that runs all tests at once.
const LINE_WITHIN: Duration = Duration::from_secs(60);

in_both_forms!(
    a_user_posts_lists_moves_and_cancels,
    a_user_handles_schedules,
    a_key_does_at_the_terminal_what_its_scopes_say,
);

async fn a_user_posts_lists_moves_and_cancels(platform: &Platform) {
    let ann = Terminal::new(platform.gateway());
    ann.log_in(&format!("{}@example.org", unique("ann"))).await;
    let (category, id) = (unique("typed"), unique("a"));
    let run = async |line: &[&str]| ann.run(&[&["events"], line].concat()).await;

    let posted = run(&["post", &category, r#"{"n": 1}"#, "--at", "2036-01-01 12:00 UTC", "--id", &id, "--json"]).await;
    let posted = posted.records(0).remove(0);
    assert_eq!((&posted["fireAt"], &posted["data"]), (&json!("2036-01-01T12:00:00.000000Z"), &json!({ "n": 1 })));
    let again = run(&["post", &category, "2", "--in", "1h", "--id", &id]).await;
    assert!(again.code == 0 && again.out.starts_with("was posted before"), "{}{}", again.out, again.err);
    run(&["post", &category, "not json", "--in", "2 days", "--priority", "9", "--key", "k"]).await.expect(0);

    let listed = run(&["ls", &category, "--json"]).await.records(0);
    let data: Vec<_> = listed.iter().map(|event| &event["data"]).collect();
    assert_eq!(data, [&json!("not json"), &json!({ "n": 1 })], "soonest first");
    let table = run(&["ls", &category]).await;
    assert!(table.code == 0 && table.out.contains(&id) && table.out.contains("2036-01-01 12:00:00Z"), "{}", table.out);
    let shown = run(&["get", &id]).await;
    assert!(shown.code == 0 && shown.out.contains(&category), "{}{}", shown.out, shown.err);
    let queues = run(&["queues", &category, "--json"]).await.records(0);
    assert_eq!((&queues[0]["category"], &queues[0]["size"]), (&json!(category), &json!(2)));

    let about = run(&["ls", &category, "--key", "k", "--json"]).await.records(0);
    assert_eq!((about.len(), &about[0]["data"]), (1, &json!("not json")));
    let nothing = run(&["ls", &category, "--key", "other"]).await;
    assert!(nothing.code == 0 && nothing.err.contains("nothing about `other` waits"), "{}", nothing.err);

    let moved = run(&["reschedule", &id, "--at", "2035-01-01 12:00 UTC", "--json"]).await.records(0).remove(0);
    assert_eq!((&moved["id"], &moved["fireAt"]), (&json!(id), &json!("2035-01-01T12:00:00.000000Z")));
    let said = run(&["reschedule", &id, "--in", "2h", "--category", &category]).await;
    assert!(
        said.code == 0 && said.out.starts_with(&format!("{id} fires in {category} at ")),
        "{}{}",
        said.out,
        said.err
    );
    run(&["reschedule", &id]).await.expect(2);
    run(&["reschedule", "nowhere", "--in", "1h"]).await.expect(1);

    run(&["cancel", &id]).await.expect(0);
    let gone = run(&["cancel", &id]).await;
    assert!(gone.code == 1 && gone.err.contains("not found"), "{}", gone.err);
    // Without a time it fires now.
    let now = run(&["post", &category, "now", "--json"]).await.records(0).remove(0);
    let now = now["id"].as_str().unwrap();
    until("an offset", || async {
        let event = run(&["get", now, "--json"]).await.records(0).remove(0);
        event["offset"].is_u64().then_some(())
    })
    .await;
    let fired = run(&["ls", &category, "--fired", "--json"]).await.records(0);
    assert_eq!((fired.len(), &fired[0]["id"]), (1, &json!(now)));
    for late in [run(&["cancel", now]).await, run(&["reschedule", now, "--in", "1h"]).await] {
        assert!(late.code == 1 && late.err.contains("has fired"), "{}", late.err);
    }

    let line = |id: &str, at: &str| format!(r#"{{"category":"{category}","fireAt":{at},"data":0{id}}}"#);
    let good = line("", "2082758400");
    let named = line(r#","id":"of-file""#, "2082758400");
    let file = [good.as_str(), "", &line("", "-5"), "{broken", &named].join("\n");
    let posted = ann.run_with(&["events", "post", "--file", "-"], &file).await;
    assert_eq!(posted.code, 1, "{}{}", posted.out, posted.err);
    for said in ["line 3: fireAt is negative", "line 4: it is not a JSON object", "2 posted", "2 refused"] {
        assert!(posted.err.contains(said), "{said}: {}", posted.err);
    }
    let again = ann.run_with(&["events", "post", "--file", "-", "--json"], &named).await.records(0);
    assert_eq!(again[0]["duplicate"], true);
}

async fn a_user_handles_schedules(platform: &Platform) {
    let ann = Terminal::new(platform.gateway());
    ann.log_in(&format!("{}@example.org", unique("ann"))).await;
    let (category, id) = (unique("typed"), unique("s"));
    let run = async |line: &[&str]| ann.run(&[&["schedules"], line].concat()).await;
    let create = ["create", &category, "--cron", "0 9 * * *", "--time-zone", "Europe/Berlin", "--id", &id];
    let made = run(&create).await;
    assert!(made.code == 0 && made.out.contains("by `0 9 * * *` in Europe/Berlin"), "{}{}", made.out, made.err);
    run(&create).await.expect(0);
    let other = run(&["create", &category, "--every", "1h30m", "--id", &id]).await;
    assert!(other.code == 1 && other.err.contains("another rule"), "{}", other.err);
    let listed = run(&["ls", "--category", &category, "--json"]).await.records(0);
    assert_eq!((listed.len(), &listed[0]["id"]), (1, &json!(id)));
    run(&["pause", &id]).await.expect(0);
    assert_eq!(run(&["get", &id, "--json"]).await.records(0)[0]["state"], "paused");
    run(&["resume", &id]).await.expect(0);
    let ran = run(&["run", &id, "--json"]).await.records(0);
    assert_eq!((&ran[0]["scheduleId"], &ran[0]["duplicate"]), (&json!(id), &Value::Null));
    run(&["rm", &id]).await.expect(0);
    let gone = run(&["get", &id]).await;
    assert!(gone.code == 1 && gone.err.contains("not found"), "{}", gone.err);
}

async fn a_key_does_at_the_terminal_what_its_scopes_say(platform: &Platform) {
    let ann = Terminal::new(platform.gateway());
    let email = format!("{}@example.org", unique("ann"));
    ann.log_in(&email).await;
    let (mine, other) = (unique("mine"), unique("other"));
    let (publish, subscribe) = (format!("publish:{mine}"), format!("subscribe:{mine}"));
    let key = async |scopes: &[&str]| {
        let create = [&["keys", "create", "--name", "shop", "--json", "--scope"], scopes].concat();
        ann.run(&create).await.records(0)[0]["key"].as_str().unwrap().to_owned()
    };
    let (whole, reading) = (key(&[&publish, &subscribe]).await, key(&[&subscribe]).await);
    // Nobody is logged in there.
    let shop = Terminal::new(platform.gateway()).with("NOTIFYX_API_KEY", &whole);
    let own = shop.run(&["keys", "self", "--json"]).await.records(0);
    assert_eq!((&own[0]["email"], &own[0]["scopes"]), (&json!(email), &json!([publish, subscribe])));

    let posted = shop.run(&["events", "post", &mine, "1", "--in", "1h", "--id", "a", "--json"]).await.records(0);
    assert_eq!(posted[0]["data"], 1);
    assert_eq!(shop.run(&["events", "ls", &mine, "--json"]).await.records(0).len(), 1);
    shop.run(&["events", "reschedule", "a", "--in", "2h", "--category", &mine]).await.expect(0);
    shop.run(&["events", "queues", &mine]).await.expect(0);
    shop.run(&["events", "cancel", "a", "--category", &mine]).await.expect(0);
    shop.run(&["schedules", "create", &mine, "--every", "1h"]).await.expect(0);
    assert_eq!(shop.run(&["schedules", "ls", "--json"]).await.records(0).len(), 1);
    let mut live = shop.start(&["events", "stream", &mine, "--from", "1", "--json"]);
    shop.run(&["events", "post", &mine, "\"now\""]).await.expect(0);
    let fired = loop {
        let told = live.line(LINE_WITHIN).await.expect("it goes on");
        let told: Value = serde_json::from_str(&told).unwrap();
        if told["event"] == "fired" {
            break told;
        }
    };
    assert_eq!(fired["data"], "now");

    // What its scopes do not cover, and what is the user's own.
    let refused = shop.run(&["events", "post", &other, "1"]).await;
    assert!(refused.code == 1 && refused.err.contains(&format!("`publish:{other}`")), "{}", refused.err);
    let users = shop.run(&["inbox"]).await;
    assert!(users.code == 4 && users.err.contains("is good for `events` and `schedules` only"), "{}", users.err);

    // In a file, which goes before the variable.
    let file = shop.home().join("key");
    std::fs::write(&file, format!("{reading}\n")).unwrap();
    let with_file = ["--api-key-file", file.to_str().unwrap()];
    shop.run(&[&["events", "ls", &mine], &with_file[..]].concat()).await.expect(0);
    let refused = shop.run(&[&["events", "post", &mine, "1"], &with_file[..]].concat()).await;
    assert!(refused.code == 1 && refused.err.contains(&publish), "{}", refused.err);
    let users = ann.run(&[&["inbox"], &with_file[..]].concat()).await;
    assert!(users.code == 2 && users.err.contains("is good for `events`"), "{}", users.err);

    // What is no key, and what is none any more.
    let broken = Terminal::new(platform.gateway()).with("NOTIFYX_API_KEY", "nxk_hunter2");
    let refused = broken.run(&["events", "ls", &mine]).await;
    assert!(refused.code == 2 && refused.err.contains("NOTIFYX_API_KEY holds no API key"), "{}", refused.err);
    let made_up = format!("nxk_{}", "a".repeat(43));
    let unknown = Terminal::new(platform.gateway()).with("NOTIFYX_API_KEY", &made_up);
    for said in [unknown.run(&["events", "ls", &mine]).await, unknown.run(&["events", "stream", &mine]).await, refused]
    {
        assert!(matches!(said.code, 2 | 4), "{}{}", said.out, said.err);
        assert!(!said.err.contains(&made_up) && !said.err.contains("hunter2"), "it is never shown: {}", said.err);
    }
    let nobody = Terminal::new(platform.gateway());
    for line in [&["events", "ls", &mine][..], &["events", "stream", &mine]] {
        let told = nobody.run(line).await;
        assert!(told.code == 4 && told.err.contains("notifyx login EMAIL`, or show an API key"), "{}", told.err);
    }
    nobody.run(&["keys", "self"]).await.expect(2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn anybody_posts_and_lists_where_the_gateway_lets_anybody_in() {
    let options = Options { variables: vec![("NOTIFYX_GATEWAY__ANONYMOUS", "true")], ..Options::default() };
    let platform = Platform::start_with(Form::Up, options).await;
    let nobody = Terminal::new(platform.gateway());
    nobody.run(&["events", "post", "open", "1", "--in", "1h", "--id", "a"]).await.expect(0);
    assert_eq!(nobody.run(&["events", "ls", "open", "--json"]).await.records(0).len(), 1);
    // What changes, recurs, or is a user's own needs somebody.
    for line in [
        &["events", "cancel", "a"][..],
        &["events", "reschedule", "a", "--in", "2h"],
        &["schedules", "create", "open", "--every", "1h"],
        &["topics"],
    ] {
        let told = nobody.run(line).await;
        assert!(told.code == 4 && told.err.contains("notifyx login EMAIL"), "{line:?}: {}", told.err);
    }
}

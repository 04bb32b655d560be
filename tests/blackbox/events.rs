//! Scheduled events over REST: an event's life, bad input beside good, what an API key may, what recurs.

use std::time::{SystemTime, UNIX_EPOCH};

use reqwest::Method;
use serde_json::{Value, json};

use crate::harness::{Answer, Api, Form, Options, Person, Platform, at_once, in_both_forms, send, unique, until};

in_both_forms!(
    an_event_lives_from_its_post_to_the_log,
    an_id_that_was_seen_before_is_the_same_event,
    bad_events_cost_only_themselves,
    a_question_that_makes_no_sense_is_told_why,
    an_array_beyond_its_bounds_is_refused_whole,
    a_key_does_what_its_scopes_say,
    a_schedule_lives_from_create_to_delete,
    single_posts_at_once_are_all_stored,
    what_waits_is_listed_by_its_key,
);

/// Unix time in seconds, so far ahead.
#[expect(clippy::disallowed_methods, reason = "events fire by the real clock here")]
fn ahead(seconds: f64) -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64() + seconds
}

async fn fired(api: &Api, id: &str) -> Value {
    until(id, || async {
        let event = api.get(&format!("/events/{id}")).await.expect(200);
        event["offset"].is_u64().then_some(event)
    })
    .await
}

async fn post_text(api: &Api, body: impl Into<reqwest::Body>) -> Answer {
    send(api.request(Method::POST, "/events").header("content-type", "application/json").body(body)).await
}

async fn an_event_lives_from_its_post_to_the_log(platform: &Platform) {
    let ann = platform.person("ann").await;
    let (category, id) = (unique("orders"), unique("a"));
    let body = json!({
        "category": category, "fireAt": ahead(3_600.0), "createdAt": "2026-01-02T03:04:05.678901Z", "id": id,
        "priority": 9, "key": "order 7", "data": { "n": 1, "text": "grüß" },
    });
    let answer = ann.api.post("/events", body).await;
    let (place, posted) = (answer.headers["location"].to_str().unwrap().to_owned(), answer.expect(201));
    assert_eq!((&posted["id"], &posted["category"], &posted["priority"]), (&json!(id), &json!(category), &json!(9)));
    assert_eq!((&posted["key"], &posted["data"]["text"]), (&json!("order 7"), &json!("grüß")));
    assert_eq!(posted["createdAt"], "2026-01-02T03:04:05.678901Z");
    assert!(posted["offset"].is_null() && posted["duplicate"].is_null(), "{posted}");
    assert_eq!(posted["fireAt"].as_str().unwrap().len(), "2026-01-02T03:04:05.678901Z".len(), "{posted}");

    let path = format!("/events/{id}");
    let seen = ann.api.get(&path).await.expect(200);
    assert_eq!(seen, posted);
    assert_eq!(ann.api.get(&place).await.expect(200), posted, "it is where `Location` says");
    assert_eq!(ann.api.get(&format!("{path}?category={category}")).await.expect(200), posted);
    assert_eq!(ann.api.get(&format!("{path}?category=another")).await.refused(404), "event_not_found");
    let waiting = ann.api.get(&format!("/events?category={category}&state=scheduled")).await.expect(200);
    assert_eq!(waiting["events"], json!([posted]));
    let log = ann.api.get(&format!("/events?category={category}")).await.expect(200);
    assert_eq!((&log["events"], &log["head"]), (&json!([]), &json!(0)));
    let queue = ann.api.get(&format!("/api/queues/{category}")).await.expect(200);
    assert_eq!((&queue["size"], &queue["capacity"], &queue["fired"]), (&json!(1), &json!(1_000), &json!(0)), "{queue}");
    assert_eq!((&queue["earliest"], &queue["latest"]), (&posted["fireAt"], &posted["fireAt"]));

    let moved_to = |at: f64| send(ann.api.request(Method::PATCH, &path).json(&json!({ "fireAt": at })));
    let moved = moved_to(ahead(7_200.0)).await.expect(200);
    assert!(moved["fireAt"].as_str() > posted["fireAt"].as_str() && moved["data"] == posted["data"], "{moved}");
    assert_eq!(moved_to(-1.0).await.refused(400), "event_invalid");
    for (body, said) in [
        (json!({ "fireAt": {} }), "fireAt: invalid type: object, expected a time"),
        (json!({ "fireat": 1 }), "unknown field `fireat`, expected `fireAt`"),
        (json!({}), "missing field `fireAt`"),
    ] {
        let refused = send(ann.api.request(Method::PATCH, &path).json(&body)).await;
        assert_eq!(refused.refused(400), "body_invalid");
        assert!(refused.json()["detail"].as_str().unwrap().contains(said), "{said}: {}", refused.text);
    }
    // What has passed fires at once.
    moved_to(ahead(-60.0)).await.expect(200);
    let event = fired(&ann.api, &id).await;
    assert_eq!((&event["offset"], event["firedAt"].is_string()), (&json!(1), true), "{event}");
    let refused = ann.api.delete(&path).await;
    assert_eq!(refused.refused(409), "event_fired");
    assert!(refused.text.contains(&category), "{}", refused.text);
    assert_eq!(moved_to(ahead(60.0)).await.refused(409), "event_fired");
    let log = ann.api.get(&format!("/events?category={category}&after=0&limit=1")).await.expect(200);
    assert_eq!((&log["events"], &log["head"], &log["oldest"]), (&json!([event]), &json!(1), &json!(1)));

    let another = ann.api.post("/events", json!({ "category": category, "fireAt": ahead(3_600.0), "data": null }));
    let another = another.await.expect(201);
    let path = format!("/events/{}", another["id"].as_str().unwrap());
    assert_eq!(ann.api.delete(&path).await.expect(200)["id"], another["id"]);
    assert_eq!(ann.api.delete(&path).await.refused(404), "event_not_found");
    assert_eq!(ann.api.get(&path).await.refused(404), "event_not_found");
    // Where nobody is known, nobody posts.
    let stranger = Api::new(platform.gateway());
    assert_eq!(stranger.get(&path).await.refused(401), "credentials_missing");
    assert_eq!(stranger.post("/events", json!([])).await.refused(401), "credentials_missing");
}

async fn an_id_that_was_seen_before_is_the_same_event(platform: &Platform) {
    let ann = platform.person("ann").await;
    let (category, id) = (unique("once"), unique("a"));
    let event = |n: u64| json!({ "category": category, "fireAt": ahead(3_600.0), "id": id, "data": n });
    let first = ann.api.post("/events", event(1)).await.expect(201);
    let again = ann.api.post("/events", event(2)).await.expect(201);
    assert_eq!((&again["duplicate"], &again["data"], &again["fireAt"]), (&json!(true), &json!(1), &first["fireAt"]));
    let both = ann.api.post("/events", json!([event(3), { "category": category, "fireAt": 1e9, "data": 4 }])).await;
    let both = both.expect(201);
    assert_eq!((&both[0]["duplicate"], &both[1]["duplicate"]), (&json!(true), &Value::Null), "{both}");
    let elsewhere =
        ann.api.post("/events", json!({ "category": unique("o"), "fireAt": 4e9 - 2e9, "id": id, "data": 0 }));
    elsewhere.await.expect(201);
    let ambiguous = ann.api.get(&format!("/events/{id}")).await;
    assert_eq!(ambiguous.refused(409), "id_ambiguous");
    assert_eq!(ann.api.delete(&format!("/events/{id}")).await.refused(409), "id_ambiguous");
    assert_eq!(ann.api.delete(&format!("/events/{id}?category={category}")).await.expect(200)["data"], 1);
}

async fn what_waits_is_listed_by_its_key(platform: &Platform) {
    let ann = platform.person("ann").await;
    let category = unique("keyed");
    let later = ahead(3_600.0);
    // Of every three the first is about one order, the second about another, the third about nothing.
    let event = |place: u32| {
        let key = [json!("order 7"), json!("order 8"), Value::Null][place as usize % 3].clone();
        json!({ "category": category, "fireAt": later + f64::from(place), "data": place, "key": key })
    };
    let posted = (0..9).rev().map(event).collect::<Vec<_>>();
    ann.api.post("/events", json!(posted)).await.expect(201);
    let page = async |query: &str| ann.api.get(&format!("/events?category={category}&state=scheduled{query}")).await;
    let data = |page: &Value| {
        page["events"].as_array().unwrap().iter().map(|event| event["data"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    let first = page("&key=order+7&limit=2").await.expect(200);
    assert_eq!(data(&first), [0, 3], "soonest first, and no others");
    let second = page(&format!("&key=order%207&limit=2&after={}", first["next"].as_str().unwrap())).await.expect(200);
    assert_eq!((data(&second), &second["next"]), (vec![6], &Value::Null));
    assert_eq!(data(&page("&key=order").await.expect(200)), Vec::<u64>::new(), "a key is whole");
    assert_eq!(data(&page("").await.expect(200)).len(), 9);

    assert_eq!(page("&key=").await.refused(400), "event_invalid");
    let long = page(&format!("&key={}", "k".repeat(256))).await;
    assert_eq!(long.refused(400), "event_invalid");
    assert!(long.text.contains("key has 256 bytes, more than 255"), "{}", long.text);
    let of_the_log = ann.api.get(&format!("/events?category={category}&key=order+7")).await;
    assert_eq!(of_the_log.refused(400), "query_invalid");
    assert!(of_the_log.text.contains("state=scheduled"), "{}", of_the_log.text);
}

async fn bad_events_cost_only_themselves(platform: &Platform) {
    let ann = platform.person("ann").await;
    let category = unique("mixed");
    let later = ahead(3_600.0);
    let long = "c".repeat(300);
    let big = "x".repeat(1024 * 1024);
    let good = format!(r#"{{"category":"{category}","fireAt":{later},"data":{{"a":[1,"}},{{"]}}}}"#);
    let of =
        |category: &str, at: &str, data: &str| format!(r#"{{"category":"{category}","fireAt":{at},"data":{data}}}"#);
    let is = |at: &str| of(&category, at, "0");
    let bad: Vec<(String, u16, &str)> = vec![
        (is("NaN"), 400, "cannot be read"),
        (is("-5"), 400, "fireAt is negative (-5)"),
        (is("253370764800"), 400, "fireAt is"),
        (is("253370764800000"), 400, "(read as microseconds), before 2000"),
        (is("253370764800000000"), 400, "more than ten years ahead"),
        (is("\"9999-01-01T00:00:00Z\""), 400, "more than ten years ahead"),
        (is("60"), 400, "fireAt is 1970-01-01T00:01:00Z (read as seconds), before 2000"),
        (is("\"tomorrow\""), 400, "fireAt is neither a Unix time"),
        (is("true"), 400, "fireAt: invalid type: boolean `true`, expected a time"),
        (format!(r#"{{"category":"{category}","data":0}}"#), 400, "fireAt is missing"),
        (format!(r#"{{"category":"{category}","fireAt":{later}}}"#), 400, "data is missing"),
        (of(&long, "1e9", "0"), 400, "category has 300 bytes, more than 200"),
        (of("a/b", "1e9", "0"), 400, "category holds a /"),
        (of("$notifications", "1e9", "0"), 403, "`$notifications`"),
        (of(&category, "1e9", &format!("\"{big}\"")), 413, "data has 1048578 bytes, more than 262144"),
        (format!(r#"{{"category":"{category}","fireAt":1e9,"data":0,"id":"a b"}}"#), 400, "event id holds"),
        (format!(r#"{{"category":"{category}","fireAt":1e9,"data":0,"key":"{long}"}}"#), 400, "key has 300 bytes"),
        (
            format!(r#"{{"category":"{category}","fireAt":1e9,"data":0,"priority":10}}"#),
            400,
            "priority 10 is not 0 to 9",
        ),
        (format!(r#"{{"category":"{category}","fireat":1e9,"data":0}}"#), 400, "unknown field `fireat`"),
        ("7".into(), 400, "an event is a JSON object"),
        ("\"{\\\"\"".into(), 400, "an event is a JSON object"),
    ];
    // Each alone …
    for (text, status, said) in &bad {
        let refused = post_text(&ann.api, text.clone()).await;
        if text.starts_with('{') {
            refused.refused(*status);
            assert!(refused.text.contains(said), "{said}: {}", refused.text);
        } else {
            assert_eq!(refused.refused(400), "no_events");
        }
    }
    // … and between good ones.
    let items: Vec<String> = bad.iter().flat_map(|(text, ..)| [good.clone(), text.clone()]).collect();
    let mixed = post_text(&ann.api, format!("[{}]", items.join(", "))).await.expect(207);
    for (place, result) in mixed.as_array().unwrap().iter().enumerate() {
        assert_eq!(result["index"], place);
        let (_, status, said) = &bad[place / 2];
        if place.is_multiple_of(2) {
            assert_eq!((&result["status"], &result["event"]["category"]), (&json!(201), &json!(category)), "{result}");
        } else {
            assert_eq!(result["status"], *status, "{result}");
            assert!(result["problem"]["detail"].as_str().unwrap().contains(said), "{said}: {result}");
        }
    }
    let kept = ann.api.get(&format!("/events?category={category}&state=scheduled&limit=1000")).await.expect(200);
    assert_eq!(kept["events"].as_array().unwrap().len(), bad.len(), "the good ones, each once");
    let queue = ann.api.get(&format!("/api/queues/{category}")).await.expect(200);
    assert_eq!(queue["size"], bad.len(), "{queue}");

    // Where none is good the answer says so, and why of each.
    let none = post_text(&ann.api, format!("[{},{}]", is("-5"), is("true"))).await;
    assert_eq!(none.refused(400), "events_refused");
    assert_eq!(none.json()["results"][1]["problem"]["code"], "event_invalid");
    assert_eq!(post_text(&ann.api, format!("[{}]", of("$x", "1e9", "0"))).await.refused(403), "events_refused");

    // A time that has passed is no bad input: it fires at once.
    let past = ann.api.post("/events", json!({ "category": category, "fireAt": ahead(-3_600.0), "data": 0 })).await;
    fired(&ann.api, past.expect(201)["id"].as_str().unwrap()).await;
}

async fn a_question_that_makes_no_sense_is_told_why(platform: &Platform) {
    let ann = platform.person("ann").await;
    let (category, long) = (unique("asked"), "c".repeat(300));
    let gets = [
        (Method::GET, "/events".to_owned(), 400),
        (Method::GET, format!("/events?category={long}"), 400),
        (Method::GET, "/events?category=a%2Fb".to_owned(), 400),
        (Method::GET, "/events?category=$x".to_owned(), 403),
        (Method::GET, format!("/events?category={category}&limit=0"), 400),
        (Method::GET, format!("/events?category={category}&limit=1001"), 400),
        (Method::GET, format!("/events?category={category}&after=x"), 400),
        (Method::GET, format!("/events?category={category}&state=scheduled&after=x"), 400),
        (Method::GET, format!("/events?category={category}&state=lost"), 400),
        (Method::GET, "/events/a%20b".to_owned(), 400),
        (Method::GET, format!("/events/{long}"), 400),
        (Method::DELETE, "/events/nowhere".to_owned(), 404),
        (Method::GET, "/api/queues/a%2Fb".to_owned(), 400),
        (Method::GET, "/api/queues/$x".to_owned(), 403),
        (Method::GET, "/api/queues?limit=0".to_owned(), 400),
        (Method::PUT, "/events".to_owned(), 405),
        (Method::GET, "/schedules/nowhere".to_owned(), 404),
        (Method::GET, "/schedules?category=a%2Fb".to_owned(), 400),
        (Method::POST, "/schedules/nowhere/pause".to_owned(), 404),
        (Method::POST, "/schedules/nowhere/run".to_owned(), 404),
    ];
    for (method, path, status) in gets {
        let answer = send(ann.api.request(method.clone(), &path)).await;
        assert_eq!(answer.status, status, "{method} {path}: {}", answer.text);
        answer.refused(status);
    }
    for (path, said) in [
        (format!("/events?category={category}&limit=x"), "limit: not a whole number from 0"),
        ("/events?category=a%2Fb".to_owned(), "takes: category holds a /"),
        (format!("/events?category={category}&state=lost"), "state: unknown variant `lost`"),
        (format!("/events?category={category}&state=scheduled&after=x"), "after is not the `next` of a page"),
        ("/schedules?after=a%20b".to_owned(), "after is not the `next` of a page"),
        ("/events/a%20b".to_owned(), "an invalid value: event id holds"),
    ] {
        let refused = ann.api.get(&path).await;
        assert!(refused.status == 400 && refused.text.contains(said), "{path}: {said}: {}", refused.text);
    }
}

async fn an_array_beyond_its_bounds_is_refused_whole(platform: &Platform) {
    let ann = platform.person("ann").await;
    let category = unique("bounds");
    let good = format!(r#"{{"category":"{category}","fireAt":{},"data":0}}"#, ahead(3_600.0));
    let many = |count: usize| format!("[{}]", vec![good.as_str(); count].join(","));
    let refused = post_text(&ann.api, many(10_001)).await;
    assert_eq!(refused.refused(400), "too_many_events");
    assert!(refused.text.contains("10,000"), "{}", refused.text);
    assert_eq!(post_text(&ann.api, vec![b' '; 8 * 1024 * 1024 + 1]).await.refused(413), "body_too_large");
    for broken in ["", "[]", "[", "{", "nul", "[{}", "[{}] x", "\u{feff}[]"] {
        post_text(&ann.api, broken).await.refused(400);
    }
    post_text(&ann.api, "[".repeat(100_000)).await.refused(400);
    let form = ann.api.request(Method::POST, "/events").header("content-type", "text/plain").body(good.clone());
    assert_eq!(send(form).await.refused(415), "content_type_invalid");
    let queue = ann.api.get(&format!("/api/queues/{category}")).await.expect(200);
    assert_eq!((&queue["size"], &queue["backlog"]), (&json!(0), &json!(0)), "nothing of it was kept: {queue}");

    // What is within them is stored, whatever its length: beyond the window it waits in the store.
    let stored = post_text(&ann.api, many(1_500)).await.expect(201);
    assert_eq!(stored.as_array().unwrap().len(), 1_500);
    let queue = ann.api.get(&format!("/api/queues/{category}")).await.expect(200);
    assert_eq!(queue["size"].as_u64().unwrap() + queue["backlog"].as_u64().unwrap(), 1_500, "{queue}");
    let (mut ids, mut after) = (Vec::new(), String::new());
    loop {
        let path = format!("/events?category={category}&state=scheduled&limit=1000{after}");
        let page = ann.api.get(&path).await.expect(200);
        ids.extend(page["events"].as_array().unwrap().iter().map(|event| event["id"].as_str().unwrap().to_owned()));
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 1_500);
}

async fn a_key_does_what_its_scopes_say(platform: &Platform) {
    let ann = platform.person("ann").await;
    let area = unique("area");
    let (mine, other) = (format!("{area}.orders"), unique("other"));
    let key = async |scopes: Value| {
        let made = ann.api.post("/api/keys", json!({ "name": "shop", "scopes": scopes })).await.expect(201);
        Api::new(platform.gateway()).with_token(made["key"].as_str().unwrap())
    };
    let publisher = key(json!([format!("publish:{area}.*")])).await;
    let reader = key(json!([format!("subscribe:{area}.*")])).await;
    let event = |category: &str| json!({ "category": category, "fireAt": ahead(3_600.0), "data": "secret" });

    let posted = publisher.post("/events", event(&mine)).await.expect(201);
    assert_eq!(posted["data"], "secret", "it is what was sent");
    let id = posted["id"].as_str().unwrap();
    let path = format!("/events/{id}");
    let mixed = publisher.post("/events", json!([event(&mine), event(&other)])).await.expect(207);
    assert_eq!((&mixed[0]["status"], &mixed[1]["status"]), (&json!(201), &json!(403)), "{mixed}");
    assert_eq!(mixed[1]["problem"]["code"], "out_of_scope");
    assert_eq!(publisher.post("/events", event(&other)).await.refused(403), "out_of_scope");
    assert_eq!(reader.post("/events", event(&mine)).await.refused(403), "out_of_scope");

    // Who may not read is not told what is there …
    assert_eq!(publisher.get(&path).await.refused(404), "event_not_found");
    assert_eq!(publisher.get(&format!("{path}?category={mine}")).await.refused(403), "out_of_scope");
    assert_eq!(publisher.get(&format!("/events?category={mine}")).await.refused(403), "out_of_scope");
    assert_eq!(publisher.get(&format!("/api/queues/{mine}")).await.refused(403), "out_of_scope");
    let again = json!({ "category": mine, "fireAt": ahead(60.0), "data": 1, "id": id });
    let again = publisher.post("/events", again).await.expect(201);
    assert_eq!(
        (&again["duplicate"], &again["dataOmitted"], &again["data"]),
        (&json!(true), &json!(true), &Value::Null)
    );
    // … and who may read changes nothing.
    assert_eq!(reader.get(&path).await.expect(200)["data"], "secret");
    assert_eq!(reader.delete(&path).await.refused(403), "out_of_scope");
    let elsewhere = ann.api.post("/events", event(&other)).await.expect(201);
    let hidden = format!("/events/{}", elsewhere["id"].as_str().unwrap());
    for api in [&publisher, &reader] {
        assert_eq!(api.get(&hidden).await.refused(404), "event_not_found");
        assert_eq!(api.delete(&hidden).await.refused(404), "event_not_found");
        let queues = api.get("/api/queues?limit=1000").await.expect(200);
        assert!(queues["queues"].as_array().unwrap().iter().all(|queue| queue["category"] != other), "{queues}");
    }
    let listed = reader.get("/api/queues?limit=1000").await.expect(200);
    assert!(listed["queues"].as_array().unwrap().iter().any(|queue| queue["category"] == mine), "{listed}");
    assert_eq!(publisher.delete(&path).await.expect(200)["dataOmitted"], true, "cancelled, and still not told");

    let schedule = |category: &str| json!({ "category": category, "every": "1h", "data": "secret" });
    let made = publisher.post("/schedules", schedule(&mine)).await.expect(201);
    let path = format!("/schedules/{}", made["id"].as_str().unwrap());
    assert_eq!(publisher.post("/schedules", schedule(&other)).await.refused(403), "out_of_scope");
    assert_eq!(publisher.get(&path).await.refused(404), "schedule_not_found");
    assert_eq!(reader.get(&path).await.expect(200)["data"], "secret");
    assert_eq!(reader.post(&format!("{path}/pause"), json!({})).await.refused(403), "out_of_scope");
    assert_eq!(publisher.post(&format!("{path}/pause"), json!({})).await.expect(200)["dataOmitted"], true);
    let listed = publisher.get("/schedules").await.expect(200);
    assert_eq!(listed["schedules"], json!([]));
    assert_eq!(reader.delete(&path).await.refused(403), "out_of_scope");
    publisher.delete(&path).await.expect(200);
}

async fn a_schedule_lives_from_create_to_delete(platform: &Platform) {
    let ann = platform.person("ann").await;
    let (category, id) = (unique("beats"), unique("s"));
    let rule =
        json!({ "id": id, "category": category, "every": "PT1S", "data": { "beat": true }, "priority": 7, "key": "k" });
    let answer = ann.api.post("/schedules", rule.clone()).await;
    assert_eq!(answer.headers["location"], format!("/schedules/{id}"));
    let made = answer.expect(201);
    assert_eq!(
        (&made["every"], &made["state"], &made["onMissed"]),
        (&json!("PT1S"), &json!("active"), &json!("fire_last"))
    );
    assert!(made["nextAt"].is_string() && made["created"] == 0, "{made}");
    assert_eq!(ann.api.post("/schedules", rule.clone()).await.expect(201)["createdAt"], made["createdAt"]);
    let mut another = rule.clone();
    another["every"] = json!(2);
    assert_eq!(ann.api.post("/schedules", another).await.refused(422), "schedule_mismatch");

    let log = format!("/events?category={category}");
    let event = until("an occurrence", || async {
        ann.api.get(&log).await.expect(200)["events"].as_array().unwrap().first().cloned()
    })
    .await;
    assert_eq!((&event["scheduleId"], &event["data"]), (&json!(id), &json!({ "beat": true })));
    assert_eq!((&event["priority"], &event["key"]), (&json!(7), &json!("k")));

    let path = format!("/schedules/{id}");
    let paused = ann.api.post(&format!("{path}/pause"), json!({})).await.expect(200);
    assert_eq!((&paused["state"], &paused["nextAt"]), (&json!("paused"), &Value::Null), "{paused}");
    ann.api.post(&format!("{path}/pause"), json!({})).await.expect(200);
    let run = format!("{path}/run?eventId={id}-now");
    let ran = ann.api.post(&run, json!({})).await.expect(201);
    assert_eq!((&ran["scheduleId"], &ran["id"]), (&json!(id), &json!(format!("{id}-now"))));
    assert!(ran["offset"].is_u64(), "it is in the log: {ran}");
    assert_eq!(ann.api.post(&run, json!({})).await.expect(201)["duplicate"], true);
    assert_eq!(ann.api.post(&format!("{path}/resume"), json!({})).await.expect(200)["state"], "active");
    assert_eq!(ann.api.get(&path).await.expect(200)["category"], category);
    let listed = ann.api.get(&format!("/schedules?category={category}")).await.expect(200);
    assert_eq!(listed["schedules"].as_array().unwrap().len(), 1, "{listed}");
    assert_eq!(ann.api.delete(&path).await.expect(200)["id"], id);
    assert_eq!(ann.api.get(&path).await.refused(404), "schedule_not_found");

    let cron = json!({ "category": category, "cron": "0 9 * * MON-FRI", "timeZone": "Europe/Berlin", "count": 2, "onMissed": "skip" });
    let made = ann.api.post("/schedules", cron).await.expect(201);
    assert_eq!((&made["cron"], &made["timeZone"]), (&json!("0 9 * * MON-FRI"), &json!("Europe/Berlin")));
    assert_eq!((&made["onMissed"], &made["count"], &made["data"]), (&json!("skip"), &json!(2), &Value::Null));
    ann.api.delete(&format!("/schedules/{}", made["id"].as_str().unwrap())).await.expect(200);

    let bad = [
        (json!({}), 400, "missing field `category`"),
        (json!({ "category": category }), 400, "say when it recurs"),
        (json!({ "category": category, "every": "1s", "cron": "* * * * *" }), 400, "not both"),
        (json!({ "category": category, "every": "500ms" }), 400, "is not between 1 second and"),
        (json!({ "category": category, "every": "1 month" }), 400, "counts months or years"),
        (json!({ "category": category, "cron": "* *" }), 400, "cron"),
        (json!({ "category": category, "cron": "0 0 30 2 *" }), 400, "never comes"),
        (
            json!({ "category": category, "cron": "* * * * *", "timeZone": "Mars/Base" }),
            400,
            "is not an IANA time zone",
        ),
        (json!({ "category": category, "every": "1s", "count": 0 }), 400, "count is 0"),
        (json!({ "category": category, "every": "1s", "count": -1 }), 400, "count: invalid value: integer `-1`"),
        (json!({ "category": category, "every": true }), 400, "every: invalid type: boolean `true`, expected a span"),
        (json!({ "category": category, "every": "1s", "priority": "high" }), 400, "priority: invalid type: string"),
        (json!({ "category": 7, "every": "1s" }), 400, "category: invalid type: integer `7`, expected a text"),
        (json!({ "category": category, "every": "1s", "endAt": 1e9 }), 400, "before the first time"),
        (json!({ "category": category, "every": "1s", "startAt": "soon" }), 400, "startAt is neither"),
        (json!({ "category": category, "every": "1s", "onMissed": "all" }), 400, "onMissed: unknown variant `all`"),
        (json!({ "category": category, "every": "1s", "data": "x".repeat(300_000) }), 400, "data has 300002 bytes"),
        (json!({ "category": "$own", "every": "1s" }), 403, "`$own`"),
        (json!({ "category": "a/b", "every": "1s" }), 400, "holds a /"),
        (json!({ "category": category, "every": "1s", "colour": 1 }), 400, "unknown field `colour`"),
    ];
    for (body, status, said) in bad {
        let refused = ann.api.post("/schedules", body).await;
        refused.refused(status);
        assert!(refused.text.contains(said), "{said}: {}", refused.text);
    }
}

async fn single_posts_at_once_are_all_stored(platform: &Platform) {
    let (ann, bob) = tokio::join!(platform.person("ann"), platform.person("bob"));
    let category = unique("singles");
    let post = async |place: usize| {
        let by: &Person = if place.is_multiple_of(2) { &ann } else { &bob };
        let event = json!({ "category": category, "fireAt": ahead(3_600.0), "data": place });
        let stored = by.api.post("/events", event).await.expect(201);
        assert_eq!(stored["data"], place, "each has its own answer");
    };
    at_once(200, post).await;
    let waiting = ann.api.get(&format!("/events?category={category}&state=scheduled&limit=1000")).await.expect(200);
    assert_eq!(waiting["events"].as_array().unwrap().len(), 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_wait_than_may() {
    let options = Options { variables: vec![("NOTIFYX_EVENTS__WAITING_EVENTS", "3")], ..Options::default() };
    let platform = Platform::start_with(Form::Up, options).await;
    let ann = platform.person("ann").await;
    let event = |n: u32| json!({ "category": "full", "fireAt": ahead(3_600.0), "data": n, "id": n.to_string() });
    let mixed = ann.api.post("/events", json!((0..5).map(event).collect::<Vec<_>>())).await;
    assert_eq!(mixed.headers["retry-after"], "1");
    let results = mixed.expect(207);
    let told = |n: usize| (results[n]["status"].as_u64().unwrap(), results[n]["problem"]["code"].as_str());
    assert_eq!([0, 1, 2].map(told), [(201, None); 3], "the first of them are taken: {results}");
    assert_eq!([3, 4].map(told), [(429, Some("schedule_full")); 2], "{results}");
    let refused = ann.api.post("/events", event(9)).await;
    assert_eq!((refused.refused(429), refused.headers["retry-after"].to_str().unwrap()), ("schedule_full".into(), "1"));
    assert!(refused.text.contains("3 events wait, as many as may"), "{}", refused.text);
    let topic = unique("later");
    ann.create_topic(&topic).await;
    let later = json!({ "topic": topic, "message": "m", "fire_at": ahead(60.0) });
    assert_eq!(ann.api.post("/api/notifications", later).await.refused(429), "schedule_full");

    ann.api.delete("/events/1").await.expect(200);
    until("room", || async { (ann.api.post("/events", event(9)).await.status == 201).then_some(()) }).await;
    assert_eq!(ann.api.post("/events", event(10)).await.status, 429);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn anybody_may_where_the_gateway_lets_anybody_in() {
    let options = Options { variables: vec![("NOTIFYX_GATEWAY__ANONYMOUS", "true")], ..Options::default() };
    let platform = Platform::start_with(Form::Up, options).await;
    let anybody = Api::new(platform.gateway());
    let event = json!({ "category": "open", "fireAt": ahead(3_600.0), "data": 1, "id": "a" });
    anybody.post("/events", event.clone()).await.expect(201);
    assert_eq!(anybody.get("/events/a").await.expect(200)["data"], 1);
    assert_eq!(anybody.get("/api/queues").await.expect(200)["queues"].as_array().unwrap().len(), 1);
    // To publish and to listen is all: what waits is not changed by nobody in particular, and nothing recurs.
    assert_eq!(anybody.delete("/events/a").await.refused(401), "credentials_missing");
    let moved = anybody.request(Method::PATCH, "/events/a").json(&json!({ "fireAt": ahead(7_200.0) }));
    assert_eq!(send(moved).await.refused(401), "credentials_missing");
    let hourly = json!({ "category": "open", "every": "1h" });
    assert_eq!(anybody.post("/schedules", hourly.clone()).await.refused(401), "credentials_missing");
    let ann = platform.person("ann").await;
    let made = ann.api.post("/schedules", hourly).await.expect(201);
    let path = format!("/schedules/{}", made["id"].as_str().unwrap());
    anybody.get(&path).await.expect(200);
    assert_eq!(anybody.delete(&path).await.refused(401), "credentials_missing");
    ann.api.delete("/events/a").await.expect(200);
    assert_eq!(anybody.get("/events?category=$x").await.refused(403), "category_reserved");
    // Whoever shows credentials is held to them, and what is a user's own needs the user.
    let wrong = Api::new(platform.gateway()).with_token("a-token-that-nobody-has-been-given-ever-at-all");
    assert_eq!(wrong.post("/events", event).await.refused(401), "token_invalid");
    assert_eq!(anybody.get("/api/topics").await.refused(401), "credentials_missing");
}

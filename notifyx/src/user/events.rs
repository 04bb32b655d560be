//! `notifyx events post`, `ls`, `get`, `reschedule`, `cancel` and `queues`.

mod file;

use std::{
    fmt::Write,
    io::{self, Read},
};

use notifyx_model::{Category, Clock, EventId, GivenTime, Timestamp};
use notifyx_wire::rest::events::{DATA_BYTES_MAX, Event, EventPage, PostedEvent, Queue, QueuePage, RescheduleEvent};
use serde_json::value::RawValue;

use super::{
    client::{Call, Client, segment},
    print::{self, Output, Style, clean, moment},
    stream,
};
use crate::{
    args::{EventsAction, ListEvents, Post},
    exit::Failure,
};

/// Events asked for at once.
const PAGE: u32 = 500;

/// Of an event's data in a list: the rest of a terminal's line.
const DATA_CHARS_SHOWN: usize = 60;

pub(crate) async fn run(client: &Client, output: Output, action: EventsAction) -> Result<(), Failure> {
    match action {
        EventsAction::Post(post) => match post.file {
            Some(path) => file::post(client, output, &path).await,
            None => one(client, output, post).await,
        },
        EventsAction::Ls(wish) => list(client, output, wish).await,
        EventsAction::Get(wish) => {
            let event: Event = client.read(of(Call::get(path(&wish.id)), wish.category.as_ref())).await?;
            output.answer(&event, || describe(output, &event))
        }
        EventsAction::Reschedule { id, category, time } => {
            reschedule(client, output, &id, category.as_ref(), time.given()).await
        }
        EventsAction::Cancel { ids, category } => cancel(client, output, &ids, category.as_ref()).await,
        EventsAction::Queues { categories } => queues(client, output, &categories).await,
        EventsAction::Stream(wish) => stream::run(client, output, wish).await,
    }
}

async fn one(client: &Client, output: Output, post: Post) -> Result<(), Failure> {
    let clock = Clock::system();
    let own_id = post.id.is_none();
    let fire_at = post.at.or(post.within).unwrap_or_else(|| clock.now());
    let event = PostedEvent {
        category: post.category.expect("clap asks for it"),
        fire_at: GivenTime::Text(fire_at.to_string()),
        data: data(&post.data.expect("clap asks for it"), io::stdin().lock())?,
        created_at: None,
        // With an id a post whose answer was lost can be made again without being made twice.
        id: Some(post.id.unwrap_or_else(|| EventId::new(&clock))),
        priority: post.priority,
        key: post.key,
    };
    let mut stored: Event = client.insist(&Call::post("/events").json(&event)).await?.json()?;
    stored.duplicate &= !own_id;
    output.answer(&stored, || told(output, &stored, clock.now()))
}

fn told(output: Output, stored: &Event, now: Timestamp) -> String {
    let Event { id, category, fire_at, offset, .. } = stored;
    let (id, category) = (output.paint(Style::Faint, id), output.paint(Style::Strong, category));
    match (stored.duplicate, offset) {
        (true, Some(offset)) => format!("was posted before, and fired as number {offset} of {category} ({id})"),
        (true, None) => format!("was posted before: it fires in {category} at {} ({id})", moment(*fire_at)),
        (false, _) => format!("posted: it fires in {category} {} ({id})", due(*fire_at, now)),
    }
}

/// JSON as it is given, and what is none as a text; `-` is standard input.
pub(super) fn data(given: &str, stdin: impl Read) -> Result<Box<RawValue>, Failure> {
    let mut read = String::new();
    let text = if given == "-" {
        // Beyond the bound it is refused, not cut.
        let limit = u64::try_from(DATA_BYTES_MAX).expect("256 KiB fits") + 2;
        stdin.take(limit).read_to_string(&mut read).map_err(Failure::machine("cannot read the data"))?;
        // The line end that `echo` adds is not part of what was meant.
        read.strip_suffix('\n').map_or(read.as_str(), |line| line.strip_suffix('\r').unwrap_or(line))
    } else {
        given
    };
    let text = serde_json::from_str::<&RawValue>(text)
        .map_or_else(|_| serde_json::to_string(text).expect("a text is JSON"), |json| json.get().to_owned());
    if text.len() > DATA_BYTES_MAX {
        return Err(Failure::Usage(format!("the data has {} bytes, more than {DATA_BYTES_MAX}", text.len())));
    }
    Ok(RawValue::from_string(text).expect("it was read as JSON, or written as such"))
}

async fn list(client: &Client, output: Output, wish: ListEvents) -> Result<(), Failure> {
    let ListEvents { category, fired, limit, key, after } = wish;
    let state = if fired { "fired" } else { "scheduled" };
    let mut asked = Call::get("/events").query("category", &category).query("state", &state);
    if let Some(key) = &key {
        asked = asked.query("key", key);
    }
    let (mut left, mut after) = (limit, after.map(|offset| offset.to_string()));
    loop {
        let mut call = asked.clone().query("limit", &left.min(PAGE));
        if let Some(after) = &after {
            call = call.query("after", after);
        }
        let page: EventPage = client.read(call).await?;
        if left == limit && !page.events.is_empty() && !output.json() {
            print::line(&output.paint(Style::Faint, heading(fired)))?;
        }
        for event in &page.events {
            output.answer(event, || row(output, event))?;
        }
        let count = u32::try_from(page.events.len()).unwrap_or(u32::MAX);
        if left == limit && count == 0 {
            let what = match (fired, &key) {
                (true, _) => "nothing of it is in the log".to_owned(),
                (false, None) => "nothing waits; --fired lists what fired".to_owned(),
                (false, Some(key)) => format!("nothing about `{}` waits", clean(key)),
            };
            output.remark(&format!("{category}: {what}"));
        }
        left = left.saturating_sub(count);
        match page.next {
            Some(_) if left == 0 => {
                output.remark(&format!("there are more than {limit}: see --limit"));
                return Ok(());
            }
            // A page without any would ask for ever.
            Some(next) if count > 0 => after = Some(next),
            _ => return Ok(()),
        }
    }
}

fn heading(fired: bool) -> String {
    let when = if fired { "fired at" } else { "fires at" };
    format!("{when:<20}  {:>8}  {:>3}  {:<36}  data", "offset", "pri", "id")
}

fn row(output: Output, event: &Event) -> String {
    let offset = event.offset.map_or("-".to_owned(), |offset| offset.to_string());
    let data: String = event.data.get().chars().take(DATA_CHARS_SHOWN + 1).collect();
    let more = if data.chars().count() > DATA_CHARS_SHOWN { "…" } else { "" };
    let data: String = data.chars().take(DATA_CHARS_SHOWN).collect();
    format!(
        "{:<20}  {offset:>8}  {:>3}  {}  {}{more}",
        moment(event.fired_at.unwrap_or(event.fire_at)),
        u8::from(event.priority),
        output.paint(Style::Strong, format!("{:<36}", event.id.as_str())),
        clean(&data),
    )
}

fn describe(output: Output, event: &Event) -> String {
    let mut text = output.paint(Style::Strong, &event.id);
    let mut line = |name: &str, value: &str| {
        let _ = write!(text, "\n  {}{}", output.paint(Style::Faint, format!("{name:<10}")), clean(value));
    };
    line("category", event.category.as_str());
    if let Some(key) = &event.key {
        line("key", key);
    }
    line("priority", &u8::from(event.priority).to_string());
    line("created", &event.created_at.to_string());
    match (event.offset, event.fired_at) {
        (Some(offset), Some(at)) => {
            line("due", &event.fire_at.to_string());
            line("fired", &format!("{at}, as number {offset}"));
        }
        _ => line("fires", &event.fire_at.to_string()),
    }
    if let Some(schedule) = &event.schedule_id {
        line("schedule", schedule.as_str());
    }
    line("data", event.data.get());
    text
}

/// Safe to repeat: the same time again is the same event.
async fn reschedule(
    client: &Client,
    output: Output,
    id: &EventId,
    category: Option<&Category>,
    fire_at: GivenTime,
) -> Result<(), Failure> {
    let call = of(Call::patch(path(id)), category).json(&RescheduleEvent { fire_at });
    let moved: Event = client.insist(&call).await?.json()?;
    output.answer(&moved, || {
        let Event { category, fire_at, .. } = &moved;
        let category = output.paint(Style::Strong, category);
        format!("{id} fires in {category} {}", due(*fire_at, Clock::system().now()))
    })
}

/// What has passed fires at once.
fn due(at: Timestamp, now: Timestamp) -> String {
    if at <= now { "now".to_owned() } else { format!("at {}", moment(at)) }
}

async fn cancel(client: &Client, output: Output, ids: &[EventId], category: Option<&Category>) -> Result<(), Failure> {
    for id in ids {
        let stored: Event = client.read(of(Call::delete(path(id)), category)).await?;
        output.answer(&stored, || {
            let Event { category, fire_at, .. } = &stored;
            format!("cancelled {id}: it would have fired in {} at {}", clean(category.as_str()), moment(*fire_at))
        })?;
    }
    Ok(())
}

async fn queues(client: &Client, output: Output, categories: &[Category]) -> Result<(), Failure> {
    let mut shown = 0_usize;
    let mut show = |queue: &Queue| {
        if shown == 0 && !output.json() {
            print::line(&output.paint(Style::Faint, queue_heading()))?;
        }
        shown += 1;
        output.answer(queue, || queue_row(output, queue))
    };
    for category in categories {
        show(&client.read(Call::get(format!("/api/queues/{}", segment(category.as_str())))).await?)?;
    }
    let mut after = None::<String>;
    while categories.is_empty() {
        let mut call = Call::get("/api/queues").query("limit", &PAGE);
        if let Some(after) = &after {
            call = call.query("after", after);
        }
        let page: QueuePage = client.read(call).await?;
        page.queues.iter().try_for_each(&mut show)?;
        // A server that says the same for ever is not followed.
        if page.next.is_none() || page.next == after {
            break;
        }
        after = page.next;
    }
    if shown == 0 {
        output.remark("nothing waits in any category");
    }
    Ok(())
}

fn queue_heading() -> String {
    format!(
        "{:>6}  {:>8}  {:>8}  {:<20}  {:>9}  {:>9}  category",
        "window", "beyond", "fired", "next", "p50 ms", "p99 ms"
    )
}

fn queue_row(output: Output, queue: &Queue) -> String {
    let late = |of: fn(&notifyx_wire::rest::events::Lateness) -> f64| {
        queue.lateness_ms.as_ref().map_or("-".to_owned(), |late| format!("{:.1}", of(late)))
    };
    format!(
        "{:>6}  {:>8}  {:>8}  {:<20}  {:>9}  {:>9}  {}",
        queue.size,
        queue.backlog,
        queue.fired,
        queue.earliest.map_or("-".to_owned(), moment),
        late(|late| late.p50),
        late(|late| late.p99),
        output.paint(Style::Strong, &queue.category),
    )
}

fn path(id: &EventId) -> String {
    format!("/events/{id}")
}

fn of(call: Call, category: Option<&Category>) -> Call {
    match category {
        Some(category) => call.query("category", category),
        None => call,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[expect(clippy::needless_pass_by_value, reason = "it is written where it is passed")]
    fn event(change: serde_json::Value) -> Event {
        let mut event = json!({
            "id": "0199f3a2-7c1e-7d3a-9b42-5a0c1d2e3f40", "category": "orders", "priority": 4,
            "createdAt": "2026-01-01T00:00:00Z", "fireAt": "2026-01-02T03:04:05.678901Z", "data": { "n": 1 },
        });
        event.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        serde_json::from_value(event).unwrap()
    }

    #[test]
    fn data_is_json_or_a_text() {
        for (given, sent) in [
            ("{\"a\": 1}", "{\"a\": 1}"),
            ("17", "17"),
            ("null", "null"),
            ("\"quoted\"", "\"quoted\""),
            ("hello world", "\"hello world\""),
            ("{broken", "\"{broken\""),
            ("", "\"\""),
        ] {
            assert_eq!(data(given, io::empty()).unwrap().get(), sent, "{given}");
        }
        assert_eq!(data("-", "[1]\n".as_bytes()).unwrap().get(), "[1]");
        assert_eq!(data("-", "two\nlines\n".as_bytes()).unwrap().get(), "\"two\\nlines\"");
        assert_eq!(data("-", io::repeat(b'x')).unwrap_err().code(), 2);
        assert_eq!(data("-", &b"\xff"[..]).unwrap_err().code(), 6);
    }

    #[test]
    fn rows_stand_under_their_heading() {
        let output = Output::new(false, true);
        let long =
            event(json!({ "data": "x".repeat(100), "offset": 12, "firedAt": "2026-01-02T03:04:06Z", "priority": 9 }));
        assert_eq!(
            format!("{}\n{}\n{}", heading(false), row(output, &event(json!({}))), row(output, &long)),
            format!(
                "fires at                offset  pri  id                                    data\n\
                 2026-01-02 03:04:05Z         -    4  0199f3a2-7c1e-7d3a-9b42-5a0c1d2e3f40  {{\"n\":1}}\n\
                 2026-01-02 03:04:06Z        12    9  0199f3a2-7c1e-7d3a-9b42-5a0c1d2e3f40  \"{}…",
                "x".repeat(59)
            )
        );
        let queue: Queue = serde_json::from_value(json!({
            "category": "orders", "size": 1000, "capacity": 1000, "earliest": "2026-01-01T00:00:00Z", "backlog": 99000,
            "fired": 12, "latenessMs": { "p50": 0.4, "p90": 0.9, "p99": 2.55, "max": 10.0 },
        }))
        .unwrap();
        assert_eq!(
            format!("{}\n{}", queue_heading(), queue_row(output, &queue)),
            "window    beyond     fired  next                     p50 ms     p99 ms  category\n\
             \u{20} 1000     99000        12  2026-01-01 00:00:00Z        0.4        2.5  orders"
        );
    }

    #[test]
    fn all_that_is_known_of_an_event_is_shown() {
        let fired =
            event(json!({ "key": "k", "offset": 3, "firedAt": "2026-01-02T03:04:05.7Z", "scheduleId": "daily" }));
        assert_eq!(
            describe(Output::new(false, true), &fired),
            "0199f3a2-7c1e-7d3a-9b42-5a0c1d2e3f40\n\
             \u{20} category  orders\n\
             \u{20} key       k\n\
             \u{20} priority  4\n\
             \u{20} created   2026-01-01T00:00:00Z\n\
             \u{20} due       2026-01-02T03:04:05.678901Z\n\
             \u{20} fired     2026-01-02T03:04:05.7Z, as number 3\n\
             \u{20} schedule  daily\n\
             \u{20} data      {\"n\":1}"
        );
    }

    #[test]
    fn a_post_says_when_it_fires() {
        let output = Output::new(false, true);
        let now = "2026-01-01T00:00:00Z";
        let stored = |change: serde_json::Value, duplicate| Event { duplicate, ..event(change) };
        let now = event(json!({ "fireAt": now })).fire_at;
        let id = "(0199f3a2-7c1e-7d3a-9b42-5a0c1d2e3f40)";
        for (stored, said) in [
            (stored(json!({}), false), "posted: it fires in orders at 2026-01-02 03:04:05Z"),
            (stored(json!({ "fireAt": "2025-01-01T00:00:00Z" }), false), "posted: it fires in orders now"),
            (stored(json!({}), true), "was posted before: it fires in orders at 2026-01-02 03:04:05Z"),
            (stored(json!({ "offset": 7 }), true), "was posted before, and fired as number 7 of orders"),
        ] {
            assert_eq!(told(output, &stored, now), format!("{said} {id}"));
        }
    }
}

//! Bodies of events: what publishers post, and what answers and streams show. Names are in camelCase, times RFC 3339 to the
//! microsecond, and `data` is JSON that nobody on the way looks into.
//!
//! Doors write an event with [`text`], from what the events service says; the types here read it, and describe it.

mod micros;
pub mod schedules;
pub mod text;

use notifyx_model::{Category, EventId, GivenTime, Priority, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::Problem;
use crate::grpc::events as grpc;

/// Events of one request: what a publisher sends at once, and a second of work.
pub const EVENTS_MAX: usize = 10_000;
/// A request's body.
pub const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// An event's `data`: a rendered page or a small picture.
pub const DATA_BYTES_MAX: usize = 256 * 1024;
/// An event's `key`.
pub const KEY_BYTES_MAX: usize = 255;
/// A page for who asks for none, and the most that may be asked for.
pub const PAGE_DEFAULT: u32 = 50;
pub const PAGE_MAX: u32 = 1_000;

/// `POST /events`: one, or an array of 1 to 10,000.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PostedEvent {
    /// 1 to 200 bytes, no `/`, not beginning with `$`.
    pub category: Category,
    /// A Unix time in seconds, milliseconds or microseconds, told apart by magnitude, or RFC 3339; at most ten years ahead.
    /// One that has passed fires at once.
    pub fire_at: GivenTime,
    /// Any JSON up to 262,144 bytes.
    #[schema(value_type = Value)]
    pub data: Box<RawValue>,
    /// When you made it; when it was received, where you say nothing. As `fireAt`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub created_at: Option<GivenTime>,
    /// 1 to 128 of `A-Za-z0-9._:~-`, unique in its category: one that was seen before is that event. Where you name none a UUID is
    /// made, and a repeated request makes a second event.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<EventId>,
    /// 0 (least) to 9 (most urgent): of what is due together, the higher fires first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority: Option<Priority>,
    /// What it is about, 1 to 255 bytes; only carried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
}

/// `PATCH /events/{id}`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RescheduleEvent {
    /// As when it was posted.
    pub fire_at: GivenTime,
}

/// An event that waits or has fired.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    pub id: EventId,
    pub category: Category,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    pub priority: Priority,
    #[serde(with = "micros")]
    pub created_at: Timestamp,
    #[serde(with = "micros")]
    pub fire_at: Timestamp,
    /// As it was posted.
    #[serde(default = "null")]
    #[schema(value_type = Value)]
    pub data: Box<RawValue>,
    /// Its place in the category's log, from 1 without gaps; absent while it waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offset: Option<u64>,
    /// When it came there.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "micros::optional")]
    pub fired_at: Option<Timestamp>,
    /// The recurring schedule that made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule_id: Option<EventId>,
    /// Of an event that was posted: its id was seen before, this is the event of that time, and nothing was stored now.
    #[serde(default, skip_serializing_if = "is_false")]
    pub duplicate: bool,
    /// `data` is left out here: who asked may not read the category, or the answer would have become too large.
    #[serde(default, skip_serializing_if = "is_false")]
    pub data_omitted: bool,
}

fn null() -> Box<RawValue> {
    RawValue::NULL.to_owned()
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks with a reference")]
fn is_false(flag: &bool) -> bool {
    !flag
}

/// `207` of `POST /events`: what became of one event of many. Exactly one of `event` and `problem`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct EventResult {
    /// Its place in the request, from 0.
    pub index: usize,
    /// What the status of the answer would be, had it come alone.
    pub status: u16,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event: Option<Event>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<Problem>,
}

/// `POST /events` with several events, none of which was stored.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct AllRefused {
    #[serde(flatten)]
    pub problem: Problem,
    /// One for each event, in their order.
    pub results: Vec<EventResult>,
}

/// `GET /events`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct EventPage {
    pub events: Vec<Event>,
    /// `after` of the page that follows, if one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// Of the log: the category's last offset; 0 where nothing ever fired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<u64>,
    /// Of the log: the first offset that is still kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest: Option<u64>,
}

/// `GET /api/queues/{category}`: how the queue of a category does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Queue {
    pub category: String,
    /// Events in the window, in memory.
    pub size: u64,
    /// Events that the window holds at most.
    pub capacity: u64,
    /// When the window's next event fires; absent where it is empty.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "micros::optional")]
    pub earliest: Option<Timestamp>,
    /// When the window's last event fires.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "micros::optional")]
    pub latest: Option<Timestamp>,
    /// Events that wait in the store beyond the window.
    pub backlog: u64,
    /// Events fired since the service, or another instance in its place, began to.
    pub fired: u64,
    /// How late those were that were not overdue when they came; absent while none fired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lateness_ms: Option<Lateness>,
}

/// From `fireAt` to the log, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Lateness {
    pub p50: f64,
    pub p90: f64,
    pub p99: f64,
    pub max: f64,
}

impl From<grpc::Queue> for Queue {
    fn from(queue: grpc::Queue) -> Self {
        Self {
            category: queue.category,
            size: queue.size,
            capacity: queue.capacity,
            earliest: queue.earliest_us.map(Timestamp::from_micros),
            latest: queue.latest_us.map(Timestamp::from_micros),
            backlog: queue.backlog,
            fired: queue.fired,
            lateness_ms: queue.lateness.map(Lateness::from),
        }
    }
}

impl From<grpc::Lateness> for Lateness {
    fn from(late: grpc::Lateness) -> Self {
        let millis = |micros: u64| micros as f64 / 1_000.0;
        Self { p50: millis(late.p50_us), p90: millis(late.p90_us), p99: millis(late.p99_us), max: millis(late.max_us) }
    }
}

/// `GET /api/queues`: those that have something waiting, by name. A page may hold fewer than were asked for, and not be the last.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct QueuePage {
    pub queues: Vec<Queue>,
    /// `after` of the page that follows, if one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_queue_is_told_in_milliseconds() {
        let queue = grpc::Queue {
            category: "orders".into(),
            size: 2,
            capacity: 1_000,
            earliest_us: Some(1_767_225_600_000_000),
            lateness: Some(grpc::Lateness { p50_us: 400, p90_us: 900, p99_us: 2_500, max_us: 10_000 }),
            ..grpc::Queue::default()
        };
        assert_eq!(
            serde_json::to_value(Queue::from(queue)).unwrap(),
            json!({
                "category": "orders", "size": 2, "capacity": 1000, "earliest": "2026-01-01T00:00:00.000000Z",
                "backlog": 0, "fired": 0, "latenessMs": { "p50": 0.4, "p90": 0.9, "p99": 2.5, "max": 10.0 },
            })
        );
    }

    #[test]
    fn a_posted_event_says_no_more_than_it_was_told() {
        let posted = PostedEvent {
            category: Category::parse("orders").unwrap(),
            fire_at: GivenTime::Unix(1_767_225_600.5),
            data: RawValue::from_string("[1, 2]".into()).unwrap(),
            created_at: None,
            id: None,
            priority: None,
            key: None,
        };
        let text = serde_json::to_string(&posted).unwrap();
        assert_eq!(text, r#"{"category":"orders","fireAt":1767225600.5,"data":[1, 2]}"#);
    }
}

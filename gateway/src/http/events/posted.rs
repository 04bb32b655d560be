//! The body of `POST /events`: one object, or an array of them, each read by itself. What is wrong with one, were it no JSON at all,
//! is that one's problem, as long as its quotes and brackets close.

use std::{borrow::Cow, ops::Range};

use actix_web::web::Bytes;
use notifyx_chassis::reply;
use notifyx_model::{Category, EventId, GivenTime, Invalid, Priority, Timestamp};
use notifyx_wire::{
    grpc::events::NewEvent,
    json::{self, Unfit},
    rest::{
        Problem,
        events::{DATA_BYTES_MAX, EVENTS_MAX},
    },
};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::Error;

/// An event that may be asked for, or why it may not.
pub(crate) type Read = Result<(Category, NewEvent), Problem>;

#[derive(Debug)]
pub(crate) struct Posted {
    pub(crate) events: Vec<Read>,
    /// An array, though it may hold one.
    pub(crate) many: bool,
}

/// `now`: when it came.
pub(crate) fn read(body: &Bytes, now: Timestamp) -> Result<Posted, Error> {
    let begin = body.iter().position(|byte| !byte.is_ascii_whitespace());
    match begin.map(|begin| body[begin]) {
        Some(b'{') => Ok(Posted { events: vec![event(body, now)], many: false }),
        Some(b'[') => {
            let items = items(body)?;
            Ok(Posted { events: items.into_iter().map(|item| event(&body.slice(item), now)).collect(), many: true })
        }
        Some(_) | None => Err(Error::NoEvents("the body must be an event, or an array of events")),
    }
}

/// Where in an array its items stand.
fn items(body: &[u8]) -> Result<Vec<Range<usize>>, Error> {
    const CUT: Error = Error::NoEvents("the body is cut off: its array, or something in it, does not end");
    let mut items = Vec::new();
    let (mut depth, mut begin, mut in_text) = (0_usize, 0, false);
    let mut bytes = body.iter().enumerate();
    while let Some((at, byte)) = bytes.next() {
        match byte {
            b'\\' if in_text => {
                bytes.next();
            }
            b'"' => in_text = !in_text,
            _ if in_text => {}
            b'[' | b'{' => {
                depth += 1;
                if depth == 1 {
                    begin = at + 1;
                }
            }
            b',' if depth == 1 => {
                items.push(begin..at);
                begin = at + 1;
            }
            b']' | b'}' => {
                depth -= 1;
                if depth == 0 && *byte == b'}' {
                    return Err(CUT);
                }
                if depth == 0 {
                    let is_empty = items.is_empty() && body[begin..at].trim_ascii().is_empty();
                    if is_empty {
                        return Err(Error::NoEvents("the array is empty: 1 to 10,000 events are taken at once"));
                    }
                    items.push(begin..at);
                    if items.len() > EVENTS_MAX {
                        return Err(Error::TooManyEvents);
                    }
                    return match body[at + 1..].trim_ascii() {
                        [] => Ok(items),
                        _ => Err(Error::NoEvents("something follows the array's end")),
                    };
                }
            }
            _ => {}
        }
        if items.len() > EVENTS_MAX {
            // Whatever follows.
            return Err(Error::TooManyEvents);
        }
    }
    Err(CUT)
}

/// What stands under each name, so that what is wrong with one can be said by its name.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Fields<'a> {
    #[serde(borrow)]
    category: Option<&'a RawValue>,
    #[serde(borrow)]
    fire_at: Option<&'a RawValue>,
    #[serde(borrow)]
    created_at: Option<&'a RawValue>,
    /// Here `null` is something, too.
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    priority: Option<&'a RawValue>,
    #[serde(borrow)]
    key: Option<&'a RawValue>,
}

fn present<'de, D: Deserializer<'de>>(from: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(from).map(Some)
}

fn event(text: &Bytes, now: Timestamp) -> Read {
    if text.trim_ascii().first() != Some(&b'{') {
        return Err(invalid("an event is a JSON object"));
    }
    let fields: Fields<'_> =
        serde_json::from_slice(text).map_err(|error| invalid(&format!("the event cannot be read: {error}")))?;
    let data = fields.data.ok_or_else(|| invalid("data is missing: any JSON, `null` where there is nothing to say"))?;
    if data.get().len() > DATA_BYTES_MAX {
        let why = format!("data has {} bytes, more than {DATA_BYTES_MAX}", data.get().len());
        return Err(reply::made(413, "data_too_large", why));
    }
    let data = text.slice_ref(data.get().as_bytes());
    parse(&fields, data, now).map_err(|why| invalid(&why.to_string()))
}

fn parse(fields: &Fields<'_>, data: Bytes, now: Timestamp) -> Result<(Category, NewEvent), Unfit> {
    let category = text("category", fields.category)?.ok_or_else(|| Invalid::new("category", "is missing"))?;
    let category = Category::parse(&category)?;
    let fire_at: GivenTime = value("fireAt", fields.fire_at)?.ok_or_else(|| {
        Invalid::new("fireAt", "is missing: when is the event to fire? A time that has passed fires at once")
    })?;
    let created_at: Option<GivenTime> = value("createdAt", fields.created_at)?;
    let id = text("id", fields.id)?.map(|id| EventId::parse(&id)).transpose()?;
    let priority: Option<Priority> = value("priority", fields.priority)?;
    let event = NewEvent {
        id: id.map(|id| id.to_string()).unwrap_or_default(),
        category: category.to_string(),
        key: text("key", fields.key)?.map(Cow::into_owned),
        priority: priority.map(|level| u8::from(level).into()),
        data,
        created_at_us: created_at.map(|at| at.timestamp("createdAt")).transpose()?.map(Timestamp::as_micros),
        fire_at_us: Some(fire_at.fire_at("fireAt", now)?.as_micros()),
    };
    Ok((category, event))
}

/// Borrowed where nothing in it is escaped.
fn text<'a>(name: &str, raw: Option<&'a RawValue>) -> Result<Option<Cow<'a, str>>, Unfit> {
    #[derive(Deserialize)]
    struct Text<'a>(#[serde(borrow)] Cow<'a, str>);
    Ok(value::<Text<'_>>(name, raw)?.map(|text| text.0))
}

fn value<'a, T: Deserialize<'a>>(name: &str, raw: Option<&'a RawValue>) -> Result<Option<T>, Unfit> {
    raw.map(|raw| json::field(name, raw)).transpose()
}

fn invalid(why: &str) -> Problem {
    reply::made(400, "event_invalid", why)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use notifyx_model::ManualClock;

    use super::*;

    const GOOD: &str = r#"{"category":"c","fireAt":1767225600,"data":{"a":[1,2]}}"#;

    fn now() -> Timestamp {
        ManualClock::new().clock().now()
    }

    fn read_text(text: &str) -> Result<Posted, Error> {
        read(&Bytes::copy_from_slice(text.as_bytes()), now())
    }

    /// The problem of an event alone.
    fn refused(text: &str) -> (u16, String) {
        let problem = read_text(text).unwrap().events.remove(0).unwrap_err();
        (problem.status, problem.detail)
    }

    /// `GOOD` with another value of one field.
    fn with(field: &str, value: &str) -> String {
        format!(
            "{{{}}}",
            [("category", "\"c\""), ("fireAt", "1767225600"), ("data", "0"), (field, value)]
                .iter()
                .enumerate()
                .filter(|(place, (name, _))| *place == 3 || *name != field)
                .map(|(_, (name, value))| format!("\"{name}\":{value}"))
                .collect::<Vec<_>>()
                .join(",")
        )
    }

    #[test]
    fn one_or_many_are_read_with_their_data_as_it_came() {
        let one = read_text(&format!(" \n{GOOD} ")).unwrap();
        let (category, event) = one.events[0].as_ref().unwrap();
        assert!(!one.many && category.as_str() == "c" && event.id.is_empty() && event.priority.is_none());
        assert_eq!((&event.data[..], event.fire_at_us), (&b"{\"a\":[1,2]}"[..], Some(1_767_225_600_000_000)));
        let many = read_text(&format!("[{GOOD}, {GOOD}]")).unwrap();
        assert!(many.many && many.events.len() == 2 && many.events.iter().all(Result::is_ok));
        let full = read_text(
            r#"{"category":"c","fireAt":"2026-01-01T00:00:01Z","data":null,"createdAt":1767225600123,"id":"a:1",
                "priority":0,"key":"k\u00e9"}"#,
        );
        let event = full.unwrap().events.remove(0).unwrap().1;
        assert_eq!((&event.data[..], event.priority, event.key.as_deref()), (&b"null"[..], Some(0), Some("ké")));
        assert_eq!((event.id.as_str(), event.created_at_us), ("a:1", Some(1_767_225_600_123_000)));
        assert!(read_text(&with("id", "null")).unwrap().events[0].is_ok(), "null is as absent");
    }

    #[test]
    fn a_bad_one_costs_only_itself() {
        let bad = [
            r#"{"category":"c","fireAt":NaN,"data":0}"#,
            r#"{"category":"c","fireAt":1767225600,"data":"},{"} x"#,
            r#"{"category":"c" "fireAt":[}]"#,
            "7",
            "",
            "[]",
            "nul",
            "{\"category\":\"\u{1}\"}",
            "\"a\\\"]\"",
        ];
        let body = format!("[{GOOD},{},{GOOD}]", bad.join(","));
        let posted = read_text(&body).unwrap();
        let good: Vec<bool> = posted.events.iter().map(Result::is_ok).collect();
        assert_eq!(good, [&[true][..], &[false; 9], &[true]].concat());
        let mut broken = format!("[{GOOD},").into_bytes();
        broken.extend_from_slice(b"{\"category\":\"\xff\"}]");
        let events = read(&broken.into(), now()).unwrap().events;
        assert_eq!(events.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false]);
    }

    #[test]
    fn what_is_wrong_is_said_by_its_field() {
        for (field, value, said) in [
            ("category", "7", "category: invalid type: integer `7`, expected a text"),
            ("category", "null", "category is missing"),
            ("category", "\"a/b\"", "category holds a /"),
            ("fireAt", "null", "fireAt is missing: when is the event to fire?"),
            (
                "fireAt",
                "true",
                "fireAt: invalid type: boolean `true`, expected a time: a Unix time as a number, or RFC 3339",
            ),
            ("fireAt", "[1]", "fireAt: invalid type: array, expected a time"),
            ("fireAt", "1e999", "fireAt: number out of range"),
            ("fireAt", "-5", "fireAt is negative (-5)"),
            ("fireAt", "\"soon\"", "fireAt is neither a Unix time"),
            ("fireAt", "\"9999-01-01T00:00:00Z\"", "fireAt is 9999-01-01T00:00:00Z, more than ten years ahead"),
            ("createdAt", "{}", "createdAt: invalid type: object, expected a time"),
            ("createdAt", "1", "createdAt is 1970-01-01T00:00:01Z (read as seconds), before 2000"),
            ("id", "\"a b\"", "event id holds a character other than"),
            ("id", "7", "id: invalid type: integer `7`, expected a text"),
            ("priority", "10", "priority 10 is not 0 to 9"),
            ("priority", "4.5", "priority: invalid type: floating point `4.5`, expected a whole number from 0 to 9"),
            ("priority", "\"high\"", "priority: invalid type: string \"high\", expected a whole number from 0 to 9"),
            ("key", "[]", "key: invalid type: array, expected a text"),
            ("fireat", "1", "the event cannot be read: unknown field `fireat`"),
            ("data", "NaN", "the event cannot be read: expected"),
            ("data", "0,\"data\":1", "the event cannot be read: duplicate field `data`"),
        ] {
            let (status, detail) = refused(&with(field, value));
            assert!(status == 400 && detail.starts_with(said), "{field} {value}: {status} {detail}");
        }
        let (_, detail) = refused(r#"{"category":"c","fireAt":1767225600}"#);
        assert!(detail.starts_with("data is missing"), "{detail}");
        let long = "x".repeat(300);
        assert_eq!(refused(&with("category", &format!("\"{long}\""))).1, "category has 300 bytes, more than 200");
        let (status, detail) = refused(&with("data", &format!("\"{}\"", "x".repeat(DATA_BYTES_MAX))));
        assert_eq!((status, detail.as_str()), (413, "data has 262146 bytes, more than 262144"));
    }

    #[test]
    fn a_body_that_holds_no_events_is_refused_whole() {
        for bad in ["", "  ", "7", "\"a\"", "null", "[]", "[ ]", "[{}", "[{\"a\":\"]", "[{}] x", "[[[[[", "[1}"] {
            assert!(matches!(read_text(bad), Err(Error::NoEvents(_))), "{bad}");
        }
        let full = format!("[{}]", vec!["0"; EVENTS_MAX].join(","));
        assert_eq!(read_text(&full).unwrap().events.len(), EVENTS_MAX);
        for bad in [format!("[{}]", vec!["0"; EVENTS_MAX + 1].join(",")), format!("[{}", ",".repeat(1_000_000))] {
            assert!(matches!(read_text(&bad), Err(Error::TooManyEvents)));
        }
        // Nothing is as deep as this, and nobody falls over it.
        let deep = format!("[{},{}]", with("data", &format!("{}{}", "[".repeat(100_000), "]".repeat(100_000))), "0");
        assert_eq!(read_text(&deep).unwrap().events.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false]);
        assert!(read_text(&"[".repeat(1_000_000)).is_err());
    }

    #[test]
    fn a_time_that_has_passed_is_welcome() {
        let past = (now() - Duration::from_secs(86_400)).to_string();
        assert!(read_text(&with("fireAt", &format!("\"{past}\""))).unwrap().events[0].is_ok());
    }
}

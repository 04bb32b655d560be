//! An event as JSON text, the same on every door. It is one line, whatever line breaks stand between the values of its `data`.
//!
//! Left open, without its closing brace, it is what all listeners share; each adds what is its own.

use std::io::Write;

use notifyx_model::Timestamp;

use crate::grpc::events as grpc;

/// What stands around an event's data, its names being of usual length.
const AROUND_BYTES: usize = 320;

/// The whole object.
pub fn closed(event: &grpc::Event) -> Vec<u8> {
    let mut text = open(event);
    text.push(b'}');
    text
}

/// The object without its closing brace: `{"id":…,"firedAt":"…"`.
pub fn open(event: &grpc::Event) -> Vec<u8> {
    let mut text = Vec::with_capacity(AROUND_BYTES + event.data.len());
    write_open(event, &mut text);
    text
}

/// As [`open`], behind what `text` holds already.
pub fn write_open(event: &grpc::Event, text: &mut Vec<u8>) {
    write_head(event, text);
    text.extend_from_slice(b",\"data\":");
    write_line(&event.data, text);
    write_tail(event, text);
}

/// As [`write_open`], but without the `data`.
pub fn write_open_without_data(event: &grpc::Event, text: &mut Vec<u8>) {
    write_head(event, text);
    write_tail(event, text);
}

fn write_head(event: &grpc::Event, text: &mut Vec<u8>) {
    text.extend_from_slice(b"{\"id\":");
    write_text(&event.id, text);
    text.extend_from_slice(b",\"category\":");
    write_text(&event.category, text);
    if let Some(key) = &event.key {
        text.extend_from_slice(b",\"key\":");
        write_text(key, text);
    }
    put(text, format_args!(",\"priority\":{}", event.priority));
    put(text, format_args!(",\"createdAt\":\"{:.6}\"", Timestamp::from_micros(event.created_at_us)));
    put(text, format_args!(",\"fireAt\":\"{:.6}\"", Timestamp::from_micros(event.fire_at_us)));
}

fn write_tail(event: &grpc::Event, text: &mut Vec<u8>) {
    if let Some(offset) = event.offset {
        put(text, format_args!(",\"offset\":{offset}"));
    }
    if let Some(micros) = event.fired_at_us {
        put(text, format_args!(",\"firedAt\":\"{:.6}\"", Timestamp::from_micros(micros)));
    }
    if let Some(id) = &event.schedule_id {
        text.extend_from_slice(b",\"scheduleId\":");
        write_text(id, text);
    }
}

fn write_text(value: &str, text: &mut Vec<u8>) {
    serde_json::to_writer(text, value).expect("a text is JSON, and memory takes it");
}

fn put(text: &mut Vec<u8>, what: std::fmt::Arguments<'_>) {
    text.write_fmt(what).expect("memory takes it");
}

/// Within a JSON text a line break stands between values only, where a space says the same.
fn write_line(data: &[u8], text: &mut Vec<u8>) {
    let begin = text.len();
    text.extend_from_slice(data);
    for byte in &mut text[begin..] {
        if matches!(byte, b'\n' | b'\r') {
            *byte = b' ';
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::rest::events::Event;

    use super::*;

    fn fired() -> grpc::Event {
        grpc::Event {
            id: "order:7".into(),
            category: "say \"hi\"".into(),
            key: Some("a\\b\u{1}".into()),
            priority: 9,
            data: "{\r\n\t\"text\": \"a\\nb\", \"n\": 12345678901234567890123\n}".into(),
            created_at_us: 1_767_225_600_000_000,
            fire_at_us: 1_767_225_600_100_000,
            offset: Some(3),
            fired_at_us: Some(1_767_225_600_100_456),
            schedule_id: Some("nightly".into()),
        }
    }

    #[test]
    fn it_is_one_line_with_every_digit_it_came_with() {
        assert_eq!(
            String::from_utf8(closed(&fired())).unwrap(),
            "{\"id\":\"order:7\",\"category\":\"say \\\"hi\\\"\",\"key\":\"a\\\\b\\u0001\",\"priority\":9,\
             \"createdAt\":\"2026-01-01T00:00:00.000000Z\",\"fireAt\":\"2026-01-01T00:00:00.100000Z\",\
             \"data\":{  \t\"text\": \"a\\nb\", \"n\": 12345678901234567890123 },\
             \"offset\":3,\"firedAt\":\"2026-01-01T00:00:00.100456Z\",\"scheduleId\":\"nightly\"}"
        );
    }

    #[test]
    fn what_is_not_known_is_left_out() {
        let waiting = grpc::Event {
            key: None,
            offset: None,
            fired_at_us: None,
            schedule_id: None,
            data: "null".into(),
            ..fired()
        };
        let text = String::from_utf8(open(&waiting)).unwrap();
        assert!(text.ends_with("\"fireAt\":\"2026-01-01T00:00:00.100000Z\",\"data\":null"), "{text}");
        let mut text = Vec::new();
        write_open_without_data(&fired(), &mut text);
        let text = String::from_utf8(text).unwrap();
        assert!(!text.contains("\"data\"") && text.contains("\"offset\":3"), "{text}");
    }

    #[test]
    fn a_listener_adds_what_is_its_own() {
        let mut text = open(&fired());
        text.extend_from_slice(b",\"count\":17}");
        let read: serde_json::Value = serde_json::from_slice(&text).unwrap();
        assert_eq!((&read["count"], &read["id"]), (&17.into(), &"order:7".into()));
    }

    #[test]
    fn what_is_written_is_what_is_read() {
        let text = closed(&fired());
        let event: Event = serde_json::from_slice(&text).unwrap();
        assert_eq!(serde_json::to_string(&event).unwrap().as_bytes(), text, "one shape, however it is written");
        assert_eq!(event.offset, Some(3));
    }
}

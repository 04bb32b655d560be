//! Categories: events that fired, of which the events service has the log and its watch streams give hints.
//!
//! An event is written once, as the Phoenix frame of `events:<category>`; the plain streams take the JSON object out of it. Its data is
//! spliced in as it came, never parsed.

use std::sync::Arc;

use notifyx_model::{Category, UserId};
use notifyx_wire::{
    grpc::events::Event,
    phoenix::channel::{EVENT, EVENTS_PREFIX},
    rest::{Problem, events::text},
    websocket,
};

use super::source::{Item, Page, Source};
use crate::{
    hub::{Dispatch, EventFrame, FeedMetrics, Following, Metrics, StreamName, Wishes},
    platform::Platform,
};

#[derive(Debug)]
pub(crate) struct Categories;

impl Source for Categories {
    type Name = Category;
    type Id = ();
    type Item = Event;

    const KIND: &'static str = "categories";
    /// As the events service allows; it bounds a page's bytes by itself.
    const READ_MAX: u32 = 1_000;
    const HEADS_MAX: usize = 10_000;

    fn stream(name: &Category) -> StreamName {
        StreamName::Category(name.clone())
    }

    fn wishes(following: &Following) -> &Wishes<Category, ()> {
        &following.categories
    }

    fn metrics(metrics: &Metrics) -> &FeedMetrics {
        &metrics.categories
    }

    async fn read(
        platform: Arc<dyn Platform>,
        name: Category,
        (): (),
        after: u64,
        limit: u32,
    ) -> Result<Page<Event>, Problem> {
        let log = platform.events(&name, after, limit).await?;
        Ok(Page { items: log.events, head: log.offset, trimmed: log.trimmed })
    }

    async fn heads(platform: Arc<dyn Platform>, names: Vec<Category>) -> Result<Vec<(Category, u64)>, Problem> {
        let heads = platform.category_heads(names).await?;
        Ok(heads.into_iter().map(|head| (head.category, head.offset)).collect())
    }

    fn encode(name: &Category, event: Arc<Event>) -> Dispatch {
        Dispatch::Event(frame(name, &event))
    }

    fn is_for(_: &Event, _: Option<UserId>) -> bool {
        true
    }
}

impl Item for Event {
    /// 0, before everything, where it has not fired.
    fn offset(&self) -> u64 {
        self.offset.unwrap_or_default()
    }

    fn bytes(&self) -> usize {
        self.data.len() + self.id.len() + self.key.as_ref().map_or(0, String::len) + size_of::<Self>()
    }
}

/// `[null,null,"events:<category>","event",{…}]`
fn frame(category: &Category, event: &Event) -> EventFrame {
    // Names are bounded: with this room the text is written without moving it.
    let mut frame = Vec::with_capacity(event.data.len() + 1_024);
    frame.extend_from_slice(b"[null,null,");
    let topic = format!("{EVENTS_PREFIX}{category}");
    serde_json::to_writer(&mut frame, &topic).expect("a text is JSON, and memory takes it");
    frame.extend_from_slice(format!(",\"{EVENT}\",").as_bytes());
    let object = frame.len();
    text::write_open(event, &mut frame);
    frame.extend_from_slice(END);
    // Data that is no UTF-8 is no JSON either: who put it there spoils his own event, not the sockets of others.
    let text = String::from_utf8_lossy(&frame);
    let frame = websocket::text(&text);
    let header = frame.len() - text.len();
    EventFrame { offset: event.offset(), object: header + object..frame.len() - END.len(), frame }
}

/// Of the object and of the frame.
const END: &[u8] = b"}]";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{category, event};

    fn text_of(frame: &EventFrame) -> (String, String) {
        let texts = crate::testing::texts(&frame.frame);
        (texts[0].clone(), String::from_utf8(frame.frame[frame.object.clone()].to_vec()).unwrap())
    }

    #[test]
    fn a_frame_carries_the_event_as_all_doors_show_it() {
        let name = "bills: \"x\"";
        let event = Event { data: "{\"n\":1.50,\n\"s\":\"}\"}".into(), ..event(name, 7) };
        let (text, object) = text_of(&frame(&category(name), &event));
        let expected = concat!(
            r#"{"id":"e7","category":"bills: \"x\"","priority":4,"createdAt":"2026-01-01T00:00:00.000000Z","#,
            r#""fireAt":"2026-01-01T00:00:00.500000Z","data":{"n":1.50, "s":"}"},"offset":7,"#,
            r#""firedAt":"2026-01-01T00:00:00.501234Z""#
        );
        assert_eq!(object, expected);
        assert_eq!(text, format!(r#"[null,null,"events:bills: \"x\"","event",{expected}}}]"#));
    }

    #[test]
    fn large_and_broken_data_keep_the_object_in_its_place() {
        for data in ["0".repeat(200).into_bytes(), vec![b'1'; 70_000], b"\"\xff\xfe\"".to_vec()] {
            let event = Event { data: data.into(), ..event("a", 1) };
            let (text, object) = text_of(&frame(&category("a"), &event));
            assert_eq!(text, format!(r#"[null,null,"events:a","event",{object}}}]"#));
        }
    }
}

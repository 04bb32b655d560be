//! Text frames: a JSON array of five.

use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, SeqAccess, Visitor},
};
use serde_json::{json, value::RawValue};

use super::{CLOSE, ERROR, FIELD_BYTES_MAX, Frame, FrameError, Payload, REPLY, Status};

impl<'a> Frame<'a> {
    pub fn parse_text(text: &'a str) -> Result<Self, FrameError> {
        let frame = Self::read_text(text)?;
        frame.check()?;
        Ok(frame)
    }

    /// Reads a frame whose fields may be too long: who refuses it can still say to whom. [`Frame::check`] tells.
    pub fn read_text(text: &'a str) -> Result<Self, FrameError> {
        serde_json::from_str(text).map(|Array(frame)| frame).map_err(FrameError::Text)
    }

    /// Holds the fields to [`FIELD_BYTES_MAX`].
    pub fn check(&self) -> Result<(), FrameError> {
        let fields = [
            ("join_ref", self.join_ref.as_deref().unwrap_or_default()),
            ("ref", self.reference.as_deref().unwrap_or_default()),
            ("topic", &self.topic),
            ("event", &self.event),
        ];
        match fields.iter().find(|(_, value)| value.len() > FIELD_BYTES_MAX) {
            Some((field, value)) => Err(FrameError::TooLong { field, bytes: value.len() }),
            None => Ok(()),
        }
    }
}

/// `[join_ref, ref, topic, event, payload]`, as either side sends it.
pub fn encode(
    join_ref: Option<&str>,
    reference: Option<&str>,
    topic: &str,
    event: &str,
    payload: &impl Serialize,
) -> String {
    serde_json::to_string(&(join_ref, reference, topic, event, payload)).expect("payloads are plain data")
}

/// The answer to one message.
pub fn reply(
    join_ref: Option<&str>,
    reference: Option<&str>,
    topic: &str,
    status: Status,
    response: &impl Serialize,
) -> String {
    #[derive(Serialize)]
    struct Reply<'a, R> {
        status: &'static str,
        response: &'a R,
    }
    encode(join_ref, reference, topic, REPLY, &Reply { status: status.as_str(), response })
}

/// To one member of a channel, on the server's own account.
pub fn push(join_ref: Option<&str>, topic: &str, event: &str, payload: &impl Serialize) -> String {
    encode(join_ref, None, topic, event, payload)
}

/// To every member of a channel, byte for byte the same.
pub fn broadcast(topic: &str, event: &str, payload: &impl Serialize) -> String {
    encode(None, None, topic, event, payload)
}

/// The channel ended in good order.
pub fn close(join_ref: Option<&str>, topic: &str) -> String {
    encode(join_ref, join_ref, topic, CLOSE, &json!({}))
}

/// The channel broke: the client rejoins it.
pub fn error(join_ref: Option<&str>, topic: &str) -> String {
    encode(join_ref, join_ref, topic, ERROR, &json!({}))
}

struct Array<'a>(Frame<'a>);

impl<'de: 'a, 'a> Deserialize<'de> for Array<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Five;

        impl<'de> Visitor<'de> for Five {
            type Value = Frame<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an array of five")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut array: A) -> Result<Frame<'de>, A::Error> {
                fn next<'de, T: Deserialize<'de>, A: SeqAccess<'de>>(
                    array: &mut A,
                    place: usize,
                ) -> Result<T, A::Error> {
                    array.next_element()?.ok_or_else(|| de::Error::invalid_length(place, &Five))
                }
                let join_ref: Option<Word<'de>> = next(&mut array, 0)?;
                let reference: Option<Word<'de>> = next(&mut array, 1)?;
                let topic: Word<'de> = next(&mut array, 2)?;
                let event: Word<'de> = next(&mut array, 3)?;
                let payload: &'de RawValue = next(&mut array, 4)?;
                Ok(Frame {
                    join_ref: join_ref.map(|w| w.0),
                    reference: reference.map(|w| w.0),
                    topic: topic.0,
                    event: event.0,
                    payload: Payload::Json(payload),
                })
            }
        }

        deserializer.deserialize_seq(Five).map(Array)
    }
}

/// A string, borrowed unless it holds escapes. (`Option<Cow>` of serde always copies.)
struct Word<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Word<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl<'de> Visitor<'de> for Text {
            type Value = Cow<'de, str>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Cow<'de, str>, E> {
                Ok(Cow::Borrowed(text))
            }

            fn visit_str<E>(self, text: &str) -> Result<Cow<'de, str>, E> {
                Ok(Cow::Owned(text.to_owned()))
            }
        }

        deserializer.deserialize_str(Text).map(Word)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_push_reads_without_copies() {
        let frame = Frame::parse_text(r#"["3","7","notification:a","new_notification", {"message": 1} ]"#).unwrap();
        assert!(matches!(frame.join_ref, Some(Cow::Borrowed("3"))));
        assert!(matches!(frame.reference, Some(Cow::Borrowed("7"))));
        assert_eq!((&*frame.topic, &*frame.event), ("notification:a", "new_notification"));
        let Payload::Json(payload) = frame.payload else { panic!("text carries JSON") };
        assert_eq!(payload.get(), r#"{"message": 1}"#);
    }

    #[test]
    fn refs_may_be_null_and_escaped() {
        let frame = Frame::parse_text(r#"[null,"\u0035","phoenix","heartbeat",{}]"#).unwrap();
        assert_eq!((frame.join_ref, frame.reference.as_deref()), (None, Some("5")));
    }

    #[test]
    fn what_is_not_a_frame_says_where() {
        for (bad, why) in [
            ("", "EOF"),
            ("{}", "expected an array of five"),
            ("[]", "invalid length 0"),
            (r#"[null,null,"t","e"]"#, "invalid length 4"),
            (r#"[null,null,"t","e",{},1]"#, "trailing"),
            (r#"[1,null,"t","e",{}]"#, "expected a string at line 1 column 2"),
            (r#"[null,null,null,"e",{}]"#, "expected a string"),
            (r#"[null,null,"t","e",{]"#, "column 21"),
            (r#"[null,null,"t","e",{}] x"#, "trailing"),
        ] {
            let error = Frame::parse_text(bad).unwrap_err().to_string();
            assert!(error.contains(why), "{bad}: {error}");
        }
    }

    #[test]
    fn fields_are_bounded() {
        let topic = "t".repeat(256);
        let error = Frame::parse_text(&format!(r#"[null,null,"{topic}","e",{{}}]"#)).unwrap_err();
        assert_eq!(error.to_string(), "topic of the frame has 256 bytes, more than 255");
    }

    #[test]
    fn a_frame_with_a_field_too_long_still_says_whose_it_is() {
        let topic = "t".repeat(256);
        let text = format!(r#"["1","2","{topic}","e",{{}}]"#);
        let frame = Frame::read_text(&text).unwrap();
        assert_eq!((frame.join_ref.as_deref(), frame.reference.as_deref()), (Some("1"), Some("2")));
        assert_eq!(frame.topic, topic);
        assert!(matches!(frame.check(), Err(FrameError::TooLong { field: "topic", bytes: 256 })));
    }

    #[test]
    fn deep_payloads_are_carried_not_walked() {
        let deep = format!("[null,null,\"t\",\"e\",{}{}]", "[".repeat(20_000), "]".repeat(20_000));
        // Either answer is fine; the stack is what must hold.
        let _ = Frame::parse_text(&deep);
    }

    #[test]
    fn server_frames_have_the_clients_shapes() {
        let empty = json!({});
        assert_eq!(
            reply(None, Some("5"), "phoenix", Status::Ok, &empty),
            r#"[null,"5","phoenix","phx_reply",{"status":"ok","response":{}}]"#
        );
        assert_eq!(
            reply(Some("3"), Some("3"), "t:1", Status::Error, &json!({"reason": "unmatched topic"})),
            r#"["3","3","t:1","phx_reply",{"status":"error","response":{"reason":"unmatched topic"}}]"#
        );
        assert_eq!(push(Some("3"), "t:1", "e", &empty), r#"["3",null,"t:1","e",{}]"#);
        assert_eq!(broadcast("t:1", "e", &empty), r#"[null,null,"t:1","e",{}]"#);
        assert_eq!(close(Some("3"), "t:1"), r#"["3","3","t:1","phx_close",{}]"#);
        assert_eq!(error(Some("3"), "t:1"), r#"["3","3","t:1","phx_error",{}]"#);
    }
}

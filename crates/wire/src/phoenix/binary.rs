//! Binary frames: a kind, one-byte lengths, the fields, and a payload that runs to the end.

use std::borrow::Cow;

use super::{FIELD_BYTES_MAX, Frame, FrameError, Payload, Status};

const PUSH: u8 = 0;
const REPLY: u8 = 1;
const BROADCAST: u8 = 2;

impl<'a> Frame<'a> {
    /// Reads a client's push. An empty ref stands for null.
    pub fn parse_binary(bytes: &'a [u8]) -> Result<Self, FrameError> {
        let (&kind, rest) = bytes.split_first().ok_or(FrameError::Short("kind"))?;
        if kind != PUSH {
            return Err(FrameError::Kind(kind));
        }
        let (lengths, mut rest) = rest.split_first_chunk::<4>().ok_or(FrameError::Short("lengths"))?;
        let [join_ref, reference, topic, event] = *lengths;
        let mut take = |name: &'static str, length: u8| {
            let (field, after) = rest.split_at_checked(length.into()).ok_or(FrameError::Short(name))?;
            rest = after;
            std::str::from_utf8(field).map(Cow::Borrowed).map_err(|_| FrameError::NotUtf8(name))
        };
        let (join_ref, reference) = (take("join_ref", join_ref)?, take("ref", reference)?);
        let (topic, event) = (take("topic", topic)?, take("event", event)?);
        let set = |field: Cow<'a, str>| (!field.is_empty()).then_some(field);
        Ok(Self { join_ref: set(join_ref), reference: set(reference), topic, event, payload: Payload::Bytes(rest) })
    }
}

/// A push to one member of a channel; the protocol gives it no ref.
pub fn encode_push(join_ref: Option<&str>, topic: &str, event: &str, payload: &[u8]) -> Result<Vec<u8>, FrameError> {
    assemble(PUSH, &[("join_ref", join_ref.unwrap_or_default()), ("topic", topic), ("event", event)], payload)
}

/// Reaches the application as `phx_reply {status, response: ArrayBuffer}`.
pub fn encode_reply(
    join_ref: Option<&str>,
    reference: Option<&str>,
    topic: &str,
    status: Status,
    payload: &[u8],
) -> Result<Vec<u8>, FrameError> {
    let fields = [
        ("join_ref", join_ref.unwrap_or_default()),
        ("ref", reference.unwrap_or_default()),
        ("topic", topic),
        ("status", status.as_str()),
    ];
    assemble(REPLY, &fields, payload)
}

pub fn encode_broadcast(topic: &str, event: &str, payload: &[u8]) -> Result<Vec<u8>, FrameError> {
    assemble(BROADCAST, &[("topic", topic), ("event", event)], payload)
}

fn assemble(kind: u8, fields: &[(&'static str, &str)], payload: &[u8]) -> Result<Vec<u8>, FrameError> {
    let mut frame = Vec::with_capacity(1 + fields.len() * 64 + payload.len());
    frame.push(kind);
    for &(field, value) in fields {
        let bytes = value.len();
        frame.push(u8::try_from(bytes).map_err(|_| FrameError::TooLong { field, bytes })?);
    }
    debug_assert!(fields.iter().all(|(_, value)| value.len() <= FIELD_BYTES_MAX));
    for (_, value) in fields {
        frame.extend_from_slice(value.as_bytes());
    }
    frame.extend_from_slice(payload);
    Ok(frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_push_reads() {
        let frame = Frame::parse_binary(b"\x00\x01\x02\x03\x05110t:1event\x00\xff").unwrap();
        assert_eq!((frame.join_ref.as_deref(), frame.reference.as_deref()), (Some("1"), Some("10")));
        assert_eq!((&*frame.topic, &*frame.event), ("t:1", "event"));
        assert!(matches!(frame.payload, Payload::Bytes(b"\x00\xff")));
    }

    #[test]
    fn empty_refs_are_null_and_the_payload_may_be_empty() {
        let frame = Frame::parse_binary(b"\x00\x00\x00\x01\x01te").unwrap();
        assert_eq!((frame.join_ref, frame.reference), (None, None));
        assert!(matches!(frame.payload, Payload::Bytes(b"")));
    }

    #[test]
    fn wrong_lengths_are_refused_by_name() {
        for (bad, why) in [
            (&b""[..], "ends within its kind"),
            (b"\x00\x01", "ends within its lengths"),
            (b"\x00\x09\x00\x00\x00abc", "ends within its join_ref"),
            (b"\x00\x01\x01\xff\x01abtopic", "ends within its topic"),
            (b"\x00\x00\x00\x01\x05tev", "ends within its event"),
            (b"\x01\x00\x00\x00\x00", "kind 1"),
            (b"\x00\x00\x00\x01\x01\xffe", "topic of the binary frame is not UTF-8"),
        ] {
            let error = Frame::parse_binary(bad).unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn server_frames_have_the_clients_shapes() {
        assert_eq!(encode_push(Some("1"), "t", "e", b"\x07").unwrap(), b"\x00\x01\x01\x011te\x07");
        assert_eq!(
            encode_reply(Some("1"), Some("22"), "t", Status::Ok, b"\x07").unwrap(),
            b"\x01\x01\x02\x01\x02122tok\x07"
        );
        assert_eq!(encode_broadcast("t", "e", b"\x07").unwrap(), b"\x02\x01\x01te\x07");
        assert!(encode_broadcast(&"t".repeat(256), "e", b"").is_err());
    }
}

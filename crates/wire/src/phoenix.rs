//! Phoenix channel frames, version 2 of the serializer, both directions.
//!
//! A frame is `[join_ref, ref, topic, event, payload]` as text, or the same with one-byte lengths as binary. Payloads stay
//! what they were, raw JSON or bytes: who needs the inside parses it. The official JavaScript client is the judge of every
//! shape here. Version 1 (objects) is not spoken.

pub mod binary;
pub mod channel;
pub mod text;

use std::borrow::Cow;

use serde_json::value::RawValue;

/// The topic of heartbeats; nobody joins it.
pub const CONTROL_TOPIC: &str = "phoenix";
pub const HEARTBEAT: &str = "heartbeat";
pub const JOIN: &str = "phx_join";
pub const LEAVE: &str = "phx_leave";
pub const REPLY: &str = "phx_reply";
/// The channel ended in good order; the client does not rejoin.
pub const CLOSE: &str = "phx_close";
/// The channel broke; the client rejoins.
pub const ERROR: &str = "phx_error";

/// Bytes of a ref, topic or event. Binary frames cannot say more; text frames are held to the same.
pub const FIELD_BYTES_MAX: usize = 255;

/// One frame, borrowed from what arrived.
#[derive(Clone, Debug)]
pub struct Frame<'a> {
    /// Names the join this frame belongs to; echoed as it came.
    pub join_ref: Option<Cow<'a, str>>,
    /// Names the message that a reply answers; echoed as it came.
    pub reference: Option<Cow<'a, str>>,
    pub topic: Cow<'a, str>,
    pub event: Cow<'a, str>,
    pub payload: Payload<'a>,
}

#[derive(Clone, Copy, Debug)]
pub enum Payload<'a> {
    Json(&'a RawValue),
    Bytes(&'a [u8]),
}

/// How a reply went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Ok,
    Error,
}

impl Status {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Error => "error",
        }
    }
}

/// Why something is not a frame.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("text frame is not [join_ref, ref, topic, event, payload]: {0}")]
    Text(#[source] serde_json::Error),
    #[error("{field} of the frame has {bytes} bytes, more than {FIELD_BYTES_MAX}")]
    TooLong { field: &'static str, bytes: usize },
    #[error("binary frame has kind {0}, expected 0 (push)")]
    Kind(u8),
    #[error("binary frame ends within its {0}")]
    Short(&'static str),
    #[error("{0} of the binary frame is not UTF-8")]
    NotUtf8(&'static str),
}

/// The serializer versions a client may ask for (`vsn=`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    V2,
}

impl Version {
    /// `None` for a version that is not spoken: absent (the protocol's word for 1.0.0), `1.x`, or unknown.
    pub fn parse(vsn: Option<&str>) -> Option<Self> {
        let mut parts = vsn?.split('.');
        let numbers = [parts.next()?, parts.next().unwrap_or("0"), parts.next().unwrap_or("0")];
        let valid = numbers.iter().all(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
        (valid && parts.next().is_none() && numbers[0] == "2").then_some(Self::V2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_version_two_is_spoken() {
        for vsn in ["2.0.0", "2.1.7", "2.0"] {
            assert_eq!(Version::parse(Some(vsn)), Some(Version::V2), "{vsn}");
        }
        for vsn in
            [None, Some("1.0.0"), Some("3.0.0"), Some("20.0.0"), Some("2.x"), Some(""), Some("2.0.0.0"), Some("2.")]
        {
            assert_eq!(Version::parse(vsn), None, "{vsn:?}");
        }
    }
}

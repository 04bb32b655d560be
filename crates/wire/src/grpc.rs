//! gRPC between services: what `build.rs` generates from `proto/`, and how a refusal travels.

/// Every file of `proto/` and what it imports, as reflection answers them: an encoded `FileDescriptorSet`.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// The events service: `proto/events.proto`.
pub mod events {
    #![allow(
        clippy::allow_attributes_without_reason,
        clippy::pedantic,
        missing_debug_implementations,
        unreachable_pub,
        unused_qualifications,
        reason = "generated: which of these it trips is the generator's matter"
    )]
    include!(concat!(env!("OUT_DIR"), "/notifyx.events.v1.rs"));
}

pub use refusal::{refusal, status};

mod refusal;

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::events;

    #[test]
    fn what_is_not_said_is_not_on_the_wire() {
        let event = events::NewEvent { id: "a".into(), category: "b".into(), ..events::NewEvent::default() };
        assert_eq!(event.encode_to_vec(), [0x0a, 1, b'a', 0x12, 1, b'b']);
        let event = events::NewEvent { priority: Some(0), ..events::NewEvent::default() };
        assert_eq!(event.encode_to_vec(), [0x20, 0], "zero is said");
    }

    #[test]
    fn data_is_shared_and_not_copied() {
        let sent = events::Event { data: "{}".into(), ..events::Event::default() };
        let bytes = bytes::Bytes::from(sent.encode_to_vec());
        let received = events::Event::decode(bytes.clone()).unwrap();
        assert!(bytes.as_ptr_range().contains(&received.data.as_ptr()));
    }
}

//! What a client asks of a channel, parsed at the door.

use notifyx_model::NotificationId;
use notifyx_wire::{
    json::{self, Unfit},
    phoenix::{
        JOIN, LEAVE, Payload,
        channel::{
            GENERATE_AVATAR, JoinParams, NEW_NOTIFICATION, NewNotification, OWN_NOTIFICATIONS, SEEN, SEND_EMAIL, Seen,
            UNSUBSCRIBE,
        },
    },
};
use serde::{Deserialize, de::IgnoredAny};

use super::{channel::Kind, fault::Fault};

#[derive(Debug)]
pub(super) enum Request {
    Join(JoinParams),
    Leave,
    Publish(NewNotification),
    OwnNotifications,
    Seen(NotificationId),
    Unsubscribe,
}

impl Request {
    pub(super) fn parse(kind: &Kind, topic: &str, event: &str, payload: Payload<'_>) -> Result<Self, Fault> {
        match (event, kind) {
            (JOIN, Kind::Notification { .. } | Kind::Events(_)) => read(JOIN, payload).map(Self::Join),
            // A user's channel takes no params.
            (JOIN, Kind::User(_)) => Ok(Self::Join(JoinParams::default())),
            (LEAVE, _) => Ok(Self::Leave),
            (SEEN, Kind::Notification { .. } | Kind::User(_)) => {
                read::<Seen>(SEEN, payload).map(|seen| Self::Seen(seen.id))
            }
            (NEW_NOTIFICATION, Kind::Notification { .. }) => read(NEW_NOTIFICATION, payload).map(Self::Publish),
            (OWN_NOTIFICATIONS, Kind::Notification { .. }) => {
                read::<IgnoredAny>(OWN_NOTIFICATIONS, payload).map(|_| Self::OwnNotifications)
            }
            (UNSUBSCRIBE, Kind::Notification { .. }) => {
                read::<IgnoredAny>(UNSUBSCRIBE, payload).map(|_| Self::Unsubscribe)
            }
            (SEND_EMAIL, Kind::Notification { .. }) => Err(Fault::NotAvailable(SEND_EMAIL)),
            (GENERATE_AVATAR, Kind::Notification { .. }) => Err(Fault::NotAvailable(GENERATE_AVATAR)),
            _ => Err(Fault::UnknownEvent { event: event.to_owned(), topic: topic.to_owned() }),
        }
    }

    /// The event's name, for metrics: a bounded set.
    pub(super) const fn event(&self) -> &'static str {
        match self {
            Self::Join(_) => JOIN,
            Self::Leave => LEAVE,
            Self::Publish(_) => NEW_NOTIFICATION,
            Self::OwnNotifications => OWN_NOTIFICATIONS,
            Self::Seen(_) => SEEN,
            Self::Unsubscribe => UNSUBSCRIBE,
        }
    }

    /// What it holds while it waits.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Publish(new) => {
                new.message.as_str().len()
                    + new.to.iter().map(|to| to.len() + size_of::<String>()).sum::<usize>()
                    + new.key.as_ref().map_or(0, String::len)
            }
            Self::Join(_) | Self::Leave | Self::OwnNotifications | Self::Seen(_) | Self::Unsubscribe => 0,
        }
    }
}

fn read<'de, T: Deserialize<'de>>(event: &'static str, payload: Payload<'de>) -> Result<T, Fault> {
    match payload {
        // serde would take a struct's fields in order from an array: what the client meant is not known then.
        Payload::Json(json) if json.get().starts_with('[') => {
            Err(Fault::BadPayload { event, source: Unfit::new("invalid type: array, expected an object") })
        }
        Payload::Json(json) => json::read(json.get()).map_err(|source| Fault::BadPayload { event, source }),
        Payload::Bytes(_) => Err(Fault::BinaryPayload(event)),
    }
}

#[cfg(test)]
mod tests {
    use notifyx_model::{Clock, UserId};
    use serde_json::value::RawValue;

    use super::*;
    use crate::testing::{topic, user_of};

    fn parse(event: &str, payload: &str) -> Result<Request, String> {
        let kind = Kind::Notification { name: topic("t"), user: user_of(UserId::new(&Clock::system())) };
        let raw = RawValue::from_string(payload.to_owned()).unwrap();
        Request::parse(&kind, "notification:t", event, Payload::Json(&raw)).map_err(|fault| fault.to_string())
    }

    #[test]
    fn a_bad_payload_is_told_what_and_where() {
        for (event, payload, why) in [
            (NEW_NOTIFICATION, "{}", "takes: missing field `message`"),
            (NEW_NOTIFICATION, r#"{"message":""}"#, "message is empty"),
            (NEW_NOTIFICATION, r#"{"message":5}"#, "message: invalid type: integer `5`, expected a text"),
            (NEW_NOTIFICATION, r#"{"message":"a","priority":10}"#, "priority 10 is not 0 to 9"),
            (NEW_NOTIFICATION, r#"{"message":"a","prioritty":1}"#, "unknown field `prioritty`, expected one of"),
            (NEW_NOTIFICATION, r#"{"message":"a","to":"ann"}"#, "to: invalid type: string \"ann\", expected an array"),
            (NEW_NOTIFICATION, r#"{"message":"a","fire_at":[]}"#, "fire_at: invalid type: array, expected a time"),
            (NEW_NOTIFICATION, r#"["a"]"#, "expected an object"),
            (SEEN, r#"{"id":"5"}"#, "UUID"),
            (JOIN, r#"{"last_offset":"5"}"#, "last_offset: invalid type: string \"5\", expected a whole number from 0"),
            ("dance", "{}", "event `dance` is not known in channel `notification:t`"),
            (SEND_EMAIL, "{}", "`send_email` is not available yet"),
        ] {
            let error = parse(event, payload).unwrap_err();
            assert!(error.contains(why), "{event} {payload}: {error}");
        }
    }

    #[test]
    fn what_waits_is_weighed() {
        let request = parse(NEW_NOTIFICATION, r#"{"message":"12345","to":["ann@example.org"],"key":"k"}"#).unwrap();
        assert_eq!(request.bytes(), 5 + 15 + 24 + 1);
    }
}

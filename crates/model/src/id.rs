//! Identifiers: one type each, so that a topic's id cannot be passed where a user's belongs.
//!
//! All are UUIDs of version 7: they sort by the time they were made, which keeps indexes dense.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Clock, Timestamp};

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
        #[serde(transparent)]
        #[schema(value_type = String, format = Uuid)]
        pub struct $name(Uuid);

        impl $name {
            /// A new id, ordered after those made before it.
            pub fn new(clock: &Clock) -> Self {
                Self(clock.uuid())
            }

            pub const fn from_uuid(uuid: Uuid) -> Self {
                Self(uuid)
            }

            pub const fn uuid(self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self)
            }
        }
    };
}

id!(
    /// An account.
    UserId
);
id!(
    /// An API key, not its secret.
    KeyId
);
id!(
    /// A topic.
    TopicId
);
id!(
    /// One notification.
    NotificationId
);
id!(
    /// One two-phase commit transaction, the same at the coordinator and at every participant.
    Gid
);
id!(
    /// One running instance of a service.
    InstanceId
);

/// No id that was made at this moment or later sorts before this one.
pub fn first_id_at(time: Timestamp) -> Uuid {
    let millis = u128::try_from(time.as_micros() / 1_000).unwrap_or(0);
    Uuid::from_u128(millis << 80)
}

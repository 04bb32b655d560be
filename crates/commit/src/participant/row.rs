//! What is stored of a transaction at a participant, and the words it is stored in.

use std::{fmt, str::FromStr};

use notifyx_model::{Timestamp, UserId};

use crate::RequestHash;

/// Where a transaction stands at one participant. COMMITTED and ABORTED are final.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    Prepared,
    Committed,
    Aborted,
}

/// Who made the row: the two kinds never touch each other's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    Coordinator,
    /// A person, by hand.
    Client,
}

macro_rules! text {
    ($name:ident { $($variant:ident = $text:literal),+ }) => {
        impl $name {
            /// As it stands in the database.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }
        impl FromStr for $name {
            type Err = Unknown;
            fn from_str(text: &str) -> Result<Self, Unknown> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    other => Err(Unknown::new(stringify!($name), other)),
                }
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}
text!(State { Prepared = "PREPARED", Committed = "COMMITTED", Aborted = "ABORTED" });

text!(Origin { Coordinator = "coordinator", Client = "client" });

/// A database holds a word that this binary does not know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {what}")]
pub struct Unknown {
    what: &'static str,
    text: String,
}

impl Unknown {
    pub(crate) fn new(what: &'static str, text: &str) -> Self {
        Self { what, text: text.to_owned() }
    }
}

/// What the decisions need of a `ptxn` row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub origin: Origin,
    /// Who publishes. By hand: the only one who may commit or roll back. The nil UUID on a tombstone.
    pub user_id: UserId,
    pub state: State,
    /// All zeros on a tombstone.
    pub request: RequestHash,
    pub prepared_at: Timestamp,
    /// ABORTED by the sweep, for lateness: its owner is told so.
    pub expired: bool,
}

/// The hash a tombstone is stored with: nobody's request.
pub const NO_REQUEST: RequestHash = RequestHash([0; 32]);

//! What the clients were told, key by key. The reckoning compares it with what the databases hold.

use std::collections::BTreeMap;

use uuid::Uuid;

/// One notification that a client wanted published, under a key of its own.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) user: Uuid,
    pub(crate) key: String,
    /// The topic's name.
    pub(crate) topic: String,
    /// Ids of users; nobody: everybody.
    pub(crate) to: Vec<String>,
    pub(crate) told: Vec<Told>,
    /// Sent, and not answered: whether and when it arrived the client cannot know.
    pub(crate) unanswered: u32,
    pub(crate) end: End,
}

/// What one answer said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// 201, or the status `committed`.
    Committed(Uuid),
    /// 202, or the status `preparing`: it will be known.
    Open(Uuid),
    /// The status `aborted`.
    Aborted(Uuid),
    /// 409: a final no.
    Refused,
    /// 503 that says so: not published, the key is free again.
    NotPublished,
    /// Another 503 or 504: nothing was taken this time, and nothing is said about the key.
    Unavailable,
}

/// How the client left it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    Committed(Uuid),
    Refused,
    /// Tried again no more after a 503.
    GivenUp,
    /// Neither yes nor no came in time; what it heard last.
    Unsettled(String),
    /// An answer that no client can expect.
    Odd(String),
}

/// Answers by status, `none` where there was none.
pub(crate) type Answers = BTreeMap<String, usize>;

impl Entry {
    /// Whether the client knows for certain that nothing was, or ever will be, published under the key.
    pub(crate) fn is_void(&self) -> bool {
        // What was sent and not answered may still lie in the queue of a gateway that was stopped.
        self.end == End::Refused || (self.end == End::GivenUp && self.unanswered == 0 && !self.is_open())
    }

    /// Whether a 202 is the last that was said about the key itself.
    fn is_open(&self) -> bool {
        let last = self.told.iter().rfind(|told| **told != Told::Unavailable);
        matches!(last, Some(Told::Open(_) | Told::Committed(_)))
    }
}

impl End {
    /// For the figures.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Committed(_) => "committed",
            Self::Refused => "refused",
            Self::GivenUp => "given up",
            Self::Unsettled(_) => "unsettled",
            Self::Odd(_) => "odd",
        }
    }
}

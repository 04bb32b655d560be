//! Why an item got no answer from the handler.

use notifyx_model::{Fault, Kind};

/// The item's own result is the handler's; these are the batcher's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// Never handed to the handler: submit it again later.
    #[error("the queue of {0} is full")]
    Full(&'static str),
    /// Never handed to the handler: the batcher has closed.
    #[error("{0} is stopping")]
    Stopped(&'static str),
    /// The handler had the item and broke off: whether it took effect is not known.
    #[error("the outcome of a batch of {0} is not known")]
    Lost(&'static str),
}

impl Fault for Rejected {
    fn kind(&self) -> Kind {
        match self {
            Self::Full(_) | Self::Stopped(_) => Kind::Unavailable,
            Self::Lost(_) => Kind::Internal,
        }
    }

    fn code(&self) -> &str {
        match self {
            Self::Full(_) => "queue_full",
            Self::Stopped(_) => "stopping",
            Self::Lost(_) => "outcome_unknown",
        }
    }
}

//! Why a participant refuses.

use notifyx_model::{Fault, Kind};

use super::CHOSEN_WITHIN;

/// Why a step is refused. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the transaction was rolled back: prepare again under a new id")]
    Aborted,
    #[error("the transaction is committed and cannot be rolled back")]
    Committed,
    #[error("the transaction was not committed in time and is rolled back: prepare again under a new id")]
    Expired,
    /// A commit by the coordinator found nothing prepared: this database lost what it promised, or never promised it.
    #[error("nothing is prepared under this id, so it cannot be committed")]
    NothingPrepared,
    #[error("this id was used before for another request")]
    OtherRequest,
    #[error("no transaction with this id was prepared here")]
    NotFound,
    /// Another user's, or a coordinator's.
    #[error("the transaction under this id is another's and not yours to decide")]
    Foreign,
    #[error(
        "a `request_id` of your own is a UUID of version 7 made within {} min of now: make a new one, or leave it out",
        CHOSEN_WITHIN.as_secs() / 60
    )]
    IdInvalid,
}

impl Fault for Refusal {
    fn kind(&self) -> Kind {
        match self {
            Self::Aborted | Self::Committed | Self::Expired | Self::NothingPrepared => Kind::Conflict,
            Self::OtherRequest => Kind::Mismatch,
            Self::NotFound => Kind::NotFound,
            Self::Foreign => Kind::Forbidden,
            Self::IdInvalid => Kind::Invalid,
        }
    }

    fn code(&self) -> &str {
        match self {
            Self::Aborted => "transaction_aborted",
            Self::Committed => "transaction_committed",
            Self::Expired => "transaction_expired",
            Self::NothingPrepared => "nothing_prepared",
            Self::OtherRequest => "request_mismatch",
            Self::NotFound => "transaction_not_found",
            Self::Foreign => "transaction_foreign",
            Self::IdInvalid => "request_id_invalid",
        }
    }
}

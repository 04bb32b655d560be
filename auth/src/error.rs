//! What can go wrong, by what the caller can do about it.

use std::time::Duration;

use notifyx_model::{Fault, KeyId, Kind, UserId};

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("an account with this e-mail address exists already: log in")]
    EmailTaken,
    #[error("password has {bytes} bytes: {min} to {max} are allowed", min = crate::passwords::BYTES.start(), max = crate::passwords::BYTES.end())]
    PasswordLength { bytes: usize },
    /// One sentence for an unknown address and a wrong password.
    #[error("e-mail address or password is wrong")]
    WrongCredentials,
    #[error("too many failed logins: wait {} s", .wait.as_secs().max(1))]
    TooManyFailures { wait: Duration },
    #[error("too many logins at once: try again")]
    Busy,
    #[error("user {0} not found")]
    UserNotFound(UserId),
    #[error("{found} people asked for at once: at most {max} are allowed", max = crate::accounts::RESOLVE_MAX)]
    TooManyPeople { found: usize },
    #[error("API key {0} not found")]
    KeyNotFound(KeyId),
    #[error("you have {max} API keys that have not expired: revoke one first", max = crate::keys::LIVE_MAX)]
    TooManyKeys,
    #[error("the key's end {0}")]
    KeyEnd(&'static str),
    /// Whoever follows the log must not believe that nothing was revoked.
    #[error("the log of revocations cannot be followed now")]
    Behind,
    #[error("a password could not be hashed")]
    Hashing(#[source] argon2::password_hash::Error),
    #[error(transparent)]
    Database(#[from] notifyx_database::Error),
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::EmailTaken | Self::TooManyKeys => Kind::Conflict,
            Self::PasswordLength { .. } | Self::TooManyPeople { .. } | Self::KeyEnd(_) => Kind::Invalid,
            Self::WrongCredentials => Kind::Unauthenticated,
            Self::TooManyFailures { .. } => Kind::TooMany,
            Self::Busy | Self::Behind => Kind::Unavailable,
            Self::UserNotFound(_) | Self::KeyNotFound(_) => Kind::NotFound,
            Self::Hashing(_) => Kind::Internal,
            Self::Database(error) => error.kind(),
        }
    }

    fn code(&self) -> &str {
        match self {
            Self::EmailTaken => "email_taken",
            Self::PasswordLength { .. } => "password_invalid",
            Self::WrongCredentials => "credentials_wrong",
            Self::TooManyFailures { .. } => "login_limited",
            Self::Busy => "login_busy",
            Self::UserNotFound(_) => "user_not_found",
            Self::TooManyPeople { .. } => "too_many_people",
            Self::KeyNotFound(_) => "key_not_found",
            Self::TooManyKeys => "too_many_keys",
            Self::KeyEnd(_) => "key_end_invalid",
            Self::Behind => "revocations_behind",
            Self::Hashing(_) => "hashing_failed",
            Self::Database(error) => error.code(),
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        match self {
            // Rounded up, so that whoever waits that long is not refused again.
            Self::TooManyFailures { wait } => Some(Duration::from_secs(wait.as_secs() + 1)),
            Self::Busy | Self::Behind => Some(Duration::from_secs(1)),
            Self::Database(error) => error.retry_after(),
            Self::EmailTaken
            | Self::PasswordLength { .. }
            | Self::WrongCredentials
            | Self::UserNotFound(_)
            | Self::TooManyPeople { .. }
            | Self::KeyNotFound(_)
            | Self::TooManyKeys
            | Self::KeyEnd(_)
            | Self::Hashing(_) => None,
        }
    }
}

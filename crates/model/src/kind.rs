//! What sort of thing went wrong. Doors turn a kind into a status; rules choose it.

use std::time::Duration;

/// The kinds of error a caller can meet. `chassis::reply` maps each to HTTP, Phoenix and later doors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The request is malformed or out of bounds; sending it again unchanged cannot help.
    Invalid,
    /// No valid credentials.
    Unauthenticated,
    /// Known caller, not allowed.
    Forbidden,
    NotFound,
    /// The state of the thing forbids it: a business "no".
    Conflict,
    /// A key or id was used before for another request.
    Mismatch,
    TooLarge,
    /// A limit per caller was reached; retry later.
    TooMany,
    /// This service, or one it needs, cannot answer now; retry later.
    Unavailable,
    /// A deadline passed.
    Timeout,
    /// A bug or a broken store. Details go to the log only.
    Internal,
}

/// An error that knows its [`Kind`]. Each service's error enum implements it, exhaustively.
pub trait Fault: std::error::Error + Send + Sync + 'static {
    fn kind(&self) -> Kind;

    /// A short stable word for programs, in `snake_case`: `topic_not_found`.
    /// Borrowed from the error: what a peer refused keeps the peer's word.
    fn code(&self) -> &str;

    /// When it may help to try again.
    fn retry_after(&self) -> Option<Duration> {
        match self.kind() {
            Kind::TooMany | Kind::Unavailable => Some(Duration::from_secs(1)),
            Kind::Invalid
            | Kind::Unauthenticated
            | Kind::Forbidden
            | Kind::NotFound
            | Kind::Conflict
            | Kind::Mismatch
            | Kind::TooLarge
            | Kind::Timeout
            | Kind::Internal => None,
        }
    }
}

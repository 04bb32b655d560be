//! What can go wrong between a service and its database, by what a caller can do about it.

use std::time::Duration;

use notifyx_model::{Fault, Kind};

/// A statement or transaction failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server is away, restarting, full, or the pool gave no connection in time. Trying again may help.
    #[error("the database cannot be reached now")]
    Unavailable(#[source] sqlx::Error),
    /// Deadlock or serialisation failure: the same transaction again is expected to pass.
    #[error("the transaction was chosen to give way")]
    GaveWay(#[source] sqlx::Error),
    /// A bug in a statement, or a broken store.
    #[error("the database refused a statement")]
    Refused(#[source] sqlx::Error),
    /// The store holds what this binary never wrote.
    #[error("a stored {what} is not valid: {why}")]
    Stored { what: &'static str, why: String },
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        if let sqlx::Error::Database(inner) = &error {
            // Postgres: SQLSTATE. SQLite: its extended result code in decimal; the low byte is the primary code.
            let code = inner.code().unwrap_or_default().into_owned();
            let sqlite = code.parse::<u32>().ok().filter(|_| code.len() != 5).map(|code| code & 0xff);
            return match code.get(..2) {
                // Serialisation failure, deadlock, and a lock that was not to be had in our own `lock_timeout`.
                _ if matches!(&*code, "40001" | "40P01" | "55P03") => Self::GaveWay(error),
                _ if matches!(sqlite, Some(5 | 6)) => Self::GaveWay(error), // BUSY, LOCKED
                _ if matches!(sqlite, Some(8 | 10 | 13 | 14)) => Self::Unavailable(error), // READONLY, IOERR, FULL, CANTOPEN
                // The server behind the connection takes no writes any more, or is another one since.
                _ if matches!(&*code, "25006" | "26000") => Self::Unavailable(error),
                Some("08" | "53" | "57" | "58") if sqlite.is_none() => Self::Unavailable(error),
                _ => Self::Refused(error),
            };
        }
        match error {
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Self::Unavailable(error),
            _ => Self::Refused(error),
        }
    }
}

impl Fault for Error {
    fn kind(&self) -> Kind {
        match self {
            Self::Unavailable(_) | Self::GaveWay(_) => Kind::Unavailable,
            Self::Refused(_) | Self::Stored { .. } => Kind::Internal,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Self::Unavailable(_) | Self::GaveWay(_) => "database_unavailable",
            Self::Refused(_) => "database_error",
            Self::Stored { .. } => "store_broken",
        }
    }

    fn retry_after(&self) -> Option<Duration> {
        (self.kind() == Kind::Unavailable).then_some(Duration::from_secs(1))
    }
}

/// The database could not be opened; the sentence says what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("cannot create the folder {folder} for the database")]
    Folder { folder: String, source: std::io::Error },
    #[error("{path} is in use by another process: stop it, or choose another --data folder")]
    InUse { path: String },
    #[error("cannot lock {path}")]
    Lock { path: String, source: std::io::Error },
    #[error("cannot open {url}")]
    Connect { url: String, source: sqlx::Error },
    #[error("cannot bring the schema of {url} up to date")]
    Migrate { url: String, source: sqlx::migrate::MigrateError },
}

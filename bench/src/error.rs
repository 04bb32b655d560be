//! Why there is no result. A figure is printed only if everything that was sent arrived.

use std::{fmt::Display, io};

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("{doing}: {source}")]
    Io { doing: String, source: io::Error },
    #[error("{what} was answered {status}: {body}")]
    Refused { what: String, status: u16, body: String },
    #[error("{0}")]
    Failed(String),
}

impl Error {
    /// `result.map_err(Error::io("connecting to …"))`
    pub(crate) fn io(doing: impl Display) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { doing: doing.to_string(), source }
    }

    pub(crate) fn failed(text: impl Display) -> Self {
        Self::Failed(text.to_string())
    }
}

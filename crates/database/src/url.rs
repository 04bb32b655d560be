//! A database URL: the backend it chooses, its bounds, and how it prints without its password.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use url::Url;

/// `sqlite:<path>`, or `postgres://user[:password]@host[:port]/name`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct DatabaseUrl(Place);

#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Place {
    Sqlite(PathBuf),
    Postgres(Url),
}

impl DatabaseUrl {
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("sqlite:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.is_empty() {
                Err("sqlite: needs a path".into())
            } else {
                Ok(Self(Place::Sqlite(path.into())))
            };
        }
        let url = Url::parse(text).map_err(|error| format!("not a database URL ({error})"))?;
        match url.scheme() {
            "postgres" | "postgresql" if url.path().len() > 1 => Ok(Self(Place::Postgres(url))),
            "postgres" | "postgresql" => Err("the URL names no database: postgres://user@host/NAME".into()),
            other => Err(format!("`{other}` is not a known backend: sqlite:PATH or postgres://…")),
        }
    }

    pub fn sqlite(path: impl Into<PathBuf>) -> Self {
        Self(Place::Sqlite(path.into()))
    }

    /// One database per service: the same server, the name followed by `_<service>`.
    #[must_use]
    pub fn for_service(&self, service: &str) -> Self {
        match &self.0 {
            Place::Sqlite(path) => {
                let stem = path.file_stem().map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
                Self(Place::Sqlite(path.with_file_name(format!("{stem}_{service}.db"))))
            }
            Place::Postgres(url) => {
                let mut url = url.clone();
                let path = format!("{}_{}", url.path(), service.replace('-', "_"));
                url.set_path(&path);
                Self(Place::Postgres(url))
            }
        }
    }

    /// Where the file is, if it is one.
    pub fn folder(&self) -> Option<&Path> {
        match &self.0 {
            Place::Sqlite(path) => {
                Some(path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")))
            }
            Place::Postgres(_) => None,
        }
    }

    pub(crate) fn place(&self) -> &Place {
        &self.0
    }
}

impl TryFrom<String> for DatabaseUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

/// Without the password.
impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Place::Postgres(url) => {
                let mut shown = url.clone();
                if shown.password().is_some() {
                    // Cannot fail: a URL with a password has a host.
                    let _ = shown.set_password(Some("********"));
                }
                shown.fmt(f)
            }
        }
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for DatabaseUrl {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_does_not_show() {
        let url = DatabaseUrl::parse("postgres://me:s3cret@db:5433/notifyx").unwrap();
        assert_eq!(url.to_string(), "postgres://me:********@db:5433/notifyx");
        assert_eq!(url.for_service("counter-2pc").to_string(), "postgres://me:********@db:5433/notifyx_counter_2pc");
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert!(DatabaseUrl::parse("mysql://x/y").unwrap_err().contains("`mysql` is not a known backend"));
        assert!(DatabaseUrl::parse("postgres://x/").unwrap_err().contains("names no database"));
        assert!(DatabaseUrl::parse("sqlite:").is_err());
        assert!(DatabaseUrl::parse("data.db").is_err());
    }
}

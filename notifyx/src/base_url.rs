//! Where a server is, as people and configuration write it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use url::Url;

/// `http://host:port`, without a path.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "String")]
pub(crate) struct BaseUrl(String);

impl BaseUrl {
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let url = Url::parse(text).map_err(|error| format!("{text:?} is no URL ({error})"))?;
        let bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none() && url.username().is_empty();
        match url.scheme() {
            "http" | "https" if bare => Ok(Self(url.as_str().trim_end_matches('/').to_owned())),
            "http" | "https" => Err(format!("{text:?} must end after the port: http://host:port")),
            _ => Err(format!("{text:?} must begin with http:// or https://")),
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for BaseUrl {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        Self::parse(&text)
    }
}

impl FromStr for BaseUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::parse(text)
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_base_url_ends_after_the_port() {
        assert_eq!(BaseUrl::parse("http://127.0.0.1:8000/").unwrap().as_str(), "http://127.0.0.1:8000");
        for bad in ["127.0.0.1:8000", "ftp://h", "http://h/x", "http://h/?a", "http://u@h"] {
            assert!(BaseUrl::parse(bad).is_err(), "{bad}");
        }
    }
}

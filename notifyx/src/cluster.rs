//! The section `[cluster]`: how the services of one platform know and find each other.

use notifyx_model::Secret;
use rand::Rng;
use serde::{Deserialize, Serialize};

use crate::base_url::BaseUrl;

pub(crate) const DEFAULTS: &str = r#"# The secret by which services know each other: at least 16 characters, the same for every service. Better kept in the
# environment: NOTIFYX_CLUSTER__SECRET. `notifyx up` makes one for each run where none is set.
secret = ""
# Where the registry is; several are tried in turn. `notifyx up` starts its own and uses that.
discovery = ["http://127.0.0.1:8000"]
"#;

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) secret: ClusterSecret,
    pub(crate) discovery: Vec<BaseUrl>,
}

/// Empty (not set), or long enough that it cannot be guessed.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(try_from = "String")]
pub(crate) struct ClusterSecret(Secret);

impl ClusterSecret {
    const MIN_CHARS: usize = 16;

    /// The secret, if one is set.
    pub(crate) fn set(&self) -> Option<&Secret> {
        (!self.0.is_empty()).then_some(&self.0)
    }
}

impl TryFrom<String> for ClusterSecret {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        // It travels in a header.
        if !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err("the secret may hold only visible ASCII characters without spaces".into());
        }
        if (1..Self::MIN_CHARS).contains(&text.len()) {
            return Err(format!("the secret has {} characters, fewer than {}", text.len(), Self::MIN_CHARS));
        }
        Ok(Self(Secret::new(text)))
    }
}

/// A secret for one run: 256 random bits.
pub(crate) fn random_secret() -> Secret {
    let bytes: [u8; 32] = rand::rng().random();
    Secret::new(bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_short_secret_is_refused_and_not_shown() {
        assert!(ClusterSecret::try_from(String::new()).unwrap().set().is_none());
        let said = ClusterSecret::try_from("hunter2".to_owned()).unwrap_err();
        assert!(said.contains("fewer than 16") && !said.contains("hunter2"), "{said}");
        assert!(ClusterSecret::try_from("with spaces in the middle".to_owned()).is_err());
        assert!(ClusterSecret::try_from(random_secret().expose().to_owned()).unwrap().set().is_some());
    }
}

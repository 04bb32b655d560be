//! The section `[telemetry]`: what is logged and how. Starting it is chassis' work.

use notifyx_chassis::telemetry::Format;
use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;

pub(crate) const DEFAULTS: &str = r#"# What is logged: error, warn, info, debug or trace; per part of the program: "info,notifyx_gateway=debug".
# (actix_server counts its workers at every start.)
log = "info,actix_server=warn"
# How, on standard error: "text" for people, "json" (one object per line) for machines.
format = "text"
"#;

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) log: Filter,
    pub(crate) format: Format,
}

/// The text of an [`EnvFilter`] that parses.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(try_from = "String")]
pub(crate) struct Filter(String);

impl Filter {
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Filter {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        // The parser takes any word for the name of a part; a word alone is a misspelled level.
        let levels = ["error", "warn", "info", "debug", "trace", "off"];
        let known = |part: &str| part.contains(['=', '[']) || levels.contains(&part.to_lowercase().as_str());
        if text.is_empty() || !text.split(',').all(|part| known(part.trim())) || EnvFilter::try_new(&text).is_err() {
            let allowed = "a level (error, warn, info, debug, trace, off) or PART=LEVEL, separated by commas";
            return Err(format!("{text:?} is no filter, which is {allowed}"));
        }
        Ok(Self(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelled_level_is_refused() {
        assert!(Filter::try_from("info".to_owned()).is_ok());
        assert!(Filter::try_from("warn,notifyx_gateway=debug".to_owned()).is_ok());
        for bad in ["", "infoo", "info,,", "notifyx_gateway=loud"] {
            assert!(Filter::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }
}

//! A service's defaults: a commented TOML file that is compiled in, so that the documentation is the default; and what several
//! services are told alike.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Parses the defaults of a service. They are part of the program: a mistake in them is found by the first test.
pub fn defaults<T: DeserializeOwned>(text: &str) -> T {
    toml::from_str(text).expect("the compiled-in defaults are valid")
}

/// For how long something is kept: between 1 and [`Days::MAX`] days.
#[derive(Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct Days(u32);

impl Days {
    /// A century: whoever means for ever has no need of more.
    pub const MAX: u32 = 36_500;

    pub fn span(self) -> Duration {
        Duration::from_secs(u64::from(self.0) * 24 * 60 * 60)
    }
}

impl TryFrom<u32> for Days {
    type Error = String;

    fn try_from(days: u32) -> Result<Self, String> {
        match days {
            1..=Self::MAX => Ok(Self(days)),
            _ => Err(format!("{days} days are not between 1 and {} (a century)", Self::MAX)),
        }
    }
}

impl From<Days> for u32 {
    fn from(days: Days) -> Self {
        days.0
    }
}

impl fmt::Debug for Days {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} d", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_bounded_and_say_so() {
        #[derive(Debug, Deserialize)]
        struct Config {
            keep_days: Days,
        }
        let read = |days: &str| toml::from_str::<Config>(&format!("keep_days = {days}"));
        assert_eq!(read("36500").unwrap().keep_days.span(), Duration::from_secs(36_500 * 86_400));
        for (days, answer) in [
            ("0", "0 days are not between 1 and 36500 (a century)"),
            ("4294967295", "4294967295 days are not between 1 and 36500 (a century)"),
        ] {
            assert!(read(days).unwrap_err().to_string().contains(answer), "{days}");
        }
    }
}

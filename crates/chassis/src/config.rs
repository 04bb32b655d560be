//! A service's defaults: a commented TOML file that is compiled in, so that the documentation is the default.

use serde::de::DeserializeOwned;

/// Parses the defaults of a service. They are part of the program: a mistake in them is found by the first test.
pub fn defaults<T: DeserializeOwned>(text: &str) -> T {
    toml::from_str(text).expect("the compiled-in defaults are valid")
}

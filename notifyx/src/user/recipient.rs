//! A user as people name one: by e-mail address or by id.

use std::str::FromStr;

use notifyx_model::{Email, UserId};
use serde::Serialize;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub(crate) enum Recipient {
    Id(UserId),
    Email(Email),
}

impl FromStr for Recipient {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(id) = text.parse() {
            return Ok(Self::Id(id));
        }
        Email::parse(text).map(Self::Email).map_err(|error| format!("neither a user's id nor an address: {error}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_and_an_address_are_told_apart() {
        let id = "0190a5b0-7b5a-7cde-8000-000000000001";
        assert!(matches!(id.parse(), Ok(Recipient::Id(_))));
        assert!(
            matches!("Ann@Example.org".parse(), Ok(Recipient::Email(email)) if email.as_str() == "ann@example.org")
        );
        assert!("ann".parse::<Recipient>().is_err());
    }
}

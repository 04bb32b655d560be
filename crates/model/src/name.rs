//! Names that people give: topics, e-mail addresses, services. Parsed once, at the door.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::Clock;

/// Why a text was refused; the sentence names the bound.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} {why}")]
pub struct Invalid {
    what: &'static str,
    why: String,
}

impl Invalid {
    pub fn new(what: &'static str, why: impl Into<String>) -> Self {
        Self { what, why: why.into() }
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $parse:path) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
        #[serde(try_from = "String", into = "String")]
        #[schema(value_type = String)]
        pub struct $name(Arc<str>);

        impl $name {
            pub fn parse(text: &str) -> Result<Self, Invalid> {
                $parse(text).map(|text| Self(Arc::from(text.as_ref())))
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = Invalid;

            fn from_str(text: &str) -> Result<Self, Invalid> {
                Self::parse(text)
            }
        }

        impl TryFrom<String> for $name {
            type Error = Invalid;

            fn try_from(text: String) -> Result<Self, Invalid> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0.as_ref().to_owned()
            }
        }

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &self.0)
            }
        }
    };
}

name!(
    /// A topic's name: 1 to [`TopicName::MAX_BYTES`] bytes, no control characters, no space at either end.
    TopicName,
    parse_topic
);
name!(
    /// A category of events: named as a topic is, but one segment of a path, so neither with a `/` nor `.` or `..`.
    Category,
    parse_category
);
name!(
    /// An event's id: 1 to [`EventId::MAX_BYTES`] of `A-Z a-z 0-9 . _ : ~ -`, so that it stands in a path as it is.
    EventId,
    parse_event_id
);
name!(
    /// An e-mail address, in lower case.
    Email,
    parse_email
);
name!(
    /// A service's name in the registry: `a-z`, digits and `-`, at most 64 bytes.
    ServiceName,
    parse_service
);
name!(
    /// What an API key is called by its owner: one line of 1 to [`KeyName::MAX_BYTES`] bytes.
    KeyName,
    parse_key_name
);
name!(
    /// Who steps in by hand: one line of 1 to [`OperatorName::MAX_BYTES`] bytes.
    OperatorName,
    parse_operator
);
name!(
    /// Why an operator steps in: one line of 1 to [`Remark::MAX_BYTES`] bytes.
    Remark,
    parse_remark
);

impl TopicName {
    /// A Phoenix topic is `notification:<name>` and its binary frames give it one length byte (255).
    pub const MAX_BYTES: usize = 200;
}

impl Category {
    /// What fired is in the log under this name: a category is a topic.
    pub const MAX_BYTES: usize = TopicName::MAX_BYTES;
}

/// Topics are one namespace, and what is a category is a name in it.
impl From<Category> for TopicName {
    fn from(category: Category) -> Self {
        Self(category.0)
    }
}

impl EventId {
    /// A UUID has 36; a publisher's own key, such as `order:2026-11-21:4711:reminder`, has room.
    pub const MAX_BYTES: usize = 128;

    /// For an event whose publisher names none: a UUID of version 7, ordered after those made before it.
    pub fn new(clock: &Clock) -> Self {
        Self(Arc::from(clock.uuid().to_string()))
    }
}

impl KeyName {
    /// Shown in a column: the service that holds the key, and where it runs.
    pub const MAX_BYTES: usize = 64;
}

impl OperatorName {
    /// A full name and a team.
    pub const MAX_BYTES: usize = 100;
}

impl Remark {
    /// A long sentence or two, and the number of a ticket.
    pub const MAX_BYTES: usize = 1_000;
}

fn parse_topic(text: &str) -> Result<&str, Invalid> {
    parse_line(text, "topic name", TopicName::MAX_BYTES)
}

fn parse_category(text: &str) -> Result<&str, Invalid> {
    let refuse = |why: &str| Err(Invalid::new("category", why));
    match parse_line(text, "category", Category::MAX_BYTES)? {
        text if text.contains('/') => refuse("holds a /"),
        // A browser takes these two out of a path before it asks.
        "." | ".." => refuse("is a dot segment (. or ..)"),
        text => Ok(text),
    }
}

fn parse_event_id(text: &str) -> Result<&str, Invalid> {
    let refuse = |why: String| Err(Invalid::new("event id", why));
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._:~-".contains(c);
    match text {
        "" => refuse("is empty".into()),
        "." | ".." => refuse("is a dot segment (. or ..)".into()),
        _ if text.len() > EventId::MAX_BYTES => {
            refuse(format!("has {} bytes, more than {}", text.len(), EventId::MAX_BYTES))
        }
        _ if !text.chars().all(allowed) => refuse("holds a character other than A-Z a-z 0-9 . _ : ~ -".into()),
        _ => Ok(text),
    }
}

fn parse_key_name(text: &str) -> Result<&str, Invalid> {
    parse_line(text, "key's name", KeyName::MAX_BYTES)
}

fn parse_operator(text: &str) -> Result<&str, Invalid> {
    parse_line(text, "operator's name", OperatorName::MAX_BYTES)
}

fn parse_remark(text: &str) -> Result<&str, Invalid> {
    parse_line(text, "reason", Remark::MAX_BYTES)
}

fn parse_line<'a>(text: &'a str, what: &'static str, bytes_max: usize) -> Result<&'a str, Invalid> {
    let refuse = |why: String| Err(Invalid::new(what, why));
    match text {
        "" => refuse("is empty".into()),
        _ if text.len() > bytes_max => refuse(format!("has {} bytes, more than {bytes_max}", text.len())),
        _ if text.chars().any(char::is_control) => refuse("holds a control character".into()),
        _ if text.trim() != text => refuse("begins or ends with white space".into()),
        _ => Ok(text),
    }
}

/// RFC 5321 bounds; the grammar is the part of it that mail systems in use accept.
fn parse_email(text: &str) -> Result<String, Invalid> {
    let refuse = |why: &str| Err(Invalid::new("e-mail address", why));
    // Lowered before it is judged: "İ" becomes two characters, of which a domain may not hold the second, and what is
    // stored must parse again.
    let text = text.trim().to_lowercase();
    if text.len() > 254 {
        return refuse("has more than 254 bytes");
    }
    let Some((local, domain)) = text.rsplit_once('@') else { return refuse("has no @") };
    let atom = |c: char| !c.is_control() && !c.is_whitespace() && !r#"()<>[]:;,\"@"#.contains(c);
    if local.is_empty() || local.len() > 64 || !local.chars().all(atom) {
        return refuse("has no valid part before the @");
    }
    if local.starts_with('.') || local.ends_with('.') || local.contains("..") {
        return refuse("has a misplaced dot before the @");
    }
    let label = |l: &str| {
        !l.is_empty()
            && l.len() <= 63
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.chars().all(|c| c == '-' || c.is_alphanumeric())
    };
    if !domain.split('.').all(label) {
        return refuse("has no valid domain after the @");
    }
    Ok(text)
}

fn parse_service(text: &str) -> Result<&str, Invalid> {
    let valid = (1..=64).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
    if valid { Ok(text) } else { Err(Invalid::new("service name", "must be 1 to 64 of a-z, 0-9 and -")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_normalised() {
        assert_eq!(Email::parse(" Ann@Example.ORG ").unwrap().as_str(), "ann@example.org");
    }

    #[test]
    fn bad_addresses_are_refused() {
        for bad in ["", "a", "@b.c", "a@", "a b@c.d", "a@b..c", ".a@b.c", "a..b@c.d", "a@-b.c", "a\0@b.c", "a@b\n.c"] {
            assert!(Email::parse(bad).is_err(), "{bad:?}");
        }
        assert!(Email::parse(&format!("{}@b.c", "a".repeat(65))).is_err());
        assert!(Email::parse(&format!("a@{}", "b.".repeat(150))).is_err());
    }

    #[test]
    fn what_was_accepted_is_accepted_again() {
        for text in ["ANN@EXAMPLE.ORG", "İ@b.c", "a@İ.c", "ΑΣ@ΑΣ.GR", &format!("{}@b.c", "İ".repeat(32))] {
            if let Ok(email) = Email::parse(text) {
                assert_eq!(Email::parse(email.as_str()).as_ref(), Ok(&email), "{text:?}");
            }
        }
        assert!(Email::parse("a@İ.c").is_err());
    }

    #[test]
    fn topic_names_are_bounded() {
        assert!(TopicName::parse(&"t".repeat(TopicName::MAX_BYTES)).is_ok());
        let long = TopicName::parse(&"t".repeat(300)).unwrap_err();
        assert_eq!(long.to_string(), "topic name has 300 bytes, more than 200");
        for bad in ["", " a", "a ", "a\0b", "a\nb"] {
            assert!(TopicName::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_category_is_one_segment_of_a_path() {
        assert_eq!(Category::parse("orders:eu").unwrap().as_str(), "orders:eu");
        assert!(Category::parse(&"c".repeat(Category::MAX_BYTES)).is_ok());
        for (bad, answer) in [
            ("", "category is empty"),
            ("a/b", "category holds a /"),
            ("..", "category is a dot segment (. or ..)"),
            ("a\0b", "category holds a control character"),
            (&"c".repeat(300), "category has 300 bytes, more than 200"),
        ] {
            assert_eq!(Category::parse(bad).unwrap_err().to_string(), answer);
        }
    }

    #[test]
    fn an_event_id_stands_in_a_path_as_it_is() {
        assert_eq!(EventId::parse("order:2026-11-21~4711.a_b").unwrap().as_str(), "order:2026-11-21~4711.a_b");
        assert!(EventId::parse(&"e".repeat(EventId::MAX_BYTES)).is_ok());
        for bad in ["", ".", "..", "a b", "a/b", "ä", "a%20", "a\0", &"e".repeat(EventId::MAX_BYTES + 1)] {
            assert!(EventId::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_event_id_of_our_own_making_parses() {
        let id = EventId::new(&Clock::system());
        assert_eq!(EventId::parse(id.as_str()), Ok(id));
    }
}

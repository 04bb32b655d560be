//! Query strings that others wrote, read into a type; where one does not fit, which parameter and why.

use serde::de::DeserializeOwned;
use url::form_urlencoded;

use crate::json::Unfit;

/// Reads what stands behind the `?`.
pub fn read<T: DeserializeOwned>(query: &str) -> Result<T, Unfit> {
    let pairs = serde_urlencoded::Deserializer::new(form_urlencoded::parse(query.as_bytes()));
    serde_path_to_error::deserialize(pairs)
        .map_err(|error| Unfit::at(&error.path().to_string(), &in_words(&error.inner().to_string())))
}

/// What Rust says of numbers, as it is said of a parameter.
fn in_words(said: &str) -> String {
    let words = match said {
        "invalid digit found in string" | "cannot parse integer from empty string" => "not a whole number from 0",
        "number too large to fit in target type" => "too large a number",
        other => other,
    };
    words.to_owned()
}

#[cfg(test)]
mod tests {
    use notifyx_model::Category;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    struct Asked {
        category: Category,
        limit: Option<u32>,
        #[serde(default)]
        state: State,
        event_id: Option<String>,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum State {
        #[default]
        Fired,
        Scheduled,
    }

    #[test]
    fn what_does_not_fit_is_told_by_its_name() {
        for (query, told) in [
            ("", "missing field `category`"),
            ("category=a%2Fb", "category holds a /"),
            ("category=c&limit=x", "limit: not a whole number from 0"),
            ("category=c&limit=-1", "limit: not a whole number from 0"),
            ("category=c&limit=", "limit: not a whole number from 0"),
            ("category=c&limit=99999999999", "limit: too large a number"),
            ("category=c&state=lost", "state: unknown variant `lost`, expected `fired` or `scheduled`"),
            ("category=c&category=d", "duplicate field `category`"),
            ("category=c&colour=1", "unknown field `colour`, expected one of `category`, `limit`, `state`, `eventId`"),
        ] {
            assert_eq!(read::<Asked>(query).unwrap_err().to_string(), told, "{query}");
        }
    }

    #[test]
    fn what_fits_is_read() {
        let asked: Asked = read("category=a+b%20c&state=scheduled&limit=7&eventId=%C3%A9").unwrap();
        assert_eq!((asked.category.as_str(), asked.limit, asked.state), ("a b c", Some(7), State::Scheduled));
        assert_eq!(asked.event_id.as_deref(), Some("é"));
    }
}

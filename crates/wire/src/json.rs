//! JSON that others wrote, read into a type; where it does not fit, which field, what is there and what was wanted.

use notifyx_model::Invalid;
use serde::Deserialize;
use serde_json::value::RawValue;

/// Why a text is not what was wanted, in words: `to[1]: invalid type: integer "7", expected a text`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unfit(String);

/// What is told: more than what is wanted ever takes. What is there may be as long as a body.
const SAID_CHARS_MAX: usize = 600;

impl Unfit {
    pub fn new(why: impl Into<String>) -> Self {
        let why: String = why.into();
        let count = why.chars().count();
        if count <= SAID_CHARS_MAX {
            return Self(why);
        }
        let begin: String = why.chars().take(SAID_CHARS_MAX / 2).collect();
        let end: String = why.chars().skip(count - SAID_CHARS_MAX / 2).collect();
        Self(format!("{begin} … {end}"))
    }

    /// `place`: as `serde_path_to_error` writes it; `.` and `?` are none. A type of ours may have named itself already, and serde names
    /// what is unknown.
    pub(crate) fn at(place: &str, why: &str) -> Self {
        let is_named = matches!(place, "" | "." | "?")
            || why.strip_prefix(place).is_some_and(|rest| rest.starts_with(' '))
            || why.starts_with(&format!("unknown field `{place}`"));
        Self::new(if is_named { why.to_owned() } else { format!("{place}: {why}") })
    }

    /// What is no JSON at all has a line and a column, and no field.
    pub fn syntax(error: &serde_json::Error) -> Self {
        Self::new(error.to_string())
    }
}

impl From<Invalid> for Unfit {
    fn from(invalid: Invalid) -> Self {
        Self::new(invalid.to_string())
    }
}

/// Reads a whole text.
pub fn read<'de, T: Deserialize<'de>>(text: &'de str) -> Result<T, Unfit> {
    read_below("", text)
}

/// Reads what stands under a name.
pub fn field<'de, T: Deserialize<'de>>(name: &str, raw: &'de RawValue) -> Result<T, Unfit> {
    read_below(name, raw.get())
}

/// The way to what does not fit is looked for only where it is needed: the text is read again then.
fn read_below<'de, T: Deserialize<'de>>(name: &str, text: &'de str) -> Result<T, Unfit> {
    serde_json::from_str(text).map_err(|error| {
        let mut json = serde_json::Deserializer::from_str(text);
        match serde_path_to_error::deserialize::<_, T>(&mut json) {
            Err(located) => Unfit::at(&place(name, &located.path().to_string()), &in_words(located.inner())),
            // Something follows it.
            Ok(_) => Unfit::at(name, &error.to_string()),
        }
    })
}

/// `below`: as `serde_path_to_error` writes it, `.` for the whole.
fn place(name: &str, below: &str) -> String {
    match (name, below) {
        (_, ".") => name.to_owned(),
        ("", _) => below.to_owned(),
        (_, item) if item.starts_with('[') => format!("{name}{item}"),
        (..) => format!("{name}.{below}"),
    }
}

/// What serde says of what is there, and what a writer of JSON says.
const THERE: [(&str, &str); 2] =
    [("invalid type: map,", "invalid type: object,"), ("invalid type: sequence,", "invalid type: array,")];

/// The same of what was wanted.
const WANTED: [(&str, &str); 8] = [
    ("expected a string", "expected a text"),
    ("expected a sequence", "expected an array"),
    ("expected a boolean", "expected true or false"),
    ("expected u64", "expected a whole number from 0"),
    ("expected u32", "expected a whole number from 0 to 4294967295"),
    ("expected u16", "expected a whole number from 0 to 65535"),
    ("expected u8", "expected a whole number from 0 to 255"),
    ("expected i64", "expected a whole number"),
];

/// Without line and column where the field says where.
fn in_words(error: &serde_json::Error) -> String {
    let said = error.to_string();
    if !error.is_data() {
        return said;
    }
    let place = format!(" at line {} column {}", error.line(), error.column());
    let said = said.strip_suffix(&place).unwrap_or(&said);
    let there = THERE.iter().find_map(|(theirs, ours)| Some(format!("{ours}{}", said.strip_prefix(theirs)?)));
    let said = there.unwrap_or_else(|| said.to_owned());
    let wanted = WANTED.iter().find_map(|(theirs, ours)| Some(format!("{}{ours}", said.strip_suffix(theirs)?)));
    wanted.unwrap_or(said)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use notifyx_model::{Category, GivenSpan, GivenTime, Priority};

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "what is read is looked at no further")]
    struct Body {
        category: Category,
        #[serde(default)]
        priority: Priority,
        at: Option<GivenTime>,
        every: Option<GivenSpan>,
        count: Option<u64>,
        flag: Option<bool>,
        #[serde(default)]
        to: Vec<String>,
        on: Option<Choice>,
        data: Option<Box<RawValue>>,
        #[serde(default)]
        deep: BTreeMap<String, Vec<Inner>>,
    }

    #[derive(Debug, Deserialize)]
    #[expect(dead_code, reason = "what is read is looked at no further")]
    struct Inner {
        size: u8,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Choice {
        One,
        TheOther,
    }

    #[test]
    fn what_does_not_fit_is_told_with_its_field_what_it_is_and_what_was_wanted() {
        for (more, told) in [
            (r#""category":7"#, "category: invalid type: integer `7`, expected a text"),
            (r#""category":null"#, "category: invalid type: null, expected a text"),
            (r#""category":"a/b""#, "category holds a /"),
            (
                r#""category":"c","priority":"high""#,
                "priority: invalid type: string \"high\", expected a whole number from 0 to 9",
            ),
            (r#""category":"c","priority":10"#, "priority 10 is not 0 to 9"),
            (r#""category":"c","priority":300"#, "priority 300 is not 0 to 9"),
            (
                r#""category":"c","priority":-1"#,
                "priority: invalid type: integer `-1`, expected a whole number from 0 to 9",
            ),
            (
                r#""category":"c","at":[1]"#,
                "at: invalid type: array, expected a time: a Unix time as a number, or RFC 3339 as a text",
            ),
            (
                r#""category":"c","every":true"#,
                "every: invalid type: boolean `true`, expected a span: a number of seconds, or a text such as 30s or PT30S",
            ),
            (r#""category":"c","count":-1"#, "count: invalid value: integer `-1`, expected a whole number from 0"),
            (
                r#""category":"c","count":1.5"#,
                "count: invalid type: floating point `1.5`, expected a whole number from 0",
            ),
            (
                r#""category":"c","count":"expected u64""#,
                "count: invalid type: string \"expected u64\", expected a whole number from 0",
            ),
            (r#""category":"c","flag":1"#, "flag: invalid type: integer `1`, expected true or false"),
            (r#""category":"c","to":"ann""#, "to: invalid type: string \"ann\", expected an array"),
            (r#""category":"c","to":["ann",{}]"#, "to[1]: invalid type: object, expected a text"),
            (r#""category":"c","on":"two""#, "on: unknown variant `two`, expected `one` or `the_other`"),
            (r#""category":"c","on":2"#, "on: expected value at line 1 column 22"),
            (
                r#""category":"c","deep":{"a":[{"size":1},{"size":256}]}"#,
                "deep.a[1].size: invalid value: integer `256`, expected a whole number from 0 to 255",
            ),
            (r#""category":"c","deep":{"a":[{}]}"#, "deep.a[0]: missing field `size`"),
            (r#""priority":1"#, "missing field `category`"),
            (r#""category":"c","category":"d""#, "duplicate field `category`"),
        ] {
            assert_eq!(read::<Body>(&format!("{{{more}}}")).unwrap_err().to_string(), told, "{more}");
        }
        let unknown = read::<Body>(r#"{"category":"c","colour":1}"#).unwrap_err().to_string();
        assert!(unknown.starts_with("unknown field `colour`, expected one of `category`, "), "{unknown}");
    }

    #[test]
    fn what_is_no_json_is_told_with_its_place() {
        for (text, told) in [
            ("{", "EOF while parsing an object at line 1 column 1"),
            ("{\"category\":\n NaN}", "category: expected value at line 2 column 2"),
            ("{\"category\":\"c\"} x", "trailing characters at line 1 column 18"),
        ] {
            assert_eq!(read::<Body>(text).unwrap_err().to_string(), told, "{text}");
        }
    }

    #[test]
    fn what_stands_under_a_name_is_told_with_it() {
        let raw = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
        for (text, told) in [
            ("{}", "to: invalid type: object, expected an array"),
            ("[1]", "to[0]: invalid type: integer `1`, expected a text"),
        ] {
            assert_eq!(field::<Vec<String>>("to", &raw(text)).unwrap_err().to_string(), told);
        }
        let inner = field::<Inner>("deep", &raw(r#"{"size":true}"#)).unwrap_err().to_string();
        assert_eq!(inner, "deep.size: invalid type: boolean `true`, expected a whole number from 0 to 255");
    }

    #[test]
    fn what_is_there_may_be_long_and_what_is_told_is_not() {
        let text = format!(r#"{{"category":"c","flag":"{}"}}"#, "é".repeat(100_000));
        let told = read::<Body>(&text).unwrap_err().to_string();
        assert!(told.starts_with("flag: invalid type: string \"éé") && told.ends_with("expected true or false"));
        assert!(told.chars().count() <= SAID_CHARS_MAX + 3, "{told}");
    }

    #[test]
    fn what_fits_is_read_with_its_raw_parts() {
        let read: Body = read(r#"{"category":"c","data":{"a": [1, 2]},"at":1.5,"every":"30s"}"#).unwrap();
        assert_eq!((read.category.as_str(), read.data.unwrap().get()), ("c", r#"{"a": [1, 2]}"#));
    }
}

//! Spans of time as they come from outside: `every` and its like, as numbers or text. Inside there is only [`Duration`].

use std::{convert::Infallible, str::FromStr, time::Duration};

use jiff::{Span, SpanRelativeTo};
use serde::{Deserialize, Deserializer, Serialize};

use crate::{Invalid, scalar::Scalar};

/// A span as somebody gave it, not judged yet: a number of seconds, or a text such as `30s`, `1h30m`, `7d` or `PT30S`.
///
/// A day is 24 hours and a week 7 days. Months and years are refused: their lengths differ.
#[derive(Clone, Debug, PartialEq, Serialize, utoipa::ToSchema)]
#[serde(untagged)]
pub enum GivenSpan {
    Seconds(f64),
    Text(String),
}

impl<'de> Deserialize<'de> for GivenSpan {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Ok(match Scalar::read(from, "a span: a number of seconds, or a text such as 30s or PT30S")? {
            Scalar::Number(seconds) => Self::Seconds(seconds),
            Scalar::Text(text) => Self::Text(text),
        })
    }
}

/// What a text of any span needs.
const TEXT_BYTES_MAX: usize = 64;

impl GivenSpan {
    /// The span meant, to the microsecond, at most `max`. `field` is its name where it was given: the answer begins with it.
    pub fn duration(&self, field: &'static str, max: Duration) -> Result<Duration, Invalid> {
        let refuse = |why: String| Invalid::new(field, why);
        let span = match self {
            Self::Seconds(seconds) if !seconds.is_finite() => return Err(refuse("is not a finite number".into())),
            Self::Seconds(seconds) if *seconds < 0.0 => return Err(refuse(format!("is negative ({seconds})"))),
            Self::Seconds(seconds) => Duration::try_from_secs_f64(*seconds).unwrap_or(Duration::MAX),
            Self::Text(text) => from_text(text).map_err(refuse)?,
        };
        if span > max {
            return Err(refuse(format!("is more than {} days", max.as_secs() / 86_400)));
        }
        Ok(Duration::from_micros(u64::try_from(span.as_micros()).unwrap_or(u64::MAX)))
    }
}

/// As typed on a command line: a number counts seconds.
impl FromStr for GivenSpan {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(text.parse().map_or_else(|_| Self::Text(text.to_owned()), Self::Seconds))
    }
}

fn from_text(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    if text.len() > TEXT_BYTES_MAX {
        return Err(format!("has {} bytes, more than {TEXT_BYTES_MAX}", text.len()));
    }
    let Ok(span) = text.parse::<Span>() else {
        return Err("is not a span of time, such as 30s, 15m, 1h30m, 7d or PT15M".into());
    };
    let Ok(length) = span.to_duration(SpanRelativeTo::days_are_24_hours()) else {
        return Err("counts months or years, whose lengths differ: count days, or use a calendar's rule (cron)".into());
    };
    Duration::try_from(length).map_err(|_| "is negative".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: Duration = Duration::from_secs(10 * 86_400);

    fn read(text: &str) -> Result<Duration, String> {
        text.parse::<GivenSpan>().unwrap().duration("every", MAX).map_err(|error| error.to_string())
    }

    #[test]
    fn a_span_is_seconds_or_says_its_units() {
        for (text, millis) in [
            ("30", 30_000),
            ("0.5", 500),
            ("30s", 30_000),
            ("PT30S", 30_000),
            ("1h30m", 5_400_000),
            ("1h 30m", 5_400_000),
            ("250ms", 250),
            ("7d", 604_800_000),
            ("1 week", 604_800_000),
            ("0s", 0),
        ] {
            assert_eq!(read(text), Ok(Duration::from_millis(millis)), "{text}");
        }
    }

    #[test]
    fn what_is_no_span_is_refused_by_the_name_of_its_field() {
        for (bad, answer) in [
            ("", "every is not a span of time"),
            ("soon", "every is not a span of time"),
            ("-30s", "every is negative"),
            ("-1", "every is negative (-1)"),
            ("NaN", "every is not a finite number"),
            ("inf", "every is not a finite number"),
            ("1 month", "every counts months or years"),
            ("P1Y", "every counts months or years"),
            ("11d", "every is more than 10 days"),
            ("1e300", "every is more than 10 days"),
        ] {
            let said = read(bad).unwrap_err();
            assert!(said.starts_with(answer), "{bad:?}: {said}");
        }
        assert!(read(&"1".repeat(400)).is_err());
        assert!(read(&format!("{}s", "1".repeat(100))).unwrap_err().contains("more than 64"));
    }
}

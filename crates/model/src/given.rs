//! Times as they come from outside: `fireAt` and its like, as numbers or text. Inside there is only [`Timestamp`].

use std::{convert::Infallible, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize};

use crate::{Invalid, Timestamp, scalar::Scalar};

/// A time as somebody gave it, not judged yet: a Unix time, or RFC 3339.
///
/// A number's magnitude tells its unit: below 10^11 it counts seconds, below 10^14 milliseconds, from there on
/// microseconds. Fractions are allowed and rounded to the microsecond; a double holds each one up to the year 2106
/// whatever the unit. Times before 2000 are refused: no event of today needs one, and a number in a wrong unit, or the
/// year 9999 in seconds, lands there instead of firing at once.
#[derive(Clone, Debug, PartialEq, Serialize, utoipa::ToSchema)]
#[serde(untagged)]
pub enum GivenTime {
    Unix(f64),
    Text(String),
}

impl<'de> Deserialize<'de> for GivenTime {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Ok(match Scalar::read(from, "a time: a Unix time as a number, or RFC 3339 as a text")? {
            Scalar::Number(number) => Self::Unix(number),
            Scalar::Text(text) => Self::Text(text),
        })
    }
}

/// 2000-01-01T00:00:00Z.
const EARLIEST: i64 = 946_684_800_000_000;

impl GivenTime {
    /// Ten years: beyond what a deployment outlives, and a guard against a number in a wrong unit.
    pub const AHEAD_MAX: Duration = Duration::from_secs(3_653 * 24 * 60 * 60);

    /// The moment meant, from 2000 on. `field` is its name where it was given: the answer begins with it.
    pub fn timestamp(&self, field: &'static str) -> Result<Timestamp, Invalid> {
        let (micros, read) = match self {
            Self::Unix(number) => from_number(field, *number)?,
            Self::Text(text) => (from_text(field, text)?, "RFC 3339"),
        };
        if micros >= EARLIEST {
            return Ok(Timestamp::from_micros(micros));
        }
        let at = Timestamp::from_micros(micros);
        Err(Invalid::new(field, format!("is {at} (read as {read}), before 2000-01-01T00:00:00Z")))
    }

    /// The moment at which something shall happen: at most [`GivenTime::AHEAD_MAX`] after `now`. One that has passed
    /// is welcome: it is due at once.
    pub fn fire_at(&self, field: &'static str, now: Timestamp) -> Result<Timestamp, Invalid> {
        let at = self.timestamp(field)?;
        if at <= now + Self::AHEAD_MAX {
            return Ok(at);
        }
        Err(Invalid::new(
            field,
            format!("is {at}, more than ten years ahead (at most {} from now)", now + Self::AHEAD_MAX),
        ))
    }
}

/// As typed on a command line or in a query: digits are a Unix time.
impl FromStr for GivenTime {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(text.parse().map_or_else(|_| Self::Text(text.to_owned()), Self::Unix))
    }
}

/// Microseconds since 1970, and the unit that the number was taken to be in.
fn from_number(field: &'static str, number: f64) -> Result<(i64, &'static str), Invalid> {
    let (scale, unit) = match number {
        _ if !number.is_finite() => return Err(Invalid::new(field, "is not a finite number")),
        _ if number < 0.0 => return Err(Invalid::new(field, format!("is negative ({number})"))),
        _ if number < 1e11 => (1e6, "seconds"),
        _ if number < 1e14 => (1e3, "milliseconds"),
        _ => (1.0, "microseconds"),
    };
    #[expect(clippy::cast_possible_truncation, reason = "saturates, and the end of time is refused by its bound")]
    Ok(((number * scale).round() as i64, unit))
}

fn from_text(field: &'static str, text: &str) -> Result<i64, Invalid> {
    let read = (text.len() <= 64).then(|| text.parse::<jiff::Timestamp>().ok()).flatten();
    read.map(jiff::Timestamp::as_microsecond).ok_or_else(|| {
        let why = "is neither a Unix time (a number) nor RFC 3339 with an offset, such as 2026-11-21T15:50:00.5Z, up to \
                   the year 9999";
        Invalid::new(field, why)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-11-21T15:50:00.123456Z
    const MICROS: i64 = 1_795_276_200_123_456;

    fn now() -> Timestamp {
        Timestamp::from_micros(MICROS)
    }

    fn text(text: &str) -> GivenTime {
        GivenTime::Text(text.into())
    }

    #[test]
    fn the_magnitude_tells_the_unit() {
        for (number, micros) in [
            (1_795_276_200.0, 1_795_276_200_000_000),
            (1_795_276_200.123_456, MICROS),
            (1_795_276_200_123.0, 1_795_276_200_123_000),
            (1_795_276_200_123.456, MICROS),
            (1_795_276_200_123_456.0, MICROS),
            (1_795_276_200_123_456.3, MICROS),
        ] {
            assert_eq!(GivenTime::Unix(number).timestamp("fireAt").unwrap().as_micros(), micros, "{number}");
        }
    }

    #[test]
    fn no_microsecond_is_lost_in_any_unit() {
        // A step that meets every remainder of a million, over the years 2000 to 2106.
        let mut micros = EARLIEST;
        while micros < 4_294_967_296_000_000 {
            let seconds = format!("{}.{:06}", micros / 1_000_000, micros % 1_000_000);
            let millis = format!("{}.{:03}", micros / 1_000, micros % 1_000);
            for given in [seconds, millis, micros.to_string(), Timestamp::from_micros(micros).to_string()] {
                let read: GivenTime = given.parse().unwrap();
                assert_eq!(read.timestamp("fireAt").unwrap().as_micros(), micros, "{given}");
            }
            micros += 33_333_333_337;
        }
    }

    #[test]
    fn rfc_3339_is_read_with_its_offset() {
        let at = text("2026-11-21T16:50:00.123456+01:00").timestamp("fireAt").unwrap();
        assert_eq!(at.as_micros(), MICROS);
    }

    #[test]
    fn what_is_no_time_is_refused_by_the_name_of_its_field() {
        for bad in ["", "soon", "2026-11-21", "2026-11-21T15:50:00", "2026-13-01T00:00:00Z", "1795276200"] {
            let answer = text(bad).timestamp("createdAt").unwrap_err().to_string();
            assert!(answer.starts_with("createdAt is neither a Unix time"), "{bad}: {answer}");
        }
        assert!(text(&"2".repeat(1_000_000)).timestamp("fireAt").is_err());
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(
                GivenTime::Unix(bad).timestamp("fireAt").unwrap_err().to_string(),
                "fireAt is not a finite number"
            );
        }
        assert_eq!(GivenTime::Unix(-1.5).timestamp("fireAt").unwrap_err().to_string(), "fireAt is negative (-1.5)");
    }

    #[test]
    fn a_number_in_a_wrong_unit_is_refused_not_fired_at_once() {
        assert_eq!(
            GivenTime::Unix(60.0).fire_at("fireAt", now()).unwrap_err().to_string(),
            "fireAt is 1970-01-01T00:01:00Z (read as seconds), before 2000-01-01T00:00:00Z"
        );
        // The year 9999, in each unit and in words.
        for far in [253_370_764_800.0, 253_370_764_800_000.0, 253_370_764_800_000_000.0, f64::MAX] {
            assert!(GivenTime::Unix(far).fire_at("fireAt", now()).is_err(), "{far}");
        }
        for far in ["9999-01-01T00:00:00Z", "9999-12-31T23:59:59Z"] {
            assert!(text(far).fire_at("fireAt", now()).is_err(), "{far}");
        }
    }

    #[test]
    fn ten_years_ahead_is_the_end_and_the_past_is_welcome() {
        let given = |at: Timestamp| text(&at.to_string());
        let end = now() + GivenTime::AHEAD_MAX;
        assert_eq!(given(end).fire_at("fireAt", now()), Ok(end));
        assert_eq!(
            given(end + Duration::from_micros(1)).fire_at("fireAt", now()).unwrap_err().to_string(),
            "fireAt is 2036-11-21T15:50:00.123457Z, more than ten years ahead (at most 2036-11-21T15:50:00.123456Z from \
             now)"
        );
        let past = now() - Duration::from_secs(1_000_000);
        assert_eq!(given(past).fire_at("fireAt", now()), Ok(past));
    }
}

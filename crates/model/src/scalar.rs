//! What may be a number or a text, as JSON has them. What is neither is refused with what it is and what was wanted.

use std::fmt;

use serde::{
    Deserializer,
    de::{Error, Visitor},
};

/// What was given.
pub(crate) enum Scalar {
    Number(f64),
    Text(String),
}

impl Scalar {
    /// `wanted`: what ought to stand there, for whoever gave something else.
    pub(crate) fn read<'de, D: Deserializer<'de>>(from: D, wanted: &'static str) -> Result<Self, D::Error> {
        from.deserialize_any(Wanted(wanted))
    }
}

struct Wanted(&'static str);

impl Visitor<'_> for Wanted {
    type Value = Scalar;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Scalar, E> {
        Ok(Scalar::Number(number as f64))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Scalar, E> {
        Ok(Scalar::Number(number as f64))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Scalar, E> {
        Ok(Scalar::Number(number))
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Scalar, E> {
        Ok(Scalar::Text(text.to_owned()))
    }
}

//! Between columns and the domain's types: both databases know signed numbers only, and text that anybody may have written.

use std::{fmt, time::Duration};

use crate::Error;

/// Offsets, numbers and counts are never negative in a store.
pub fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

/// What is above the largest number that a column holds means "all".
pub fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A span in microseconds. The longest is as good as for ever, and can still be added to any time.
pub fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX).min(i64::MAX / 2)
}

/// What was read, as the domain's type; an error names what it is that this binary never wrote.
pub fn stored<T>(what: &'static str, parsed: Result<T, impl fmt::Display>) -> Result<T, Error> {
    parsed.map_err(|why| Error::Stored { what, why: why.to_string() })
}

/// Converts all rows that were fetched.
pub fn all<R, T: TryFrom<R>>(rows: Vec<R>) -> Result<Vec<T>, T::Error> {
    rows.into_iter().map(T::try_from).collect()
}

#[cfg(test)]
mod tests {
    use notifyx_model::{Fault, Kind, Priority};

    use super::*;

    #[test]
    fn numbers_stay_within_their_column() {
        assert_eq!((unsigned(7), unsigned(-1)), (7, 0));
        assert_eq!((signed(7), signed(u64::MAX)), (7, i64::MAX));
        let now = 1_767_225_600_000_000_i64;
        assert!(now.checked_add(micros(Duration::MAX)).is_some(), "for ever from now");
        assert_eq!(micros(Duration::from_secs(1)), 1_000_000);
    }

    #[test]
    fn what_does_not_read_back_is_named() {
        let error = stored("priority", Priority::try_from(200)).unwrap_err();
        assert!(error.to_string().starts_with("a stored priority is not valid: "), "{error}");
        assert_eq!((error.kind(), error.code()), (Kind::Internal, "store_broken"));
    }
}

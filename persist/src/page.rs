//! The bounds of a page, and where the next one begins.

use notifyx_wire::rest;

use crate::Error;

pub(crate) const MAX: u32 = rest::PAGE_MAX;

/// Of messages in one page: a full batch of short ones, or 64 of the longest. A page that reaches it is shorter than its limit.
pub(crate) const BYTES_MAX: u32 = 4 * 1024 * 1024;

/// The lines of a page whose caller may have said how many.
pub(crate) fn limit(asked: Option<u32>, max: u32) -> Result<u32, Error> {
    match asked {
        None => Ok(rest::PAGE_DEFAULT),
        Some(limit) if (1..=max).contains(&limit) => Ok(limit),
        Some(limit) => Err(Error::Limit { limit, max }),
    }
}

/// Cuts a list that was read one line too long, and tells where the next page begins.
pub(crate) fn cut<T, K>(lines: &mut Vec<T>, limit: u32, key: impl Fn(&T) -> K) -> Option<K> {
    if lines.len() <= limit as usize {
        return None;
    }
    lines.truncate(limit as usize);
    lines.last().map(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_bounded() {
        assert_eq!(limit(None, 500).unwrap(), 50);
        assert_eq!(limit(Some(500), 500).unwrap(), 500);
        assert_eq!(limit(Some(0), 500).unwrap_err().to_string(), "a limit of 0 is not 1 to 500");
        assert!(limit(Some(501), 500).is_err());
    }

    #[test]
    fn the_next_page_begins_after_the_last_line() {
        let mut lines = vec![1, 2, 3];
        assert_eq!(cut(&mut lines, 2, |n| *n), Some(2));
        assert_eq!(lines, [1, 2]);
        assert_eq!(cut(&mut lines, 2, |n| *n), None);
    }
}

//! The messages that are published: a mark, a number, and letters up to the size asked for.
//!
//! The number sits at the same place of every frame of a server, so that a delivery is known without parsing JSON.

const MARK: &[u8] = b"@@";
const DIGITS: usize = 10;
/// The least that holds the mark and the number.
pub(crate) const BYTES_MIN: usize = MARK.len() + DIGITS;

/// Message number `seq`, of `bytes` bytes, none of which JSON would escape.
pub(crate) fn text(seq: u32, bytes: usize) -> String {
    let mut text = format!("@@{seq:0DIGITS$}");
    text.extend(('a'..='z').cycle().take(bytes.saturating_sub(BYTES_MIN)));
    text
}

/// Finds the number in a frame: searched in the first one, from then on where it was.
#[derive(Debug, Default)]
pub(crate) struct Finder {
    place: usize,
}

impl Finder {
    /// `None` for a frame that is none of ours (the reply to a heartbeat).
    pub(crate) fn seq(&mut self, frame: &[u8]) -> Option<u32> {
        if !frame.get(self.place..)?.starts_with(MARK) {
            self.place = frame.windows(MARK.len()).position(|two| two == MARK)?;
        }
        let digits = frame.get(self.place + MARK.len()..self.place + BYTES_MIN)?;
        digits.iter().try_fold(0_u32, |number, &digit| {
            let digit = digit.is_ascii_digit().then(|| u32::from(digit - b'0'))?;
            number.checked_mul(10)?.checked_add(digit)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_the_size_asked_for() {
        assert_eq!(text(7, 200).len(), 200);
        assert_eq!(text(u32::MAX, BYTES_MIN), "@@4294967295");
    }

    #[test]
    fn the_number_is_found_also_where_it_moved() {
        let mut finder = Finder::default();
        for prefix in ["[\"message\":\"", "[\"message\":\"", "", "longer than before "] {
            assert_eq!(finder.seq(format!("{prefix}{}", text(42, 60)).as_bytes()), Some(42), "{prefix}");
        }
    }

    #[test]
    fn other_frames_have_no_number() {
        let mut finder = Finder::default();
        finder.seq(text(1, 60).as_bytes());
        for frame in ["", "@", "@@12", "@@99999999999999", "[null,\"1\",\"phoenix\",\"phx_reply\",{}]"] {
            assert_eq!(finder.seq(frame.as_bytes()), None, "{frame}");
        }
    }
}

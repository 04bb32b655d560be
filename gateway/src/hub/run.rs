//! Frames of one topic that go out together.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use notifyx_model::Notification;

/// One notification on its way to the sockets: encoded once, shared by all.
#[derive(Clone, Debug)]
pub(crate) struct Dispatch {
    pub(crate) notification: Arc<Notification>,
    /// The whole frame, as it goes onto the wire.
    pub(crate) frame: Bytes,
}

/// Joined frames of at most this size, so that a socket that keeps up takes them in few writes and one that does not is
/// judged by what waits, not by what came at once. One larger frame goes alone.
const RUN_BYTES_MAX: usize = 64 * 1024;

/// Consecutive frames in one piece of memory, by offset.
#[derive(Debug)]
pub(crate) struct Run {
    bytes: Bytes,
    /// Offset of each frame and where it ends.
    ends: Vec<(u64, usize)>,
}

impl Run {
    /// Joins frames in order. A single one is not copied.
    pub(crate) fn join(frames: &[(u64, Bytes)]) -> Self {
        if let [(offset, frame)] = frames {
            return Self { bytes: frame.clone(), ends: vec![(*offset, frame.len())] };
        }
        let mut bytes = BytesMut::with_capacity(frames.iter().map(|(_, frame)| frame.len()).sum());
        let mut ends = Vec::with_capacity(frames.len());
        for (offset, frame) in frames {
            bytes.extend_from_slice(frame);
            ends.push((*offset, bytes.len()));
        }
        Self { bytes: bytes.freeze(), ends }
    }

    /// Cuts frames into runs of bounded size.
    pub(crate) fn cut(frames: &[(u64, Bytes)]) -> impl Iterator<Item = Self> {
        let mut rest = frames;
        std::iter::from_fn(move || {
            let mut bytes = 0;
            let fits = rest.iter().take_while(|(_, frame)| {
                bytes += frame.len();
                bytes <= RUN_BYTES_MAX
            });
            let (run, after) = rest.split_at(fits.count().max(1).min(rest.len()));
            rest = after;
            (!run.is_empty()).then(|| Self::join(run))
        })
    }

    /// The frames above an offset, and how many they are.
    pub(crate) fn after(&self, offset: u64) -> Option<(Bytes, usize)> {
        let skipped = self.ends.partition_point(|&(o, _)| o <= offset);
        let frames = self.ends.len() - skipped;
        match (skipped, frames) {
            (_, 0) => None,
            (0, _) => Some((self.bytes.clone(), frames)),
            _ => Some((self.bytes.slice(self.ends[skipped - 1].1..), frames)),
        }
    }

    pub(crate) fn last(&self) -> u64 {
        self.ends.last().map_or(0, |&(offset, _)| offset)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub(crate) fn frames(&self) -> usize {
        self.ends.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(sizes: &[usize]) -> Vec<(u64, Bytes)> {
        (1..).zip(sizes).map(|(offset, &size)| (offset, Bytes::from(vec![b'x'; size]))).collect()
    }

    #[test]
    fn a_run_gives_what_lies_above_an_offset() {
        let run = Run::join(&[
            (3, Bytes::from_static(b"aa")),
            (5, Bytes::from_static(b"b")),
            (6, Bytes::from_static(b"ccc")),
        ]);
        let after =
            |offset| run.after(offset).map(|(bytes, frames)| (String::from_utf8(bytes.to_vec()).unwrap(), frames));
        assert_eq!(after(0), Some(("aabccc".into(), 3)));
        assert_eq!(after(3), Some(("bccc".into(), 2)));
        assert_eq!(after(4), Some(("bccc".into(), 2)));
        assert_eq!(after(5), Some(("ccc".into(), 1)));
        assert_eq!(after(6), None);
        assert_eq!(run.last(), 6);
    }

    #[test]
    fn runs_are_bounded_and_lose_nothing() {
        let sizes = [10, RUN_BYTES_MAX + 1, 20, RUN_BYTES_MAX - 20, 1, 2];
        let runs: Vec<_> = Run::cut(&frames(&sizes)).map(|run| (run.last(), run.frames())).collect();
        assert_eq!(runs, [(1, 1), (2, 1), (4, 2), (6, 2)]);
        assert_eq!(Run::cut(&[]).count(), 0);
    }
}

//! Messages of one stream that go out together.

use std::{cell::OnceCell, ops::Range, sync::Arc};

use bytes::{Bytes, BytesMut};
use notifyx_model::{Notification, UserId};

use super::counted::{Form, Renderings};

/// One message of a stream on its way to the sockets: encoded once, shared by all.
#[derive(Clone, Debug)]
pub(crate) enum Dispatch {
    Notification {
        notification: Arc<Notification>,
        /// The whole Phoenix frame, as it goes onto the wire.
        frame: Bytes,
    },
    Event(EventFrame),
}

/// An event that fired, in one piece of memory for every form in which it goes out.
#[derive(Clone, Debug)]
pub(crate) struct EventFrame {
    pub(crate) offset: u64,
    /// The whole Phoenix frame.
    pub(crate) frame: Bytes,
    /// Where in it the event's JSON object lies, without its closing brace: a stream that counts adds a member. It holds no
    /// line break.
    pub(crate) object: Range<usize>,
}

impl Dispatch {
    pub(crate) fn offset(&self) -> u64 {
        match self {
            Self::Notification { notification, .. } => notification.offset,
            Self::Event(event) => event.offset,
        }
    }

    /// As a Phoenix client gets it.
    pub(crate) fn frame(&self) -> &Bytes {
        match self {
            Self::Notification { frame, .. } => frame,
            Self::Event(event) => &event.frame,
        }
    }

    /// Whom alone it concerns; empty means everyone.
    pub(crate) fn to(&self) -> &[UserId] {
        match self {
            Self::Notification { notification, .. } => &notification.to,
            Self::Event(_) => &[],
        }
    }

    /// Its number among a topic's broadcasts.
    pub(crate) fn broadcast_no(&self) -> Option<u64> {
        match self {
            Self::Notification { notification, .. } => notification.broadcast_no,
            Self::Event(_) => None,
        }
    }
}

/// Joined frames of at most this size, so that a socket that keeps up takes them in few writes and one that does not is
/// judged by what waits, not by what came at once. One larger frame goes alone.
const RUN_BYTES_MAX: usize = 64 * 1024;

/// Consecutive messages, by offset; joined once for all that take them in the same form.
#[derive(Debug)]
pub(crate) struct Run {
    dispatches: Vec<Dispatch>,
    bytes: usize,
    phoenix: OnceCell<Joined>,
    counted: Renderings,
}

/// Frames in one piece of memory, and where each ends.
#[derive(Debug)]
struct Joined {
    bytes: Bytes,
    ends: Vec<usize>,
}

impl Run {
    pub(crate) fn new(dispatches: Vec<Dispatch>) -> Self {
        let bytes = dispatches.iter().map(|dispatch| dispatch.frame().len()).sum();
        Self { dispatches, bytes, phoenix: OnceCell::new(), counted: Renderings::default() }
    }

    /// Cuts messages into runs of bounded size.
    pub(crate) fn cut(dispatches: &[Dispatch]) -> impl Iterator<Item = Self> {
        let mut rest = dispatches;
        std::iter::from_fn(move || {
            let mut bytes = 0;
            let fits = rest.iter().take_while(|dispatch| {
                bytes += dispatch.frame().len();
                bytes <= RUN_BYTES_MAX
            });
            let (run, after) = rest.split_at(fits.count().max(1).min(rest.len()));
            rest = after;
            (!run.is_empty()).then(|| Self::new(run.to_vec()))
        })
    }

    /// The Phoenix frames above an offset, and how many they are.
    pub(crate) fn after(&self, offset: u64) -> Option<(Bytes, usize)> {
        let skipped = self.up_to(offset);
        let frames = self.dispatches.len() - skipped;
        if frames == 0 {
            return None;
        }
        let Joined { bytes, ends } = self.phoenix.get_or_init(|| Joined::of(&self.dispatches));
        let begin = if skipped == 0 { 0 } else { ends[skipped - 1] };
        Some((bytes.slice(begin..), frames))
    }

    /// The events above an offset for a connection whose count of the first of them is `first`, and how many they are.
    pub(crate) fn counted(&self, form: Form, offset: u64, first: u64) -> Option<(Bytes, usize)> {
        let skipped = self.up_to(offset);
        let rest = &self.dispatches[skipped..];
        let events = rest.iter().filter_map(|dispatch| match dispatch {
            Dispatch::Event(event) => Some(event),
            Dispatch::Notification { .. } => None,
        });
        (!rest.is_empty()).then(|| (self.counted.get((form, skipped, first), events), rest.len()))
    }

    #[cfg(test)]
    pub(super) fn renderings(&self) -> &Renderings {
        &self.counted
    }

    /// How many of its messages are not above an offset.
    fn up_to(&self, offset: u64) -> usize {
        self.dispatches.partition_point(|dispatch| dispatch.offset() <= offset)
    }

    pub(crate) fn last(&self) -> u64 {
        self.dispatches.last().map_or(0, Dispatch::offset)
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn frames(&self) -> usize {
        self.dispatches.len()
    }
}

impl Joined {
    /// A single one is not copied.
    fn of(dispatches: &[Dispatch]) -> Self {
        if let [one] = dispatches {
            return Self { bytes: one.frame().clone(), ends: vec![one.frame().len()] };
        }
        let mut bytes = BytesMut::with_capacity(dispatches.iter().map(|dispatch| dispatch.frame().len()).sum());
        let mut ends = Vec::with_capacity(dispatches.len());
        for dispatch in dispatches {
            bytes.extend_from_slice(dispatch.frame());
            ends.push(bytes.len());
        }
        Self { bytes: bytes.freeze(), ends }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dispatch(offset: u64, frame: impl Into<Bytes>) -> Dispatch {
        Dispatch::Event(EventFrame { offset, frame: frame.into(), object: 0..0 })
    }

    fn dispatches(sizes: &[usize]) -> Vec<Dispatch> {
        (1..).zip(sizes).map(|(offset, &size)| dispatch(offset, vec![b'x'; size])).collect()
    }

    #[test]
    fn a_run_gives_what_lies_above_an_offset() {
        let run = Run::new(vec![dispatch(3, &b"aa"[..]), dispatch(5, &b"b"[..]), dispatch(6, &b"ccc"[..])]);
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
        let runs: Vec<_> = Run::cut(&dispatches(&sizes)).map(|run| (run.last(), run.frames())).collect();
        assert_eq!(runs, [(1, 1), (2, 1), (4, 2), (6, 2)]);
        assert_eq!(Run::cut(&[]).count(), 0);
    }
}

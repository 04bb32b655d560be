//! Events in the forms that count: each object ends with how many this connection has received. All before that number is
//! encoded once for everybody, and connections that have counted alike share the whole.

use std::{
    cell::{Cell, RefCell},
    fmt::Write,
    rc::Rc,
};

use bytes::{BufMut, Bytes, BytesMut};
use notifyx_wire::websocket;

use super::{
    outlet::{Audience, Outlet},
    run::{EventFrame, Run},
};

/// How an event is wrapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// A text frame.
    WebSocket,
    /// Server-Sent Events: `id`, `event` and `data`.
    ServerSent,
}

/// Around an event's object: a frame's header, or the fields' names and an offset, and the count.
const AROUND_BYTES: usize = 64;

impl Form {
    /// Says that not all above the offset that was asked for follows: only what is above this one.
    pub(crate) fn gap(self, offset: u64) -> Bytes {
        let object = format!(r#"{{"recovered":false,"offset":{offset}}}"#);
        match self {
            Self::WebSocket => websocket::text(&object),
            Self::ServerSent => format!("id: {offset}\nevent: gap\ndata: {object}\n\n").into(),
        }
    }

    /// Events one after another, the first of them with this count.
    fn render<'a>(self, events: impl Iterator<Item = &'a EventFrame> + Clone, first: u64) -> Bytes {
        let size = events.clone().map(|event| event.object.len() + AROUND_BYTES).sum();
        let (mut bytes, mut tail) = (BytesMut::with_capacity(size), String::new());
        for (event, count) in events.zip(first..) {
            let object = &event.frame[event.object.clone()];
            tail.clear();
            write!(tail, ",\"count\":{count}}}").expect("into memory");
            match self {
                Self::WebSocket => websocket::put_text(&mut bytes, &[object, tail.as_bytes()]),
                Self::ServerSent => {
                    write!(bytes, "id: {}\nevent: event\ndata: ", event.offset).expect("into memory");
                    bytes.put_slice(object);
                    bytes.put_slice(tail.as_bytes());
                    bytes.put_slice(b"\n\n");
                }
            }
        }
        bytes.freeze()
    }
}

/// A connection that counts.
pub(crate) struct Counted {
    outlet: Rc<dyn Outlet>,
    form: Form,
    count: Cell<u64>,
}

impl Counted {
    pub(crate) fn new(outlet: Rc<dyn Outlet>, form: Form) -> Self {
        Self { outlet, form, count: Cell::new(0) }
    }
}

impl Audience for Counted {
    fn deliver(&self, run: &Run, after: u64) -> usize {
        let counted = self.count.get();
        let Some((bytes, events)) = run.counted(self.form, after, counted + 1) else { return 0 };
        self.count.set(counted + events as u64);
        self.outlet.send(&bytes, events);
        events
    }

    fn outlet(&self) -> &dyn Outlet {
        &*self.outlet
    }
}

/// Renderings of one run that may be wanted again. Clients come in waves: who came together has counted alike.
const KEPT_MAX: usize = 8;

#[derive(Debug, Default)]
pub(super) struct Renderings(RefCell<Vec<(Wanted, Bytes)>>);

/// Which form, how many of the run are left out, and the count of the first that is not.
type Wanted = (Form, usize, u64);

impl Renderings {
    /// The events as they are wanted; written now, unless they just were.
    pub(super) fn get<'a>(&self, wanted: Wanted, events: impl Iterator<Item = &'a EventFrame> + Clone) -> Bytes {
        let mut kept = self.0.borrow_mut();
        if let Some((_, bytes)) = kept.iter().find(|(made, _)| *made == wanted) {
            return bytes.clone();
        }
        let (form, _, first) = wanted;
        let bytes = form.render(events, first);
        if kept.len() == KEPT_MAX {
            kept.remove(0);
        }
        kept.push((wanted, bytes.clone()));
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{hub::Dispatch, testing::texts};

    /// Events with these offsets, whose objects hold the offset and so many bytes more.
    fn run(offsets: &[u64], more: usize) -> Run {
        Run::new(
            offsets
                .iter()
                .map(|&offset| {
                    let object = format!("{{\"offset\":{offset},\"data\":\"{}\"", "x".repeat(more));
                    let frame = format!("before{object}}}]");
                    Dispatch::Event(EventFrame { offset, frame: frame.into(), object: 6..6 + object.len() })
                })
                .collect(),
        )
    }

    #[test]
    fn each_connection_counts_for_itself_and_those_that_counted_alike_share_the_bytes() {
        let run = run(&[5, 6, 7], 0);
        let (bytes, events) = run.counted(Form::WebSocket, 5, 10).unwrap();
        assert_eq!(events, 2);
        assert_eq!(texts(&bytes), [r#"{"offset":6,"data":"","count":10}"#, r#"{"offset":7,"data":"","count":11}"#]);
        let (again, _) = run.counted(Form::WebSocket, 5, 10).unwrap();
        assert_eq!(bytes.as_ptr(), again.as_ptr(), "made once");
        let (other, events) = run.counted(Form::WebSocket, 0, 1).unwrap();
        assert_eq!((events, texts(&other)[2].as_str()), (3, r#"{"offset":7,"data":"","count":3}"#));
        assert!(run.counted(Form::WebSocket, 7, 1).is_none());
        for first in 0..3 * KEPT_MAX as u64 {
            run.counted(Form::ServerSent, 0, first);
        }
        assert_eq!(run.renderings().0.borrow().len(), KEPT_MAX);
    }

    #[test]
    fn server_sent_events_carry_the_offset_as_their_id() {
        let (bytes, _) = run(&[7], 1).counted(Form::ServerSent, 0, 1).unwrap();
        assert_eq!(bytes, "id: 7\nevent: event\ndata: {\"offset\":7,\"data\":\"x\",\"count\":1}\n\n");
        assert_eq!(Form::ServerSent.gap(9), "id: 9\nevent: gap\ndata: {\"recovered\":false,\"offset\":9}\n\n");
        assert_eq!(texts(&Form::WebSocket.gap(9)), [r#"{"recovered":false,"offset":9}"#]);
    }

    #[test]
    fn frames_of_every_length_are_whole() {
        // Around the lengths at which a frame's header grows.
        for more in (60..130).chain(65_470..65_540) {
            let (bytes, _) = run(&[1, 2], more).counted(Form::WebSocket, 0, 99).unwrap();
            let found = texts(&bytes);
            assert_eq!(found.len(), 2);
            assert!(found[1].ends_with("\",\"count\":100}"), "{more}");
        }
    }
}

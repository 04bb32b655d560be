//! A connection that listens to the events of one category and counts them: what it missed, then what comes.
//!
//! Where it begins is settled before the client is answered, so that whatever fires after the answer reaches it.

use std::{cell::RefCell, rc::Rc};

use notifyx_model::Category;
use notifyx_wire::rest::Problem;
use tokio::task::AbortHandle;

use crate::{
    desk::{CALL_DEADLINE, Desk, Unanswered},
    feed::Categories,
    hub::{Counted, Ending, Form, Outlet, Seat},
    listen::{self, Listening},
};

/// Listens already, and has said nothing yet.
pub(super) struct Ready {
    desk: Rc<Desk>,
    category: Category,
    listening: Listening<Categories>,
    outlet: Rc<dyn Outlet>,
    form: Form,
    asked: bool,
}

impl Ready {
    /// Above `from`, or from now on. Nothing goes out through the outlet yet.
    pub(super) async fn to(
        desk: Rc<Desk>,
        category: Category,
        from: Option<u64>,
        (outlet, form): (Rc<dyn Outlet>, Form),
    ) -> Result<Self, Problem> {
        let audience = Rc::new(Counted::new(outlet.clone(), form));
        let listening = tokio::time::timeout(CALL_DEADLINE, listen::category(&desk, &category, from, audience)).await;
        let listening = listening.unwrap_or_else(|_| Err(Unanswered::Late.into())).inspect_err(|problem| {
            tracing::warn!(%category, "nobody can listen to category `{category}` now: {}", problem.detail);
        })?;
        Ok(Self { desk, category, listening, outlet, form, asked: from.is_some() })
    }

    /// Sends what was missed, and what comes from now on.
    pub(super) fn begin(self) -> Listener {
        let Self { desk, category, listening, outlet, form, asked } = self;
        if asked && !listening.recovered {
            outlet.send(&form.gap(listening.head), 1);
        }
        let seat = Rc::new(RefCell::new(None));
        let place = seat.clone();
        let catching_up = tokio::task::spawn_local(async move {
            match listening.run(&desk, || !outlet.is_open()).await {
                Ok(seat) => *place.borrow_mut() = Some(seat),
                Err(problem) => {
                    tracing::warn!(%category, "a client could not be brought up to date on category `{category}`: {}", problem.detail);
                    // It comes back with the offset it has.
                    outlet.end(Ending::Unavailable);
                }
            }
        });
        Listener { _seat: seat, catching_up: catching_up.abort_handle() }
    }
}

/// Dropping it ends the stream.
pub(super) struct Listener {
    /// Taken once the client is up to date.
    _seat: Rc<RefCell<Option<Seat>>>,
    catching_up: AbortHandle,
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.catching_up.abort();
    }
}

//! Listening to a stream from an offset on: nothing missed, nothing twice, in order, whoever publishes meanwhile.
//!
//! First the seat is taken, and all that comes is kept; then the store says where the stream stands (`H`); then the feed
//! says from where on it delivers. Up to the larger of the two the store is read, above it what was kept is sent, and the
//! seat turns live in one step.

mod catch_up;

use std::rc::Rc;

use notifyx_model::{Category, UserId};
use notifyx_wire::rest::Problem;

use crate::{
    desk::{Desk, Unanswered},
    feed::{Categories, Source},
    hub::{Audience, Seat},
};
use catch_up::{CatchUp, Missed};

/// Who missed more begins anew with what comes, and reads the rest in pages.
pub(crate) const MISSED_MAX: u64 = 1_000;

/// Where a stream stands, as the store says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Standing<I> {
    pub(crate) id: I,
    pub(crate) head: u64,
    /// All up to here is gone.
    pub(crate) trimmed: u64,
}

/// A seat that is taken, and keeps what comes until it is known where to begin.
pub(crate) struct Entered<S: Source> {
    name: S::Name,
    user: Option<UserId>,
    audience: Rc<dyn Audience>,
    seat: Seat,
}

/// A listener that knows where it begins, and has been sent nothing yet.
pub(crate) struct Listening<S: Source> {
    /// Everything above comes.
    pub(crate) head: u64,
    /// And everything above the offset that the listener named. False where it named none.
    pub(crate) recovered: bool,
    seat: Seat,
    catch_up: CatchUp<S>,
    first: Missed,
}

/// Takes a seat, and asks the feed for the stream. `user` is whom a targeted message concerns.
pub(crate) async fn enter<S: Source>(
    desk: &Desk,
    name: &S::Name,
    user: Option<UserId>,
    audience: Rc<dyn Audience>,
) -> Result<Entered<S>, Problem> {
    let worker = &desk.worker;
    let seat = worker.enter(&S::stream(name), user, audience.clone());
    if seat.covered().is_none() {
        S::wishes(&worker.following).follow(name, worker.id).await.map_err(Unanswered::from)?;
    }
    Ok(Entered { name: name.clone(), user, audience, seat })
}

/// Listens to a category, from what is above `from` on or from now on.
pub(crate) async fn category(
    desk: &Desk,
    category: &Category,
    from: Option<u64>,
    audience: Rc<dyn Audience>,
) -> Result<Listening<Categories>, Problem> {
    let entered = enter::<Categories>(desk, category, None, audience).await?;
    let standing = match entered.seat.covered() {
        // Where delivery stands is as good a place to begin as where the log stands, and costs no call.
        Some(delivered) if from.is_none_or(|from| from == delivered) => {
            Standing { id: (), head: delivered, trimmed: 0 }
        }
        Some(_) | None => {
            let category = category.clone();
            let head = desk.call(|platform| async move { platform.category_head(&category).await }).await?;
            Standing { id: (), head: head.offset, trimmed: head.trimmed }
        }
    };
    entered.begin(desk, standing, from).await
}

impl<S: Source> Entered<S> {
    /// Reads the beginning of what came after `last`, if that is not too much.
    pub(crate) async fn begin(
        self,
        desk: &Desk,
        standing: Standing<S::Id>,
        last: Option<u64>,
    ) -> Result<Listening<S>, Problem> {
        let Self { name, user, audience, mut seat } = self;
        let Standing { id, head, .. } = standing;
        let covered = if let Some(covered) = seat.covered() {
            covered
        } else {
            let wishes = S::wishes(&desk.worker.following);
            seat.feed_begins(wishes.start(&name, id, head).await.map_err(Unanswered::from)?)
        };
        let after = last.filter(|last| can_recover(*last, &standing));
        let mut recovered = after.is_some();
        let position = after.unwrap_or(head);
        let mut catch_up = CatchUp::<S> { name, id, user, audience, position, up_to: covered.max(head) };
        let mut first = catch_up.read(desk).await?;
        first.all_after(head)?;
        if recovered && first.trimmed > position {
            // History was trimmed between the two reads.
            recovered = false;
            catch_up.position = catch_up.position.max(head);
            first.skip(head);
        }
        Ok(Listening { head, recovered, seat, catch_up, first })
    }
}

impl<S: Source> Listening<S> {
    /// Sends what was missed at the pace of the client, then turns live. It ends early where `is_over`.
    pub(crate) async fn run(self, desk: &Desk, is_over: impl Fn() -> bool) -> Result<Seat, Problem> {
        self.catch_up.run(desk, is_over, self.seat, self.first).await
    }
}

/// Whether all that came after `last` can be delivered.
fn can_recover<I>(last: u64, standing: &Standing<I>) -> bool {
    last >= standing.trimmed && standing.head.checked_sub(last).is_some_and(|missed| missed <= MISSED_MAX)
}

#[cfg(test)]
mod tests;

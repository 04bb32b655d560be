//! The participant of two-phase commit: a prepare checks all that could fail later, a commit gives the notification its place.
//!
//! Two ways lead here: the coordinator's, in batches with a vote or an ack per item, and the one for people, one at a time.
//! What is prepared holds no lock; neither does it wait for anything another prepares.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    future::Future,
    sync::Arc,
    time::Duration,
};

use notifyx_chassis::reply::{self, problem};
use notifyx_commit::{
    RequestHash,
    participant::{Asker, Judge, OnPrepare, Origin, Refusal},
};
use notifyx_model::{Clock, Email, Fault, Gid, Kind, Notification, NotificationId, RECIPIENTS_MAX, TopicId, UserId};
use notifyx_wire::rest::{
    Problem,
    commit::{Ack, Applied, BATCH_MAX, Prepare, Publish, Vote},
    persist::{NewNotification, TopicStatus},
};

use crate::{
    Error,
    metrics::Metrics,
    patience::again,
    store::{self, Gate, Inserted, No, Preparation},
};

pub(crate) struct Transactions {
    store: Arc<dyn store::Transactions>,
    clock: Clock,
    metrics: Metrics,
    /// How long a prepare by hand waits for its commit.
    by_hand: Duration,
}

/// A request to publish, and what the rules say to it.
struct Checked {
    preparation: Preparation,
    refused: Option<Error>,
}

impl Transactions {
    pub(crate) fn new(store: Arc<dyn store::Transactions>, clock: Clock, metrics: Metrics, by_hand: Duration) -> Self {
        Self { store, clock, metrics, by_hand }
    }

    /// For the coordinator: one vote per item, in order.
    pub(crate) async fn prepare(&self, items: Vec<Prepare>) -> Result<Vec<Vote>, Error> {
        bounded(items.len())?;
        let checked = match self.check(items).await {
            Ok(checked) => checked,
            Err((count, error)) => {
                let problem = problem(&error);
                return Ok(self.voted(vec![Vote::Error(problem); count]));
            }
        };
        let (preparations, refused): (Vec<_>, Vec<_>) =
            checked.into_iter().map(|Checked { preparation, refused }| (preparation, refused)).unzip();
        let now = self.clock.now();
        let inserted = halved(&preparations, |part| {
            again(&self.metrics, move || self.store.prepare(part, Origin::Coordinator, now))
        })
        .await;
        let judge = Judge::at(now);
        let vote =
            |((inserted, refused), item): ((Result<Inserted, Problem>, Option<Error>), &Preparation)| match inserted {
                Err(problem) => Vote::Error(problem),
                Ok(Inserted::New) => refused.map_or(Vote::Yes, |refusal| Vote::No(problem(&refusal))),
                Ok(Inserted::IdTaken) => Vote::No(problem(&Error::NotificationIdTaken(item.notification_id))),
                Ok(Inserted::Found(row, no)) => match judge.prepare(Some(&row), Asker::Coordinator, &item.request) {
                    OnPrepare::Yes => Vote::Yes,
                    OnPrepare::No(refusal) => Vote::No(told_again(problem(&refusal), no)),
                    OnPrepare::Reserve => unreachable!("a row was found, so there is nothing to reserve"),
                },
            };
        Ok(self.voted(inserted.into_iter().zip(refused).zip(&preparations).map(vote).collect()))
    }

    fn voted(&self, votes: Vec<Vote>) -> Vec<Vote> {
        self.metrics.transactions.voted(&votes);
        votes
    }

    fn acked(&self, step: &'static str, acks: Vec<Ack>) -> Vec<Ack> {
        self.metrics.transactions.acked(step, &acks);
        acks
    }

    /// For the coordinator: one ack per gid, in order. Of one topic they take their places in this order.
    pub(crate) async fn commit(&self, gids: &[Gid]) -> Result<Vec<Ack>, Error> {
        bounded(gids.len())?;
        let now = self.clock.now();
        let outcomes = halved(gids, |part| {
            again(&self.metrics, move || self.store.commit(part, Asker::Coordinator, Judge::at(now), now))
        })
        .await;
        let acks = outcomes.into_iter().zip(gids).map(|(outcome, gid)| match outcome {
            Ok(Ok(applied)) => {
                self.metrics.committed(applied.as_ref());
                Ack::Done { applied }
            }
            Ok(Err(refusal)) => violation(*gid, "commit", refusal),
            Err(problem) => Ack::Error(problem),
        });
        Ok(self.acked("commit", acks.collect()))
    }

    /// For the coordinator: one ack per gid, in order.
    pub(crate) async fn rollback(&self, gids: &[Gid]) -> Result<Vec<Ack>, Error> {
        bounded(gids.len())?;
        let now = self.clock.now();
        let outcomes = halved(gids, |part| {
            again(&self.metrics, move || self.store.rollback(part, Asker::Coordinator, Judge::at(now), now))
        })
        .await;
        let acks = outcomes.into_iter().zip(gids).map(|(outcome, gid)| match outcome {
            Ok(Ok(())) => Ack::Done { applied: None },
            Ok(Err(refusal)) => violation(*gid, "rollback", refusal),
            Err(problem) => Ack::Error(problem),
        });
        Ok(self.acked("rollback", acks.collect()))
    }

    /// By hand: the id to commit or roll back with. A repetition under an id of the caller's own is answered like the first,
    /// whatever became of the topic since; what is refused leaves nothing behind, so that the id stays free.
    pub(crate) async fn prepare_by_hand(&self, user: UserId, from: Email, new: NewNotification) -> Result<Gid, Error> {
        let (asker, now, chosen) = (Asker::User(user), self.clock.now(), new.request_id);
        let (gid, judge) = (chosen.unwrap_or_else(|| Gid::new(&self.clock)), Judge::at(now).by_hand(self.by_hand));
        let request = by_hand_request(&new);
        if chosen.is_some() {
            match judge.prepare(self.store.find(gid).await?.as_ref(), asker, &request) {
                OnPrepare::Yes => return Ok(gid),
                OnPrepare::No(refusal) => return Err(refusal.into()),
                OnPrepare::Reserve => judge.chosen(gid)?,
            }
        }
        let items = [Preparation { request, ..self.checked_by_hand(gid, user, from, new).await? }];
        let inserted = again(&self.metrics, || self.store.prepare(&items, Origin::Client, now)).await?.pop();
        match inserted.expect("one outcome per item") {
            Inserted::New => Ok(gid),
            Inserted::IdTaken => Err(Error::NotificationIdTaken(items[0].notification_id)),
            // The same prepare, twice at once.
            Inserted::Found(row, _) => match judge.prepare(Some(&row), asker, &request) {
                OnPrepare::Yes => Ok(gid),
                OnPrepare::No(refusal) => Err(refusal.into()),
                OnPrepare::Reserve => unreachable!("a row was found, so there is nothing to reserve"),
            },
        }
    }

    /// `None`: committed before, and trimmed since.
    pub(crate) async fn commit_by_hand(&self, user: UserId, gid: Gid) -> Result<Option<Applied>, Error> {
        let (gids, now) = ([gid], self.clock.now());
        let judge = Judge::at(now).by_hand(self.by_hand);
        let outcomes = again(&self.metrics, || self.store.commit(&gids, Asker::User(user), judge, now)).await?;
        let applied = single(outcomes)?;
        self.metrics.committed(applied.as_ref());
        Ok(applied)
    }

    pub(crate) async fn rollback_by_hand(&self, user: UserId, gid: Gid) -> Result<(), Error> {
        let (gids, now) = ([gid], self.clock.now());
        let judge = Judge::at(now).by_hand(self.by_hand);
        single(again(&self.metrics, || self.store.rollback(&gids, Asker::User(user), judge, now)).await?)
    }

    /// By hand, without two phases: prepared and committed in one transaction. Nothing counts it.
    pub(crate) async fn publish(&self, user: UserId, from: Email, new: NewNotification) -> Result<Notification, Error> {
        if new.request_id.is_some() {
            return Err(Error::NotAPrepare);
        }
        let item = self.checked_by_hand(Gid::new(&self.clock), user, from, new).await?;
        let now = self.clock.now();
        let applied = again(&self.metrics, || self.store.publish(&item, now)).await?;
        self.metrics.committed(Some(&applied));
        Ok(Notification {
            id: applied.notification_id,
            topic_id: item.topic_id,
            topic: applied.topic,
            offset: applied.offset,
            broadcast_no: applied.broadcast_no,
            from_user_id: item.from_user_id,
            from: item.from,
            message: item.message,
            to: item.to_users.unwrap_or_default(),
            priority: item.priority,
            inserted_at: applied.inserted_at,
        })
    }

    async fn checked_by_hand(
        &self,
        gid: Gid,
        user: UserId,
        from: Email,
        new: NewNotification,
    ) -> Result<Preparation, Error> {
        let publish = Publish {
            notification_id: NotificationId::new(&self.clock),
            topic_id: new.topic_id,
            from_user_id: user,
            from,
            message: new.message,
            to_users: new.to_users,
            priority: new.priority,
        };
        let mut checked = self.check(vec![Prepare { gid, publish }]).await.map_err(|(_, error)| error)?;
        let Checked { preparation, refused } = checked.pop().expect("one item was checked");
        refused.map_or(Ok(preparation), Err)
    }

    /// Everything that could make a commit fail. On an error also how many items there were.
    async fn check(&self, items: Vec<Prepare>) -> Result<Vec<Checked>, (usize, Error)> {
        let count = items.len();
        let topics: HashSet<TopicId> = items.iter().map(|item| item.publish.topic_id).collect();
        let topics: Vec<TopicId> = topics.into_iter().collect();
        let gates = self.store.gates(&topics).await.map_err(|error| (count, error))?;
        let gates: HashMap<TopicId, Gate> = gates.into_iter().map(|gate| (gate.id, gate)).collect();

        let pairs: BTreeSet<(TopicId, UserId)> = items
            .iter()
            .map(|item| &item.publish)
            .filter(|publish| publish.to_users.len() <= RECIPIENTS_MAX && gates.contains_key(&publish.topic_id))
            .flat_map(|publish| publish.to_users.iter().map(|user| (publish.topic_id, *user)))
            .collect();
        let strangers = if pairs.is_empty() {
            Vec::new()
        } else {
            let pairs: Vec<_> = pairs.into_iter().collect();
            self.store.strangers(&pairs).await.map_err(|error| (count, error))?
        };
        let strangers: HashSet<(TopicId, UserId)> = strangers.into_iter().collect();

        let checked = items.into_iter().map(|item| {
            let refused = judge(&item.publish, gates.get(&item.publish.topic_id), &strangers).err();
            Checked { preparation: preparation(item, refused.as_ref()), refused }
        });
        Ok(checked.collect())
    }
}

/// The business rules of a publish.
fn judge(publish: &Publish, gate: Option<&Gate>, strangers: &HashSet<(TopicId, UserId)>) -> Result<(), Error> {
    if publish.to_users.len() > RECIPIENTS_MAX {
        return Err(Error::TooManyRecipients(publish.to_users.len()));
    }
    let gate = gate.ok_or(Error::TopicNotFound(publish.topic_id))?;
    if gate.creator_id != publish.from_user_id {
        return Err(Error::NotCreator(gate.name.clone()));
    }
    if gate.status == TopicStatus::Inactive {
        return Err(Error::Inactive(gate.name.clone()));
    }
    match publish.to_users.iter().find(|user| strangers.contains(&(publish.topic_id, **user))) {
        Some(user) => Err(Error::Stranger { user: *user, topic: gate.name.clone() }),
        None => Ok(()),
    }
}

/// What one asks for by hand: the fields that make the notification, in whatever order the recipients are named.
fn by_hand_request(new: &NewNotification) -> RequestHash {
    let to_users: BTreeSet<UserId> = new.to_users.iter().copied().collect();
    RequestHash::of("/api/prepare_2pc", &(new.topic_id, &new.message, to_users, new.priority))
}

/// To a prepare that comes again, its lost answer's code and words, with the status that every late prepare gets.
fn told_again(over: Problem, no: Option<No>) -> Problem {
    match no {
        Some(No { code, detail }) => Problem { code, detail, ..over },
        None => over,
    }
}

fn preparation(item: Prepare, refused: Option<&Error>) -> Preparation {
    let Prepare { gid, publish } = item;
    let request = RequestHash::of("/api/2pc/prepare", &publish);
    let to_users: BTreeSet<UserId> = publish.to_users.into_iter().collect();
    Preparation {
        gid,
        refusal: refused.map(|error| No { code: error.code().to_owned(), detail: error.to_string() }),
        request,
        notification_id: publish.notification_id,
        topic_id: publish.topic_id,
        from_user_id: publish.from_user_id,
        from: publish.from,
        message: publish.message,
        priority: publish.priority,
        to_users: (!to_users.is_empty()).then(|| to_users.into_iter().collect()),
    }
}

fn bounded(count: usize) -> Result<(), Error> {
    if count > BATCH_MAX { Err(Error::BatchTooLarge { count, max: BATCH_MAX }) } else { Ok(()) }
}

/// What a batch of one came to.
fn single<T>(mut outcomes: Vec<Result<T, Refusal>>) -> Result<T, Error> {
    outcomes.pop().expect("one outcome per item").map_err(Error::from)
}

/// Never flipped, always an alarm.
fn violation(gid: Gid, step: &'static str, refusal: Refusal) -> Ack {
    tracing::error!(%gid, step, %refusal, "transaction {gid} violates the protocol: {refusal}");
    Ack::Violation(problem(&refusal))
}

/// Runs a batch whole. One that the database refuses is rolled back and halved until what it refuses stands alone, so that a
/// bad item never fails its neighbours. One outcome per item, in order; trouble of another kind is everybody's.
async fn halved<'a, I, O, Fut>(items: &'a [I], run: impl Fn(&'a [I]) -> Fut) -> Vec<Result<O, Problem>>
where
    Fut: Future<Output = Result<Vec<O>, Error>>,
{
    let mut outcomes = Vec::with_capacity(items.len());
    let mut waiting = vec![items];
    while let Some(part) = waiting.pop() {
        if part.is_empty() {
            continue;
        }
        match run(part).await {
            Ok(done) => outcomes.extend(done.into_iter().map(Ok)),
            Err(error) if error.kind() == Kind::Internal && part.len() > 1 => {
                tracing::warn!(items = part.len(), error = %reply::chain(&error), "a batch is halved: {error}");
                let (first, second) = part.split_at(part.len() / 2);
                waiting.extend([second, first]);
            }
            Err(error) => {
                let problem = problem(&error);
                outcomes.extend(std::iter::repeat_n(problem, part.len()).map(Err));
            }
        }
    }
    outcomes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused() -> Error {
        Error::Database(notifyx_database::Error::Refused(sqlx::Error::RowNotFound))
    }

    #[tokio::test]
    async fn a_refused_batch_is_halved_until_the_bad_item_stands_alone() {
        let items: Vec<u32> = (0..100).collect();
        let outcomes =
            halved(&items, |part| async move { if part.contains(&37) { Err(refused()) } else { Ok(part.to_vec()) } })
                .await;
        for (i, outcome) in (0..100).zip(&outcomes) {
            assert_eq!(outcome.as_ref().ok().copied(), (i != 37).then_some(i));
        }
        assert_eq!(outcomes.len(), 100);
    }

    #[tokio::test]
    async fn a_database_that_is_away_is_not_asked_for_each_item() {
        let asked = std::cell::Cell::new(0);
        let outcomes: Vec<Result<(), _>> = halved(&[1, 2, 3], |_| {
            asked.set(asked.get() + 1);
            async { Err(Error::Database(notifyx_database::Error::Unavailable(sqlx::Error::PoolTimedOut))) }
        })
        .await;
        assert_eq!((asked.get(), outcomes.len()), (1, 3));
        assert_eq!(outcomes[0].as_ref().unwrap_err().status, 503);
    }
}

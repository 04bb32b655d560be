//! The participant of two-phase commit: increments are prepared, committed, rolled back.
//!
//! Two ways lead here: the coordinator's, in batches with a vote or an ack per item, and the one for people, one at a time.
//! Nothing is reserved and nothing can fail later, so the counter has no business "no" of its own; any number may be prepared at
//! once for one user or topic, and each raises its counters when it is committed. A coordinator's call is a batch already and
//! is one transaction: joining several would save nothing but an fsync that they wait for together anyhow.

use std::{future::Future, sync::Arc, time::Duration};

use notifyx_chassis::reply::problem;
use notifyx_commit::{
    RequestHash,
    participant::{Asker, Judge, OnPrepare, Refusal},
};
use notifyx_model::{Clock, Gid, UserId};
use notifyx_wire::rest::{
    commit::{Ack, BATCH_MAX, Prepare, Vote},
    counter::PrepareIncrement,
};

use crate::{
    Error,
    metrics::Metrics,
    store::{Increment, Store},
    topics::Topics,
};

pub(crate) struct Increments {
    store: Arc<dyn Store>,
    topics: Arc<dyn Topics>,
    clock: Clock,
    metrics: Metrics,
    by_hand: Duration,
}

impl Increments {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        topics: Arc<dyn Topics>,
        clock: Clock,
        metrics: Metrics,
        by_hand: Duration,
    ) -> Self {
        Self { store, topics, clock, metrics, by_hand }
    }

    /// For the coordinator: one vote per item, in order.
    pub(crate) async fn prepare(&self, items: &[Prepare]) -> Result<Vec<Vote>, Error> {
        bounded(items.len())?;
        let items: Vec<Increment> = items
            .iter()
            .map(|Prepare { gid, publish }| Increment {
                gid: *gid,
                user_id: publish.from_user_id,
                topic_id: Some(publish.topic_id),
                request: RequestHash::of("/api/2pc/prepare", publish),
            })
            .collect();
        let now = self.clock.now();
        let outcomes = self.again(|| self.store.prepare(&items, Asker::Coordinator, Judge::at(now), now)).await?;
        let vote = |outcome: Result<(), Refusal>| match outcome {
            Ok(()) => Vote::Yes,
            Err(refusal) => Vote::No(problem(&refusal)),
        };
        let votes: Vec<Vote> = outcomes.into_iter().map(vote).collect();
        self.metrics.transactions.voted(&votes);
        Ok(votes)
    }

    /// For the coordinator: one ack per gid, in order.
    pub(crate) async fn commit(&self, gids: &[Gid]) -> Result<Vec<Ack>, Error> {
        bounded(gids.len())?;
        let judge = Judge::at(self.clock.now());
        let committed = self.again(|| self.store.commit(gids, Asker::Coordinator, judge)).await?;
        self.metrics.committed(committed.applied);
        Ok(self.acks("commit", gids, committed.outcomes))
    }

    /// For the coordinator: one ack per gid, in order.
    pub(crate) async fn rollback(&self, gids: &[Gid]) -> Result<Vec<Ack>, Error> {
        bounded(gids.len())?;
        let now = self.clock.now();
        let outcomes = self.again(|| self.store.rollback(gids, Asker::Coordinator, Judge::at(now), now)).await?;
        Ok(self.acks("rollback", gids, outcomes))
    }

    /// By hand: the id to commit or roll back with. A topic's counter is raised with it by the topic's creator only. What is
    /// refused leaves nothing behind, so that an id of the caller's own stays free.
    pub(crate) async fn prepare_by_hand(&self, user_id: UserId, new: PrepareIncrement) -> Result<Gid, Error> {
        let (asker, judge, now) = (Asker::User(user_id), self.judge(), self.clock.now());
        let request = RequestHash::of("/api/prepare_increment_2pc", &(user_id, new.topic_id));
        if let Some(chosen) = new.request_id {
            // A repetition is answered like the first, also while persist is away.
            match judge.prepare(self.store.find(chosen).await?.as_ref(), asker, &request) {
                OnPrepare::Yes => return Ok(chosen),
                OnPrepare::No(refusal) => return Err(refusal.into()),
                OnPrepare::Reserve => judge.chosen(chosen)?,
            }
        }
        if let Some(topic_id) = new.topic_id {
            let creator = self.topics.find_creator(topic_id).await?.ok_or(Error::TopicNotFound(topic_id))?;
            if creator != user_id {
                return Err(Error::NotCreator(topic_id));
            }
        }
        let gid = new.request_id.unwrap_or_else(|| Gid::new(&self.clock));
        let items = [Increment { gid, user_id, topic_id: new.topic_id, request }];
        single(self.again(|| self.store.prepare(&items, asker, judge, now)).await?)?;
        Ok(gid)
    }

    pub(crate) async fn commit_by_hand(&self, user_id: UserId, gid: Gid) -> Result<(), Error> {
        let (gids, judge) = ([gid], self.judge());
        let committed = self.again(|| self.store.commit(&gids, Asker::User(user_id), judge)).await?;
        self.metrics.committed(committed.applied);
        single(committed.outcomes)
    }

    pub(crate) async fn rollback_by_hand(&self, user_id: UserId, gid: Gid) -> Result<(), Error> {
        let (gids, judge, now) = ([gid], self.judge(), self.clock.now());
        single(self.again(|| self.store.rollback(&gids, Asker::User(user_id), judge, now)).await?)
    }

    fn judge(&self) -> Judge {
        Judge::at(self.clock.now()).by_hand(self.by_hand)
    }

    fn acks(&self, step: &'static str, gids: &[Gid], outcomes: Vec<Result<(), Refusal>>) -> Vec<Ack> {
        let ack = |(outcome, gid): (Result<(), Refusal>, &Gid)| match outcome {
            Ok(()) => Ack::Done { applied: None },
            Err(refusal) => {
                // Never flipped, always an alarm.
                tracing::error!(%gid, step, %refusal, "transaction {gid} violates the protocol: {refusal}");
                Ack::Violation(problem(&refusal))
            }
        };
        let acks: Vec<Ack> = outcomes.into_iter().zip(gids).map(ack).collect();
        self.metrics.transactions.acked(step, &acks);
        acks
    }

    /// A transaction that gave way is counted, and tried again.
    async fn again<T, Fut>(&self, transaction: impl Fn() -> Fut) -> Result<T, Error>
    where
        Fut: Future<Output = Result<T, Error>>,
    {
        let gave_way = |error: &Error| {
            let it_did = matches!(error, Error::Database(notifyx_database::Error::GaveWay(_)));
            if it_did {
                self.metrics.transactions.gave_way();
            }
            it_did
        };
        notifyx_database::again(transaction, gave_way).await
    }
}

fn bounded(count: usize) -> Result<(), Error> {
    if count > BATCH_MAX { Err(Error::BatchTooLarge(count)) } else { Ok(()) }
}

/// What a batch of one came to.
fn single(mut outcomes: Vec<Result<(), Refusal>>) -> Result<(), Error> {
    outcomes.pop().expect("one outcome per item").map_err(Error::from)
}

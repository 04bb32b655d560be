//! The steps of one group: BEGIN, PREPARE, DECIDE, phase 2. One durable write or one call per participant for all, a vote and
//! an outcome for each.

use std::{sync::Arc, time::Duration};

use notifyx_model::Gid;
use notifyx_wire::rest::commit::{Ack, Applied, GidBatch, Prepare, PrepareBatch, Vote, Voted};
use tracing::{error, warn};

use super::{Inner, Outcome, Pending, chain, settle::Chase};
use crate::{
    Begin, Begun, Parties, Party, Record, State, StoreError, Terms, VerdictOn, Votes, ballot::Sum,
    coordinator::settle::Decision,
};

impl Inner {
    /// One outcome per item, in order.
    pub(super) async fn group(self: Arc<Self>, batch: Vec<Pending>) -> Vec<Outcome> {
        self.metrics.group(batch.len());
        let begun = match self.begin(&batch).await {
            Ok(begun) => begun,
            Err(error) => {
                warn!(error = %chain(&error), items = batch.len(), "a group could not be begun");
                // A key may hold an earlier transaction, a committed one even: nothing is said about it.
                let reason = "the transaction could not be begun";
                return batch.iter().map(|p| Outcome::NotBegun { gid: p.gid, reason: reason.into() }).collect();
            }
        };
        let (mut new, mut committed) = (Vec::new(), Vec::new());
        for (pending, begun) in batch.iter().zip(&begun) {
            match begun {
                Begun::New => new.push(pending.clone()),
                Begun::Known(record) if record.state == State::Commit => committed.push(record.gid),
                Begun::Known(_) | Begun::Mismatch(_) => {}
            }
        }
        let (outcomes, standing) = tokio::join!(self.carry_through(new), self.standing(committed));
        let mut outcomes = outcomes.into_iter();
        let place =
            |record: &Record| standing.iter().find(|(gid, _)| *gid == record.gid).map(|(_, applied)| applied.clone());
        begun
            .iter()
            .map(|begun| match begun {
                Begun::New => outcomes.next().expect("one outcome per new transaction"),
                Begun::Known(record) => Outcome::Known { status: record.status(), applied: place(record) },
                Begun::Mismatch(gid) => Outcome::Mismatch { gid: *gid },
            })
            .collect()
    }

    async fn begin(&self, batch: &[Pending]) -> Result<Vec<Begun>, StoreError> {
        let _timer = self.metrics.step("begin");
        let rows: Vec<Begin> = batch
            .iter()
            .map(|pending| Begin {
                gid: pending.gid,
                user_id: pending.transaction.user_id,
                idem_key: pending.transaction.idem_key.clone(),
                request: pending.transaction.request(),
            })
            .collect();
        let terms = Terms { owner: self.owner, deadline: self.config.deadline(), lease: self.config.lease() };
        let begun = self.stored(self.ports.store.begin(&rows, terms)).await?;
        complete(begun, batch.len()).ok_or_else(|| StoreError::new("begin answered another number of items"))
    }

    /// From PREPARE to the answer, for what was begun now.
    async fn carry_through(self: &Arc<Self>, batch: Vec<Pending>) -> Vec<Outcome> {
        if batch.is_empty() {
            return Vec::new();
        }
        let (sums, votes): (Vec<Sum>, Vec<Votes>) = self.vote(&batch).await.into_iter().unzip();
        let states = match self.decide(&batch, &sums, &votes).await {
            Ok(states) => states,
            Err(error) => {
                error!(error = %chain(&error), items = batch.len(), "the decision on a group is not known");
                return batch.iter().zip(sums).map(|(pending, sum)| sum.undecided(pending.gid)).collect();
            }
        };
        let (mut commits, mut aborts) = (Vec::new(), Vec::new());
        for (pending, state) in batch.iter().zip(&states) {
            let chase = Chase::new(pending.gid, Some(pending.transaction.clone()));
            match state {
                Some(State::Commit) => commits.push(chase),
                // No row, no commit: nobody can ever decide it, so what was prepared is given back.
                Some(State::Abort) | None => aborts.push(chase),
                Some(State::Preparing) => {}
            }
        }
        if !aborts.is_empty() {
            let inner = self.clone();
            self.tasks.spawn(async move { inner.settle(Decision::Abort, aborts).await });
        }
        let mut places = self.commit(commits).await.into_iter();
        batch
            .iter()
            .zip(states)
            .zip(sums)
            .map(|((pending, state), sum)| {
                let applied = match state {
                    Some(State::Commit) => places.next().expect("one place per commit"),
                    Some(State::Preparing | State::Abort) | None => None,
                };
                sum.outcome(pending.gid, state, applied)
            })
            .collect()
    }

    /// PREPARE at both, in parallel: neither waits for the other's answer.
    async fn vote(&self, batch: &[Pending]) -> Vec<(Sum, Votes)> {
        let _timer = self.metrics.step("prepare");
        let items = batch
            .iter()
            .map(|pending| Prepare { gid: pending.gid, publish: pending.transaction.publish.clone() })
            .collect();
        let call = PrepareBatch { items };
        let (persist, counter) = tokio::join!(self.votes(Party::Persist, &call), self.votes(Party::Counter, &call));
        let together = |(persist, counter)| {
            let votes = Votes { persist: Some(voted(&persist)), counter: Some(voted(&counter)) };
            (Sum::of(persist, counter), votes)
        };
        persist.into_iter().zip(counter).map(together).collect()
    }

    /// The votes of one participant, in order. What it could not tell is asked once more.
    async fn votes(&self, party: Party, call: &PrepareBatch) -> Vec<Result<Vote, String>> {
        let mut votes = self.votes_once(party, call).await;
        let open: Vec<usize> = (0..votes.len()).filter(|&i| !matches!(votes[i], Ok(Vote::Yes | Vote::No(_)))).collect();
        if !open.is_empty() {
            let again = PrepareBatch { items: open.iter().map(|&i| call.items[i].clone()).collect() };
            for (i, vote) in open.into_iter().zip(self.votes_once(party, &again).await) {
                votes[i] = vote;
            }
        }
        votes
    }

    async fn votes_once(&self, party: Party, call: &PrepareBatch) -> Vec<Result<Vote, String>> {
        let within = Duration::from_millis(self.config.prepare_timeout_ms);
        let answer = tokio::time::timeout(within, self.participant(party).prepare(call, within)).await;
        let failed = match answer {
            Ok(Ok(votes)) => match complete(votes, call.items.len()) {
                Some(votes) => return votes.into_iter().map(|vote| told(party, vote)).collect(),
                None => format!("{party} answered another number of votes"),
            },
            Ok(Err(failed)) => format!("{party} could not be asked: {failed}"),
            Err(_) => format!("{party} did not answer within {} ms", within.as_millis()),
        };
        warn!(items = call.items.len(), "{failed}");
        vec![Err(failed); call.items.len()]
    }

    /// DECIDE. If the first answer is lost, the same compare-and-set is asked again: it says what the row says.
    async fn decide(&self, batch: &[Pending], sums: &[Sum], votes: &[Votes]) -> Result<Vec<Option<State>>, StoreError> {
        let _timer = self.metrics.step("decide");
        let verdicts: Vec<VerdictOn> = batch
            .iter()
            .zip(sums.iter().zip(votes))
            .map(|(pending, (sum, votes))| VerdictOn { gid: pending.gid, votes: *votes, verdict: sum.verdict() })
            .collect();
        let states = match self.stored(self.ports.store.decide(&verdicts)).await {
            Ok(states) => states,
            Err(first) => {
                warn!(error = %chain(&first), "the decision on a group is asked for again");
                self.stored(self.ports.store.decide(&verdicts)).await?
            }
        };
        complete(states, batch.len()).ok_or_else(|| StoreError::new("decide answered another number of items"))
    }

    /// Phase 2 of what is decided. It goes on whatever happens here; the publishers wait for it only so long.
    async fn commit(self: &Arc<Self>, chases: Vec<Chase>) -> Vec<Option<Applied>> {
        if chases.is_empty() {
            return Vec::new();
        }
        let nothing = vec![None; chases.len()];
        let inner = self.clone();
        let applying = self.tasks.spawn(async move { inner.settle(Decision::Commit, chases).await });
        let patience = Duration::from_millis(self.config.answer_within_ms);
        match tokio::time::timeout(patience, applying).await {
            Ok(Ok(settled)) => settled.into_iter().map(|one| one.applied.filter(|_| one.both)).collect(),
            Ok(Err(broke)) => {
                error!(error = %broke, "applying a group broke off: recovery will finish it");
                nothing
            }
            Err(_) => nothing,
        }
    }

    /// Where earlier commits stand, of those that both participants have applied: each answers a repeated commit with what
    /// it did before, or does it now.
    async fn standing(&self, gids: Vec<Gid>) -> Vec<(Gid, Applied)> {
        if gids.is_empty() {
            return Vec::new();
        }
        let within = Duration::from_millis(self.config.answer_within_ms);
        let call = GidBatch { gids };
        let both = async {
            tokio::try_join!(self.ports.persist.commit(&call, within), self.ports.counter.commit(&call, within))
        };
        let Ok(Ok((persist, counter))) = tokio::time::timeout(within, both).await else { return Vec::new() };
        call.gids
            .iter()
            .zip(persist.into_iter().zip(counter))
            .filter_map(|(gid, acks)| match acks {
                (Ack::Done { applied }, Ack::Done { .. }) => Some((*gid, applied?)),
                _ => None,
            })
            .collect()
    }
}

fn told(party: Party, vote: Vote) -> Result<Vote, String> {
    match vote {
        Vote::Yes | Vote::No(_) => Ok(vote),
        Vote::Error(problem) => Err(format!("{party} could not tell: {}", problem.detail)),
    }
}

fn voted(vote: &Result<Vote, String>) -> Voted {
    match vote {
        Ok(Vote::Yes) => Voted::Yes,
        Ok(Vote::No(_)) => Voted::No,
        Ok(Vote::Error(_)) | Err(_) => Voted::Error,
    }
}

fn complete<T>(items: Vec<T>, count: usize) -> Option<Vec<T>> {
    (items.len() == count).then_some(items)
}

impl Chase {
    /// Of a decision made now: both participants owe it, nothing failed yet.
    fn new(gid: Gid, transaction: Option<Arc<super::Transaction>>) -> Self {
        Self { gid, owed: Parties::BOTH, tries: 0, refusals: 0, quarantined: false, transaction }
    }
}

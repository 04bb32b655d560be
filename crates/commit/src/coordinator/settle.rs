//! Phase 2: brings a decision to the participants, notes who applied it, and tries again until both have.
//!
//! A decision is final, so nothing here fails a transaction. Pauses below [`IN_MEMORY`] are kept in memory; longer ones are
//! written into the lease, so that any gateway goes on after them.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use notifyx_model::Gid;
use notifyx_wire::rest::commit::{Ack, Applied, GidBatch};
use rand::Rng;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};
use tracing::{error, warn};

use super::{Inner, Transaction, chain};
use crate::{Acked, Deferred, Parties, Party};

/// Below recovery's own rhythm it is not worth a write.
const IN_MEMORY: Duration = Duration::from_secs(1);
/// Tries that wait in memory. Beyond it the lease brings them back, a few seconds later.
const RETRIES_MAX: usize = 8_192;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Commit,
    Abort,
}

/// A decided transaction that participants have still to apply.
#[derive(Clone, Debug)]
pub(super) struct Chase {
    pub(super) gid: Gid,
    pub(super) owed: Parties,
    pub(super) tries: u32,
    pub(super) refusals: u32,
    pub(super) quarantined: bool,
    /// Absent where another process began it.
    pub(super) transaction: Option<Arc<Transaction>>,
}

/// What became of one chase in one round.
#[derive(Clone, Debug)]
pub(super) struct Settled {
    /// Both participants have applied the decision.
    pub(super) both: bool,
    /// Where it stands, if persist told in this round.
    pub(super) applied: Option<Applied>,
}

/// One participant's answer about one gid.
enum Reply {
    Done(Option<Applied>),
    /// No answer, or one that another try may change.
    Failed,
    /// A refusal that another try will meet again.
    Refused(String),
    Violation(String),
}

impl Inner {
    /// One round for a group: one call per participant, acks noted off this path, the rest tried again later. One result
    /// per chase, in order.
    pub(super) async fn settle(self: Arc<Self>, decision: Decision, chases: Vec<Chase>) -> Vec<Settled> {
        if chases.is_empty() {
            return Vec::new();
        }
        let (persist, counter) = {
            let _timer = self.metrics.step(decision.step());
            tokio::join!(self.send(decision, Party::Persist, &chases), self.send(decision, Party::Counter, &chases))
        };
        let (mut acks, mut settled, mut left) = (Vec::new(), Vec::new(), Vec::new());
        for ((chase, persist), counter) in chases.into_iter().zip(persist).zip(counter) {
            let done = Parties {
                persist: matches!(persist, Some(Reply::Done(_))),
                counter: matches!(counter, Some(Reply::Done(_))),
            };
            if done != Parties::NONE {
                acks.push(Acked { gid: chase.gid, by: done });
            }
            let owed = chase.owed.without(done);
            let troubles = [(Party::Persist, &persist), (Party::Counter, &counter)];
            if owed != Parties::NONE {
                left.push(after(&troubles, Chase { owed, ..chase }));
            }
            let applied = match persist {
                Some(Reply::Done(applied)) => applied,
                Some(Reply::Failed | Reply::Refused(_) | Reply::Violation(_)) | None => None,
            };
            settled.push(Settled { both: owed == Parties::NONE, applied });
        }
        self.acknowledge(acks);
        self.again(decision, left).await;
        settled
    }

    /// Asks one participant about those chases it owes; `None` where it owes nothing.
    async fn send(&self, decision: Decision, party: Party, chases: &[Chase]) -> Vec<Option<Reply>> {
        let mut replies: Vec<Option<Reply>> = chases.iter().map(|_| None).collect();
        let owed: Vec<usize> = (0..chases.len()).filter(|&i| chases[i].owed.has(party)).collect();
        if owed.is_empty() {
            return replies;
        }
        let within = Duration::from_millis(self.config.apply_timeout_ms);
        let call = GidBatch { gids: owed.iter().map(|&i| chases[i].gid).collect() };
        let participant = self.participant(party);
        let answer = match decision {
            Decision::Commit => timeout(within, participant.commit(&call, within)).await,
            Decision::Abort => timeout(within, participant.rollback(&call, within)).await,
        };
        let whole = match answer {
            Ok(Ok(acks)) if acks.len() == owed.len() => {
                for (i, ack) in owed.into_iter().zip(acks) {
                    if let (Party::Persist, Ack::Done { applied: Some(applied) }) = (party, &ack) {
                        let publish = chases[i].transaction.as_deref().map(|transaction| &transaction.publish);
                        self.ports.sink.applied(applied, publish);
                    }
                    replies[i] = Some(told(party, ack));
                }
                let failed = replies.iter().flatten().filter(|reply| !matches!(reply, Reply::Done(_))).count();
                self.metrics.failed_tries(party, failed);
                return replies;
            }
            Ok(Ok(acks)) => {
                warn!("{party} answered {} acks to {} gids", acks.len(), owed.len());
                None
            }
            Ok(Err(failed)) => {
                warn!(gids = owed.len(), "{} was not applied by {party}: {failed}", decision.step());
                failed.repeats.then_some(failed.reason)
            }
            Err(_) => {
                warn!(gids = owed.len(), "{} was not answered by {party} in time", decision.step());
                None
            }
        };
        self.metrics.failed_tries(party, owed.len());
        for i in owed {
            replies[i] = Some(whole.clone().map_or(Reply::Failed, Reply::Refused));
        }
        replies
    }

    fn acknowledge(self: &Arc<Self>, acks: Vec<Acked>) {
        if acks.is_empty() {
            return;
        }
        let inner = self.clone();
        self.tasks.spawn(async move {
            if let Err(rejected) = inner.acks.submit(acks).await {
                warn!("{rejected}: recovery will acknowledge");
            }
        });
    }

    /// Short pauses in memory, long ones in the store.
    async fn again(&self, decision: Decision, left: Vec<(Chase, Trouble)>) {
        let mut deferred = Vec::new();
        for (chase, trouble) in left {
            let quarantine = self.quarantine(&chase, trouble);
            let again_in = if chase.quarantined || quarantine.is_some() {
                Duration::from_millis(self.config.quarantine_retry_ms)
            } else {
                self.pause(chase.tries)
            };
            if let Some(reason) = &quarantine {
                error!(gid = %chase.gid, reason, "transaction {} is quarantined: an operator must look", chase.gid);
            }
            if again_in >= IN_MEMORY || quarantine.is_some() {
                let (gid, tries, refusals) = (chase.gid, chase.tries, chase.refusals);
                deferred.push(Deferred { gid, tries, refusals, again_in, quarantine });
            } else {
                self.retries.schedule(decision, chase, again_in);
            }
        }
        if deferred.is_empty() {
            return;
        }
        deferred.sort_by_key(|one| one.gid);
        if let Err(error) = self.stored(self.ports.store.defer(&deferred)).await {
            // The lease runs out all the same, and the try is made then.
            warn!(error = %chain(&error), "{} tries were not deferred", deferred.len());
        }
    }

    /// Why it goes into quarantine now, if it does.
    fn quarantine(&self, chase: &Chase, trouble: Trouble) -> Option<String> {
        match trouble {
            _ if chase.quarantined => None,
            Trouble::Violation(reason) => Some(reason),
            Trouble::Refused(reason) if chase.refusals >= self.config.quarantine_after_tries => Some(reason),
            Trouble::Refused(_) | Trouble::Failed => None,
        }
    }

    /// Doubles from the first to the longest; a random half of it, so that a herd spreads.
    fn pause(&self, tries: u32) -> Duration {
        let doubled = self.config.retry_first_ms.saturating_mul(1 << tries.saturating_sub(1).min(32));
        let full = doubled.min(self.config.retry_max_ms);
        Duration::from_millis(rand::rng().random_range(full / 2..=full))
    }
}

impl Decision {
    pub(super) const fn step(self) -> &'static str {
        match self {
            Self::Commit => "commit",
            Self::Abort => "rollback",
        }
    }
}

/// The worst that this round brought to one transaction.
enum Trouble {
    Failed,
    Refused(String),
    Violation(String),
}

fn after(replies: &[(Party, &Option<Reply>); 2], chase: Chase) -> (Chase, Trouble) {
    let mut trouble = Trouble::Failed;
    for (party, reply) in replies {
        match reply {
            Some(Reply::Violation(why)) => trouble = Trouble::Violation(format!("{party}: {why}")),
            Some(Reply::Refused(why)) if !matches!(trouble, Trouble::Violation(_)) => {
                trouble = Trouble::Refused(format!("{party}: {why}"));
            }
            Some(Reply::Refused(_) | Reply::Failed | Reply::Done(_)) | None => {}
        }
    }
    let refusals = chase.refusals + u32::from(matches!(trouble, Trouble::Refused(_)));
    (Chase { tries: chase.tries.saturating_add(1), refusals, ..chase }, trouble)
}

fn told(party: Party, ack: Ack) -> Reply {
    match ack {
        Ack::Done { applied } => Reply::Done(applied),
        Ack::Violation(problem) => Reply::Violation(problem.detail),
        Ack::Error(problem) => {
            warn!("{party} could not apply a decision: {}", problem.detail);
            // 408 and 429 are 4xx that time mends.
            let repeats = (400..500).contains(&problem.status) && !matches!(problem.status, 408 | 429);
            if repeats { Reply::Refused(problem.detail) } else { Reply::Failed }
        }
    }
}

/// One entry per gid, in order of gid.
pub(super) fn merged(acks: impl Iterator<Item = Acked>) -> Vec<Acked> {
    let mut by_gid = BTreeMap::<Gid, Parties>::new();
    for ack in acks {
        let by = by_gid.entry(ack.gid).or_default();
        *by = by.and(ack.by);
    }
    by_gid.into_iter().map(|(gid, by)| Acked { gid, by }).collect()
}

/// Where short pauses are spent.
pub(super) struct Retries(mpsc::Sender<Due>);

pub(super) struct Due {
    at: Instant,
    decision: Decision,
    chase: Chase,
}

impl Retries {
    pub(super) fn new() -> (Self, mpsc::Receiver<Due>) {
        let (sender, receiver) = mpsc::channel(RETRIES_MAX);
        (Self(sender), receiver)
    }

    /// Full or stopping: the lease brings it back.
    fn schedule(&self, decision: Decision, chase: Chase, again_in: Duration) {
        let _ = self.0.try_send(Due { at: Instant::now() + again_in, decision, chase });
    }
}

/// The task that waits for pauses to end. One round at a time: it is bounded by the calls' timeout, and what piles up
/// meanwhile shares the next.
pub(super) async fn retry(inner: Arc<Inner>, mut scheduled: mpsc::Receiver<Due>) {
    let mut waiting = BTreeMap::<(Instant, u64), (Decision, Chase)>::new();
    let mut sequence = 0_u64;
    loop {
        let next = waiting.first_key_value().map(|((at, _), _)| *at);
        let alarm = async {
            match next {
                Some(at) => sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = inner.stop.cancelled() => return,
            due = scheduled.recv(), if waiting.len() < RETRIES_MAX => {
                // Never closed before the task stops: `inner` holds the sender.
                let Some(due) = due else { return };
                waiting.insert((due.at, sequence), (due.decision, due.chase));
                sequence += 1;
            }
            () = alarm => {
                let later = waiting.split_off(&(Instant::now(), u64::MAX));
                let (mut commits, mut aborts) = (Vec::new(), Vec::new());
                for (key, (decision, chase)) in std::mem::replace(&mut waiting, later) {
                    let group = match decision {
                        Decision::Commit => &mut commits,
                        Decision::Abort => &mut aborts,
                    };
                    if group.len() < inner.config.group_items {
                        group.push(chase);
                    } else {
                        waiting.insert(key, (decision, chase));
                    }
                }
                tokio::join!(
                    inner.clone().settle(Decision::Commit, commits),
                    inner.clone().settle(Decision::Abort, aborts)
                );
            }
        }
    }
}

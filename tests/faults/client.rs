//! Clients: each publishes under a key, and repeats until it has a final answer. What it was told is kept, and held against
//! what is so at that moment.

use std::{sync::Arc, time::Duration};

use notifyx_commit::{Outcome, RequestHash, State, Transaction};
use notifyx_model::{Email, Gid, Message, NotificationId, Priority, TopicId, UserId};
use notifyx_wire::rest::commit::{Publish, TransactionState};
use tokio::time::{sleep, timeout};

use crate::{
    books::{self, Final},
    databases::Owner,
    points::Process,
    world::World,
};

/// What one client wants to publish.
#[derive(Clone, Debug)]
pub(crate) struct Order {
    pub(crate) key: String,
    pub(crate) user: UserId,
    pub(crate) topic: TopicId,
    pub(crate) to: Vec<UserId>,
    /// It names a stranger: persist says no.
    pub(crate) refused: bool,
}

/// An answer, as REST would give it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// 201: committed, and applied by both.
    Applied(Gid),
    /// 202: committed.
    Committed(Gid),
    /// 202: ask again.
    Pending,
    /// 503: not published.
    Aborted(Gid),
    /// 409: a business "no".
    No(Gid),
    /// 503 without a transaction, or none at all.
    None,
}

/// A client gives up a request after this: longer than a slow publish, shorter than any recovery.
const PATIENCE: Duration = Duration::from_secs(8);
/// As `Retry-After` says.
const AGAIN: Duration = Duration::from_secs(1);
/// The longest that anything is down, and the protocol's 45 s, several times over.
const REPEATS_MAX: usize = 150;

impl Order {
    /// Until it is decided. The first answer, and all that was told as final.
    pub(crate) async fn publish(&self, world: &Arc<World>, told: &mut Vec<Final>) -> Answer {
        self.publish_until(world, told, |answer| {
            matches!(answer, Answer::Applied(_) | Answer::Committed(_) | Answer::No(_))
        })
        .await
    }

    /// The first answer.
    pub(crate) async fn publish_until(
        &self,
        world: &Arc<World>,
        told: &mut Vec<Final>,
        done: fn(&Answer) -> bool,
    ) -> Answer {
        let mut first = None;
        for attempt in 0..REPEATS_MAX {
            // The other gateway is as good.
            let by = if attempt % 2 == 0 { Process::Driver } else { Process::Replica };
            let answer = self.ask(world, by).await;
            first.get_or_insert(answer);
            self.check(world, answer).await;
            match answer {
                Answer::Applied(gid) | Answer::Committed(gid) => told.push(Final { gid, committed: true }),
                Answer::Aborted(gid) | Answer::No(gid) => told.push(Final { gid, committed: false }),
                Answer::Pending | Answer::None => {}
            }
            if done(&answer) {
                return first.expect("just set");
            }
            sleep(AGAIN).await;
        }
        world.violated(format!("{} never got a final answer", self.key));
        Answer::None
    }

    async fn ask(&self, world: &Arc<World>, by: Process) -> Answer {
        let Some((coordinator, dead)) = world.gateway(by) else { return Answer::None };
        let publishing = coordinator.publish(self.transaction(world));
        let answered = async {
            tokio::select! {
                biased;
                () = dead.cancelled() => None,
                outcome = publishing => Some(outcome),
            }
        };
        let Ok(Some(outcome)) = timeout(PATIENCE, answered).await else { return Answer::None };
        match outcome {
            Outcome::Committed { gid, applied: Some(_) } => Answer::Applied(gid),
            Outcome::Committed { gid, applied: None } => Answer::Committed(gid),
            Outcome::Refused { gid, .. } => Answer::No(gid),
            Outcome::Aborted { gid, .. } => Answer::Aborted(gid),
            Outcome::Known { status, applied } => match (status.state, applied) {
                (TransactionState::Committed, Some(_)) => Answer::Applied(status.gid),
                (TransactionState::Committed, None) => Answer::Committed(status.gid),
                (TransactionState::Aborted, _) => Answer::Aborted(status.gid),
                (TransactionState::Preparing | TransactionState::Quarantined | TransactionState::Resolved, _) => {
                    Answer::Pending
                }
            },
            Outcome::Unknown { .. } => Answer::Pending,
            // Neither says anything about what the key may hold.
            Outcome::Busy(_) | Outcome::NotBegun { .. } => Answer::None,
            Outcome::Mismatch { gid } => {
                world.violated(format!("{}: the same request, and {gid} holds another", self.key));
                Answer::None
            }
        }
    }

    /// As the gateway's publisher makes it: a gid of its own each time, the same request.
    fn transaction(&self, world: &World) -> Transaction {
        let gid = Gid::new(&world.clock());
        let publish = Publish {
            notification_id: NotificationId::from_uuid(gid.uuid()),
            topic_id: self.topic,
            from_user_id: self.user,
            from: Email::parse("ann@example.org").unwrap(),
            message: Message::parse(&self.key).unwrap(),
            to_users: self.to.clone(),
            priority: Priority::default(),
        };
        let req_hash = RequestHash::of("POST /api/notifications", &(&self.key, &self.to)).0;
        Transaction { gid: Some(gid), user_id: self.user, idem_key: Some(self.key.clone()), req_hash, publish }
    }

    /// No answer comes before what it says.
    async fn check(&self, world: &Arc<World>, answer: Answer) {
        let (Answer::Applied(gid) | Answer::Committed(gid) | Answer::Aborted(gid) | Answer::No(gid)) = answer else {
            return;
        };
        let txn = books::transactions(world).await.remove(&gid);
        let state = txn.map(|txn| txn.state);
        match answer {
            Answer::Applied(_) | Answer::Committed(_) => {
                if self.refused {
                    world.violated(format!("{gid} names a stranger and was committed"));
                }
                if state != Some(State::Commit) {
                    world.violated(format!("4: {gid} was answered {answer:?} while it was {state:?}"));
                }
            }
            Answer::Aborted(_) | Answer::No(_) if state == Some(State::Commit) => {
                world.violated(format!("4: {gid} was answered {answer:?} while it was committed"));
            }
            Answer::No(_) if !self.refused => world.violated(format!("{gid} was refused for no reason")),
            Answer::Aborted(_) | Answer::No(_) | Answer::Pending | Answer::None => {}
        }
        if let Answer::Applied(gid) = answer {
            for owner in [Owner::Persist, Owner::Counter] {
                let held = books::prepared(world, owner).await.remove(&gid);
                if held.as_deref() != Some("COMMITTED") {
                    world.violated(format!("{gid} was answered 201 while {owner:?} had {held:?}"));
                }
            }
        }
    }
}

//! The wire between a gateway and a participant: bodies are encoded and decoded as on the real one, and every message may be
//! lost or late.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use notifyx_chassis::reply::problem;
use notifyx_commit::{CallFailed, Participant, Party};
use notifyx_model::Fault;
use notifyx_wire::rest::{
    Problem,
    commit::{Ack, Acks, GidBatch, PrepareBatch, Vote, Votes},
};
use serde::{Serialize, de::DeserializeOwned};
use tokio_util::sync::CancellationToken;

use crate::{
    points::{after, before},
    world::{Blow, World, alive, until},
};

pub(crate) struct Link {
    pub(crate) world: Arc<World>,
    /// The gateway's.
    pub(crate) dead: CancellationToken,
    pub(crate) to: Party,
}

#[derive(Clone, Copy, Debug)]
enum Verb {
    Prepare,
    Commit,
    Rollback,
}

/// Every method is a send with its points: one that is added to the trait does not compile until it is here.
#[async_trait]
impl Participant for Link {
    async fn prepare(&self, batch: &PrepareBatch, _: Duration) -> Result<Vec<Vote>, CallFailed> {
        let answer: Votes = self.carry(Verb::Prepare, batch).await?;
        Ok(answer.votes)
    }

    async fn commit(&self, batch: &GidBatch, _: Duration) -> Result<Vec<Ack>, CallFailed> {
        let answer: Acks = self.carry(Verb::Commit, batch).await?;
        Ok(answer.acks)
    }

    async fn rollback(&self, batch: &GidBatch, _: Duration) -> Result<Vec<Ack>, CallFailed> {
        let answer: Acks = self.carry(Verb::Rollback, batch).await?;
        Ok(answer.acks)
    }
}

impl Link {
    fn name(&self, verb: Verb) -> &'static str {
        match (self.to, verb) {
            (Party::Persist, Verb::Prepare) => "send.persist.prepare",
            (Party::Persist, Verb::Commit) => "send.persist.commit",
            (Party::Persist, Verb::Rollback) => "send.persist.rollback",
            (Party::Counter, Verb::Prepare) => "send.counter.prepare",
            (Party::Counter, Verb::Commit) => "send.counter.commit",
            (Party::Counter, Verb::Rollback) => "send.counter.rollback",
        }
    }

    async fn carry<T: DeserializeOwned>(&self, verb: Verb, body: &impl Serialize) -> Result<T, CallFailed> {
        let (world, to, name) = (self.world.clone(), self.to, self.name(verb));
        let body = serde_json::to_vec(body).expect("bodies are JSON");
        alive(&self.dead).await;
        let delay = match world.pass(before(name)) {
            Blow::None => Duration::ZERO,
            Blow::Error => return Err(failed("the connection was refused")),
            Blow::Delay(span) => span,
            Blow::Lost => std::future::pending().await,
        };
        alive(&self.dead).await;
        // What is sent arrives, whatever becomes of its sender and however long that waits.
        let arriving = tokio::spawn(async move {
            if delay > Duration::ZERO {
                world.later(delay).await;
            }
            deliver(&world, to, verb, body).await
        });
        let answer = arriving.await.expect("participants do not panic");
        match self.world.pass(after(name)) {
            Blow::None => {}
            Blow::Error => return Err(failed("the connection was cut")),
            Blow::Delay(span) => self.world.later(span).await,
            Blow::Lost => std::future::pending().await,
        }
        alive(&self.dead).await;
        Ok(serde_json::from_slice(&answer?).expect("answers are JSON"))
    }
}

fn failed(reason: &str) -> CallFailed {
    CallFailed { reason: reason.into(), repeats: false }
}

/// The participant's side. It goes on when the caller is gone. After a crash nobody hears of it any more.
async fn deliver(world: &Arc<World>, to: Party, verb: Verb, body: Vec<u8>) -> Result<Vec<u8>, CallFailed> {
    let away = || failed("nobody listens there");
    match to {
        Party::Persist => {
            let (node, dead) = world.persist().ok_or_else(away)?;
            let work = async move {
                match verb {
                    Verb::Prepare => votes(node.prepare(read::<PrepareBatch>(&body).items).await),
                    Verb::Commit => acks(node.commit(&read::<GidBatch>(&body).gids).await),
                    Verb::Rollback => acks(node.rollback(&read::<GidBatch>(&body).gids).await),
                }
            };
            until(&dead, work).await.unwrap_or_else(cut)
        }
        Party::Counter => {
            let (node, dead) = world.counter().ok_or_else(away)?;
            let work = async move {
                match verb {
                    Verb::Prepare => votes(node.prepare(&read::<PrepareBatch>(&body).items).await),
                    Verb::Commit => acks(node.commit(&read::<GidBatch>(&body).gids).await),
                    Verb::Rollback => acks(node.rollback(&read::<GidBatch>(&body).gids).await),
                }
            };
            until(&dead, work).await.unwrap_or_else(cut)
        }
    }
}

fn cut<T>() -> Result<T, CallFailed> {
    Err(failed("the connection was reset"))
}

fn read<T: DeserializeOwned>(body: &[u8]) -> T {
    serde_json::from_slice(body).expect("bodies are JSON")
}

fn votes<E: Fault>(votes: Result<Vec<Vote>, E>) -> Result<Vec<u8>, CallFailed> {
    answer(votes.map(|votes| Votes { votes }))
}

fn acks<E: Fault>(acks: Result<Vec<Ack>, E>) -> Result<Vec<u8>, CallFailed> {
    answer(acks.map(|acks| Acks { acks }))
}

/// As the door answers, and as the mesh takes it.
fn answer<E: Fault>(outcome: Result<impl Serialize, E>) -> Result<Vec<u8>, CallFailed> {
    match outcome {
        Ok(body) => Ok(serde_json::to_vec(&body).expect("answers are JSON")),
        Err(error) => {
            let Problem { status, detail, .. } = problem(&error);
            Err(CallFailed { reason: detail, repeats: (400..500).contains(&status) && status != 429 })
        }
    }
}

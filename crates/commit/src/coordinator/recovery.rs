//! Recovery: each second, takes over transactions whose lease ran out, whoever began them, and brings them to their end.
//!
//! PREPARING is decided ABORT, by the same compare-and-set as any decision, so a gateway that was merely slow loses or wins the
//! race but never splits it. Whatever is decided is sent again.

use std::{sync::Arc, time::Duration};

use tokio::time::{MissedTickBehavior, interval};
use tracing::{info, warn};

use super::{
    Inner, chain,
    settle::{Chase, Decision},
};
use crate::{Claim, Record, State, StoreError, Verdict, VerdictOn, Votes, ballot};

/// Old transactions deleted in one go: short enough to hold up nobody.
const TRIM_LIMIT: u32 = 1_000;
/// Trimming is no hurry: once in so many rounds.
const TRIM_EVERY: u64 = 60;

pub(super) async fn run(inner: Arc<Inner>) {
    let mut rounds = interval(Duration::from_millis(inner.config.recover_every_ms));
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for round in 0_u64.. {
        tokio::select! {
            () = inner.stop.cancelled() => return,
            _ = rounds.tick() => {}
        }
        let trims = round % TRIM_EVERY == TRIM_EVERY - 1;
        let work = async {
            inner.recover().await?;
            if trims {
                inner.stored(inner.ports.store.trim(inner.config.keep_closed(), TRIM_LIMIT)).await?;
            }
            let figures = inner.stored(inner.ports.store.figures()).await?;
            inner.metrics.figures(&figures);
            Ok::<_, StoreError>(())
        };
        tokio::select! {
            () = inner.stop.cancelled() => return,
            done = work => if let Err(error) = done {
                warn!(error = %chain(&error), "a round of recovery failed; the next follows");
            }
        }
    }
}

impl Inner {
    /// One round: until nothing more is overdue, or a full page made no progress worth another look this second.
    async fn recover(self: &Arc<Self>) -> Result<(), StoreError> {
        // At most what one participant's call takes.
        let limit = u32::try_from(self.config.group_items).unwrap_or(u32::MAX);
        loop {
            let claim = Claim { owner: self.owner, lease: self.config.lease(), limit };
            let claimed = self.stored(self.ports.store.claim(claim)).await?;
            let full = claimed.len() >= self.config.group_items;
            self.finish(claimed).await?;
            // A full page again: each claim moves the leases, so the next page is another one.
            if !full || self.stop.is_cancelled() {
                return Ok(());
            }
        }
    }

    async fn finish(self: &Arc<Self>, claimed: Vec<Record>) -> Result<(), StoreError> {
        if claimed.is_empty() {
            return Ok(());
        }
        let abandoned: Vec<VerdictOn> = claimed
            .iter()
            .filter(|record| record.state == State::Preparing)
            .map(|record| VerdictOn {
                gid: record.gid,
                verdict: Verdict::Abort { reason: "it was left undecided, and recovery aborted it".into() },
                votes: Votes::NONE,
            })
            .collect();
        let mut decided = if abandoned.is_empty() {
            Vec::new()
        } else {
            let _timer = self.metrics.step("decide");
            self.stored(self.ports.store.decide(&abandoned)).await?
        }
        .into_iter();
        let (mut commits, mut aborts) = (Vec::new(), Vec::new());
        for record in claimed {
            let state = match record.state {
                // No row any more, no commit: nobody can ever decide it.
                State::Preparing => decided.next().flatten().unwrap_or(State::Abort),
                state @ (State::Commit | State::Abort) => state,
            };
            let chase = Chase {
                gid: record.gid,
                owed: ballot::owed(record.acked),
                tries: record.tries,
                refusals: record.refusals,
                quarantined: record.quarantined,
                transaction: None,
            };
            match state {
                State::Commit => commits.push(chase),
                State::Abort => aborts.push(chase),
                // Undecided: nothing may be sent. It comes back when its lease runs out.
                State::Preparing => {}
            }
        }
        info!(commits = commits.len(), aborts = aborts.len(), "recovery finishes what was left open");
        self.metrics.recovered(State::Commit.as_str(), commits.len());
        self.metrics.recovered(State::Abort.as_str(), aborts.len());
        tokio::join!(self.clone().settle(Decision::Commit, commits), self.clone().settle(Decision::Abort, aborts));
        Ok(())
    }
}

//! Whose token is it, a session's or an API key? Auth knows; this remembers, and follows auth's numbered log of revocations.
//!
//! A remembered answer is used only while the log is followed: where no poll has come through for a second, auth is asked
//! each time. So a logout takes effect here within a second, whatever breaks.

use std::{
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use moka::sync::Cache;
use notifyx_model::{Clock, Timestamp, Token, TokenHash};
use notifyx_wire::rest::auth::{Revocation, Revocations, keys::Principal};
use tokio::sync::{broadcast, watch};
use tracing::{info, warn};

use crate::{
    Call, CallError, Mesh,
    revoked::{Mark, Revoked},
};

/// Sockets of one gateway and then some, at about 300 bytes each.
const IDENTITIES_MAX: u64 = 200_000;
/// What is not revoked may still change, such as an address: as late as this is late enough.
const REMEMBERED: Duration = Duration::from_secs(300);
/// Half of what makes the cache count as behind, so that one poll may be slow.
const POLL: Duration = Duration::from_millis(500);
const BEHIND: Duration = Duration::from_secs(1);
/// A poll that takes longer has left the cache behind anyway.
const POLL_DEADLINE: Duration = Duration::from_millis(1_500);
/// The least time from poll to poll where nothing is new: a peer that does not wait must not be hammered.
const PACE: Duration = Duration::from_millis(50);
/// Revocations that a receiver may be behind.
const TOLD_MAX: usize = 4_096;

/// The identities that tokens stand for.
#[derive(Debug)]
pub struct Sessions {
    mesh: Mesh,
    clock: Clock,
    known: Cache<TokenHash, Known>,
    revoked: RwLock<Revoked>,
    /// When the log was last known to be read to its end.
    followed: watch::Sender<Option<Timestamp>>,
    told: broadcast::Sender<Revocation>,
    gaps: watch::Sender<u64>,
}

#[derive(Clone, Debug)]
struct Known {
    principal: Principal,
    mark: Mark,
    asked_at: Timestamp,
}

impl Sessions {
    /// Follows auth's log on the current runtime until the mesh stops. One per mesh.
    pub fn start(mesh: Mesh, clock: Clock) -> Arc<Self> {
        let known = Cache::builder().max_capacity(IDENTITIES_MAX).time_to_live(REMEMBERED).build();
        let sessions = Arc::new(Self {
            clock,
            known,
            revoked: RwLock::default(),
            followed: watch::Sender::new(None),
            told: broadcast::Sender::new(TOLD_MAX),
            gaps: watch::Sender::new(0),
            mesh,
        });
        let (follower, stop) = (sessions.clone(), sessions.mesh.stopping().clone());
        sessions.mesh.spawn(async move {
            tokio::select! {
                () = follower.follow() => {}
                () = stop.cancelled() => {}
            }
        });
        sessions
    }

    /// Whom the token stands for; `None`: of no session and no key, or of one that has ended.
    pub async fn identify(&self, token: &Token) -> Result<Option<Principal>, CallError> {
        let (hash, asked_at) = (token.hash(), self.clock.now());
        let counters = &self.mesh.metrics().identities;
        let (revoked, mark) = self.revoked(|revoked| (revoked.has(&hash), revoked.mark()));
        if revoked {
            counters.revoked.inc();
            return Ok(None);
        }
        let follows = self.is_following();
        if follows && let Some(principal) = self.remembered(&hash, asked_at) {
            counters.hit.inc();
            return Ok(Some(principal));
        }
        if follows { &counters.miss } else { &counters.bypass }.inc();
        let Some(principal) = self.ask(token).await? else { return Ok(None) };
        // Logged out while auth was asked.
        if self.revoked(|revoked| revoked.has(&hash)) {
            return Ok(None);
        }
        if follows {
            self.known.insert(hash, Known { principal: principal.clone(), mark, asked_at });
        }
        Ok(Some(principal))
    }

    /// Revocations as they are met, for whoever holds something open on behalf of a session. A receiver that lags has to
    /// do what follows from a gap ([`Sessions::gaps`]).
    pub fn revocations(&self) -> broadcast::Receiver<Revocation> {
        self.told.subscribe()
    }

    /// Changes when revocations may have been missed, as after a long absence of auth: whoever holds something open asks
    /// [`Sessions::identify`] about each session anew.
    pub fn gaps(&self) -> watch::Receiver<u64> {
        self.gaps.subscribe()
    }

    /// Whether the log is followed, so that remembered answers are used.
    pub fn is_following(&self) -> bool {
        let followed = *self.followed.borrow();
        followed.is_some_and(|at| self.clock.now().since(at) <= BEHIND)
    }

    /// Waits until the log is followed for the first time.
    pub async fn followed(&self) {
        self.followed.subscribe().wait_for(Option::is_some).await.expect("the sender is this struct's own");
    }

    fn remembered(&self, hash: &TokenHash, now: Timestamp) -> Option<Principal> {
        let known = self.known.get(hash)?;
        let user = known.principal.user_id();
        let stands = known.principal.is_live(now)
            && self.revoked(|revoked| revoked.allows(user, hash, known.mark, known.asked_at));
        if !stands {
            self.known.invalidate(hash);
        }
        stands.then_some(known.principal)
    }

    /// Sessions and keys are asked for at places of their own: a version that knows no keys cannot take one for a session.
    async fn ask(&self, token: &Token) -> Result<Option<Principal>, CallError> {
        let place = if token.is_key() { "/api/keys/self" } else { "/api/users/self" };
        match self.mesh.call("auth", Call::get(place).bearer(token)).await {
            Ok(answer) if token.is_key() => answer.json().map(|key| Some(Principal::Key(key))),
            Ok(answer) => answer.json().map(|identity| Some(Principal::User(identity))),
            Err(CallError::Refused(problem, _)) if problem.status == 401 => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reads the log for ever, once there is an auth: a cluster that is just starting is no failure.
    async fn follow(&self) {
        while !self.mesh.wait_for("auth", REMEMBERED).await {}
        let mut after = None;
        let mut failing = false;
        loop {
            match self.poll(after).await {
                Ok((next, was_new)) => {
                    if failing {
                        info!("auth's revocations are followed again");
                        failing = false;
                    }
                    after = Some(next);
                    if !was_new {
                        tokio::time::sleep(PACE).await;
                    }
                }
                Err(error) => {
                    if !failing {
                        warn!("auth's revocations cannot be followed, so it is asked about every token: {error}");
                        failing = true;
                    }
                    let pause = PACE.mul_f64(rand::random_range(1.0..4.0));
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }

    /// One page of the log. Answers up to where it is read now, and whether there was anything.
    async fn poll(&self, after: Option<u64>) -> Result<(u64, bool), CallError> {
        let mut call = Call::get("/api/revocations").deadline(POLL_DEADLINE).once();
        if let Some(after) = after {
            call = call.query("after", after).query("wait_ms", POLL.as_millis());
        }
        let page: Revocations = self.mesh.call("auth", call).await?.json()?;
        let Some(after) = after.filter(|after| page.follows(*after)) else {
            // The first look at the log; or one that does not follow on the last, so that a logout may be missing.
            self.revise(Revoked::forget);
            if after.is_some() {
                self.gaps.send_modify(|gaps| *gaps += 1);
            }
            self.now_followed();
            return Ok((page.head, false));
        };
        let now = self.clock.now();
        for revocation in &page.revoked {
            self.revise(|revoked| revoked.apply(revocation, now));
            if let Some(hash) = &revocation.token_hash {
                self.known.invalidate(hash);
            }
            // Nobody listens: nobody holds anything open.
            let _ = self.told.send(revocation.clone());
        }
        let read = page.revoked.last().map_or(after, |last| last.seq);
        if read >= page.head {
            self.now_followed();
        }
        Ok((read, !page.revoked.is_empty()))
    }

    fn now_followed(&self) {
        self.followed.send_replace(Some(self.clock.now()));
    }

    fn revoked<T>(&self, read: impl FnOnce(&Revoked) -> T) -> T {
        read(&self.revoked.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn revise(&self, change: impl FnOnce(&mut Revoked)) {
        change(&mut self.revoked.write().unwrap_or_else(PoisonError::into_inner));
    }
}

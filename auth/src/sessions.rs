//! Sessions: logging in, telling whose a token is, logging out.
//!
//! A session that has ended is never served from the cache for longer than the log of revocations takes to tell of it:
//! within this process at once, of other instances within a quarter of a second.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use moka::sync::Cache;
use notifyx_chassis::{Identify, Unavailable, reply};
use notifyx_model::{Clock, Timestamp, Token, TokenHash};
use notifyx_wire::rest::auth::{Credentials, Identity, LoggedIn, Revocations as Page};
use rand::Rng;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::{
    Config,
    accounts::Accounts,
    error::Error,
    metrics::{Lookup, Metrics},
    revocations::{News, Revocations, Since},
    store::{Session, Store},
};

/// Characters of a token: 32 random bytes in base64 without padding.
const TOKEN_CHARS: usize = 43;

/// How long a logout waits for this process to have heard of it; the follower tells it soon after.
const OWN_NEWS_TIMEOUT: Duration = Duration::from_secs(1);

/// Rows removed in one transaction of a sweep: short enough that nobody waits for it.
const SWEEP_ROWS: u32 = 1_000;

pub(crate) struct Sessions {
    store: Arc<dyn Store>,
    accounts: Arc<Accounts>,
    revocations: Revocations,
    /// What was found by token, until it expires or the log ends it.
    known: Cache<TokenHash, Identity>,
    clock: Clock,
    ttl: Duration,
    per_user_max: u32,
    metrics: Metrics,
}

impl Sessions {
    pub(crate) async fn open(
        config: &Config,
        store: Arc<dyn Store>,
        accounts: Arc<Accounts>,
        clock: Clock,
        metrics: Metrics,
    ) -> Result<Self, Error> {
        Ok(Self {
            revocations: Revocations::open(store.clone(), metrics.clone()).await?,
            store,
            accounts,
            known: Cache::new(config.cache_entries_max),
            clock,
            ttl: hours(config.session_ttl_hours.get()),
            per_user_max: config.sessions_per_user_max.get(),
            metrics,
        })
    }

    /// Opens a session for whoever has the right credentials.
    pub(crate) async fn login(&self, credentials: &Credentials, address: &str) -> Result<LoggedIn, Error> {
        let user = self.accounts.authenticate(credentials, address).await?;
        let token = new_token();
        let created_at = self.clock.now();
        let expires_at = created_at + self.ttl;
        let session = Session { token_hash: token.hash(), user_id: user.id, created_at, expires_at };
        if self.store.open_session(&session, self.per_user_max).await? > 0 {
            self.hear_own_news().await;
        }
        Ok(LoggedIn { success: true, token, id: user.id, email: user.email, expires_at })
    }

    /// Checks credentials without opening a session: a socket that connects with them. Good for as long as a session is.
    pub(crate) async fn verify(&self, credentials: &Credentials, address: &str) -> Result<Identity, Error> {
        let user = self.accounts.authenticate(credentials, address).await?;
        let expires_at = self.clock.now() + self.ttl;
        Ok(Identity { id: user.id, email: user.email, created_at: user.created_at, expires_at })
    }

    /// Whose a token is; `None` for one that is unknown, has expired or was logged out.
    pub(crate) async fn identify(&self, token: &Token) -> Result<Option<Identity>, Error> {
        if token.as_str().len() != TOKEN_CHARS {
            return Ok(None);
        }
        let token_hash = token.hash();
        let mark = self.revocations.mark();
        let lookup = match (mark, self.known.get(&token_hash)) {
            (Some(_), Some(identity)) => {
                self.metrics.lookup("session", Lookup::Hit);
                return Ok(live(identity, self.clock.now()));
            }
            (Some(_), None) => Lookup::Miss,
            (None, _) => Lookup::Bypassed,
        };
        self.metrics.lookup("session", lookup);
        let found = self.store.find_session(token_hash).await?;
        let Some(identity) = found.and_then(|found| live(found, self.clock.now())) else { return Ok(None) };
        Ok(match mark {
            Some(mark) => self.remember(token_hash, identity, mark),
            None => Some(identity),
        })
    }

    /// Puts what was read since `mark` into the cache, unless the session has ended meanwhile. The log is asked after the
    /// insert: a revocation is noted there before it clears the cache, so that one of the two removes what is stale.
    fn remember(&self, token_hash: TokenHash, identity: Identity, mark: u64) -> Option<Identity> {
        self.known.insert(token_hash, identity.clone());
        match self.revocations.since(mark, token_hash, identity.id) {
            Since::Untouched => Some(identity),
            Since::Ended => {
                self.known.invalidate(&token_hash);
                None
            }
            Since::Unknown => {
                self.known.invalidate(&token_hash);
                Some(identity)
            }
        }
    }

    /// Ends the token's session. Again is no error: it has ended.
    pub(crate) async fn logout(&self, token: &Token) -> Result<(), Error> {
        let token_hash = token.hash();
        let ended = self.store.end_session(token_hash, self.clock.now()).await?;
        self.known.invalidate(&token_hash);
        if ended {
            self.metrics.logouts.inc();
            self.hear_own_news().await;
        }
        Ok(())
    }

    /// Follows the log until told to stop.
    pub(crate) async fn follow(&self, each: Duration, stop: CancellationToken) {
        self.revocations.follow(each, stop, |news| self.forget(news)).await;
    }

    /// For those who follow the log from elsewhere.
    pub(crate) async fn revoked(
        &self,
        after: Option<u64>,
        wait: Duration,
        stopping: &CancellationToken,
    ) -> Result<Page, Error> {
        self.revocations.page(after, wait, stopping, |news| self.forget(news)).await
    }

    /// Removes what has expired and what of the log is older than `kept`.
    pub(crate) async fn sweep(&self, kept: Duration) -> Result<(), Error> {
        let now = self.clock.now();
        loop {
            let dropped = self.store.drop_expired(now, SWEEP_ROWS).await?;
            self.metrics.sessions_expired.inc_by(dropped);
            if dropped < u64::from(SWEEP_ROWS) {
                break;
            }
        }
        while self.store.trim_revocations(now - kept, SWEEP_ROWS).await? >= u64::from(SWEEP_ROWS) {}
        Ok(())
    }

    /// The number of the newest revocation seen, and whether the log is followed.
    pub(crate) fn log(&self) -> (u64, bool) {
        (self.revocations.head(), self.revocations.mark().is_some())
    }

    /// How many sessions the cache holds.
    pub(crate) fn cached(&self) -> u64 {
        self.known.entry_count()
    }

    /// What this process has just revoked takes effect in it before the caller is answered.
    async fn hear_own_news(&self) {
        let heard = timeout(OWN_NEWS_TIMEOUT, self.revocations.advance(|news| self.forget(news))).await;
        if let Err(error) = heard.unwrap_or(Err(Error::Behind)) {
            let reason = reply::chain(&error);
            tracing::warn!(reason, "a revocation is committed but not yet read back; the follower will");
        }
    }

    fn forget(&self, news: News<'_>) {
        match news {
            News::Ended(revocation) => match &revocation.token_hash {
                Some(token_hash) => self.known.invalidate(token_hash),
                // Rare, and the cache is not keyed by user.
                None => self.known.invalidate_all(),
            },
            News::Gap => self.known.invalidate_all(),
        }
    }
}

#[async_trait]
impl Identify for Sessions {
    async fn identify(&self, token: &Token) -> Result<Option<Identity>, Unavailable> {
        Self::identify(self, token).await.map_err(|error| Unavailable(error.to_string()))
    }
}

/// The identity, unless it has expired.
fn live(identity: Identity, now: Timestamp) -> Option<Identity> {
    (now < identity.expires_at).then_some(identity)
}

fn new_token() -> Token {
    let bits: [u8; 32] = rand::rng().random();
    Token::parse(&URL_SAFE_NO_PAD.encode(bits)).expect("base64 is visible and of a sane length")
}

pub(crate) fn hours(count: u32) -> Duration {
    Duration::from_secs(u64::from(count) * 3_600)
}

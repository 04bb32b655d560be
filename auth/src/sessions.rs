//! Sessions: logging in, telling whose a token is, logging out. What a token stands for may be an API key too.
//!
//! A session or a key that has ended is never served from the cache for longer than the log of revocations takes to tell of it:
//! within this process at once, of other instances within a quarter of a second.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use moka::sync::Cache;
use notifyx_chassis::{Identify, Unavailable, reply};
use notifyx_model::{Clock, Timestamp, Token, TokenHash};
use notifyx_wire::rest::auth::{Credentials, Identity, LoggedIn, Revocations as Page, keys::Principal};
use rand::Rng;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::{
    Config,
    accounts::Accounts,
    error::Error,
    keys::Uses,
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
    known: Cache<TokenHash, Principal>,
    /// When keys were used.
    pub(crate) uses: Uses,
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
            uses: Uses::default(),
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

    /// Whom a token stands for; `None` for one that is unknown, has expired, was logged out or revoked.
    pub(crate) async fn identify(&self, token: &Token) -> Result<Option<Principal>, Error> {
        let found = self.find(token).await?;
        if let Some(Principal::Key(key)) = &found {
            self.uses.note(key.key_id, self.clock.now());
        }
        Ok(found)
    }

    async fn find(&self, token: &Token) -> Result<Option<Principal>, Error> {
        let cache = if token.is_key() {
            "key"
        } else if token.as_str().len() == TOKEN_CHARS {
            "session"
        } else {
            return Ok(None);
        };
        let token_hash = token.hash();
        let mark = self.revocations.mark();
        let lookup = match (mark, self.known.get(&token_hash)) {
            (Some(_), Some(principal)) => {
                self.metrics.lookup(cache, Lookup::Hit);
                return Ok(live(principal, self.clock.now()));
            }
            (Some(_), None) => Lookup::Miss,
            (None, _) => Lookup::Bypassed,
        };
        self.metrics.lookup(cache, lookup);
        let found = if token.is_key() {
            self.store.find_key(token_hash).await?.map(Principal::Key)
        } else {
            self.store.find_session(token_hash).await?.map(Principal::User)
        };
        let Some(principal) = found.and_then(|found| live(found, self.clock.now())) else { return Ok(None) };
        Ok(match mark {
            Some(mark) => self.remember(token_hash, principal, mark),
            None => Some(principal),
        })
    }

    /// Puts what was read since `mark` into the cache, unless it has ended meanwhile. The log is asked after the insert: a
    /// revocation is noted there before it clears the cache, so that one of the two removes what is stale.
    fn remember(&self, token_hash: TokenHash, principal: Principal, mark: u64) -> Option<Principal> {
        self.known.insert(token_hash, principal.clone());
        match self.revocations.since(mark, token_hash, principal.user_id()) {
            Since::Untouched => Some(principal),
            Since::Ended => {
                self.known.invalidate(&token_hash);
                None
            }
            Since::Unknown => {
                self.known.invalidate(&token_hash);
                Some(principal)
            }
        }
    }

    /// Ends the token's session. Again is no error: it has ended.
    pub(crate) async fn logout(&self, token: &Token) -> Result<(), Error> {
        let token_hash = token.hash();
        let ended = self.store.end_session(token_hash, self.clock.now()).await?;
        if ended {
            self.metrics.logouts.inc();
            self.has_ended(token_hash).await;
        } else {
            self.known.invalidate(&token_hash);
        }
        Ok(())
    }

    /// This process has ended it, through the log.
    pub(crate) async fn has_ended(&self, token_hash: TokenHash) {
        self.known.invalidate(&token_hash);
        self.hear_own_news().await;
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

    /// How many sessions and keys the cache holds.
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
    async fn identify(&self, token: &Token) -> Result<Option<Principal>, Unavailable> {
        Self::identify(self, token).await.map_err(|error| Unavailable(error.to_string()))
    }
}

/// Unless it has expired.
fn live(principal: Principal, now: Timestamp) -> Option<Principal> {
    principal.is_live(now).then_some(principal)
}

fn new_token() -> Token {
    let bits: [u8; 32] = rand::rng().random();
    Token::parse(&URL_SAFE_NO_PAD.encode(bits)).expect("base64 is visible and of a sane length")
}

pub(crate) fn hours(count: u32) -> Duration {
    Duration::from_secs(u64::from(count) * 3_600)
}

#[cfg(test)]
mod tests {
    use notifyx_database::testing::{self, TestDatabase};
    use notifyx_model::{Email, ManualClock};

    use super::*;
    use crate::store::{self, MIGRATIONS};

    struct Kept {
        sessions: Sessions,
        hand: ManualClock,
        database: TestDatabase,
    }

    /// With one account, and room for two of its sessions.
    async fn open() -> Kept {
        let (database, hand) = (testing::sqlite(&MIGRATIONS).await, ManualClock::new());
        let config = Config { sessions_per_user_max: 2.try_into().unwrap(), ..Config::default() };
        let (store, clock) = (store::of(&database.database), hand.clock());
        let metrics = Metrics::new(&prometheus::Registry::new());
        let accounts = Arc::new(Accounts::new(&config, store.clone(), clock.clone(), metrics.clone()));
        accounts.register(credentials()).await.unwrap();
        let sessions = Sessions::open(&config, store, accounts, clock, metrics).await.unwrap();
        Kept { sessions, hand, database }
    }

    fn credentials() -> Credentials {
        Credentials { email: Email::parse("ann@x.org").unwrap(), password: "correct horse".into() }
    }

    impl Kept {
        async fn login(&self) -> Token {
            self.sessions.login(&credentials(), "192.0.2.1").await.unwrap().token
        }

        async fn knows(&self, token: &Token) -> bool {
            self.sessions.identify(token).await.unwrap().is_some()
        }
    }

    #[tokio::test]
    async fn a_token_is_good_until_it_expires() {
        let kept = open().await;
        let token = kept.login().await;
        assert_eq!(token.as_str().len(), TOKEN_CHARS);
        let identity = kept.sessions.identify(&token).await.unwrap().unwrap();
        assert_eq!(identity.email(), &credentials().email);
        kept.hand.advance(hours(719));
        assert!(kept.knows(&token).await);
        kept.hand.advance(hours(1));
        assert!(!kept.knows(&token).await, "also from the cache");
        kept.sessions.known.invalidate_all();
        assert!(!kept.knows(&token).await, "also before the sweep");
        kept.sessions.sweep(Duration::ZERO).await.unwrap();
        assert_eq!(kept.sessions.store.find_session(token.hash()).await.unwrap(), None);
        assert_eq!(kept.sessions.log().0, 0, "nobody needs to be told");
    }

    #[tokio::test]
    async fn a_logout_is_heard_here_at_once() {
        let kept = open().await;
        let token = kept.login().await;
        assert!(kept.knows(&token).await);
        kept.sessions.logout(&token).await.unwrap();
        assert!(!kept.knows(&token).await);
        assert_eq!(kept.sessions.log().0, 1);
        kept.sessions.logout(&token).await.unwrap();
        assert_eq!(kept.sessions.log().0, 1, "what has ended ends once");
    }

    #[tokio::test]
    async fn a_read_that_began_before_the_logout_is_not_kept() {
        let kept = open().await;
        let token = kept.login().await;
        let mark = kept.sessions.log().0;
        let read = kept.sessions.store.find_session(token.hash()).await.unwrap().unwrap();
        kept.sessions.logout(&token).await.unwrap();
        assert_eq!(kept.sessions.remember(token.hash(), Principal::User(read), mark), None);
        assert!(kept.sessions.known.get(&token.hash()).is_none());
    }

    #[tokio::test]
    async fn another_instances_logout_is_heard_with_the_next_look() {
        let kept = open().await;
        let token = kept.login().await;
        kept.sessions.revocations.refresh();
        assert!(kept.knows(&token).await);
        assert!(kept.sessions.store.end_session(token.hash(), kept.hand.clock().now()).await.unwrap());
        kept.sessions.revocations.refresh();
        assert!(kept.knows(&token).await, "from the cache, for a moment");
        kept.sessions.revocations.advance(|news| kept.sessions.forget(news)).await.unwrap();
        assert!(!kept.knows(&token).await);
    }

    #[tokio::test]
    async fn the_oldest_session_ends_where_there_are_too_many() {
        let kept = open().await;
        let mut tokens = Vec::new();
        for _ in 0..3 {
            tokens.push(kept.login().await);
            assert!(kept.knows(&tokens[0]).await == (tokens.len() < 3));
            kept.hand.advance(Duration::from_secs(1));
        }
        assert!(kept.knows(&tokens[1]).await && kept.knows(&tokens[2]).await);
        assert_eq!(kept.sessions.log().0, 1);
    }

    #[tokio::test]
    async fn a_cache_that_is_behind_is_not_asked() {
        let kept = open().await;
        let token = kept.login().await;
        kept.sessions.revocations.refresh();
        assert!(kept.knows(&token).await);
        assert!(kept.sessions.store.end_session(token.hash(), kept.hand.clock().now()).await.unwrap());
        kept.sessions.revocations.fall_behind();
        assert!(!kept.knows(&token).await);
    }

    #[tokio::test]
    async fn what_is_no_token_costs_no_query() {
        let kept = open().await;
        kept.database.database.close().await;
        assert!(!kept.knows(&Token::parse("no-token-of-auth").unwrap()).await);
        assert!(!kept.knows(&Token::parse("nxk_no-key-of-auth").unwrap()).await);
        assert!(kept.sessions.identify(&new_token()).await.is_err());
    }
}

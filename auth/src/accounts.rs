//! Accounts: registering, proving that one is one's own, looking people up.

use std::sync::Arc;

use moka::sync::Cache;
use notifyx_model::{Clock, Fault, Kind, UserId};
use notifyx_wire::rest::{
    PAGE_DEFAULT, PAGE_MAX,
    auth::{Credentials, Resolve, User, UserPage},
};

use crate::{
    Config,
    error::Error,
    limits::Limits,
    metrics::{Login, Lookup, Metrics},
    passwords::{Password, Passwords},
    store::{Account, Store},
};

/// People resolved in one call, as the wire says: the recipients that one notification may name.
pub(crate) const RESOLVE_MAX: usize = 1_000;

pub(crate) struct Accounts {
    store: Arc<dyn Store>,
    passwords: Passwords,
    limits: Limits,
    /// Nothing of a user changes, so nothing has to leave but for room.
    users: Cache<UserId, User>,
    clock: Clock,
    metrics: Metrics,
}

impl Accounts {
    pub(crate) fn new(config: &Config, store: Arc<dyn Store>, clock: Clock, metrics: Metrics) -> Self {
        Self {
            store,
            passwords: Passwords::new(config, metrics.clone()),
            limits: Limits::new(config, clock.clone()),
            users: Cache::new(config.cache_entries_max),
            clock,
            metrics,
        }
    }

    /// Makes an account. The password is hashed before the address is looked up: asking which addresses exist has its price.
    pub(crate) async fn register(&self, credentials: Credentials) -> Result<User, Error> {
        let password = Password::parse(&credentials.password)?;
        let password_hash = self.passwords.turn().await?.hash(password).await?;
        let user = User { id: UserId::new(&self.clock), email: credentials.email, created_at: self.clock.now() };
        let account = Account { user, password_hash };
        if !self.store.add_account(&account).await? {
            return Err(Error::EmailTaken);
        }
        self.metrics.registrations.inc();
        tracing::info!(user = %account.user.id, "user {} has registered", account.user.id);
        Ok(account.user)
    }

    /// The user behind the credentials. Which of the two was wrong shows neither in the answer nor in its time.
    pub(crate) async fn authenticate(&self, credentials: &Credentials, address: &str) -> Result<User, Error> {
        let result = self.try_authenticate(credentials, address).await;
        self.metrics.login(match result.as_ref().map_err(Fault::kind) {
            Ok(_) => Login::Ok,
            Err(Kind::Unauthenticated) => Login::Wrong,
            Err(Kind::TooMany) => Login::Limited,
            Err(_) => Login::Busy,
        });
        result
    }

    async fn try_authenticate(
        &self,
        Credentials { email, password }: &Credentials,
        address: &str,
    ) -> Result<User, Error> {
        self.limits.check(email, address)?;
        // No account has such a password, whoever asks: there is nothing to learn and nothing to count.
        let Ok(password) = Password::parse(password) else { return Err(Error::WrongCredentials) };
        let account = self.store.find_account(email).await?;
        let turn = self.passwords.turn().await?;
        // Those who came before may have used up what was left, so that a burst of guesses is no way around the limit.
        self.limits.check(email, address)?;
        let stored = account.as_ref().map(|account| account.password_hash.clone());
        let right = turn.verify(password, stored).await?;
        match account {
            Some(account) if right => {
                self.limits.succeeded(email);
                Ok(account.user)
            }
            Some(_) | None => {
                self.limits.failed(email, address);
                Err(Error::WrongCredentials)
            }
        }
    }

    pub(crate) async fn get(&self, id: UserId) -> Result<User, Error> {
        if let Some(user) = self.users.get(&id) {
            self.metrics.lookup("user", Lookup::Hit);
            return Ok(user);
        }
        self.metrics.lookup("user", Lookup::Miss);
        let user = self.store.find_user(id).await?.ok_or(Error::UserNotFound(id))?;
        self.users.insert(id, user.clone());
        Ok(user)
    }

    /// By id, those above `after`. `limit` is brought within its bounds.
    pub(crate) async fn list(&self, after: Option<UserId>, limit: Option<u32>) -> Result<UserPage, Error> {
        let limit = limit.unwrap_or(PAGE_DEFAULT).clamp(1, PAGE_MAX);
        // One more tells whether there is a next page.
        let mut users = self.store.list_users(after, limit + 1).await?;
        let more = users.len() > limit as usize;
        users.truncate(limit as usize);
        let next = users.last().map(|user| user.id).filter(|_| more);
        Ok(UserPage { users, next })
    }

    /// Those of the named people who exist, each once.
    pub(crate) async fn resolve(&self, Resolve { emails, ids }: &Resolve) -> Result<Vec<User>, Error> {
        let found = emails.len() + ids.len();
        if found > RESOLVE_MAX {
            return Err(Error::TooManyPeople { found });
        }
        Ok(self.store.find_users(emails, ids).await?)
    }

    /// How many users the cache holds.
    pub(crate) fn cached(&self) -> u64 {
        self.users.entry_count()
    }
}

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

#[cfg(test)]
mod tests {
    use notifyx_database::testing::{self, TestDatabase};
    use notifyx_model::{Email, ManualClock};

    use super::*;
    use crate::store::{self, MIGRATIONS};

    /// With one account, which may fail three times.
    async fn open() -> (Arc<Accounts>, TestDatabase) {
        let (database, clock) = (testing::sqlite(&MIGRATIONS).await, ManualClock::new().clock());
        let config = Config {
            login_failures_per_account_max: 3.try_into().unwrap(),
            hashing_threads: 1,
            hashing_queue_max: 20,
            // Longer than a busy machine takes for all of them.
            hashing_wait_ms: 60_000,
            ..Config::default()
        };
        let metrics = Metrics::new(&prometheus::Registry::new());
        let accounts = Accounts::new(&config, store::of(&database.database), clock, metrics);
        accounts.register(credentials("correct horse")).await.unwrap();
        (Arc::new(accounts), database)
    }

    fn credentials(password: &str) -> Credentials {
        Credentials { email: Email::parse("ann@x.org").unwrap(), password: password.into() }
    }

    async fn at_once(accounts: &Arc<Accounts>, count: usize, password: &'static str) -> Vec<Result<User, Error>> {
        let try_one = |_| {
            let accounts = accounts.clone();
            tokio::spawn(async move { accounts.authenticate(&credentials(password), "192.0.2.1").await })
        };
        let tries: Vec<_> = (0..count).map(try_one).collect();
        let mut results = Vec::new();
        for tried in tries {
            results.push(tried.await.unwrap());
        }
        results
    }

    #[tokio::test]
    async fn a_burst_of_guesses_is_no_way_around_the_limit() {
        let (accounts, _database) = open().await;
        let results = at_once(&accounts, 20, "wrong horse").await;
        let wrong = results.iter().filter(|r| matches!(r, Err(Error::WrongCredentials))).count();
        let limited = results.iter().filter(|r| matches!(r, Err(Error::TooManyFailures { .. }))).count();
        assert_eq!((wrong, limited), (3, 17));
    }

    #[tokio::test]
    async fn many_sockets_of_one_user_may_connect_at_once() {
        let (accounts, _database) = open().await;
        assert!(at_once(&accounts, 10, "correct horse").await.iter().all(Result::is_ok));
    }

    #[tokio::test]
    async fn a_full_queue_is_told_and_counts_as_no_failure() {
        let (accounts, _database) = open().await;
        let mut turns = Vec::new();
        while let Ok(place) = accounts.passwords.place() {
            turns.push(place);
        }
        assert_eq!(turns.len(), 21);
        for result in at_once(&accounts, 5, "wrong horse").await {
            assert!(matches!(result, Err(Error::Busy)));
        }
        drop(turns);
        assert!(accounts.authenticate(&credentials("correct horse"), "192.0.2.1").await.is_ok());
    }
}

//! API keys: what a user's services show instead of a session. Made, listed and revoked by the user; whose one is tells
//! [`Sessions`], and what it may do say its scopes, at the doors that take keys.
//!
//! The key itself is told once, when it is made; only its hash is kept.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use notifyx_model::{Clock, KeyId, Timestamp, Token, UserId};
use notifyx_wire::rest::auth::keys::{CreatedKey, Key, Keys as Listed, NewKey};
use rand::distr::{Alphanumeric, SampleString};

use crate::{
    error::Error,
    metrics::Metrics,
    sessions::Sessions,
    store::{
        Store,
        keys::{Kept, Revoked},
    },
};

/// Keys that one user may have: one per service and place, and a list that fits one answer.
pub(crate) const LIVE_MAX: u32 = 100;

/// A key that is to last for longer is one without an end.
const TTL_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 3_600);

/// Long enough that its owner, whose service was refused, still finds in the list what became of it.
const EXPIRED_KEPT: Duration = Duration::from_secs(30 * 24 * 3_600);

/// Rows removed in one transaction of a sweep: short enough that nobody waits for it.
const SWEEP_ROWS: u32 = 1_000;

/// Keys whose use waits to be written, at 24 bytes each. More keys than that within a minute: some uses go unnoted.
const USES_MAX: usize = 100_000;

/// Uses written in one statement.
const USES_ROWS: usize = 1_000;

pub(crate) struct Keys {
    store: Arc<dyn Store>,
    sessions: Arc<Sessions>,
    clock: Clock,
    metrics: Metrics,
}

impl Keys {
    pub(crate) fn new(store: Arc<dyn Store>, sessions: Arc<Sessions>, clock: Clock, metrics: Metrics) -> Self {
        Self { store, sessions, clock, metrics }
    }

    pub(crate) async fn create(&self, user_id: UserId, new: NewKey) -> Result<CreatedKey, Error> {
        let created_at = self.clock.now();
        let expires_at = end(&new, created_at)?;
        let NewKey { name, scopes, .. } = new;
        let key = new_key();
        let prefix = key.as_str()[..Token::KEY_SHOWN].to_owned();
        let id = KeyId::new(&self.clock);
        let about = Key { id, name, prefix, scopes, created_at, last_used_at: None, expires_at };
        let kept = Kept { user_id, token_hash: key.hash(), about };
        if !self.store.add_key(&kept, LIVE_MAX).await? {
            return Err(Error::TooManyKeys);
        }
        self.metrics.keys_created.inc();
        tracing::info!(user = %user_id, key = %id, "user {user_id} has made API key {id}");
        Ok(CreatedKey { success: true, key, about: kept.about })
    }

    pub(crate) async fn list(&self, user_id: UserId) -> Result<Listed, Error> {
        Ok(Listed { keys: self.store.list_keys(user_id).await? })
    }

    /// Ends a key of this user: here at once, everywhere within a second. Another user's is not found. Repeated, by the key's
    /// id, it is answered like the first time, as long as the log of revocations reaches back.
    pub(crate) async fn revoke(&self, user_id: UserId, id: KeyId) -> Result<(), Error> {
        let ended = self.store.revoke_key(user_id, id, self.clock.now()).await?;
        let Revoked { token_hash, anew } = ended.ok_or(Error::KeyNotFound(id))?;
        self.sessions.has_ended(token_hash).await;
        if anew {
            self.metrics.keys_revoked.inc();
            tracing::info!(user = %user_id, key = %id, "user {user_id} has revoked API key {id}");
        }
        Ok(())
    }

    /// Writes down when keys were used, and removes those that expired long ago.
    pub(crate) async fn sweep(&self) -> Result<(), Error> {
        self.note_uses().await?;
        let before = self.clock.now() - EXPIRED_KEPT;
        while self.store.drop_expired_keys(before, SWEEP_ROWS).await? >= u64::from(SWEEP_ROWS) {}
        Ok(())
    }

    /// What cannot be written waits for the next time.
    pub(crate) async fn note_uses(&self) -> Result<(), Error> {
        let uses = self.sessions.uses.take();
        for (written, some) in uses.chunks(USES_ROWS).enumerate() {
            if let Err(error) = self.store.note_uses(some).await {
                for (id, at) in &uses[written * USES_ROWS..] {
                    self.sessions.uses.note(*id, *at);
                }
                return Err(error.into());
            }
        }
        Ok(())
    }
}

/// When keys were last used, as far as that is not written yet.
#[derive(Debug, Default)]
pub(crate) struct Uses(Mutex<HashMap<KeyId, Timestamp>>);

impl Uses {
    pub(crate) fn note(&self, id: KeyId, at: Timestamp) {
        let mut uses = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = uses.get_mut(&id) {
            *known = at.max(*known);
        } else if uses.len() < USES_MAX {
            uses.insert(id, at);
        }
    }

    fn take(&self) -> Vec<(KeyId, Timestamp)> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_iter().collect()
    }
}

/// When the key that is asked for ends; `None`: when it is revoked.
fn end(new: &NewKey, now: Timestamp) -> Result<Option<Timestamp>, Error> {
    let at = match (new.expires_at, new.ttl_s) {
        (Some(_), Some(_)) => return Err(Error::KeyEnd("is given twice: as `expires_at` and as `ttl_s`")),
        (Some(at), None) => at,
        (None, Some(ttl_s)) => now + Duration::from_secs(ttl_s),
        (None, None) => return Ok(None),
    };
    if at <= now {
        return Err(Error::KeyEnd("is not in the future"));
    }
    if at > now + TTL_MAX {
        return Err(Error::KeyEnd("is more than ten years ahead: leave it out, and the key lasts until it is revoked"));
    }
    Ok(Some(at))
}

fn new_key() -> Token {
    let secret = Alphanumeric.sample_string(&mut rand::rng(), Token::KEY_CHARS);
    Token::parse(&format!("{}{secret}", Token::KEY_PREFIX)).expect("letters and digits of a sane length")
}

#[cfg(test)]
mod tests {
    use notifyx_database::testing::{self, TestDatabase};
    use notifyx_model::{KeyName, ManualClock, Verb};
    use notifyx_wire::rest::auth::{Credentials, keys::Principal};
    use serde_json::json;

    use super::*;
    use crate::{
        Config,
        accounts::Accounts,
        store::{self, MIGRATIONS},
    };

    struct Desk {
        keys: Keys,
        sessions: Arc<Sessions>,
        ann: UserId,
        hand: ManualClock,
        database: TestDatabase,
    }

    async fn open() -> Desk {
        let (database, hand) = (testing::sqlite(&MIGRATIONS).await, ManualClock::new());
        let (config, store, clock) = (Config::default(), store::of(&database.database), hand.clock());
        let metrics = Metrics::new(&prometheus::Registry::new());
        let accounts = Arc::new(Accounts::new(&config, store.clone(), clock.clone(), metrics.clone()));
        let credentials = json!({ "email": "ann@x.org", "password": "correct horse" });
        let ann = accounts.register(serde_json::from_value::<Credentials>(credentials).unwrap()).await.unwrap().id;
        let sessions = Sessions::open(&config, store.clone(), accounts, clock.clone(), metrics.clone()).await.unwrap();
        let sessions = Arc::new(sessions);
        Desk { keys: Keys::new(store, sessions.clone(), clock, metrics), sessions, ann, hand, database }
    }

    fn new(ttl_s: Option<u64>) -> NewKey {
        let scopes = serde_json::from_value(json!(["publish:orders.*"])).unwrap();
        NewKey { name: KeyName::parse("shop").unwrap(), scopes, expires_at: None, ttl_s }
    }

    impl Desk {
        async fn create(&self, ttl_s: Option<u64>) -> CreatedKey {
            self.keys.create(self.ann, new(ttl_s)).await.unwrap()
        }

        async fn knows(&self, key: &Token) -> bool {
            self.sessions.identify(key).await.unwrap().is_some()
        }
    }

    #[tokio::test]
    async fn a_key_stands_for_its_user_within_its_scopes() {
        let desk = open().await;
        let created = desk.create(None).await;
        assert!(created.key.is_key() && created.key.as_str().starts_with(&created.about.prefix));
        assert!(created.about.prefix.len() < created.key.as_str().len() / 2);
        let found = desk.sessions.identify(&created.key).await.unwrap().unwrap();
        assert_eq!((found.user_id(), found.expires_at()), (desk.ann, None));
        found.check(Verb::Publish, "orders.new").unwrap();
        found.check(Verb::Subscribe, "orders.new").unwrap_err();
        let Principal::Key(key) = found else { panic!("{found:?} is no key") };
        assert_eq!((key.key_id, key.name), (created.about.id, created.about.name));
    }

    #[tokio::test]
    async fn a_revoked_key_is_refused_at_once() {
        let desk = open().await;
        let (one, other) = (desk.create(None).await, desk.create(None).await);
        assert!(desk.knows(&one.key).await);
        desk.keys.revoke(desk.ann, one.about.id).await.unwrap();
        assert!(!desk.knows(&one.key).await, "also from the cache");
        assert!(desk.knows(&other.key).await);
        assert_eq!(desk.sessions.log().0, 1);
        desk.keys.revoke(desk.ann, one.about.id).await.expect("the first answer may have been lost");
        assert_eq!((desk.sessions.log().0, desk.keys.metrics.keys_revoked.get()), (1, 1));
        let unknown = KeyId::new(&desk.hand.clock());
        let nothing = desk.keys.revoke(desk.ann, unknown).await;
        assert!(matches!(nothing, Err(Error::KeyNotFound(id)) if id == unknown));
        assert_eq!(desk.keys.list(desk.ann).await.unwrap().keys, [other.about]);
    }

    #[tokio::test]
    async fn an_expired_key_is_refused_and_listed_for_a_while() {
        let desk = open().await;
        let created = desk.create(Some(60)).await;
        desk.hand.advance(Duration::from_secs(59));
        assert!(desk.knows(&created.key).await);
        desk.hand.advance(Duration::from_secs(1));
        assert!(!desk.knows(&created.key).await);
        desk.keys.sweep().await.unwrap();
        assert_eq!(desk.keys.list(desk.ann).await.unwrap().keys.len(), 1);
        desk.hand.advance(EXPIRED_KEPT);
        desk.keys.sweep().await.unwrap();
        assert!(desk.keys.list(desk.ann).await.unwrap().keys.is_empty());
    }

    #[tokio::test]
    async fn an_end_out_of_bounds_is_refused() {
        let desk = open().await;
        let now = desk.hand.clock().now();
        let at = |expires_at, ttl_s| NewKey { expires_at: Some(expires_at), ..new(ttl_s) };
        for bad in [
            at(now, None),
            at(now - Duration::from_secs(1), None),
            at(now + TTL_MAX + Duration::from_secs(1), None),
            at(now + Duration::from_secs(1), Some(1)),
            new(Some(0)),
            new(Some(u64::MAX)),
        ] {
            assert!(matches!(desk.keys.create(desk.ann, bad).await, Err(Error::KeyEnd(_))));
        }
        let last = desk.keys.create(desk.ann, at(now + TTL_MAX, None)).await.unwrap();
        assert_eq!(last.about.expires_at, Some(now + TTL_MAX));
    }

    #[tokio::test]
    async fn a_use_is_written_with_the_sweep() {
        let desk = open().await;
        let created = desk.create(None).await;
        let used = || async { desk.keys.list(desk.ann).await.unwrap().keys[0].last_used_at };
        desk.keys.sweep().await.unwrap();
        assert_eq!(used().await, None);
        for _ in 0..3 {
            desk.hand.advance(Duration::from_secs(1));
            assert!(desk.knows(&created.key).await);
        }
        assert_eq!(used().await, None, "a use costs no write");
        desk.keys.sweep().await.unwrap();
        assert_eq!(used().await, Some(desk.hand.clock().now()));
    }

    #[tokio::test]
    async fn a_use_that_cannot_be_written_waits() {
        let desk = open().await;
        let created = desk.create(None).await;
        assert!(desk.knows(&created.key).await);
        desk.database.database.close().await;
        assert!(desk.keys.note_uses().await.is_err());
        assert_eq!(desk.sessions.uses.take(), [(created.about.id, desk.hand.clock().now())]);
    }
}

//! What auth keeps of API keys: their owner, their hash, what they may do, when they were used and when they end.

mod postgres;
mod sqlite;

use std::fmt;

use async_trait::async_trait;
use notifyx_database::{Error, column::stored};
use notifyx_model::{KeyId, KeyName, Scopes, Timestamp, TokenHash, UserId};
use notifyx_wire::rest::auth::keys::{Key, KeyIdentity};
use uuid::Uuid;

use super::email_of;

/// A key as it is kept.
#[derive(Clone, Debug)]
pub(crate) struct Kept {
    pub(crate) user_id: UserId,
    pub(crate) token_hash: TokenHash,
    pub(crate) about: Key,
}

/// A key that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Revoked {
    pub(crate) token_hash: TokenHash,
    /// False where it had ended before: an answer was lost, and the call is repeated.
    pub(crate) anew: bool,
}

#[async_trait]
pub(crate) trait KeyStore: Send + Sync + fmt::Debug {
    /// Adds a key of a user who has fewer than `max` that have not expired by its creation; else false, and nothing
    /// changed. Of those that have expired the oldest give way, so that a user never has more than `max` in all.
    async fn add_key(&self, key: &Kept, max: u32) -> Result<bool, Error>;

    /// Which key it is and whose. It may have expired.
    async fn find_key(&self, token_hash: TokenHash) -> Result<Option<KeyIdentity>, Error>;

    /// The user's, newest first, also those that have expired.
    async fn list_keys(&self, user_id: UserId) -> Result<Vec<Key>, Error>;

    /// Ends a key, through the log; `None` where this user has no such key. One that this user ended before is told as long
    /// as the log reaches back.
    async fn revoke_key(&self, user_id: UserId, id: KeyId, now: Timestamp) -> Result<Option<Revoked>, Error>;

    /// Notes when keys were last used; what is noted already and later stays. Keys that are gone are passed over.
    async fn note_uses(&self, uses: &[(KeyId, Timestamp)]) -> Result<(), Error>;

    /// Removes up to `limit` keys that expired before `before`; tells how many. Nobody needs to be told of them.
    async fn drop_expired_keys(&self, before: Timestamp, limit: u32) -> Result<u64, Error>;
}

/// `id, name, prefix, scopes, created_at, last_used_at, expires_at`
type KeyRow = (Uuid, String, String, String, i64, Option<i64>, Option<i64>);

fn key((id, name, prefix, scopes, created_at, last_used_at, expires_at): KeyRow) -> Result<Key, Error> {
    Ok(Key {
        id: KeyId::from_uuid(id),
        name: stored("name of a key", KeyName::parse(&name))?,
        prefix,
        scopes: scopes_of(&scopes)?,
        created_at: Timestamp::from_micros(created_at),
        last_used_at: last_used_at.map(Timestamp::from_micros),
        expires_at: expires_at.map(Timestamp::from_micros),
    })
}

/// `key.id, key.name, key.scopes, key.expires_at, account.id, account.email`
type IdentityRow = (Uuid, String, String, Option<i64>, Uuid, String);

fn identity((key_id, name, scopes, expires_at, id, email): IdentityRow) -> Result<KeyIdentity, Error> {
    Ok(KeyIdentity {
        key_id: KeyId::from_uuid(key_id),
        name: stored("name of a key", KeyName::parse(&name))?,
        id: UserId::from_uuid(id),
        email: email_of(&email)?,
        scopes: scopes_of(&scopes)?,
        expires_at: expires_at.map(Timestamp::from_micros),
    })
}

fn scopes_of(text: &str) -> Result<Scopes, Error> {
    stored("list of scopes", serde_json::from_str(text))
}

/// As they are stored.
fn text_of(scopes: &Scopes) -> String {
    serde_json::to_string(scopes).expect("a list of texts is JSON")
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use notifyx_database::Database;
    use notifyx_model::{Clock, ManualClock, Scope};
    use notifyx_wire::rest::auth::User;

    use super::*;
    use crate::store::{self, MIGRATIONS, Store, tests::add};

    type Opened = Arc<dyn Store>;

    async fn open(database: &Database) -> Opened {
        store::of(database)
    }

    notifyx_database::conformance!(open, &MIGRATIONS;
        a_key_is_found_and_listed_until_it_is_revoked,
        a_key_is_revoked_by_its_owner_only,
        a_repeated_revocation_is_known_as_long_as_the_log,
        keys_are_bounded_and_expired_ones_give_way,
        keys_made_at_once_keep_to_the_bound,
        the_latest_use_is_noted,
        keys_that_expired_are_dropped,
    );

    fn key_of(user: &User, n: u8, clock: &Clock, ttl: Option<Duration>) -> Kept {
        let scopes = ["publish:orders.*", "subscribe:'; DROP \"x\" --"].map(|text| Scope::parse(text).unwrap());
        let created_at = clock.now();
        let about = Key {
            id: KeyId::new(clock),
            name: KeyName::parse(&format!("key {n}")).unwrap(),
            prefix: format!("nxk_{n:08}"),
            scopes: Scopes::new(scopes.to_vec()).unwrap(),
            created_at,
            last_used_at: None,
            expires_at: ttl.map(|ttl| created_at + ttl),
        };
        Kept { user_id: user.id, token_hash: TokenHash([n; 32]), about }
    }

    fn names(keys: &[Key]) -> Vec<&str> {
        keys.iter().map(|key| key.name.as_str()).collect()
    }

    async fn a_key_is_found_and_listed_until_it_is_revoked(store: Opened) {
        let hand = ManualClock::new();
        let clock = hand.clock();
        let ann = add(&store, &clock, "ann@x.org").await;
        let first = key_of(&ann, 1, &clock, None);
        assert!(store.add_key(&first, 10).await.unwrap());
        hand.advance(Duration::from_secs(1));
        let second = key_of(&ann, 2, &clock, Some(Duration::from_hours(1)));
        assert!(store.add_key(&second, 10).await.unwrap());
        let found = store.find_key(second.token_hash).await.unwrap().unwrap();
        let Key { id, name, scopes, expires_at, .. } = second.about.clone();
        let expected = KeyIdentity { key_id: id, name, id: ann.id, email: ann.email.clone(), scopes, expires_at };
        assert_eq!(found, expected);
        assert_eq!(store.list_keys(ann.id).await.unwrap(), [second.about, first.about.clone()]);

        let revoked = store.revoke_key(ann.id, first.about.id, clock.now()).await.unwrap();
        assert_eq!(revoked, Some(Revoked { token_hash: first.token_hash, anew: true }));
        assert_eq!(store.find_key(first.token_hash).await.unwrap(), None);
        assert_eq!(names(&store.list_keys(ann.id).await.unwrap()), ["key 2"]);
        let log = store.revocations(0, 10).await.unwrap();
        assert_eq!((log.head, log.revoked[0].user_id), (1, ann.id));
        assert_eq!(log.revoked[0].token_hash, Some(first.token_hash));
    }

    async fn a_key_is_revoked_by_its_owner_only(store: Opened) {
        let clock = Clock::system();
        let (ann, bob) = (add(&store, &clock, "ann@x.org").await, add(&store, &clock, "bob@x.org").await);
        let anns = key_of(&ann, 1, &clock, None);
        assert!(store.add_key(&anns, 10).await.unwrap());
        assert_eq!(store.revoke_key(bob.id, anns.about.id, clock.now()).await.unwrap(), None);
        assert!(store.list_keys(bob.id).await.unwrap().is_empty());
        assert!(store.find_key(anns.token_hash).await.unwrap().is_some());
        assert_eq!(store.revocations(0, 10).await.unwrap().head, 0);
    }

    async fn a_repeated_revocation_is_known_as_long_as_the_log(store: Opened) {
        let hand = ManualClock::new();
        let clock = hand.clock();
        let (ann, bob) = (add(&store, &clock, "ann@x.org").await, add(&store, &clock, "bob@x.org").await);
        let key = key_of(&ann, 1, &clock, None);
        assert!(store.add_key(&key, 10).await.unwrap());
        let revoke = |by: &User| {
            let (store, by, id, now) = (store.clone(), by.id, key.about.id, clock.now());
            async move { store.revoke_key(by, id, now).await.unwrap() }
        };
        let (one, other) = tokio::join!(revoke(&ann), revoke(&ann));
        let mut anew = [one, other].map(|told| told.filter(|told| told.token_hash == key.token_hash).unwrap().anew);
        anew.sort_unstable();
        assert_eq!(anew, [false, true]);
        assert_eq!(store.revocations(0, 10).await.unwrap().head, 1, "the log tells of it once");
        assert_eq!(revoke(&bob).await, None);
        hand.advance(Duration::from_secs(1));
        assert_eq!(store.trim_revocations(clock.now(), 10).await.unwrap(), 1);
        assert_eq!(revoke(&ann).await, None);
    }

    async fn keys_are_bounded_and_expired_ones_give_way(store: Opened) {
        let hand = ManualClock::new();
        let clock = hand.clock();
        let (ann, bob) = (add(&store, &clock, "ann@x.org").await, add(&store, &clock, "bob@x.org").await);
        for (n, ttl) in [(1, Some(Duration::from_secs(30))), (2, Some(Duration::from_secs(20))), (3, None)] {
            assert!(store.add_key(&key_of(&ann, n, &clock, ttl), 3).await.unwrap());
            hand.advance(Duration::from_secs(1));
        }
        assert!(!store.add_key(&key_of(&ann, 4, &clock, None), 3).await.unwrap());
        assert!(store.find_key(TokenHash([4; 32])).await.unwrap().is_none());
        assert!(store.add_key(&key_of(&bob, 5, &clock, None), 3).await.unwrap(), "another user has room");
        hand.advance(Duration::from_secs(60));
        assert!(store.add_key(&key_of(&ann, 4, &clock, None), 3).await.unwrap());
        let left = store.list_keys(ann.id).await.unwrap();
        assert_eq!(names(&left), ["key 4", "key 3", "key 1"], "what expired first gave way");
        assert_eq!(store.revocations(0, 10).await.unwrap().head, 0, "what has expired needs no word");
    }

    async fn keys_made_at_once_keep_to_the_bound(store: Opened) {
        let clock = Clock::system();
        let ann = add(&store, &clock, "ann@x.org").await;
        let tasks: Vec<_> = (0..16)
            .map(|n| {
                let (store, key) = (store.clone(), key_of(&ann, n, &clock, None));
                tokio::spawn(async move { store.add_key(&key, 5).await.unwrap() })
            })
            .collect();
        let mut added = 0;
        for task in tasks {
            added += usize::from(task.await.unwrap());
        }
        assert_eq!((added, store.list_keys(ann.id).await.unwrap().len()), (5, 5));
    }

    async fn the_latest_use_is_noted(store: Opened) {
        let hand = ManualClock::new();
        let clock = hand.clock();
        let ann = add(&store, &clock, "ann@x.org").await;
        let (one, two) = (key_of(&ann, 1, &clock, None), key_of(&ann, 2, &clock, None));
        for key in [&one, &two] {
            assert!(store.add_key(key, 10).await.unwrap());
        }
        let (early, late) = (clock.now(), clock.now() + Duration::from_secs(9));
        store.note_uses(&[]).await.unwrap();
        store.note_uses(&[(one.about.id, late), (KeyId::new(&clock), late)]).await.unwrap();
        store.note_uses(&[(two.about.id, early), (one.about.id, early)]).await.unwrap();
        let used: Vec<_> = [&one, &two].map(|key| key.about.id).to_vec();
        let listed = store.list_keys(ann.id).await.unwrap();
        let at = |id| listed.iter().find(|key| key.id == id).unwrap().last_used_at;
        assert_eq!(used.into_iter().map(at).collect::<Vec<_>>(), [Some(late), Some(early)]);
    }

    async fn keys_that_expired_are_dropped(store: Opened) {
        let hand = ManualClock::new();
        let clock = hand.clock();
        let ann = add(&store, &clock, "ann@x.org").await;
        for (n, ttl) in [(1, Some(10)), (2, Some(10)), (3, Some(100)), (4, None)] {
            let key = key_of(&ann, n, &clock, ttl.map(Duration::from_secs));
            assert!(store.add_key(&key, 10).await.unwrap());
        }
        assert_eq!(store.drop_expired_keys(clock.now(), 10).await.unwrap(), 0);
        hand.advance(Duration::from_secs(50));
        assert_eq!(store.drop_expired_keys(clock.now(), 1).await.unwrap(), 1);
        assert_eq!(store.drop_expired_keys(clock.now(), 10).await.unwrap(), 1);
        assert_eq!(store.list_keys(ann.id).await.unwrap().len(), 2);
    }
}

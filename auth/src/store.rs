//! What auth keeps: accounts, sessions and the log of revocations; API keys are in [`keys`]. One method is one transaction.
//!
//! The statements are in `store/sqlite.rs` and `store/postgres.rs`; both pass the suite below. Locks are taken in this
//! order: account, sessions by hash, keys by id, head of the log. A new method keeps to it and adds a case to the suite.

pub(crate) mod keys;
mod postgres;
mod sqlite;

use std::{fmt, sync::Arc};

use async_trait::async_trait;
use notifyx_database::{Database, Error, Migrations, column::stored};
use notifyx_model::{Email, Timestamp, TokenHash, UserId};
use notifyx_wire::rest::auth::{Identity, Revocation, Revocations, User};
use uuid::Uuid;

use self::keys::KeyStore;

pub(crate) static MIGRATIONS: Migrations =
    Migrations { sqlite: sqlx::migrate!("./migrations/sqlite"), postgres: sqlx::migrate!("./migrations/postgres") };

/// A user with what its password is checked against.
#[derive(Clone)]
pub(crate) struct Account {
    pub(crate) user: User,
    /// In PHC form: algorithm, costs, salt and hash.
    pub(crate) password_hash: String,
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Account({})", self.user.id)
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) token_hash: TokenHash,
    pub(crate) user_id: UserId,
    pub(crate) created_at: Timestamp,
    pub(crate) expires_at: Timestamp,
}

#[async_trait]
pub(crate) trait Store: KeyStore + Send + Sync + fmt::Debug {
    /// False where the address is taken; then nothing changed.
    async fn add_account(&self, account: &Account) -> Result<bool, Error>;

    async fn find_account(&self, email: &Email) -> Result<Option<Account>, Error>;

    async fn find_user(&self, id: UserId) -> Result<Option<User>, Error>;

    /// Those that exist, each once, in no order.
    async fn find_users(&self, emails: &[Email], ids: &[UserId]) -> Result<Vec<User>, Error>;

    /// By id, those above `after`.
    async fn list_users(&self, after: Option<UserId>, limit: u32) -> Result<Vec<User>, Error>;

    /// Opens a session and ends the user's oldest above `keep`, through the log. Tells how many ended.
    async fn open_session(&self, session: &Session, keep: u32) -> Result<u64, Error>;

    /// Who the session belongs to. It may have expired.
    async fn find_session(&self, token_hash: TokenHash) -> Result<Option<Identity>, Error>;

    /// Ends a session, through the log; false where there is none.
    async fn end_session(&self, token_hash: TokenHash, now: Timestamp) -> Result<bool, Error>;

    /// The head of the log and what follows `after`, as of one moment.
    async fn revocations(&self, after: u64, limit: u32) -> Result<Revocations, Error>;

    /// Removes up to `limit` sessions that expired before `now`; tells how many. Nobody needs to be told of them.
    async fn drop_expired(&self, now: Timestamp, limit: u32) -> Result<u64, Error>;

    /// Removes up to `limit` of the oldest revocations, those from before `before`; tells how many. What is left has no gaps.
    async fn trim_revocations(&self, before: Timestamp, limit: u32) -> Result<u64, Error>;
}

pub(crate) fn of(database: &Database) -> Arc<dyn Store> {
    match database {
        Database::Sqlite(sqlite) => Arc::new(sqlite::Sqlite(sqlite.clone())),
        Database::Postgres(pool) => Arc::new(postgres::Postgres(pool.clone())),
    }
}

/// `id, email, created_at`
type UserRow = (Uuid, String, i64);

fn user((id, email, created_at): UserRow) -> Result<User, Error> {
    let id = UserId::from_uuid(id);
    Ok(User { id, email: email_of(&email)?, created_at: Timestamp::from_micros(created_at) })
}

/// `id, email, created_at, expires_at`
fn identity((id, email, created_at, expires_at): (Uuid, String, i64, i64)) -> Result<Identity, Error> {
    let User { id, email, created_at } = user((id, email, created_at))?;
    Ok(Identity { id, email, created_at, expires_at: Timestamp::from_micros(expires_at) })
}

/// The head, and `seq, user_id, token_hash` of one revocation; without one where nothing follows.
type LogRow = (i64, Option<i64>, Option<Uuid>, Option<Vec<u8>>);

fn revocations(rows: Vec<LogRow>) -> Result<Revocations, Error> {
    let mut answer = Revocations::default();
    for (head, seq, user_id, token_hash) in rows {
        answer.head = number(head)?;
        if let (Some(seq), Some(user_id)) = (seq, user_id) {
            let token_hash = token_hash.map(hash).transpose()?;
            answer.revoked.push(Revocation { seq: number(seq)?, user_id: UserId::from_uuid(user_id), token_hash });
        }
    }
    Ok(answer)
}

fn hash(bytes: Vec<u8>) -> Result<TokenHash, Error> {
    let whole = bytes.try_into().map(TokenHash);
    stored("hash of a token", whole.map_err(|bytes: Vec<u8>| format!("it has {} bytes", bytes.len())))
}

fn email_of(text: &str) -> Result<Email, Error> {
    stored("e-mail address", Email::parse(text))
}

fn number(column: i64) -> Result<u64, Error> {
    stored("number of a revocation", u64::try_from(column))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use notifyx_model::{Clock, ManualClock};

    use super::*;

    type Kept = Arc<dyn Store>;

    async fn open(database: &Database) -> Kept {
        of(database)
    }

    notifyx_database::conformance!(open, &MIGRATIONS;
        an_address_is_taken_once,
        people_are_found_by_address_and_id,
        pages_follow_each_other,
        a_session_is_found_until_it_ends,
        the_oldest_session_gives_way,
        logins_and_logouts_of_one_user_number_without_gaps,
        the_log_reads_in_pages,
        a_trimmed_log_keeps_its_head,
        expired_sessions_are_dropped,
    );

    fn account(clock: &Clock, email: &str) -> Account {
        let user = User { id: UserId::new(clock), email: Email::parse(email).unwrap(), created_at: clock.now() };
        Account { user, password_hash: format!("hash of {email}") }
    }

    pub(crate) async fn add(store: &Kept, clock: &Clock, email: &str) -> User {
        let account = account(clock, email);
        assert!(store.add_account(&account).await.unwrap());
        account.user
    }

    fn session(user: &User, n: u8, clock: &Clock) -> Session {
        let created_at = clock.now();
        let expires_at = created_at + Duration::from_hours(1);
        Session { token_hash: TokenHash([n; 32]), user_id: user.id, created_at, expires_at }
    }

    fn sequence(answer: &Revocations) -> Vec<u64> {
        answer.revoked.iter().map(|r| r.seq).collect()
    }

    async fn an_address_is_taken_once(store: Kept) {
        let clock = Clock::system();
        let ann = account(&clock, "ann@x.org");
        assert!(store.add_account(&ann).await.unwrap());
        assert!(!store.add_account(&account(&clock, "ann@x.org")).await.unwrap());
        let found = store.find_account(&ann.user.email).await.unwrap().unwrap();
        assert_eq!((found.user, found.password_hash), (ann.user, ann.password_hash));
        assert!(store.find_account(&Email::parse("bob@x.org").unwrap()).await.unwrap().is_none());
    }

    async fn people_are_found_by_address_and_id(store: Kept) {
        let clock = Clock::system();
        let (ann, bob, cid) = (
            add(&store, &clock, "ann@x.org").await,
            add(&store, &clock, "b'ob\"@x.org".replace('"', "").as_str()).await,
            add(&store, &clock, "çid@x.org").await,
        );
        assert_eq!(store.find_user(bob.id).await.unwrap().as_ref(), Some(&bob));
        assert_eq!(store.find_user(UserId::new(&clock)).await.unwrap(), None);
        let emails = [ann.email.clone(), cid.email.clone(), Email::parse("nobody@x.org").unwrap()];
        let mut found = store.find_users(&emails, &[ann.id, bob.id, UserId::new(&clock)]).await.unwrap();
        found.sort_by_key(|user| user.id);
        assert_eq!(found, [ann, bob, cid]);
        assert!(store.find_users(&[], &[]).await.unwrap().is_empty());
    }

    async fn pages_follow_each_other(store: Kept) {
        let clock = Clock::system();
        let mut all = Vec::new();
        for n in 0..5 {
            all.push(add(&store, &clock, &format!("u{n}@x.org")).await);
        }
        assert_eq!(store.list_users(None, 2).await.unwrap(), all[..2]);
        assert_eq!(store.list_users(Some(all[1].id), 10).await.unwrap(), all[2..]);
        assert!(store.list_users(Some(all[4].id), 10).await.unwrap().is_empty());
    }

    async fn a_session_is_found_until_it_ends(store: Kept) {
        let clock = Clock::system();
        let ann = add(&store, &clock, "ann@x.org").await;
        let opened = session(&ann, 1, &clock);
        assert_eq!(store.open_session(&opened, 10).await.unwrap(), 0);
        let found = store.find_session(opened.token_hash).await.unwrap().unwrap();
        assert_eq!((found.id, found.email, found.created_at), (ann.id, ann.email, ann.created_at));
        assert_eq!(found.expires_at, opened.expires_at);

        assert!(store.end_session(opened.token_hash, clock.now()).await.unwrap());
        assert!(!store.end_session(opened.token_hash, clock.now()).await.unwrap());
        assert_eq!(store.find_session(opened.token_hash).await.unwrap(), None);
        let log = store.revocations(0, 10).await.unwrap();
        let expected = Revocation { seq: 1, user_id: ann.id, token_hash: Some(opened.token_hash) };
        assert_eq!((log.head, log.revoked), (1, vec![expected]));
    }

    async fn the_oldest_session_gives_way(store: Kept) {
        let hand = ManualClock::new();
        let clock = hand.clock();
        let (ann, bob) = (add(&store, &clock, "ann@x.org").await, add(&store, &clock, "bob@x.org").await);
        store.open_session(&session(&bob, 100, &clock), 2).await.unwrap();
        for n in 1..=2 {
            assert_eq!(store.open_session(&session(&ann, n, &clock), 2).await.unwrap(), 0);
            hand.advance(Duration::from_secs(1));
        }
        assert_eq!(store.open_session(&session(&ann, 3, &clock), 2).await.unwrap(), 1);
        // A lower bound than before ends several at once; equal times do not end the newest.
        assert_eq!(store.open_session(&session(&ann, 4, &clock), 1).await.unwrap(), 2);
        assert!(store.find_session(TokenHash([4; 32])).await.unwrap().is_some());
        assert!(store.find_session(TokenHash([100; 32])).await.unwrap().is_some());
        let log = store.revocations(0, 10).await.unwrap();
        let mut ended: Vec<_> = log.revoked.iter().map(|r| r.token_hash.unwrap().0[0]).collect();
        assert_eq!((log.head, ended[0]), (3, 1));
        ended.sort_unstable();
        assert_eq!(ended, [1, 2, 3]);
        assert_eq!(sequence(&log), [1, 2, 3]);
    }

    async fn logins_and_logouts_of_one_user_number_without_gaps(store: Kept) {
        let clock = Clock::system();
        let ann = add(&store, &clock, "ann@x.org").await;
        let tasks: Vec<_> = (0..32)
            .map(|n| {
                let (store, clock, opened) = (store.clone(), clock.clone(), session(&ann, n, &clock));
                tokio::spawn(async move {
                    store.open_session(&opened, 4).await.unwrap();
                    store.end_session(opened.token_hash, clock.now()).await.unwrap();
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let log = store.revocations(0, 100).await.unwrap();
        assert_eq!(sequence(&log), (1..=32).collect::<Vec<_>>(), "each session ended once");
        assert_eq!(log.head, 32);
    }

    async fn the_log_reads_in_pages(store: Kept) {
        let clock = Clock::system();
        assert_eq!(store.revocations(0, 10).await.unwrap().head, 0);
        let ann = add(&store, &clock, "ann@x.org").await;
        for n in 0..5 {
            store.open_session(&session(&ann, n, &clock), 9).await.unwrap();
            store.end_session(TokenHash([n; 32]), clock.now()).await.unwrap();
        }
        for (after, limit, expected) in
            [(0, 2, vec![1, 2]), (2, 10, vec![3, 4, 5]), (5, 10, vec![]), (u64::MAX, 10, vec![])]
        {
            let page = store.revocations(after, limit).await.unwrap();
            assert_eq!((page.head, sequence(&page)), (5, expected));
        }
    }

    async fn a_trimmed_log_keeps_its_head(store: Kept) {
        let hand = ManualClock::new();
        let clock = hand.clock();
        let ann = add(&store, &clock, "ann@x.org").await;
        for n in 0..4 {
            store.open_session(&session(&ann, n, &clock), 9).await.unwrap();
            hand.advance(Duration::from_secs(1));
            store.end_session(TokenHash([n; 32]), clock.now()).await.unwrap();
        }
        assert_eq!(store.trim_revocations(clock.now(), 2).await.unwrap(), 2);
        assert_eq!(sequence(&store.revocations(0, 10).await.unwrap()), [3, 4]);
        hand.advance(Duration::from_secs(1));
        assert_eq!(store.trim_revocations(clock.now(), 10).await.unwrap(), 2);
        assert_eq!(store.trim_revocations(clock.now(), 10).await.unwrap(), 0);
        let empty = store.revocations(0, 10).await.unwrap();
        assert_eq!((empty.head, sequence(&empty)), (4, vec![]));
        store.open_session(&session(&ann, 9, &clock), 9).await.unwrap();
        store.end_session(TokenHash([9; 32]), clock.now()).await.unwrap();
        assert_eq!(sequence(&store.revocations(0, 10).await.unwrap()), [5]);
    }

    async fn expired_sessions_are_dropped(store: Kept) {
        let hand = ManualClock::new();
        let clock = hand.clock();
        let ann = add(&store, &clock, "ann@x.org").await;
        for n in 0..3 {
            store.open_session(&session(&ann, n, &clock), 9).await.unwrap();
        }
        hand.advance(Duration::from_secs(60));
        store.open_session(&session(&ann, 9, &clock), 9).await.unwrap();
        assert_eq!(store.drop_expired(clock.now(), 10).await.unwrap(), 0);
        hand.advance(Duration::from_mins(59));
        assert_eq!(store.drop_expired(clock.now(), 2).await.unwrap(), 2);
        assert_eq!(store.drop_expired(clock.now(), 2).await.unwrap(), 1);
        assert!(store.find_session(TokenHash([9; 32])).await.unwrap().is_some());
        assert_eq!(store.revocations(0, 10).await.unwrap().head, 0);
    }
}

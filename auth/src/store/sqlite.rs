//! The statements for SQLite. Its one writer is the lock: what Postgres needs locks for is in order here.

use async_trait::async_trait;
use notifyx_database::{Error, column::signed};
use notifyx_model::{Email, KeyId, Timestamp, TokenHash, UserId};
use notifyx_wire::rest::auth::{Identity, Revocations, User};
use uuid::Uuid;

use super::{Account, Session, Store, identity, revocations, user};

#[derive(Debug)]
pub(super) struct Sqlite(pub(super) notifyx_database::Sqlite);

#[async_trait]
impl Store for Sqlite {
    async fn add_account(&self, account: &Account) -> Result<bool, Error> {
        let mut tx = self.0.begin().await?;
        let done = sqlx::query(
            "INSERT INTO account (id, email, password_hash, created_at) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT (email) DO NOTHING",
        )
        .bind(account.user.id.uuid())
        .bind(account.user.email.as_str())
        .bind(&account.password_hash)
        .bind(account.user.created_at.as_micros())
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(done.rows_affected() == 1)
    }

    async fn find_account(&self, email: &Email) -> Result<Option<Account>, Error> {
        let row: Option<(Uuid, String, i64, String)> =
            sqlx::query_as("SELECT id, email, created_at, password_hash FROM account WHERE email = ?1")
                .bind(email.as_str())
                .fetch_optional(&self.0.read)
                .await?;
        row.map(|(id, email, created_at, password_hash)| {
            Ok(Account { user: user((id, email, created_at))?, password_hash })
        })
        .transpose()
    }

    async fn find_user(&self, id: UserId) -> Result<Option<User>, Error> {
        let row = sqlx::query_as("SELECT id, email, created_at FROM account WHERE id = ?1")
            .bind(id.uuid())
            .fetch_optional(&self.0.read)
            .await?;
        row.map(user).transpose()
    }

    async fn find_users(&self, emails: &[Email], ids: &[UserId]) -> Result<Vec<User>, Error> {
        let ids: Vec<String> = ids.iter().map(|id| id.uuid().simple().to_string()).collect();
        let rows = sqlx::query_as(
            "SELECT id, email, created_at FROM account WHERE email IN (SELECT value FROM json_each(?1))
             UNION
             SELECT id, email, created_at FROM account WHERE id IN (SELECT unhex(value) FROM json_each(?2))",
        )
        .bind(json(emails))
        .bind(json(&ids))
        .fetch_all(&self.0.read)
        .await?;
        rows.into_iter().map(user).collect()
    }

    async fn list_users(&self, after: Option<UserId>, limit: u32) -> Result<Vec<User>, Error> {
        let rows = sqlx::query_as("SELECT id, email, created_at FROM account WHERE id > ?1 ORDER BY id LIMIT ?2")
            .bind(after.map_or(Uuid::nil(), UserId::uuid))
            .bind(limit)
            .fetch_all(&self.0.read)
            .await?;
        rows.into_iter().map(user).collect()
    }

    async fn open_session(&self, session: &Session, keep: u32) -> Result<u64, Error> {
        let mut tx = self.0.begin().await?;
        let ended: Vec<(Vec<u8>,)> = sqlx::query_as(
            "DELETE FROM session WHERE token_hash IN (
                 SELECT token_hash FROM session WHERE user_id = ?1
                 ORDER BY created_at DESC, token_hash LIMIT -1 OFFSET ?2)
             RETURNING token_hash",
        )
        .bind(session.user_id.uuid())
        .bind(keep.max(1) - 1)
        .fetch_all(&mut *tx)
        .await?;
        sqlx::query("INSERT INTO session (token_hash, user_id, created_at, expires_at) VALUES (?1, ?2, ?3, ?4)")
            .bind(&session.token_hash.0[..])
            .bind(session.user_id.uuid())
            .bind(session.created_at.as_micros())
            .bind(session.expires_at.as_micros())
            .execute(&mut *tx)
            .await?;
        for (hash,) in &ended {
            log(&mut tx, session.user_id, hash, None, session.created_at).await?;
        }
        tx.commit().await?;
        Ok(ended.len() as u64)
    }

    async fn find_session(&self, token_hash: TokenHash) -> Result<Option<Identity>, Error> {
        let row = sqlx::query_as(
            "SELECT account.id, account.email, account.created_at, session.expires_at
             FROM session JOIN account ON account.id = session.user_id WHERE session.token_hash = ?1",
        )
        .bind(&token_hash.0[..])
        .fetch_optional(&self.0.read)
        .await?;
        row.map(identity).transpose()
    }

    async fn end_session(&self, token_hash: TokenHash, now: Timestamp) -> Result<bool, Error> {
        let mut tx = self.0.begin().await?;
        let ended: Option<(Uuid,)> = sqlx::query_as("DELETE FROM session WHERE token_hash = ?1 RETURNING user_id")
            .bind(&token_hash.0[..])
            .fetch_optional(&mut *tx)
            .await?;
        if let Some((user_id,)) = ended {
            log(&mut tx, UserId::from_uuid(user_id), &token_hash.0, None, now).await?;
        }
        tx.commit().await?;
        Ok(ended.is_some())
    }

    async fn revocations(&self, after: u64, limit: u32) -> Result<Revocations, Error> {
        // One statement sees one moment: what it shows of the log ends at the head it shows.
        let rows = sqlx::query_as(
            "SELECT head.seq, log.seq, log.user_id, log.token_hash
             FROM revocation_head AS head LEFT JOIN revocation AS log ON log.seq > ?1
             ORDER BY log.seq LIMIT ?2",
        )
        .bind(signed(after))
        .bind(limit)
        .fetch_all(&self.0.read)
        .await?;
        revocations(rows)
    }

    async fn drop_expired(&self, now: Timestamp, limit: u32) -> Result<u64, Error> {
        let mut tx = self.0.begin().await?;
        let done = sqlx::query(
            "DELETE FROM session WHERE token_hash IN (
                 SELECT token_hash FROM session WHERE expires_at <= ?1 ORDER BY expires_at LIMIT ?2)",
        )
        .bind(now.as_micros())
        .bind(limit)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(done.rows_affected())
    }

    async fn trim_revocations(&self, before: Timestamp, limit: u32) -> Result<u64, Error> {
        let mut tx = self.0.begin().await?;
        let done = sqlx::query(
            "DELETE FROM revocation WHERE seq <= (
                 SELECT max(seq) FROM (SELECT seq FROM revocation WHERE revoked_at < ?1 ORDER BY seq LIMIT ?2))",
        )
        .bind(before.as_micros())
        .bind(limit)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(done.rows_affected())
    }
}

/// Gives the next number of the log to a session or a key that ended.
pub(super) async fn log(
    tx: &mut sqlx::SqliteConnection,
    user_id: UserId,
    token_hash: &[u8],
    key: Option<KeyId>,
    revoked_at: Timestamp,
) -> Result<(), Error> {
    sqlx::query("UPDATE revocation_head SET seq = seq + 1").execute(&mut *tx).await?;
    sqlx::query(
        "INSERT INTO revocation (seq, user_id, token_hash, revoked_at, key_id)
         SELECT seq, ?1, ?2, ?3, ?4 FROM revocation_head",
    )
    .bind(user_id.uuid())
    .bind(token_hash)
    .bind(revoked_at.as_micros())
    .bind(key.map(KeyId::uuid))
    .execute(&mut *tx)
    .await?;
    Ok(())
}

/// A list as the JSON array that `json_each` reads.
pub(super) fn json<T: serde::Serialize>(list: &[T]) -> String {
    serde_json::to_string(list).expect("a list of plain values is JSON")
}

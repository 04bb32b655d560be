//! The statements for Postgres.

use async_trait::async_trait;
use notifyx_database::{Error, column::signed};
use notifyx_model::{Email, Timestamp, TokenHash, UserId};
use notifyx_wire::rest::auth::{Identity, Revocations, User};
use sqlx::PgPool;
use uuid::Uuid;

use super::{Account, Session, Store, identity, revocations, user};

#[derive(Debug)]
pub(super) struct Postgres(pub(super) PgPool);

#[async_trait]
impl Store for Postgres {
    async fn add_account(&self, account: &Account) -> Result<bool, Error> {
        let done = sqlx::query(
            "INSERT INTO account (id, email, password_hash, created_at) VALUES ($1, $2, $3, $4)
             ON CONFLICT (email) DO NOTHING",
        )
        .bind(account.user.id.uuid())
        .bind(account.user.email.as_str())
        .bind(&account.password_hash)
        .bind(account.user.created_at.as_micros())
        .execute(&self.0)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    async fn find_account(&self, email: &Email) -> Result<Option<Account>, Error> {
        let row: Option<(Uuid, String, i64, String)> =
            sqlx::query_as("SELECT id, email, created_at, password_hash FROM account WHERE email = $1")
                .bind(email.as_str())
                .fetch_optional(&self.0)
                .await?;
        row.map(|(id, email, created_at, password_hash)| {
            Ok(Account { user: user((id, email, created_at))?, password_hash })
        })
        .transpose()
    }

    async fn find_user(&self, id: UserId) -> Result<Option<User>, Error> {
        let row = sqlx::query_as("SELECT id, email, created_at FROM account WHERE id = $1")
            .bind(id.uuid())
            .fetch_optional(&self.0)
            .await?;
        row.map(user).transpose()
    }

    async fn find_users(&self, emails: &[Email], ids: &[UserId]) -> Result<Vec<User>, Error> {
        let emails: Vec<&str> = emails.iter().map(Email::as_str).collect();
        let ids: Vec<Uuid> = ids.iter().map(|id| id.uuid()).collect();
        let rows = sqlx::query_as(
            "SELECT id, email, created_at FROM account WHERE email = ANY ($1::text[])
             UNION
             SELECT id, email, created_at FROM account WHERE id = ANY ($2::uuid[])",
        )
        .bind(emails)
        .bind(ids)
        .fetch_all(&self.0)
        .await?;
        rows.into_iter().map(user).collect()
    }

    async fn list_users(&self, after: Option<UserId>, limit: u32) -> Result<Vec<User>, Error> {
        let rows = sqlx::query_as("SELECT id, email, created_at FROM account WHERE id > $1 ORDER BY id LIMIT $2")
            .bind(after.map_or(Uuid::nil(), UserId::uuid))
            .bind(i64::from(limit))
            .fetch_all(&self.0)
            .await?;
        rows.into_iter().map(user).collect()
    }

    async fn open_session(&self, session: &Session, keep: u32) -> Result<u64, Error> {
        let mut tx = self.0.begin().await?;
        // Logins of one user take turns, or each would count without the other's session.
        sqlx::query("SELECT 1 FROM account WHERE id = $1 FOR NO KEY UPDATE")
            .bind(session.user_id.uuid())
            .execute(&mut *tx)
            .await?;
        let ended: Vec<(Vec<u8>,)> = sqlx::query_as(
            "WITH excess AS (
                 SELECT token_hash FROM session WHERE user_id = $1 ORDER BY created_at DESC, token_hash OFFSET $2
             ), locked AS (
                 SELECT token_hash FROM session WHERE token_hash IN (SELECT token_hash FROM excess)
                 ORDER BY token_hash FOR UPDATE
             )
             DELETE FROM session WHERE token_hash IN (SELECT token_hash FROM locked) RETURNING token_hash",
        )
        .bind(session.user_id.uuid())
        .bind(i64::from(keep.max(1)) - 1)
        .fetch_all(&mut *tx)
        .await?;
        sqlx::query("INSERT INTO session (token_hash, user_id, created_at, expires_at) VALUES ($1, $2, $3, $4)")
            .bind(&session.token_hash.0[..])
            .bind(session.user_id.uuid())
            .bind(session.created_at.as_micros())
            .bind(session.expires_at.as_micros())
            .execute(&mut *tx)
            .await?;
        if !ended.is_empty() {
            let ended: Vec<Vec<u8>> = ended.iter().map(|(hash,)| hash.clone()).collect();
            sqlx::query(
                "WITH head AS (
                     UPDATE revocation_head SET seq = seq + cardinality($2) RETURNING seq - cardinality($2) AS before
                 )
                 INSERT INTO revocation (seq, user_id, token_hash, revoked_at)
                 SELECT head.before + place, $1, hash, $3
                 FROM head, UNNEST($2::bytea[]) WITH ORDINALITY AS ended (hash, place)",
            )
            .bind(session.user_id.uuid())
            .bind(ended)
            .bind(session.created_at.as_micros())
            .execute(&mut *tx)
            .await?;
        }
        tx.commit().await?;
        Ok(ended.len() as u64)
    }

    async fn find_session(&self, token_hash: TokenHash) -> Result<Option<Identity>, Error> {
        let row = sqlx::query_as(
            "SELECT account.id, account.email, account.created_at, session.expires_at
             FROM session JOIN account ON account.id = session.user_id WHERE session.token_hash = $1",
        )
        .bind(&token_hash.0[..])
        .fetch_optional(&self.0)
        .await?;
        row.map(identity).transpose()
    }

    async fn end_session(&self, token_hash: TokenHash, now: Timestamp) -> Result<bool, Error> {
        // One statement; the head is locked only where a session was found, after it.
        let done = sqlx::query(
            "WITH ended AS (
                 DELETE FROM session WHERE token_hash = $1 RETURNING user_id
             ), head AS (
                 UPDATE revocation_head SET seq = seq + 1 WHERE EXISTS (SELECT 1 FROM ended) RETURNING seq
             )
             INSERT INTO revocation (seq, user_id, token_hash, revoked_at)
             SELECT head.seq, ended.user_id, $1, $2 FROM head, ended",
        )
        .bind(&token_hash.0[..])
        .bind(now.as_micros())
        .execute(&self.0)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    async fn revocations(&self, after: u64, limit: u32) -> Result<Revocations, Error> {
        // One statement sees one moment: what it shows of the log ends at the head it shows.
        let rows = sqlx::query_as(
            "SELECT head.seq, log.seq, log.user_id, log.token_hash
             FROM revocation_head AS head LEFT JOIN revocation AS log ON log.seq > $1
             ORDER BY log.seq LIMIT $2",
        )
        .bind(signed(after))
        .bind(i64::from(limit))
        .fetch_all(&self.0)
        .await?;
        revocations(rows)
    }

    async fn drop_expired(&self, now: Timestamp, limit: u32) -> Result<u64, Error> {
        // Other instances sweep too: each takes rows that no one else holds.
        let done = sqlx::query(
            "DELETE FROM session WHERE token_hash IN (
                 SELECT token_hash FROM session WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2
                 FOR UPDATE SKIP LOCKED)",
        )
        .bind(now.as_micros())
        .bind(i64::from(limit))
        .execute(&self.0)
        .await?;
        Ok(done.rows_affected())
    }

    async fn trim_revocations(&self, before: Timestamp, limit: u32) -> Result<u64, Error> {
        let done = sqlx::query(
            "DELETE FROM revocation WHERE seq <= (
                 SELECT max(seq) FROM (
                     SELECT seq FROM revocation WHERE revoked_at < $1 ORDER BY seq LIMIT $2) AS old)",
        )
        .bind(before.as_micros())
        .bind(i64::from(limit))
        .execute(&self.0)
        .await?;
        Ok(done.rows_affected())
    }
}

//! The statements for Postgres.

use async_trait::async_trait;
use notifyx_database::Error;
use notifyx_model::{KeyId, Timestamp, TokenHash, UserId};
use notifyx_wire::rest::auth::keys::{Key, KeyIdentity};
use uuid::Uuid;

use super::{Kept, KeyStore, Revoked, identity, key, text_of};
use crate::store::{hash, postgres::Postgres};

#[async_trait]
impl KeyStore for Postgres {
    async fn add_key(&self, Kept { user_id, token_hash, about }: &Kept, max: u32) -> Result<bool, Error> {
        let mut tx = self.0.begin().await?;
        // Keys of one user are made in turns, or each would be counted without the other.
        sqlx::query("SELECT 1 FROM account WHERE id = $1 FOR NO KEY UPDATE")
            .bind(user_id.uuid())
            .execute(&mut *tx)
            .await?;
        let (live,): (i64,) = sqlx::query_as(
            "SELECT count(*) FROM api_key WHERE user_id = $1 AND (expires_at IS NULL OR expires_at > $2)",
        )
        .bind(user_id.uuid())
        .bind(about.created_at.as_micros())
        .fetch_one(&mut *tx)
        .await?;
        if live >= i64::from(max) {
            return Ok(false);
        }
        // The live ones stand first, and fit: what does not has expired.
        sqlx::query(
            "WITH excess AS (
                 SELECT id FROM api_key WHERE user_id = $1 ORDER BY expires_at DESC NULLS FIRST, id OFFSET $2
             ), locked AS (
                 SELECT id FROM api_key WHERE id IN (SELECT id FROM excess) ORDER BY id FOR UPDATE
             )
             DELETE FROM api_key WHERE id IN (SELECT id FROM locked)",
        )
        .bind(user_id.uuid())
        .bind(i64::from(max) - 1)
        .execute(&mut *tx)
        .await?;
        sqlx::query(
            "INSERT INTO api_key (id, user_id, token_hash, name, prefix, scopes, created_at, expires_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        )
        .bind(about.id.uuid())
        .bind(user_id.uuid())
        .bind(&token_hash.0[..])
        .bind(about.name.as_str())
        .bind(&about.prefix)
        .bind(text_of(&about.scopes))
        .bind(about.created_at.as_micros())
        .bind(about.expires_at.map(Timestamp::as_micros))
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(true)
    }

    async fn find_key(&self, token_hash: TokenHash) -> Result<Option<KeyIdentity>, Error> {
        let row = sqlx::query_as(
            "SELECT api_key.id, api_key.name, api_key.scopes, api_key.expires_at, account.id, account.email
             FROM api_key JOIN account ON account.id = api_key.user_id WHERE api_key.token_hash = $1",
        )
        .bind(&token_hash.0[..])
        .fetch_optional(&self.0)
        .await?;
        row.map(identity).transpose()
    }

    async fn list_keys(&self, user_id: UserId) -> Result<Vec<Key>, Error> {
        let rows = sqlx::query_as(
            "SELECT id, name, prefix, scopes, created_at, last_used_at, expires_at
             FROM api_key WHERE user_id = $1 ORDER BY created_at DESC, id DESC",
        )
        .bind(user_id.uuid())
        .fetch_all(&self.0)
        .await?;
        rows.into_iter().map(key).collect()
    }

    async fn revoke_key(&self, user_id: UserId, id: KeyId, now: Timestamp) -> Result<Option<Revoked>, Error> {
        // One statement; the head is locked only where a key was found, after it.
        let ended: Option<(Vec<u8>,)> = sqlx::query_as(
            "WITH ended AS (
                 DELETE FROM api_key WHERE id = $1 AND user_id = $2 RETURNING token_hash
             ), head AS (
                 UPDATE revocation_head SET seq = seq + 1 WHERE EXISTS (SELECT 1 FROM ended) RETURNING seq
             )
             INSERT INTO revocation (seq, user_id, token_hash, revoked_at, key_id)
             SELECT head.seq, $2, ended.token_hash, $3, $1 FROM head, ended
             RETURNING token_hash",
        )
        .bind(id.uuid())
        .bind(user_id.uuid())
        .bind(now.as_micros())
        .fetch_optional(&self.0)
        .await?;
        if let Some((token_hash,)) = ended {
            return Ok(Some(Revoked { token_hash: hash(token_hash)?, anew: true }));
        }
        // A statement of its own: the one above cannot see what another call, for which it waited, has just logged.
        let before: Option<(Vec<u8>,)> =
            sqlx::query_as("SELECT token_hash FROM revocation WHERE key_id = $1 AND user_id = $2")
                .bind(id.uuid())
                .bind(user_id.uuid())
                .fetch_optional(&self.0)
                .await?;
        before.map(|(token_hash,)| Ok(Revoked { token_hash: hash(token_hash)?, anew: false })).transpose()
    }

    async fn note_uses(&self, uses: &[(KeyId, Timestamp)]) -> Result<(), Error> {
        let (ids, times): (Vec<Uuid>, Vec<i64>) = uses.iter().map(|(id, at)| (id.uuid(), at.as_micros())).unzip();
        sqlx::query(
            "WITH used AS (
                 SELECT id, at FROM UNNEST($1::uuid[], $2::bigint[]) AS used (id, at)
             ), locked AS (
                 SELECT api_key.id, used.at FROM api_key JOIN used ON used.id = api_key.id
                 WHERE last_used_at IS NULL OR last_used_at < used.at
                 ORDER BY api_key.id FOR NO KEY UPDATE OF api_key
             )
             UPDATE api_key SET last_used_at = greatest(last_used_at, locked.at) FROM locked WHERE api_key.id = locked.id",
        )
        .bind(ids)
        .bind(times)
        .execute(&self.0)
        .await?;
        Ok(())
    }

    async fn drop_expired_keys(&self, before: Timestamp, limit: u32) -> Result<u64, Error> {
        // Other instances sweep too: each takes rows that no one else holds.
        let done = sqlx::query(
            "DELETE FROM api_key WHERE id IN (
                 SELECT id FROM api_key WHERE expires_at <= $1 ORDER BY expires_at LIMIT $2
                 FOR UPDATE SKIP LOCKED)",
        )
        .bind(before.as_micros())
        .bind(i64::from(limit))
        .execute(&self.0)
        .await?;
        Ok(done.rows_affected())
    }
}

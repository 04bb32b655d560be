//! The statements for SQLite.

use async_trait::async_trait;
use notifyx_database::Error;
use notifyx_model::{KeyId, Timestamp, TokenHash, UserId};
use notifyx_wire::rest::auth::keys::{Key, KeyIdentity};

use super::{Kept, KeyStore, Revoked, identity, key, text_of};
use crate::store::{
    hash,
    sqlite::{Sqlite, json, log},
};

#[async_trait]
impl KeyStore for Sqlite {
    async fn add_key(&self, Kept { user_id, token_hash, about }: &Kept, max: u32) -> Result<bool, Error> {
        let mut tx = self.0.begin().await?;
        let (live,): (i64,) = sqlx::query_as(
            "SELECT count(*) FROM api_key WHERE user_id = ?1 AND (expires_at IS NULL OR expires_at > ?2)",
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
            "DELETE FROM api_key WHERE id IN (
                 SELECT id FROM api_key WHERE user_id = ?1
                 ORDER BY expires_at DESC NULLS FIRST, id LIMIT -1 OFFSET ?2)",
        )
        .bind(user_id.uuid())
        .bind(max - 1)
        .execute(&mut *tx)
        .await?;
        sqlx::query(
            "INSERT INTO api_key (id, user_id, token_hash, name, prefix, scopes, created_at, expires_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
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
             FROM api_key JOIN account ON account.id = api_key.user_id WHERE api_key.token_hash = ?1",
        )
        .bind(&token_hash.0[..])
        .fetch_optional(&self.0.read)
        .await?;
        row.map(identity).transpose()
    }

    async fn list_keys(&self, user_id: UserId) -> Result<Vec<Key>, Error> {
        let rows = sqlx::query_as(
            "SELECT id, name, prefix, scopes, created_at, last_used_at, expires_at
             FROM api_key WHERE user_id = ?1 ORDER BY created_at DESC, id DESC",
        )
        .bind(user_id.uuid())
        .fetch_all(&self.0.read)
        .await?;
        rows.into_iter().map(key).collect()
    }

    async fn revoke_key(&self, user_id: UserId, id: KeyId, now: Timestamp) -> Result<Option<Revoked>, Error> {
        let mut tx = self.0.begin().await?;
        let ended: Option<(Vec<u8>,)> =
            sqlx::query_as("DELETE FROM api_key WHERE id = ?1 AND user_id = ?2 RETURNING token_hash")
                .bind(id.uuid())
                .bind(user_id.uuid())
                .fetch_optional(&mut *tx)
                .await?;
        if let Some((token_hash,)) = ended {
            log(&mut tx, user_id, &token_hash, Some(id), now).await?;
            tx.commit().await?;
            return Ok(Some(Revoked { token_hash: hash(token_hash)?, anew: true }));
        }
        let before: Option<(Vec<u8>,)> =
            sqlx::query_as("SELECT token_hash FROM revocation WHERE key_id = ?1 AND user_id = ?2")
                .bind(id.uuid())
                .bind(user_id.uuid())
                .fetch_optional(&mut *tx)
                .await?;
        before.map(|(token_hash,)| Ok(Revoked { token_hash: hash(token_hash)?, anew: false })).transpose()
    }

    async fn note_uses(&self, uses: &[(KeyId, Timestamp)]) -> Result<(), Error> {
        let uses: Vec<_> = uses.iter().map(|(id, at)| (id.uuid().simple().to_string(), at.as_micros())).collect();
        let mut tx = self.0.begin().await?;
        sqlx::query(
            "UPDATE api_key SET last_used_at = used.at
             FROM (SELECT unhex(value ->> 0) AS id, value ->> 1 AS at FROM json_each(?1)) AS used
             WHERE api_key.id = used.id AND (last_used_at IS NULL OR last_used_at < used.at)",
        )
        .bind(json(&uses))
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(())
    }

    async fn drop_expired_keys(&self, before: Timestamp, limit: u32) -> Result<u64, Error> {
        let mut tx = self.0.begin().await?;
        let done = sqlx::query(
            "DELETE FROM api_key WHERE id IN (
                 SELECT id FROM api_key WHERE expires_at <= ?1 ORDER BY expires_at LIMIT ?2)",
        )
        .bind(before.as_micros())
        .bind(limit)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(done.rows_affected())
    }
}

//! Trimming on Postgres. Two instances may sweep at once: the topic's lock decides who deletes, the other finds nothing left.

use async_trait::async_trait;
use notifyx_model::{Timestamp, TopicId};
use uuid::Uuid;

use super::Postgres;
use crate::{Error, store::Trimming};

#[async_trait]
impl Trimming for Postgres {
    async fn list_expired_topics(
        &self,
        now: Timestamp,
        after: Option<TopicId>,
        limit: u32,
    ) -> Result<Vec<TopicId>, Error> {
        let rows: Vec<(Uuid,)> = sqlx::query_as(
            r#"SELECT t.id FROM topic t
               JOIN notification n ON n.topic_id = t.id AND n."offset" = t.trimmed_offset + 1
               WHERE t.longevity IS NOT NULL AND ($2::uuid IS NULL OR t.id > $2)
                 AND n.inserted_at < $1 - t.longevity * 1000000
               ORDER BY t.id LIMIT $3"#,
        )
        .bind(now.as_micros())
        .bind(after.map(TopicId::uuid))
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(|(id,)| TopicId::from_uuid(id)).collect())
    }

    async fn trim(&self, topic: TopicId, now: Timestamp, rows: u32) -> Result<u64, Error> {
        let mut tx = self.pool.begin().await?;
        let found: Option<(i64, i64)> = sqlx::query_as(
            "SELECT trimmed_offset, longevity FROM topic WHERE id = $1 AND longevity IS NOT NULL FOR NO KEY UPDATE SKIP LOCKED",
        )
        .bind(topic.uuid())
        .fetch_optional(&mut *tx)
        .await?;
        // Someone publishes or trims here right now: the next sweep comes by again.
        let Some((trimmed, longevity)) = found else { return Ok(0) };
        let last: Option<(i64, i64)> = sqlx::query_as(
            r#"SELECT "offset", broadcast_no FROM (
                   SELECT "offset", broadcast_no, inserted_at FROM notification
                   WHERE topic_id = $1 AND "offset" > $2 ORDER BY "offset" LIMIT $3) oldest
               WHERE inserted_at < $4 ORDER BY "offset" DESC LIMIT 1"#,
        )
        .bind(topic.uuid())
        .bind(trimmed)
        .bind(i64::from(rows))
        .bind(now.as_micros() - longevity * 1_000_000)
        .fetch_optional(&mut *tx)
        .await?;
        let Some((offset, broadcast_no)) = last else { return Ok(0) };
        for sql in [
            r#"DELETE FROM recipient WHERE topic_id = $1 AND "offset" <= $2"#,
            r#"DELETE FROM notification WHERE topic_id = $1 AND "offset" <= $2"#,
        ] {
            sqlx::query(sql).bind(topic.uuid()).bind(offset).execute(&mut *tx).await?;
        }
        sqlx::query("UPDATE topic SET trimmed_offset = $2, trimmed_broadcast_no = $3 WHERE id = $1")
            .bind(topic.uuid())
            .bind(offset)
            .bind(broadcast_no)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(u64::try_from(offset - trimmed).unwrap_or(0))
    }
}

//! A topic's log on Postgres.

use async_trait::async_trait;
use notifyx_model::{Notification, TopicId};
use notifyx_wire::rest::persist::Log;
use sqlx::{FromRow, Row};

use super::Postgres;
use crate::{
    Error,
    store::{
        Notifications,
        row::{self, NotificationRow},
    },
};

/// One statement, so that head, trimmed and rows are of one moment. The topic's row is there even if no notification is.
const LOG: &str = r#"
SELECT t.last_offset, t.trimmed_offset, t.name AS topic, n.*,
       CASE WHEN n.targeted THEN (SELECT string_agg(r.user_id::text, ',' ORDER BY r.user_id) FROM recipient r
                                  WHERE r.topic_id = n.topic_id AND r."offset" = n."offset") END AS recipients
FROM topic t LEFT JOIN LATERAL (
    SELECT * FROM (
        SELECT l.*, sum(octet_length(l.message)) OVER (ORDER BY l."offset") - octet_length(l.message) AS bytes_before
        FROM (SELECT * FROM notification WHERE topic_id = t.id AND "offset" > $2 ORDER BY "offset" LIMIT $3) l
    ) m WHERE bytes_before < $4
) n ON true
WHERE t.id = $1 ORDER BY n."offset""#;

#[async_trait]
impl Notifications for Postgres {
    async fn log(&self, topic: TopicId, after: u64, limit: u32, bytes: u32) -> Result<Option<Log>, Error> {
        let rows = sqlx::query(LOG)
            .bind(topic.uuid())
            .bind(row::signed(after))
            .bind(i64::from(limit))
            .bind(i64::from(bytes))
            .fetch_all(&self.pool)
            .await?;
        let Some(first) = rows.first() else { return Ok(None) };
        let (offset, trimmed) =
            (row::unsigned(first.try_get("last_offset")?), row::unsigned(first.try_get("trimmed_offset")?));
        let mut notifications = Vec::with_capacity(rows.len());
        for row in &rows {
            if row.try_get::<Option<i64>, _>("offset")?.is_some() {
                notifications.push(Notification::try_from(NotificationRow::from_row(row)?)?);
            }
        }
        Ok(Some(Log { notifications, offset, trimmed }))
    }
}

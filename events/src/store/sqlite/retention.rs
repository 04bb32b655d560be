//! Retention on SQLite: bounded deletes from the log's old end; ids go with their events.

use async_trait::async_trait;
use notifyx_model::{Category, EventId, Timestamp};
use sqlx::SqliteConnection;

use super::{Sqlite, list, topic};
use crate::{
    Error,
    store::{
        Retention,
        row::{self, signed, unsigned},
    },
};

#[async_trait]
impl Retention for Sqlite {
    async fn open_day(&self, _day: Timestamp) -> Result<(), Error> {
        Ok(())
    }

    async fn trim_before(&self, before: Timestamp, rows: u32) -> Result<u64, Error> {
        let mut tx = self.begin().await?;
        // Up to the first that is young enough: where a clock was set back, an old one behind it waits for its turn. One that was put
        // forward wrote times that have not come; they are as old as what stands behind them.
        let oldest: Vec<(i64, i64, i64, bool)> = sqlx::query_as(
            r#"SELECT place, topic_id, "offset", fired_at < ?1 OR (fired_at > ?3 AND coalesce((
                      SELECT n.fired_at FROM event n WHERE n.place > e.place AND n.fired_at <= ?3 ORDER BY n.place LIMIT 1), ?1) < ?1)
               FROM event e WHERE NOT EXISTS (SELECT 1 FROM consumer c WHERE c.topic_id = e.topic_id AND c.position < e."offset")
               ORDER BY place LIMIT ?2"#,
        )
        .bind(before.as_micros())
        .bind(i64::from(rows))
        .bind(self.clock.now().as_micros())
        .fetch_all(&mut *tx)
        .await?;
        let old: Vec<_> = oldest.into_iter().take_while(|(.., old)| *old).collect();
        if old.is_empty() {
            return Ok(0);
        }
        let places = list(old.iter().map(|(place, ..)| place));
        sqlx::query(
            "UPDATE topic SET trimmed_offset = max(trimmed_offset, g.trimmed) FROM (
                 SELECT value ->> 0 AS topic_id, max(value ->> 1) AS trimmed FROM json_each(?1) GROUP BY value ->> 0) g
             WHERE topic.id = g.topic_id",
        )
        .bind(list(old.iter().map(|(_, topic, offset, _)| (topic, offset))))
        .execute(&mut *tx)
        .await?;
        drop_places(&mut tx, &places).await?;
        tx.commit().await?;
        Ok(old.len() as u64)
    }

    async fn list_long(&self, keep: u64, after: Option<&Category>, limit: u32) -> Result<Vec<Category>, Error> {
        let names: Vec<(String,)> = sqlx::query_as(
            "SELECT name FROM topic WHERE name > ?1 AND last_offset - trimmed_offset > ?2 ORDER BY name LIMIT ?3",
        )
        .bind(after.map_or("", Category::as_str))
        .bind(signed(keep))
        .bind(i64::from(limit))
        .fetch_all(self.read())
        .await?;
        row::names(names)
    }

    async fn trim_to(&self, category: &Category, keep: u64, rows: u32) -> Result<u64, Error> {
        let mut tx = self.begin().await?;
        let Some(topic) = topic(&mut tx, category).await? else { return Ok(0) };
        let passed: Option<i64> = sqlx::query_scalar("SELECT min(position) FROM consumer WHERE topic_id = ?1")
            .bind(topic.id)
            .fetch_one(&mut *tx)
            .await?;
        let Some(trimmed) = topic.trim_to(keep, rows, passed) else { return Ok(0) };
        let places: Vec<(i64,)> = sqlx::query_as(r#"SELECT place FROM event WHERE topic_id = ?1 AND "offset" <= ?2"#)
            .bind(topic.id)
            .bind(trimmed)
            .fetch_all(&mut *tx)
            .await?;
        drop_places(&mut tx, &list(places.iter().map(|(place,)| place))).await?;
        sqlx::query("UPDATE topic SET trimmed_offset = ?2 WHERE id = ?1")
            .bind(topic.id)
            .bind(trimmed)
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(unsigned(trimmed - topic.trimmed_offset))
    }

    async fn forget(&self, _after: Option<&EventId>, _rows: u32) -> Result<Option<EventId>, Error> {
        Ok(None)
    }
}

async fn drop_places(connection: &mut SqliteConnection, places: &str) -> Result<(), Error> {
    for sql in [
        "DELETE FROM seen WHERE (id, topic_id) IN (
             SELECT e.id, e.topic_id FROM json_each(?1) j CROSS JOIN event e ON e.place = j.value)",
        "DELETE FROM event WHERE place IN (SELECT value FROM json_each(?1))",
    ] {
        sqlx::query(sql).bind(places).execute(&mut *connection).await?;
    }
    Ok(())
}

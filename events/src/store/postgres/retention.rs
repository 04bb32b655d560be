//! Retention on Postgres: what was appended on one day lies in one partition, which is dropped whole.

use async_trait::async_trait;
use notifyx_model::{Category, EventId, Timestamp};
use sqlx::PgConnection;

use super::{Postgres, lock_topics};
use crate::{
    Error,
    store::{
        Retention,
        row::{self, signed, unsigned},
    },
};

/// In microseconds.
const DAY: i64 = 86_400_000_000;

/// Topics whose heads move in one transaction.
const TOPICS: i64 = 1_000;

/// Whoever waits for a table's lock holds up all that come after: so briefly that nobody notices. It is tried again at the next sweep.
const BRIEFLY: &str = "SET LOCAL lock_timeout = '100ms'";

#[async_trait]
impl Retention for Postgres {
    async fn open_day(&self, day: Timestamp) -> Result<(), Error> {
        let day = day.as_micros().div_euclid(DAY);
        let (from, to) = (day * DAY, (day + 1) * DAY);
        if self.is_open(day).await? {
            return Ok(());
        }
        let mut tx = self.pool.begin().await?;
        sqlx::query("SELECT pg_advisory_xact_lock(hashtext('notifyx_events_days'))").execute(&mut *tx).await?;
        // What was appended before its day was open stays where it is, and so does the rest of that day.
        let late: bool = sqlx::query_scalar(
            "SELECT to_regclass($1) IS NOT NULL OR EXISTS (SELECT 1 FROM event_default WHERE fired_at >= $2 AND fired_at < $3)",
        )
        .bind(partition(day))
        .bind(from)
        .bind(to)
        .fetch_one(&mut *tx)
        .await?;
        if late {
            return Ok(());
        }
        // Made apart and then attached: readers and writers of other days go on.
        let name = partition(day);
        for sql in [
            BRIEFLY.to_owned(),
            format!("CREATE TABLE {name} (LIKE event INCLUDING ALL)"),
            format!("ALTER TABLE event ATTACH PARTITION {name} FOR VALUES FROM ({from}) TO ({to})"),
        ] {
            sqlx::query(&sql).execute(&mut *tx).await?;
        }
        tx.commit().await?;
        Ok(())
    }

    async fn trim_before(&self, before: Timestamp, rows: u32) -> Result<u64, Error> {
        let before = before.as_micros();
        match self.oldest_day().await? {
            Some(day) if (day + 1) * DAY <= before && self.has_passed(day).await? => self.drop_day(day).await,
            _ => self.trim_default(before, rows).await,
        }
    }

    async fn list_long(&self, keep: u64, after: Option<&Category>, limit: u32) -> Result<Vec<Category>, Error> {
        let names: Vec<(String,)> = sqlx::query_as(
            "SELECT name FROM topic WHERE name > $1 AND last_offset - trimmed_offset > $2 ORDER BY name LIMIT $3",
        )
        .bind(after.map_or("", Category::as_str))
        .bind(signed(keep))
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await?;
        row::names(names)
    }

    async fn trim_to(&self, category: &Category, keep: u64, rows: u32) -> Result<u64, Error> {
        let mut tx = self.pool.begin().await?;
        let topics = lock_topics(&mut tx, &[category.as_str()]).await?;
        let Some(topic) = topics.find(category) else { return Ok(0) };
        let passed: Option<i64> = sqlx::query_scalar("SELECT min(position) FROM consumer WHERE topic_id = $1")
            .bind(topic.id)
            .fetch_one(&mut *tx)
            .await?;
        let Some(trimmed) = topic.trim_to(keep, rows, passed) else { return Ok(0) };
        sqlx::query(
            r#"WITH gone AS (DELETE FROM event WHERE topic_id = $1 AND "offset" > $2 AND "offset" <= $3 RETURNING id, "offset"),
                    ids AS (DELETE FROM seen s USING gone g WHERE s.id = g.id AND s.topic_id = $1 AND s."offset" = g."offset")
               UPDATE topic SET trimmed_offset = $3 WHERE id = $1"#,
        )
        .bind(topic.id)
        .bind(topic.trimmed_offset)
        .bind(trimmed)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(unsigned(trimmed - topic.trimmed_offset))
    }

    async fn forget(&self, after: Option<&EventId>, rows: u32) -> Result<Option<EventId>, Error> {
        // What somebody is about to use is passed over: nothing waits here while it holds rows.
        let (last, looked): (Option<String>, i64) = sqlx::query_as(
            r#"WITH page AS (SELECT id, topic_id FROM seen WHERE id > $1 ORDER BY id, topic_id LIMIT $2),
                    dead AS (SELECT s.id, s.topic_id FROM page p
                             JOIN seen s ON s.id = p.id AND s.topic_id = p.topic_id
                             JOIN topic t ON t.id = s.topic_id
                             WHERE s."offset" <= t.trimmed_offset FOR UPDATE OF s SKIP LOCKED),
                    gone AS (DELETE FROM seen s USING dead d WHERE s.id = d.id AND s.topic_id = d.topic_id)
               SELECT max(id), count(*) FROM page"#,
        )
        .bind(after.map_or("", EventId::as_str))
        .bind(i64::from(rows))
        .fetch_one(&self.pool)
        .await?;
        match last {
            Some(last) if looked >= i64::from(rows) => row::event_id(&last).map(Some),
            _ => Ok(None),
        }
    }
}

fn partition(day: i64) -> String {
    format!("event_d{day}")
}

impl Postgres {
    async fn is_open(&self, day: i64) -> Result<bool, Error> {
        let sql = "SELECT to_regclass($1) IS NOT NULL";
        Ok(sqlx::query_scalar(sql).bind(partition(day)).fetch_one(&self.pool).await?)
    }

    async fn oldest_day(&self) -> Result<Option<i64>, Error> {
        let sql = "SELECT min(substring(c.relname FROM '^event_d([0-9]+)$')::bigint)
                   FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid WHERE i.inhparent = 'event'::regclass";
        Ok(sqlx::query_scalar(sql).fetch_one(&self.pool).await?)
    }

    /// Whether no consumer still needs something of the day.
    async fn has_passed(&self, day: i64) -> Result<bool, Error> {
        let sql = format!(
            r#"SELECT NOT EXISTS (SELECT 1 FROM consumer c JOIN {} e ON e.topic_id = c.topic_id AND e."offset" > c.position)"#,
            partition(day)
        );
        Ok(sqlx::query_scalar(&sql).fetch_one(&self.pool).await?)
    }

    /// Readers are told first, topic by topic; then the partition has nothing that anybody looks for, and goes.
    async fn drop_day(&self, day: i64) -> Result<u64, Error> {
        let (name, mut after, mut trimmed) = (partition(day), 0_i64, 0_u64);
        loop {
            let mut tx = self.pool.begin().await?;
            // One look per topic, whatever it has of that day: to group it would be to read the whole index.
            let heads: Vec<(i64, Option<i64>)> = sqlx::query_as(&format!(
                r#"SELECT t.id, (SELECT e."offset" FROM {name} e WHERE e.topic_id = t.id ORDER BY e."offset" DESC LIMIT 1)
                   FROM topic t WHERE t.id > $1 ORDER BY t.id LIMIT $2"#
            ))
            .bind(after)
            .bind(TOPICS)
            .fetch_all(&mut *tx)
            .await?;
            let Some((last, _)) = heads.last() else { break };
            after = *last;
            let heads: Vec<(i64, i64)> =
                heads.into_iter().filter_map(|(topic, newest)| newest.map(|newest| (topic, newest))).collect();
            trimmed += trim_heads(&mut tx, &heads).await?;
            tx.commit().await?;
        }
        let mut tx = self.pool.begin().await?;
        for sql in [BRIEFLY.to_owned(), format!("DROP TABLE IF EXISTS {name}")] {
            sqlx::query(&sql).execute(&mut *tx).await?;
        }
        tx.commit().await?;
        // A day on which nothing happened was dropped, too: there may be more.
        Ok(trimmed.max(1))
    }

    async fn trim_default(&self, before: i64, rows: u32) -> Result<u64, Error> {
        let mut tx = self.pool.begin().await?;
        let old: Vec<(i64, i64)> = sqlx::query_as(
            r#"SELECT topic_id, max("offset") FROM (
                   SELECT e.topic_id, e."offset" FROM event_default e JOIN topic t ON t.id = e.topic_id
                   WHERE e.fired_at < $1 AND NOT EXISTS (
                       SELECT 1 FROM consumer c WHERE c.topic_id = e.topic_id AND c.position < e."offset")
                   -- Up to the first that is young enough: where a clock was wrong, an old one behind it waits for its turn.
                   AND NOT EXISTS (
                       SELECT 1 FROM event y WHERE y.topic_id = e.topic_id AND y."offset" < e."offset"
                                                   AND y."offset" > t.trimmed_offset AND y.fired_at >= $1)
                   ORDER BY e.topic_id, e."offset" LIMIT $2) e
               GROUP BY topic_id ORDER BY topic_id"#,
        )
        .bind(before)
        .bind(i64::from(rows))
        .fetch_all(&mut *tx)
        .await?;
        if old.is_empty() {
            return Ok(0);
        }
        trim_heads(&mut tx, &old).await?;
        let (topics, offsets): (Vec<i64>, Vec<i64>) = old.into_iter().unzip();
        let gone = sqlx::query(
            r#"DELETE FROM event_default e USING UNNEST($1::bigint[], $2::bigint[]) AS w (topic_id, "offset")
               WHERE e.topic_id = w.topic_id AND e."offset" <= w."offset""#,
        )
        .bind(topics)
        .bind(offsets)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(gone.rows_affected())
    }
}

/// Topics, by number, with the offsets up to which they are gone. How many events that is.
async fn trim_heads(connection: &mut PgConnection, heads: &[(i64, i64)]) -> Result<u64, Error> {
    let (topics, offsets): (Vec<i64>, Vec<i64>) = heads.iter().copied().unzip();
    let gone: Option<i64> = sqlx::query_scalar(
        r#"WITH old AS (SELECT id, trimmed_offset FROM topic WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE),
                moved AS (
                    UPDATE topic t SET trimmed_offset = w."offset"
                    FROM UNNEST($1::bigint[], $2::bigint[]) AS w (id, "offset") JOIN old o ON o.id = w.id
                    WHERE t.id = w.id AND w."offset" > o.trimmed_offset RETURNING w."offset" - o.trimmed_offset AS gone)
           SELECT sum(gone)::bigint FROM moved"#,
    )
    .bind(topics)
    .bind(offsets)
    .fetch_one(connection)
    .await?;
    Ok(gone.map_or(0, unsigned))
}

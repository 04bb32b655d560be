//! The log on Postgres.

use async_trait::async_trait;
use notifyx_model::{Category, EventId, Timestamp};
use sqlx::{FromRow, PgConnection, Row};

use super::{Postgres, column, known};
use crate::{
    Error,
    event::{Event, EventKey, NewEvent, Owner},
    store::{
        FOUND_MAX, Head, Kept, Log, Page, Read,
        keep::{self, Added, Topics},
        row::{EventRow, TopicRow, level, signed, unsigned},
    },
};

/// One statement, so that head, trimmed and rows are of one moment. The topic's row is there even if no event is. $1 category, $2 the
/// offset beyond which, $3 events, $4 bytes of data. What is trimmed may still be there.
macro_rules! read {
    ($beyond:literal, $order:literal) => {
        concat!(
            r#"SELECT t.last_offset, t.trimmed_offset, t.name AS category, e.*, NULL::bigint AS seq
               FROM topic t LEFT JOIN LATERAL (
                   SELECT * FROM (
                       SELECT l.*, sum(octet_length(l.data)) OVER (ORDER BY l."offset" "#,
            $order,
            r#") - octet_length(l.data) AS bytes_before
                       FROM (SELECT * FROM event
                             WHERE topic_id = t.id AND "offset" > t.trimmed_offset AND "offset" "#,
            $beyond,
            r#" $2 ORDER BY "offset" "#,
            $order,
            r#" LIMIT $3) l
                   ) m WHERE bytes_before < $4
               ) e ON true
               WHERE t.name = $1 ORDER BY e."offset" "#,
            $order
        )
    };
}

#[async_trait]
impl Log for Postgres {
    async fn append(&self, events: &[NewEvent], at: Timestamp) -> Result<Vec<Kept>, Error> {
        let (mut tx, topics) = self.begin_on(events.iter().map(|event| &event.category)).await?;
        let known = known::known(&mut tx, &topics, events).await?;
        let (rows, _) = keep::added(events, &topics, &known);
        write(&mut tx, events, &rows, at).await?;
        tx.commit().await?;
        Ok(keep::appended(events, &rows, at, &known))
    }

    async fn read(&self, category: &Category, after: u64, page: Page) -> Result<Read, Error> {
        self.page(read!(">", "ASC"), category, signed(after), page).await
    }

    async fn read_back(&self, category: &Category, before: Option<u64>, page: Page) -> Result<Read, Error> {
        self.page(read!("<", "DESC"), category, before.map_or(i64::MAX, signed), page).await
    }

    async fn heads(&self, categories: &[Category]) -> Result<Vec<Head>, Error> {
        let names: Vec<&str> = categories.iter().map(Category::as_str).collect();
        let sql = format!("SELECT {} FROM topic t WHERE t.name = ANY($1)", TopicRow::COLUMNS);
        let rows: Vec<TopicRow> = sqlx::query_as(&sql).bind(names).fetch_all(&self.pool).await?;
        Ok(Topics::new(rows).heads(categories))
    }

    async fn find(&self, id: &EventId, category: Option<&Category>) -> Result<Vec<Event>, Error> {
        // One statement, so one view of where the event is and of what is there: it may fire meanwhile.
        known::by_id(&self.pool, id, category, FOUND_MAX).await
    }
}

impl Postgres {
    async fn page(&self, sql: &'static str, category: &Category, beyond: i64, page: Page) -> Result<Read, Error> {
        let rows = sqlx::query(sql)
            .bind(category.as_str())
            .bind(beyond)
            .bind(i64::from(page.limit))
            .bind(i64::from(page.bytes))
            .fetch_all(&self.pool)
            .await?;
        let Some(first) = rows.first() else { return Ok(Read { events: Vec::new(), offset: 0, trimmed: 0 }) };
        let (offset, trimmed) = (unsigned(first.try_get("last_offset")?), unsigned(first.try_get("trimmed_offset")?));
        let mut events = Vec::with_capacity(rows.len());
        for row in &rows {
            if row.try_get::<Option<i64>, _>("offset")?.is_some() {
                events.push(Event::try_from(EventRow::from_row(row)?)?);
            }
        }
        Ok(Read { events, offset, trimmed })
    }
}

const WRITE: &str = r#"
WITH written AS (
    INSERT INTO event (topic_id, "offset", id, priority, created_at, fire_at, fired_at, key, owner, recurring_id, data)
    SELECT topic_id, "offset", id, priority, created_at, fire_at, $11, key, owner, recurring_id, data
    FROM UNNEST($1::bigint[], $2::bigint[], $3::text[], $4::smallint[], $5::bigint[], $6::bigint[], $7::text[], $8::text[],
                $9::text[], $10::bytea[])
         AS w (topic_id, "offset", id, priority, created_at, fire_at, key, owner, recurring_id, data)
    RETURNING id, topic_id, "offset"
), heads AS (
    UPDATE topic t SET last_offset = w.last FROM (SELECT topic_id, max("offset") AS last FROM written GROUP BY topic_id) w
    WHERE t.id = w.topic_id
)
INSERT INTO seen (id, topic_id, "offset") SELECT id, topic_id, "offset" FROM written
ON CONFLICT (id, topic_id) DO UPDATE SET seq = NULL, "offset" = excluded."offset""#;

async fn write(connection: &mut PgConnection, events: &[NewEvent], rows: &[Added], at: Timestamp) -> Result<(), Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let new: Vec<&NewEvent> = rows.iter().map(|(i, ..)| &events[*i]).collect();
    sqlx::query(WRITE)
        .bind(rows.iter().map(|(_, topic, _)| *topic).collect::<Vec<_>>())
        .bind(rows.iter().map(|(.., offset)| *offset).collect::<Vec<_>>())
        .bind(column(&new, |event| event.id.as_str()))
        .bind(column(&new, |event| level(event.priority)))
        .bind(column(&new, |event| event.created_at.as_micros()))
        .bind(column(&new, |event| event.fire_at.as_micros()))
        .bind(column(&new, |event| event.key.as_ref().map(EventKey::as_str)))
        .bind(column(&new, |event| event.owner.as_ref().map(Owner::as_str)))
        .bind(column(&new, |event| event.recurring.as_ref().map(EventId::as_str)))
        .bind(column(&new, |event| event.data.as_ref()))
        .bind(at.as_micros())
        .execute(connection)
        .await?;
    Ok(())
}

//! The log on SQLite.

use async_trait::async_trait;
use notifyx_model::{Category, EventId, Timestamp};
use sqlx::{FromRow, Row, SqliteConnection};

use super::{Sqlite, find_topics, insert, known, list, topics};
use crate::{
    Error,
    event::{Event, NewEvent},
    store::{
        FOUND_MAX, Head, Kept, Log, Page, Read,
        keep::{self, Added, Moves, categories},
        row::{EventRow, level, signed, unsigned},
    },
};

/// One statement, so that head, trimmed and rows are of one moment. The topic's row is there even if no event is. ?1 category, ?2 the
/// offset beyond which, ?3 events, ?4 bytes of data.
macro_rules! read {
    ($beyond:literal, $order:literal) => {
        concat!(
            r#"SELECT t.last_offset, t.trimmed_offset, t.name AS category, e.*, NULL AS seq
               FROM topic t LEFT JOIN (
                   SELECT * FROM (
                       SELECT l.*, sum(length(l.data)) OVER (ORDER BY l."offset" "#,
            $order,
            r#") - length(l.data) AS bytes_before
                       FROM (SELECT * FROM event
                             WHERE topic_id = (SELECT id FROM topic WHERE name = ?1) AND "offset" "#,
            $beyond,
            r#" ?2 ORDER BY "offset" "#,
            $order,
            r#" LIMIT ?3) l
                   ) WHERE bytes_before < ?4
               ) e ON true
               WHERE t.name = ?1 ORDER BY e."offset" "#,
            $order
        )
    };
}

#[async_trait]
impl Log for Sqlite {
    async fn append(&self, events: &[NewEvent], at: Timestamp) -> Result<Vec<Kept>, Error> {
        let mut tx = self.begin().await?;
        let topics = topics(&mut tx, &categories(events.iter().map(|event| &event.category))).await?;
        let known = known::known(&mut tx, &topics, events).await?;
        let (rows, moves) = keep::added(events, &topics, &known);
        write(&mut tx, events, &rows, &moves, at).await?;
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
        let mut connection = self.read().acquire().await?;
        let names: Vec<&str> = categories.iter().map(Category::as_str).collect();
        Ok(find_topics(&mut connection, &names).await?.heads(categories))
    }

    async fn find(&self, id: &EventId, category: Option<&Category>) -> Result<Vec<Event>, Error> {
        // One view of where the event is and of what is there: it may fire meanwhile.
        let mut tx = self.read().begin().await?;
        let topics: Vec<(i64,)> = sqlx::query_as(
            "SELECT s.topic_id FROM seen s CROSS JOIN topic t ON t.id = s.topic_id
             WHERE s.id = ?1 AND (t.name = ?2 OR (?2 IS NULL AND t.name NOT LIKE '$%')) ORDER BY s.topic_id LIMIT ?3",
        )
        .bind(id.as_str())
        .bind(category.map(Category::as_str))
        .bind(FOUND_MAX)
        .fetch_all(&mut *tx)
        .await?;
        let pairs = list(topics.iter().map(|(topic,)| (topic, id.as_str())));
        Ok(known::find(&mut tx, pairs).await?.into_values().collect())
    }
}

impl Sqlite {
    async fn page(&self, sql: &'static str, category: &Category, beyond: i64, page: Page) -> Result<Read, Error> {
        let rows = sqlx::query(sql)
            .bind(category.as_str())
            .bind(beyond)
            .bind(i64::from(page.limit))
            .bind(i64::from(page.bytes))
            .fetch_all(self.read())
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

async fn write(
    connection: &mut SqliteConnection,
    events: &[NewEvent],
    rows: &[Added],
    moves: &Moves,
    at: Timestamp,
) -> Result<(), Error> {
    if rows.is_empty() {
        return Ok(());
    }
    let columns = "topic_id, \"offset\", id, priority, created_at, fire_at, fired_at, key, owner, recurring_id, data";
    insert(connection, "event", columns, rows, |query, (i, topic, offset)| {
        let event = &events[*i];
        query
            .bind(topic)
            .bind(offset)
            .bind(event.id.as_str().to_owned())
            .bind(level(event.priority))
            .bind(event.created_at.as_micros())
            .bind(event.fire_at.as_micros())
            .bind(at.as_micros())
            .bind(event.key.as_ref().map(|key| key.as_str().to_owned()))
            .bind(event.owner.as_ref().map(|owner| owner.as_str().to_owned()))
            .bind(event.recurring.as_ref().map(|id| id.as_str().to_owned()))
            .bind(event.data.to_vec())
    })
    .await?;
    let count = i64::try_from(rows.len()).expect("a batch fits in memory");
    sqlx::query(LIST).bind(count).bind(list(moves.each())).execute(connection).await?;
    Ok(())
}

/// Of the newest events of the log, $1 in number; $2: how far the heads move.
const LIST: &str = concat!(place_ids!("$1"), ";", move_heads!("$2"));

//! Which ids are there already, and the events that they name.

use std::collections::HashMap;

use notifyx_model::{Category, EventId};
use sqlx::{PgConnection, PgPool};

use crate::{
    Error,
    event::{Event, NewEvent},
    store::{
        Named,
        keep::Topics,
        row::{self, EventRow, FoundRow},
    },
};

/// The events of ids, waiting or fired. An id that the retention has passed is free, though its row may still be there.
macro_rules! events {
    ($n:literal, $from:literal, $limit:literal) => {
        concat!("SELECT ", $n, r#" AS n, t.name AS category, s.id, coalesce(w.key, e.key) AS key, coalesce(w.priority, e.priority) AS priority,
       coalesce(w.data, e.data) AS data, coalesce(w.created_at, e.created_at) AS created_at,
       coalesce(w.fire_at, e.fire_at) AS fire_at, coalesce(w.owner, e.owner) AS owner,
       coalesce(w.recurring_id, e.recurring_id) AS recurring_id, s.seq, s."offset", e.fired_at
FROM "#, $from, r#"
     JOIN topic t ON t.id = s.topic_id
     LEFT JOIN scheduled w ON w.seq = s.seq
     LEFT JOIN event e ON e.topic_id = s.topic_id AND e."offset" = s."offset"
WHERE (s."offset" IS NULL OR s."offset" > t.trimmed_offset) "#, $limit)
    };
}

/// $1 and $2: topics and ids. One look per id where nothing is known, which is the usual case.
const KNOWN: &str = events!(
    "j.n - 1",
    "UNNEST($1::bigint[], $2::text[]) WITH ORDINALITY AS j (topic_id, id, n)
     JOIN seen s ON s.id = j.id AND s.topic_id = j.topic_id",
    ""
);

/// $1 the id, $2 the category, $3 how many.
const BY_ID: &str = events!(
    "0::bigint",
    "seen s",
    "AND s.id = $1 AND (t.name = $2 OR ($2::text IS NULL AND t.name NOT LIKE '$%')) LIMIT $3"
);

/// The events of a batch that are there, by their place in it. Their topics are locked.
pub(super) async fn known(
    connection: &mut PgConnection,
    topics: &Topics,
    events: &[NewEvent],
) -> Result<HashMap<usize, Event>, Error> {
    let numbers: Vec<i64> = events.iter().map(|event| topics.get(&event.category).id).collect();
    let ids: Vec<&str> = events.iter().map(|event| event.id.as_str()).collect();
    find(connection, &numbers, &ids).await
}

/// Likewise, of events that are named. A category that is not there has none: no topic has the number 0.
pub(super) async fn named(
    connection: &mut PgConnection,
    topics: &Topics,
    names: &[&Named],
) -> Result<HashMap<usize, Event>, Error> {
    let numbers: Vec<i64> = names.iter().map(|named| topics.find(&named.category).map_or(0, |row| row.id)).collect();
    let ids: Vec<&str> = names.iter().map(|named| named.id.as_str()).collect();
    find(connection, &numbers, &ids).await
}

pub(super) async fn by_id(
    pool: &PgPool,
    id: &EventId,
    category: Option<&Category>,
    limit: u32,
) -> Result<Vec<Event>, Error> {
    let rows: Vec<EventRow> = sqlx::query_as(BY_ID)
        .bind(id.as_str())
        .bind(category.map(Category::as_str))
        .bind(i64::from(limit))
        .fetch_all(pool)
        .await?;
    row::all(rows)
}

async fn find(connection: &mut PgConnection, topics: &[i64], ids: &[&str]) -> Result<HashMap<usize, Event>, Error> {
    let rows: Vec<FoundRow> = sqlx::query_as(KNOWN).bind(topics).bind(ids).fetch_all(connection).await?;
    row::found(rows)
}

//! Which ids are there already, and the events that they name.

use std::collections::HashMap;

use sqlx::SqliteConnection;

use super::list;
use crate::{
    Error,
    event::{Event, NewEvent},
    store::{
        Named,
        keep::Topics,
        row::{self, FoundRow},
    },
};

/// One look per id where nothing is known, which is the usual case. ?1: pairs of topic and id.
const KNOWN: &str = r#"
SELECT j.key AS n, t.name AS category, s.id, coalesce(w.key, e.key) AS key, coalesce(w.priority, e.priority) AS priority,
       coalesce(w.data, e.data) AS data, coalesce(w.created_at, e.created_at) AS created_at,
       coalesce(w.fire_at, e.fire_at) AS fire_at, coalesce(w.owner, e.owner) AS owner,
       coalesce(w.recurring_id, e.recurring_id) AS recurring_id, s.seq, s."offset", e.fired_at
FROM json_each(?1) j CROSS JOIN seen s ON s.id = j.value ->> 1 AND s.topic_id = j.value ->> 0
     CROSS JOIN topic t ON t.id = s.topic_id
     LEFT JOIN scheduled w ON w.seq = s.seq
     LEFT JOIN event e ON e.topic_id = s.topic_id AND e."offset" = s."offset""#;

/// The events of a batch that are there, by their place in it.
pub(super) async fn known(
    connection: &mut SqliteConnection,
    topics: &Topics,
    events: &[NewEvent],
) -> Result<HashMap<usize, Event>, Error> {
    let names = events.iter().map(|event| (topics.get(&event.category).id, event.id.as_str()));
    find(connection, list(names)).await
}

/// Likewise, of events that are named. A category that is not there has none: no topic has the number 0.
pub(super) async fn named(
    connection: &mut SqliteConnection,
    topics: &Topics,
    names: &[&Named],
) -> Result<HashMap<usize, Event>, Error> {
    let names = names.iter().map(|named| (topics.find(&named.category).map_or(0, |row| row.id), named.id.as_str()));
    find(connection, list(names)).await
}

pub(super) async fn find(connection: &mut SqliteConnection, pairs: String) -> Result<HashMap<usize, Event>, Error> {
    let rows: Vec<FoundRow> = sqlx::query_as(KNOWN).bind(pairs).fetch_all(connection).await?;
    row::found(rows)
}

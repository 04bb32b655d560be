//! The store on SQLite: one writer at a time, so nothing is locked; lists travel as JSON, bodies as rows of values.
//!
//! What is written together is one text of several statements, for each text is two changes of threads. There parameters are named `$1`: of
//! a `?2` alone SQLite makes two, and sqlx loses count.

/// The heads of topics move: each a list of topic, events appended, more waiting.
macro_rules! move_heads {
    ($moves:literal) => {
        concat!(
            "UPDATE topic SET last_offset = last_offset + (j.value ->> 1), waiting = waiting + (j.value ->> 2) FROM json_each(",
            $moves,
            ") j WHERE topic.id = j.value ->> 0"
        )
    };
}

/// The newest events of the log, so many, are where their ids are now.
macro_rules! place_ids {
    ($count:literal) => {
        concat!(
            r#"INSERT INTO seen (id, topic_id, "offset")
               SELECT id, topic_id, "offset" FROM event WHERE place > (SELECT max(place) FROM event) - "#,
            $count,
            r#" ON CONFLICT DO UPDATE SET seq = NULL, "offset" = excluded."offset""#
        )
    };
}

mod consumers;
mod known;
mod leases;
mod log;
mod recurrings;
mod retention;
mod schedule;

use notifyx_model::{Category, Clock};
use serde::Serialize;
use sqlx::{SqliteConnection, SqlitePool, query::Query, sqlite::SqliteArguments};

use super::{Error, keep::Topics, row::TopicRow};

#[derive(Debug)]
pub(super) struct Sqlite {
    database: notifyx_database::Sqlite,
    clock: Clock,
}

impl Sqlite {
    pub(super) fn new(database: notifyx_database::Sqlite, clock: Clock) -> Self {
        Self { database, clock }
    }

    fn read(&self) -> &SqlitePool {
        &self.database.read
    }

    async fn begin(&self) -> Result<notifyx_database::Transaction, Error> {
        Ok(self.database.begin().await?)
    }
}

/// For `json_each(?)`: of tuples, `value ->> 0` and so on.
fn list<T: Serialize>(items: impl IntoIterator<Item = T>) -> String {
    serde_json::to_string(&items.into_iter().collect::<Vec<_>>()).expect("texts and numbers are JSON")
}

/// The topics of these names; those that are new are made.
async fn topics(connection: &mut SqliteConnection, names: &[&str]) -> Result<Topics, Error> {
    let topics = find_topics(connection, names).await?;
    if topics.hold(names) {
        return Ok(topics);
    }
    sqlx::query("INSERT INTO topic (name) SELECT value FROM json_each(?1) WHERE true ON CONFLICT DO NOTHING")
        .bind(list(names))
        .execute(&mut *connection)
        .await?;
    find_topics(connection, names).await
}

async fn find_topics(connection: &mut SqliteConnection, names: &[&str]) -> Result<Topics, Error> {
    let sql = format!("SELECT {} FROM json_each(?1) j CROSS JOIN topic t ON t.name = j.value", TopicRow::COLUMNS);
    let rows: Vec<TopicRow> = sqlx::query_as(&sql).bind(list(names)).fetch_all(connection).await?;
    Ok(Topics::new(rows))
}

async fn topic(connection: &mut SqliteConnection, category: &Category) -> Result<Option<TopicRow>, Error> {
    let sql = format!("SELECT {} FROM topic t WHERE t.name = ?1", TopicRow::COLUMNS);
    Ok(sqlx::query_as(&sql).bind(category.as_str()).fetch_optional(connection).await?)
}

/// Rows per statement. Few lengths, so that each is prepared once: preparing takes longer than inserting.
const LENGTHS: [usize; 4] = [128, 32, 8, 1];

type Statement<'q> = Query<'q, sqlx::Sqlite, SqliteArguments<'q>>;

/// Inserts rows of so many `columns` into a table, in the fewest statements; `bind` binds one row.
async fn insert<T>(
    connection: &mut SqliteConnection,
    table: &str,
    columns: &str,
    mut rows: &[T],
    bind: impl for<'q> Fn(Statement<'q>, &'q T) -> Statement<'q>,
) -> Result<(), Error> {
    let row = format!("({})", vec!["?"; columns.split(',').count()].join(", "));
    for length in LENGTHS {
        while rows.len() >= length {
            let (now, later) = rows.split_at(length);
            let sql = format!("INSERT INTO {table} ({columns}) VALUES {}", vec![row.as_str(); length].join(", "));
            now.iter().fold(sqlx::query(&sql), &bind).execute(&mut *connection).await?;
            rows = later;
        }
    }
    Ok(())
}

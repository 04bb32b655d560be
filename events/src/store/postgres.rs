//! The store on Postgres: lists travel as arrays, one statement per step whatever their length. Whoever changes what a topic has, in
//! the schedule or in the log, locks its row first.

mod consumers;
mod known;
mod leases;
mod log;
mod recurrings;
mod retention;
mod schedule;

use notifyx_model::Category;
use sqlx::{PgConnection, PgPool, Postgres as Pg, Transaction};

use super::{
    Error,
    keep::{self, Topics},
    row::TopicRow,
};
use crate::event::NewEvent;

/// The server's time, once a statement.
macro_rules! at_server_time {
    ($sql:literal) => {
        concat!(
            "WITH now AS MATERIALIZED (SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS at) ",
            $sql
        )
    };
}

use at_server_time;

#[derive(Debug)]
pub(super) struct Postgres {
    pool: PgPool,
}

impl Postgres {
    pub(super) fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// Begins, holding the rows of these categories' topics; those that are new are made.
    ///
    /// They are made before and apart: a transaction that holds some topics would wait for another that makes the same new one and
    /// waits for those.
    async fn begin_on<'a>(
        &self,
        categories: impl Iterator<Item = &'a Category> + Send,
    ) -> Result<(Transaction<'static, Pg>, Topics), Error> {
        let names = keep::categories(categories);
        let mut tx = self.pool.begin().await?;
        let mut topics = lock_topics(&mut tx, &names).await?;
        if !topics.hold(&names) {
            tx.rollback().await?;
            sqlx::query(
                "INSERT INTO topic (name) SELECT name FROM UNNEST($1::text[]) AS w (name)
                 WHERE NOT EXISTS (SELECT 1 FROM topic t WHERE t.name = w.name) ORDER BY name ON CONFLICT DO NOTHING",
            )
            .bind(&names)
            .execute(&self.pool)
            .await?;
            tx = self.pool.begin().await?;
            topics = lock_topics(&mut tx, &names).await?;
        }
        Ok((tx, topics))
    }
}

/// Locks those that are there, in order of their numbers. Of the two locks that would do, the one that readers of the key do not mind.
async fn lock_topics(connection: &mut PgConnection, names: &[&str]) -> Result<Topics, Error> {
    let sql =
        format!("SELECT {} FROM topic t WHERE t.name = ANY($1) ORDER BY t.id FOR NO KEY UPDATE", TopicRow::COLUMNS);
    let rows: Vec<TopicRow> = sqlx::query_as(&sql).bind(names).fetch_all(connection).await?;
    Ok(Topics::new(rows))
}

/// One column of a batch.
fn column<'a, T>(events: &[&'a NewEvent], of: impl Fn(&'a NewEvent) -> T) -> Vec<T> {
    events.iter().map(|event| of(event)).collect()
}

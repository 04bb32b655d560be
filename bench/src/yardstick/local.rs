//! One database for everything, and one transaction for a notification or for a group of them.

use notifyx_database::{Database, DatabaseUrl, Error as Failed, Options};

use super::{CONNECTIONS, Owner, Row, TURN_TIMEOUT, failed, postgres, schema, sqlite};
use crate::error::Error;

/// Opened as the platform opens its own: SQLite with a write-ahead log, `synchronous = FULL` and one writer (`BEGIN
/// IMMEDIATE`), Postgres with `synchronous_commit = on`.
#[derive(Clone, Debug)]
pub(super) struct Local(Database);

impl Local {
    pub(super) async fn open(url: DatabaseUrl, owners: Vec<Owner>) -> Result<Self, Error> {
        let database = Database::open(&url, options(), &schema::EMPTY).await.map_err(Error::failed)?;
        let made = match &database {
            Database::Sqlite(sqlite) => sqlite::make(sqlite, &owners).await,
            Database::Postgres(pool) => postgres::make(pool, &owners).await,
        };
        made.map_err(|error| failed(&error))?;
        Ok(Self(database))
    }

    /// All in one transaction; durable when this returns.
    pub(super) async fn write(&self, rows: &[Row], at: i64) -> Result<(), Failed> {
        match &self.0 {
            Database::Sqlite(sqlite) => {
                let mut tx = sqlite.begin().await?;
                sqlite::write(&mut tx, rows, at).await?;
                tx.commit().await?;
            }
            Database::Postgres(pool) => {
                let mut tx = pool.begin().await?;
                postgres::notify(&mut tx, rows, at).await?;
                postgres::count(&mut tx, rows).await?;
                postgres::decide(&mut *tx, rows, at).await?;
                tx.commit().await?;
            }
        }
        Ok(())
    }

    #[cfg(test)]
    pub(super) async fn ask(&self, statement: &str) -> (i64, i64, i64) {
        match &self.0 {
            Database::Sqlite(sqlite) => sqlx::query_as(statement).fetch_one(&sqlite.read).await.unwrap(),
            Database::Postgres(pool) => sqlx::query_as(statement).fetch_one(pool).await.unwrap(),
        }
    }
}

pub(super) fn options() -> Options {
    Options { connections: CONNECTIONS, acquire_timeout: TURN_TIMEOUT }
}

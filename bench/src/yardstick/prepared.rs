//! PostgreSQL's own two-phase commit across two databases, with the decision made durable in a third.
//!
//! In parallel: `BEGIN`, the notification, `PREPARE TRANSACTION` in the first, and `BEGIN`, the increments, `PREPARE
//! TRANSACTION` in the second. Then the decision, one row; then `COMMIT PREPARED` in both, in parallel. A transaction without a
//! decision is one to roll back (presumed abort), so nothing is written before the first phase, and nothing after the last:
//! the least that survives every crash. It lacks what the platform does besides: deadlines, leases, keys, a status to ask for.

use notifyx_database::{Database, DatabaseUrl, Error as Failed, Migrations};
use sqlx::{Executor, PgConnection, PgPool};
use tokio::try_join;

use super::{Owner, Row, failed, local::options, postgres, schema};
use crate::error::Error;

#[derive(Debug)]
pub(super) struct Prepared {
    notifications: PgPool,
    counters: PgPool,
    decisions: PgPool,
}

impl Prepared {
    /// `None` where the server takes no prepared transactions, as is its default.
    pub(super) async fn open(url: DatabaseUrl, owners: Vec<Owner>) -> Result<Option<Self>, Error> {
        let this = Self {
            notifications: open(&url, "persist", &schema::PERSIST).await?,
            counters: open(&url, "counter", &schema::COUNTER).await?,
            decisions: open(&url, "gateway", &schema::GATEWAY).await?,
        };
        postgres::topics(&this.notifications, &owners).await.map_err(|error| failed(&error))?;
        let allowed: sqlx::Result<(String,)> =
            sqlx::query_as("SELECT current_setting('max_prepared_transactions')").fetch_one(&this.decisions).await;
        let (allowed,) = allowed.map_err(|error| failed(&error.into()))?;
        Ok((allowed != "0").then_some(this))
    }

    pub(super) async fn write(&self, row: &Row, at: i64) -> Result<(), Failed> {
        let rows = std::slice::from_ref(row);
        // Letters and digits: they need not be escaped. Names are the server's, not the database's.
        let (first, second) = (row.gid.simple().to_string(), format!("{}c", row.gid.simple()));
        let notify = async {
            let mut connection = self.notifications.acquire().await?;
            say(&mut connection, "BEGIN").await?;
            postgres::notify(&mut connection, rows, at).await?;
            say(&mut connection, &format!("PREPARE TRANSACTION '{first}'")).await
        };
        let count = async {
            let mut connection = self.counters.acquire().await?;
            say(&mut connection, "BEGIN").await?;
            postgres::count(&mut connection, rows).await?;
            say(&mut connection, &format!("PREPARE TRANSACTION '{second}'")).await
        };
        try_join!(notify, count)?;
        postgres::decide(&self.decisions, rows, at).await?;
        try_join!(commit(&self.notifications, &first), commit(&self.counters, &second))?;
        Ok(())
    }

    /// Notifications, what the counters add up to, decisions, and what is still prepared.
    #[cfg(test)]
    pub(super) async fn figures(&self) -> [i64; 4] {
        let one = async |pool: &PgPool, what: &str| -> i64 {
            let (figure,) = sqlx::query_as(&format!("SELECT CAST({what} AS BIGINT)")).fetch_one(pool).await.unwrap();
            figure
        };
        [
            one(&self.notifications, "(SELECT count(*) FROM notification)").await,
            one(&self.counters, "(SELECT sum(counter) FROM counter)").await,
            one(&self.decisions, "(SELECT count(*) FROM txn WHERE state = 'COMMIT')").await,
            one(&self.decisions, "(SELECT count(*) FROM pg_prepared_xacts)").await,
        ]
    }
}

async fn open(url: &DatabaseUrl, service: &str, migrations: &Migrations) -> Result<PgPool, Error> {
    match Database::open(&url.for_service(service), options(), migrations).await.map_err(Error::failed)? {
        Database::Postgres(pool) => Ok(pool),
        Database::Sqlite(_) => Err(Error::failed("PREPARE TRANSACTION is PostgreSQL's")),
    }
}

async fn commit(pool: &PgPool, name: &str) -> Result<(), Failed> {
    say(&mut *pool.acquire().await?, &format!("COMMIT PREPARED '{name}'")).await
}

/// Without parameters and without a plan to keep: one round trip.
async fn say(connection: &mut PgConnection, statement: &str) -> Result<(), Failed> {
    connection.execute(statement).await?;
    Ok(())
}

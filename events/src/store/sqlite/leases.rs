//! The schedule's lease on SQLite: one process has the file, and its clock judges.

use std::time::Duration;

use async_trait::async_trait;

use super::Sqlite;
use crate::{
    Error,
    store::{
        Lease, Leases,
        row::{LeaseRow, micros},
    },
};

#[async_trait]
impl Leases for Sqlite {
    async fn acquire(&self, holder: &str, span: Duration) -> Result<Lease, Error> {
        let mut tx = self.begin().await?;
        let now = self.clock.now().as_micros();
        sqlx::query(
            "INSERT INTO lease (one, holder, term, until) VALUES (1, ?1, 1, ?2 + ?3)
             ON CONFLICT (one) DO UPDATE SET holder = excluded.holder, until = excluded.until,
                 term = term + (holder <> excluded.holder)
             WHERE holder = excluded.holder OR until <= ?2",
        )
        .bind(holder)
        .bind(now)
        .bind(micros(span))
        .execute(&mut *tx)
        .await?;
        let row: LeaseRow =
            sqlx::query_as("SELECT holder, term, until - ?1 AS left FROM lease").bind(now).fetch_one(&mut *tx).await?;
        tx.commit().await?;
        Ok(row.into())
    }

    async fn release(&self, holder: &str) -> Result<(), Error> {
        let mut tx = self.begin().await?;
        sqlx::query("UPDATE lease SET until = 0 WHERE holder = ?1").bind(holder).execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(())
    }

    async fn lease(&self) -> Result<Option<Lease>, Error> {
        let row: Option<LeaseRow> =
            sqlx::query_as("SELECT holder, term, until - ?1 AS left FROM lease WHERE until > ?1")
                .bind(self.clock.now().as_micros())
                .fetch_optional(self.read())
                .await?;
        Ok(row.map(Lease::from))
    }
}

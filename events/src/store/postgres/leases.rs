//! The schedule's lease on Postgres: the server's clock judges, so that the instances' own need not agree.

use std::time::Duration;

use async_trait::async_trait;

use super::{Postgres, at_server_time};
use crate::{
    Error,
    store::{
        Lease, Leases,
        row::{LeaseRow, micros},
    },
};

#[async_trait]
impl Leases for Postgres {
    async fn acquire(&self, holder: &str, span: Duration) -> Result<Lease, Error> {
        let mut tx = self.pool.begin().await?;
        sqlx::query(at_server_time!(
            "INSERT INTO lease AS l (one, holder, term, until) SELECT 1, $1, 1, now.at + $2 FROM now
             ON CONFLICT (one) DO UPDATE SET holder = excluded.holder, until = excluded.until,
                 term = l.term + (l.holder <> excluded.holder)::int
             WHERE l.holder = excluded.holder OR l.until <= (SELECT at FROM now)"
        ))
        .bind(holder)
        .bind(micros(span))
        .execute(&mut *tx)
        .await?;
        let row: LeaseRow =
            sqlx::query_as(at_server_time!("SELECT holder, term, until - now.at AS left FROM lease, now"))
                .fetch_one(&mut *tx)
                .await?;
        tx.commit().await?;
        Ok(row.into())
    }

    async fn release(&self, holder: &str) -> Result<(), Error> {
        sqlx::query("UPDATE lease SET until = 0 WHERE holder = $1").bind(holder).execute(&self.pool).await?;
        Ok(())
    }

    async fn lease(&self) -> Result<Option<Lease>, Error> {
        let row: Option<LeaseRow> = sqlx::query_as(at_server_time!(
            "SELECT holder, term, until - now.at AS left FROM lease, now WHERE until > now.at"
        ))
        .fetch_optional(&self.pool)
        .await?;
        Ok(row.map(Lease::from))
    }
}

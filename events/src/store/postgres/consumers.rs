//! Consumers on Postgres: the server's clock judges their leases.

use std::{iter::once, time::Duration};

use async_trait::async_trait;
use notifyx_model::Category;
use sqlx::PgConnection;

use super::{Postgres, at_server_time};
use crate::{
    Error,
    consumer::{Consumer, ConsumerName, Holder},
    store::{
        Consumers,
        keep::{follows, held, moved},
        row::{ConsumerRow, micros, signed},
    },
};

#[async_trait]
impl Consumers for Postgres {
    async fn acquire_consumer(
        &self,
        name: &ConsumerName,
        category: &Category,
        holder: &Holder,
        span: Duration,
    ) -> Result<Consumer, Error> {
        let mut taken = self.take(name, category, holder, span).await?;
        if taken.is_none() {
            self.make(name, category).await?;
            taken = self.take(name, category, holder, span).await?;
        }
        follows(taken.ok_or_else(|| Error::ConsumerNotFound(name.as_str().to_owned()))?, category)
    }

    async fn commit_position(&self, name: &ConsumerName, term: u64, position: u64) -> Result<Consumer, Error> {
        let mut tx = self.pool.begin().await?;
        let mut consumer = held(find(&mut tx, name).await?, name, term)?;
        consumer.position = moved(&consumer, position)?;
        sqlx::query("UPDATE consumer SET position = $2 WHERE name = $1")
            .bind(name.as_str())
            .bind(signed(consumer.position))
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(consumer)
    }

    async fn release_consumer(&self, name: &ConsumerName, term: u64) -> Result<Consumer, Error> {
        let mut tx = self.pool.begin().await?;
        let consumer = held(find(&mut tx, name).await?, name, term)?;
        sqlx::query("UPDATE consumer SET until = 0 WHERE name = $1").bind(name.as_str()).execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(Consumer { left: Duration::ZERO, ..consumer })
    }
}

impl Postgres {
    /// Takes it if it is there and free, and tells whose it is then; `None`: it is not there.
    async fn take(
        &self,
        name: &ConsumerName,
        category: &Category,
        holder: &Holder,
        span: Duration,
    ) -> Result<Option<Consumer>, Error> {
        let mut tx = self.pool.begin().await?;
        sqlx::query(at_server_time!(
            "UPDATE consumer c SET holder = $2, until = now.at + $3, term = c.term + (c.holder <> $2)::int
             FROM now, topic t
             WHERE c.name = $1 AND t.id = c.topic_id AND t.name = $4 AND (c.holder = $2 OR c.until <= now.at)"
        ))
        .bind(name.as_str())
        .bind(holder.as_str())
        .bind(micros(span))
        .bind(category.as_str())
        .execute(&mut *tx)
        .await?;
        let consumer = find(&mut tx, name).await?;
        tx.commit().await?;
        Ok(consumer)
    }

    /// Nobody's yet, behind what was trimmed: with the topic locked nothing more is.
    async fn make(&self, name: &ConsumerName, category: &Category) -> Result<(), Error> {
        let (mut tx, topics) = self.begin_on(once(category)).await?;
        let topic = topics.get(category);
        sqlx::query(
            "INSERT INTO consumer (name, topic_id, position, holder, term, until) VALUES ($1, $2, $3, '', 0, 0)
             ON CONFLICT DO NOTHING",
        )
        .bind(name.as_str())
        .bind(topic.id)
        .bind(topic.trimmed_offset)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(())
    }
}

/// Locks it.
async fn find(connection: &mut PgConnection, name: &ConsumerName) -> Result<Option<Consumer>, Error> {
    let row: Option<ConsumerRow> = sqlx::query_as(at_server_time!(
        "SELECT c.name, t.name AS category, c.position, t.last_offset AS head, c.holder, c.term, c.until - now.at AS left
         FROM consumer c JOIN topic t ON t.id = c.topic_id, now WHERE c.name = $1 FOR UPDATE OF c"
    ))
    .bind(name.as_str())
    .fetch_optional(connection)
    .await?;
    row.map(Consumer::try_from).transpose()
}

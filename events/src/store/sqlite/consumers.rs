//! Consumers on SQLite: one process has the file, and its clock judges their leases.

use std::time::Duration;

use async_trait::async_trait;
use notifyx_model::Category;
use sqlx::SqliteConnection;

use super::{Sqlite, topics};
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
impl Consumers for Sqlite {
    async fn acquire_consumer(
        &self,
        name: &ConsumerName,
        category: &Category,
        holder: &Holder,
        span: Duration,
    ) -> Result<Consumer, Error> {
        let mut tx = self.begin().await?;
        let now = self.clock.now().as_micros();
        let topics = topics(&mut tx, &[category.as_str()]).await?;
        let topic = topics.get(category);
        sqlx::query(
            "INSERT INTO consumer (name, topic_id, position, holder, term, until) VALUES (?1, ?2, ?3, ?4, 1, ?5 + ?6)
             ON CONFLICT (name) DO UPDATE SET holder = excluded.holder, until = excluded.until,
                 term = term + (holder <> excluded.holder)
             WHERE topic_id = excluded.topic_id AND (holder = excluded.holder OR until <= ?5)",
        )
        .bind(name.as_str())
        .bind(topic.id)
        .bind(topic.trimmed_offset)
        .bind(holder.as_str())
        .bind(now)
        .bind(micros(span))
        .execute(&mut *tx)
        .await?;
        let consumer =
            find(&mut tx, name, now).await?.ok_or_else(|| Error::ConsumerNotFound(name.as_str().to_owned()))?;
        tx.commit().await?;
        follows(consumer, category)
    }

    async fn commit_position(&self, name: &ConsumerName, term: u64, position: u64) -> Result<Consumer, Error> {
        let mut tx = self.begin().await?;
        let mut consumer = held(find(&mut tx, name, self.clock.now().as_micros()).await?, name, term)?;
        consumer.position = moved(&consumer, position)?;
        sqlx::query("UPDATE consumer SET position = ?2 WHERE name = ?1")
            .bind(name.as_str())
            .bind(signed(consumer.position))
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(consumer)
    }

    async fn release_consumer(&self, name: &ConsumerName, term: u64) -> Result<Consumer, Error> {
        let mut tx = self.begin().await?;
        let consumer = held(find(&mut tx, name, self.clock.now().as_micros()).await?, name, term)?;
        sqlx::query("UPDATE consumer SET until = 0 WHERE name = ?1").bind(name.as_str()).execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(Consumer { left: Duration::ZERO, ..consumer })
    }
}

async fn find(connection: &mut SqliteConnection, name: &ConsumerName, now: i64) -> Result<Option<Consumer>, Error> {
    let row: Option<ConsumerRow> = sqlx::query_as(
        "SELECT c.name, t.name AS category, c.position, t.last_offset AS head, c.holder, c.term, c.until - ?2 AS left
         FROM consumer c CROSS JOIN topic t ON t.id = c.topic_id WHERE c.name = ?1",
    )
    .bind(name.as_str())
    .bind(now)
    .fetch_optional(connection)
    .await?;
    row.map(Consumer::try_from).transpose()
}

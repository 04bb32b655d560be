//! Topics on Postgres.

use async_trait::async_trait;
use notifyx_model::{TopicId, TopicName};
use notifyx_wire::rest::persist::{Head, Topic, TopicStatus};

use super::Postgres;
use crate::{
    Error,
    store::{
        Creation, Topics,
        row::{self, HeadRow, TopicRow},
    },
};

#[async_trait]
impl Topics for Postgres {
    async fn create_topic(&self, creation: &Creation, topics_max: u32) -> Result<Topic, Error> {
        // Two at once may pass the bound by one: it protects the store, not a count.
        let row: Option<TopicRow> = sqlx::query_as(
            "INSERT INTO topic (id, name, creator_id, status, longevity, created_at)
             SELECT $1, $2, $3, 'active', $4, $5
             WHERE (SELECT count(*) FROM topic WHERE creator_id = $3) < $6
             ON CONFLICT (name) DO NOTHING
             RETURNING *",
        )
        .bind(creation.id.uuid())
        .bind(creation.name.as_str())
        .bind(creation.creator_id.uuid())
        .bind(creation.longevity.map(row::signed))
        .bind(creation.at.as_micros())
        .bind(i64::from(topics_max))
        .fetch_optional(&self.pool)
        .await?;
        match row {
            Some(row) => row.try_into(),
            None if self.find_topic_named(&creation.name).await?.is_some() => {
                Err(Error::NameTaken(creation.name.clone()))
            }
            None => Err(Error::TooManyTopics(topics_max)),
        }
    }

    async fn find_topic(&self, id: TopicId) -> Result<Option<Topic>, Error> {
        let row: Option<TopicRow> =
            sqlx::query_as("SELECT * FROM topic WHERE id = $1").bind(id.uuid()).fetch_optional(&self.pool).await?;
        row.map(Topic::try_from).transpose()
    }

    async fn find_topic_named(&self, name: &TopicName) -> Result<Option<Topic>, Error> {
        let row: Option<TopicRow> = sqlx::query_as("SELECT * FROM topic WHERE name = $1")
            .bind(name.as_str())
            .fetch_optional(&self.pool)
            .await?;
        row.map(Topic::try_from).transpose()
    }

    async fn list_topics(&self, after: Option<TopicId>, limit: u32) -> Result<Vec<Topic>, Error> {
        let rows: Vec<TopicRow> =
            sqlx::query_as("SELECT * FROM topic WHERE $1::uuid IS NULL OR id > $1 ORDER BY id LIMIT $2")
                .bind(after.map(TopicId::uuid))
                .bind(i64::from(limit))
                .fetch_all(&self.pool)
                .await?;
        row::all(rows)
    }

    async fn set_topic_status(&self, id: TopicId, status: TopicStatus) -> Result<Option<Topic>, Error> {
        let row: Option<TopicRow> = sqlx::query_as("UPDATE topic SET status = $2 WHERE id = $1 RETURNING *")
            .bind(id.uuid())
            .bind(row::status_text(status))
            .fetch_optional(&self.pool)
            .await?;
        row.map(Topic::try_from).transpose()
    }

    async fn heads(&self, names: &[TopicName]) -> Result<Vec<Head>, Error> {
        let names: Vec<&str> = names.iter().map(TopicName::as_str).collect();
        let rows: Vec<HeadRow> = sqlx::query_as(
            "SELECT id, name, last_offset, last_broadcast_no, trimmed_offset FROM topic WHERE name = ANY($1)",
        )
        .bind(names)
        .fetch_all(&self.pool)
        .await?;
        row::all(rows)
    }
}

//! Subscriptions on SQLite.

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use notifyx_model::{Timestamp, TopicId, UserId};
use notifyx_wire::rest::persist::{Subscriber, Topic};
use sqlx::SqliteConnection;
use uuid::Uuid;

use super::{Sqlite, hex_list, pair_list, text_list};
use crate::{
    Error,
    store::{
        JoinBounds, Joining, Subscribers,
        row::{self, SubscriberRow, TopicRow},
    },
    subscribers::Plan,
};

#[async_trait]
impl Subscribers for Sqlite {
    async fn join(
        &self,
        items: &[Joining],
        bounds: JoinBounds,
        at: Timestamp,
    ) -> Result<Vec<Result<Topic, Error>>, Error> {
        let names = text_list(items.iter().map(|item| &item.topic).collect::<HashSet<_>>());
        let pairs = pair_list(items.iter().map(|item| (item.user_id.uuid().simple().to_string(), &item.topic)));

        // Who joins again writes nothing, and does not wait for the writer to learn it.
        let mut read = self.read().acquire().await?;
        let mut plan = plan(&mut read, items, &names, &pairs).await?;
        if plan.growing().is_empty() {
            return Ok(plan.results(items, topics(&mut read, &names).await?));
        }
        drop(read);

        let mut tx = self.begin().await?;
        plan = self::plan(&mut tx, items, &names, &pairs).await?;
        let growing = plan.growing();
        let created = count(&mut tx, "SELECT creator_id, count(*) FROM topic WHERE creator_id IN (SELECT unhex(value) FROM json_each(?1)) GROUP BY 1", &growing).await?;
        let subscribed = count(&mut tx, "SELECT user_id, count(*) FROM subscription WHERE user_id IN (SELECT unhex(value) FROM json_each(?1)) GROUP BY 1", &growing).await?;
        plan.apply(items, bounds, &created, &subscribed);
        for &i in plan.creations() {
            sqlx::query(
                "INSERT INTO topic (id, name, creator_id, status, created_at) VALUES (?1, ?2, ?3, 'active', ?4)",
            )
            .bind(items[i].topic_id.uuid())
            .bind(items[i].topic.as_str())
            .bind(items[i].user_id.uuid())
            .bind(at.as_micros())
            .execute(&mut *tx)
            .await?;
        }
        sqlx::query(
            "INSERT INTO subscription (user_id, topic_id, subscribed_at, from_offset, from_at, floor, floor_at)
             SELECT unhex(w.value ->> 0), t.id, ?2, t.last_offset, t.last_at, t.last_broadcast_no, t.last_at
             FROM json_each(?1) w CROSS JOIN topic t ON t.name = w.value ->> 1
             WHERE true ON CONFLICT (user_id, topic_id) DO NOTHING",
        )
        .bind(pair_list(
            plan.subscriptions().iter().map(|&i| (items[i].user_id.uuid().simple().to_string(), &items[i].topic)),
        ))
        .bind(at.as_micros())
        .execute(&mut *tx)
        .await?;
        let topics = topics(&mut tx, &names).await?;
        tx.commit().await?;
        Ok(plan.results(items, topics))
    }

    async fn subscribe(&self, topic: TopicId, user: UserId, at: Timestamp, max: u32) -> Result<Subscriber, Error> {
        let mut tx = self.begin().await?;
        let found: Option<SubscriberRow> =
            sqlx::query_as("SELECT user_id, subscribed_at FROM subscription WHERE user_id = ?1 AND topic_id = ?2")
                .bind(user.uuid())
                .bind(topic.uuid())
                .fetch_optional(&mut *tx)
                .await?;
        if let Some(row) = found {
            return Ok(row.into());
        }
        let (subscriptions,): (i64,) = sqlx::query_as("SELECT count(*) FROM subscription WHERE user_id = ?1")
            .bind(user.uuid())
            .fetch_one(&mut *tx)
            .await?;
        if subscriptions >= i64::from(max) {
            return Err(Error::TooManySubscriptions(max));
        }
        let inserted: Option<SubscriberRow> = sqlx::query_as(
            "INSERT INTO subscription (user_id, topic_id, subscribed_at, from_offset, from_at, floor, floor_at)
             SELECT ?1, id, ?3, last_offset, last_at, last_broadcast_no, last_at FROM topic WHERE id = ?2
             RETURNING user_id, subscribed_at",
        )
        .bind(user.uuid())
        .bind(topic.uuid())
        .bind(at.as_micros())
        .fetch_optional(&mut *tx)
        .await?;
        tx.commit().await?;
        inserted.map(Subscriber::from).ok_or(Error::TopicNotFound(topic))
    }

    async fn unsubscribe(&self, topic: TopicId, user: UserId) -> Result<bool, Error> {
        let mut tx = self.begin().await?;
        let deleted = sqlx::query("DELETE FROM subscription WHERE user_id = ?1 AND topic_id = ?2")
            .bind(user.uuid())
            .bind(topic.uuid())
            .execute(&mut *tx)
            .await?
            .rows_affected();
        sqlx::query("DELETE FROM exception WHERE user_id = ?1 AND topic_id = ?2")
            .bind(user.uuid())
            .bind(topic.uuid())
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(deleted > 0)
    }

    async fn is_subscriber(&self, topic: TopicId, user: UserId) -> Result<bool, Error> {
        let found: Option<(i64,)> = sqlx::query_as("SELECT 1 FROM subscription WHERE user_id = ?1 AND topic_id = ?2")
            .bind(user.uuid())
            .bind(topic.uuid())
            .fetch_optional(self.read())
            .await?;
        Ok(found.is_some())
    }

    async fn list_subscribers(
        &self,
        topic: TopicId,
        after: Option<UserId>,
        limit: u32,
    ) -> Result<Vec<Subscriber>, Error> {
        let rows: Vec<SubscriberRow> = sqlx::query_as(
            "SELECT s.user_id, s.subscribed_at FROM subscription s
             WHERE s.topic_id = ?1 AND s.user_id > coalesce(?2, x'') ORDER BY s.user_id LIMIT ?3",
        )
        .bind(topic.uuid())
        .bind(after.map(UserId::uuid))
        .bind(i64::from(limit))
        .fetch_all(self.read())
        .await?;
        Ok(rows.into_iter().map(Subscriber::from).collect())
    }
}

async fn plan(connection: &mut SqliteConnection, items: &[Joining], names: &str, pairs: &str) -> Result<Plan, Error> {
    let known: Vec<(String,)> =
        sqlx::query_as("SELECT name FROM topic WHERE name IN (SELECT value FROM json_each(?1))")
            .bind(names)
            .fetch_all(&mut *connection)
            .await?;
    let subscribed: Vec<(Uuid, String)> = sqlx::query_as(
        "SELECT s.user_id, t.name FROM json_each(?1) w
         CROSS JOIN topic t ON t.name = w.value ->> 1
         CROSS JOIN subscription s ON s.user_id = unhex(w.value ->> 0) AND s.topic_id = t.id",
    )
    .bind(pairs)
    .fetch_all(connection)
    .await?;
    Ok(Plan::new(items, &known.into_iter().map(|(name,)| name).collect(), &subscribed.into_iter().collect()))
}

async fn topics(connection: &mut SqliteConnection, names: &str) -> Result<Vec<Topic>, Error> {
    let rows: Vec<TopicRow> = sqlx::query_as("SELECT * FROM topic WHERE name IN (SELECT value FROM json_each(?1))")
        .bind(names)
        .fetch_all(connection)
        .await?;
    row::all(rows)
}

async fn count(
    connection: &mut SqliteConnection,
    sql: &'static str,
    users: &HashSet<UserId>,
) -> Result<HashMap<UserId, u64>, Error> {
    let rows: Vec<(Uuid, i64)> =
        sqlx::query_as(sql).bind(hex_list(users.iter().map(|user| user.uuid()))).fetch_all(connection).await?;
    Ok(rows.into_iter().map(|(user, count)| (UserId::from_uuid(user), row::unsigned(count))).collect())
}

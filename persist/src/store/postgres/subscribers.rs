//! Subscriptions on Postgres.

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use notifyx_model::{Timestamp, TopicId, UserId};
use notifyx_wire::rest::persist::{Subscriber, Topic};
use sqlx::PgConnection;
use uuid::Uuid;

use super::Postgres;
use crate::{
    Error,
    store::{
        JoinBounds, Joining, Subscribers,
        row::{self, SubscriberRow, TopicRow},
    },
    subscribers::Plan,
};

#[async_trait]
impl Subscribers for Postgres {
    async fn join(
        &self,
        items: &[Joining],
        bounds: JoinBounds,
        at: Timestamp,
    ) -> Result<Vec<Result<Topic, Error>>, Error> {
        let mut names: Vec<&str> = items.iter().map(|item| item.topic.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        let users: Vec<Uuid> = items.iter().map(|item| item.user_id.uuid()).collect();
        let joined_names: Vec<&str> = items.iter().map(|item| item.topic.as_str()).collect();

        let mut tx = self.pool.begin().await?;
        let known: Vec<(String,)> =
            sqlx::query_as("SELECT name FROM topic WHERE name = ANY($1)").bind(&names).fetch_all(&mut *tx).await?;
        let subscribed: Vec<(Uuid, String)> = sqlx::query_as(
            "SELECT s.user_id, t.name FROM UNNEST($1::uuid[], $2::text[]) AS w (user_id, name)
             JOIN topic t ON t.name = w.name
             JOIN subscription s ON s.user_id = w.user_id AND s.topic_id = t.id",
        )
        .bind(&users)
        .bind(&joined_names)
        .fetch_all(&mut *tx)
        .await?;
        let mut plan =
            Plan::new(items, &known.into_iter().map(|(name,)| name).collect(), &subscribed.into_iter().collect());
        // Who joins again is not counted: counting is for what grows.
        if !plan.growing().is_empty() {
            let topics = count(
                &mut tx,
                "SELECT creator_id, count(*) FROM topic WHERE creator_id = ANY($1) GROUP BY 1",
                &plan.growing(),
            )
            .await?;
            let subscriptions = count(
                &mut tx,
                "SELECT user_id, count(*) FROM subscription WHERE user_id = ANY($1) GROUP BY 1",
                &plan.growing(),
            )
            .await?;
            plan.apply(items, bounds, &topics, &subscriptions);
            create(&mut tx, items, plan.creations(), at).await?;
            subscribe(&mut tx, items, plan.subscriptions(), at).await?;
        }
        let rows: Vec<TopicRow> =
            sqlx::query_as("SELECT * FROM topic WHERE name = ANY($1)").bind(&names).fetch_all(&mut *tx).await?;
        tx.commit().await?;
        Ok(plan.results(items, row::all(rows)?))
    }

    async fn subscribe(&self, topic: TopicId, user: UserId, at: Timestamp, max: u32) -> Result<Subscriber, Error> {
        let mut tx = self.pool.begin().await?;
        let found: Option<SubscriberRow> =
            sqlx::query_as("SELECT user_id, subscribed_at FROM subscription WHERE user_id = $1 AND topic_id = $2")
                .bind(user.uuid())
                .bind(topic.uuid())
                .fetch_optional(&mut *tx)
                .await?;
        if let Some(row) = found {
            return Ok(row.into());
        }
        let (subscriptions,): (i64,) = sqlx::query_as("SELECT count(*) FROM subscription WHERE user_id = $1")
            .bind(user.uuid())
            .fetch_one(&mut *tx)
            .await?;
        if subscriptions >= i64::from(max) {
            return Err(Error::TooManySubscriptions(max));
        }
        let inserted: Option<SubscriberRow> = sqlx::query_as(
            "INSERT INTO subscription (user_id, topic_id, subscribed_at, from_offset, from_at, floor, floor_at)
             SELECT $1, id, $3, last_offset, last_at, last_broadcast_no, last_at FROM topic WHERE id = $2
             -- Changes nothing, but answers with the row that another caller made meanwhile.
             ON CONFLICT (user_id, topic_id) DO UPDATE SET subscribed_at = subscription.subscribed_at
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
        let mut tx = self.pool.begin().await?;
        let deleted = sqlx::query("DELETE FROM subscription WHERE user_id = $1 AND topic_id = $2")
            .bind(user.uuid())
            .bind(topic.uuid())
            .execute(&mut *tx)
            .await?
            .rows_affected();
        sqlx::query("DELETE FROM exception WHERE user_id = $1 AND topic_id = $2")
            .bind(user.uuid())
            .bind(topic.uuid())
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(deleted > 0)
    }

    async fn is_subscriber(&self, topic: TopicId, user: UserId) -> Result<bool, Error> {
        let found: Option<(i32,)> = sqlx::query_as("SELECT 1 FROM subscription WHERE user_id = $1 AND topic_id = $2")
            .bind(user.uuid())
            .bind(topic.uuid())
            .fetch_optional(&self.pool)
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
            "SELECT user_id, subscribed_at FROM subscription
             WHERE topic_id = $1 AND ($2::uuid IS NULL OR user_id > $2) ORDER BY user_id LIMIT $3",
        )
        .bind(topic.uuid())
        .bind(after.map(UserId::uuid))
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(Subscriber::from).collect())
    }
}

async fn count(
    connection: &mut PgConnection,
    sql: &'static str,
    users: &HashSet<UserId>,
) -> Result<HashMap<UserId, u64>, Error> {
    let users: Vec<Uuid> = users.iter().map(|user| user.uuid()).collect();
    let rows: Vec<(Uuid, i64)> = sqlx::query_as(sql).bind(users).fetch_all(connection).await?;
    Ok(rows.into_iter().map(|(user, count)| (UserId::from_uuid(user), row::unsigned(count))).collect())
}

/// In order of name, so that two who create the same topics wait for each other in one direction only.
async fn create(
    connection: &mut PgConnection,
    items: &[Joining],
    chosen: &[usize],
    at: Timestamp,
) -> Result<(), Error> {
    let column = |of: fn(&Joining) -> Uuid| chosen.iter().map(|&i| of(&items[i])).collect::<Vec<_>>();
    sqlx::query(
        "INSERT INTO topic (id, name, creator_id, status, created_at)
         SELECT id, name, creator_id, 'active', $4
         FROM UNNEST($1::uuid[], $2::text[], $3::uuid[]) AS w (id, name, creator_id)
         ORDER BY name COLLATE \"C\" ON CONFLICT (name) DO NOTHING",
    )
    .bind(column(|item| item.topic_id.uuid()))
    .bind(chosen.iter().map(|&i| items[i].topic.as_str()).collect::<Vec<_>>())
    .bind(column(|item| item.user_id.uuid()))
    .bind(at.as_micros())
    .execute(connection)
    .await?;
    Ok(())
}

async fn subscribe(
    connection: &mut PgConnection,
    items: &[Joining],
    chosen: &[usize],
    at: Timestamp,
) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO subscription (user_id, topic_id, subscribed_at, from_offset, from_at, floor, floor_at)
         SELECT w.user_id, t.id, $3, t.last_offset, t.last_at, t.last_broadcast_no, t.last_at
         FROM UNNEST($1::uuid[], $2::text[]) AS w (user_id, name) JOIN topic t ON t.name = w.name
         ORDER BY w.user_id, t.id ON CONFLICT (user_id, topic_id) DO NOTHING",
    )
    .bind(chosen.iter().map(|&i| items[i].user_id.uuid()).collect::<Vec<_>>())
    .bind(chosen.iter().map(|&i| items[i].topic.as_str()).collect::<Vec<_>>())
    .bind(at.as_micros())
    .execute(connection)
    .await?;
    Ok(())
}

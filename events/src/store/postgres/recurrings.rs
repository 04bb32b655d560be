//! Recurring schedules on Postgres.

use std::collections::HashSet;

use async_trait::async_trait;
use notifyx_model::{Category, EventId, Timestamp};
use sqlx::PgConnection;

use super::{Postgres, lock_topics, schedule};
use crate::{
    Error,
    event::{EventKey, Owner},
    recurring::{Recurring, State},
    store::{
        Deleted, Kept, OCCURRENCES_KEPT, Occurrences, Page, Reached, Recurrings,
        keep::{categories, occurred},
        row::{self, RecurringRow, level, signed},
    },
};

macro_rules! recurring {
    ($which:literal) => {
        recurring!($which, "recurring r")
    };
    ($which:literal, $from:literal) => {
        &format!(
            concat!("SELECT {} FROM ", $from, " JOIN topic t ON t.id = r.topic_id WHERE ", $which),
            RecurringRow::COLUMNS
        )
    };
}

#[async_trait]
impl Recurrings for Postgres {
    async fn create_recurring(&self, recurring: &Recurring) -> Result<(Recurring, bool), Error> {
        let (mut tx, topics) = self.begin_on(std::iter::once(&recurring.category)).await?;
        // To insert what is there would wait for whoever makes its occurrence just now, and holds it while it waits for the topic.
        if let Some(kept) = find(&mut tx, &recurring.id).await? {
            return Ok((kept, true));
        }
        let topic = topics.get(&recurring.category).id;
        let inserted = sqlx::query(
            "INSERT INTO recurring (id, topic_id, key, priority, rule, zone, on_missed, start_at, end_at, count, owner, created_at,
                                    paused, next_at, last_at, made, skipped, data)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)
             ON CONFLICT (id) DO NOTHING",
        )
        .bind(recurring.id.as_str())
        .bind(topic)
        .bind(recurring.key.as_ref().map(EventKey::as_str))
        .bind(level(recurring.priority))
        .bind(&recurring.rule)
        .bind(&recurring.zone)
        .bind(recurring.on_missed.as_str())
        .bind(recurring.start_at.map(Timestamp::as_micros))
        .bind(recurring.end_at.map(Timestamp::as_micros))
        .bind(recurring.count.map(signed))
        .bind(recurring.owner.as_ref().map(Owner::as_str))
        .bind(recurring.created_at.as_micros())
        .bind(recurring.state.is_paused())
        .bind(recurring.state.next().map(Timestamp::as_micros))
        .bind(recurring.last_at.map(Timestamp::as_micros))
        .bind(signed(recurring.made))
        .bind(signed(recurring.skipped))
        .bind(recurring.data.as_ref())
        .execute(&mut *tx)
        .await?;
        let kept = find(&mut tx, &recurring.id).await?.unwrap_or_else(|| recurring.clone());
        tx.commit().await?;
        Ok((kept, inserted.rows_affected() == 0))
    }

    async fn find_recurring(&self, id: &EventId) -> Result<Option<Recurring>, Error> {
        find(&mut *self.pool.acquire().await?, id).await
    }

    async fn list_recurring(
        &self,
        category: Option<&Category>,
        after: Option<&EventId>,
        page: Page,
    ) -> Result<Vec<Recurring>, Error> {
        let rows: Vec<RecurringRow> = sqlx::query_as(recurring!(
            "p.bytes_before < $3 ORDER BY r.id",
            "(SELECT id, sum(bytes) OVER (ORDER BY id) - bytes AS bytes_before
              FROM (SELECT id, octet_length(data) AS bytes FROM recurring
                    WHERE id > $1 AND ($4::text IS NULL OR topic_id = (SELECT id FROM topic WHERE name = $4))
                    ORDER BY id LIMIT $2) n) p JOIN recurring r ON r.id = p.id"
        ))
        .bind(after.map_or("", EventId::as_str))
        .bind(i64::from(page.limit))
        .bind(i64::from(page.bytes))
        .bind(category.map(Category::as_str))
        .fetch_all(&self.pool)
        .await?;
        row::all(rows)
    }

    async fn change_recurring(&self, id: &EventId, from: State, to: State) -> Result<Option<Recurring>, Error> {
        let mut tx = self.pool.begin().await?;
        let changed = change(&mut tx, id, from, to).await?;
        let recurring = if changed { find(&mut tx, id).await? } else { None };
        tx.commit().await?;
        Ok(recurring)
    }

    async fn delete_recurring(&self, id: &EventId, rows: u32) -> Result<Option<Deleted>, Error> {
        let mut tx = self.pool.begin().await?;
        sqlx::query("SELECT 1 FROM recurring WHERE id = $1 FOR UPDATE").bind(id.as_str()).execute(&mut *tx).await?;
        let Some(recurring) = find(&mut tx, id).await? else { return Ok(None) };
        change(&mut tx, id, recurring.state, State::Finished).await?;
        let waiting: Vec<i64> = sqlx::query_scalar("SELECT seq FROM scheduled WHERE recurring_id = $1 LIMIT $2")
            .bind(id.as_str())
            .bind(i64::from(rows))
            .fetch_all(&mut *tx)
            .await?;
        schedule::lock(&mut tx, &waiting).await?;
        schedule::withdraw(&mut tx, &waiting).await?;
        if waiting.len() >= rows as usize {
            tx.commit().await?;
            return Ok(Some(Deleted::Ended(recurring)));
        }
        for sql in ["DELETE FROM occurrence WHERE recurring_id = $1", "DELETE FROM recurring WHERE id = $1"] {
            sqlx::query(sql).bind(id.as_str()).execute(&mut *tx).await?;
        }
        tx.commit().await?;
        Ok(Some(Deleted::Gone(recurring)))
    }

    async fn due_recurring(
        &self,
        after: (Timestamp, &str),
        until: Timestamp,
        limit: u32,
    ) -> Result<Vec<Reached>, Error> {
        let rows: Vec<RecurringRow> = sqlx::query_as(recurring!(
            "NOT r.paused AND r.next_at IS NOT NULL AND (r.next_at, r.id) > ($1, $2) AND r.next_at <= $3
             ORDER BY r.next_at, r.id LIMIT $4"
        ))
        .bind(after.0.as_micros())
        .bind(after.1)
        .bind(until.as_micros())
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await?;
        Ok(row::reached(rows))
    }

    async fn late_recurring(&self, before: Timestamp, after: &str, limit: u32) -> Result<Vec<Reached>, Error> {
        let rows: Vec<RecurringRow> = sqlx::query_as(recurring!(
            "NOT r.paused AND r.next_at IS NOT NULL AND r.next_at < $1 AND r.id > $2 ORDER BY r.id LIMIT $3"
        ))
        .bind(before.as_micros())
        .bind(after)
        .bind(i64::from(limit))
        .fetch_all(&self.pool)
        .await?;
        Ok(row::reached(rows))
    }

    async fn materialise(&self, occurrences: &[Occurrences]) -> Result<Vec<Kept>, Error> {
        let mut tx = self.pool.begin().await?;
        let moved = advance(&mut tx, occurrences).await?;
        let moved: Vec<&Occurrences> = occurrences.iter().filter(|one| moved.contains(one.id.as_str())).collect();
        if moved.is_empty() {
            return Ok(Vec::new());
        }
        let names = categories(moved.iter().flat_map(|one| &one.events).map(|(_, event)| &event.category));
        let topics = lock_topics(&mut tx, &names).await?;
        if !topics.hold(&names) {
            let why = "one of them is of another category".to_owned();
            return Err(notifyx_database::Error::Stored { what: "recurring schedule", why }.into());
        }
        let (mut ids, mut nominal) = (Vec::new(), Vec::new());
        for one in &moved {
            for (at, _) in &one.events {
                ids.push(one.id.as_str());
                nominal.push(at.as_micros());
            }
        }
        let made: Vec<(String, i64)> = sqlx::query_as(
            "INSERT INTO occurrence (recurring_id, nominal_at) SELECT * FROM UNNEST($1::text[], $2::bigint[])
             ON CONFLICT DO NOTHING RETURNING recurring_id, nominal_at",
        )
        .bind(ids)
        .bind(nominal)
        .fetch_all(&mut *tx)
        .await?;
        sqlx::query(
            "DELETE FROM occurrence o USING UNNEST($1::text[], $2::bigint[]) AS w (id, before)
             WHERE o.recurring_id = w.id AND o.nominal_at < w.before",
        )
        .bind(moved.iter().map(|one| one.id.as_str()).collect::<Vec<_>>())
        .bind(moved.iter().map(|one| (one.next - OCCURRENCES_KEPT).as_micros()).collect::<Vec<_>>())
        .execute(&mut *tx)
        .await?;
        let new = occurred(moved, &made);
        let kept = if new.is_empty() { Vec::new() } else { schedule::put(&mut tx, &topics, &new).await? };
        let (ids, nominal): (Vec<String>, Vec<i64>) = made.into_iter().unzip();
        sqlx::query(
            "UPDATE recurring r SET made = r.made + g.count, last_at = GREATEST(r.last_at, g.last)
             FROM (SELECT id, count(*) AS count, max(at) AS last FROM UNNEST($1::text[], $2::bigint[]) AS w (id, at) GROUP BY id) g
             WHERE r.id = g.id",
        )
        .bind(ids)
        .bind(nominal)
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(kept)
    }
}

async fn find(connection: &mut PgConnection, id: &EventId) -> Result<Option<Recurring>, Error> {
    let row: Option<RecurringRow> =
        sqlx::query_as(recurring!("r.id = $1")).bind(id.as_str()).fetch_optional(connection).await?;
    row.map(Recurring::try_from).transpose()
}

/// Whether it was in the state that was read.
async fn change(connection: &mut PgConnection, id: &EventId, from: State, to: State) -> Result<bool, Error> {
    let changed = sqlx::query(
        "UPDATE recurring SET paused = $4, next_at = $5
         WHERE id = $1 AND paused = $2 AND next_at IS NOT DISTINCT FROM $3",
    )
    .bind(id.as_str())
    .bind(from.is_paused())
    .bind(from.next().map(Timestamp::as_micros))
    .bind(to.is_paused())
    .bind(to.next().map(Timestamp::as_micros))
    .execute(connection)
    .await?;
    Ok(changed.rows_affected() == 1)
}

/// Moves those on that are still where they were when they were read, locking them in order; their names.
async fn advance(connection: &mut PgConnection, occurrences: &[Occurrences]) -> Result<HashSet<String>, Error> {
    let moved: Vec<String> = sqlx::query_scalar(
        "WITH w AS (SELECT * FROM UNNEST($1::text[], $2::bigint[], $3::bigint[], $4::bigint[]) AS w (id, next, later, skipped)),
              held AS (SELECT r.id FROM recurring r JOIN w ON w.id = r.id WHERE NOT r.paused AND r.next_at = w.next
                       ORDER BY r.id FOR UPDATE OF r)
         UPDATE recurring r SET next_at = w.later, skipped = r.skipped + w.skipped
         FROM held JOIN w ON w.id = held.id WHERE r.id = held.id RETURNING r.id",
    )
    .bind(occurrences.iter().map(|one| one.id.as_str()).collect::<Vec<_>>())
    .bind(occurrences.iter().map(|one| one.next.as_micros()).collect::<Vec<_>>())
    .bind(occurrences.iter().map(|one| one.then.map(Timestamp::as_micros)).collect::<Vec<_>>())
    .bind(occurrences.iter().map(|one| signed(one.skipped)).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    Ok(moved.into_iter().collect())
}

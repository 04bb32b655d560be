//! Recurring schedules on SQLite.

use std::collections::HashSet;

use async_trait::async_trait;
use notifyx_model::{Category, EventId, Timestamp};
use sqlx::SqliteConnection;

use super::{Sqlite, list, schedule, topics};
use crate::{
    Error,
    event::{EventKey, Owner},
    recurring::{Recurring, State},
    store::{
        Deleted, Kept, OCCURRENCES_KEPT, Occurrences, Page, Reached, Recurrings,
        keep::occurred,
        row::{self, RecurringRow, level, signed},
    },
};

macro_rules! recurring {
    ($which:literal) => {
        recurring!($which, "recurring r")
    };
    ($which:literal, $from:literal) => {
        &format!(
            concat!("SELECT {} FROM ", $from, " CROSS JOIN topic t ON t.id = r.topic_id WHERE ", $which),
            RecurringRow::COLUMNS
        )
    };
}

#[async_trait]
impl Recurrings for Sqlite {
    async fn create_recurring(&self, recurring: &Recurring) -> Result<(Recurring, bool), Error> {
        let mut tx = self.begin().await?;
        if let Some(kept) = find(&mut tx, &recurring.id).await? {
            return Ok((kept, true));
        }
        let topic = topics(&mut tx, &[recurring.category.as_str()]).await?.get(&recurring.category).id;
        sqlx::query(
            "INSERT INTO recurring (id, topic_id, key, priority, rule, zone, on_missed, start_at, end_at, count, owner, created_at,
                                    paused, next_at, last_at, made, skipped, data)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18)",
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
        tx.commit().await?;
        Ok((recurring.clone(), false))
    }

    async fn find_recurring(&self, id: &EventId) -> Result<Option<Recurring>, Error> {
        find(&mut *self.read().acquire().await?, id).await
    }

    async fn list_recurring(
        &self,
        category: Option<&Category>,
        after: Option<&EventId>,
        page: Page,
    ) -> Result<Vec<Recurring>, Error> {
        let rows: Vec<RecurringRow> = sqlx::query_as(recurring!(
            "p.bytes_before < ?3 ORDER BY r.id",
            "(SELECT id, sum(bytes) OVER (ORDER BY id) - bytes AS bytes_before
              FROM (SELECT id, length(data) AS bytes FROM recurring
                    WHERE id > ?1 AND (?4 IS NULL OR topic_id = (SELECT id FROM topic WHERE name = ?4))
                    ORDER BY id LIMIT ?2)) p CROSS JOIN recurring r ON r.id = p.id"
        ))
        .bind(after.map_or("", EventId::as_str))
        .bind(i64::from(page.limit))
        .bind(i64::from(page.bytes))
        .bind(category.map(Category::as_str))
        .fetch_all(self.read())
        .await?;
        row::all(rows)
    }

    async fn change_recurring(&self, id: &EventId, from: State, to: State) -> Result<Option<Recurring>, Error> {
        let mut tx = self.begin().await?;
        let changed = change(&mut tx, id, from, to).await?;
        let recurring = if changed { find(&mut tx, id).await? } else { None };
        tx.commit().await?;
        Ok(recurring)
    }

    async fn delete_recurring(&self, id: &EventId, rows: u32) -> Result<Option<Deleted>, Error> {
        let mut tx = self.begin().await?;
        let Some(recurring) = find(&mut tx, id).await? else { return Ok(None) };
        change(&mut tx, id, recurring.state, State::Finished).await?;
        let waiting: Vec<(i64,)> = sqlx::query_as("SELECT seq FROM scheduled WHERE recurring_id = ?1 LIMIT ?2")
            .bind(id.as_str())
            .bind(i64::from(rows))
            .fetch_all(&mut *tx)
            .await?;
        schedule::withdraw(&mut tx, &list(waiting.iter().map(|(seq,)| seq))).await?;
        if waiting.len() >= rows as usize {
            tx.commit().await?;
            return Ok(Some(Deleted::Ended(recurring)));
        }
        for sql in ["DELETE FROM occurrence WHERE recurring_id = ?1", "DELETE FROM recurring WHERE id = ?1"] {
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
            "r.paused = 0 AND r.next_at IS NOT NULL AND (r.next_at, r.id) > (?1, ?2) AND r.next_at <= ?3
             ORDER BY r.next_at, r.id LIMIT ?4"
        ))
        .bind(after.0.as_micros())
        .bind(after.1)
        .bind(until.as_micros())
        .bind(i64::from(limit))
        .fetch_all(self.read())
        .await?;
        Ok(row::reached(rows))
    }

    async fn late_recurring(&self, before: Timestamp, after: &str, limit: u32) -> Result<Vec<Reached>, Error> {
        let rows: Vec<RecurringRow> = sqlx::query_as(recurring!(
            "true ORDER BY r.id",
            "(SELECT id FROM recurring WHERE paused = 0 AND next_at IS NOT NULL AND next_at < ?1 AND +id > ?2
              ORDER BY +id LIMIT ?3) p CROSS JOIN recurring r ON r.id = p.id"
        ))
        .bind(before.as_micros())
        .bind(after)
        .bind(i64::from(limit))
        .fetch_all(self.read())
        .await?;
        Ok(row::reached(rows))
    }

    async fn materialise(&self, occurrences: &[Occurrences]) -> Result<Vec<Kept>, Error> {
        let mut tx = self.begin().await?;
        let moved = advance(&mut tx, occurrences).await?;
        let moved: Vec<&Occurrences> = occurrences.iter().filter(|one| moved.contains(one.id.as_str())).collect();
        if moved.is_empty() {
            return Ok(Vec::new());
        }
        let nominal = |one: &&Occurrences| {
            let id = one.id.as_str().to_owned();
            one.events.iter().map(|(at, _)| (id.clone(), at.as_micros())).collect::<Vec<_>>()
        };
        let made: Vec<(String, i64)> = sqlx::query_as(
            "INSERT INTO occurrence (recurring_id, nominal_at) SELECT value ->> 0, value ->> 1 FROM json_each(?1) WHERE true
             ON CONFLICT DO NOTHING RETURNING recurring_id, nominal_at",
        )
        .bind(list(moved.iter().flat_map(nominal)))
        .fetch_all(&mut *tx)
        .await?;
        sqlx::query(
            "DELETE FROM occurrence WHERE (recurring_id, nominal_at) IN (
                 SELECT o.recurring_id, o.nominal_at FROM json_each(?1) j
                 CROSS JOIN occurrence o ON o.recurring_id = j.value ->> 0 AND o.nominal_at < j.value ->> 1)",
        )
        .bind(list(moved.iter().map(|one| (one.id.as_str(), (one.next - OCCURRENCES_KEPT).as_micros()))))
        .execute(&mut *tx)
        .await?;
        let new = occurred(moved, &made);
        let kept = if new.is_empty() { Vec::new() } else { schedule::put(&mut tx, &new).await? };
        sqlx::query(
            "UPDATE recurring SET made = made + g.count, last_at = coalesce(max(last_at, g.last), g.last) FROM (
                 SELECT value ->> 0 AS name, count(*) AS count, max(value ->> 1) AS last FROM json_each(?1) GROUP BY 1) g
             WHERE recurring.id = g.name",
        )
        .bind(list(&made))
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(kept)
    }
}

async fn find(connection: &mut SqliteConnection, id: &EventId) -> Result<Option<Recurring>, Error> {
    let row: Option<RecurringRow> =
        sqlx::query_as(recurring!("r.id = ?1")).bind(id.as_str()).fetch_optional(connection).await?;
    row.map(Recurring::try_from).transpose()
}

/// Whether it was in the state that was read.
async fn change(connection: &mut SqliteConnection, id: &EventId, from: State, to: State) -> Result<bool, Error> {
    let changed =
        sqlx::query("UPDATE recurring SET paused = ?4, next_at = ?5 WHERE id = ?1 AND paused = ?2 AND next_at IS ?3")
            .bind(id.as_str())
            .bind(from.is_paused())
            .bind(from.next().map(Timestamp::as_micros))
            .bind(to.is_paused())
            .bind(to.next().map(Timestamp::as_micros))
            .execute(connection)
            .await?;
    Ok(changed.rows_affected() == 1)
}

/// Moves those on that are still where they were when they were read; their names.
async fn advance(connection: &mut SqliteConnection, occurrences: &[Occurrences]) -> Result<HashSet<String>, Error> {
    let rows = occurrences.iter().map(|one| {
        let then = one.then.map(Timestamp::as_micros);
        (one.id.as_str(), one.next.as_micros(), then, signed(one.skipped))
    });
    let moved: Vec<(String,)> = sqlx::query_as(
        "UPDATE recurring SET next_at = j.value ->> 2, skipped = skipped + (j.value ->> 3) FROM json_each(?1) j
         WHERE recurring.id = j.value ->> 0 AND paused = 0 AND next_at = j.value ->> 1 RETURNING recurring.id",
    )
    .bind(list(rows))
    .fetch_all(connection)
    .await?;
    Ok(moved.into_iter().map(|(id,)| id).collect())
}

//! Recurring schedules on Postgres.

use async_trait::async_trait;
use notifyx_model::{Category, EventId, Timestamp};
use sqlx::PgConnection;

use super::{Postgres, lock_topics, schedule};
use crate::{
    Error,
    event::{EventKey, NewEvent, Owner},
    recurring::{Recurring, State},
    store::{
        Kept, OCCURRENCES_KEPT, Occurrences, Page, Recurrings,
        keep::categories,
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

    async fn change_recurring(
        &self,
        id: &EventId,
        from: State,
        to: State,
        skipped: u64,
    ) -> Result<Option<Recurring>, Error> {
        let mut tx = self.pool.begin().await?;
        let changed = advance(&mut tx, id, from, to, skipped).await?;
        let recurring = if changed { find(&mut tx, id).await? } else { None };
        tx.commit().await?;
        Ok(recurring)
    }

    async fn delete_recurring(&self, id: &EventId) -> Result<Option<Recurring>, Error> {
        let mut tx = self.pool.begin().await?;
        sqlx::query("SELECT 1 FROM recurring WHERE id = $1 FOR UPDATE").bind(id.as_str()).execute(&mut *tx).await?;
        let Some(recurring) = find(&mut tx, id).await? else { return Ok(None) };
        let waiting: Vec<i64> = sqlx::query_scalar("SELECT seq FROM scheduled WHERE recurring_id = $1")
            .bind(id.as_str())
            .fetch_all(&mut *tx)
            .await?;
        schedule::lock(&mut tx, &waiting).await?;
        schedule::withdraw(&mut tx, &waiting).await?;
        for sql in ["DELETE FROM occurrence WHERE recurring_id = $1", "DELETE FROM recurring WHERE id = $1"] {
            sqlx::query(sql).bind(id.as_str()).execute(&mut *tx).await?;
        }
        tx.commit().await?;
        Ok(Some(recurring))
    }

    async fn due_recurring(&self, until: Timestamp, limit: u32) -> Result<Vec<Recurring>, Error> {
        let sql = recurring!("NOT r.paused AND r.next_at IS NOT NULL AND r.next_at <= $1 ORDER BY r.next_at LIMIT $2");
        let rows: Vec<RecurringRow> =
            sqlx::query_as(sql).bind(until.as_micros()).bind(i64::from(limit)).fetch_all(&self.pool).await?;
        row::all(rows)
    }

    async fn materialise(&self, occurrences: &Occurrences) -> Result<Vec<Kept>, Error> {
        let mut tx = self.pool.begin().await?;
        let Occurrences { id, next, events, then, skipped } = occurrences;
        if !advance(&mut tx, id, State::Active { next: *next }, *then, *skipped).await? {
            return Ok(Vec::new());
        }
        let names = categories(events.iter().map(|(_, event)| &event.category));
        let topics = lock_topics(&mut tx, &names).await?;
        if !topics.hold(&names) {
            let why = format!("`{id}` is of another category");
            return Err(notifyx_database::Error::Stored { what: "recurring schedule", why }.into());
        }
        let made: Vec<i64> = sqlx::query_scalar(
            "INSERT INTO occurrence (recurring_id, nominal_at) SELECT $1, UNNEST($2::bigint[])
             ON CONFLICT DO NOTHING RETURNING nominal_at",
        )
        .bind(id.as_str())
        .bind(events.iter().map(|(nominal, _)| nominal.as_micros()).collect::<Vec<_>>())
        .fetch_all(&mut *tx)
        .await?;
        sqlx::query("DELETE FROM occurrence WHERE recurring_id = $1 AND nominal_at < $2")
            .bind(id.as_str())
            .bind((*next - OCCURRENCES_KEPT).as_micros())
            .execute(&mut *tx)
            .await?;
        let new: Vec<NewEvent> = events
            .iter()
            .filter(|(nominal, _)| made.contains(&nominal.as_micros()))
            .map(|(_, event)| event.clone())
            .collect();
        let kept = if new.is_empty() { Vec::new() } else { schedule::put(&mut tx, &topics, &new).await? };
        sqlx::query("UPDATE recurring SET made = made + $2, last_at = GREATEST(last_at, $3) WHERE id = $1")
            .bind(id.as_str())
            .bind(made.len() as i64)
            .bind(made.iter().max().copied())
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
async fn advance(
    connection: &mut PgConnection,
    id: &EventId,
    from: State,
    to: State,
    skipped: u64,
) -> Result<bool, Error> {
    let changed = sqlx::query(
        "UPDATE recurring SET paused = $4, next_at = $5, skipped = skipped + $6
         WHERE id = $1 AND paused = $2 AND next_at IS NOT DISTINCT FROM $3",
    )
    .bind(id.as_str())
    .bind(from.is_paused())
    .bind(from.next().map(Timestamp::as_micros))
    .bind(to.is_paused())
    .bind(to.next().map(Timestamp::as_micros))
    .bind(signed(skipped))
    .execute(connection)
    .await?;
    Ok(changed.rows_affected() == 1)
}

//! The schedule on Postgres.

use async_trait::async_trait;
use notifyx_model::{Category, EventId, Timestamp};
use sqlx::PgConnection;

use super::{Postgres, column, known, lock_topics};
use crate::{
    Error,
    event::{Event, EventKey, NewEvent, Owner},
    store::{
        Change, Due, Head, Kept, Named, Page, Schedule, Slot, Which,
        keep::{self, Topics, categories, distinct, fresh, kept},
        row::{self, DueRow, EventRow, TopicRow, level, signed, unsigned},
    },
};

/// A page of what waits, found in `due` or, by what it is about, in `scheduled`: $1 and $2 the slot before it, $3 events, $4 bytes of data.
macro_rules! waiting {
    ($table:literal, $which:literal) => {
        concat!(
            r#"SELECT t.name AS category, p.id, p.key, p.priority, p.data, p.created_at, p.fire_at, p.owner, p.recurring_id, p.seq,
                      NULL::bigint AS "offset", NULL::bigint AS fired_at
               FROM (SELECT w.*, sum(octet_length(w.data)) OVER (ORDER BY w.fire_at, w.seq) - octet_length(w.data) AS bytes_before
                     FROM (SELECT d.seq FROM "#,
            $table,
            r#" d WHERE (d.fire_at, d.seq) > ($1, $2)"#,
            $which,
            r#" ORDER BY d.fire_at, d.seq LIMIT $3) n
                     JOIN scheduled w ON w.seq = n.seq) p
               JOIN topic t ON t.id = p.topic_id
               WHERE p.bytes_before < $4 ORDER BY p.fire_at, p.seq"#
        )
    };
}

/// What waits without its data: $1 and $2 the slot before it, $3 events. Of the index first, then the names.
macro_rules! due {
    ($which:literal) => {
        concat!(
            "SELECT t.name AS category, n.fire_at, n.seq, n.priority
             FROM (SELECT * FROM due d WHERE (d.fire_at, d.seq) > ($1, $2) AND ",
            $which,
            " ORDER BY d.fire_at, d.seq LIMIT $3) n
             JOIN topic t ON t.id = n.topic_id ORDER BY n.fire_at, n.seq"
        )
    };
}

#[async_trait]
impl Schedule for Postgres {
    async fn schedule(&self, events: &[NewEvent]) -> Result<Vec<Kept>, Error> {
        let (mut tx, topics) = self.begin_on(events.iter().map(|event| &event.category)).await?;
        let kept = put(&mut tx, &topics, events).await?;
        tx.commit().await?;
        Ok(kept)
    }

    async fn cancel(&self, events: &[Named]) -> Result<Vec<Change>, Error> {
        let names: Vec<&Named> = events.iter().collect();
        let mut tx = self.pool.begin().await?;
        let topics = lock_topics(&mut tx, &categories(names.iter().map(|named| &named.category))).await?;
        let changes = keep::cancelled(events.len(), known::named(&mut tx, &topics, &names).await?);
        let numbers = keep::numbers(&changes);
        if !numbers.is_empty() {
            withdraw(&mut tx, &numbers).await?;
        }
        tx.commit().await?;
        Ok(changes)
    }

    async fn reschedule(&self, orders: &[(Named, Timestamp)]) -> Result<Vec<Change>, Error> {
        let names: Vec<&Named> = orders.iter().map(|(named, _)| named).collect();
        let mut tx = self.pool.begin().await?;
        let topics = lock_topics(&mut tx, &categories(names.iter().map(|named| &named.category))).await?;
        let known = known::named(&mut tx, &topics, &names).await?;
        let numbers = reserve(&mut tx, orders.len()).await?;
        let (changes, moved) = keep::rescheduled(orders, known, numbers);
        sqlx::query(
            "WITH w AS (SELECT * FROM UNNEST($1::bigint[], $2::bigint[], $3::bigint[]) AS w (old, new, at)),
                  moved AS (UPDATE scheduled s SET seq = w.new, fire_at = w.at FROM w WHERE s.seq = w.old
                            RETURNING s.id, s.topic_id, s.seq, w.old),
                  ids AS (UPDATE seen s SET seq = m.seq FROM moved m WHERE s.id = m.id AND s.topic_id = m.topic_id)
             UPDATE due d SET seq = w.new, fire_at = w.at
             FROM w JOIN scheduled s ON s.seq = w.old
             WHERE d.topic_id = s.topic_id AND d.fire_at = s.fire_at AND d.seq = w.old",
        )
        .bind(moved.iter().map(|moved| moved.old).collect::<Vec<_>>())
        .bind(moved.iter().map(|moved| moved.new).collect::<Vec<_>>())
        .bind(moved.iter().map(|moved| moved.at.as_micros()).collect::<Vec<_>>())
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(changes)
    }

    async fn waiting(&self, which: Which<'_>, after: Option<Slot>, page: Page) -> Result<Vec<Event>, Error> {
        let sql = match which {
            Which::All => waiting!("due", ""),
            Which::Of(_) => waiting!("due", " AND d.topic_id = (SELECT id FROM topic WHERE name = $5)"),
            Which::About(..) => {
                waiting!("scheduled", " AND d.topic_id = (SELECT id FROM topic WHERE name = $5) AND d.key = $6")
            }
        };
        let (at, seq) = edge(after);
        let mut query = sqlx::query_as(sql).bind(at).bind(seq).bind(i64::from(page.limit)).bind(i64::from(page.bytes));
        query = match which {
            Which::All => query,
            Which::Of(category) => query.bind(category.as_str()),
            Which::About(category, key) => query.bind(category.as_str()).bind(key.as_str()),
        };
        let rows: Vec<EventRow> = query.fetch_all(&self.pool).await?;
        row::all(rows)
    }

    async fn refill(&self, category: &Category, after: Option<Slot>, limit: u32) -> Result<Vec<Due>, Error> {
        let (at, seq) = edge(after);
        let rows: Vec<DueRow> = sqlx::query_as(due!("d.topic_id = (SELECT id FROM topic WHERE name = $4)"))
            .bind(at)
            .bind(seq)
            .bind(i64::from(limit))
            .bind(category.as_str())
            .fetch_all(&self.pool)
            .await?;
        row::all(rows)
    }

    async fn due(&self, until: Timestamp, after: Option<Slot>, limit: u32) -> Result<Vec<Due>, Error> {
        let (at, seq) = edge(after);
        let rows: Vec<DueRow> = sqlx::query_as(due!("d.fire_at <= $4"))
            .bind(at)
            .bind(seq)
            .bind(i64::from(limit))
            .bind(until.as_micros())
            .fetch_all(&self.pool)
            .await?;
        row::all(rows)
    }

    async fn earliest(&self) -> Result<Option<Timestamp>, Error> {
        let at: Option<i64> = sqlx::query_scalar("SELECT min(fire_at) FROM due").fetch_one(&self.pool).await?;
        Ok(at.map(Timestamp::from_micros))
    }

    async fn backlogs(&self, after: Option<&Category>, limit: u32) -> Result<Vec<Head>, Error> {
        let sql = format!(
            "SELECT {} FROM topic t WHERE t.waiting > 0 AND t.name > $1 ORDER BY t.name LIMIT $2",
            TopicRow::COLUMNS
        );
        let rows: Vec<TopicRow> = sqlx::query_as(&sql)
            .bind(after.map_or("", Category::as_str))
            .bind(i64::from(limit))
            .fetch_all(&self.pool)
            .await?;
        row::all(rows)
    }

    async fn count_waiting(&self) -> Result<u64, Error> {
        let sql = "SELECT coalesce(sum(waiting), 0)::bigint FROM topic WHERE waiting > 0";
        let count: i64 = sqlx::query_scalar(sql).fetch_one(&self.pool).await?;
        Ok(unsigned(count))
    }

    async fn fire(&self, seqs: &[u64], at: Timestamp) -> Result<Vec<Event>, Error> {
        let rows: Vec<EventRow> =
            sqlx::query_as(FIRE).bind(distinct(seqs)).bind(at.as_micros()).fetch_all(&self.pool).await?;
        row::all(rows)
    }
}

/// A page begins behind a slot; there is none before the first.
fn edge(after: Option<Slot>) -> (i64, i64) {
    after.map_or((i64::MIN, 0), |slot| (slot.at.as_micros(), signed(slot.seq)))
}

/// Takes so many numbers, in order. They need not follow each other: others take some at the same time.
async fn reserve(connection: &mut PgConnection, count: usize) -> Result<Vec<i64>, Error> {
    let mut numbers: Vec<i64> = sqlx::query_scalar("SELECT nextval('arrival') FROM generate_series(1, $1)")
        .bind(i64::try_from(count).expect("a batch fits in memory"))
        .fetch_all(connection)
        .await?;
    numbers.sort_unstable();
    Ok(numbers)
}

/// Numbered in this order.
const PUT: &str = r#"
WITH put AS (
    INSERT INTO scheduled (seq, topic_id, id, priority, created_at, fire_at, key, owner, recurring_id, data)
    SELECT nextval('arrival'), w.* FROM UNNEST($1::bigint[], $2::text[], $3::smallint[], $4::bigint[], $5::bigint[], $6::text[],
                                               $7::text[], $8::text[], $9::bytea[]) AS w
    RETURNING seq, topic_id, id, priority, fire_at
), heads AS (
    UPDATE topic t SET waiting = t.waiting + p.count
    FROM (SELECT topic_id, count(*) AS count FROM put GROUP BY topic_id) p WHERE t.id = p.topic_id
), ids AS (
    INSERT INTO seen (id, topic_id, seq) SELECT id, topic_id, seq FROM put
    ON CONFLICT (id, topic_id) DO UPDATE SET seq = excluded.seq, "offset" = NULL
), wait AS (
    INSERT INTO due (topic_id, fire_at, seq, priority) SELECT topic_id, fire_at, seq, priority FROM put
)
SELECT seq FROM put ORDER BY seq"#;

/// The topics are locked.
pub(super) async fn put(
    connection: &mut PgConnection,
    topics: &Topics,
    events: &[NewEvent],
) -> Result<Vec<Kept>, Error> {
    let known = known::known(connection, topics, events).await?;
    let fresh = fresh(events, &known);
    if fresh.is_empty() {
        return Ok(kept(events, [], &known));
    }
    let new: Vec<&NewEvent> = fresh.iter().map(|i| &events[*i]).collect();
    let numbers: Vec<i64> = sqlx::query_scalar(PUT)
        .bind(column(&new, |event| topics.get(&event.category).id))
        .bind(column(&new, |event| event.id.as_str()))
        .bind(column(&new, |event| level(event.priority)))
        .bind(column(&new, |event| event.created_at.as_micros()))
        .bind(column(&new, |event| event.fire_at.as_micros()))
        .bind(column(&new, |event| event.key.as_ref().map(EventKey::as_str)))
        .bind(column(&new, |event| event.owner.as_ref().map(Owner::as_str)))
        .bind(column(&new, |event| event.recurring.as_ref().map(EventId::as_str)))
        .bind(column(&new, |event| event.data.as_ref()))
        .fetch_all(connection)
        .await?;
    Ok(kept(events, fresh.into_iter().zip(numbers.into_iter().map(keep::waiting)), &known))
}

/// Locks the topics of what waits under these numbers, in order.
pub(super) async fn lock(connection: &mut PgConnection, seqs: &[i64]) -> Result<(), Error> {
    sqlx::query(
        "SELECT 1 FROM topic WHERE id IN (SELECT topic_id FROM scheduled WHERE seq = ANY($1)) ORDER BY id FOR NO KEY UPDATE",
    )
    .bind(seqs)
    .execute(connection)
    .await?;
    Ok(())
}

/// A transaction in one statement: each step by itself would be a call, and the next event that is due waits for all of them. $1 numbers, in
/// this order; $2 the time.
///
/// The statement sees the moment before it had the topics. Heads are right nevertheless, as a locked row is read as it is then; so is what is
/// gone, as a row that another took or moved meanwhile is not deleted.
const FIRE: &str = r#"
WITH asked AS (
    SELECT * FROM UNNEST($1::bigint[]) WITH ORDINALITY AS j (seq, n)
), held AS MATERIALIZED (
    SELECT t.id, t.name, t.last_offset FROM topic t
    WHERE t.id IN (SELECT w.topic_id FROM asked j JOIN scheduled w ON w.seq = j.seq) ORDER BY t.id FOR NO KEY UPDATE
), gone AS (
    DELETE FROM scheduled w USING asked j, held t WHERE w.seq = j.seq AND t.id = w.topic_id
    RETURNING j.n, t.name AS category, t.last_offset, w.*
), fired AS (
    SELECT *, last_offset + row_number() OVER (PARTITION BY topic_id ORDER BY n) AS "offset" FROM gone
), passed AS (
    DELETE FROM due d USING gone g WHERE d.topic_id = g.topic_id AND d.fire_at = g.fire_at AND d.seq = g.seq
), ids AS (
    UPDATE seen s SET seq = NULL, "offset" = f."offset" FROM fired f WHERE s.id = f.id AND s.topic_id = f.topic_id
), heads AS (
    UPDATE topic t SET last_offset = t.last_offset + g.count, waiting = t.waiting - g.count
    FROM (SELECT topic_id, count(*) AS count FROM gone GROUP BY topic_id) g WHERE t.id = g.topic_id
), log AS (
    INSERT INTO event (topic_id, "offset", id, priority, created_at, fire_at, fired_at, key, owner, recurring_id, data)
    SELECT topic_id, "offset", id, priority, created_at, fire_at, $2, key, owner, recurring_id, data FROM fired
)
SELECT category, id, key, priority, data, created_at, fire_at, owner, recurring_id, NULL::bigint AS seq, "offset", $2 AS fired_at
FROM fired ORDER BY n"#;

/// Takes what waits under these numbers out of the schedule. Their ids are free. The topics are locked.
pub(super) async fn withdraw(connection: &mut PgConnection, seqs: &[i64]) -> Result<(), Error> {
    sqlx::query(
        "WITH gone AS (DELETE FROM scheduled WHERE seq = ANY($1) RETURNING topic_id, fire_at, seq, id),
              ids AS (DELETE FROM seen s USING gone g WHERE s.id = g.id AND s.topic_id = g.topic_id),
              passed AS (DELETE FROM due d USING gone g
                         WHERE d.topic_id = g.topic_id AND d.fire_at = g.fire_at AND d.seq = g.seq)
         UPDATE topic t SET waiting = t.waiting - g.count
         FROM (SELECT topic_id, count(*) AS count FROM gone GROUP BY topic_id) g WHERE t.id = g.topic_id",
    )
    .bind(seqs)
    .execute(connection)
    .await?;
    Ok(())
}

//! The schedule on SQLite.

use async_trait::async_trait;
use notifyx_model::{Category, Timestamp};
use sqlx::SqliteConnection;

use super::{Sqlite, find_topics, insert, known, list, topics};
use crate::{
    Error,
    event::{Event, NewEvent},
    store::{
        Change, Due, Head, Kept, Named, Page, Schedule, Slot, Which,
        keep::{self, Moves, categories, distinct, fresh, kept},
        row::{self, DueRow, EventRow, TopicRow, level, signed, unsigned},
    },
};

/// `merged`: what waits over all topics, soonest first, behind the slot ?1 and ?2 and until a time, ?3 rows of it. The recursion's queue begins
/// with one row of each topic, and each row that leaves it brings the next of its topic. Of topics that are behind that slot as a whole
/// the first ?3 are enough, for they stand in order themselves. (`+` takes a column's type away, without which SQLite looks up times alone.)
macro_rules! merged {
    ($until:literal) => {
        concat!(
            "WITH RECURSIVE merged (topic_id, fire_at, seq) AS (
                 SELECT * FROM (
                     SELECT d.topic_id, d.fire_at, d.seq FROM topic t CROSS JOIN due d ON d.topic_id = t.id AND (d.fire_at, d.seq) = (
                         SELECT n.fire_at, n.seq FROM due n WHERE n.topic_id = t.id AND (n.fire_at, n.seq) > (?1, ?2)
                         ORDER BY n.fire_at, n.seq LIMIT 1)
                     WHERE t.next_at <= ?1 AND (t.next_at, t.next_seq) <= (?1, ?2) AND d.fire_at <= ",
            $until,
            " UNION ALL
                     SELECT * FROM (SELECT id, next_at, next_seq FROM topic WHERE (next_at, next_seq) > (?1, ?2) AND next_at <= ",
            $until,
            "               ORDER BY next_at, next_seq LIMIT ?3))
                 UNION ALL
                 SELECT d.topic_id, d.fire_at, d.seq FROM merged m CROSS JOIN due d ON d.topic_id = m.topic_id AND (d.fire_at, d.seq) = (
                     SELECT n.fire_at, n.seq FROM due n WHERE n.topic_id = m.topic_id AND (n.fire_at, n.seq) > (+m.fire_at, +m.seq)
                     ORDER BY n.fire_at, n.seq LIMIT 1)
                 WHERE d.fire_at <= ",
            $until,
            " ORDER BY 2, 3 LIMIT ?3) "
        )
    };
}

/// A page of what waits, found in `due`, in `merged` or, by what it is about, in `scheduled`: ?1 and ?2 the slot before it, ?3 events,
/// ?4 bytes of data.
macro_rules! waiting {
    ($table:literal, $which:literal) => {
        concat!(
            r#"SELECT t.name AS category, w.id, w.key, w.priority, w.data, w.created_at, w.fire_at, w.owner, w.recurring_id, w.seq,
                      NULL AS "offset", NULL AS fired_at
               FROM (SELECT topic_id, fire_at, seq,
                            sum(bytes) OVER (ORDER BY fire_at, seq ROWS UNBOUNDED PRECEDING) - bytes AS bytes_before
                     FROM (SELECT d.topic_id, d.fire_at, d.seq, length(s.data) AS bytes
                           FROM "#,
            $table,
            r#" d CROSS JOIN scheduled s ON s.seq = d.seq
                           WHERE (d.fire_at, d.seq) > (?1, ?2)"#,
            $which,
            r#" ORDER BY d.fire_at, d.seq LIMIT ?3)) p
               CROSS JOIN scheduled w ON w.seq = p.seq CROSS JOIN topic t ON t.id = w.topic_id
               WHERE p.bytes_before < ?4 ORDER BY p.fire_at, p.seq"#
        )
    };
}

/// What waits of one topic, ?4, without its data: ?1 and ?2 the slot before it, ?3 events.
const REFILL: &str = "
SELECT ?4 AS category, d.fire_at, d.seq, d.priority FROM due d
WHERE d.topic_id = (SELECT id FROM topic WHERE name = ?4) AND (d.fire_at, d.seq) > (?1, ?2)
ORDER BY d.fire_at, d.seq LIMIT ?3";

/// Likewise of all topics, until ?4.
const DUE: &str = concat!(
    merged!("?4"),
    "SELECT t.name AS category, d.fire_at, d.seq, d.priority
     FROM merged m CROSS JOIN due d ON d.topic_id = m.topic_id AND d.fire_at = m.fire_at AND d.seq = m.seq
          CROSS JOIN topic t ON t.id = m.topic_id
     ORDER BY m.fire_at, m.seq"
);

/// Of waiting events, each a list that begins with its number.
macro_rules! forget_due {
    ($numbers:literal) => {
        concat!(
            "DELETE FROM due WHERE (topic_id, fire_at, seq) IN (
                 SELECT w.topic_id, w.fire_at, w.seq FROM json_each(",
            $numbers,
            ") j CROSS JOIN scheduled w ON w.seq = j.value ->> 0)"
        )
    };
}

#[async_trait]
impl Schedule for Sqlite {
    async fn schedule(&self, events: &[NewEvent]) -> Result<Vec<Kept>, Error> {
        let mut tx = self.begin().await?;
        let kept = put(&mut tx, events).await?;
        tx.commit().await?;
        Ok(kept)
    }

    async fn cancel(&self, events: &[Named]) -> Result<Vec<Change>, Error> {
        let mut tx = self.begin().await?;
        let names: Vec<&Named> = events.iter().collect();
        let topics = find_topics(&mut tx, &categories(names.iter().map(|named| &named.category))).await?;
        let changes = keep::cancelled(events.len(), known::named(&mut tx, &topics, &names).await?);
        let numbers = keep::numbers(&changes);
        if !numbers.is_empty() {
            withdraw(&mut tx, &list(numbers)).await?;
        }
        tx.commit().await?;
        Ok(changes)
    }

    async fn reschedule(&self, orders: &[(Named, Timestamp)]) -> Result<Vec<Change>, Error> {
        let mut tx = self.begin().await?;
        let names: Vec<&Named> = orders.iter().map(|(named, _)| named).collect();
        let topics = find_topics(&mut tx, &categories(names.iter().map(|named| &named.category))).await?;
        let known = known::named(&mut tx, &topics, &names).await?;
        let first = reserve(&mut tx, orders.len()).await?;
        let (changes, moved) = keep::rescheduled(orders, known, first..);
        let moved = list(moved.iter().map(|moved| (moved.old, moved.new, moved.at.as_micros())));
        sqlx::query(MOVE).bind(moved).execute(&mut *tx).await?;
        tx.commit().await?;
        Ok(changes)
    }

    async fn waiting(&self, which: Which<'_>, after: Option<Slot>, page: Page) -> Result<Vec<Event>, Error> {
        let sql = match which {
            Which::All => concat!(merged!("9223372036854775807"), waiting!("merged", "")),
            Which::Of(_) => waiting!("due", " AND d.topic_id = (SELECT id FROM topic WHERE name = ?5)"),
            Which::About(..) => {
                waiting!("scheduled", " AND d.topic_id = (SELECT id FROM topic WHERE name = ?5) AND d.key = ?6")
            }
        };
        let (at, seq) = edge(after);
        let mut query = sqlx::query_as(sql).bind(at).bind(seq).bind(i64::from(page.limit)).bind(i64::from(page.bytes));
        query = match which {
            Which::All => query,
            Which::Of(category) => query.bind(category.as_str()),
            Which::About(category, key) => query.bind(category.as_str()).bind(key.as_str()),
        };
        let rows: Vec<EventRow> = query.fetch_all(self.read()).await?;
        row::all(rows)
    }

    async fn refill(&self, category: &Category, after: Option<Slot>, limit: u32) -> Result<Vec<Due>, Error> {
        let (at, seq) = edge(after);
        let rows: Vec<DueRow> = sqlx::query_as(REFILL)
            .bind(at)
            .bind(seq)
            .bind(i64::from(limit))
            .bind(category.as_str())
            .fetch_all(self.read())
            .await?;
        row::all(rows)
    }

    async fn due(&self, until: Timestamp, after: Option<Slot>, limit: u32) -> Result<Vec<Due>, Error> {
        let (at, seq) = edge(after);
        let rows: Vec<DueRow> = sqlx::query_as(DUE)
            .bind(at)
            .bind(seq)
            .bind(i64::from(limit))
            .bind(until.as_micros())
            .fetch_all(self.read())
            .await?;
        row::all(rows)
    }

    async fn earliest(&self) -> Result<Option<Timestamp>, Error> {
        let at: Option<i64> = sqlx::query_scalar("SELECT min(next_at) FROM topic").fetch_one(self.read()).await?;
        Ok(at.map(Timestamp::from_micros))
    }

    async fn backlogs(&self, after: Option<&Category>, limit: u32) -> Result<Vec<Head>, Error> {
        let sql = format!(
            "SELECT {} FROM topic t WHERE t.waiting > 0 AND t.name > ?1 ORDER BY t.name LIMIT ?2",
            TopicRow::COLUMNS
        );
        let rows: Vec<TopicRow> = sqlx::query_as(&sql)
            .bind(after.map_or("", Category::as_str))
            .bind(i64::from(limit))
            .fetch_all(self.read())
            .await?;
        row::all(rows)
    }

    async fn count_waiting(&self) -> Result<u64, Error> {
        let sql = "SELECT coalesce(sum(waiting), 0) FROM topic WHERE waiting > 0";
        let count: i64 = sqlx::query_scalar(sql).fetch_one(self.read()).await?;
        Ok(unsigned(count))
    }

    async fn fire(&self, seqs: &[u64], at: Timestamp) -> Result<Vec<Event>, Error> {
        let mut tx = self.begin().await?;
        let events = fire(&mut tx, &list(distinct(seqs)), at).await?;
        tx.commit().await?;
        Ok(events)
    }
}

/// A page begins behind a slot; there is none before the first.
fn edge(after: Option<Slot>) -> (i64, i64) {
    after.map_or((i64::MIN, 0), |slot| (slot.at.as_micros(), signed(slot.seq)))
}

/// Takes so many numbers; the first of them.
async fn reserve(connection: &mut SqliteConnection, count: usize) -> Result<i64, Error> {
    let count = i64::try_from(count).expect("a batch fits in memory");
    let last: i64 = sqlx::query_scalar("UPDATE sequence SET last = last + ?1 RETURNING last")
        .bind(count)
        .fetch_one(connection)
        .await?;
    Ok(last - count + 1)
}

/// Another time for waiting events: $1 numbers, each with the new one and the new time.
const MOVE: &str = concat!(
    forget_due!("$1"),
    ";UPDATE scheduled SET seq = j.value ->> 1, fire_at = j.value ->> 2
      FROM json_each($1) j WHERE scheduled.seq = j.value ->> 0;
      INSERT INTO seen (id, topic_id, seq)
      SELECT w.id, w.topic_id, w.seq FROM json_each($1) j CROSS JOIN scheduled w ON w.seq = j.value ->> 1 WHERE true
      ON CONFLICT DO UPDATE SET seq = excluded.seq;
      INSERT INTO due (topic_id, fire_at, seq, priority)
      SELECT w.topic_id, w.fire_at, w.seq, w.priority
      FROM json_each($1) j CROSS JOIN scheduled w ON w.seq = j.value ->> 1"
);

/// Of new events, by the first of their numbers, $1; $2: how far the heads move.
const LIST: &str = concat!(
    "INSERT INTO seen (id, topic_id, seq) SELECT id, topic_id, seq FROM scheduled WHERE seq >= $1;
     INSERT INTO due (topic_id, fire_at, seq, priority)
     SELECT topic_id, fire_at, seq, priority FROM scheduled WHERE seq >= $1;",
    move_heads!("$2")
);

/// Bodies are bound once; the narrow tables are filled from them.
pub(super) async fn put(connection: &mut SqliteConnection, events: &[NewEvent]) -> Result<Vec<Kept>, Error> {
    let topics = topics(connection, &categories(events.iter().map(|event| &event.category))).await?;
    let known = known::known(connection, &topics, events).await?;
    let fresh = fresh(events, &known);
    if fresh.is_empty() {
        return Ok(kept(events, [], &known));
    }
    let first = reserve(connection, fresh.len()).await?;
    let mut moves = Moves::default();
    let mut rows = Vec::with_capacity(fresh.len());
    for (i, seq) in fresh.into_iter().zip(first..) {
        let topic = topics.get(&events[i].category).id;
        moves.wait(topic, 1);
        rows.push((i, seq, topic));
    }
    let columns = "seq, topic_id, id, priority, created_at, fire_at, key, owner, recurring_id, data";
    insert(connection, "scheduled", columns, &rows, |query, (i, seq, topic)| {
        let event = &events[*i];
        query
            .bind(seq)
            .bind(topic)
            .bind(event.id.as_str().to_owned())
            .bind(level(event.priority))
            .bind(event.created_at.as_micros())
            .bind(event.fire_at.as_micros())
            .bind(event.key.as_ref().map(|key| key.as_str().to_owned()))
            .bind(event.owner.as_ref().map(|owner| owner.as_str().to_owned()))
            .bind(event.recurring.as_ref().map(|id| id.as_str().to_owned()))
            .bind(event.data.to_vec())
    })
    .await?;
    sqlx::query(LIST).bind(first).bind(list(moves.each())).execute(&mut *connection).await?;
    Ok(kept(events, rows.iter().map(|(i, seq, _)| (*i, keep::waiting(*seq))), &known))
}

/// ?1: numbers.
const FIRING: &str = r#"
SELECT w.topic_id, t.last_offset, t.name AS category, w.id, w.key, w.priority, w.data, w.created_at, w.fire_at, w.owner,
       w.recurring_id, w.seq, NULL AS "offset", NULL AS fired_at
FROM json_each(?1) j CROSS JOIN scheduled w ON w.seq = j.value CROSS JOIN topic t ON t.id = w.topic_id
ORDER BY j.key"#;

/// All that is written when events fire, in one go: each statement by itself would wait for the connection's thread. From here on bodies stay
/// in the database. $1: numbers with their offsets, $2: the time, $3: how many, $4: how far the heads move.
const TO_LOG: &str = concat!(
    r#"INSERT INTO event (topic_id, "offset", id, priority, created_at, fire_at, fired_at, key, owner, recurring_id, data)
       SELECT w.topic_id, j.value ->> 1, w.id, w.priority, w.created_at, w.fire_at, $2, w.key, w.owner, w.recurring_id, w.data
       FROM json_each($1) j CROSS JOIN scheduled w ON w.seq = j.value ->> 0
       ORDER BY j.key;"#,
    place_ids!("$3"),
    ";",
    forget_due!("$1"),
    ";DELETE FROM scheduled WHERE seq IN (SELECT value ->> 0 FROM json_each($1));",
    move_heads!("$4")
);

async fn fire(connection: &mut SqliteConnection, seqs: &str, at: Timestamp) -> Result<Vec<Event>, Error> {
    let rows = sqlx::query_as(FIRING).bind(seqs).fetch_all(&mut *connection).await?;
    let mut moves = Moves::default();
    let (fired, events) = row::fire(rows, at, &mut moves)?;
    if events.is_empty() {
        return Ok(events);
    }
    let count = i64::try_from(fired.len()).expect("a batch fits in memory");
    sqlx::query(TO_LOG)
        .bind(list(fired))
        .bind(at.as_micros())
        .bind(count)
        .bind(list(moves.each()))
        .execute(connection)
        .await?;
    Ok(events)
}

/// Takes what waits under these numbers out of the schedule; a JSON list. Their ids are free.
pub(super) async fn withdraw(connection: &mut SqliteConnection, seqs: &str) -> Result<(), Error> {
    sqlx::query(WITHDRAW).bind(seqs).execute(connection).await?;
    Ok(())
}

const WITHDRAW: &str = "
UPDATE topic SET waiting = waiting - g.count FROM (
    SELECT w.topic_id, count(*) AS count FROM json_each($1) j CROSS JOIN scheduled w ON w.seq = j.value
    GROUP BY w.topic_id) g
WHERE topic.id = g.topic_id;
DELETE FROM seen WHERE (id, topic_id) IN (
    SELECT w.id, w.topic_id FROM json_each($1) j CROSS JOIN scheduled w ON w.seq = j.value);
DELETE FROM due WHERE (topic_id, fire_at, seq) IN (
    SELECT w.topic_id, w.fire_at, w.seq FROM json_each($1) j CROSS JOIN scheduled w ON w.seq = j.value);
DELETE FROM scheduled WHERE seq IN (SELECT value FROM json_each($1))";

#[cfg(test)]
mod tests {
    use std::{borrow::Cow, time::Duration};

    use bytes::Bytes;
    use notifyx_database::{Database, DatabaseUrl, Migrations, Options};
    use notifyx_model::{EventId, ManualClock, Priority};
    use sqlx::migrate::Migrator;

    use super::*;
    use crate::store::{self, MIGRATIONS};

    #[tokio::test]
    async fn what_waited_before_topics_knew_their_next_is_found() {
        let before = || Migrator { migrations: Cow::Borrowed(&MIGRATIONS.sqlite.migrations[..2]), ..Migrator::DEFAULT };
        let before = Migrations { sqlite: before(), postgres: before() };
        let folder = tempfile::tempdir().unwrap();
        let url = DatabaseUrl::sqlite(folder.path().join("events.db"));
        let clock = ManualClock::new().clock();
        let event = |of: &str, ms: u64| NewEvent {
            id: EventId::parse(&format!("{of}{ms}")).unwrap(),
            category: Category::parse(of).unwrap(),
            key: None,
            priority: Priority::default(),
            data: Bytes::from_static(b"null"),
            created_at: clock.now(),
            fire_at: clock.now() + Duration::from_millis(ms),
            owner: None,
            recurring: None,
        };
        let old = Database::open(&url, Options::default(), &before).await.unwrap();
        let waiting = [event("a", 30), event("b", 10), event("a", 20), event("b", 40)];
        store::open(&old, &clock).schedule(&waiting).await.unwrap();
        old.close().await;
        drop(old);

        let new = Database::open(&url, Options::default(), &MIGRATIONS).await.unwrap();
        let store = store::open(&new, &clock);
        store.schedule(&[event("c", 5), event("a", 25)]).await.unwrap();
        let due = store.due(clock.now() + Duration::from_secs(1), None, 10).await.unwrap();
        let after: Vec<_> = due.iter().map(|due| due.slot.at.since(clock.now()).as_millis()).collect();
        assert_eq!(after, [5, 10, 20, 25, 30, 40]);
        assert_eq!(store.earliest().await.unwrap(), Some(due[0].slot.at));
    }
}

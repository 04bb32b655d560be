//! The participant of two-phase commit on SQLite. A commit is the place where notifications get their offsets.

use std::collections::{HashMap, HashSet};

use async_trait::async_trait;
use notifyx_commit::participant::{Asker, Judge, NO_REQUEST, OnCommit, OnRollback, Origin, Refusal, Row};
use notifyx_model::{Gid, Timestamp, TopicId, UserId, first_id_at};
use notifyx_wire::rest::commit::Applied;
use sqlx::{QueryBuilder, SqliteConnection};
use uuid::Uuid;

use super::{Sqlite, hex_list, pair_list};
use crate::{
    Error,
    store::{
        Gate, Inserted, Preparation, Transactions,
        row::{self, AppliedRow, GateRow, PtxnRow},
    },
};

#[async_trait]
impl Transactions for Sqlite {
    async fn gates(&self, topics: &[TopicId]) -> Result<Vec<Gate>, Error> {
        let rows: Vec<GateRow> = sqlx::query_as(
            "SELECT id, name, creator_id, status FROM topic WHERE id IN (SELECT unhex(value) FROM json_each(?1))",
        )
        .bind(hex_list(topics.iter().map(|id| id.uuid())))
        .fetch_all(self.read())
        .await?;
        row::all(rows)
    }

    async fn strangers(&self, pairs: &[(TopicId, UserId)]) -> Result<Vec<(TopicId, UserId)>, Error> {
        let hex = |id: Uuid| id.simple().to_string();
        let rows: Vec<(Uuid, Uuid)> = sqlx::query_as(
            "SELECT topic_id, user_id FROM (
                 SELECT unhex(value ->> 0) AS topic_id, unhex(value ->> 1) AS user_id FROM json_each(?1)) w
             WHERE NOT EXISTS (SELECT 1 FROM subscription s WHERE s.user_id = w.user_id AND s.topic_id = w.topic_id)",
        )
        .bind(pair_list(pairs.iter().map(|(topic, user)| (hex(topic.uuid()), hex(user.uuid())))))
        .fetch_all(self.read())
        .await?;
        Ok(rows.into_iter().map(|(topic, user)| (TopicId::from_uuid(topic), UserId::from_uuid(user))).collect())
    }

    async fn prepare(&self, items: &[Preparation], origin: Origin, at: Timestamp) -> Result<Vec<Inserted>, Error> {
        let mut tx = self.begin().await?;
        let inserted = insert(&mut tx, &row::firsts(items), origin, at).await?;
        let mut found = HashMap::new();
        if inserted.len() < items.len() {
            let gids = hex_list(items.iter().map(|item| item.gid.uuid()));
            for row in read(&mut tx, &gids).await? {
                found.insert(row.gid, row.found()?);
            }
        }
        tx.commit().await?;
        Ok(row::inserted(items, inserted, &found))
    }

    async fn commit(
        &self,
        gids: &[Gid],
        asker: Asker,
        judge: Judge,
        at: Timestamp,
    ) -> Result<Vec<Result<Option<Applied>, Refusal>>, Error> {
        let mut tx = self.begin().await?;
        let (mut verdicts, mut topics) = (HashMap::new(), HashSet::new());
        for row in read(&mut tx, &hex_list(gids.iter().map(|gid| gid.uuid()))).await? {
            let verdict = judge.commit(Some(&row.judged()?), asker);
            topics.extend(row.topic_id.filter(|_| verdict == OnCommit::Apply));
            verdicts.insert(row.gid, verdict);
        }
        let verdict = |gid: &Gid| verdicts.get(&gid.uuid()).copied().unwrap_or_else(|| judge.commit(None, asker));

        let mut apply: Vec<Uuid> = Vec::new();
        for gid in gids {
            if verdict(gid) == OnCommit::Apply && !apply.contains(&gid.uuid()) {
                apply.push(gid.uuid());
            }
        }
        let mut applied = HashMap::new();
        if !apply.is_empty() {
            applied.extend(append(&mut tx, apply, topics, at).await?);
        }
        let before: Vec<Uuid> =
            gids.iter().filter(|gid| verdict(gid) == OnCommit::Done).map(|gid| gid.uuid()).collect();
        if !before.is_empty() {
            applied.extend(find_applied(&mut tx, &hex_list(before)).await?);
        }
        tx.commit().await?;
        Ok(gids
            .iter()
            .map(|gid| match verdict(gid) {
                OnCommit::Apply | OnCommit::Done => Ok(applied.get(gid).cloned()),
                OnCommit::Refuse(refusal) => Err(refusal),
            })
            .collect())
    }

    async fn rollback(
        &self,
        gids: &[Gid],
        asker: Asker,
        judge: Judge,
        at: Timestamp,
    ) -> Result<Vec<Result<(), Refusal>>, Error> {
        let mut tx = self.begin().await?;
        let mut verdicts = HashMap::new();
        for row in read(&mut tx, &hex_list(gids.iter().map(|gid| gid.uuid()))).await? {
            verdicts.insert(row.gid, judge.rollback(Some(&row.judged()?), asker));
        }
        let verdict = |gid: &Gid| verdicts.get(&gid.uuid()).copied().unwrap_or_else(|| judge.rollback(None, asker));
        let chosen =
            |which: OnRollback| hex_list(gids.iter().filter(|gid| verdict(gid) == which).map(|gid| gid.uuid()));
        abort(&mut tx, &chosen(OnRollback::Release), false).await?;
        sqlx::query(
            "INSERT INTO ptxn (gid, origin, user_id, state, req_hash, prepared_at)
             SELECT unhex(value), 'coordinator', ?2, 'ABORTED', ?3, ?4 FROM json_each(?1) WHERE true
             ON CONFLICT (gid) DO NOTHING",
        )
        .bind(chosen(OnRollback::Tombstone))
        .bind(Uuid::nil())
        .bind(NO_REQUEST.as_slice())
        .bind(at.as_micros())
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(gids
            .iter()
            .map(|gid| match verdict(gid) {
                OnRollback::Release | OnRollback::Tombstone | OnRollback::Done => Ok(()),
                OnRollback::Refuse(refusal) => Err(refusal),
            })
            .collect())
    }

    async fn publish(&self, item: &Preparation, at: Timestamp) -> Result<Applied, Error> {
        let mut tx = self.begin().await?;
        insert(&mut tx, &[item], Origin::Client, at).await?;
        let (_, applied) = append(&mut tx, [item.gid.uuid()], [item.topic_id.uuid()], at)
            .await?
            .pop()
            .ok_or(Error::NotificationIdTaken(item.notification_id))?;
        tx.commit().await?;
        Ok(applied)
    }

    async fn find(&self, gid: Gid) -> Result<Option<Row>, Error> {
        let sql = format!("SELECT {} FROM ptxn WHERE gid = ?1", PtxnRow::COLUMNS);
        let row: Option<PtxnRow> = sqlx::query_as(&sql).bind(gid.uuid()).fetch_optional(self.read()).await?;
        row.map(|row| row.judged()).transpose()
    }

    async fn expire(&self, until: Timestamp) -> Result<u64, Error> {
        let mut tx = self.begin().await?;
        let gids: Vec<(Uuid,)> = sqlx::query_as(
            "SELECT gid FROM ptxn WHERE state = 'PREPARED' AND origin = 'client' AND prepared_at <= ?1 LIMIT 1000",
        )
        .bind(until.as_micros())
        .fetch_all(&mut *tx)
        .await?;
        if !gids.is_empty() {
            abort(&mut tx, &hex_list(gids.iter().map(|(gid,)| *gid)), true).await?;
        }
        tx.commit().await?;
        Ok(gids.len() as u64)
    }

    async fn overdue(&self, before: Timestamp) -> Result<u64, Error> {
        let (count,): (i64,) =
            sqlx::query_as("SELECT count(*) FROM ptxn WHERE state = 'PREPARED' AND origin = ?2 AND prepared_at < ?1")
                .bind(before.as_micros())
                .bind(Origin::Coordinator.as_str())
                .fetch_one(self.read())
                .await?;
        Ok(row::unsigned(count))
    }

    async fn forget(&self, before: Timestamp, rows: u32) -> Result<u64, Error> {
        let mut tx = self.begin().await?;
        // Ids of version 7 sort by the time they were made: the primary key finds the oldest.
        let deleted = sqlx::query(
            "DELETE FROM ptxn WHERE gid IN (
                 SELECT gid FROM ptxn WHERE gid < ?1 AND state <> 'PREPARED' AND prepared_at < ?2 ORDER BY gid LIMIT ?3)",
        )
        .bind(first_id_at(before))
        .bind(before.as_micros())
        .bind(i64::from(rows))
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(deleted.rows_affected())
    }
}

/// Inserts what is new; which ones were. At most 512 rows of 13 values: far below SQLite's 32,766 variables.
async fn insert(
    connection: &mut SqliteConnection,
    items: &[&Preparation],
    origin: Origin,
    at: Timestamp,
) -> Result<Vec<Uuid>, Error> {
    let mut query = QueryBuilder::new(
        "INSERT INTO ptxn (gid, origin, user_id, state, req_hash, prepared_at,
                           refusal, notification_id, topic_id, from_email, message, priority, to_users) ",
    );
    query.push_values(items, |mut row, item| {
        // What is refused reserves nothing.
        let prepared = item.refusal.is_none();
        let to_users = item.to_users.as_ref().filter(|_| prepared);
        row.push_bind(item.gid.uuid())
            .push_bind(origin.as_str())
            .push_bind(item.from_user_id.uuid())
            .push_bind(item.state().as_str())
            .push_bind(item.request.as_slice())
            .push_bind(at.as_micros())
            .push_bind(item.refusal())
            .push_bind(prepared.then(|| item.notification_id.uuid()))
            .push_bind(prepared.then(|| item.topic_id.uuid()))
            .push_bind(prepared.then(|| item.from.as_str()))
            .push_bind(prepared.then(|| item.message.as_str()))
            .push_bind(prepared.then(|| i64::from(u8::from(item.priority))))
            .push_bind(to_users.map(|users| hex_list(users.iter().map(|user| user.uuid()))));
    });
    query.push(" ON CONFLICT DO NOTHING RETURNING gid");
    // Each length is a statement of its own: none is worth a place in the cache.
    let gids: Vec<(Uuid,)> = query.build_query_as().persistent(false).fetch_all(connection).await?;
    Ok(gids.into_iter().map(|(gid,)| gid).collect())
}

async fn read(connection: &mut SqliteConnection, gids: &str) -> Result<Vec<PtxnRow>, Error> {
    let sql = format!("SELECT {} FROM ptxn WHERE gid IN (SELECT unhex(value) FROM json_each(?1))", PtxnRow::COLUMNS);
    Ok(sqlx::query_as(&sql).bind(gids).fetch_all(connection).await?)
}

/// Writes what is prepared under the gids in ?1 (each once) at the end of its topics, in this order; ?2 is the time.
const WRITE: &str = r#"
INSERT INTO notification (topic_id, "offset", broadcast_no, targeted, id, gid, from_user_id, from_email, message, priority,
                          inserted_at)
SELECT p.topic_id, t.last_offset + row_number() OVER place,
       t.last_broadcast_no + sum(p.to_users IS NULL) OVER place, p.to_users IS NOT NULL,
       p.notification_id, p.gid, p.user_id, p.from_email, p.message, p.priority,
       max(?2, t.last_at + 1) + row_number() OVER place - 1
FROM json_each(?1) w CROSS JOIN ptxn p ON p.gid = unhex(w.value) CROSS JOIN topic t ON t.id = p.topic_id
WINDOW place AS (PARTITION BY p.topic_id ORDER BY w.key)
RETURNING gid, id, (SELECT name FROM topic t WHERE t.id = topic_id) AS topic, "offset", broadcast_no, targeted, inserted_at"#;

const ADDRESS: &str = r#"
INSERT INTO recipient (topic_id, "offset", user_id, inserted_at, seen)
SELECT n.topic_id, n."offset", unhex(u.value), n.inserted_at, 0
FROM json_each(?1) w CROSS JOIN ptxn p ON p.gid = unhex(w.value) CROSS JOIN notification n ON n.gid = p.gid
CROSS JOIN json_each(p.to_users) u WHERE p.to_users IS NOT NULL"#;

/// Moves the heads of the topics in ?1, each of which just got one, to their newest notification.
const HEADS: &str = r#"
UPDATE topic SET (last_offset, last_broadcast_no, last_at) =
    (SELECT n."offset", n.broadcast_no, n.inserted_at FROM notification n WHERE n.topic_id = topic.id
     ORDER BY n."offset" DESC LIMIT 1)
WHERE id IN (SELECT unhex(value) FROM json_each(?1))"#;

const DECIDE: &str = "
UPDATE ptxn SET state = 'COMMITTED', from_email = NULL, message = NULL, priority = NULL, to_users = NULL
WHERE gid IN (SELECT unhex(value) FROM json_each(?1))";

/// Of gids that are prepared, each once, and their topics.
async fn append(
    connection: &mut SqliteConnection,
    gids: impl IntoIterator<Item = Uuid>,
    topics: impl IntoIterator<Item = Uuid>,
    at: Timestamp,
) -> Result<Vec<(Gid, Applied)>, Error> {
    let gids = hex_list(gids);
    let rows: Vec<AppliedRow> =
        sqlx::query_as(WRITE).bind(&gids).bind(at.as_micros()).fetch_all(&mut *connection).await?;
    let applied = rows.into_iter().map(AppliedRow::read).collect::<Result<Vec<_>, _>>()?;
    if applied.iter().any(|(_, applied)| applied.broadcast_no.is_none()) {
        sqlx::query(ADDRESS).bind(&gids).execute(&mut *connection).await?;
    }
    sqlx::query(HEADS).bind(hex_list(topics)).execute(&mut *connection).await?;
    sqlx::query(DECIDE).bind(&gids).execute(connection).await?;
    Ok(applied)
}

async fn find_applied(connection: &mut SqliteConnection, gids: &str) -> Result<Vec<(Gid, Applied)>, Error> {
    let rows: Vec<AppliedRow> = sqlx::query_as(
        r#"SELECT n.gid, n.id, t.name AS topic, n."offset", n.broadcast_no, n.targeted, n.inserted_at
           FROM notification n JOIN topic t ON t.id = n.topic_id
           WHERE n.gid IN (SELECT unhex(value) FROM json_each(?1))"#,
    )
    .bind(gids)
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(AppliedRow::read).collect()
}

/// Gives back what was reserved.
async fn abort(connection: &mut SqliteConnection, gids: &str, expired: bool) -> Result<(), Error> {
    sqlx::query(
        "UPDATE ptxn SET state = 'ABORTED', expired = ?2, notification_id = NULL, topic_id = NULL, from_email = NULL, message = NULL,
                priority = NULL, to_users = NULL
         WHERE gid IN (SELECT unhex(value) FROM json_each(?1))",
    )
    .bind(gids)
    .bind(expired)
    .execute(connection)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Conformance counts the rows; this says why their number cannot depend on subscribers.
    #[test]
    fn no_step_of_a_commit_looks_at_subscriptions() {
        assert!(![WRITE, ADDRESS, HEADS, DECIDE].concat().contains("subscription"));
    }
}

//! The participant of two-phase commit on Postgres. A commit is the place where notifications get their offsets.

use std::collections::HashMap;

use async_trait::async_trait;
use notifyx_commit::participant::{Asker, Judge, NO_REQUEST, OnCommit, OnRollback, Origin, Refusal, Row};
use notifyx_model::{Gid, Timestamp, TopicId, UserId, first_id_at};
use notifyx_wire::rest::commit::Applied;
use sqlx::PgConnection;
use uuid::Uuid;

use super::{Postgres, lock_topics};
use crate::{
    Error,
    store::{
        Gate, Inserted, Preparation, Transactions,
        row::{self, AppliedRow, GateRow, PtxnRow},
    },
};

#[async_trait]
impl Transactions for Postgres {
    async fn gates(&self, topics: &[TopicId]) -> Result<Vec<Gate>, Error> {
        let ids: Vec<Uuid> = topics.iter().map(|id| id.uuid()).collect();
        let rows: Vec<GateRow> = sqlx::query_as("SELECT id, name, creator_id, status FROM topic WHERE id = ANY($1)")
            .bind(ids)
            .fetch_all(&self.pool)
            .await?;
        row::all(rows)
    }

    async fn strangers(&self, pairs: &[(TopicId, UserId)]) -> Result<Vec<(TopicId, UserId)>, Error> {
        let (topics, users): (Vec<Uuid>, Vec<Uuid>) =
            pairs.iter().map(|(topic, user)| (topic.uuid(), user.uuid())).unzip();
        let rows: Vec<(Uuid, Uuid)> = sqlx::query_as(
            "SELECT topic_id, user_id FROM UNNEST($1::uuid[], $2::uuid[]) AS w (topic_id, user_id)
             WHERE NOT EXISTS (SELECT 1 FROM subscription s WHERE s.user_id = w.user_id AND s.topic_id = w.topic_id)",
        )
        .bind(topics)
        .bind(users)
        .fetch_all(&self.pool)
        .await?;
        Ok(rows.into_iter().map(|(topic, user)| (TopicId::from_uuid(topic), UserId::from_uuid(user))).collect())
    }

    async fn prepare(&self, items: &[Preparation], origin: Origin, at: Timestamp) -> Result<Vec<Inserted>, Error> {
        let mut tx = self.pool.begin().await?;
        let inserted = insert(&mut tx, &row::firsts(items), origin, at).await?;
        let mut found = HashMap::new();
        if inserted.len() < items.len() {
            let gids = items.iter().map(|item| item.gid.uuid()).collect::<Vec<_>>();
            for row in lock(&mut tx, &gids).await? {
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
        let ids: Vec<Uuid> = gids.iter().map(|gid| gid.uuid()).collect();
        let mut tx = self.pool.begin().await?;
        let rows = lock(&mut tx, &ids).await?;
        let mut verdicts = HashMap::new();
        for row in &rows {
            verdicts.insert(row.gid, (judge.commit(Some(&row.judged()?), asker), row.topic_id));
        }
        let verdict = |gid: &Uuid| verdicts.get(gid).map_or_else(|| judge.commit(None, asker), |(verdict, _)| *verdict);

        let mut apply: Vec<Uuid> = Vec::new();
        let mut topics: Vec<Uuid> = Vec::new();
        for gid in &ids {
            if verdict(gid) == OnCommit::Apply && !apply.contains(gid) {
                apply.push(*gid);
                topics.extend(verdicts.get(gid).and_then(|(_, topic)| *topic));
            }
        }
        let mut applied = HashMap::new();
        if !apply.is_empty() {
            topics.sort_unstable();
            topics.dedup();
            // In a statement of its own: the next one then sees the heads as they are under the lock.
            lock_topics(&mut tx, &topics).await?;
            applied.extend(append(&mut tx, &apply, at).await?);
        }
        let before: Vec<Uuid> = ids.iter().copied().filter(|gid| verdict(gid) == OnCommit::Done).collect();
        if !before.is_empty() {
            applied.extend(find_applied(&mut tx, &before).await?);
        }
        tx.commit().await?;
        Ok(gids
            .iter()
            .map(|gid| match verdict(&gid.uuid()) {
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
        let ids: Vec<Uuid> = gids.iter().map(|gid| gid.uuid()).collect();
        let mut tx = self.pool.begin().await?;
        if asker == Asker::Coordinator {
            // A row that is not there cannot be locked: a prepare that is on its way meets the tombstone instead.
            sqlx::query(
                "INSERT INTO ptxn (gid, origin, user_id, state, req_hash, prepared_at)
                 SELECT DISTINCT gid, 'coordinator', $2, 'ABORTED', $3, $4 FROM UNNEST($1::uuid[]) AS w (gid)
                 ORDER BY gid ON CONFLICT (gid) DO NOTHING",
            )
            .bind(&ids)
            .bind(Uuid::nil())
            .bind(NO_REQUEST.as_slice())
            .bind(at.as_micros())
            .execute(&mut *tx)
            .await?;
        }
        let mut verdicts = HashMap::new();
        for row in lock(&mut tx, &ids).await? {
            verdicts.insert(row.gid, judge.rollback(Some(&row.judged()?), asker));
        }
        let verdict = |gid: &Uuid| verdicts.get(gid).copied().unwrap_or_else(|| judge.rollback(None, asker));
        let release: Vec<Uuid> = ids.iter().copied().filter(|gid| verdict(gid) == OnRollback::Release).collect();
        if !release.is_empty() {
            abort(&mut tx, &release, false).await?;
        }
        tx.commit().await?;
        Ok(ids
            .iter()
            .map(|gid| match verdict(gid) {
                OnRollback::Release | OnRollback::Tombstone | OnRollback::Done => Ok(()),
                OnRollback::Refuse(refusal) => Err(refusal),
            })
            .collect())
    }

    async fn publish(&self, item: &Preparation, at: Timestamp) -> Result<Applied, Error> {
        let mut tx = self.pool.begin().await?;
        insert(&mut tx, &[item], Origin::Client, at).await?;
        lock_topics(&mut tx, &[item.topic_id.uuid()]).await?;
        let (_, applied) = append(&mut tx, &[item.gid.uuid()], at)
            .await?
            .pop()
            .ok_or(Error::NotificationIdTaken(item.notification_id))?;
        tx.commit().await?;
        Ok(applied)
    }

    async fn find(&self, gid: Gid) -> Result<Option<Row>, Error> {
        let sql = format!("SELECT {} FROM ptxn WHERE gid = $1", PtxnRow::COLUMNS);
        let row: Option<PtxnRow> = sqlx::query_as(&sql).bind(gid.uuid()).fetch_optional(&self.pool).await?;
        row.map(|row| row.judged()).transpose()
    }

    async fn expire(&self, until: Timestamp) -> Result<u64, Error> {
        let mut tx = self.pool.begin().await?;
        // What another transaction is deciding right now is left to it.
        let gids: Vec<(Uuid,)> = sqlx::query_as(
            "SELECT gid FROM ptxn WHERE state = 'PREPARED' AND origin = 'client' AND prepared_at <= $1
             ORDER BY gid LIMIT 1000 FOR UPDATE SKIP LOCKED",
        )
        .bind(until.as_micros())
        .fetch_all(&mut *tx)
        .await?;
        let gids: Vec<Uuid> = gids.into_iter().map(|(gid,)| gid).collect();
        if !gids.is_empty() {
            abort(&mut tx, &gids, true).await?;
        }
        tx.commit().await?;
        Ok(gids.len() as u64)
    }

    async fn overdue(&self, before: Timestamp) -> Result<u64, Error> {
        let (count,): (i64,) =
            sqlx::query_as("SELECT count(*) FROM ptxn WHERE state = 'PREPARED' AND origin = $2 AND prepared_at < $1")
                .bind(before.as_micros())
                .bind(Origin::Coordinator.as_str())
                .fetch_one(&self.pool)
                .await?;
        Ok(row::unsigned(count))
    }

    async fn forget(&self, before: Timestamp, rows: u32) -> Result<u64, Error> {
        // Ids of version 7 sort by the time they were made: the primary key finds the oldest.
        let deleted = sqlx::query(
            "DELETE FROM ptxn WHERE gid IN (
                 SELECT gid FROM ptxn WHERE gid < $1 AND state <> 'PREPARED' AND prepared_at < $2
                 ORDER BY gid LIMIT $3 FOR UPDATE SKIP LOCKED)",
        )
        .bind(first_id_at(before))
        .bind(before.as_micros())
        .bind(i64::from(rows))
        .execute(&self.pool)
        .await?;
        Ok(deleted.rows_affected())
    }
}

/// Inserts what is new, in order of gid; which ones were.
async fn insert(
    connection: &mut PgConnection,
    items: &[&Preparation],
    origin: Origin,
    at: Timestamp,
) -> Result<Vec<Uuid>, Error> {
    fn column<'a, T>(items: &[&'a Preparation], of: impl Fn(&'a Preparation) -> T) -> Vec<T> {
        items.iter().map(|item| of(item)).collect()
    }
    // Arrays of arrays must be rectangular in Postgres: recipients travel as text.
    let to_users = |item: &Preparation| {
        item.to_users.as_ref().map(|users| users.iter().map(ToString::to_string).collect::<Vec<_>>().join(","))
    };
    let prepared = |item: &Preparation| item.refusal.is_none();
    let gids: Vec<(Uuid,)> = sqlx::query_as(
        "INSERT INTO ptxn (gid, origin, user_id, state, req_hash, prepared_at,
                           refusal, notification_id, topic_id, from_email, message, priority, to_users)
         SELECT gid, $11, user_id, state, req_hash, $12,
                refusal, notification_id, topic_id, from_email, message, priority, string_to_array(to_users, ',')::uuid[]
         FROM UNNEST($1::uuid[], $2::uuid[], $3::text[], $4::bytea[], $5::uuid[], $6::uuid[], $7::text[], $8::text[],
                     $9::smallint[], $10::text[], $13::text[])
              AS w (gid, user_id, state, req_hash, notification_id, topic_id, from_email, message, priority, to_users, refusal)
         ORDER BY gid ON CONFLICT DO NOTHING RETURNING gid",
    )
    .bind(column(items, |item| item.gid.uuid()))
    .bind(column(items, |item| item.from_user_id.uuid()))
    .bind(column(items, |item| item.state().as_str()))
    .bind(column(items, |item| item.request.as_slice()))
    // What is refused reserves nothing.
    .bind(column(items, |item| prepared(item).then(|| item.notification_id.uuid())))
    .bind(column(items, |item| prepared(item).then(|| item.topic_id.uuid())))
    .bind(column(items, |item| prepared(item).then(|| item.from.as_str())))
    .bind(column(items, |item| prepared(item).then(|| item.message.as_str())))
    .bind(column(items, |item| prepared(item).then(|| i16::from(u8::from(item.priority)))))
    .bind(column(items, |item| if prepared(item) { to_users(item) } else { None }))
    .bind(origin.as_str())
    .bind(at.as_micros())
    .bind(column(items, Preparation::refusal))
    .fetch_all(connection)
    .await?;
    Ok(gids.into_iter().map(|(gid,)| gid).collect())
}

async fn lock(connection: &mut PgConnection, gids: &[Uuid]) -> Result<Vec<PtxnRow>, Error> {
    let sql = format!("SELECT {} FROM ptxn WHERE gid = ANY($1) ORDER BY gid FOR UPDATE", PtxnRow::COLUMNS);
    Ok(sqlx::query_as(&sql).bind(gids).fetch_all(connection).await?)
}

/// Writes what is prepared under `gids` (each once, locked, as are the topics) at the end of its topics, in this order.
const APPEND: &str = r#"
WITH numbered AS (
    SELECT p.gid, p.notification_id, p.topic_id, t.name, p.user_id, p.from_email, p.message, p.priority, p.to_users,
           p.to_users IS NOT NULL AS targeted,
           t.last_offset + row_number() OVER place AS "offset",
           t.last_broadcast_no + count(*) FILTER (WHERE p.to_users IS NULL) OVER place AS broadcast_no,
           GREATEST($2, t.last_at + 1) + row_number() OVER place - 1 AS inserted_at
    FROM UNNEST($1::uuid[]) WITH ORDINALITY AS w (gid, place)
    JOIN ptxn p ON p.gid = w.gid
    JOIN topic t ON t.id = p.topic_id
    WINDOW place AS (PARTITION BY p.topic_id ORDER BY w.place)
), written AS (
    INSERT INTO notification (topic_id, "offset", broadcast_no, targeted, id, gid, from_user_id, from_email, message,
                              priority, inserted_at)
    SELECT topic_id, "offset", broadcast_no, targeted, notification_id, gid, user_id, from_email, message, priority, inserted_at
    FROM numbered
), addressed AS (
    INSERT INTO recipient (topic_id, "offset", user_id, inserted_at, seen)
    SELECT topic_id, "offset", to_user, inserted_at, false FROM numbered CROSS JOIN LATERAL UNNEST(to_users) AS u (to_user)
), heads AS (
    UPDATE topic t SET last_offset = h.last_offset, last_broadcast_no = h.last_broadcast_no, last_at = h.last_at
    FROM (SELECT topic_id, max("offset") AS last_offset, max(broadcast_no) AS last_broadcast_no, max(inserted_at) AS last_at
          FROM numbered GROUP BY topic_id) h
    WHERE t.id = h.topic_id
), decided AS (
    UPDATE ptxn p SET state = 'COMMITTED', from_email = NULL, message = NULL, priority = NULL, to_users = NULL
    FROM numbered n WHERE p.gid = n.gid
)
SELECT gid, notification_id AS id, name AS topic, "offset", broadcast_no, targeted, inserted_at FROM numbered"#;

async fn append(connection: &mut PgConnection, gids: &[Uuid], at: Timestamp) -> Result<Vec<(Gid, Applied)>, Error> {
    let rows: Vec<AppliedRow> = sqlx::query_as(APPEND).bind(gids).bind(at.as_micros()).fetch_all(connection).await?;
    rows.into_iter().map(AppliedRow::read).collect()
}

async fn find_applied(connection: &mut PgConnection, gids: &[Uuid]) -> Result<Vec<(Gid, Applied)>, Error> {
    let rows: Vec<AppliedRow> = sqlx::query_as(
        r#"SELECT n.gid, n.id, t.name AS topic, n."offset", n.broadcast_no, n.targeted, n.inserted_at
           FROM notification n JOIN topic t ON t.id = n.topic_id WHERE n.gid = ANY($1)"#,
    )
    .bind(gids)
    .fetch_all(connection)
    .await?;
    rows.into_iter().map(AppliedRow::read).collect()
}

/// Gives back what was reserved.
async fn abort(connection: &mut PgConnection, gids: &[Uuid], expired: bool) -> Result<(), Error> {
    sqlx::query(
        "UPDATE ptxn SET state = 'ABORTED', expired = $2, notification_id = NULL, topic_id = NULL, from_email = NULL, message = NULL,
                priority = NULL, to_users = NULL
         WHERE gid = ANY($1)",
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
        assert!(!APPEND.contains("subscription"));
    }
}

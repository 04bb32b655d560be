//! The statements for Postgres. Sets are locked in order, so that instances side by side never wait in a circle.

use std::collections::HashMap;

use async_trait::async_trait;
use notifyx_commit::participant::{
    Asker, Judge, NO_REQUEST, OnCommit, OnPrepare, OnRollback, Origin, Refusal, Row, State,
};
use notifyx_model::{Gid, Timestamp, TopicId, first_id_at};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::{Committed, Count, Counted, Increment, PtxnRow, Store, by_gid, columns, count, totals};
use crate::Error;

pub(super) struct Postgres {
    pool: PgPool,
}

impl Postgres {
    pub(super) fn new(pool: PgPool) -> Self {
        Self { pool }
    }
}

#[async_trait]
impl Store for Postgres {
    async fn prepare(
        &self,
        items: &[Increment],
        asker: Asker,
        judge: Judge,
        at: Timestamp,
    ) -> Result<Vec<Result<(), Refusal>>, Error> {
        let mut tx = self.pool.begin().await?;
        // Inserted first, because a row that is not there cannot be locked: what is inserted is new and nobody else's.
        let inserted = sqlx::query(
            "INSERT INTO ptxn (gid, origin, state, user_id, topic_id, req_hash, prepared_at)
             SELECT gid, $5, $6, user_id, topic_id, req_hash, $7
             FROM UNNEST($1::uuid[], $2::uuid[], $3::uuid[], $4::bytea[]) AS item (gid, user_id, topic_id, req_hash)
             ORDER BY gid ON CONFLICT (gid) DO NOTHING",
        )
        .bind(column(items, |item| item.gid.uuid()))
        .bind(column(items, |item| item.user_id.uuid()))
        .bind(column(items, |item| item.topic_id.map(TopicId::uuid)))
        .bind(column(items, |item| item.request.as_slice()))
        .bind(asker.origin().as_str())
        .bind(State::Prepared.as_str())
        .bind(at.as_micros())
        .execute(&mut *tx)
        .await?
        .rows_affected();
        let found = if inserted < items.len() as u64 {
            Some(lock(&mut tx, &column(items, |item| item.gid.uuid())).await?)
        } else {
            None
        };
        tx.commit().await?;
        let Some(found) = found else { return Ok(vec![Ok(()); items.len()]) };
        let outcome = |item: &Increment| {
            let row = found.get(&item.gid).map(|(_, row)| row);
            match judge.prepare(row, asker, &item.request) {
                OnPrepare::Yes | OnPrepare::Reserve => Ok(()),
                OnPrepare::No(refusal) => Err(refusal),
            }
        };
        Ok(items.iter().map(outcome).collect())
    }

    async fn commit(&self, gids: &[Gid], asker: Asker, judge: Judge) -> Result<Committed, Error> {
        let mut tx = self.pool.begin().await?;
        let found = lock(&mut tx, &column(gids, |gid| gid.uuid())).await?;
        let verdict = |gid: &Gid| judge.commit(found.get(gid).map(|(_, row)| row), asker);
        let apply: Vec<&PtxnRow> =
            found.iter().filter(|(gid, _)| verdict(gid) == OnCommit::Apply).map(|(_, (row, _))| row).collect();
        if !apply.is_empty() {
            set_state(&mut tx, &column(&apply, |row| row.gid), State::Committed).await?;
            let totals: Vec<_> = totals(apply.iter().copied()).into_iter().collect();
            sqlx::query(
                "INSERT INTO counter (kind, id, counter)
                 SELECT kind, id, added FROM UNNEST($1::text[], $2::uuid[], $3::bigint[]) AS total (kind, id, added)
                 ORDER BY kind, id
                 ON CONFLICT (kind, id) DO UPDATE SET counter = counter.counter + EXCLUDED.counter",
            )
            .bind(column(&totals, |((kind, _), _)| *kind))
            .bind(column(&totals, |((_, id), _)| *id))
            .bind(column(&totals, |(_, added)| *added))
            .execute(&mut *tx)
            .await?;
        }
        tx.commit().await?;
        let outcome = |gid| match verdict(gid) {
            OnCommit::Apply | OnCommit::Done => Ok(()),
            OnCommit::Refuse(refusal) => Err(refusal),
        };
        Ok(Committed { outcomes: gids.iter().map(outcome).collect(), applied: apply.len() as u64 })
    }

    async fn rollback(
        &self,
        gids: &[Gid],
        asker: Asker,
        judge: Judge,
        at: Timestamp,
    ) -> Result<Vec<Result<(), Refusal>>, Error> {
        let ids = column(gids, |gid| gid.uuid());
        let mut tx = self.pool.begin().await?;
        if asker == Asker::Coordinator {
            // A prepare that is still on its way meets the tombstone.
            sqlx::query(
                "INSERT INTO ptxn (gid, origin, state, user_id, req_hash, prepared_at)
                 SELECT gid, $2, $3, $4, $5, $6 FROM UNNEST($1::uuid[]) AS item (gid)
                 ORDER BY gid ON CONFLICT (gid) DO NOTHING",
            )
            .bind(&ids)
            .bind(Origin::Coordinator.as_str())
            .bind(State::Aborted.as_str())
            .bind(Uuid::nil())
            .bind(NO_REQUEST.as_slice())
            .bind(at.as_micros())
            .execute(&mut *tx)
            .await?;
        }
        let found = lock(&mut tx, &ids).await?;
        let verdict = |gid: &Gid| judge.rollback(found.get(gid).map(|(_, row)| row), asker);
        let release: Vec<Uuid> =
            ids.iter().copied().filter(|id| verdict(&Gid::from_uuid(*id)) == OnRollback::Release).collect();
        if !release.is_empty() {
            set_state(&mut tx, &release, State::Aborted).await?;
        }
        tx.commit().await?;
        let outcome = |gid| match verdict(gid) {
            OnRollback::Release | OnRollback::Tombstone | OnRollback::Done => Ok(()),
            OnRollback::Refuse(refusal) => Err(refusal),
        };
        Ok(gids.iter().map(outcome).collect())
    }

    async fn find(&self, gid: Gid) -> Result<Option<Row>, Error> {
        let row: Option<PtxnRow> = sqlx::query_as(concat!("SELECT ", columns!(), " FROM ptxn WHERE gid = $1"))
            .bind(gid.uuid())
            .fetch_optional(&self.pool)
            .await?;
        row.map(|row| row.judged()).transpose()
    }

    async fn count(&self, of: Counted) -> Result<Count, Error> {
        let statement = match of {
            Counted::User(_) => {
                "SELECT COALESCE((SELECT counter FROM counter WHERE kind = $1 AND id = $2), 0),
                        (SELECT count(*) FROM ptxn WHERE state = 'PREPARED' AND user_id = $2)"
            }
            Counted::Topic(_) => {
                "SELECT COALESCE((SELECT counter FROM counter WHERE kind = $1 AND id = $2), 0),
                        (SELECT count(*) FROM ptxn WHERE state = 'PREPARED' AND topic_id = $2)"
            }
        };
        Ok(count(sqlx::query_as(statement).bind(of.kind()).bind(of.id()).fetch_one(&self.pool).await?))
    }

    async fn expire(&self, until: Timestamp, limit: u32) -> Result<u64, Error> {
        // What another transaction is deciding right now is left to it.
        let done = sqlx::query(
            "WITH late AS MATERIALIZED (
                 SELECT gid FROM ptxn WHERE state = 'PREPARED' AND origin = 'client' AND prepared_at <= $1
                 ORDER BY gid LIMIT $2 FOR UPDATE SKIP LOCKED
             )
             UPDATE ptxn SET state = 'ABORTED', expired = true FROM late WHERE ptxn.gid = late.gid",
        )
        .bind(until.as_micros())
        .bind(i64::from(limit))
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected())
    }

    async fn overdue(&self, before: Timestamp) -> Result<u64, Error> {
        let (overdue,): (i64,) = sqlx::query_as(
            "SELECT count(*) FROM ptxn WHERE state = 'PREPARED' AND origin = 'coordinator' AND prepared_at < $1",
        )
        .bind(before.as_micros())
        .fetch_one(&self.pool)
        .await?;
        Ok(u64::try_from(overdue).unwrap_or(0))
    }

    async fn forget(&self, before: Timestamp, limit: u32) -> Result<u64, Error> {
        // Ids sort by the time they were made: the primary key finds the oldest.
        let done = sqlx::query(
            "WITH old AS MATERIALIZED (
                 SELECT gid FROM ptxn WHERE gid < $1 AND prepared_at < $2 AND state <> 'PREPARED'
                 ORDER BY gid LIMIT $3 FOR UPDATE SKIP LOCKED
             )
             DELETE FROM ptxn USING old WHERE ptxn.gid = old.gid",
        )
        .bind(first_id_at(before))
        .bind(before.as_micros())
        .bind(i64::from(limit))
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected())
    }
}

async fn lock(connection: &mut PgConnection, gids: &[Uuid]) -> Result<HashMap<Gid, (PtxnRow, Row)>, Error> {
    let rows = sqlx::query_as(concat!("SELECT ", columns!(), " FROM ptxn WHERE gid = ANY($1) ORDER BY gid FOR UPDATE"))
        .bind(gids)
        .fetch_all(connection)
        .await?;
    by_gid(rows)
}

/// Of rows that are locked.
async fn set_state(connection: &mut PgConnection, gids: &[Uuid], state: State) -> Result<(), Error> {
    sqlx::query("UPDATE ptxn SET state = $2 WHERE gid = ANY($1)")
        .bind(gids)
        .bind(state.as_str())
        .execute(connection)
        .await?;
    Ok(())
}

fn column<'a, I, T>(items: &'a [I], of: impl Fn(&'a I) -> T) -> Vec<T> {
    items.iter().map(of).collect()
}

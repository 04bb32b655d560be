//! The statements for SQLite. Its one writer is the lock: what Postgres needs locks for is in order here.

use std::collections::HashMap;

use async_trait::async_trait;
use notifyx_commit::participant::{
    Asker, Judge, NO_REQUEST, OnCommit, OnPrepare, OnRollback, Origin, Refusal, Row, State,
};
use notifyx_model::{Gid, Timestamp, TopicId, first_id_at};
use serde_json::{Value, json};
use sqlx::SqliteConnection;
use uuid::Uuid;

use super::{Committed, Count, Counted, Increment, PtxnRow, Store, by_gid, columns, count, totals};
use crate::Error;

pub(super) struct Sqlite {
    database: notifyx_database::Sqlite,
}

impl Sqlite {
    pub(super) fn new(database: notifyx_database::Sqlite) -> Self {
        Self { database }
    }
}

#[async_trait]
impl Store for Sqlite {
    async fn prepare(
        &self,
        items: &[Increment],
        asker: Asker,
        judge: Judge,
        at: Timestamp,
    ) -> Result<Vec<Result<(), Refusal>>, Error> {
        let gids = ids(items.iter().map(|item| item.gid));
        let rows = set(items, |item| {
            let topic_id = item.topic_id.map(TopicId::uuid).map(hex);
            json!([hex(item.gid.uuid()), hex(item.user_id.uuid()), topic_id, format!("{:x}", item.request)])
        });
        let mut tx = self.database.begin().await?;
        let inserted = sqlx::query(
            "INSERT INTO ptxn (gid, origin, state, user_id, topic_id, req_hash, prepared_at)
             SELECT unhex(value->>0), ?2, ?3, unhex(value->>1), unhex(value->>2), unhex(value->>3), ?4
             FROM json_each(?1) WHERE true ON CONFLICT (gid) DO NOTHING",
        )
        .bind(rows)
        .bind(asker.origin().as_str())
        .bind(State::Prepared.as_str())
        .bind(at.as_micros())
        .execute(&mut *tx)
        .await?
        .rows_affected();
        let found = if inserted < items.len() as u64 { Some(find(&mut tx, &gids).await?) } else { None };
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
        let mut tx = self.database.begin().await?;
        let found = find(&mut tx, &ids(gids.iter().copied())).await?;
        let verdict = |gid: &Gid| judge.commit(found.get(gid).map(|(_, row)| row), asker);
        let apply: Vec<&PtxnRow> =
            found.iter().filter(|(gid, _)| verdict(gid) == OnCommit::Apply).map(|(_, (row, _))| row).collect();
        if !apply.is_empty() {
            set_state(&mut tx, apply.iter().map(|row| Gid::from_uuid(row.gid)), State::Committed).await?;
            let totals: Vec<_> = totals(apply.iter().copied()).into_iter().collect();
            sqlx::query(
                "INSERT INTO counter (kind, id, counter)
                 SELECT value->>0, unhex(value->>1), value->>2 FROM json_each(?1) WHERE true
                 ON CONFLICT (kind, id) DO UPDATE SET counter = counter + excluded.counter",
            )
            .bind(set(&totals, |((kind, id), added)| json!([kind, hex(*id), added])))
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
        let set = ids(gids.iter().copied());
        let mut tx = self.database.begin().await?;
        if asker == Asker::Coordinator {
            // A prepare that is still on its way meets the tombstone.
            sqlx::query(
                "INSERT INTO ptxn (gid, origin, state, user_id, req_hash, prepared_at)
                 SELECT unhex(value), ?2, ?3, ?4, ?5, ?6 FROM json_each(?1) WHERE true ON CONFLICT (gid) DO NOTHING",
            )
            .bind(&set)
            .bind(Origin::Coordinator.as_str())
            .bind(State::Aborted.as_str())
            .bind(Uuid::nil())
            .bind(NO_REQUEST.as_slice())
            .bind(at.as_micros())
            .execute(&mut *tx)
            .await?;
        }
        let found = find(&mut tx, &set).await?;
        let verdict = |gid: &Gid| judge.rollback(found.get(gid).map(|(_, row)| row), asker);
        let release = gids.iter().copied().filter(|gid| verdict(gid) == OnRollback::Release);
        set_state(&mut tx, release, State::Aborted).await?;
        tx.commit().await?;
        let outcome = |gid| match verdict(gid) {
            OnRollback::Release | OnRollback::Tombstone | OnRollback::Done => Ok(()),
            OnRollback::Refuse(refusal) => Err(refusal),
        };
        Ok(gids.iter().map(outcome).collect())
    }

    async fn find(&self, gid: Gid) -> Result<Option<Row>, Error> {
        let row: Option<PtxnRow> = sqlx::query_as(concat!("SELECT ", columns!(), " FROM ptxn WHERE gid = ?1"))
            .bind(gid.uuid())
            .fetch_optional(&self.database.read)
            .await?;
        row.map(|row| row.judged()).transpose()
    }

    async fn count(&self, of: Counted) -> Result<Count, Error> {
        let statement = match of {
            Counted::User(_) => {
                "SELECT COALESCE((SELECT counter FROM counter WHERE kind = ?1 AND id = ?2), 0),
                        (SELECT count(*) FROM ptxn WHERE state = 'PREPARED' AND user_id = ?2)"
            }
            Counted::Topic(_) => {
                "SELECT COALESCE((SELECT counter FROM counter WHERE kind = ?1 AND id = ?2), 0),
                        (SELECT count(*) FROM ptxn WHERE state = 'PREPARED' AND topic_id = ?2)"
            }
        };
        Ok(count(sqlx::query_as(statement).bind(of.kind()).bind(of.id()).fetch_one(&self.database.read).await?))
    }

    async fn expire(&self, until: Timestamp, limit: u32) -> Result<u64, Error> {
        let late = "SELECT gid FROM ptxn WHERE state = 'PREPARED' AND origin = 'client' AND prepared_at <= ?1 LIMIT ?2";
        // A look before the one writer is taken: mostly there is nothing.
        let none =
            sqlx::query(late).bind(until.as_micros()).bind(1).fetch_optional(&self.database.read).await?.is_none();
        if none {
            return Ok(0);
        }
        let mut tx = self.database.begin().await?;
        let late: Vec<(Uuid,)> = sqlx::query_as(late).bind(until.as_micros()).bind(limit).fetch_all(&mut *tx).await?;
        sqlx::query(
            "UPDATE ptxn SET state = 'ABORTED', expired = 1 WHERE gid IN (SELECT unhex(value) FROM json_each(?1))",
        )
        .bind(ids(late.iter().map(|(gid,)| Gid::from_uuid(*gid))))
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(late.len() as u64)
    }

    async fn overdue(&self, before: Timestamp) -> Result<u64, Error> {
        let (overdue,): (i64,) = sqlx::query_as(
            "SELECT count(*) FROM ptxn WHERE state = 'PREPARED' AND origin = 'coordinator' AND prepared_at < ?1",
        )
        .bind(before.as_micros())
        .fetch_one(&self.database.read)
        .await?;
        Ok(u64::try_from(overdue).unwrap_or(0))
    }

    async fn forget(&self, before: Timestamp, limit: u32) -> Result<u64, Error> {
        // Ids sort by the time they were made: the primary key finds the oldest.
        let old =
            "SELECT gid FROM ptxn WHERE gid < ?1 AND prepared_at < ?2 AND state <> 'PREPARED' ORDER BY gid LIMIT ?3";
        let (first, at) = (first_id_at(before), before.as_micros());
        // A look before the one writer is taken: mostly there is nothing.
        let none = sqlx::query(old).bind(first).bind(at).bind(1).fetch_optional(&self.database.read).await?.is_none();
        if none {
            return Ok(0);
        }
        let mut tx = self.database.begin().await?;
        let old: Vec<(Uuid,)> = sqlx::query_as(old).bind(first).bind(at).bind(limit).fetch_all(&mut *tx).await?;
        sqlx::query("DELETE FROM ptxn WHERE gid IN (SELECT unhex(value) FROM json_each(?1))")
            .bind(ids(old.iter().map(|(gid,)| Gid::from_uuid(*gid))))
            .execute(&mut *tx)
            .await?;
        tx.commit().await?;
        Ok(old.len() as u64)
    }
}

async fn find(connection: &mut SqliteConnection, gids: &str) -> Result<HashMap<Gid, (PtxnRow, Row)>, Error> {
    let rows = sqlx::query_as(concat!(
        "SELECT ",
        columns!(),
        " FROM ptxn WHERE gid IN (SELECT unhex(value) FROM json_each(?1))",
    ))
    .bind(gids)
    .fetch_all(connection)
    .await?;
    by_gid(rows)
}

async fn set_state(
    connection: &mut SqliteConnection,
    gids: impl Iterator<Item = Gid>,
    state: State,
) -> Result<(), Error> {
    sqlx::query("UPDATE ptxn SET state = ?2 WHERE gid IN (SELECT unhex(value) FROM json_each(?1))")
        .bind(ids(gids))
        .bind(state.as_str())
        .execute(connection)
        .await?;
    Ok(())
}

/// A set as SQLite's `json_each` takes it.
fn set<I>(items: &[I], of: impl Fn(&I) -> Value) -> String {
    Value::Array(items.iter().map(of).collect()).to_string()
}

fn ids(gids: impl Iterator<Item = Gid>) -> String {
    Value::Array(gids.map(|gid| Value::String(hex(gid.uuid()))).collect()).to_string()
}

/// Ids travel in JSON as hexadecimal and are stored as 16 bytes.
fn hex(id: Uuid) -> String {
    id.simple().to_string()
}

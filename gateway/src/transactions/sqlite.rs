//! The statements for SQLite. Its one writer is the lock, and one process is all there is: the passed clock judges.

use std::time::Duration;

use async_trait::async_trait;
use notifyx_commit::{
    Acked, Begin, Begun, Claim, CoordinatorStore, Deferred, Figures, Intervened, Page, Record, Resolve, State,
    StoreError, Terms, Verdict, VerdictOn,
};
use notifyx_database::column::{all, micros};
use notifyx_model::{Clock, Gid, InstanceId, UserId, first_id_at};
use notifyx_wire::rest::commit::{Standing, Voted};
use serde_json::{Value, json};
use uuid::Uuid;

use super::row::{self, TxnRow, columns, failed};

#[derive(Debug)]
pub(super) struct Sqlite {
    database: notifyx_database::Sqlite,
    clock: Clock,
}

impl Sqlite {
    pub(super) fn new(database: notifyx_database::Sqlite, clock: Clock) -> Self {
        Self { database, clock }
    }

    async fn begin_writing(&self) -> Result<notifyx_database::Transaction, StoreError> {
        self.database.begin().await.map_err(StoreError::new)
    }

    fn now(&self) -> i64 {
        self.clock.now().as_micros()
    }
}

#[async_trait]
impl CoordinatorStore for Sqlite {
    async fn begin(&self, batch: &[Begin], terms: Terms) -> Result<Vec<Begun>, StoreError> {
        let items = set(batch, |item| {
            json!([hex(item.gid.uuid()), hex(item.user_id.uuid()), item.idem_key, format!("{:x}", item.request)])
        });
        let mut tx = self.begin_writing().await?;
        let now = self.now();
        let inserted: Vec<(Uuid,)> = sqlx::query_as(
            "INSERT INTO txn (gid, user_id, idem_key, req_hash, state, owner, created_at, deadline, lease_until)
             SELECT unhex(value->>0), unhex(value->>1), value->>2, unhex(value->>3), 'PREPARING', ?2, ?3, ?4, ?5
             FROM json_each(?1) WHERE true
             ON CONFLICT DO NOTHING RETURNING gid",
        )
        .bind(&items)
        .bind(terms.owner.uuid())
        .bind(now)
        .bind(now.saturating_add(micros(terms.deadline)))
        .bind(now.saturating_add(micros(terms.lease)))
        .fetch_all(&mut *tx)
        .await
        .map_err(failed)?;
        let inserted: Vec<Uuid> = inserted.into_iter().map(|(gid,)| gid).collect();
        let found: Vec<TxnRow> = if inserted.len() < batch.len() {
            sqlx::query_as(concat!(
                "SELECT ",
                columns!(),
                " FROM json_each(?1) JOIN txn ON txn.gid = unhex(value->>0)
                  UNION
                  SELECT ",
                columns!(),
                " FROM json_each(?1) JOIN txn ON txn.user_id = unhex(value->>1) AND txn.idem_key = value->>2
                      AND txn.idem_key IS NOT NULL AND txn.state <> 'ABORT'",
            ))
            .bind(&items)
            .fetch_all(&mut *tx)
            .await
            .map_err(failed)?
        } else {
            Vec::new()
        };
        tx.commit().await.map_err(failed)?;
        let answers: Option<Vec<Begun>> = row::begun(batch, &inserted, &all(found)?).into_iter().collect();
        answers.ok_or_else(|| StoreError::new("a transaction conflicts with none"))
    }

    async fn decide(&self, batch: &[VerdictOn]) -> Result<Vec<Option<State>>, StoreError> {
        let items = set(batch, |item| {
            let reason = match &item.verdict {
                Verdict::Commit => None,
                Verdict::Abort { reason } => Some(reason),
            };
            let votes = [item.votes.persist, item.votes.counter].map(|vote| vote.map(Voted::as_str));
            json!([hex(item.gid.uuid()), reason, votes[0], votes[1]])
        });
        let mut tx = self.begin_writing().await?;
        sqlx::query(
            "UPDATE txn
             SET state = CASE WHEN value->>1 IS NULL AND ?2 < deadline THEN 'COMMIT' ELSE 'ABORT' END,
                 reason = CASE WHEN value->>1 IS NULL AND ?2 >= deadline THEN ?3 ELSE value->>1 END,
                 vote_persist = value->>2, vote_counter = value->>3
             FROM json_each(?1) WHERE txn.gid = unhex(value->>0) AND txn.state = 'PREPARING'",
        )
        .bind(&items)
        .bind(self.now())
        .bind(Verdict::TOO_LATE)
        .execute(&mut *tx)
        .await
        .map_err(failed)?;
        let rows = sqlx::query_as("SELECT gid, state FROM json_each(?1) JOIN txn ON txn.gid = unhex(value->>0)")
            .bind(&items)
            .fetch_all(&mut *tx)
            .await
            .map_err(failed)?;
        tx.commit().await.map_err(failed)?;
        row::states(batch, rows)
    }

    async fn acknowledge(&self, batch: &[Acked]) -> Result<(), StoreError> {
        let mut tx = self.begin_writing().await?;
        sqlx::query(
            "UPDATE txn
             SET acked_persist = acked_persist OR value->>1,
                 acked_counter = acked_counter OR value->>2,
                 quarantined = quarantined AND NOT ((acked_persist OR value->>1) AND (acked_counter OR value->>2)),
                 closed_at = CASE WHEN (acked_persist OR value->>1) AND (acked_counter OR value->>2)
                                  THEN ?2 END
             FROM json_each(?1)
             WHERE txn.gid = unhex(value->>0) AND txn.state <> 'PREPARING' AND txn.closed_at IS NULL",
        )
        .bind(set(batch, |acked| json!([hex(acked.gid.uuid()), acked.by.persist, acked.by.counter])))
        .bind(self.now())
        .execute(&mut *tx)
        .await
        .map_err(failed)?;
        tx.commit().await.map_err(failed)
    }

    async fn defer(&self, batch: &[Deferred]) -> Result<(), StoreError> {
        let items = set(batch, |deferred| {
            let gid = hex(deferred.gid.uuid());
            json!([gid, deferred.tries, deferred.refusals, micros(deferred.again_in), deferred.quarantine])
        });
        let mut tx = self.begin_writing().await?;
        sqlx::query(
            "UPDATE txn
             SET tries = value->>1, refusals = value->>2, lease_until = ?2 + (value->>3),
                 quarantined = quarantined OR value->>4 IS NOT NULL, reason = COALESCE(value->>4, reason)
             FROM json_each(?1) WHERE txn.gid = unhex(value->>0) AND txn.closed_at IS NULL",
        )
        .bind(items)
        .bind(self.now())
        .execute(&mut *tx)
        .await
        .map_err(failed)?;
        tx.commit().await.map_err(failed)
    }

    async fn claim(&self, claim: Claim) -> Result<Vec<Record>, StoreError> {
        let now = self.now();
        // A look before the one writer is taken: mostly there is nothing.
        let (due,): (bool,) =
            sqlx::query_as("SELECT EXISTS (SELECT 1 FROM txn WHERE closed_at IS NULL AND lease_until <= ?1)")
                .bind(now)
                .fetch_one(&self.database.read)
                .await
                .map_err(failed)?;
        if !due {
            return Ok(Vec::new());
        }
        let mut tx = self.begin_writing().await?;
        let rows: Vec<TxnRow> = sqlx::query_as(concat!(
            "UPDATE txn SET owner = ?2, lease_until = ?3
             WHERE gid IN (SELECT gid FROM txn WHERE closed_at IS NULL AND lease_until <= ?1 ORDER BY lease_until LIMIT ?4)
             RETURNING ",
            columns!(),
        ))
        .bind(now)
        .bind(claim.owner.uuid())
        .bind(now.saturating_add(micros(claim.lease)))
        .bind(claim.limit)
        .fetch_all(&mut *tx)
        .await
        .map_err(failed)?;
        tx.commit().await.map_err(failed)?;
        all(rows)
    }

    async fn release(&self, owner: InstanceId) -> Result<(), StoreError> {
        let mut tx = self.begin_writing().await?;
        sqlx::query(
            "UPDATE txn SET lease_until = ?1
             WHERE closed_at IS NULL AND lease_until > ?1 AND owner = ?2 AND NOT quarantined",
        )
        .bind(self.now())
        .bind(owner.uuid())
        .execute(&mut *tx)
        .await
        .map_err(failed)?;
        tx.commit().await.map_err(failed)
    }

    async fn find(&self, gid: Gid) -> Result<Option<Record>, StoreError> {
        let row: Option<TxnRow> = sqlx::query_as(concat!("SELECT ", columns!(), " FROM txn WHERE gid = ?1"))
            .bind(gid.uuid())
            .fetch_optional(&self.database.read)
            .await
            .map_err(failed)?;
        row.map(Record::try_from).transpose()
    }

    async fn find_by_key(&self, user_id: UserId, key: &str) -> Result<Option<Record>, StoreError> {
        let row: Option<TxnRow> = sqlx::query_as(concat!(
            "SELECT ",
            columns!(),
            " FROM txn WHERE user_id = ?1 AND idem_key = ?2 AND state <> 'ABORT'",
        ))
        .bind(user_id.uuid())
        .bind(key)
        .fetch_optional(&self.database.read)
        .await
        .map_err(failed)?;
        row.map(Record::try_from).transpose()
    }

    async fn list(&self, page: Page) -> Result<Vec<Record>, StoreError> {
        // Left to itself it would walk the primary key through all that is closed.
        let index = match page.standing {
            Standing::Open | Standing::InDoubt | Standing::Quarantined | Standing::Preparing => "INDEXED BY txn_open",
            Standing::Resolved => "INDEXED BY txn_resolved",
            Standing::Committed | Standing::Aborted | Standing::All => "",
        };
        let (columns, condition) = (columns!(), row::condition(page.standing, "?3"));
        let statement = format!(
            "SELECT {columns} FROM txn {index} WHERE {condition} AND gid > ?1 AND ?3 IS NOT NULL ORDER BY gid LIMIT ?2"
        );
        let rows: Vec<TxnRow> = sqlx::query_as(&statement)
            .bind(page.after.map_or(Uuid::nil(), Gid::uuid))
            .bind(page.limit)
            .bind(self.now())
            .fetch_all(&self.database.read)
            .await
            .map_err(failed)?;
        all(rows)
    }

    async fn retry(&self, gid: Gid) -> Result<Intervened, StoreError> {
        let mut tx = self.begin_writing().await?;
        let changed: Option<TxnRow> = sqlx::query_as(concat!(
            "UPDATE txn SET lease_until = min(lease_until, ?2)
             WHERE gid = ?1 AND closed_at IS NULL AND (state <> 'PREPARING' OR deadline <= ?2)
             RETURNING ",
            columns!(),
        ))
        .bind(gid.uuid())
        .bind(self.now())
        .fetch_optional(&mut *tx)
        .await
        .map_err(failed)?;
        tx.commit().await.map_err(failed)?;
        let found = if changed.is_none() { self.find(gid).await? } else { None };
        row::intervened(changed, found)
    }

    async fn resolve(&self, resolve: &Resolve) -> Result<Intervened, StoreError> {
        let mut tx = self.begin_writing().await?;
        let changed: Option<TxnRow> = sqlx::query_as(concat!(
            "UPDATE txn
             SET closed_at = ?2, quarantined = FALSE,
                 resolved_at = ?2, resolved_by = ?3, resolution = ?4, resolution_reason = ?5
             WHERE gid = ?1 AND quarantined AND closed_at IS NULL
             RETURNING ",
            columns!(),
        ))
        .bind(resolve.gid.uuid())
        .bind(self.now())
        .bind(resolve.by.as_str())
        .bind(resolve.outcome.as_str())
        .bind(resolve.reason.as_str())
        .fetch_optional(&mut *tx)
        .await
        .map_err(failed)?;
        tx.commit().await.map_err(failed)?;
        let found = if changed.is_none() { self.find(resolve.gid).await? } else { None };
        row::intervened(changed, found)
    }

    async fn trim(&self, keep: Duration, limit: u32) -> Result<u64, StoreError> {
        let before = self.clock.now() - keep;
        let mut tx = self.begin_writing().await?;
        // Ids sort by the time they were made: the primary key finds the oldest.
        let deleted = sqlx::query(
            "DELETE FROM txn WHERE gid IN (SELECT gid FROM txn WHERE gid < ?1 AND closed_at < ?2 ORDER BY gid LIMIT ?3)",
        )
        .bind(first_id_at(before))
        .bind(before.as_micros())
        .bind(limit)
        .execute(&mut *tx)
        .await
        .map_err(failed)?;
        tx.commit().await.map_err(failed)?;
        Ok(deleted.rows_affected())
    }

    async fn figures(&self) -> Result<Figures, StoreError> {
        let row = sqlx::query_as(
            "SELECT count(*), count(*) FILTER (WHERE deadline <= ?1), count(*) FILTER (WHERE quarantined),
                    COALESCE(max(?1 - created_at), 0)
             FROM txn WHERE closed_at IS NULL",
        )
        .bind(self.now())
        .fetch_one(&self.database.read)
        .await
        .map_err(failed)?;
        Ok(row::figures(row))
    }
}

/// A set as SQLite's `json_each` takes it.
fn set<I>(items: &[I], of: impl Fn(&I) -> Value) -> String {
    Value::Array(items.iter().map(of).collect()).to_string()
}

/// Ids travel in JSON as hexadecimal and are stored as 16 bytes.
fn hex(id: Uuid) -> String {
    id.simple().to_string()
}

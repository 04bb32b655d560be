//! The statements for Postgres. Several gateways write here at once: sets are locked in order of gid, the database's clock
//! judges, and each method is one statement where it can be, which is one transaction.

use std::time::Duration;

use async_trait::async_trait;
use notifyx_commit::{
    Acked, Begin, Begun, Claim, CoordinatorStore, Deferred, Figures, Intervened, Page, Record, Resolve, State,
    StoreError, Terms, Verdict, VerdictOn,
};
use notifyx_database::column::{all, micros};
use notifyx_model::{Gid, InstanceId, Timestamp, UserId, first_id_at};
use notifyx_wire::rest::commit::Voted;
use sqlx::PgPool;
use uuid::Uuid;

use super::row::{self, BEGIN_TRIES, TxnRow, columns, failed};

#[derive(Debug)]
pub(super) struct Postgres {
    pool: PgPool,
}

impl Postgres {
    pub(super) fn new(pool: PgPool) -> Self {
        Self { pool }
    }

    /// One try: `None` where the key's holder was aborted between the two statements.
    async fn try_begin(&self, batch: &[Begin], terms: Terms) -> Result<Vec<Option<Begun>>, StoreError> {
        let inserted: Vec<(Uuid,)> = sqlx::query_as(
            "INSERT INTO txn (gid, user_id, idem_key, req_hash, state, owner, created_at, deadline, lease_until)
             SELECT gid, user_id, idem_key, req_hash, 'PREPARING', $5, now, now + $6, now + $7
             FROM UNNEST($1::uuid[], $2::uuid[], $3::text[], $4::bytea[]) AS item (gid, user_id, idem_key, req_hash),
                  (SELECT clock_micros()) AS clock (now)
             ORDER BY user_id, idem_key, gid
             ON CONFLICT DO NOTHING RETURNING gid",
        )
        .bind(column(batch, |item| item.gid.uuid()))
        .bind(column(batch, |item| item.user_id.uuid()))
        .bind(column(batch, |item| item.idem_key.as_deref()))
        .bind(column(batch, |item| item.request.as_slice()))
        .bind(terms.owner.uuid())
        .bind(micros(terms.deadline))
        .bind(micros(terms.lease))
        .fetch_all(&self.pool)
        .await
        .map_err(failed)?;
        let inserted: Vec<Uuid> = inserted.into_iter().map(|(gid,)| gid).collect();
        let found = if inserted.len() < batch.len() { self.holders(batch).await? } else { Vec::new() };
        Ok(row::begun(batch, &inserted, &found))
    }

    /// What stands under the gids and keys of a batch.
    async fn holders(&self, batch: &[Begin]) -> Result<Vec<Record>, StoreError> {
        let keyed: Vec<&Begin> = batch.iter().filter(|item| item.idem_key.is_some()).collect();
        let rows: Vec<TxnRow> = sqlx::query_as(concat!(
            "SELECT ",
            columns!(),
            " FROM txn WHERE gid = ANY($1)
              UNION
              SELECT ",
            columns!(),
            " FROM UNNEST($2::uuid[], $3::text[]) AS k (user_id, idem_key) JOIN txn
                  ON txn.user_id = k.user_id AND txn.idem_key = k.idem_key AND txn.state <> 'ABORT'",
        ))
        .bind(column(batch, |item| item.gid.uuid()))
        .bind(keyed.iter().map(|item| item.user_id.uuid()).collect::<Vec<_>>())
        .bind(keyed.iter().map(|item| item.idem_key.as_deref()).collect::<Vec<_>>())
        .fetch_all(&self.pool)
        .await
        .map_err(failed)?;
        all(rows)
    }
}

#[async_trait]
impl CoordinatorStore for Postgres {
    async fn begin(&self, batch: &[Begin], terms: Terms) -> Result<Vec<Begun>, StoreError> {
        let mut answers = self.try_begin(batch, terms).await?;
        for _ in 1..BEGIN_TRIES {
            let open: Vec<usize> = (0..batch.len()).filter(|&i| answers[i].is_none()).collect();
            if open.is_empty() {
                break;
            }
            let again: Vec<Begin> = open.iter().map(|&i| batch[i].clone()).collect();
            for (i, answer) in open.into_iter().zip(self.try_begin(&again, terms).await?) {
                answers[i] = answer;
            }
        }
        let answers: Option<Vec<Begun>> = answers.into_iter().collect();
        answers.ok_or_else(|| StoreError::new("an idempotency key was taken and freed again and again"))
    }

    async fn decide(&self, batch: &[VerdictOn]) -> Result<Vec<Option<State>>, StoreError> {
        // The rows are locked in order first; what counts is the comparison with `state` in the update.
        let decided: Vec<(Uuid, String)> = sqlx::query_as(
            "WITH locked AS MATERIALIZED (
                 SELECT gid, deadline FROM txn WHERE gid = ANY($1) AND state = 'PREPARING' ORDER BY gid FOR UPDATE
             ), judged AS MATERIALIZED (
                 SELECT gid, reason AS refused, clock_micros() < deadline AS in_time, persist, counter
                 FROM locked JOIN UNNEST($1::uuid[], $2::text[], $4::text[], $5::text[])
                     AS verdict (gid, reason, persist, counter) USING (gid)
             )
             UPDATE txn
             SET state = CASE WHEN refused IS NULL AND in_time THEN 'COMMIT' ELSE 'ABORT' END,
                 reason = CASE WHEN refused IS NULL AND NOT in_time THEN $3 ELSE refused END,
                 vote_persist = persist, vote_counter = counter
             FROM judged WHERE txn.gid = judged.gid AND txn.state = 'PREPARING'
             RETURNING txn.gid, txn.state",
        )
        .bind(column(batch, |item| item.gid.uuid()))
        .bind(column(batch, |item| match &item.verdict {
            Verdict::Commit => None,
            Verdict::Abort { reason } => Some(reason.as_str()),
        }))
        .bind(Verdict::TOO_LATE)
        .bind(column(batch, |item| item.votes.persist.map(Voted::as_str)))
        .bind(column(batch, |item| item.votes.counter.map(Voted::as_str)))
        .fetch_all(&self.pool)
        .await
        .map_err(failed)?;
        let mut rows = decided;
        if rows.len() < batch.len() {
            // Zero rows changed for some: read them and obey.
            rows = sqlx::query_as("SELECT gid, state FROM txn WHERE gid = ANY($1)")
                .bind(column(batch, |item| item.gid.uuid()))
                .fetch_all(&self.pool)
                .await
                .map_err(failed)?;
        }
        row::states(batch, rows)
    }

    async fn acknowledge(&self, batch: &[Acked]) -> Result<(), StoreError> {
        sqlx::query(
            "WITH locked AS MATERIALIZED (
                 SELECT gid FROM txn WHERE gid = ANY($1) AND state <> 'PREPARING' AND closed_at IS NULL
                 ORDER BY gid FOR UPDATE
             ), acked AS MATERIALIZED (
                 SELECT gid, persist, counter
                 FROM locked JOIN UNNEST($1::uuid[], $2::bool[], $3::bool[]) AS ack (gid, persist, counter) USING (gid)
             )
             UPDATE txn
             SET acked_persist = acked_persist OR persist,
                 acked_counter = acked_counter OR counter,
                 quarantined = quarantined AND NOT ((acked_persist OR persist) AND (acked_counter OR counter)),
                 closed_at = CASE WHEN (acked_persist OR persist) AND (acked_counter OR counter)
                                  THEN clock_micros() END
             FROM acked WHERE txn.gid = acked.gid AND txn.closed_at IS NULL",
        )
        .bind(column(batch, |acked| acked.gid.uuid()))
        .bind(column(batch, |acked| acked.by.persist))
        .bind(column(batch, |acked| acked.by.counter))
        .execute(&self.pool)
        .await
        .map_err(failed)?;
        Ok(())
    }

    async fn defer(&self, batch: &[Deferred]) -> Result<(), StoreError> {
        sqlx::query(
            "WITH locked AS MATERIALIZED (
                 SELECT gid FROM txn WHERE gid = ANY($1) AND closed_at IS NULL ORDER BY gid FOR UPDATE
             ), deferred AS MATERIALIZED (
                 SELECT gid, tried, refused, clock_micros() + again_in AS until, why
                 FROM locked JOIN UNNEST($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[], $5::text[])
                     AS item (gid, tried, refused, again_in, why) USING (gid)
             )
             UPDATE txn
             SET tries = tried, refusals = refused, lease_until = until, quarantined = quarantined OR why IS NOT NULL,
                 reason = COALESCE(why, reason)
             FROM deferred WHERE txn.gid = deferred.gid",
        )
        .bind(column(batch, |deferred| deferred.gid.uuid()))
        .bind(column(batch, |deferred| i64::from(deferred.tries)))
        .bind(column(batch, |deferred| i64::from(deferred.refusals)))
        .bind(column(batch, |deferred| micros(deferred.again_in)))
        .bind(column(batch, |deferred| deferred.quarantine.as_deref()))
        .execute(&self.pool)
        .await
        .map_err(failed)?;
        Ok(())
    }

    async fn claim(&self, claim: Claim) -> Result<Vec<Record>, StoreError> {
        let rows: Vec<TxnRow> = sqlx::query_as(concat!(
            "WITH due AS MATERIALIZED (
                 SELECT gid FROM txn WHERE closed_at IS NULL AND lease_until <= clock_micros()
                 ORDER BY lease_until LIMIT $1 FOR UPDATE SKIP LOCKED
             )
             UPDATE txn SET owner = $2, lease_until = clock_micros() + $3 FROM due WHERE txn.gid = due.gid
             RETURNING ",
            columns!(),
        ))
        .bind(i64::from(claim.limit))
        .bind(claim.owner.uuid())
        .bind(micros(claim.lease))
        .fetch_all(&self.pool)
        .await
        .map_err(failed)?;
        all(rows)
    }

    async fn release(&self, owner: InstanceId) -> Result<(), StoreError> {
        // Whoever holds one of them is writing about it just now, and it needs no release.
        sqlx::query(
            "WITH left_open AS MATERIALIZED (
                 SELECT gid FROM txn
                 WHERE closed_at IS NULL AND lease_until > clock_micros() AND owner = $1 AND NOT quarantined
                 FOR UPDATE SKIP LOCKED
             )
             UPDATE txn SET lease_until = clock_micros() FROM left_open WHERE txn.gid = left_open.gid",
        )
        .bind(owner.uuid())
        .execute(&self.pool)
        .await
        .map_err(failed)?;
        Ok(())
    }

    async fn find(&self, gid: Gid) -> Result<Option<Record>, StoreError> {
        let row: Option<TxnRow> = sqlx::query_as(concat!("SELECT ", columns!(), " FROM txn WHERE gid = $1"))
            .bind(gid.uuid())
            .fetch_optional(&self.pool)
            .await
            .map_err(failed)?;
        row.map(Record::try_from).transpose()
    }

    async fn find_by_key(&self, user_id: UserId, key: &str) -> Result<Option<Record>, StoreError> {
        let row: Option<TxnRow> = sqlx::query_as(concat!(
            "SELECT ",
            columns!(),
            " FROM txn WHERE user_id = $1 AND idem_key = $2 AND state <> 'ABORT'",
        ))
        .bind(user_id.uuid())
        .bind(key)
        .fetch_optional(&self.pool)
        .await
        .map_err(failed)?;
        row.map(Record::try_from).transpose()
    }

    async fn list(&self, page: Page) -> Result<Vec<Record>, StoreError> {
        let (columns, condition) = (columns!(), row::condition(page.standing, "clock_micros()"));
        let statement = format!("SELECT {columns} FROM txn WHERE {condition} AND gid > $1 ORDER BY gid LIMIT $2");
        let rows: Vec<TxnRow> = sqlx::query_as(&statement)
            .bind(page.after.map_or(Uuid::nil(), Gid::uuid))
            .bind(i64::from(page.limit))
            .fetch_all(&self.pool)
            .await
            .map_err(failed)?;
        all(rows)
    }

    async fn retry(&self, gid: Gid) -> Result<Intervened, StoreError> {
        let changed: Option<TxnRow> = sqlx::query_as(concat!(
            "UPDATE txn SET lease_until = LEAST(lease_until, clock_micros())
             WHERE gid = $1 AND closed_at IS NULL AND (state <> 'PREPARING' OR deadline <= clock_micros())
             RETURNING ",
            columns!(),
        ))
        .bind(gid.uuid())
        .fetch_optional(&self.pool)
        .await
        .map_err(failed)?;
        let found = if changed.is_none() { self.find(gid).await? } else { None };
        row::intervened(changed, found)
    }

    async fn resolve(&self, resolve: &Resolve) -> Result<Intervened, StoreError> {
        let changed: Option<TxnRow> = sqlx::query_as(concat!(
            "UPDATE txn
             SET closed_at = now, quarantined = FALSE,
                 resolved_at = now, resolved_by = $2, resolution = $3, resolution_reason = $4
             FROM (SELECT clock_micros()) AS clock (now)
             WHERE gid = $1 AND quarantined AND closed_at IS NULL
             RETURNING ",
            columns!(),
        ))
        .bind(resolve.gid.uuid())
        .bind(resolve.by.as_str())
        .bind(resolve.outcome.as_str())
        .bind(resolve.reason.as_str())
        .fetch_optional(&self.pool)
        .await
        .map_err(failed)?;
        let found = if changed.is_none() { self.find(resolve.gid).await? } else { None };
        row::intervened(changed, found)
    }

    async fn trim(&self, keep: Duration, limit: u32) -> Result<u64, StoreError> {
        let (now,): (i64,) = sqlx::query_as("SELECT clock_micros()").fetch_one(&self.pool).await.map_err(failed)?;
        let before = Timestamp::from_micros(now) - keep;
        // Ids sort by the time they were made: the primary key finds the oldest.
        let deleted = sqlx::query(
            "WITH old AS MATERIALIZED (
                 SELECT gid FROM txn WHERE gid < $1 AND closed_at < $2 ORDER BY gid LIMIT $3 FOR UPDATE SKIP LOCKED
             )
             DELETE FROM txn USING old WHERE txn.gid = old.gid",
        )
        .bind(first_id_at(before))
        .bind(before.as_micros())
        .bind(i64::from(limit))
        .execute(&self.pool)
        .await
        .map_err(failed)?;
        Ok(deleted.rows_affected())
    }

    async fn figures(&self) -> Result<Figures, StoreError> {
        let row = sqlx::query_as(
            "SELECT count(*), count(*) FILTER (WHERE deadline <= now), count(*) FILTER (WHERE quarantined),
                    COALESCE(max(now - created_at), 0)
             FROM txn, (SELECT clock_micros()) AS clock (now) WHERE closed_at IS NULL",
        )
        .fetch_one(&self.pool)
        .await
        .map_err(failed)?;
        Ok(row::figures(row))
    }
}

fn column<'a, I, T>(items: &'a [I], of: impl Fn(&'a I) -> T) -> Vec<T> {
    items.iter().map(of).collect()
}

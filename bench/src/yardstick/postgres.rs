//! The statements for Postgres: for a set of notifications, which may be one. The local yardstick runs all of them in one
//! transaction, PREPARE TRANSACTION each in a database of its own.

use notifyx_database::Error;
use sqlx::{Executor, PgConnection, PgExecutor, PgPool};
use uuid::Uuid;

use super::{EMAIL, Owner, REQUEST, Row, schema};

pub(super) async fn make(pool: &PgPool, owners: &[Owner]) -> Result<(), Error> {
    pool.execute(&*schema::all(|service| &service.postgres)).await?;
    topics(pool, owners).await
}

pub(super) async fn topics(pool: &PgPool, owners: &[Owner]) -> Result<(), Error> {
    sqlx::query(
        "INSERT INTO topic (id, name, creator_id, status, created_at)
         SELECT id, id::text, creator_id, 'active', 0 FROM UNNEST($1::uuid[], $2::uuid[]) AS w (id, creator_id)",
    )
    .bind(owners.iter().map(|owner| owner.topic_id).collect::<Vec<_>>())
    .bind(owners.iter().map(|owner| owner.user_id).collect::<Vec<_>>())
    .execute(pool)
    .await?;
    Ok(())
}

/// Moves the topics' heads by as many notifications as they get, and writes these, up to the new heads in the order of the set.
const NOTIFY: &str = r#"
WITH item AS (
    SELECT gid, topic_id, user_id, message,
           count(*) OVER (PARTITION BY topic_id) - row_number() OVER (PARTITION BY topic_id ORDER BY place) AS later
    FROM UNNEST($1::uuid[], $2::uuid[], $3::uuid[], $4::text[]) WITH ORDINALITY AS w (gid, topic_id, user_id, message, place)
), head AS (
    UPDATE topic t SET last_offset = t.last_offset + w.n, last_broadcast_no = t.last_broadcast_no + w.n,
                       last_at = GREATEST($6, t.last_at + 1) + w.n - 1
    FROM (SELECT topic_id, count(*) AS n FROM item GROUP BY topic_id) w WHERE t.id = w.topic_id
    RETURNING t.id, t.last_offset, t.last_broadcast_no, t.last_at
)
INSERT INTO notification (topic_id, "offset", broadcast_no, targeted, id, gid, from_user_id, from_email, message, priority,
                          inserted_at)
SELECT head.id, last_offset - later, last_broadcast_no - later, false, gid, gid, user_id, $5, message, 0, last_at - later
FROM item JOIN head ON head.id = item.topic_id"#;

const COUNT: &str = "
INSERT INTO counter (kind, id, counter)
SELECT kind, id, count(*)
FROM (SELECT 'topic' AS kind, id FROM UNNEST($1::uuid[]) AS w (id) UNION ALL SELECT 'user', id FROM UNNEST($2::uuid[]) AS w (id)) w
GROUP BY kind, id ORDER BY kind, id
ON CONFLICT (kind, id) DO UPDATE SET counter = counter.counter + EXCLUDED.counter";

const DECIDE: &str = "
INSERT INTO txn (gid, user_id, req_hash, state, acked_persist, acked_counter, owner, created_at, deadline, lease_until, closed_at)
SELECT gid, user_id, $3, 'COMMIT', true, true, $4, $5, $5, $5, $5 FROM UNNEST($1::uuid[], $2::uuid[]) AS w (gid, user_id)";

pub(super) async fn notify(connection: &mut PgConnection, rows: &[Row], at: i64) -> Result<(), Error> {
    sqlx::query(NOTIFY)
        .bind(column(rows, |row| row.gid))
        .bind(column(rows, |row| row.owner.topic_id))
        .bind(column(rows, |row| row.owner.user_id))
        .bind(column(rows, |row| row.message.as_str()))
        .bind(EMAIL)
        .bind(at)
        .execute(connection)
        .await?;
    Ok(())
}

pub(super) async fn count(connection: &mut PgConnection, rows: &[Row]) -> Result<(), Error> {
    sqlx::query(COUNT)
        .bind(column(rows, |row| row.owner.topic_id))
        .bind(column(rows, |row| row.owner.user_id))
        .execute(connection)
        .await?;
    Ok(())
}

pub(super) async fn decide(executor: impl PgExecutor<'_>, rows: &[Row], at: i64) -> Result<(), Error> {
    sqlx::query(DECIDE)
        .bind(column(rows, |row| row.gid))
        .bind(column(rows, |row| row.owner.user_id))
        .bind(REQUEST.as_slice())
        .bind(Uuid::nil())
        .bind(at)
        .execute(executor)
        .await?;
    Ok(())
}

fn column<'a, T>(rows: &'a [Row], of: impl Fn(&'a Row) -> T) -> Vec<T> {
    rows.iter().map(of).collect()
}

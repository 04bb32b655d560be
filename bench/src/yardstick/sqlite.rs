//! The statements for SQLite: for a set of notifications, which may be one. Sets travel as JSON, as the platform's do.

use notifyx_database::{Error, Sqlite};
use serde_json::{Value, json};
use sqlx::{Executor, SqliteConnection};
use uuid::Uuid;

use super::{EMAIL, Owner, REQUEST, Row, schema};

pub(super) async fn make(database: &Sqlite, owners: &[Owner]) -> Result<(), Error> {
    let mut tx = database.begin().await?;
    tx.execute(&*schema::all(|service| &service.sqlite)).await?;
    sqlx::query(
        "INSERT INTO topic (id, name, creator_id, status, created_at)
         SELECT unhex(value->>0), value->>0, unhex(value->>1), 'active', 0 FROM json_each(?1)",
    )
    .bind(set(owners, |owner| json!([hex(owner.topic_id), hex(owner.user_id)])))
    .execute(&mut *tx)
    .await?;
    Ok(tx.commit().await?)
}

/// Moves the topics' heads by as many notifications as they get.
const HEADS: &str = "
UPDATE topic SET last_offset = last_offset + w.n, last_broadcast_no = last_broadcast_no + w.n,
                 last_at = max(?2, last_at + 1) + w.n - 1
FROM (SELECT unhex(value->>1) AS id, count(*) AS n FROM json_each(?1) GROUP BY value->>1) w WHERE topic.id = w.id";

/// Broadcasts, up to the new heads in the order of the set.
const NOTIFY: &str = r#"
INSERT INTO notification (topic_id, "offset", broadcast_no, targeted, id, gid, from_user_id, from_email, message, priority,
                          inserted_at)
SELECT t.id, t.last_offset - w.later, t.last_broadcast_no - w.later, 0, w.gid, w.gid, w.user_id, ?2, w.message, 0,
       t.last_at - w.later
FROM (SELECT unhex(value->>0) AS gid, unhex(value->>1) AS topic_id, unhex(value->>2) AS user_id, value->>3 AS message,
             count(*) OVER (PARTITION BY value->>1) - row_number() OVER (PARTITION BY value->>1 ORDER BY key) AS later
      FROM json_each(?1)) w
CROSS JOIN topic t ON t.id = w.topic_id"#;

const COUNT: &str = "
INSERT INTO counter (kind, id, counter)
SELECT kind, id, count(*)
FROM (SELECT 'topic' AS kind, unhex(value->>1) AS id FROM json_each(?1)
      UNION ALL SELECT 'user', unhex(value->>2) FROM json_each(?1))
WHERE true GROUP BY kind, id
ON CONFLICT (kind, id) DO UPDATE SET counter = counter + excluded.counter";

const DECIDE: &str = "
INSERT INTO txn (gid, user_id, req_hash, state, acked_persist, acked_counter, owner, created_at, deadline, lease_until, closed_at)
SELECT unhex(value->>0), unhex(value->>2), ?2, 'COMMIT', true, true, ?3, ?4, ?4, ?4, ?4 FROM json_each(?1)";

pub(super) async fn write(connection: &mut SqliteConnection, rows: &[Row], at: i64) -> Result<(), Error> {
    let item = |row: &Row| json!([hex(row.gid), hex(row.owner.topic_id), hex(row.owner.user_id), row.message]);
    let set = set(rows, item);
    sqlx::query(HEADS).bind(&set).bind(at).execute(&mut *connection).await?;
    sqlx::query(NOTIFY).bind(&set).bind(EMAIL).execute(&mut *connection).await?;
    sqlx::query(COUNT).bind(&set).execute(&mut *connection).await?;
    let request = REQUEST.as_slice();
    sqlx::query(DECIDE).bind(&set).bind(request).bind(Uuid::nil()).bind(at).execute(connection).await?;
    Ok(())
}

/// A set as SQLite's `json_each` takes it.
fn set<I>(items: &[I], of: impl Fn(&I) -> Value) -> String {
    Value::Array(items.iter().map(of).collect()).to_string()
}

fn hex(id: Uuid) -> String {
    id.simple().to_string()
}

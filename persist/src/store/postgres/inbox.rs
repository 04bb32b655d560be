//! Inboxes on Postgres: read by joining subscriptions with their topics' notifications.

use async_trait::async_trait;
use notifyx_model::{NotificationId, TopicId, UserId};
use notifyx_wire::rest::persist::{InboxItem, SeenStatus, UnreadInTopic};
use sqlx::PgConnection;
use uuid::Uuid;

use super::Postgres;
use crate::{
    Error,
    inbox::{Mark, mark},
    store::{
        Inbox, InboxQuery,
        row::{self, InboxRow, MarkRow, StandRow, UnreadRow},
    },
};

/// Everything a topic `m` has for the reader, newest first, at most `$limit` of each kind: broadcasts above or below the floor,
/// those seen out of order, what was sent to the reader alone and is unread, or seen. Each is a walk along one index.
macro_rules! lines {
    ($limit:literal) => {
        concat!(
            r#"(SELECT n.inserted_at, n."offset",
                       n.inserted_at <= m.floor_at OR EXISTS (SELECT 1 FROM exception e WHERE e.user_id = m.user_id
                           AND e.topic_id = m.topic_id AND e.broadcast_no = n.broadcast_no) AS seen
                FROM notification n
                WHERE n.topic_id = m.topic_id AND NOT n.targeted
                  AND n.inserted_at > CASE WHEN $5 THEN m.from_at ELSE GREATEST(m.from_at, m.floor_at) END
                  AND n.inserted_at < CASE WHEN $4 THEN m.below ELSE LEAST(m.below, m.floor_at + 1) END
                  AND ($5 OR NOT EXISTS (SELECT 1 FROM exception e WHERE e.user_id = m.user_id
                           AND e.topic_id = m.topic_id AND e.broadcast_no = n.broadcast_no))
                ORDER BY n.inserted_at DESC LIMIT "#,
            $limit,
            r#")
               UNION ALL
               (SELECT e.inserted_at, e."offset", true FROM exception e
                WHERE NOT $4 AND e.user_id = m.user_id AND e.topic_id = m.topic_id AND e."offset" > m.trimmed_offset
                  AND e.inserted_at > m.floor_at AND e.inserted_at < m.below
                ORDER BY e.broadcast_no DESC LIMIT "#,
            $limit,
            r#")
               UNION ALL
               (SELECT r.inserted_at, r."offset", false FROM recipient r
                WHERE $4 AND r.user_id = m.user_id AND r.topic_id = m.topic_id AND NOT r.seen
                  AND r.inserted_at > m.from_at AND r.inserted_at < m.below
                ORDER BY r.inserted_at DESC LIMIT "#,
            $limit,
            r#")
               UNION ALL
               (SELECT r.inserted_at, r."offset", true FROM recipient r
                WHERE $5 AND r.user_id = m.user_id AND r.topic_id = m.topic_id AND r.seen
                  AND r.inserted_at > m.from_at AND r.inserted_at < m.below
                ORDER BY r.inserted_at DESC LIMIT "#,
            $limit,
            ")"
        )
    };
}

/// $1 reader, $2 topic, $3 creator, $4 with unread, $5 with seen, $6 and $7 the last line of the page before (time and topic),
/// $8 lines, $9 bytes of messages.
///
/// No topic's history is walked: one look per subscription finds the topics that can have a line on the page, and only those
/// are read, as far as the page reaches. A creator's own broadcasts are seen. 9223372036854775806 is later than any time.
const INBOX: &str = concat!(
    r#"
WITH mine AS MATERIALIZED (
    SELECT s.user_id, s.topic_id, t.name, t.trimmed_offset, s.from_at,
           CASE WHEN t.creator_id = s.user_id THEN 9223372036854775806 ELSE s.floor_at END AS floor_at,
           CASE WHEN s.topic_id < $7 THEN $6 + 1 ELSE $6 END AS below
    FROM subscription s JOIN topic t ON t.id = s.topic_id
    WHERE s.user_id = $1 AND ($2::uuid IS NULL OR s.topic_id = $2) AND ($3::uuid IS NULL OR t.creator_id = $3)
), newest AS MATERIALIZED (
    SELECT m.* FROM mine m CROSS JOIN LATERAL (SELECT max(l.inserted_at) AS at FROM ("#,
    lines!("1"),
    r#") l) k
    WHERE k.at IS NOT NULL ORDER BY k.at DESC, m.topic_id DESC LIMIT $8
), page AS MATERIALIZED (
    SELECT m.topic_id, m.name, l.inserted_at, l."offset", l.seen FROM newest m CROSS JOIN LATERAL ("#,
    lines!("$8"),
    r#") l
    ORDER BY l.inserted_at DESC, m.topic_id DESC LIMIT $8
), cut AS (
    SELECT n.*, p.name AS topic, p.seen, count(*) OVER () AS found,
           sum(octet_length(n.message)) OVER (ORDER BY p.inserted_at DESC, p.topic_id DESC) - octet_length(n.message) AS bytes_before
    FROM page p JOIN notification n ON n.topic_id = p.topic_id AND n."offset" = p."offset"
)
SELECT c.*, CASE WHEN c.targeted THEN (SELECT string_agg(r.user_id::text, ',' ORDER BY r.user_id) FROM recipient r
                WHERE r.topic_id = c.topic_id AND r."offset" = c."offset") END AS recipients
FROM cut c WHERE bytes_before < $9 ORDER BY c.inserted_at DESC, c.topic_id DESC"#
);

/// Unread by topic, of one moment: broadcasts above the floor, less those seen out of order, and what is for the reader alone.
/// Joined, not counted topic by topic: whatever the planner makes of it, it reads rows of this reader only.
macro_rules! unread {
    ($which:literal) => {
        concat!(
            r#"
WITH mine AS (
    SELECT s.topic_id, s.from_at, GREATEST(s.floor, t.trimmed_broadcast_no) AS floor, t.name, t.last_broadcast_no,
           t.creator_id = s.user_id AS own
    FROM subscription s JOIN topic t ON t.id = s.topic_id WHERE s.user_id = $1 "#,
            $which,
            r#"
), ahead AS (
    SELECT m.topic_id, count(*) AS seen FROM mine m JOIN exception e ON e.topic_id = m.topic_id
    WHERE e.user_id = $1 AND e.broadcast_no > m.floor GROUP BY m.topic_id
), alone AS (
    SELECT m.topic_id, count(*) AS unread FROM mine m JOIN recipient r ON r.topic_id = m.topic_id
    WHERE r.user_id = $1 AND NOT r.seen AND r.inserted_at > m.from_at GROUP BY m.topic_id
)
SELECT m.topic_id, m.name, m.last_broadcast_no, m.own,
       CASE WHEN m.own THEN 0 ELSE m.last_broadcast_no - m.floor - coalesce(a.seen, 0) END + coalesce(b.unread, 0) AS unread
FROM mine m LEFT JOIN ahead a ON a.topic_id = m.topic_id LEFT JOIN alone b ON b.topic_id = m.topic_id
ORDER BY m.name"#
        )
    };
}

#[async_trait]
impl Inbox for Postgres {
    async fn inbox(&self, query: &InboxQuery) -> Result<(Vec<InboxItem>, bool), Error> {
        let (at, topic) = match query.after {
            None => (i64::MAX - 1, Uuid::nil()),
            Some(id) => sqlx::query_as("SELECT inserted_at, topic_id FROM notification WHERE id = $1")
                .bind(id.uuid())
                .fetch_optional(&self.pool)
                .await?
                .ok_or(Error::NotificationNotFound(id))?,
        };
        let rows: Vec<InboxRow> = sqlx::query_as(INBOX)
            .bind(query.user.uuid())
            .bind(query.topic.map(TopicId::uuid))
            .bind(query.from.map(UserId::uuid))
            .bind(query.status != Some(SeenStatus::Seen))
            .bind(query.status != Some(SeenStatus::Unread))
            .bind(at)
            .bind(topic)
            .bind(i64::from(query.limit) + 1)
            .bind(i64::from(query.bytes))
            .fetch_all(&self.pool)
            .await?;
        row::cut_page(rows, query.limit)
    }

    async fn mark_seen(
        &self,
        user: UserId,
        notification: NotificationId,
        exceptions_max: u32,
    ) -> Result<UnreadInTopic, Error> {
        let mut tx = self.pool.begin().await?;
        let row: MarkRow = sqlx::query_as(
            r#"SELECT n.topic_id, n."offset", n.broadcast_no, n.targeted, n.inserted_at, t.creator_id = s.user_id AS own,
                      GREATEST(s.floor, t.trimmed_broadcast_no) AS floor
               FROM notification n
               JOIN topic t ON t.id = n.topic_id
               JOIN subscription s ON s.topic_id = n.topic_id AND s.user_id = $2
               WHERE n.id = $1 FOR UPDATE OF s"#,
        )
        .bind(notification.uuid())
        .bind(user.uuid())
        .fetch_optional(&mut *tx)
        .await?
        .ok_or(Error::NotificationNotFound(notification))?;
        match mark(&row) {
            Mark::Nothing => {}
            Mark::Recipient => {
                let marked = sqlx::query(
                    r#"UPDATE recipient SET seen = true WHERE topic_id = $1 AND "offset" = $2 AND user_id = $3"#,
                )
                .bind(row.topic_id)
                .bind(row.offset)
                .bind(user.uuid())
                .execute(&mut *tx)
                .await?;
                if marked.rows_affected() == 0 {
                    return Err(Error::NotificationNotFound(notification));
                }
            }
            Mark::Floor => raise(&mut tx, user.uuid(), row.topic_id, row.broadcast_no, row.inserted_at).await?,
            Mark::Exception => except(&mut tx, user.uuid(), &row, exceptions_max).await?,
        }
        let unread = unread_in(&mut tx, user.uuid(), row.topic_id).await?;
        tx.commit().await?;
        Ok(unread)
    }

    async fn mark_seen_up_to(&self, user: UserId, topic: TopicId, offset: u64) -> Result<UnreadInTopic, Error> {
        let mut tx = self.pool.begin().await?;
        let stand: StandRow = sqlx::query_as(
            "SELECT s.floor, s.floor_at, t.last_offset, t.last_broadcast_no, t.last_at, t.trimmed_offset
             FROM subscription s JOIN topic t ON t.id = s.topic_id
             WHERE s.user_id = $1 AND s.topic_id = $2 FOR UPDATE OF s",
        )
        .bind(user.uuid())
        .bind(topic.uuid())
        .fetch_optional(&mut *tx)
        .await?
        .ok_or(Error::NotSubscribed(topic))?;
        let offset = row::signed(offset);
        let reached: Option<(i64, i64)> = if offset >= stand.last_offset {
            Some((stand.last_broadcast_no, stand.last_at))
        } else if offset <= stand.trimmed_offset {
            None
        } else {
            sqlx::query_as(
                r#"SELECT broadcast_no, inserted_at FROM notification WHERE topic_id = $1 AND "offset" = $2"#,
            )
            .bind(topic.uuid())
            .bind(offset)
            .fetch_optional(&mut *tx)
            .await?
        };
        if let Some((broadcast_no, at)) = reached {
            sqlx::query(
                "UPDATE recipient SET seen = true WHERE user_id = $1 AND topic_id = $2 AND NOT seen AND inserted_at <= $3",
            )
            .bind(user.uuid())
            .bind(topic.uuid())
            .bind(at)
            .execute(&mut *tx)
            .await?;
            if let Some((floor, at)) = stand.raised(broadcast_no, at) {
                raise(&mut tx, user.uuid(), topic.uuid(), floor, at).await?;
            }
        }
        let unread = unread_in(&mut tx, user.uuid(), topic.uuid()).await?;
        tx.commit().await?;
        Ok(unread)
    }

    async fn unread(&self, user: UserId) -> Result<Vec<UnreadInTopic>, Error> {
        let rows: Vec<UnreadRow> = sqlx::query_as(unread!("")).bind(user.uuid()).fetch_all(&self.pool).await?;
        row::all(rows)
    }
}

async fn unread_in(connection: &mut PgConnection, user: Uuid, topic: Uuid) -> Result<UnreadInTopic, Error> {
    let row: UnreadRow =
        sqlx::query_as(unread!("AND s.topic_id = $2")).bind(user).bind(topic).fetch_one(connection).await?;
    row.try_into()
}

/// Moves the floor to a broadcast, and on over those that directly follow it and were seen before it.
async fn raise(connection: &mut PgConnection, user: Uuid, topic: Uuid, floor: i64, at: i64) -> Result<(), Error> {
    let folded: Option<(i64, i64)> = sqlx::query_as(
        "SELECT e.broadcast_no, e.inserted_at FROM exception e
         WHERE e.user_id = $1 AND e.topic_id = $2 AND e.broadcast_no > $3
           AND EXISTS (SELECT 1 FROM exception f WHERE f.user_id = $1 AND f.topic_id = $2 AND f.broadcast_no = $3 + 1)
           AND NOT EXISTS (SELECT 1 FROM exception n WHERE n.user_id = $1 AND n.topic_id = $2 AND n.broadcast_no = e.broadcast_no + 1)
         ORDER BY e.broadcast_no LIMIT 1",
    )
    .bind(user)
    .bind(topic)
    .bind(floor)
    .fetch_optional(&mut *connection)
    .await?;
    let (floor, at) = folded.unwrap_or((floor, at));
    sqlx::query("UPDATE subscription SET floor = $3, floor_at = $4 WHERE user_id = $1 AND topic_id = $2")
        .bind(user)
        .bind(topic)
        .bind(floor)
        .bind(at)
        .execute(&mut *connection)
        .await?;
    sqlx::query("DELETE FROM exception WHERE user_id = $1 AND topic_id = $2 AND broadcast_no <= $3")
        .bind(user)
        .bind(topic)
        .bind(floor)
        .execute(connection)
        .await?;
    Ok(())
}

/// Remembers a broadcast that was seen before others below it.
async fn except(connection: &mut PgConnection, user: Uuid, row: &MarkRow, max: u32) -> Result<(), Error> {
    let inserted = sqlx::query(
        r#"INSERT INTO exception (user_id, topic_id, broadcast_no, "offset", inserted_at)
           SELECT $1, $2, $3, $4, $5
           WHERE (SELECT count(*) FROM exception WHERE user_id = $1 AND topic_id = $2 AND broadcast_no > $6) < $7
              OR EXISTS (SELECT 1 FROM exception WHERE user_id = $1 AND topic_id = $2 AND broadcast_no = $3)
           ON CONFLICT (user_id, topic_id, broadcast_no) DO UPDATE SET "offset" = excluded."offset""#,
    )
    .bind(user)
    .bind(row.topic_id)
    .bind(row.broadcast_no)
    .bind(row.offset)
    .bind(row.inserted_at)
    .bind(row.floor)
    .bind(i64::from(max))
    .execute(connection)
    .await?;
    if inserted.rows_affected() == 0 { Err(Error::TooManyExceptions(max)) } else { Ok(()) }
}

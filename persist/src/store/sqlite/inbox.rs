//! Inboxes on SQLite: read by joining subscriptions with their topics' notifications.

use async_trait::async_trait;
use notifyx_model::{NotificationId, TopicId, UserId};
use notifyx_wire::rest::persist::{InboxItem, SeenStatus, UnreadInTopic};
use sqlx::SqliteConnection;
use uuid::Uuid;

use super::Sqlite;
use crate::{
    Error,
    inbox::{Mark, mark},
    store::{
        Inbox, InboxQuery,
        row::{self, InboxRow, MarkRow, StandRow, UnreadRow},
    },
};

/// What a topic `m` has for the reader, newest first, at most `$limit`: broadcasts above or below the floor. A walk along one
/// index, as are the two that follow.
macro_rules! broadcasts {
    ($column:literal, $limit:literal) => {
        concat!(
            "SELECT n.",
            $column,
            " FROM notification n
             WHERE n.topic_id = m.topic_id AND n.targeted = 0
               AND n.inserted_at > CASE WHEN ?5 THEN m.from_at ELSE max(m.from_at, m.floor_at) END
               AND n.inserted_at < CASE WHEN ?4 THEN m.below ELSE min(m.below, m.floor_at + 1) END
               AND (?5 OR NOT EXISTS (SELECT 1 FROM exception e WHERE e.user_id = ?1 AND e.topic_id = m.topic_id
                                      AND e.broadcast_no = n.broadcast_no))
             ORDER BY n.inserted_at DESC LIMIT ",
            $limit
        )
    };
}

/// Likewise: those seen out of order.
macro_rules! exceptions {
    ($column:literal, $limit:literal) => {
        concat!(
            "SELECT e.",
            $column,
            " FROM exception e
             WHERE NOT ?4 AND e.user_id = ?1 AND e.topic_id = m.topic_id AND e.\"offset\" > m.trimmed_offset
               AND e.inserted_at > m.floor_at AND e.inserted_at < m.below
             ORDER BY e.broadcast_no DESC LIMIT ",
            $limit
        )
    };
}

/// Likewise: what was sent to the reader alone, `$seen` (0 or 1), where `$wanted` asks for it.
macro_rules! targeted {
    ($column:literal, $seen:literal, $wanted:literal, $limit:literal) => {
        concat!(
            "SELECT r.",
            $column,
            " FROM recipient r
             WHERE ",
            $wanted,
            " AND r.user_id = ?1 AND r.topic_id = m.topic_id AND r.seen = ",
            $seen,
            "
               AND r.inserted_at > m.from_at AND r.inserted_at < m.below
             ORDER BY r.inserted_at DESC LIMIT ",
            $limit
        )
    };
}

/// ?1 reader, ?2 topic, ?3 creator, ?4 with unread, ?5 with seen, ?6 and ?7 the last line of the page before (time and topic),
/// ?8 lines, ?9 bytes of messages.
///
/// No topic's history is walked: one look per subscription finds the topics that can have a line on the page, and only those
/// are read, as far as the page reaches. A creator's own broadcasts are seen. 9223372036854775806 is later than any time.
const INBOX: &str = concat!(
    r#"
WITH mine AS MATERIALIZED (
    SELECT s.topic_id, t.name, t.trimmed_offset, s.from_at,
           CASE WHEN t.creator_id = s.user_id THEN 9223372036854775806 ELSE s.floor_at END AS floor_at,
           CASE WHEN s.topic_id < ?7 THEN ?6 + 1 ELSE ?6 END AS below
    FROM subscription s CROSS JOIN topic t ON t.id = s.topic_id
    WHERE s.user_id = ?1 AND (?2 IS NULL OR s.topic_id = ?2) AND (?3 IS NULL OR t.creator_id = ?3)
), newest AS MATERIALIZED (
    SELECT * FROM (
        SELECT m.*, max(coalesce(("#,
    broadcasts!("inserted_at", "1"),
    r#"), 0),
                        coalesce(("#,
    exceptions!("inserted_at", "1"),
    r#"), 0),
                        coalesce(("#,
    targeted!("inserted_at", "0", "?4", "1"),
    r#"), 0),
                        coalesce(("#,
    targeted!("inserted_at", "1", "?5", "1"),
    r#"), 0)) AS at
        FROM mine m)
    WHERE at > 0 ORDER BY at DESC, topic_id DESC LIMIT ?8
), page AS MATERIALIZED (
    SELECT topic_id, name, "offset", inserted_at, seen FROM (
        SELECT m.topic_id, m.name, b."offset", b.inserted_at,
               b.inserted_at <= m.floor_at OR EXISTS (SELECT 1 FROM exception e WHERE e.user_id = ?1
                   AND e.topic_id = m.topic_id AND e.broadcast_no = b.broadcast_no) AS seen
        FROM newest m CROSS JOIN notification b ON b.rowid IN ("#,
    broadcasts!("rowid", "?8"),
    r#")
        UNION ALL
        SELECT m.topic_id, m.name, x."offset", x.inserted_at, 1
        FROM newest m CROSS JOIN exception x ON x.user_id = ?1 AND x.topic_id = m.topic_id
             AND x.broadcast_no IN ("#,
    exceptions!("broadcast_no", "?8"),
    r#")
        UNION ALL
        SELECT m.topic_id, m.name, x."offset", x.inserted_at, 0
        FROM newest m CROSS JOIN recipient x ON x.topic_id = m.topic_id AND x.user_id = ?1
             AND x."offset" IN ("#,
    targeted!("\"offset\"", "0", "?4", "?8"),
    r#")
        UNION ALL
        SELECT m.topic_id, m.name, x."offset", x.inserted_at, 1
        FROM newest m CROSS JOIN recipient x ON x.topic_id = m.topic_id AND x.user_id = ?1
             AND x."offset" IN ("#,
    targeted!("\"offset\"", "1", "?5", "?8"),
    r#")
    ) ORDER BY inserted_at DESC, topic_id DESC LIMIT ?8
), cut AS (
    SELECT n.*, p.name AS topic, p.seen, count(*) OVER () AS found,
           sum(octet_length(n.message)) OVER (ORDER BY p.inserted_at DESC, p.topic_id DESC) - octet_length(n.message) AS bytes_before
    FROM page p CROSS JOIN notification n ON n.topic_id = p.topic_id AND n."offset" = p."offset"
)
SELECT c.*, CASE WHEN c.targeted THEN (SELECT group_concat(lower(hex(r.user_id))) FROM recipient r
                WHERE r.topic_id = c.topic_id AND r."offset" = c."offset") END AS recipients
FROM cut c WHERE bytes_before < ?9 ORDER BY c.inserted_at DESC, c.topic_id DESC"#
);

/// Unread by topic, of one moment: broadcasts above the floor, less those seen out of order, and what is for the reader alone.
macro_rules! unread {
    ($which:literal) => {
        concat!(
            r#"SELECT s.topic_id, t.name, t.last_broadcast_no, t.creator_id = s.user_id AS own,
                      CASE WHEN t.creator_id = s.user_id THEN 0 ELSE
                          t.last_broadcast_no - max(s.floor, t.trimmed_broadcast_no)
                          - (SELECT count(*) FROM exception e WHERE e.user_id = s.user_id AND e.topic_id = s.topic_id
                             AND e.broadcast_no > max(s.floor, t.trimmed_broadcast_no)) END
                      + (SELECT count(*) FROM recipient r WHERE r.user_id = s.user_id AND r.topic_id = s.topic_id
                         AND r.seen = 0 AND r.inserted_at > s.from_at) AS unread
               FROM subscription s CROSS JOIN topic t ON t.id = s.topic_id WHERE s.user_id = ?1 "#,
            $which
        )
    };
}

#[async_trait]
impl Inbox for Sqlite {
    async fn inbox(&self, query: &InboxQuery) -> Result<(Vec<InboxItem>, bool), Error> {
        let (at, topic) = match query.after {
            None => (i64::MAX - 1, Uuid::nil()),
            Some(id) => sqlx::query_as("SELECT inserted_at, topic_id FROM notification WHERE id = ?1")
                .bind(id.uuid())
                .fetch_optional(self.read())
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
            .fetch_all(self.read())
            .await?;
        row::cut_page(rows, query.limit)
    }

    async fn mark_seen(
        &self,
        user: UserId,
        notification: NotificationId,
        exceptions_max: u32,
    ) -> Result<UnreadInTopic, Error> {
        let mut tx = self.begin().await?;
        let row: MarkRow = sqlx::query_as(
            r#"SELECT n.topic_id, n."offset", n.broadcast_no, n.targeted, n.inserted_at, t.creator_id = s.user_id AS own,
                      max(s.floor, t.trimmed_broadcast_no) AS floor
               FROM notification n
               JOIN topic t ON t.id = n.topic_id
               JOIN subscription s ON s.topic_id = n.topic_id AND s.user_id = ?2
               WHERE n.id = ?1"#,
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
                    r#"UPDATE recipient SET seen = 1 WHERE topic_id = ?1 AND "offset" = ?2 AND user_id = ?3"#,
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
        let mut tx = self.begin().await?;
        let stand: StandRow = sqlx::query_as(
            "SELECT s.floor, s.floor_at, t.last_offset, t.last_broadcast_no, t.last_at, t.trimmed_offset
             FROM subscription s JOIN topic t ON t.id = s.topic_id WHERE s.user_id = ?1 AND s.topic_id = ?2",
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
                r#"SELECT broadcast_no, inserted_at FROM notification WHERE topic_id = ?1 AND "offset" = ?2"#,
            )
            .bind(topic.uuid())
            .bind(offset)
            .fetch_optional(&mut *tx)
            .await?
        };
        if let Some((broadcast_no, at)) = reached {
            sqlx::query(
                "UPDATE recipient SET seen = 1 WHERE user_id = ?1 AND topic_id = ?2 AND seen = 0 AND inserted_at <= ?3",
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
        let rows: Vec<UnreadRow> =
            sqlx::query_as(unread!("ORDER BY t.name")).bind(user.uuid()).fetch_all(self.read()).await?;
        row::all(rows)
    }
}

async fn unread_in(connection: &mut SqliteConnection, user: Uuid, topic: Uuid) -> Result<UnreadInTopic, Error> {
    let row: UnreadRow =
        sqlx::query_as(unread!("AND s.topic_id = ?2")).bind(user).bind(topic).fetch_one(connection).await?;
    row.try_into()
}

/// Moves the floor to a broadcast, and on over those that directly follow it and were seen before it.
async fn raise(connection: &mut SqliteConnection, user: Uuid, topic: Uuid, floor: i64, at: i64) -> Result<(), Error> {
    let folded: Option<(i64, i64)> = sqlx::query_as(
        "SELECT e.broadcast_no, e.inserted_at FROM exception e
         WHERE e.user_id = ?1 AND e.topic_id = ?2 AND e.broadcast_no > ?3
           AND EXISTS (SELECT 1 FROM exception f WHERE f.user_id = ?1 AND f.topic_id = ?2 AND f.broadcast_no = ?3 + 1)
           AND NOT EXISTS (SELECT 1 FROM exception n WHERE n.user_id = ?1 AND n.topic_id = ?2 AND n.broadcast_no = e.broadcast_no + 1)
         ORDER BY e.broadcast_no LIMIT 1",
    )
    .bind(user)
    .bind(topic)
    .bind(floor)
    .fetch_optional(&mut *connection)
    .await?;
    let (floor, at) = folded.unwrap_or((floor, at));
    sqlx::query("UPDATE subscription SET floor = ?3, floor_at = ?4 WHERE user_id = ?1 AND topic_id = ?2")
        .bind(user)
        .bind(topic)
        .bind(floor)
        .bind(at)
        .execute(&mut *connection)
        .await?;
    sqlx::query("DELETE FROM exception WHERE user_id = ?1 AND topic_id = ?2 AND broadcast_no <= ?3")
        .bind(user)
        .bind(topic)
        .bind(floor)
        .execute(connection)
        .await?;
    Ok(())
}

/// Remembers a broadcast that was seen before others below it.
async fn except(connection: &mut SqliteConnection, user: Uuid, row: &MarkRow, max: u32) -> Result<(), Error> {
    let inserted = sqlx::query(
        r#"INSERT INTO exception (user_id, topic_id, broadcast_no, "offset", inserted_at)
           SELECT ?1, ?2, ?3, ?4, ?5
           WHERE (SELECT count(*) FROM exception WHERE user_id = ?1 AND topic_id = ?2 AND broadcast_no > ?6) < ?7
              OR EXISTS (SELECT 1 FROM exception WHERE user_id = ?1 AND topic_id = ?2 AND broadcast_no = ?3)
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

//! A topic with 100,000 subscribers costs a publish what one with ten does.

use notifyx_database::Database;
use notifyx_model::{TopicId, UserId};
use uuid::Uuid;

use super::{Fixture, MIGRATIONS, open};

notifyx_database::conformance!(open, &MIGRATIONS; a_broadcast_to_100_000_writes_one_row);

const SUBSCRIBERS: u128 = 100_000;

/// Subscribers with ids that a test can name.
fn subscriber(n: u128) -> UserId {
    UserId::from_uuid(Uuid::from_u128(n))
}

async fn load(f: &Fixture, topic: TopicId) {
    match &f.database {
        Database::Sqlite(sqlite) => {
            let mut tx = sqlite.begin().await.unwrap();
            sqlx::query(
                "WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < ?2)
                 INSERT INTO subscription SELECT unhex(format('%032x', n)), ?1, 0, 0, 0, 0, 0 FROM n",
            )
            .bind(topic.uuid())
            .bind(i64::try_from(SUBSCRIBERS).unwrap())
            .execute(&mut *tx)
            .await
            .unwrap();
            tx.commit().await.unwrap();
        }
        Database::Postgres(pool) => {
            sqlx::query(
                "INSERT INTO subscription
                 SELECT lpad(to_hex(n), 32, '0')::uuid, $1, 0, 0, 0, 0, 0 FROM generate_series(1, $2) n",
            )
            .bind(topic.uuid())
            .bind(i64::try_from(SUBSCRIBERS).unwrap())
            .execute(pool)
            .await
            .unwrap();
        }
    }
}

async fn rows(f: &Fixture) -> [i64; 5] {
    let mut counts = [0; 5];
    for (count, table) in counts.iter_mut().zip(["notification", "ptxn", "subscription", "recipient", "exception"]) {
        *count = f.rows(table).await;
    }
    counts
}

async fn a_broadcast_to_100_000_writes_one_row(f: Fixture) {
    let ann = f.user();
    let (small, large) = (f.topic("small", ann).await, f.topic("large", ann).await);
    for _ in 0..10 {
        f.subscriber(small).await;
    }
    load(&f, large).await;
    for topic in [small, large] {
        let before = rows(&f).await;
        f.publish(topic, ann, &[]).await;
        let after = rows(&f).await;
        let written: Vec<_> = after.iter().zip(before).map(|(after, before)| after - before).collect();
        assert_eq!(written, [1, 1, 0, 0, 0], "one notification, one transaction, nothing per subscriber");
    }

    let private = f.publish(large, ann, &[subscriber(50_000)]).await;
    f.publish(large, ann, &[]).await;
    for (n, offsets) in [(1, vec![3, 1]), (50_000, vec![3, 2, 1]), (100_000, vec![3, 1])] {
        let user = subscriber(n);
        let lines: Vec<_> = f.lines(user, None).await.into_iter().map(|(offset, _)| offset).collect();
        assert_eq!(lines, offsets);
        assert_eq!(f.unread(user, large).await, offsets.len() as u64);
    }
    f.store.mark_seen(subscriber(50_000), private.notification_id, 10).await.unwrap();
    f.store.mark_seen_up_to(subscriber(1), large, 3).await.unwrap();
    for (n, unread) in [(1, 0), (2, 2), (50_000, 2), (100_000, 2)] {
        assert_eq!(f.unread(subscriber(n), large).await, unread);
    }
}

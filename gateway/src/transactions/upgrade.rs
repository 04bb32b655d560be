//! A database of the first release, brought forward: nothing is lost, and a binary of that release goes on with it.

use notifyx_commit::{CoordinatorStore, Page, Parties, State, Votes};
use notifyx_database::{Database, DatabaseUrl, Migrations, Options, testing};
use notifyx_model::Clock;
use notifyx_wire::rest::commit::Standing;
use sqlx::migrate::Migrator;

use super::MIGRATIONS;

/// As the first release knew them.
fn first() -> Migrations {
    let only = |all: &Migrator| Migrator { migrations: all.migrations[..1].to_vec().into(), ..Migrator::DEFAULT };
    Migrations { sqlite: only(&MIGRATIONS.sqlite), postgres: only(&MIGRATIONS.postgres) }
}

/// Its statements: begin, commit and close.
async fn write_as_the_first_release(database: &Database, gid: u128) {
    let (sqlite, postgres) = (
        "INSERT INTO txn (gid, user_id, req_hash, state, owner, created_at, deadline, lease_until)
         VALUES (?1, ?1, zeroblob(32), 'PREPARING', ?1, 1, 2, 3)",
        "INSERT INTO txn (gid, user_id, req_hash, state, owner, created_at, deadline, lease_until)
         VALUES ($1, $1, decode(repeat('00', 32), 'hex'), 'PREPARING', $1, 1, 2, 3)",
    );
    let close =
        "UPDATE txn SET state = 'COMMIT', acked_persist = TRUE, acked_counter = TRUE, closed_at = 4 WHERE gid = $1";
    let begin = if matches!(database, Database::Sqlite(_)) { sqlite } else { postgres };
    for statement in [begin, close] {
        write(database, statement, gid).await.unwrap();
    }
}

async fn write(database: &Database, statement: &str, gid: u128) -> Result<(), sqlx::Error> {
    let gid = uuid::Uuid::from_u128(gid);
    match database {
        Database::Sqlite(sqlite) => {
            let mut tx = sqlite.begin().await.unwrap();
            sqlx::query(statement).bind(gid).execute(&mut *tx).await?;
            tx.commit().await
        }
        Database::Postgres(pool) => sqlx::query(statement).bind(gid).execute(pool).await.map(drop),
    }
}

async fn closed_before_and_after(url: &DatabaseUrl) {
    let old = Database::open(url, Options::default(), &first()).await.unwrap();
    write_as_the_first_release(&old, 1).await;
    old.close().await;
    drop(old);
    let new = Database::open(url, Options::default(), &MIGRATIONS).await.unwrap();
    write_as_the_first_release(&new, 2).await;
    let store: std::sync::Arc<dyn CoordinatorStore> = super::open(&new, Clock::system());
    let all = store.list(Page { standing: Standing::All, after: None, limit: 10 }).await.unwrap();
    assert_eq!(all.len(), 2);
    for record in all {
        assert_eq!((record.state, record.acked, record.votes), (State::Commit, Parties::BOTH, Votes::NONE));
        assert_eq!((record.closed_at.unwrap().as_micros(), record.resolution), (4, None));
    }
    let unacked = write(&new, "UPDATE txn SET acked_counter = FALSE WHERE gid = $1", 1).await.unwrap_err();
    assert!(
        unacked.to_string().to_lowercase().contains("check constraint"),
        "closed, but not by an operator: {unacked}"
    );
}

#[tokio::test]
async fn a_sqlite_database_of_the_first_release_is_brought_forward() {
    let folder = tempfile::tempdir().unwrap();
    closed_before_and_after(&DatabaseUrl::sqlite(folder.path().join("a.db"))).await;
}

#[tokio::test]
async fn a_postgres_database_of_the_first_release_is_brought_forward() {
    closed_before_and_after(&testing::postgres_url("upgrade").await).await;
}

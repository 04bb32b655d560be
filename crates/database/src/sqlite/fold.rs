//! Folds the write-ahead log into the file, on a connection of its own.
//!
//! SQLite's own way is that whoever commits the thousandth page does it, and waits for two more `fsync`s and the pages in between: every
//! few commits of a busy service would take several times as long. Here the writer goes on meanwhile.

use std::{sync::Mutex, time::Duration};

use sqlx::{Connection, SqliteConnection};
use tokio::{sync::oneshot, task::JoinHandle, time::sleep};
use tracing::warn;

use super::Writer;

/// After the first commit that is not folded yet. Twice two `fsync`s a second are nothing beside what commits cost, and a second of a
/// busy writer is a log of some 50 MB.
const PAUSE: Duration = Duration::from_millis(500);

/// A log of 4,096 pages (16 MiB). Beyond it the writer is held while what it has written in the meantime is folded too, so that it begins the log
/// anew: one that never rests would let it grow for ever.
const PAGES_MAX: i64 = 4_096;

/// Pages after which the writer folds by itself: something is wrong with us then.
pub(crate) const PAGES_BACKSTOP: i64 = 16 * PAGES_MAX;

/// A log that is begun anew keeps its place on the disk: writing over it is cheaper than growing it. Beyond this it is cut.
pub(crate) const LOG_BYTES_KEPT: i64 = 4_096 * PAGES_MAX * 4;

/// The task, as long as the database is open.
#[derive(Debug)]
pub(super) struct Folding(Mutex<Option<(oneshot::Sender<()>, JoinHandle<()>)>>);

impl Folding {
    pub(super) fn start(connection: SqliteConnection, writer: Writer) -> Self {
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(async move {
            let mut connection = connection;
            tokio::select! {
                () = fold_all(&mut connection, &writer) => {}
                // Also when nobody has the database any more.
                _ = stopped => {}
            }
            // The next to open it folds what is left.
            let _ = connection.close().await;
        });
        Self(Mutex::new(Some((stop, task))))
    }

    pub(super) async fn stop(&self) {
        let running = self.0.lock().ok().and_then(|mut running| running.take());
        if let Some((stop, task)) = running {
            drop(stop);
            // It ends with the connection's closing, which cannot panic.
            let _ = task.await;
        }
    }
}

async fn fold_all(connection: &mut SqliteConnection, writer: &Writer) {
    loop {
        writer.written.notified().await;
        sleep(PAUSE).await;
        if let Err(error) = fold(connection, writer).await {
            warn!(%error, "the write-ahead log is not folded into the database yet: {error}");
        }
    }
}

async fn fold(connection: &mut SqliteConnection, writer: &Writer) -> Result<(), sqlx::Error> {
    if checkpoint(connection).await? > PAGES_MAX {
        let _held = writer.turn().await?;
        checkpoint(connection).await?;
    }
    Ok(())
}

/// Folds what no reader holds on to, without holding up anybody; how many pages the log has.
async fn checkpoint(connection: &mut SqliteConnection) -> Result<i64, sqlx::Error> {
    let (_busy, pages, _folded): (i64, i64, i64) =
        sqlx::query_as("PRAGMA wal_checkpoint(PASSIVE)").fetch_one(connection).await?;
    Ok(pages)
}

#[cfg(test)]
mod tests {
    use sqlx::ConnectOptions;

    use super::*;
    use crate::{Database, testing};

    #[tokio::test]
    async fn a_log_that_has_grown_is_begun_anew() {
        let kept = testing::sqlite(&crate::open::tests::none()).await;
        let Database::Sqlite(sqlite) = &kept.database else { unreachable!("it is SQLite") };
        let mut tx = sqlite.begin().await.unwrap();
        sqlx::query("CREATE TABLE a (b BLOB NOT NULL)").execute(&mut *tx).await.unwrap();
        sqlx::query("INSERT INTO a VALUES (zeroblob(?))").bind(4096 * PAGES_MAX).execute(&mut *tx).await.unwrap();
        tx.commit().await.unwrap();
        let mut connection = sqlite.writer.connect.connect().await.unwrap();
        fold(&mut connection, &sqlite.writer).await.unwrap();
        let mut tx = sqlite.begin().await.unwrap();
        sqlx::query("DELETE FROM a").execute(&mut *tx).await.unwrap();
        tx.commit().await.unwrap();
        assert!(checkpoint(&mut connection).await.unwrap() < PAGES_MAX);
    }
}

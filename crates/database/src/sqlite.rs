//! SQLite as one process uses it: one writer, readers beside it, and the write-ahead log folded into the file out of the writer's way.
//!
//! The writer's connection is not pooled: a pool asks it whether it is well before and after each transaction, and each question is
//! two changes of threads, which is what a small transaction costs in all.

mod fold;

use std::{
    fs::File,
    ops::{Deref, DerefMut},
    sync::Arc,
    time::Duration,
};

use sqlx::{
    ConnectOptions, Connection, SqliteConnection, SqlitePool,
    sqlite::{SqliteConnectOptions, SqlitePoolOptions},
};
use tokio::{
    runtime::Handle,
    sync::{Mutex, Notify, OwnedMutexGuard},
    time::timeout,
};

use self::fold::Folding;
pub(crate) use self::fold::{LOG_BYTES_KEPT, PAGES_BACKSTOP};
use crate::{Error, Options};

/// One writer, many readers, one process.
#[derive(Clone, Debug)]
pub struct Sqlite {
    writer: Writer,
    pub read: SqlitePool,
    folding: Arc<Folding>,
    /// Held as long as the database is open.
    _lock: Arc<File>,
}

/// Cheap to clone.
#[derive(Clone, Debug)]
struct Writer {
    connect: Arc<SqliteConnectOptions>,
    home: Arc<Mutex<Home>>,
    /// How long a caller waits for its turn.
    patience: Duration,
    /// Something was committed.
    written: Arc<Notify>,
}

/// Where the writer's connection is between transactions.
#[derive(Debug)]
enum Home {
    Here(SqliteConnection),
    /// In a transaction, or given up with one that could not be rolled back: the next one who finds it so connects anew.
    Away,
    Closed,
}

impl Sqlite {
    /// `connection` becomes the writer's.
    pub(crate) async fn start(
        connect: SqliteConnectOptions,
        connection: SqliteConnection,
        options: Options,
        lock: File,
    ) -> Result<Self, sqlx::Error> {
        let read = SqlitePoolOptions::new()
            .max_connections(options.connections)
            .acquire_timeout(options.acquire_timeout)
            .idle_timeout(None)
            .max_lifetime(None)
            // They are of this process, and do not go away.
            .test_before_acquire(false)
            .connect_with(connect.clone().read_only(true))
            .await?;
        let writer = Writer {
            connect: Arc::new(connect),
            home: Arc::new(Mutex::new(Home::Here(connection))),
            patience: options.acquire_timeout,
            written: Arc::default(),
        };
        let folding = Arc::new(Folding::start(writer.connect.connect().await?, writer.clone()));
        Ok(Self { writer, read, folding, _lock: Arc::new(lock) })
    }

    /// Begins the one write transaction there can be; others wait for it here, in order.
    pub async fn begin(&self) -> Result<Transaction, Error> {
        Ok(self.writer.begin().await?)
    }

    /// Connections that are open and how many of them wait for work.
    pub(crate) fn usage(&self) -> (u32, usize) {
        let waits = self.writer.home.try_lock().is_ok();
        (self.read.size() + 1, self.read.num_idle() + usize::from(waits))
    }

    /// Waits for what runs, then closes. The log is folded into the file by the last that closes.
    pub(crate) async fn close(&self) {
        self.read.close().await;
        self.folding.stop().await;
        let mut home = self.writer.home.lock().await;
        if let Home::Here(connection) = std::mem::replace(&mut *home, Home::Closed) {
            // What was committed is durable without it.
            let _ = connection.close().await;
        }
    }
}

impl Writer {
    async fn begin(&self) -> Result<Transaction, sqlx::Error> {
        let mut home = self.turn().await?;
        let connection = match std::mem::replace(&mut *home, Home::Away) {
            Home::Here(connection) => connection,
            Home::Away => self.connect.connect().await?,
            Home::Closed => {
                *home = Home::Closed;
                return Err(sqlx::Error::PoolClosed);
            }
        };
        // From here on whoever gives up rolls back.
        let mut begun = Transaction { connection: Some(connection), home: Some(home), written: self.written.clone() };
        sqlx::query("BEGIN IMMEDIATE").execute(&mut *begun).await?;
        Ok(begun)
    }

    /// Until nobody writes.
    async fn turn(&self) -> Result<OwnedMutexGuard<Home>, sqlx::Error> {
        timeout(self.patience, self.home.clone().lock_owned()).await.map_err(|_| sqlx::Error::PoolTimedOut)
    }
}

/// The one write transaction there is. Dropped before it is committed, it is rolled back before the next begins.
#[derive(Debug)]
pub struct Transaction {
    /// There until it is taken home.
    connection: Option<SqliteConnection>,
    home: Option<OwnedMutexGuard<Home>>,
    written: Arc<Notify>,
}

impl Transaction {
    pub async fn commit(mut self) -> Result<(), sqlx::Error> {
        sqlx::query("COMMIT").execute(&mut *self).await?;
        self.written.notify_one();
        if let (Some(connection), Some(mut home)) = (self.connection.take(), self.home.take()) {
            *home = Home::Here(connection);
        }
        Ok(())
    }

    pub async fn rollback(mut self) -> Result<(), sqlx::Error> {
        match (self.connection.take(), self.home.take()) {
            (Some(connection), Some(home)) => roll_back(connection, home).await,
            _ => Ok(()),
        }
    }
}

/// A connection on which that fails is closed, which rolls back too.
async fn roll_back(mut connection: SqliteConnection, mut home: OwnedMutexGuard<Home>) -> Result<(), sqlx::Error> {
    sqlx::query("ROLLBACK").execute(&mut connection).await?;
    *home = Home::Here(connection);
    Ok(())
}

impl Drop for Transaction {
    fn drop(&mut self) {
        let (Some(connection), Some(home)) = (self.connection.take(), self.home.take()) else { return };
        // Whatever was given up in the middle is in the connection's queue before this. Without a runtime the process is ending.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = roll_back(connection, home).await {
                    tracing::debug!(%error, "the writer's connection is given up, and with it its transaction");
                }
            });
        }
    }
}

impl Deref for Transaction {
    type Target = SqliteConnection;

    fn deref(&self) -> &SqliteConnection {
        self.connection.as_ref().expect("it is there until the transaction ends, which takes the transaction")
    }
}

impl DerefMut for Transaction {
    fn deref_mut(&mut self) -> &mut SqliteConnection {
        self.connection.as_mut().expect("it is there until the transaction ends, which takes the transaction")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Database, testing};

    async fn counted(sqlite: &Sqlite) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM a").fetch_one(&sqlite.read).await.unwrap()
    }

    async fn database() -> (testing::TestDatabase, Sqlite) {
        let kept = testing::sqlite(&crate::open::tests::none()).await;
        let Database::Sqlite(sqlite) = kept.database.clone() else { unreachable!("it is SQLite") };
        let mut tx = sqlite.begin().await.unwrap();
        sqlx::query("CREATE TABLE a (b INTEGER NOT NULL)").execute(&mut *tx).await.unwrap();
        tx.commit().await.unwrap();
        (kept, sqlite)
    }

    #[tokio::test]
    async fn a_transaction_that_is_dropped_or_rolled_back_leaves_nothing() {
        let (_kept, sqlite) = database().await;
        for drops in [true, false] {
            let mut tx = sqlite.begin().await.unwrap();
            sqlx::query("INSERT INTO a VALUES (1)").execute(&mut *tx).await.unwrap();
            if drops {
                drop(tx);
            } else {
                tx.rollback().await.unwrap();
            }
        }
        let mut tx = sqlite.begin().await.unwrap();
        sqlx::query("INSERT INTO a VALUES (2)").execute(&mut *tx).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(counted(&sqlite).await, 1);
    }

    #[tokio::test]
    async fn work_that_is_given_up_at_any_moment_leaves_the_writer_free_and_is_whole_or_nothing() {
        let (_kept, sqlite) = database().await;
        for polls in 0..200 {
            let work = async {
                let mut tx = sqlite.begin().await.unwrap();
                for number in 0..2 {
                    sqlx::query("INSERT INTO a VALUES (?)").bind(number).execute(&mut *tx).await.unwrap();
                }
                tx.commit().await.unwrap();
            };
            let mut work = std::pin::pin!(work);
            for _ in 0..polls {
                if std::future::poll_fn(|cx| std::task::Poll::Ready(work.as_mut().poll(cx))).await.is_ready() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        sqlite.begin().await.unwrap().rollback().await.unwrap();
        assert_eq!(counted(&sqlite).await % 2, 0);
    }

    #[tokio::test]
    async fn a_connection_that_cannot_roll_back_is_replaced() {
        let (_kept, sqlite) = database().await;
        let mut tx = sqlite.begin().await.unwrap();
        sqlx::query("COMMIT").execute(&mut *tx).await.unwrap();
        tx.rollback().await.unwrap_err();
        sqlite.begin().await.unwrap().commit().await.unwrap();
    }

    #[tokio::test]
    async fn nobody_writes_after_the_end() {
        let (_kept, sqlite) = database().await;
        sqlite.close().await;
        for _ in 0..2 {
            assert!(matches!(sqlite.begin().await, Err(Error::Unavailable(_))));
        }
    }
}

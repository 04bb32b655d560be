//! Opens a database: connects, creates what is missing, brings the schema up to date.
//!
//! SQLite has one writer, readers beside it, and a lock file so that a second process on the same files is refused. Connections are
//! made on the runtime that runs `open` or the query: run queries on the shared runtime (`chassis::Shared`), which stops last.

use std::{fs::File, path::Path, time::Duration};

use sqlx::{
    ConnectOptions, Connection, PgConnection, PgPool,
    migrate::{MigrateDatabase, Migrator},
    postgres::{PgConnectOptions, PgPoolOptions},
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};

use crate::{
    DatabaseUrl, Error, OpenError,
    sqlite::{self, Sqlite},
    url::Place,
};

/// A service's migrations, one set per backend: `sqlx::migrate!("./migrations/sqlite")` and `…/postgres`.
#[derive(Debug)]
pub struct Migrations {
    pub sqlite: Migrator,
    pub postgres: Migrator,
}

#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Connections to Postgres, or readers of SQLite.
    pub connections: u32,
    /// How long a caller waits for a connection; below every caller's own deadline.
    pub acquire_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { connections: 8, acquire_timeout: Duration::from_secs(2) }
    }
}

/// An open database.
#[derive(Clone, Debug)]
pub enum Database {
    Sqlite(Sqlite),
    Postgres(PgPool),
}

impl Database {
    pub async fn open(url: &DatabaseUrl, options: Options, migrations: &Migrations) -> Result<Self, OpenError> {
        match url.place() {
            Place::Sqlite(path) => Ok(Self::Sqlite(open_sqlite(url, path, options, &migrations.sqlite).await?)),
            Place::Postgres(server) => {
                open_postgres(url, server, options, &migrations.postgres).await.map(Self::Postgres)
            }
        }
    }

    /// Answers if the database does: for readiness.
    pub async fn ping(&self) -> Result<(), Error> {
        match self {
            Self::Sqlite(sqlite) => sqlx::query("SELECT 1").execute(&sqlite.read).await.map(drop)?,
            Self::Postgres(pool) => sqlx::query("SELECT 1").execute(pool).await.map(drop)?,
        }
        Ok(())
    }

    /// Connections that are open and how many of them wait for work: for metrics.
    pub fn usage(&self) -> (u32, usize) {
        match self {
            Self::Sqlite(sqlite) => sqlite.usage(),
            Self::Postgres(pool) => (pool.size(), pool.num_idle()),
        }
    }

    /// Waits for what runs, then closes. SQLite's log is folded into its file.
    pub async fn close(&self) {
        match self {
            Self::Sqlite(sqlite) => sqlite.close().await,
            Self::Postgres(pool) => pool.close().await,
        }
    }
}

async fn open_sqlite(
    url: &DatabaseUrl,
    path: &Path,
    options: Options,
    migrator: &Migrator,
) -> Result<Sqlite, OpenError> {
    let folder = url.folder().unwrap_or(Path::new("."));
    std::fs::create_dir_all(folder)
        .map_err(|source| OpenError::Folder { folder: folder.display().to_string(), source })?;
    let lock = lock(&path.with_extension("lock"))?;
    let connect = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // What was accepted survives a power cut.
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(true)
        // Only a checkpoint can hold the file against the one writer, and that for milliseconds.
        .busy_timeout(Duration::from_secs(5))
        // 8 MiB of pages per connection: four services have nine each, and the system keeps what more is hot.
        .pragma("cache_size", "-8192")
        // A page of rows comes from the connection's thread without a stop in between.
        .row_buffer_size(1_000)
        // Folding the log is not the writer's business, and a log that had to grow is cut when it is begun anew.
        .pragma("wal_autocheckpoint", sqlite::PAGES_BACKSTOP.to_string())
        .pragma("journal_size_limit", sqlite::LOG_BYTES_KEPT.to_string())
        .disable_statement_logging();
    let connected = |source| OpenError::Connect { url: url.to_string(), source };
    let mut writer = connect.connect().await.map_err(connected)?;
    // As `run`, of which the compiler cannot tell that it may change threads.
    let migrated = surviving(migrator).run_direct(&mut writer).await;
    migrated.map_err(|source| OpenError::Migrate { url: url.to_string(), source })?;
    Sqlite::start(connect, writer, options, lock).await.map_err(connected)
}

/// A schema that is newer than this binary is lived with: instances are replaced one after another, and an old one may have to
/// start again meanwhile.
fn surviving(migrator: &Migrator) -> Migrator {
    let mut surviving = Migrator { migrations: migrator.migrations.clone(), ..Migrator::DEFAULT };
    surviving.set_ignore_missing(true);
    surviving
}

fn lock(path: &Path) -> Result<File, OpenError> {
    let failed = |source| OpenError::Lock { path: path.display().to_string(), source };
    let file = File::create(path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => {
            Err(OpenError::InUse { path: path.with_extension("db").display().to_string() })
        }
        Err(std::fs::TryLockError::Error(source)) => Err(failed(source)),
    }
}

async fn open_postgres(
    url: &DatabaseUrl,
    server: &url::Url,
    options: Options,
    migrator: &Migrator,
) -> Result<PgPool, OpenError> {
    let connected = |source| OpenError::Connect { url: url.to_string(), source };
    if !exists(url, server).await.map_err(connected)? {
        // Another instance may have been quicker; the connection below tells.
        let _ = sqlx::Postgres::create_database(server.as_str()).await;
    }
    let connect = server
        .as_str()
        .parse::<PgConnectOptions>()
        .map_err(connected)?
        .application_name("notifyx")
        // An accepted message survives a crash of the server whatever its default is, and no statement runs for ever.
        .options([("synchronous_commit", "on"), ("statement_timeout", "10000"), ("lock_timeout", "5000")])
        .disable_statement_logging();
    migrate(url, connect.clone(), migrator).await?;
    PgPoolOptions::new()
        .max_connections(options.connections)
        .acquire_timeout(options.acquire_timeout)
        // Asked whether it is there only if it has rested: asking before each use is one call more for every transaction.
        .test_before_acquire(false)
        .before_acquire(|connection, meta| {
            Box::pin(async move {
                if meta.idle_for > RESTED {
                    connection.ping().await?;
                }
                Ok(true)
            })
        })
        .after_release(|connection, _| Box::pin(async move { answers(connection).await.map(|()| true) }))
        .connect_with(connect)
        .await
        .map_err(connected)
}

/// On a connection of its own: an index on a large table takes longer than any statement may. sqlx takes an advisory lock, so that
/// instances that start together migrate once; they wait for it as long.
async fn migrate(url: &DatabaseUrl, connect: PgConnectOptions, migrator: &Migrator) -> Result<(), OpenError> {
    let unbounded = connect.options([("statement_timeout", "0"), ("lock_timeout", "0")]);
    let connected = |source| OpenError::Connect { url: url.to_string(), source };
    let mut connection = unbounded.connect().await.map_err(connected)?;
    // As `run`, of which the compiler cannot tell that it may change threads.
    let migrated = surviving(migrator).run_direct(&mut connection).await;
    migrated.map_err(|source| OpenError::Migrate { url: url.to_string(), source })?;
    // What was committed is durable without it.
    let _ = connection.close().await;
    Ok(())
}

/// Whether a connection whose caller may have given up waiting has come to the end of what it was asked. Longer than any statement may
/// take: then its server is gone, and it would hold its place in the pool until the kernel gives it up. One that is at rest is not asked.
async fn answers(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let silent = |_| sqlx::Error::Io(std::io::Error::from(std::io::ErrorKind::TimedOut));
    tokio::time::timeout(GIVEN_UP, connection.flush()).await.map_err(silent)?
}

const GIVEN_UP: Duration = Duration::from_secs(12);

/// A server that is restarted is away for about as long.
const RESTED: Duration = Duration::from_secs(1);

/// Whether the database is there. A server that recovers from a crash says so, and is waited for.
async fn exists(url: &DatabaseUrl, server: &url::Url) -> Result<bool, sqlx::Error> {
    let mut waited = Duration::ZERO;
    loop {
        match sqlx::Postgres::database_exists(server.as_str()).await {
            Err(error) if is_starting(&error) && waited < STARTING_WAIT => {
                if waited.is_zero() {
                    tracing::warn!("{url} is starting up: waiting for it, at most {STARTING_WAIT:?}");
                }
                tokio::time::sleep(STARTING_AGAIN).await;
                waited += STARTING_AGAIN;
            }
            answer => return answer,
        }
    }
}

/// Longer than most servers recover; what takes longer is for whoever starts us again.
const STARTING_WAIT: Duration = Duration::from_secs(30);
const STARTING_AGAIN: Duration = Duration::from_millis(250);

/// `cannot_connect_now`: there is a server, and it is starting up or shutting down.
fn is_starting(error: &sqlx::Error) -> bool {
    error.as_database_error().and_then(sqlx::error::DatabaseError::code).is_some_and(|code| code == "57P03")
}

#[cfg(test)]
pub(crate) mod tests {
    use std::borrow::Cow;

    use sqlx::migrate::{Migration, MigrationType};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;
    use crate::testing;

    pub(crate) fn none() -> Migrations {
        let empty = || Migrator { migrations: Cow::Borrowed(&[]), ..Migrator::DEFAULT };
        Migrations { sqlite: empty(), postgres: empty() }
    }

    #[tokio::test]
    async fn a_second_opener_of_the_same_files_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let url = DatabaseUrl::sqlite(folder.path().join("a.db"));
        let first = Database::open(&url, Options::default(), &none()).await.unwrap();
        let second = Database::open(&url, Options::default(), &none()).await.unwrap_err();
        assert!(matches!(second, OpenError::InUse { .. }), "{second}");
        first.ping().await.unwrap();
        first.close().await;
        drop(first);
        Database::open(&url, Options::default(), &none()).await.unwrap();
    }

    #[tokio::test]
    async fn an_older_binary_opens_a_newer_schema() {
        let step = |version, sql| {
            Migration::new(version, Cow::Borrowed("step"), MigrationType::Simple, Cow::Borrowed(sql), false)
        };
        let [first, second] = [step(1, "CREATE TABLE a (b INTEGER)"), step(2, "CREATE TABLE c (d INTEGER)")];
        let of = |steps: &[Migration]| Migrator { migrations: steps.to_vec().into(), ..Migrator::DEFAULT };
        let both = |steps: &[Migration]| Migrations { sqlite: of(steps), postgres: of(steps) };
        let (old, new) = (both(std::slice::from_ref(&first)), both(&[first, second]));
        let folder = tempfile::tempdir().unwrap();
        for url in [DatabaseUrl::sqlite(folder.path().join("a.db")), testing::postgres_url("older").await] {
            for migrations in [&old, &new, &old] {
                Database::open(&url, Options::default(), migrations).await.unwrap().close().await;
            }
        }
    }

    #[tokio::test]
    async fn a_begin_that_is_given_up_at_any_moment_leaves_the_writer_free() {
        let kept = testing::sqlite(&none()).await;
        let Database::Sqlite(sqlite) = &kept.database else { unreachable!("it is SQLite") };
        for polls in 0..200 {
            let mut begin = std::pin::pin!(sqlite.begin());
            for _ in 0..polls {
                if std::future::poll_fn(|cx| std::task::Poll::Ready(begin.as_mut().poll(cx))).await.is_ready() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        }
        sqlite.begin().await.unwrap().rollback().await.unwrap();
    }

    /// Answers the first words of each client with this SQLSTATE.
    async fn refuse(listener: &TcpListener, code: &str) {
        let (mut client, _) = listener.accept().await.unwrap();
        let length = client.read_u32().await.unwrap();
        client.read_exact(&mut vec![0; length as usize - 4]).await.unwrap();
        let fields = format!("SFATAL\0VFATAL\0C{code}\0Mthe database system says no\0\0");
        client.write_u8(b'E').await.unwrap();
        client.write_u32(u32::try_from(fields.len()).unwrap() + 4).await.unwrap();
        client.write_all(fields.as_bytes()).await.unwrap();
    }

    #[tokio::test]
    async fn a_server_that_is_starting_is_waited_for_and_no_other() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = listener.local_addr().unwrap();
        let url = DatabaseUrl::parse(&format!("postgres://u@{at}/d?sslmode=disable")).unwrap();
        let none = none();
        let opening = Database::open(&url, Options::default(), &none);
        let serving = async {
            for code in ["57P03", "57P03", "28P01"] {
                refuse(&listener, code).await;
            }
        };
        let (opened, ()) = tokio::join!(opening, serving);
        let OpenError::Connect { source, .. } = opened.unwrap_err() else { panic!("it cannot be opened") };
        assert_eq!(source.as_database_error().unwrap().code().unwrap(), "28P01");
    }

    #[tokio::test]
    async fn a_migration_takes_its_time_and_nothing_else_does() {
        let sql =
            "DO $$ BEGIN IF current_setting('statement_timeout') <> '0' OR current_setting('lock_timeout') <> '0' THEN
            RAISE EXCEPTION 'it is bounded'; END IF; END $$";
        let slow = Migration::new(1, Cow::Borrowed("slow"), MigrationType::Simple, Cow::Borrowed(sql), false);
        let migrations =
            Migrations { postgres: Migrator { migrations: vec![slow].into(), ..Migrator::DEFAULT }, ..none() };
        let url = testing::postgres_url("migrated").await;
        let Database::Postgres(pool) = Database::open(&url, Options::default(), &migrations).await.unwrap() else {
            unreachable!("it is Postgres")
        };
        let bound: String = sqlx::query_scalar("SHOW statement_timeout").fetch_one(&pool).await.unwrap();
        assert_eq!(bound, "10s");
    }

    #[tokio::test]
    async fn a_server_that_takes_no_writes_any_more_is_away() {
        let url = testing::postgres_url("read_only").await;
        let Database::Postgres(pool) = Database::open(&url, Options::default(), &none()).await.unwrap() else {
            unreachable!("it is Postgres")
        };
        let mut connection = pool.acquire().await.unwrap();
        sqlx::query("SET default_transaction_read_only = on").execute(&mut *connection).await.unwrap();
        let refused = sqlx::query("CREATE TABLE a (b INTEGER)").execute(&mut *connection).await.unwrap_err();
        assert!(matches!(Error::from(refused), Error::Unavailable(_)));
    }

    #[tokio::test]
    async fn a_missing_postgres_database_is_created() {
        let url = testing::postgres_url("created_at_open").await;
        let database = Database::open(&url, Options::default(), &none()).await.unwrap();
        database.ping().await.unwrap();
    }
}

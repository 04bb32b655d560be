//! The three databases of a world: opened once per thread, emptied between cases, and every commit of SQLite counted.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering::SeqCst},
};

use notifyx_database::{Database, DatabaseUrl, Migrations, Options, testing};
use tempfile::TempDir;

/// Whose database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    Coordinator,
    Persist,
    Counter,
}

impl Owner {
    pub(crate) const ALL: [Self; 3] = [Self::Coordinator, Self::Persist, Self::Counter];

    /// Of the durable write with this name.
    pub(crate) fn of(point: &str) -> Self {
        match point.split('.').next() {
            Some("coordinator") => Self::Coordinator,
            Some("persist") => Self::Persist,
            Some("counter") => Self::Counter,
            _ => panic!("{point} is no durable write"),
        }
    }

    fn migrations(self) -> &'static Migrations {
        match self {
            Self::Coordinator => &notifyx_gateway::transactions::MIGRATIONS,
            Self::Persist => notifyx_persist::testing::migrations(),
            Self::Counter => notifyx_counter_2pc::testing::migrations(),
        }
    }
}

/// What the commit hook and the fault points count in one database, in one case.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Writes between their points right now.
    pub(crate) under_way: AtomicUsize,
    /// Writes that went to the database, and those of them that certainly committed something.
    pub(crate) begun: AtomicUsize,
    pub(crate) done: AtomicUsize,
    /// Commits, as the database counts them.
    pub(crate) commits: AtomicUsize,
    /// Commits outside of every fault point.
    pub(crate) strays: AtomicUsize,
}

#[derive(Debug)]
pub(crate) struct Databases([(Database, Arc<Tally>); 3]);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Backend {
    Sqlite,
    Postgres,
}

/// Where a thread's worlds keep their rows.
#[derive(Debug)]
pub(crate) enum Place {
    /// Open files: their connections are threads, which serve any runtime.
    Sqlite { databases: Arc<Databases>, _folder: TempDir },
    /// Connected anew for each case: sockets belong to the runtime that opened them.
    Postgres(Box<[DatabaseUrl; 3]>),
}

impl Place {
    pub(crate) async fn new(backend: Backend) -> Self {
        match backend {
            Backend::Sqlite => {
                // In memory where the system has such a place: what a power cut would take is not what is tried here.
                let folder = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder");
                let file = |owner: Owner| DatabaseUrl::sqlite(folder.path().join(format!("{owner:?}.db")));
                let databases = Arc::new(Databases::open(&Owner::ALL.map(file)).await);
                // A connection on its way back to its pool would be lost with this runtime.
                databases.rest().await;
                Self::Sqlite { databases, _folder: folder }
            }
            Backend::Postgres => {
                let mut urls = Vec::new();
                for _ in Owner::ALL {
                    urls.push(testing::postgres_url("faults").await);
                }
                Self::Postgres(Box::new(urls.try_into().expect("three")))
            }
        }
    }

    /// Empty ones.
    pub(crate) async fn databases(&self) -> Arc<Databases> {
        let databases = match self {
            Self::Sqlite { databases, .. } => databases.clone(),
            Self::Postgres(urls) => Arc::new(Databases::open(urls).await),
        };
        databases.empty().await;
        databases
    }
}

impl Databases {
    async fn open(urls: &[DatabaseUrl; 3]) -> Self {
        let mut opened = Vec::new();
        for (owner, url) in Owner::ALL.into_iter().zip(urls) {
            let options = Options { connections: 4, ..Options::default() };
            let database = Database::open(url, options, owner.migrations()).await.expect("a database");
            opened.push((database, Arc::default()));
        }
        Self(opened.try_into().expect("three"))
    }

    pub(crate) fn get(&self, owner: Owner) -> &Database {
        &self.0[owner as usize].0
    }

    pub(crate) fn tally(&self, owner: Owner) -> &Arc<Tally> {
        &self.0[owner as usize].1
    }

    async fn empty(&self) {
        for (database, tally) in &self.0 {
            match database {
                Database::Sqlite(sqlite) => {
                    let mut tx = sqlite.begin().await.expect("the writer");
                    let tables: Vec<(String,)> = sqlx::query_as(
                        "SELECT name FROM sqlite_schema
                         WHERE type = 'table' AND name NOT LIKE '\\_%' ESCAPE '\\' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'",
                    )
                    .fetch_all(&mut *tx)
                    .await
                    .expect("the schema");
                    for (table,) in tables {
                        sqlx::query(&format!("DELETE FROM {table}")).execute(&mut *tx).await.expect("a table");
                    }
                    let counted = tally.clone();
                    tx.lock_handle().await.expect("SQLite").set_commit_hook(move || {
                        counted.commits.fetch_add(1, SeqCst);
                        if counted.under_way.load(SeqCst) == 0 {
                            counted.strays.fetch_add(1, SeqCst);
                        }
                        true
                    });
                    tx.commit().await.expect("emptied");
                }
                Database::Postgres(pool) => {
                    let tables: Vec<(String,)> = sqlx::query_as(
                        "SELECT tablename FROM pg_tables WHERE schemaname = 'public' AND tablename NOT LIKE '\\_%'",
                    )
                    .fetch_all(pool)
                    .await
                    .expect("the schema");
                    for (table,) in tables {
                        sqlx::query(&format!("DELETE FROM {table}")).execute(pool).await.expect("a table");
                    }
                }
            }
        }
    }

    /// From now on every commit is counted.
    pub(crate) fn count(&self) {
        for (_, Tally { under_way, begun, done, commits, strays }) in self.0.iter().map(|(of, tally)| (of, &**tally)) {
            for count in [under_way, begun, done, commits, strays] {
                count.store(0, SeqCst);
            }
        }
    }

    /// Until every connection is back in its pool: a case ends with nothing under way.
    pub(crate) async fn rest(&self) {
        for (database, _) in &self.0 {
            if let Database::Postgres(pool) = database {
                pool.close().await;
                continue;
            }
            while {
                let (open, idle) = database.usage();
                open as usize != idle
            } {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Whether the commits that the database counted are those that the fault points saw, in words if not.
    pub(crate) fn compare(&self, violations: &mut Vec<String>) {
        for owner in Owner::ALL {
            if matches!(self.get(owner), Database::Postgres(_)) {
                continue;
            }
            let tally = self.tally(owner);
            let [begun, done, commits, strays] =
                [&tally.begun, &tally.done, &tally.commits, &tally.strays].map(|count| count.load(SeqCst));
            if strays > 0 || commits < done || commits > begun {
                violations.push(format!(
                    "{owner:?}: {commits} commits, {strays} of them outside of every fault point; the points saw {done} to {begun}"
                ));
            }
        }
    }
}

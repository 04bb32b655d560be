//! The PostgreSQL server of the figures: one of our own beside SQLite's files, so that both have the same disk, or one that is
//! named. Its databases are named after the run and are gone afterwards.

use std::{fmt, fs, net::TcpListener, path::Path};

use notifyx_database::{DatabaseUrl, testing::Server};
use notifyx_model::{Clock, Gid};
use serde::Serialize;
use sqlx::{Connection, PgConnection};

use crate::{error::Error, process::Process};

/// The platform takes eight for each of its services, the yardsticks [`CONNECTIONS`](crate::yardstick) for each database.
const CONNECTIONS: &str = "max_connections=400";
/// As many as there may be publishers, and some that are between their phases.
const PREPARED: &str = "max_prepared_transactions=5000";

#[derive(Debug)]
pub(crate) struct Postgres {
    /// Without a database.
    base: String,
    /// The beginning of the names of all databases of this run.
    prefix: String,
    /// Stopped, and its folder removed, when it is dropped.
    own: Option<(Server, Process)>,
}

/// What the server was told about durability and memory; all but the connections are PostgreSQL's defaults.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Settings {
    version: String,
    fsync: String,
    synchronous_commit: String,
    wal_sync_method: String,
    full_page_writes: String,
    shared_buffers: String,
}

impl Postgres {
    /// Starts one below `data`, or in the system's temporary folder.
    pub(crate) fn start(data: Option<&Path>) -> Result<Self, Error> {
        let parent = data.map_or_else(std::env::temp_dir, Path::to_owned);
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let port = free.map_err(Error::io("finding a free port"))?.port();
        let server = Server::start_with(port, &parent, &[CONNECTIONS, PREPARED]);
        let file = server.folder.join("data/postmaster.pid");
        let told = fs::read_to_string(&file).map_err(Error::io(file.display()))?;
        let pid = told.lines().next().and_then(|line| line.parse().ok());
        let pid = pid.ok_or_else(|| Error::failed(format!("{} does not begin with a process id", file.display())))?;
        Ok(Self { base: server.base.clone(), prefix: prefix(), own: Some((server, pid)) })
    }

    /// One that runs: `postgres://user[:password]@host[:port]`.
    pub(crate) fn running(url: &str) -> Self {
        Self { base: url.trim_end_matches('/').to_owned(), prefix: prefix(), own: None }
    }

    /// `None` for one that runs elsewhere: then its CPU is not told.
    pub(crate) fn process(&self) -> Option<Process> {
        self.own.as_ref().map(|(_, process)| *process)
    }

    /// Of a database of this run; it need not exist yet.
    pub(crate) fn url(&self, name: &str) -> Result<DatabaseUrl, Error> {
        DatabaseUrl::parse(&self.text(name)).map_err(Error::failed)
    }

    /// The same with its password.
    pub(crate) fn text(&self, name: &str) -> String {
        format!("{}/{}_{name}", self.base, self.prefix)
    }

    /// Makes a database; its URL with its password.
    pub(crate) async fn create(&self, name: &str) -> Result<String, Error> {
        let create = format!("CREATE DATABASE \"{}_{name}\"", self.prefix);
        let created = sqlx::raw_sql(&create).execute(&mut self.connect().await?).await;
        created.map_err(|error| Error::failed(format!("making the database {name}: {error}")))?;
        Ok(self.text(name))
    }

    pub(crate) async fn settings(&self) -> Result<Settings, Error> {
        let mut connection = self.connect().await?;
        let mut show = async |name: &str| {
            let shown: sqlx::Result<(String,)> =
                sqlx::query_as("SELECT current_setting($1)").bind(name).fetch_one(&mut connection).await;
            shown.map(|(value,)| value).map_err(|error| Error::failed(format!("asking PostgreSQL for {name}: {error}")))
        };
        Ok(Settings {
            version: show("server_version").await?,
            fsync: show("fsync").await?,
            synchronous_commit: show("synchronous_commit").await?,
            wal_sync_method: show("wal_sync_method").await?,
            full_page_writes: show("full_page_writes").await?,
            shared_buffers: show("shared_buffers").await?,
        })
    }

    /// Removes what a server that is not ours would keep.
    pub(crate) async fn clean(&self) -> Result<(), Error> {
        if self.own.is_some() {
            return Ok(());
        }
        let failed = |error: sqlx::Error| Error::failed(format!("dropping the databases {}…: {error}", self.prefix));
        let mut connection = self.connect().await?;
        let names: Vec<(String,)> =
            sqlx::query_as("SELECT datname::text FROM pg_database WHERE starts_with(datname, $1)")
                .bind(&self.prefix)
                .fetch_all(&mut connection)
                .await
                .map_err(failed)?;
        for (name,) in names {
            let drop = format!("DROP DATABASE \"{name}\" WITH (FORCE)");
            sqlx::raw_sql(&drop).execute(&mut connection).await.map_err(failed)?;
        }
        Ok(())
    }

    async fn connect(&self) -> Result<PgConnection, Error> {
        let connected = PgConnection::connect(&format!("{}/postgres", self.base)).await;
        connected.map_err(|error| Error::failed(format!("connecting to PostgreSQL: {error}")))
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, fsync, synchronous_commit, wal_sync_method, full_page_writes, shared_buffers } = self;
        write!(
            f,
            "PostgreSQL {version}, fsync {fsync} ({wal_sync_method}), synchronous_commit {synchronous_commit}, \
             full_page_writes {full_page_writes}, shared_buffers {shared_buffers}"
        )
    }
}

/// Short enough that a service's name fits behind it: Postgres cuts names at 63 bytes. It begins with the time in milliseconds.
fn prefix() -> String {
    let id = Gid::new(&Clock::system()).uuid().simple().to_string();
    format!("notifyx_bench_{}", &id[..16])
}

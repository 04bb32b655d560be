//! The yardsticks of a publish: the rows that it leaves behind, written without two-phase commit, without HTTP and without
//! the rest of the platform.
//!
//! `Local`: one transaction of one database per notification. `Grouped`: the same for all that wait, at most 256 together:
//! the most that these statements reach. `Prepared`: PostgreSQL's own two-phase commit across two databases. All wait until
//! what they wrote is durable.

mod local;
mod postgres;
mod prepared;
mod schema;
mod sqlite;

use std::{path::Path, sync::Arc, time::Duration};

use notifyx_batch::{Batcher, Options};
use notifyx_database::DatabaseUrl;
use notifyx_model::{Clock, Gid, TopicId, UserId};
use tempfile::TempDir;
use tokio::runtime::{Handle, Runtime};
use uuid::Uuid;

use self::{local::Local, prepared::Prepared};
use crate::{error::Error, postgres::Postgres};

/// Connections to each Postgres database: beyond it more of them made two cores slower, not faster.
const CONNECTIONS: u32 = 64;
/// Behind 4,096 writers, one waits for its turn at SQLite.
const TURN_TIMEOUT: Duration = Duration::from_secs(60);
/// As the coordinator's groups.
const GROUP_ITEMS: usize = 256;

/// Who writes: as a publisher, with a topic.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owner {
    user_id: Uuid,
    topic_id: Uuid,
}

/// One notification to write.
#[derive(Clone, Debug)]
struct Row {
    gid: Uuid,
    owner: Owner,
    message: String,
}

/// E-mail addresses of the platform's publishers are as long.
const EMAIL: &str = "publisher100.0190163d8694739c8a9d3c5f7a9d3c5f@bench.example";
/// The hash of a request has as many bytes.
const REQUEST: [u8; 32] = [7; 32];

/// One way to write.
#[derive(Clone)]
enum Way {
    Local(Local),
    Grouped(Batcher<Row, Result<(), String>>),
    Prepared(Arc<Prepared>),
}

/// Writes for one owner.
#[derive(Clone)]
pub(crate) struct Writer {
    way: Way,
    owner: Owner,
    clock: Clock,
}

/// The yardsticks beside one backend. They run on threads of their own, as a service would.
pub(crate) struct Yardsticks {
    owners: Vec<Owner>,
    local: Way,
    grouped: Way,
    /// On Postgres, where it takes prepared transactions.
    prepared: Option<Way>,
    runtime: Option<Runtime>,
    _folder: Option<TempDir>,
}

impl Writer {
    pub(crate) async fn write(&self, message: String) -> Result<(), Error> {
        let row = Row { gid: Gid::new(&self.clock).uuid(), owner: self.owner, message };
        let at = self.clock.now().as_micros();
        match &self.way {
            Way::Local(local) => local.write(&[row], at).await.map_err(|error| failed(&error)),
            Way::Grouped(groups) => groups.submit(row).await.map_err(Error::failed)?.map_err(Error::failed),
            Way::Prepared(prepared) => prepared.write(&row, at).await.map_err(|error| failed(&error)),
        }
    }
}

impl Yardsticks {
    /// On SQLite, in a folder below `data`.
    pub(crate) async fn sqlite(data: Option<&Path>, owners: u32) -> Result<Self, Error> {
        let folder = match data {
            Some(parent) => TempDir::with_prefix_in("notifyx-bench-local-", parent),
            None => TempDir::with_prefix("notifyx-bench-local-"),
        };
        let folder = folder.map_err(Error::io("making a folder for the yardstick"))?;
        let (runtime, owners) = (runtime()?, made(owners));
        let url = DatabaseUrl::sqlite(folder.path().join("local.db"));
        let local = on(&runtime, Local::open(url, owners.clone())).await?;
        Ok(Self::new(runtime, owners, local, None, Some(folder)))
    }

    pub(crate) async fn postgres(postgres: &Postgres, owners: u32) -> Result<Self, Error> {
        let (runtime, owners) = (runtime()?, made(owners));
        let local = on(&runtime, Local::open(postgres.url("local")?, owners.clone())).await?;
        let prepared = on(&runtime, Prepared::open(postgres.url("two")?, owners.clone())).await?;
        let prepared = prepared.map(|prepared| Way::Prepared(Arc::new(prepared)));
        if prepared.is_none() {
            eprintln!("no PREPARE TRANSACTION: this PostgreSQL has max_prepared_transactions = 0");
        }
        Ok(Self::new(runtime, owners, local, prepared, None))
    }

    fn new(runtime: Runtime, owners: Vec<Owner>, local: Local, prepared: Option<Way>, folder: Option<TempDir>) -> Self {
        let grouped = Way::Grouped(grouped(&runtime, local.clone()));
        Self { owners, local: Way::Local(local), grouped, prepared, runtime: Some(runtime), _folder: folder }
    }

    pub(crate) fn local(&self, owner: usize) -> Writer {
        self.writer(&self.local, owner)
    }

    pub(crate) fn grouped(&self, owner: usize) -> Writer {
        self.writer(&self.grouped, owner)
    }

    pub(crate) fn prepared(&self, owner: usize) -> Option<Writer> {
        self.prepared.as_ref().map(|way| self.writer(way, owner))
    }

    fn writer(&self, way: &Way, owner: usize) -> Writer {
        Writer { way: way.clone(), owner: self.owners[owner], clock: Clock::system() }
    }

    /// Where the writers are to run.
    pub(crate) fn handle(&self) -> &Handle {
        self.runtime.as_ref().expect("it is taken when this is dropped").handle()
    }
}

impl Drop for Yardsticks {
    fn drop(&mut self) {
        // Dropped among tasks, where a runtime may not wait for its own.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn runtime() -> Result<Runtime, Error> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(Error::io("starting the yardsticks' runtime"))
}

async fn on<T: Send + 'static>(
    runtime: &Runtime,
    opening: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    runtime.spawn(opening).await.map_err(Error::failed)?
}

/// One group at a time: the next gathers meanwhile.
fn grouped(runtime: &Runtime, local: Local) -> Batcher<Row, Result<(), String>> {
    let options = Options {
        name: "notifications",
        items_max: GROUP_ITEMS,
        bytes_max: usize::MAX,
        queue_max: 8_192,
        in_flight: 1,
    };
    let _spawns_here = runtime.enter();
    Batcher::start(
        options,
        |_| 0,
        move |rows: Vec<Row>| {
            let local = local.clone();
            async move {
                let at = Clock::system().now().as_micros();
                let written = local.write(&rows, at).await.map_err(|error| failed(&error).to_string());
                vec![written; rows.len()]
            }
        },
    )
}

fn made(owners: u32) -> Vec<Owner> {
    let clock = Clock::system();
    let owner = |_| Owner { user_id: UserId::new(&clock).uuid(), topic_id: TopicId::new(&clock).uuid() };
    (0..owners).map(owner).collect()
}

fn failed(error: &notifyx_database::Error) -> Error {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(why) = cause {
        text = format!("{text}: {why}");
        cause = why.source();
    }
    Error::failed(format!("a yardstick could not write: {text}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all_count(yardsticks: &Yardsticks, counted: impl AsyncFn(&Local) -> (i64, i64, i64)) {
        for _ in 0..3 {
            yardsticks.local(0).write("text".into()).await.unwrap();
        }
        let writers: Vec<_> = [0, 0, 1].map(|owner| yardsticks.grouped(owner)).into();
        let (one, two, three) = tokio::join!(
            writers[0].write("text".into()),
            writers[1].write("text".into()),
            writers[2].write("text".into())
        );
        one.and(two).and(three).unwrap();
        let Way::Local(local) = &yardsticks.local else { unreachable!("it is the local way") };
        // Notifications; the greatest offset of a topic; all counters, of which each notification moves two.
        assert_eq!(counted(local).await, (6, 5, 12));
    }

    const COUNT: &str = r#"SELECT (SELECT count(*) FROM notification n JOIN txn ON txn.gid = n.gid),
                                  (SELECT max("offset") FROM notification),
                                  (SELECT CAST(sum(counter) AS BIGINT) FROM counter)"#;

    #[tokio::test]
    async fn sqlite_has_every_row_of_a_publish() {
        let yardsticks = Yardsticks::sqlite(None, 2).await.unwrap();
        all_count(&yardsticks, async |local| local.ask(COUNT).await).await;
    }

    #[tokio::test]
    async fn postgres_has_every_row_of_a_publish() {
        let postgres = Postgres::start(None).unwrap();
        let yardsticks = Yardsticks::postgres(&postgres, 2).await.unwrap();
        all_count(&yardsticks, async |local| local.ask(COUNT).await).await;
        let writer = yardsticks.prepared(0).unwrap();
        writer.write("text".into()).await.unwrap();
        writer.write("text".into()).await.unwrap();
        let Some(Way::Prepared(prepared)) = &yardsticks.prepared else { unreachable!("it was there") };
        assert_eq!(prepared.figures().await, [2, 4, 2, 0]);
    }
}

//! The databases as they stand, read behind the services' backs. Everything is read as text, so that one reader serves both
//! backends.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

use sqlx::{Connection, PgConnection, Row, SqliteConnection, sqlite::SqliteConnectOptions};
use uuid::Uuid;

use crate::harness::Platform;

/// Where they are.
pub(crate) enum Books {
    /// The databases of gateway, persist and counter-2pc.
    Postgres { gateway: String, persist: String, counter: String },
    /// The folder of the files.
    Sqlite(PathBuf),
}

#[derive(Clone, Copy)]
enum Database {
    Gateway,
    Persist,
    Counter,
}

/// A column, by what it holds.
#[derive(Clone, Copy)]
enum Column {
    Id(&'static str),
    Text(&'static str),
    Flag(&'static str),
}
use Column::{Flag, Id, Text};

/// A row of the coordinator.
#[derive(Debug)]
pub(crate) struct Transaction {
    pub(crate) user: Uuid,
    pub(crate) key: Option<String>,
    pub(crate) state: String,
    pub(crate) quarantined: bool,
    pub(crate) closed: bool,
}

#[derive(Debug)]
pub(crate) struct Notification {
    pub(crate) gid: Uuid,
    pub(crate) id: Uuid,
    pub(crate) topic: Uuid,
    pub(crate) offset: u64,
    pub(crate) targeted: bool,
    pub(crate) from: Uuid,
}

/// All that the invariants are about, read when nothing moves any more.
pub(crate) struct Snapshot {
    pub(crate) coordinator: BTreeMap<Uuid, Transaction>,
    /// What the participants say: gid → state.
    pub(crate) persist: BTreeMap<Uuid, String>,
    pub(crate) counter: BTreeMap<Uuid, String>,
    /// In order of topic and offset.
    pub(crate) notifications: Vec<Notification>,
    /// (topic, offset, user) of targeted notifications.
    pub(crate) recipients: BTreeSet<(Uuid, u64, Uuid)>,
    /// Topic → its head.
    pub(crate) heads: BTreeMap<Uuid, u64>,
    /// (kind, id) → counter.
    pub(crate) counters: BTreeMap<(String, Uuid), u64>,
}

impl Books {
    pub(crate) fn of_postgres(platform: &Platform) -> Self {
        Self::Postgres {
            gateway: platform.database("gateway"),
            persist: platform.database("persist"),
            counter: platform.database("counter-2pc"),
        }
    }

    /// Transactions that are not closed.
    pub(crate) async fn open(&self) -> usize {
        self.rows(Database::Gateway, &[Id("gid")], "txn WHERE closed_at IS NULL").await.len()
    }

    pub(crate) async fn read(&self) -> Snapshot {
        let txn = [Id("gid"), Id("user_id"), Text("idem_key"), Text("state"), Flag("quarantined"), Text("closed_at")];
        let coordinator = self.rows(Database::Gateway, &txn, "txn").await.into_iter().map(|row| {
            let transaction = Transaction {
                user: id(row[1].as_ref()),
                key: row[2].clone(),
                state: text(row[3].as_ref()),
                quarantined: flag(row[4].as_ref()),
                closed: row[5].is_some(),
            };
            (id(row[0].as_ref()), transaction)
        });
        let coordinator = coordinator.collect();
        let columns = [Id("gid"), Id("id"), Id("topic_id"), Text("\"offset\""), Flag("targeted"), Id("from_user_id")];
        let rows = self.rows(Database::Persist, &columns, "notification").await;
        let notification = |row: Vec<Option<String>>| Notification {
            gid: id(row[0].as_ref()),
            id: id(row[1].as_ref()),
            topic: id(row[2].as_ref()),
            offset: number(row[3].as_ref()),
            targeted: flag(row[4].as_ref()),
            from: id(row[5].as_ref()),
        };
        let mut notifications: Vec<Notification> = rows.into_iter().map(notification).collect();
        notifications.sort_by_key(|notification| (notification.topic, notification.offset));
        let recipients =
            self.rows(Database::Persist, &[Id("topic_id"), Text("\"offset\""), Id("user_id")], "recipient");
        let heads = self.rows(Database::Persist, &[Id("id"), Text("last_offset")], "topic");
        let counters = self.rows(Database::Counter, &[Text("kind"), Id("id"), Text("counter")], "counter");
        Snapshot {
            coordinator,
            persist: self.states(Database::Persist).await,
            counter: self.states(Database::Counter).await,
            notifications,
            recipients: recipients
                .await
                .iter()
                .map(|row| (id(row[0].as_ref()), number(row[1].as_ref()), id(row[2].as_ref())))
                .collect(),
            heads: heads.await.iter().map(|row| (id(row[0].as_ref()), number(row[1].as_ref()))).collect(),
            counters: counters
                .await
                .iter()
                .map(|row| ((text(row[0].as_ref()), id(row[1].as_ref())), number(row[2].as_ref())))
                .collect(),
        }
    }

    async fn states(&self, of: Database) -> BTreeMap<Uuid, String> {
        let rows = self.rows(of, &[Id("gid"), Text("state")], "ptxn WHERE origin = 'coordinator'").await;
        rows.iter().map(|row| (id(row[0].as_ref()), text(row[1].as_ref()))).collect()
    }

    async fn rows(&self, of: Database, columns: &[Column], from: &str) -> Vec<Vec<Option<String>>> {
        let count = columns.len();
        match self {
            Self::Postgres { gateway, persist, counter } => {
                let url = match of {
                    Database::Gateway => gateway,
                    Database::Persist => persist,
                    Database::Counter => counter,
                };
                let mut connection = PgConnection::connect(url).await.expect("Postgres is there");
                let rows = sqlx::query(&select(columns, "CAST({} AS TEXT)", from)).fetch_all(&mut connection).await;
                rows.unwrap().iter().map(|row| (0..count).map(|at| row.get(at)).collect()).collect()
            }
            Self::Sqlite(folder) => {
                let file = match of {
                    Database::Gateway => "gateway.db",
                    Database::Persist => "persist.db",
                    Database::Counter => "counter-2pc.db",
                };
                let options = SqliteConnectOptions::new().filename(folder.join(file)).read_only(true);
                let mut connection = SqliteConnection::connect_with(&options).await.expect("the file is there");
                let rows = sqlx::query(&select(columns, "lower(hex({}))", from)).fetch_all(&mut connection).await;
                rows.unwrap().iter().map(|row| (0..count).map(|at| row.get(at)).collect()).collect()
            }
        }
    }
}

/// `an_id`: how the backend writes an id as text.
fn select(columns: &[Column], an_id: &str, from: &str) -> String {
    let written = columns.iter().map(|column| match column {
        Id(name) => an_id.replace("{}", name),
        Text(name) => format!("CAST({name} AS TEXT)"),
        Flag(name) => format!("CAST(CAST({name} AS INTEGER) AS TEXT)"),
    });
    format!("SELECT {} FROM {from}", written.collect::<Vec<_>>().join(", "))
}

fn text(value: Option<&String>) -> String {
    value.cloned().expect("it is never null")
}

fn id(value: Option<&String>) -> Uuid {
    text(value).parse().expect("an id")
}

fn number(value: Option<&String>) -> u64 {
    text(value).parse().expect("a number")
}

fn flag(value: Option<&String>) -> bool {
    text(value) == "1"
}

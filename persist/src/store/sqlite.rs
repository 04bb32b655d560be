//! The store on SQLite: one writer at a time, so nothing is locked; lists travel as JSON, ids in it in hexadecimal.

mod inbox;
mod notifications;
mod subscribers;
mod topics;
mod transactions;
mod trimming;

use sqlx::SqlitePool;
use uuid::Uuid;

use super::Error;

#[derive(Debug)]
pub(super) struct Sqlite {
    database: notifyx_database::Sqlite,
}

impl Sqlite {
    pub(super) fn new(database: notifyx_database::Sqlite) -> Self {
        Self { database }
    }

    fn read(&self) -> &SqlitePool {
        &self.database.read
    }

    async fn begin(&self) -> Result<notifyx_database::Transaction, Error> {
        Ok(self.database.begin().await?)
    }
}

/// For `SELECT unhex(value) FROM json_each(?)`.
fn hex_list(ids: impl IntoIterator<Item = Uuid>) -> String {
    text_list(ids.into_iter().map(|id| id.simple().to_string()))
}

/// For `SELECT value FROM json_each(?)`.
fn text_list<T: serde::Serialize>(texts: impl IntoIterator<Item = T>) -> String {
    serde_json::to_string(&texts.into_iter().collect::<Vec<_>>()).expect("texts are JSON")
}

/// For pairs: `value ->> 0` and `value ->> 1`.
fn pair_list<A: serde::Serialize, B: serde::Serialize>(pairs: impl IntoIterator<Item = (A, B)>) -> String {
    serde_json::to_string(&pairs.into_iter().collect::<Vec<_>>()).expect("texts are JSON")
}

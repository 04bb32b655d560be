//! What the disk can do: the yardstick of everything that is durable.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::Path,
    time::{Duration, Instant},
};

use serde::Serialize;
use sqlx::{
    Connection, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};
use tempfile::TempDir;

use crate::error::Error;

/// Long enough for a rate, short enough to be taken before and after what is measured.
const SPAN: Duration = Duration::from_secs(1);
/// A page of SQLite, and of the disk.
const BLOCK_BYTES: usize = 4096;

#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Disk {
    /// 4 kB overwritten and made durable with `fdatasync`.
    pub(crate) fdatasyncs_per_s: f64,
    /// Transactions of one inserted row of 200 bytes: write-ahead log, `synchronous = FULL`, one connection.
    pub(crate) sqlite_commits_per_s: f64,
}

impl Disk {
    /// Measured in `parent`, or in the system's temporary folder.
    pub(crate) async fn measure(parent: Option<&Path>) -> Result<Self, Error> {
        let folder = match parent {
            Some(parent) => TempDir::with_prefix_in("notifyx-bench-disk-", parent),
            None => TempDir::with_prefix("notifyx-bench-disk-"),
        };
        let folder = folder.map_err(Error::io("making a folder for the yardstick"))?;
        let fdatasyncs_per_s = fdatasyncs(&folder.path().join("block")).map_err(Error::io("the yardstick's file"))?;
        let sqlite_commits_per_s = commits(&folder.path().join("row.db")).await;
        let sqlite_commits_per_s =
            sqlite_commits_per_s.map_err(|error| Error::failed(format!("the yardstick's database: {error}")))?;
        Ok(Self { fdatasyncs_per_s, sqlite_commits_per_s })
    }
}

/// Overwrites one block, so that only its bytes have to reach the disk and not the file's new length.
fn fdatasyncs(path: &Path) -> std::io::Result<f64> {
    let file = File::create(path)?;
    file.write_all_at(&[0; BLOCK_BYTES], 0)?;
    file.sync_all()?;
    let began = Instant::now();
    let mut count = 0_u32;
    while began.elapsed() < SPAN {
        file.write_all_at(&[1; BLOCK_BYTES], 0)?;
        file.sync_data()?;
        count += 1;
    }
    Ok(f64::from(count) / began.elapsed().as_secs_f64())
}

async fn commits(path: &Path) -> sqlx::Result<f64> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full);
    let mut connection = SqliteConnection::connect_with(&options).await?;
    sqlx::query("CREATE TABLE row (id INTEGER PRIMARY KEY, text TEXT NOT NULL)").execute(&mut connection).await?;
    let text = "a".repeat(200);
    let began = Instant::now();
    let mut count = 0_u32;
    while began.elapsed() < SPAN {
        sqlx::query("INSERT INTO row (text) VALUES (?)").bind(&text).execute(&mut connection).await?;
        count += 1;
    }
    let rate = f64::from(count) / began.elapsed().as_secs_f64();
    connection.close().await?;
    Ok(rate)
}

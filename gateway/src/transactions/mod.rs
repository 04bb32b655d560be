//! Two-phase commit, hosted: where the coordinator keeps its transactions, and how it reaches the participants.
//!
//! The rules are `notifyx_commit`'s. Here are the statements, per backend (`sqlite`, `postgres`), and the calls (`participant`).

#[cfg(test)]
mod conformance;
mod participant;
mod postgres;
mod row;
mod sqlite;
#[cfg(test)]
mod upgrade;

use std::sync::Arc;

use notifyx_commit::{CoordinatorStore, Party};
use notifyx_database::{Database, Migrations};
use notifyx_mesh::Mesh;
use notifyx_model::Clock;

pub(crate) use participant::Remote;

/// The gateway's schema: the coordinator's transactions.
pub static MIGRATIONS: Migrations =
    Migrations { sqlite: sqlx::migrate!("./migrations/sqlite"), postgres: sqlx::migrate!("./migrations/postgres") };

/// The coordinator's store in an open database. The clock judges deadlines on SQLite; Postgres has its own.
pub fn open(database: &Database, clock: Clock) -> Arc<dyn CoordinatorStore> {
    match database {
        Database::Sqlite(sqlite) => Arc::new(sqlite::Sqlite::new(sqlite.clone(), clock)),
        Database::Postgres(pool) => Arc::new(postgres::Postgres::new(pool.clone())),
    }
}

/// A participant behind the mesh.
pub fn remote(mesh: &Mesh, party: Party) -> Arc<dyn notifyx_commit::Participant> {
    Arc::new(Remote::new(mesh.clone(), party))
}

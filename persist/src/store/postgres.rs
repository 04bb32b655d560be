//! The store on Postgres: lists travel as arrays, one statement per step whatever their length.

mod inbox;
mod notifications;
mod subscribers;
mod topics;
mod transactions;
mod trimming;

use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::Error;

#[derive(Debug)]
pub(super) struct Postgres {
    pool: PgPool,
}

impl Postgres {
    pub(super) fn new(pool: PgPool) -> Self {
        Self { pool }
    }
}

/// Locks topics in order of id. Of the two locks that would do, the one that readers of the key do not mind.
async fn lock_topics(connection: &mut PgConnection, ids: &[Uuid]) -> Result<(), Error> {
    sqlx::query("SELECT 1 FROM topic WHERE id = ANY($1) ORDER BY id FOR NO KEY UPDATE")
        .bind(ids)
        .execute(connection)
        .await?;
    Ok(())
}

//! The store is held to the same on both backends.

mod consumers;
mod leases;
mod log;
mod recurrings;
mod retention;
mod schedule;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use notifyx_database::Database;
use notifyx_model::{Category, Clock, EventId, ManualClock, Priority, Timestamp};

use super::{Head, Kept, MIGRATIONS, Named, Page, Slot, Store, Which};
use crate::event::{Event, EventKey, NewEvent, Owner, Place};

struct Fixture {
    store: Arc<dyn Store>,
    database: Database,
    hand: ManualClock,
    clock: Clock,
}

async fn open(database: &Database) -> Fixture {
    let hand = ManualClock::new();
    let clock = hand.clock();
    Fixture { store: super::open(database, &clock), database: database.clone(), clock, hand }
}

fn category(text: &str) -> Category {
    Category::parse(text).unwrap()
}

fn id(text: &str) -> EventId {
    EventId::parse(text).unwrap()
}

fn named(of: &str, text: &str) -> Named {
    Named { category: category(of), id: id(text) }
}

const ALL: Page = Page { limit: 1_000, bytes: 1 << 20 };

fn ids(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| event.given.id.as_str()).collect()
}

fn seq(event: &Event) -> u64 {
    match event.place {
        Place::Waiting { seq } => seq,
        Place::Fired { .. } => panic!("{event:?} has fired"),
    }
}

fn slot(event: &Event) -> Slot {
    Slot { at: event.given.fire_at, seq: seq(event) }
}

impl Fixture {
    /// After so many milliseconds from now.
    fn event(&self, of: &str, text: &str, ms: u64) -> NewEvent {
        NewEvent {
            id: id(text),
            category: category(of),
            key: Some(EventKey::parse("about").unwrap()),
            priority: Priority::try_from(7).unwrap(),
            data: Bytes::from_static(b"{\"a\": [1, \"\\u0000\"]}"),
            created_at: self.clock.now(),
            fire_at: self.after(ms),
            owner: Some(Owner::parse("user:ann").unwrap()),
            recurring: None,
        }
    }

    fn after(&self, ms: u64) -> Timestamp {
        self.clock.now() + Duration::from_millis(ms)
    }

    async fn append(&self, events: &[NewEvent]) -> Vec<Kept> {
        self.store.append(events, self.clock.now()).await.unwrap()
    }

    async fn schedule(&self, events: &[NewEvent]) -> Vec<Event> {
        self.store.schedule(events).await.unwrap().into_iter().map(|kept| kept.event).collect()
    }

    async fn fire(&self, events: &[&Event]) -> Vec<Event> {
        let seqs: Vec<u64> = events.iter().map(|event| seq(event)).collect();
        self.store.fire(&seqs, self.clock.now()).await.unwrap()
    }

    async fn log(&self, of: &str) -> Vec<Event> {
        self.store.read(&category(of), 0, ALL).await.unwrap().events
    }

    async fn head(&self, of: &str) -> Head {
        self.store.heads(&[category(of)]).await.unwrap().remove(0)
    }

    async fn waiting(&self, of: &str) -> Vec<Event> {
        self.store.waiting(Which::Of(&category(of)), None, ALL).await.unwrap()
    }

    async fn execute(&self, sql: &str) {
        match &self.database {
            Database::Sqlite(sqlite) => {
                let mut tx = sqlite.begin().await.unwrap();
                sqlx::raw_sql(sql).execute(&mut *tx).await.unwrap();
                tx.commit().await.unwrap();
            }
            Database::Postgres(pool) => _ = sqlx::raw_sql(sql).execute(pool).await.unwrap(),
        }
    }

    /// Rows of a table.
    async fn rows(&self, table: &str) -> i64 {
        let sql = format!("SELECT count(*) FROM {table}");
        match &self.database {
            Database::Sqlite(sqlite) => sqlx::query_scalar(&sql).fetch_one(&sqlite.read).await.unwrap(),
            Database::Postgres(pool) => sqlx::query_scalar(&sql).fetch_one(pool).await.unwrap(),
        }
    }
}

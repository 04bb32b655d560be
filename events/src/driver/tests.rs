//! The driver on both databases, on the manual clock: what fires, in which order, and that it fires once.

mod doubt;
mod firing;
mod leases;
mod recurring;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use notifyx_database::{Database, testing};
use notifyx_model::{Category, Clock, EventId, ManualClock, Priority};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Driver;
use crate::{
    event::{Event, NewEvent},
    feed::{Feed, News, Watcher},
    plan::Plan,
    queue::Bounds,
    room::Room,
    schedule::{EventRef, Schedule},
    schedules::Schedules,
    store::{self, MIGRATIONS, Page, Store},
    writer::Writer,
};

struct World {
    database: Database,
    hand: ManualClock,
    clock: Clock,
}

async fn open(database: &Database) -> World {
    let hand = ManualClock::new();
    World { database: database.clone(), clock: hand.clock(), hand }
}

/// Of the service, without its door.
struct Instance {
    schedule: Schedule,
    schedules: Schedules,
    plan: Arc<Plan>,
    store: Arc<dyn Store>,
    watcher: Watcher,
    stop: CancellationToken,
    driver: JoinHandle<()>,
}

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(86_400);

/// Everything has to happen within it, however slow the machine is.
const DEADLINE: Duration = Duration::from_secs(120);

const ALL: Page = Page { limit: 1_000, bytes: 1 << 24 };

fn category(text: &str) -> Category {
    Category::parse(text).unwrap()
}

fn id(text: &str) -> EventId {
    EventId::parse(text).unwrap()
}

fn named(text: &str) -> EventRef {
    EventRef { id: id(text), category: None }
}

fn ids(events: &[Event]) -> Vec<&str> {
    events.iter().map(|event| event.given.id.as_str()).collect()
}

impl World {
    fn start(&self, holder: &str, lease: Duration, window: usize) -> Instance {
        let (store, bounds) = (store::open(&self.database, &self.clock), Bounds { window, ..Bounds::default() });
        let (plan, feed, clock) =
            (Arc::new(Plan::new(bounds, self.clock.clone())), Feed::new(1 << 24), self.clock.clone());
        let writer = Writer::start(&store, &clock, &plan, &feed);
        let (watcher, stop) = (feed.watch(), CancellationToken::new());
        let driver = Driver::new(store.clone(), clock.clone(), plan.clone(), feed, holder, lease);
        Instance {
            driver: tokio::spawn(driver.run(stop.clone())),
            schedule: Schedule::new(store.clone(), writer.clone(), plan.clone(), Room::new(store.clone(), u64::MAX)),
            schedules: Schedules::new(store.clone(), writer, plan.clone(), clock),
            plan,
            store,
            watcher,
            stop,
        }
    }

    /// One that drives at once and for long.
    fn alone(&self) -> Instance {
        self.start("alone", LONG, 1_000)
    }

    fn event(&self, of: &str, text: &str, after: Duration) -> NewEvent {
        NewEvent {
            id: id(text),
            category: category(of),
            key: None,
            priority: Priority::default(),
            data: Bytes::from_static(b"{}"),
            created_at: self.clock.now(),
            fire_at: self.clock.now() + after,
            owner: None,
            recurring: None,
        }
    }

    /// For both backends; each has its own word for what is to be refused.
    async fn execute(&self, sqlite: &str, postgres: &str) {
        match &self.database {
            Database::Sqlite(file) => {
                let mut tx = file.begin().await.unwrap();
                sqlx::raw_sql(sqlite).execute(&mut *tx).await.unwrap();
                tx.commit().await.unwrap();
            }
            Database::Postgres(pool) => {
                sqlx::raw_sql(postgres).execute(pool).await.unwrap();
            }
        }
    }
}

impl Instance {
    async fn schedule(&self, events: Vec<NewEvent>) {
        for kept in self.schedule.schedule(events).await {
            kept.unwrap();
        }
    }

    /// The next so many that this instance appends.
    async fn see(&mut self, count: usize) -> Vec<Event> {
        let mut seen = Vec::new();
        while seen.len() < count {
            let news = tokio::select! {
                news = self.watcher.next() => news,
                () = tokio::time::sleep(DEADLINE) => panic!("of {count} events only these fired: {:?}", ids(&seen)),
            };
            let News::Appended(events) = news else { panic!("the feed holds all") };
            seen.extend(events.iter().cloned());
        }
        assert_eq!(seen.len(), count, "no more than expected: {:?}", ids(&seen));
        seen
    }

    async fn log(&self, of: &str) -> Vec<Event> {
        self.schedule.read(&category(of), 0, ALL).await.unwrap().events
    }

    /// As a crash.
    async fn kill(self) {
        self.driver.abort();
        assert!(self.driver.await.unwrap_err().is_cancelled());
    }

    async fn stop(self) {
        self.stop.cancel();
        self.driver.await.unwrap();
    }
}

/// The next so many that one of them appends.
async fn see_either(one: &mut Instance, two: &mut Instance, count: usize) -> Vec<Event> {
    let mut seen = Vec::new();
    while seen.len() < count {
        let news = tokio::select! {
            news = one.watcher.next() => news,
            news = two.watcher.next() => news,
            () = tokio::time::sleep(DEADLINE) => panic!("of {count} events only these fired: {:?}", ids(&seen)),
        };
        let News::Appended(events) = news else { panic!("the feed holds all") };
        seen.extend(events.iter().cloned());
    }
    assert_eq!(seen.len(), count, "no more than expected: {:?}", ids(&seen));
    seen
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_away_is_tried_again() {
    let kept = testing::postgres(&MIGRATIONS).await;
    let world = open(&kept.database).await;
    let mut instance = world.alone();
    let Database::Postgres(pool) = &kept.database else { unreachable!("it is Postgres") };
    // A sequence is not rolled back: it counts the tries.
    let away = "CREATE SEQUENCE tries;
        CREATE FUNCTION away() RETURNS trigger LANGUAGE plpgsql AS $$
            BEGIN PERFORM nextval('tries'); RAISE EXCEPTION 'starting up' USING ERRCODE = '57P03'; END $$;
        CREATE TRIGGER away BEFORE DELETE ON scheduled FOR EACH STATEMENT EXECUTE FUNCTION away()";
    sqlx::raw_sql(away).execute(pool).await.unwrap();
    instance.schedule(["1", "2", "3"].map(|text| world.event("a", text, Duration::ZERO)).into()).await;
    let tried_twice = async {
        while sqlx::query_scalar::<_, i64>("SELECT last_value FROM tries").fetch_one(pool).await.unwrap() < 2 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, tried_twice).await.unwrap();
    sqlx::raw_sql("DROP TRIGGER away ON scheduled").execute(pool).await.unwrap();
    assert_eq!(ids(&instance.see(3).await), ["1", "2", "3"]);
    assert_eq!(instance.log("a").await.len(), 3);
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_heavy_for_the_store_is_fired_in_smaller_batches() {
    let kept = testing::postgres(&MIGRATIONS).await;
    let world = open(&kept.database).await;
    let mut instance = world.alone();
    let Database::Postgres(pool) = &kept.database else { unreachable!("it is Postgres") };
    let heavy = "CREATE FUNCTION heavy() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            IF (SELECT count(*) FROM gone) > 20 THEN RAISE EXCEPTION 'too slow' USING ERRCODE = '57014'; END IF;
            RETURN NULL; END $$;
        CREATE TRIGGER heavy AFTER DELETE ON scheduled REFERENCING OLD TABLE AS gone
            FOR EACH STATEMENT EXECUTE FUNCTION heavy()";
    sqlx::raw_sql(heavy).execute(pool).await.unwrap();
    let events: Vec<_> = (0..100).map(|i| world.event("a", &i.to_string(), SECOND)).collect();
    instance.schedule(events).await;
    world.hand.advance(SECOND);
    instance.plan.look();
    assert_eq!(instance.see(100).await.len(), 100);
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_driver_that_breaks_off_begins_again() {
    let kept = testing::sqlite(&MIGRATIONS).await;
    let world = open(&kept.database).await;
    let mut instance = world.alone();
    let new = recurring::recurring("beat", "every 10s", crate::recurring::OnMissed::FireAll);
    instance.schedules.create(new).await.unwrap();
    // A topic that goes as soon as it is there: the store cannot go on without it.
    let away = "CREATE TRIGGER away AFTER UPDATE ON recurring BEGIN DELETE FROM topic; END;
        CREATE TRIGGER gone AFTER INSERT ON topic BEGIN DELETE FROM topic; END";
    world.execute(away, "").await;
    world.hand.advance(SECOND * 10);
    instance.plan.look();
    let broke_off = async {
        while instance.plan.metrics.breaks() == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(DEADLINE, broke_off).await.unwrap();
    world.execute("DROP TRIGGER away; DROP TRIGGER gone", "").await;
    assert_eq!(instance.see(1).await[0].given.recurring, Some(id("beat")));
    instance.stop().await;
}

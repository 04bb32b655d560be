//! The driver on both databases, on the manual clock: what fires, in which order, and that it fires once.

use std::{collections::HashSet, sync::Arc, time::Duration};

use bytes::Bytes;
use notifyx_database::{Database, testing};
use notifyx_model::{Category, Clock, EventId, Fault, ManualClock, Priority, Timestamp};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::Driver;
use crate::{
    Error,
    event::{Event, NewEvent},
    feed::{Feed, News, Watcher},
    plan::Plan,
    queue::Bounds,
    recurring::{OnMissed, State},
    schedule::{EventRef, Schedule},
    schedules::{NewRecurring, Schedules},
    store::{self, MIGRATIONS, Page, Store},
    writer::Writer,
};

notifyx_database::conformance!(open, &MIGRATIONS;
    a_restart_fires_what_is_overdue_once, two_that_drive_fire_each_event_once, what_is_cancelled_does_not_fire,
    another_time_is_the_only_time, the_nearest_fires_first_whatever_the_window_holds, urgent_ones_fire_first_of_what_is_due,
    the_clock_may_jump, another_drives_when_the_lease_has_ended, the_lease_is_given_back,
    each_occurrence_fires_once, what_was_missed_is_treated_as_asked, a_pause_ends_with_what_was_missed,
    an_id_with_another_rule_is_refused, what_is_broken_is_set_aside_and_tried_again);

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

fn recurring(text: &str, every: &str, on_missed: OnMissed) -> NewRecurring {
    NewRecurring {
        id: id(text),
        category: category("recurring"),
        key: None,
        priority: Priority::default(),
        data: Bytes::from_static(b"{}"),
        rule: every.parse().unwrap(),
        zone: crate::recurrence::Zone::parse("UTC").unwrap(),
        on_missed,
        start_at: None,
        end_at: None,
        count: None,
        owner: None,
    }
}

impl World {
    fn start(&self, holder: &str, lease: Duration, window: usize) -> Instance {
        let (store, bounds) = (store::open(&self.database, &self.clock), Bounds { window, ..Bounds::default() });
        let (plan, feed, clock) = (Arc::new(Plan::new(bounds)), Feed::new(1 << 24), self.clock.clone());
        let writer = Writer::start(&store, &clock, &plan, &feed);
        let (watcher, stop) = (feed.watch(), CancellationToken::new());
        let driver = Driver::new(store.clone(), clock.clone(), plan.clone(), feed, holder, lease);
        Instance {
            driver: tokio::spawn(driver.run(stop.clone())),
            schedule: Schedule::new(store.clone(), writer.clone(), plan.clone()),
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

async fn a_restart_fires_what_is_overdue_once(world: World) {
    let first = world.start("one", LONG, 10);
    for of in ["a", "b", "c"] {
        let events = (0..100).map(|i| world.event(of, &format!("{of}-{i}"), SECOND * (1 + i * 7 % 100)));
        first.schedule(events.collect()).await;
    }
    first.kill().await;
    world.hand.advance(SECOND * 1_000);
    let mut second = world.start("one", LONG, 10);
    let fired = second.see(300).await;
    assert_eq!(ids(&fired).into_iter().collect::<HashSet<_>>().len(), 300);
    for of in ["a", "b", "c"] {
        let log = second.log(of).await;
        assert_eq!(log.iter().filter_map(Event::offset).collect::<Vec<_>>(), (1..=100).collect::<Vec<_>>());
        assert!(log.iter().is_sorted_by_key(|event| event.given.fire_at), "in order of time");
    }
    assert_eq!(second.store.earliest().await.unwrap(), None);
    second.stop().await;
}

async fn two_that_drive_fire_each_event_once(world: World) {
    // Their lease ends at once: each takes it from the other, and both fire.
    let (mut one, mut two) = (world.start("one", Duration::ZERO, 50), world.start("two", Duration::ZERO, 50));
    for (name, instance) in [("one", &one), ("two", &two)] {
        for of in ["a", "b"] {
            let events = (0..250).map(|i| world.event(of, &format!("{name}-{i}"), Duration::ZERO));
            instance.schedule(events.collect()).await;
        }
    }
    let seen = see_either(&mut one, &mut two, 1_000).await;
    let names = seen.iter().map(|event| (&event.given.category, &event.given.id));
    assert_eq!(names.collect::<HashSet<_>>().len(), 1_000);
    assert_eq!((one.log("a").await.len(), two.log("b").await.len()), (500, 500));
    one.stop().await;
    two.stop().await;
}

async fn what_is_cancelled_does_not_fire(world: World) {
    let mut instance = world.alone();
    instance.schedule(vec![world.event("a", "cancelled", SECOND), world.event("a", "kept", SECOND * 2)]).await;
    let cancelled = instance.schedule.cancel(&named("cancelled")).await.unwrap();
    assert_eq!(cancelled.given.id, id("cancelled"));
    world.hand.advance(SECOND * 3);
    instance.plan.look();
    assert_eq!(ids(&instance.see(1).await), ["kept"]);

    let late = instance.schedule.cancel(&named("kept")).await.unwrap_err();
    assert_eq!(late.to_string(), "event `kept` has fired: it is in the log of category `a` at offset 1");
    assert_eq!(late.code(), "event_fired");
    let gone = instance.schedule.cancel(&named("cancelled")).await.unwrap_err();
    assert_eq!((gone.to_string().as_str(), gone.code()), ("event `cancelled` not found", "event_not_found"));
    // Its id is free; and in two categories it names none.
    instance.schedule(vec![world.event("a", "cancelled", LONG), world.event("b", "cancelled", LONG)]).await;
    let ambiguous = instance.schedule.cancel(&named("cancelled")).await.unwrap_err();
    assert_eq!(ambiguous.code(), "id_ambiguous");
    let exact = EventRef { category: Some(category("b")), ..named("cancelled") };
    assert_eq!(instance.schedule.cancel(&exact).await.unwrap().given.category, category("b"));
    instance.stop().await;
}

async fn another_time_is_the_only_time(world: World) {
    let mut instance = world.alone();
    let events = [("later", 1), ("sooner", 60), ("between", 5)];
    instance.schedule(events.map(|(text, s)| world.event("a", text, SECOND * s)).into()).await;
    let to = |after| world.clock.now() + after;
    instance.schedule.reschedule(&named("later"), to(SECOND * 10)).await.unwrap();
    instance.schedule.reschedule(&named("sooner"), to(SECOND * 2)).await.unwrap();
    world.hand.advance(SECOND * 6);
    instance.plan.look();
    assert_eq!(ids(&instance.see(2).await), ["sooner", "between"]);
    world.hand.advance(SECOND * 60);
    instance.plan.look();
    assert_eq!(ids(&instance.see(1).await), ["later"]);
    instance.stop().await;
}

async fn the_nearest_fires_first_whatever_the_window_holds(world: World) {
    let mut instance = world.start("one", LONG, 10);
    // First of all one that fires: then the instance drives.
    instance.schedule(vec![world.event("a", "ping", Duration::ZERO)]).await;
    instance.see(1).await;
    let far = (0..200).map(|i| world.event("a", &i.to_string(), SECOND * (10 + i * 7 % 200)));
    instance.schedule(far.collect()).await;
    instance.schedule(vec![world.event("a", "nearest", SECOND * 5)]).await;
    let queue = instance.schedule.queues(&[category("a")]).await.unwrap().remove(0);
    assert!(queue.size <= 10 && queue.size + queue.backlog == 201, "{queue:?}");
    assert_eq!((queue.capacity, queue.earliest), (10, Some(world.clock.now() + SECOND * 5)));
    world.hand.advance(SECOND * 5);
    instance.plan.look();
    assert_eq!(ids(&instance.see(1).await), ["nearest"]);
    world.hand.advance(SECOND * 1_000);
    instance.plan.look();
    let rest = instance.see(200).await;
    assert!(rest.iter().is_sorted_by_key(|event| event.given.fire_at), "page by page, in order");
    let queue = instance.schedule.queues(&[category("a")]).await.unwrap().remove(0);
    assert_eq!((queue.size, queue.backlog, queue.fired), (0, 0, 202));
    assert!(queue.lateness.unwrap().max >= SECOND * 700);
    instance.stop().await;
}

async fn urgent_ones_fire_first_of_what_is_due(world: World) {
    let mut instance = world.alone();
    let events = [("a", 4), ("b", 9), ("c", 4), ("d", 9)].map(|(text, level)| NewEvent {
        priority: Priority::try_from(level).unwrap(),
        ..world.event(text, text, SECOND)
    });
    instance.schedule(events.into()).await;
    world.hand.advance(SECOND);
    instance.plan.look();
    assert_eq!(ids(&instance.see(4).await), ["b", "d", "a", "c"]);
    instance.stop().await;
}

async fn the_clock_may_jump(world: World) {
    let mut instance = world.alone();
    let start = world.clock.now();
    instance.schedule(vec![world.event("a", "1", SECOND * 3_600)]).await;
    world.hand.set(start + SECOND * 7_200);
    instance.plan.look();
    assert_eq!(ids(&instance.see(1).await), ["1"]);

    instance.schedule(vec![world.event("a", "3", SECOND * 60)]).await;
    world.hand.set(start);
    instance.plan.look();
    // Waits for its time on the clock that was put back; what is due on it fires.
    instance.schedule(vec![world.event("a", "2", Duration::ZERO)]).await;
    assert_eq!(ids(&instance.see(1).await), ["2"]);
    world.hand.set(start + SECOND * 7_260);
    instance.plan.look();
    assert_eq!(ids(&instance.see(1).await), ["3"]);
    assert_eq!(instance.log("a").await.len(), 3);
    instance.stop().await;
}

async fn another_drives_when_the_lease_has_ended(world: World) {
    let lease = Duration::from_millis(500);
    let mut first = world.start("first", lease, 10);
    first.schedule(vec![world.event("a", "ping", Duration::ZERO)]).await;
    first.see(1).await;
    let mut second = world.start("second", lease, 10);
    // Given to the one that does not drive, it is found by the one that does.
    second.schedule(vec![world.event("a", "elsewhere", Duration::ZERO)]).await;
    first.plan.look();
    // On a machine that stands still for half a second, the second has it already.
    assert_eq!(ids(&see_either(&mut first, &mut second, 1).await), ["elsewhere"]);

    let pending = (0..100).map(|i| world.event("a", &i.to_string(), SECOND * (1 + i)));
    first.schedule(pending.collect()).await;
    first.kill().await;
    world.hand.advance(SECOND * 50);
    second.plan.look();
    let fired = second.see(50).await;
    assert_eq!(ids(&fired), (0..50).map(|i| i.to_string()).collect::<Vec<_>>());
    world.hand.advance(SECOND * 50);
    second.plan.look();
    second.see(50).await;
    assert_eq!(second.log("a").await.len(), 102);
    second.stop().await;
}

async fn the_lease_is_given_back(world: World) {
    let mut first = world.start("first", LONG, 10);
    first.schedule(vec![world.event("a", "ping", Duration::ZERO)]).await;
    first.see(1).await;
    assert!(first.plan.drives());
    let plan = first.plan.clone();
    first.stop().await;
    assert!(!plan.drives());
    let mut second = world.start("second", LONG, 10);
    second.schedule(vec![world.event("a", "pong", Duration::ZERO)]).await;
    second.see(1).await;
    assert_eq!(second.schedule.holder().await.unwrap().as_deref(), Some("second"));
    second.stop().await;
}

fn times(events: &[Event], since: Timestamp) -> Vec<u64> {
    events.iter().map(|event| event.given.fire_at.since(since).as_secs()).collect()
}

async fn each_occurrence_fires_once(world: World) {
    let start = world.clock.now();
    // Both drive, and both are told to create it.
    let (mut one, mut two) = (world.start("one", Duration::ZERO, 50), world.start("two", Duration::ZERO, 50));
    let new = || recurring("beat", "every 10s", OnMissed::FireAll);
    let (made, found) = tokio::join!(one.schedules.create(new()), two.schedules.create(new()));
    assert_eq!(made.unwrap(), found.unwrap());
    for (steps, expected) in [(1, vec![10]), (1, vec![20]), (1, vec![30]), (5, vec![40, 50, 60, 70, 80])] {
        world.hand.advance(SECOND * 10 * steps);
        one.plan.look();
        two.plan.look();
        let mut seen = times(&see_either(&mut one, &mut two, expected.len()).await, start);
        seen.sort_unstable();
        assert_eq!(seen, expected);
    }
    let beat = one.schedules.get(&id("beat")).await.unwrap();
    assert_eq!((beat.made, beat.skipped, beat.last_at), (8, 0, Some(start + SECOND * 80)));
    let log = one.log("recurring").await;
    assert!(log.len() == 8 && log.iter().all(|event| event.given.recurring == Some(id("beat"))));
    one.stop().await;
    two.stop().await;
}

async fn what_was_missed_is_treated_as_asked(world: World) {
    let start = world.clock.now();
    let instance = world.alone();
    for (text, on_missed) in [("last", OnMissed::FireLast), ("none", OnMissed::Skip)] {
        let new = NewRecurring { category: category(text), ..recurring(text, "every 10s", on_missed) };
        instance.schedules.create(new).await.unwrap();
    }
    instance.kill().await;
    world.hand.advance(SECOND * 57);
    let mut instance = world.alone();
    assert_eq!(times(&instance.see(1).await, start), [50]);
    world.hand.advance(SECOND * 3);
    instance.plan.look();
    assert_eq!(times(&instance.see(2).await, start), [60, 60]);
    for (text, made, skipped) in [("last", 2, 4), ("none", 1, 5)] {
        let after = instance.schedules.get(&id(text)).await.unwrap();
        assert_eq!((after.made, after.skipped), (made, skipped), "{text}");
    }
    instance.stop().await;
}

async fn a_pause_ends_with_what_was_missed(world: World) {
    let start = world.clock.now();
    let mut instance = world.alone();
    let new = NewRecurring { count: Some(7), ..recurring("beat", "every 10s", OnMissed::FireLast) };
    instance.schedules.create(new).await.unwrap();
    let paused = instance.schedules.pause(&id("beat")).await.unwrap();
    assert_eq!(paused.state, State::Paused { next: start + SECOND * 10 });
    assert_eq!(instance.schedules.pause(&id("beat")).await.unwrap(), paused);
    world.hand.advance(SECOND * 57);
    instance.plan.look();
    let ran = instance.schedules.run_now(&id("beat"), Some(id("by-hand"))).await.unwrap();
    assert!(!ran.duplicate && instance.schedules.run_now(&id("beat"), Some(id("by-hand"))).await.unwrap().duplicate);
    assert_eq!(ids(&instance.see(1).await), ["by-hand"], "and nothing of the pause");
    instance.schedules.resume(&id("beat")).await.unwrap();
    assert_eq!(times(&instance.see(1).await, start), [50]);
    world.hand.advance(SECOND * 30);
    instance.plan.look();
    // The last two of seven.
    let last = instance.see(1).await;
    assert_eq!(times(&last, start), [70]);
    let done = instance.schedules.get(&id("beat")).await.unwrap();
    assert_eq!((done.state, done.made, done.skipped), (State::Finished, 2, 5));
    let refused = instance.schedules.resume(&id("beat")).await.unwrap_err();
    assert_eq!(refused.code(), "schedule_finished");
    instance.schedules.delete(&id("beat")).await.unwrap();
    assert!(matches!(instance.schedules.get(&id("beat")).await, Err(Error::ScheduleNotFound(_))));
    instance.stop().await;
}

async fn an_id_with_another_rule_is_refused(world: World) {
    let instance = world.alone();
    let new = || recurring("beat", "every 10s", OnMissed::FireAll);
    let first = instance.schedules.create(new()).await.unwrap();
    world.hand.advance(SECOND);
    assert_eq!(instance.schedules.create(new()).await.unwrap(), first);
    let other = recurring("beat", "every 11s", OnMissed::FireAll);
    assert_eq!(instance.schedules.create(other).await.unwrap_err().code(), "schedule_mismatch");
    let never = recurring("never", "cron 0 0 31 2 *", OnMissed::FireAll);
    assert_eq!(instance.schedules.create(never).await.unwrap_err().code(), "schedule_invalid");
    let (listed, next) = instance.schedules.list(None, None, ALL).await.unwrap();
    assert_eq!((listed, next), (vec![first], None));
    instance.stop().await;
}

async fn what_is_broken_is_set_aside_and_tried_again(world: World) {
    let mut instance = world.alone();
    world
        .execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON event WHEN new.id = 'bad' BEGIN SELECT RAISE(ABORT, 'no'); END",
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$;
             CREATE TRIGGER refuse BEFORE INSERT ON event FOR EACH ROW WHEN (new.id = 'bad') EXECUTE FUNCTION refuse()",
        )
        .await;
    let events = ["1", "2", "bad", "3", "4"].map(|text| world.event("a", text, SECOND));
    instance.schedule(events.into()).await;
    world.hand.advance(SECOND);
    instance.plan.look();
    assert_eq!(ids(&instance.see(4).await), ["1", "2", "3", "4"]);
    world.execute("DROP TRIGGER refuse", "DROP TRIGGER refuse ON event").await;
    instance.plan.look();
    assert_eq!(ids(&instance.see(1).await), ["bad"]);
    instance.stop().await;
}

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

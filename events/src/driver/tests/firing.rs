//! What fires, and in which order.

use std::{collections::HashSet, time::Duration};

use notifyx_model::{Fault, Priority};

use super::{LONG, SECOND, World, category, id, ids, named, open};
use crate::{
    event::{Event, NewEvent},
    schedule::EventRef,
    store::MIGRATIONS,
};

notifyx_database::conformance!(open, &MIGRATIONS;
    a_restart_fires_what_is_overdue_once, what_is_cancelled_does_not_fire, another_time_is_the_only_time,
    the_nearest_fires_first_whatever_the_window_holds, urgent_ones_fire_first_of_what_is_due,
    what_came_overdue_is_late_from_then_on, the_clock_may_jump, what_is_broken_is_set_aside_and_tried_again);

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
    let size = instance.plan.figures(&category("a")).map(|figures| figures.size);
    assert_eq!(size, Some(1), "where they waited before, nobody does");
    world.hand.advance(SECOND * 60);
    instance.plan.look();
    let fired = instance.see(1).await.remove(0);
    assert_eq!(ids(std::slice::from_ref(&fired)), ["later"]);
    // Given again, as by a caller whose answer was lost, the order is done; another is too late.
    assert_eq!(instance.schedule.reschedule(&named("later"), fired.given.fire_at).await.unwrap(), fired);
    let late = instance.schedule.reschedule(&named("later"), fired.given.fire_at + SECOND).await.unwrap_err();
    assert_eq!(late.code(), "event_fired");
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

async fn what_came_overdue_is_late_from_then_on(world: World) {
    let mut instance = world.alone();
    let now = world.clock.now();
    let ago = NewEvent { fire_at: now - SECOND * 3_600, created_at: now - LONG, ..world.event("old", "1", SECOND) };
    instance.schedule(vec![ago]).await;
    instance.see(1).await;
    // Whatever its publisher says of when it was made.
    let late = NewEvent { created_at: now + LONG, ..world.event("late", "2", SECOND * 10) };
    instance.schedule(vec![late]).await;
    world.hand.advance(SECOND * 20);
    instance.plan.look();
    instance.see(1).await;
    let queues = instance.schedule.queues(&[category("old"), category("late")]).await.unwrap();
    let late: Vec<_> = queues.into_iter().map(|queue| queue.lateness.unwrap().max).collect();
    assert!(late[0] < SECOND && late[1] >= SECOND * 10, "{late:?}");
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

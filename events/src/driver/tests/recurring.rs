//! What recurs fires at its times.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use notifyx_model::{Fault, Priority, Timestamp};

use tokio_util::sync::CancellationToken;

use super::{
    super::{
        Driver,
        occur::{AHEAD, Round},
    },
    ALL, LONG, SECOND, World, category, id, ids, open, see_either,
};
use crate::{
    Error,
    event::{Event, NewEvent},
    feed::Feed,
    plan::Plan,
    queue::Bounds,
    recurrence::Look,
    recurring::{OnMissed, State},
    schedules::{NewRecurring, Schedules},
    store::{self, MIGRATIONS},
    writer::Writer,
};

notifyx_database::conformance!(open, &MIGRATIONS;
    each_occurrence_fires_once, what_was_missed_is_treated_as_asked, a_pause_ends_with_what_was_missed,
    an_id_with_another_rule_is_refused, one_that_catches_up_holds_up_nobody,
    a_schedule_that_cannot_be_served_stops_no_other, one_with_many_occurrences_is_deleted_with_all_of_them);

pub(super) fn recurring(text: &str, every: &str, on_missed: OnMissed) -> NewRecurring {
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

async fn one_that_catches_up_holds_up_nobody(world: World) {
    let (store, clock) = (store::open(&world.database, &world.clock), world.clock.clone());
    let (plan, feed) = (Arc::new(Plan::new(Bounds::default(), world.clock.clone())), Feed::new(0));
    let writer = Writer::start(&store, &clock, &plan, &feed);
    let schedules = Schedules::new(store.clone(), writer, plan.clone(), clock.clone());
    let driver = Driver::new(store, clock.clone(), plan, feed, "by hand", LONG);
    let made = async |text| {
        let now = schedules.get(&id(text)).await.unwrap();
        (now.made, now.skipped)
    };
    let look = || Look::new(clock.now(), AHEAD, Duration::ZERO);
    for (text, on_missed) in [("all", OnMissed::FireAll), ("last", OnMissed::FireLast)] {
        schedules.create(recurring(text, "every 1s", on_missed)).await.unwrap();
    }
    world.hand.advance(SECOND * 20_000);
    schedules.create(recurring("beat", "every 10s", OnMissed::Skip)).await.unwrap();
    world.hand.advance(SECOND * 9);

    let (over, mut round) = (CancellationToken::new(), Round::default());
    assert!(!driver.make_due(look(), &over).await.unwrap());
    assert_eq!((made("beat").await, made("all").await), ((1, 0), (0, 0)), "what comes now is first");
    // A transaction at a time, of the newest ten thousand that were missed.
    assert!(driver.make_late(look(), &mut round).await.unwrap());
    assert_eq!(made("all").await, (1_000, 10_003));
    let mut transactions = 1;
    while driver.make_late(look(), &mut round).await.unwrap() {
        transactions += 1;
    }
    assert!(transactions < 30, "{transactions}");
    assert_eq!((made("all").await, made("last").await), ((10_000, 10_003), (9, 20_002)));
    driver.make_due(look(), &over).await.unwrap();
    assert_eq!(made("all").await, (10_008, 10_003), "and the eight that were not");
    world.hand.advance(SECOND * 10);
    driver.make_due(look(), &over).await.unwrap();
    assert_eq!(made("beat").await, (2, 0));
}

async fn a_schedule_that_cannot_be_served_stops_no_other(world: World) {
    let mut instance = world.alone();
    world
        .execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON scheduled WHEN new.recurring_id = '2' BEGIN SELECT RAISE(ABORT, 'no'); END",
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'no'; END $$;
             CREATE TRIGGER refuse BEFORE INSERT ON scheduled FOR EACH ROW WHEN (new.recurring_id = '2') EXECUTE FUNCTION refuse()",
        )
        .await;
    for text in ["1", "2", "3", "4"] {
        instance.schedules.create(recurring(text, "every 10s", OnMissed::FireAll)).await.unwrap();
    }
    let broken = "UPDATE recurring SET key = '' WHERE id = '1'; UPDATE recurring SET zone = 'nowhere' WHERE id = '4'";
    world.execute(broken, broken).await;
    world.hand.advance(SECOND * 10);
    instance.plan.look();
    assert_eq!(instance.see(1).await[0].given.recurring, Some(id("3")));
    let parked = instance.schedules.get(&id("4")).await.unwrap();
    assert!(parked.state.is_paused(), "{:?}", parked.state);
    instance.stop().await;
}

async fn one_with_many_occurrences_is_deleted_with_all_of_them(world: World) {
    let instance = world.alone();
    let beat = instance.schedules.create(recurring("beat", "every 1d", OnMissed::FireAll)).await.unwrap();
    let next = beat.state.next().unwrap();
    let made = |i: u32| {
        let of = NewEvent { recurring: Some(id("beat")), ..world.event("recurring", &i.to_string(), LONG) };
        (next + SECOND * i, of)
    };
    let (events, then) = ((0..2_500).map(made).collect(), Some(next + LONG));
    let many = store::Occurrences { id: id("beat"), next, events, then, skipped: 0 };
    assert_eq!(instance.store.materialise(&[many]).await.unwrap().len(), 2_500);
    instance.schedules.delete(&id("beat")).await.unwrap();
    let queue = instance.schedule.queues(&[category("recurring")]).await.unwrap().remove(0);
    assert_eq!((queue.backlog, queue.size), (0, 0), "{queue:?}");
    assert_eq!(instance.schedules.delete(&id("beat")).await.unwrap_err().code(), "schedule_not_found");
    instance.stop().await;
}

//! Several that would drive, of which one does.

use std::{collections::HashSet, sync::Arc, time::Duration};

use super::{
    super::{Driver, load::Walk},
    LONG, SECOND, World, category, ids, open, see_either,
};
use crate::{
    feed::Feed,
    plan::Plan,
    queue::Bounds,
    store::{self, MIGRATIONS},
};

notifyx_database::conformance!(open, &MIGRATIONS;
    two_that_drive_fire_each_event_once, another_drives_when_the_lease_has_ended, the_lease_is_given_back,
    at_a_take_over_all_that_has_room_is_read_in_order_of_time);

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

async fn at_a_take_over_all_that_has_room_is_read_in_order_of_time(world: World) {
    let (store, plan) =
        (store::open(&world.database, &world.clock), Arc::new(Plan::new(Bounds::default(), world.clock.clone())));
    // More than the first pages hold, and last of all by its name.
    let events: Vec<_> = (0..11_000).map(|i| world.event(&format!("c{i}"), "1", SECOND * (1 + i / 1_000))).collect();
    for some in events.chunks(2_000) {
        store.schedule(some).await.unwrap();
    }
    store.schedule(&[world.event("zebra", "1", SECOND * 12)]).await.unwrap();
    let driver = Driver::new(store, world.clock.clone(), plan.clone(), Feed::new(0), "by hand", LONG);
    plan.begin();
    let mut walk = Walk::default();
    while driver.walk(&mut walk).await.unwrap() {}
    assert_eq!(plan.held(), 11_001);
    assert_eq!(plan.figures(&category("zebra")).map(|figures| figures.size), Some(1));
    assert!(plan.refill().is_none(), "no window lacks anything");
}

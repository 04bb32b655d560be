//! A firing whose answer is lost.

use std::{sync::Arc, time::Duration};

use super::{Driver, LONG, SECOND, World, category, id, open};
use crate::{
    driver::doubt::Doubt,
    feed::{Feed, News},
    plan::Plan,
    queue::Bounds,
    store::{self, MIGRATIONS, Named},
};

notifyx_database::conformance!(open, &MIGRATIONS; what_fired_unanswered_is_told_by_the_next_try);

async fn what_fired_unanswered_is_told_by_the_next_try(world: World) {
    let store = store::open(&world.database, &world.clock);
    let (plan, feed) = (Arc::new(Plan::new(Bounds::default(), world.clock.clone())), Feed::new(1 << 24));
    let driver = Driver::new(store.clone(), world.clock.clone(), plan.clone(), feed.clone(), "one", LONG);
    let mut watcher = feed.watch();
    let waiting = [("a", "1"), ("b", "2"), ("a", "3"), ("a", "4"), ("a", "5")];
    store.schedule(&waiting.map(|(of, text)| world.event(of, text, SECOND))).await.unwrap();
    world.hand.advance(SECOND * 2);
    let now = world.clock.now();
    let due = store.due(now, None, 100).await.unwrap();
    // Three of them fire, and the answer is lost; one is cancelled before they are tried again.
    store.fire(&due[..3].iter().map(|due| due.slot.seq).collect::<Vec<_>>(), now).await.unwrap();
    let mut doubt = Doubt::default();
    doubt.add(&due, now);
    store.append(&[world.event("a", "meanwhile", Duration::ZERO)], now + SECOND).await.unwrap();
    let cancelled = Named { category: category("a"), id: id("4") };
    store.cancel(&[cancelled]).await.unwrap();

    world.hand.advance(SECOND * 8);
    driver.fire_batch(&due, &mut doubt).await.unwrap();
    let mut told = Vec::new();
    while told.len() < 4 {
        let News::Appended(events) = watcher.next().await else { panic!("the feed holds all") };
        told.extend(events.iter().map(|event| (event.given.id.as_str().to_owned(), event.offset())));
    }
    let expected = [("1", 1), ("3", 2), ("2", 1), ("5", 4)];
    assert_eq!(told, expected.map(|(text, offset)| (text.to_owned(), Some(offset))));
    let late = plan.lateness(&category("a")).unwrap();
    assert_eq!(late.fired(), 3);
    assert!(late.quantile(0.5).unwrap() < SECOND * 2, "as late as the try that fired it");
    // Nothing is in doubt any more.
    driver.fire_batch(&due, &mut doubt).await.unwrap();
    assert_eq!(plan.lateness(&category("a")).unwrap().fired(), 3);
}

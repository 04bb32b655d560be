//! The log: offsets, ids and pages.

use std::sync::Arc;

use super::{ALL, Fixture, MIGRATIONS, category, id, ids, open};
use crate::{event::Place, store::Page};

notifyx_database::conformance!(open, &MIGRATIONS;
    what_is_appended_reads_back_equal, offsets_follow_each_topic_without_gaps, an_id_seen_before_is_that_event,
    an_id_is_unique_in_its_category_only,
    what_is_the_platforms_own_is_found_by_its_category_only, pages_go_both_ways_and_are_cut_by_bytes, nobody_used_a_category,
    appends_at_once_leave_no_gap_and_no_double);

async fn what_is_appended_reads_back_equal(f: Fixture) {
    let bare = crate::event::NewEvent { key: None, owner: None, ..f.event("a", "bare", 0) };
    let made = crate::event::NewEvent { recurring: Some(id("daily")), ..f.event("a", "made", 0) };
    let kept = f.append(&[bare, made]).await;
    let log = f.log("a").await;
    assert_eq!(kept.iter().map(|kept| kept.event.clone()).collect::<Vec<_>>(), log);
    assert_eq!(log[1].place, Place::Fired { offset: 2, at: f.clock.now() });
    assert_eq!(f.store.find(&id("made"), None).await.unwrap(), log[1..]);
}

async fn offsets_follow_each_topic_without_gaps(f: Fixture) {
    let names = ["b", "a", "b", "c", "a", "b"];
    for round in 0..2 {
        let events: Vec<_> = (0..).zip(names).map(|(i, of)| f.event(of, &format!("{round}-{i}"), 0)).collect();
        let kept = f.append(&events).await;
        let offsets: Vec<_> = kept.iter().map(|kept| kept.event.offset().unwrap()).collect();
        let expected = if round == 0 { [1, 1, 2, 1, 2, 3] } else { [4, 3, 5, 2, 4, 6] };
        assert_eq!(offsets, expected);
    }
    let heads = f.store.heads(&[category("c"), category("none"), category("b"), category("c")]).await.unwrap();
    let heads: Vec<_> = heads.iter().map(|head| (head.category.as_str(), head.offset, head.trimmed)).collect();
    assert_eq!(heads, [("c", 2, 0), ("none", 0, 0), ("b", 6, 0), ("c", 2, 0)]);
    assert_eq!(ids(&f.log("b").await), ["0-0", "0-2", "0-5", "1-0", "1-2", "1-5"]);
}

async fn an_id_seen_before_is_that_event(f: Fixture) {
    let first = f.append(&[f.event("a", "1", 0)]).await.remove(0);
    f.hand.advance(std::time::Duration::from_secs(1));
    let batch = [f.event("a", "2", 0), f.event("a", "1", 0), f.event("a", "2", 5), f.event("a", "3", 0)];
    let kept = f.append(&batch).await;
    assert_eq!(kept.iter().map(|kept| kept.duplicate).collect::<Vec<_>>(), [false, true, true, false]);
    assert_eq!(kept[1].event, first.event);
    assert_eq!(kept[2].event, kept[0].event);
    assert_eq!(ids(&f.log("a").await), ["1", "2", "3"]);
    // The schedule knows what is in the log.
    let again = f.store.schedule(&[f.event("a", "3", 60_000)]).await.unwrap();
    assert_eq!((again[0].duplicate, again[0].event.offset()), (true, Some(3)));
    assert_eq!((f.rows("scheduled").await, f.rows("due").await, f.rows("seen").await), (0, 0, 3));
}

async fn an_id_is_unique_in_its_category_only(f: Fixture) {
    f.append(&[f.event("a", "1", 0), f.event("b", "1", 0)]).await;
    assert_eq!(f.store.find(&id("1"), None).await.unwrap().len(), 2);
    let found = f.store.find(&id("1"), Some(&category("b"))).await.unwrap();
    assert_eq!((found.len(), found[0].given.category.as_str()), (1, "b"));
    assert!(f.store.find(&id("1"), Some(&category("c"))).await.unwrap().is_empty());
    assert!(f.store.find(&id("2"), None).await.unwrap().is_empty());
}

async fn what_is_the_platforms_own_is_found_by_its_category_only(f: Fixture) {
    f.append(&[f.event("a", "1", 0), f.event("$a", "1", 0), f.event("$a", "2", 0)]).await;
    let found = f.store.find(&id("1"), None).await.unwrap();
    assert_eq!((found.len(), found[0].given.category.as_str()), (1, "a"));
    assert!(f.store.find(&id("2"), None).await.unwrap().is_empty());
    assert_eq!(f.store.find(&id("2"), Some(&category("$a"))).await.unwrap().len(), 1);
}

async fn pages_go_both_ways_and_are_cut_by_bytes(f: Fixture) {
    let events: Vec<_> = (1..=5).map(|i| f.event("a", &i.to_string(), 0)).collect();
    let size = u32::try_from(events[0].data.len()).unwrap();
    f.append(&events).await;
    let (store, a) = (&f.store, category("a"));
    let read = store.read(&a, 2, Page { limit: 2, ..ALL }).await.unwrap();
    assert_eq!((ids(&read.events), read.offset, read.trimmed), (vec!["3", "4"], 5, 0));
    let read = store.read(&a, 5, ALL).await.unwrap();
    assert_eq!((read.events.len(), read.offset), (0, 5));
    let back = store.read_back(&a, None, Page { limit: 2, ..ALL }).await.unwrap();
    assert_eq!(ids(&back.events), ["5", "4"]);
    let back = store.read_back(&a, Some(4), ALL).await.unwrap();
    assert_eq!(ids(&back.events), ["3", "2", "1"]);
    for (bytes, count) in [(1, 1), (size, 1), (size + 1, 2), (3 * size, 3), (9 * size, 5)] {
        let page = Page { limit: 1_000, bytes };
        assert_eq!(store.read(&a, 0, page).await.unwrap().events.len(), count, "{bytes} bytes");
        assert_eq!(store.read_back(&a, None, page).await.unwrap().events.len(), count, "{bytes} bytes");
    }
}

async fn nobody_used_a_category(f: Fixture) {
    let read = f.store.read(&category("none"), 7, ALL).await.unwrap();
    assert_eq!((read.events.len(), read.offset, read.trimmed), (0, 0, 0));
    assert_eq!(f.append(&[]).await, []);
}

async fn appends_at_once_leave_no_gap_and_no_double(f: Fixture) {
    let f = Arc::new(f);
    // The same topics in all orders, and each id from two callers.
    let append = |caller: usize| {
        let f = f.clone();
        async move {
            for round in 0..10 {
                let mut events: Vec<_> =
                    ["x", "y", "z"].map(|of| f.event(of, &format!("{}-{round}", caller / 2), 0)).into();
                events.rotate_left(caller % 3);
                f.append(&events).await;
            }
        }
    };
    let callers: Vec<_> = (0..8).map(|caller| tokio::spawn(append(caller))).collect();
    for caller in callers {
        caller.await.unwrap();
    }
    for of in ["x", "y", "z"] {
        let log = f.log(of).await;
        let offsets: Vec<_> = log.iter().map(|event| event.offset().unwrap()).collect();
        assert_eq!(offsets, (1..=40).collect::<Vec<_>>());
    }
}

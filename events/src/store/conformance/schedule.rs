//! The schedule: what waits, what fires, and what is told to whoever comes late.

use std::{collections::BTreeMap, sync::Arc};

use notifyx_model::Timestamp;
use rand::{Rng, SeedableRng, rngs::StdRng};

use super::{ALL, Fixture, MIGRATIONS, category, id, ids, named, open, seq, slot};
use crate::{
    event::{Event, EventKey, Place},
    store::{Change, Page, Slot, Which},
};

notifyx_database::conformance!(open, &MIGRATIONS;
    what_waits_reads_back_equal, firing_moves_to_the_log_in_the_order_given, what_is_gone_is_left_out,
    an_event_fires_once_whoever_tries, a_scheduled_id_is_known_before_and_after_it_fires,
    what_is_cancelled_does_not_fire_and_its_id_is_free, a_late_order_is_told_so,
    rescheduled_it_has_a_new_slot_and_the_old_one_holds_nothing, windows_are_refilled_in_order_of_slots,
    what_is_due_is_found_over_all_categories, backlogs_are_counted, pages_of_what_waits_are_cut_by_bytes,
    what_waits_is_found_by_what_it_is_about, whatever_happened_pages_of_what_is_due_are_whole_and_in_order);

async fn what_waits_reads_back_equal(f: Fixture) {
    let bare = crate::event::NewEvent { key: None, owner: None, ..f.event("a", "bare", 2_000) };
    let events = f.schedule(&[bare, f.event("a", "1", 1_000), f.event("b", "1", 1_500)]).await;
    assert!(seq(&events[0]) < seq(&events[1]) && seq(&events[1]) < seq(&events[2]), "in order of arrival");
    assert_eq!(f.waiting("a").await, [events[1].clone(), events[0].clone()]);
    let all = f.store.waiting(Which::All, None, ALL).await.unwrap();
    assert_eq!(ids(&all), ["1", "1", "bare"]);
    assert_eq!(f.store.find(&id("bare"), None).await.unwrap(), events[..1]);
    assert_eq!(f.store.schedule(&[]).await.unwrap(), []);
}

async fn firing_moves_to_the_log_in_the_order_given(f: Fixture) {
    f.append(&[f.event("b", "old", 0)]).await;
    let events =
        f.schedule(&[f.event("a", "1", 10), f.event("b", "2", 10), f.event("a", "3", 5), f.event("a", "4", 20)]).await;
    f.hand.advance(std::time::Duration::from_millis(10));
    let fired = f.fire(&[&events[2], &events[0], &events[1]]).await;
    assert_eq!(ids(&fired), ["3", "1", "2"]);
    let at = f.clock.now();
    let places: Vec<_> = fired.iter().map(|event| event.place).collect();
    assert_eq!(places, [1, 2, 2].map(|offset| Place::Fired { offset, at }));
    assert_eq!(fired[0].given, events[2].given);
    assert_eq!(f.log("a").await, fired[..2]);
    assert_eq!(f.log("b").await[1], fired[2]);
    assert_eq!(f.store.find(&id("3"), None).await.unwrap(), fired[..1]);
    assert_eq!(ids(&f.waiting("a").await), ["4"]);
    assert_eq!((f.rows("scheduled").await, f.rows("due").await, f.rows("seen").await), (1, 1, 5));
}

async fn what_is_gone_is_left_out(f: Fixture) {
    let events = f.schedule(&[f.event("a", "1", 0), f.event("a", "2", 0), f.event("a", "3", 0)]).await;
    f.fire(&[&events[1]]).await;
    let fired = f.fire(&[&events[0], &events[1], &events[0], &events[2]]).await;
    assert_eq!(ids(&fired), ["1", "3"]);
    assert_eq!(fired.iter().map(|event| event.offset().unwrap()).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(f.fire(&[&events[0]]).await, []);
    assert_eq!(f.fire(&[]).await, []);
    assert_eq!(f.head("a").await.offset, 3);
}

async fn an_event_fires_once_whoever_tries(f: Fixture) {
    let names = ["x", "y", "z"];
    let new: Vec<_> = (0..60).map(|i| f.event(names[i % 3], &i.to_string(), 0)).collect();
    let seqs: Vec<u64> = f.schedule(&new).await.iter().map(seq).collect();
    let f = Arc::new(f);
    let fire = |caller: usize| {
        let (f, mut seqs) = (f.clone(), seqs.clone());
        async move {
            seqs.rotate_left(caller * 7);
            let mut fired = Vec::new();
            for some in seqs.chunks(9) {
                fired.extend(f.store.fire(some, f.clock.now()).await.unwrap());
            }
            fired
        }
    };
    let callers: Vec<_> = (0..4).map(|caller| tokio::spawn(fire(caller))).collect();
    let mut fired = Vec::new();
    for caller in callers {
        fired.extend(caller.await.unwrap());
    }
    assert_eq!(fired.len(), 60);
    for name in names {
        let log = f.log(name).await;
        let offsets: Vec<_> = log.iter().map(|event| event.offset().unwrap()).collect();
        assert_eq!(offsets, (1..=20).collect::<Vec<_>>());
        assert_eq!(f.head(name).await.waiting, 0);
    }
    assert_eq!((f.rows("scheduled").await, f.rows("due").await, f.rows("seen").await), (0, 0, 60));
}

async fn a_scheduled_id_is_known_before_and_after_it_fires(f: Fixture) {
    let events = f.schedule(&[f.event("a", "1", 1_000)]).await;
    let batch = [f.event("a", "2", 5), f.event("a", "1", 9), f.event("a", "2", 6)];
    let again = f.store.schedule(&batch).await.unwrap();
    assert_eq!(again.iter().map(|kept| kept.duplicate).collect::<Vec<_>>(), [false, true, true]);
    assert_eq!((&again[1].event, &again[2].event), (&events[0], &again[0].event));
    let kept = f.append(&[f.event("a", "1", 0)]).await;
    assert_eq!((kept[0].duplicate, &kept[0].event), (true, &events[0]));
    let fired = f.fire(&[&events[0]]).await;
    let again = f.store.schedule(&batch).await.unwrap();
    assert_eq!((again[1].duplicate, &again[1].event), (true, &fired[0]));
    assert_eq!(f.head("a").await.waiting, 1);
}

async fn what_is_cancelled_does_not_fire_and_its_id_is_free(f: Fixture) {
    let events = f.schedule(&[f.event("a", "1", 0), f.event("b", "1", 0), f.event("a", "2", 0)]).await;
    let names = [named("a", "1"), named("a", "2"), named("a", "1")];
    let changes = f.store.cancel(&names).await.unwrap();
    assert_eq!(changes, [Change::Done(events[0].clone()), Change::Done(events[2].clone()), Change::Unknown]);
    let seqs: Vec<&Event> = events.iter().collect();
    assert_eq!(f.fire(&seqs).await.len(), 1);
    assert_eq!((f.rows("scheduled").await, f.rows("due").await, f.rows("seen").await), (0, 0, 1));
    assert_eq!(f.head("a").await.waiting, 0);
    assert!(!f.store.schedule(&[f.event("a", "1", 0)]).await.unwrap()[0].duplicate);
}

async fn a_late_order_is_told_so(f: Fixture) {
    let events = f.schedule(&[f.event("a", "1", 0)]).await;
    let fired = f.fire(&[&events[0]]).await.remove(0);
    let names = [named("a", "1"), named("a", "2"), named("none", "1")];
    let expected = [Change::Fired(fired), Change::Unknown, Change::Unknown];
    assert_eq!(f.store.cancel(&names).await.unwrap(), expected);
    let moves = names.map(|named| (named, f.after(9)));
    assert_eq!(f.store.reschedule(&moves).await.unwrap(), expected);
    assert_eq!((f.head("a").await.waiting, f.rows("topic").await), (0, 1), "a question makes no topic");
}

async fn rescheduled_it_has_a_new_slot_and_the_old_one_holds_nothing(f: Fixture) {
    let events = f.schedule(&[f.event("a", "1", 10), f.event("a", "2", 20), f.event("b", "1", 10)]).await;
    let later = f.after(30);
    let orders = [(named("a", "1"), later), (named("a", "2"), f.after(1)), (named("a", "2"), f.after(5))];
    let changes = f.store.reschedule(&orders).await.unwrap();
    let Change::Moved(moved, from) = &changes[0] else { panic!("{changes:?}") };
    assert_eq!(*from, slot(&events[0]));
    let (Change::Moved(first, from), Change::Moved(_, then)) = (&changes[1], &changes[2]) else {
        panic!("{changes:?}")
    };
    assert_eq!((*from, *then), (slot(&events[1]), slot(first)), "one after the other");
    assert_eq!((moved.given.fire_at, seq(moved) > seq(&events[2])), (later, true));
    assert_eq!(f.fire(&[&events[0], &events[1]]).await, [], "their slots are empty");
    let waiting = f.waiting("a").await;
    assert_eq!((ids(&waiting), waiting[0].given.fire_at), (vec!["2", "1"], f.after(5)), "the last word counts");
    assert_eq!(waiting[1], *moved);
    assert_eq!(f.store.earliest().await.unwrap(), Some(f.after(5)));
    assert_eq!((f.rows("due").await, f.head("a").await.waiting), (3, 2));
    assert_eq!(f.fire(&[moved]).await.len(), 1);
}

async fn windows_are_refilled_in_order_of_slots(f: Fixture) {
    // Two of one instant keep the order of their arrival.
    let times = [30, 10, 20, 10, 40];
    let new: Vec<_> = (0..).zip(times).map(|(i, ms)| f.event("a", &format!("{i}"), ms)).collect();
    let events = f.schedule(&new).await;
    f.schedule(&[f.event("b", "0", 15)]).await;
    let expected: Vec<_> = [1, 3, 2, 0, 4].iter().map(|i| slot(&events[*i])).collect();
    let (mut slots, mut after) = (Vec::new(), None);
    loop {
        let page = f.store.refill(&category("a"), after, 2).await.unwrap();
        assert!(page.iter().all(|due| u8::from(due.priority) == 7 && due.category == category("a")));
        slots.extend(page.iter().map(|due| due.slot));
        after = slots.last().copied();
        if page.is_empty() {
            break;
        }
    }
    assert_eq!(slots, expected);
    assert_eq!(f.store.refill(&category("none"), None, 2).await.unwrap(), []);
}

async fn what_is_due_is_found_over_all_categories(f: Fixture) {
    assert_eq!(f.store.earliest().await.unwrap(), None);
    let new = [f.event("a", "1", 30), f.event("b", "2", 10), f.event("c", "3", 20), f.event("a", "4", 10)];
    let events = f.schedule(&new).await;
    assert_eq!(f.store.earliest().await.unwrap(), Some(f.after(10)));
    let due = f.store.due(f.after(20), None, 10).await.unwrap();
    assert_eq!(due.iter().map(|due| due.slot).collect::<Vec<_>>(), [1, 3, 2].map(|i: usize| slot(&events[i])));
    assert_eq!(due.iter().map(|due| due.category.as_str()).collect::<String>(), "bac");
    let due = f.store.due(f.after(99), Some(slot(&events[3])), 1).await.unwrap();
    assert_eq!(due.iter().map(|due| due.slot).collect::<Vec<_>>(), [slot(&events[2])]);
    assert_eq!(f.store.due(Timestamp::from_micros(0), None, 10).await.unwrap(), []);
}

async fn backlogs_are_counted(f: Fixture) {
    assert_eq!(f.store.count_waiting().await.unwrap(), 0);
    f.append(&[f.event("idle", "1", 0)]).await;
    let new: Vec<_> = (0..6).map(|i| f.event(["c", "a", "b"][i % 3], &i.to_string(), 5)).collect();
    let events = f.schedule(&new).await;
    f.fire(&[&events[0], &events[3], &events[4]]).await;
    let backlogs = f.store.backlogs(None, 10).await.unwrap();
    let lines: Vec<_> = backlogs.iter().map(|head| (head.category.as_str(), head.waiting, head.offset)).collect();
    assert_eq!(lines, [("a", 1, 1), ("b", 2, 0)]);
    assert_eq!(f.store.backlogs(Some(&category("a")), 1).await.unwrap()[0].category, category("b"));
    assert_eq!(f.store.count_waiting().await.unwrap(), 3);
}

async fn pages_of_what_waits_are_cut_by_bytes(f: Fixture) {
    let new: Vec<_> = (0..4).map(|i| f.event("a", &i.to_string(), i)).collect();
    let size = u32::try_from(new[0].data.len()).unwrap();
    let events = f.schedule(&new).await;
    for (bytes, count) in [(1, 1), (size, 1), (size + 1, 2), (9 * size, 4)] {
        let page = Page { limit: 1_000, bytes };
        assert_eq!(f.store.waiting(Which::All, None, page).await.unwrap().len(), count, "{bytes} bytes");
    }
    let page =
        f.store.waiting(Which::Of(&category("a")), Some(slot(&events[1])), Page { limit: 1, ..ALL }).await.unwrap();
    assert_eq!(ids(&page), ["2"]);
}

async fn what_waits_is_found_by_what_it_is_about(f: Fixture) {
    let about = |key: Option<&str>, of: &str, text: &str, ms| crate::event::NewEvent {
        key: key.map(|key| EventKey::parse(key).unwrap()),
        ..f.event(of, text, ms)
    };
    let events = f
        .schedule(&[
            about(Some("x"), "a", "1", 3_000),
            about(Some("y"), "a", "2", 1_000),
            about(None, "a", "3", 1_000),
            about(Some("x"), "a", "4", 2_000),
            about(Some("x"), "b", "5", 1_000),
            about(Some("x"), "a", "6", 2_000),
        ])
        .await;
    let (of, key) = (category("a"), EventKey::parse("x").unwrap());
    let found = async |after, page| f.store.waiting(Which::About(&of, &key), after, page).await.unwrap();
    assert_eq!(ids(&found(None, ALL).await), ["4", "6", "1"]);
    assert_eq!(ids(&found(Some(slot(&events[3])), Page { limit: 1, ..ALL }).await), ["6"]);
    f.fire(&[&events[3]]).await;
    assert_eq!(ids(&found(None, Page { limit: 9, bytes: 1 }).await), ["6"]);
    f.store.reschedule(&[(named("a", "1"), f.after(500))]).await.unwrap();
    assert_eq!(ids(&found(None, ALL).await), ["1", "6"]);
}

/// Against a plain sorted list: few instants, so that many share one; few topics and many, whole ones among them that come and go.
async fn whatever_happened_pages_of_what_is_due_are_whole_and_in_order(f: Fixture) {
    const SEED: u64 = 7;
    let mut rng = StdRng::seed_from_u64(SEED);
    let mut truth: BTreeMap<Slot, Event> = BTreeMap::new();
    for round in 0..40 {
        let topics = if round % 2 == 0 { 2 } else { 12 };
        let new: Vec<_> = (0..rng.random_range(0..20))
            .map(|i| {
                f.event(&format!("t{}", rng.random_range(0..topics)), &format!("{round}-{i}"), rng.random_range(0..6))
            })
            .collect();
        truth.extend(f.schedule(&new).await.into_iter().map(|event| (slot(&event), event)));
        let some: Vec<Event> = truth.values().filter(|_| rng.random_bool(0.4)).cloned().collect();
        let (moved, gone) = some.split_at(some.len() / 3);
        let names = |events: &[Event]| -> Vec<_> {
            events.iter().map(|event| named(event.given.category.as_str(), event.given.id.as_str())).collect()
        };
        let orders: Vec<_> = names(moved).into_iter().map(|named| (named, f.after(rng.random_range(0..6)))).collect();
        for (old, change) in moved.iter().zip(f.store.reschedule(&orders).await.unwrap()) {
            let Change::Moved(event, from) = change else { panic!("{change:?}, seed {SEED}") };
            assert_eq!(from, slot(old), "seed {SEED}");
            truth.remove(&from);
            truth.insert(slot(&event), event);
        }
        let (cancelled, fired) = gone.split_at(gone.len() / 2);
        f.store.cancel(&names(cancelled)).await.unwrap();
        assert_eq!(f.fire(&fired.iter().collect::<Vec<_>>()).await.len(), fired.len());
        for event in gone {
            truth.remove(&slot(event));
        }

        let (limit, until) = (rng.random_range(1..8), f.after(rng.random_range(0..7)));
        let (mut due, mut after) = (Vec::new(), None);
        loop {
            let page = f.store.due(until, after, limit).await.unwrap();
            due.extend(page.iter().map(|due| due.slot));
            after = due.last().copied();
            if page.len() < limit as usize {
                break;
            }
        }
        let expected: Vec<Slot> = truth.keys().copied().filter(|slot| slot.at <= until).collect();
        assert_eq!(due, expected, "round {round} of seed {SEED}, pages of {limit}");
        assert_eq!(f.store.earliest().await.unwrap(), truth.keys().next().map(|slot| slot.at), "round {round}");
        let after = expected.get(expected.len() / 2).copied();
        let listed = f.store.waiting(Which::All, after, ALL).await.unwrap();
        let rest: Vec<_> = truth.values().filter(|event| after.is_none_or(|after| slot(event) > after)).collect();
        assert_eq!(listed.iter().collect::<Vec<_>>(), rest, "round {round} of seed {SEED}");
    }
}

//! Recurring schedules: each nominal time becomes one event.

use std::sync::Arc;

use bytes::Bytes;
use notifyx_model::Priority;

use super::{ALL, Fixture, MIGRATIONS, category, id, open};
use crate::{
    event::{EventKey, NewEvent, Owner},
    recurring::{OnMissed, Recurring, State},
    store::{Deleted, Occurrences, Page, Reached},
};

notifyx_database::conformance!(open, &MIGRATIONS;
    it_reads_back_equal_and_an_id_is_one_schedule, they_are_listed_by_id_and_category, a_change_needs_the_state_that_was_read,
    an_occurrence_is_made_once_whoever_tries, what_is_paused_or_gone_makes_nothing, those_that_are_due_are_found_in_pages,
    one_that_cannot_be_read_hides_no_other, many_are_made_at_once_and_each_by_itself,
    a_day_of_nominal_times_is_kept, deleted_it_takes_what_waits_with_it);

impl Fixture {
    fn recurring(&self, of: &str, text: &str, next_ms: u64) -> Recurring {
        Recurring {
            id: id(text),
            category: category(of),
            key: Some(EventKey::parse("about").unwrap()),
            priority: Priority::default(),
            data: Bytes::from_static(b"[1]"),
            rule: "every 1s".into(),
            zone: "Europe/Berlin".into(),
            on_missed: OnMissed::FireAll,
            start_at: Some(self.clock.now()),
            end_at: None,
            count: Some(3),
            owner: Some(Owner::parse("user:ann").unwrap()),
            created_at: self.clock.now(),
            state: State::Active { next: self.after(next_ms) },
            last_at: None,
            made: 0,
            skipped: 0,
        }
    }

    async fn created(&self, of: &str, text: &str, next_ms: u64) -> Recurring {
        self.store.create_recurring(&self.recurring(of, text, next_ms)).await.unwrap().0
    }

    async fn delete(&self, recurring: &Recurring) -> Option<Deleted> {
        self.store.delete_recurring(&recurring.id, 100).await.unwrap()
    }

    async fn recurring_as_it_is(&self, text: &str) -> Recurring {
        self.store.find_recurring(&id(text)).await.unwrap().unwrap()
    }

    /// One at the next nominal time, and then a second later.
    fn occurrence(&self, of: &Recurring, event: &str) -> Occurrences {
        let next = of.state.next().unwrap();
        let event = occurrence_of(of, self.event(of.category.as_str(), event, 0));
        let event = NewEvent { fire_at: next, ..event };
        let then = Some(next + std::time::Duration::from_secs(1));
        Occurrences { id: of.id.clone(), next, events: vec![(next, event)], then, skipped: 2 }
    }
}

fn occurrence_of(of: &Recurring, event: NewEvent) -> NewEvent {
    NewEvent { recurring: Some(of.id.clone()), ..event }
}

fn names(reached: &[Reached]) -> Vec<String> {
    reached.iter().map(|one| one.id.clone()).collect()
}

async fn it_reads_back_equal_and_an_id_is_one_schedule(f: Fixture) {
    let daily = f.recurring("a", "daily", 10);
    assert_eq!(f.store.create_recurring(&daily).await.unwrap(), (daily.clone(), false));
    assert_eq!(f.recurring_as_it_is("daily").await, daily);
    let other = Recurring { key: None, owner: None, start_at: None, ..f.recurring("b", "daily", 20) };
    assert_eq!(f.store.create_recurring(&other).await.unwrap(), (daily, true));
    assert_eq!(f.store.find_recurring(&id("hourly")).await.unwrap(), None);
}

async fn they_are_listed_by_id_and_category(f: Fixture) {
    for (of, text) in [("a", "3"), ("b", "1"), ("a", "2")] {
        f.created(of, text, 10).await;
    }
    let list = async |of: Option<&str>, after: Option<&str>, page: Page| {
        let (of, after) = (of.map(category), after.map(id));
        let listed = f.store.list_recurring(of.as_ref(), after.as_ref(), page).await.unwrap();
        listed.iter().map(|recurring| recurring.id.as_str()).collect::<String>()
    };
    assert_eq!(list(None, None, ALL).await, "123");
    assert_eq!(list(Some("a"), None, ALL).await, "23");
    assert_eq!(list(Some("c"), None, ALL).await, "");
    assert_eq!(list(None, Some("1"), Page { limit: 1, ..ALL }).await, "2");
    // Each has three bytes of data.
    assert_eq!(list(None, None, Page { bytes: 4, ..ALL }).await, "12");
}

async fn a_change_needs_the_state_that_was_read(f: Fixture) {
    let daily = f.created("a", "daily", 10).await;
    let paused = State::Paused { next: f.after(10) };
    let changed = f.store.change_recurring(&daily.id, daily.state, paused).await.unwrap().unwrap();
    assert_eq!(changed.state, paused);
    assert_eq!(f.store.change_recurring(&daily.id, daily.state, State::Finished).await.unwrap(), None);
    assert_eq!(f.recurring_as_it_is("daily").await, changed);
    let done = f.store.change_recurring(&daily.id, paused, State::Finished).await.unwrap().unwrap();
    assert_eq!(done.state, State::Finished);
    let again = f.store.change_recurring(&daily.id, State::Finished, daily.state).await.unwrap().unwrap();
    assert_eq!(again.state, daily.state);
    assert_eq!(f.store.change_recurring(&id("none"), paused, paused).await.unwrap(), None);
}

async fn an_occurrence_is_made_once_whoever_tries(f: Fixture) {
    let daily = f.created("a", "daily", 10).await;
    let f = Arc::new(f);
    let tries: Vec<_> = (0..6)
        .map(|caller| {
            let (f, occurrences) = (f.clone(), f.occurrence(&daily, &format!("by-{caller}")));
            tokio::spawn(async move { f.store.materialise(std::slice::from_ref(&occurrences)).await.unwrap() })
        })
        .collect();
    let mut made = Vec::new();
    for tried in tries {
        made.extend(tried.await.unwrap());
    }
    assert_eq!((made.len(), made[0].duplicate), (1, false));
    assert_eq!(f.waiting("a").await, [made[0].event.clone()]);
    let after = f.recurring_as_it_is("daily").await;
    assert_eq!((after.made, after.skipped, after.last_at), (1, 2, daily.state.next()));
    // Set back to a time that was made, it makes the next only.
    f.store.change_recurring(&daily.id, after.state, daily.state).await.unwrap().unwrap();
    let mut again = f.occurrence(&daily, "again");
    again.events.push((f.after(1_010), f.event("a", "next", 1_010)));
    let made = f.store.materialise(&[again]).await.unwrap();
    assert_eq!((made.len(), made[0].event.given.id.as_str()), (1, "next"));
    let after = f.recurring_as_it_is("daily").await;
    assert_eq!((after.made, after.last_at), (2, Some(f.after(1_010))));
}

async fn a_day_of_nominal_times_is_kept(f: Fixture) {
    const HOUR_MS: u64 = 3_600_000;
    let hourly = f.created("a", "hourly", HOUR_MS).await;
    for hour in 1..=30 {
        let now = f.recurring_as_it_is("hourly").await;
        let mut occurrence = f.occurrence(&now, &hour.to_string());
        occurrence.then = Some(f.after((hour + 1) * HOUR_MS));
        assert_eq!(f.store.materialise(&[occurrence]).await.unwrap().len(), 1);
    }
    assert_eq!((f.rows("scheduled").await, f.rows("occurrence").await), (30, 25));
    let after = f.recurring_as_it_is("hourly").await;
    assert_eq!((after.made, after.id), (30, hourly.id));
}

async fn what_is_paused_or_gone_makes_nothing(f: Fixture) {
    let daily = f.created("a", "daily", 10).await;
    let occurrences = f.occurrence(&daily, "1");
    let paused = State::Paused { next: f.after(10) };
    f.store.change_recurring(&daily.id, daily.state, paused).await.unwrap().unwrap();
    assert_eq!(f.store.materialise(std::slice::from_ref(&occurrences)).await.unwrap(), []);
    f.delete(&daily).await.unwrap();
    assert_eq!(f.store.materialise(std::slice::from_ref(&occurrences)).await.unwrap(), []);
    assert_eq!((f.rows("scheduled").await, f.rows("occurrence").await), (0, 0));
}

async fn those_that_are_due_are_found_in_pages(f: Fixture) {
    for (text, ms) in [("late", 30), ("soon", 10), ("paused", 5), ("next", 20), ("more", 10)] {
        f.created("a", text, ms).await;
    }
    let paused = f.recurring_as_it_is("paused").await;
    f.store.change_recurring(&paused.id, paused.state, State::Paused { next: f.after(5) }).await.unwrap().unwrap();
    let due = async |after: (u64, &str), ms, limit| {
        names(&f.store.due_recurring((f.after(after.0), after.1), f.after(ms), limit).await.unwrap())
    };
    assert_eq!(due((0, ""), 20, 10).await, ["more", "soon", "next"]);
    assert_eq!(due((0, ""), 99, 1).await, ["more"]);
    assert_eq!(due((10, "more"), 99, 2).await, ["soon", "next"]);
    assert_eq!(due((10, ""), 10, 9).await, ["more", "soon"]);
    assert!(due((0, ""), 9, 10).await.is_empty());
    let late = async |ms, after: &str, limit| names(&f.store.late_recurring(f.after(ms), after, limit).await.unwrap());
    assert_eq!(late(31, "", 9).await, ["late", "more", "next", "soon"]);
    assert_eq!(late(30, "more", 9).await, ["next", "soon"]);
    assert_eq!(late(30, "", 1).await, ["more"]);
}

async fn one_that_cannot_be_read_hides_no_other(f: Fixture) {
    for text in ["1", "2", "3"] {
        f.created("a", text, 10).await;
    }
    f.execute("UPDATE recurring SET key = '' WHERE id = '2'").await;
    let due = f.store.due_recurring((f.after(0), ""), f.after(10), 9).await.unwrap();
    assert_eq!(names(&due), ["1", "2", "3"]);
    assert_eq!(due.iter().map(|one| one.recurring.is_ok()).collect::<Vec<_>>(), [true, false, true]);
}

async fn many_are_made_at_once_and_each_by_itself(f: Fixture) {
    let mut all = Vec::new();
    for text in ["1", "2", "3"] {
        let of = if text == "3" { "b" } else { "a" };
        all.push(f.occurrence(&f.created(of, text, 10).await, &format!("by-{text}")));
    }
    let paused = f.recurring_as_it_is("2").await;
    f.store.change_recurring(&paused.id, paused.state, State::Paused { next: f.after(10) }).await.unwrap().unwrap();
    all[2].then = None;
    let made = f.store.materialise(&all).await.unwrap();
    assert_eq!(made.iter().map(|kept| kept.event.given.id.as_str()).collect::<Vec<_>>(), ["by-1", "by-3"]);
    let standing = async |text| {
        let now = f.recurring_as_it_is(text).await;
        (now.state, now.made, now.skipped, now.last_at)
    };
    assert_eq!(standing("1").await, (State::Active { next: f.after(1_010) }, 1, 2, Some(f.after(10))));
    assert_eq!(standing("2").await, (State::Paused { next: f.after(10) }, 0, 0, None));
    assert_eq!(standing("3").await, (State::Finished, 1, 2, Some(f.after(10))));
    assert!(f.store.materialise(&all).await.unwrap().is_empty(), "each once");
    assert_eq!((f.head("a").await.waiting, f.head("b").await.waiting), (1, 1));
}

async fn deleted_it_takes_what_waits_with_it(f: Fixture) {
    let daily = f.created("a", "daily", 10).await;
    let first = f.store.materialise(&[f.occurrence(&daily, "1")]).await.unwrap().remove(0).event;
    f.fire(&[&first]).await;
    let now = f.recurring_as_it_is("daily").await;
    let mut many = f.occurrence(&now, "2");
    many.events.extend((3..7).map(|i| (f.after(i * 1_000), occurrence_of(&now, f.event("a", &i.to_string(), 0)))));
    f.store.materialise(&[many]).await.unwrap();
    f.schedule(&[f.event("a", "mine", 10)]).await;
    let was = f.recurring_as_it_is("daily").await;
    // Two at a time: it has ended meanwhile, and makes nothing more.
    let Some(Deleted::Ended(told)) = f.store.delete_recurring(&daily.id, 2).await.unwrap() else {
        panic!("more of it waits")
    };
    assert_eq!(told, was);
    assert_eq!((f.head("a").await.waiting, f.recurring_as_it_is("daily").await.state), (4, State::Finished));
    assert_eq!(f.store.materialise(&[f.occurrence(&was, "none")]).await.unwrap(), []);
    let Some(Deleted::Ended(_)) = f.store.delete_recurring(&daily.id, 2).await.unwrap() else { panic!("one waits") };
    let Some(Deleted::Gone(_)) = f.store.delete_recurring(&daily.id, 2).await.unwrap() else { panic!("none waits") };
    assert_eq!(super::ids(&f.waiting("a").await), ["mine"]);
    assert_eq!((f.head("a").await.waiting, f.rows("due").await, f.rows("occurrence").await), (1, 1, 0));
    assert_eq!(super::ids(&f.log("a").await), ["1"]);
    assert_eq!(f.store.delete_recurring(&daily.id, 2).await.unwrap(), None);
}

//! Inboxes: what is in them, what of it is unread, and how pages follow each other.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use notifyx_model::{NotificationId, Timestamp, TopicId, UserId};
use notifyx_wire::rest::persist::SeenStatus::{self, Seen, Unread};

use super::{Fixture, MIGRATIONS, name, open};
use crate::{Error, store::InboxQuery};

notifyx_database::conformance!(open, &MIGRATIONS;
    in_order_the_floor_moves, out_of_order_exceptions_stand_until_the_floor_reaches_them, exceptions_are_bounded,
    up_to_an_offset_marks_all_below, targeted_is_for_its_recipients, a_creators_broadcasts_are_seen,
    what_is_not_ours_cannot_be_marked, a_page_is_cut_by_its_bytes, counts_name_what_they_include,
    every_filter_and_page_agrees_with_a_plain_model);

async fn in_order_the_floor_moves(f: Fixture) {
    let ann = f.user();
    let topic = f.topic("a", ann).await;
    let bob = f.subscriber(topic).await;
    for n in 1..=3 {
        let applied = f.publish(topic, ann, &[]).await;
        for _ in 0..2 {
            let left = f.store.mark_seen(bob, applied.notification_id, 10).await.unwrap();
            assert_eq!((left.unread, left.broadcast_no), (0, n));
        }
    }
    assert_eq!(f.rows("exception").await, 0);
    assert_eq!(f.lines(bob, None).await, [(3, Seen), (2, Seen), (1, Seen)]);
}

async fn out_of_order_exceptions_stand_until_the_floor_reaches_them(f: Fixture) {
    let ann = f.user();
    let topic = f.topic("a", ann).await;
    let bob = f.subscriber(topic).await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(f.publish(topic, ann, &[]).await.notification_id);
    }
    for (i, left, exceptions) in [(2, 4, 1), (2, 4, 1), (4, 3, 2), (1, 2, 3), (0, 1, 1), (3, 0, 0), (3, 0, 0)] {
        let unread = f.store.mark_seen(bob, ids[i], 10).await.unwrap();
        assert_eq!((unread.unread, f.rows("exception").await), (left, exceptions), "after {i}");
        let unread = f.lines(bob, Some(Unread)).await;
        assert_eq!(unread.len() as u64, left);
        assert_eq!(f.lines(bob, Some(Seen)).await.len() as u64, 5 - left);
    }
}

async fn exceptions_are_bounded(f: Fixture) {
    let ann = f.user();
    let topic = f.topic("a", ann).await;
    let bob = f.subscriber(topic).await;
    let mut ids = Vec::new();
    for _ in 0..5 {
        ids.push(f.publish(topic, ann, &[]).await.notification_id);
    }
    f.store.mark_seen(bob, ids[2], 2).await.unwrap();
    f.store.mark_seen(bob, ids[3], 2).await.unwrap();
    let refused = f.store.mark_seen(bob, ids[4], 2).await;
    assert!(matches!(refused, Err(Error::TooManyExceptions(2))), "{refused:?}");
    // A repetition, and what makes room, are taken.
    f.store.mark_seen(bob, ids[3], 2).await.unwrap();
    f.store.mark_seen(bob, ids[0], 2).await.unwrap();
    f.store.mark_seen(bob, ids[1], 2).await.unwrap();
    assert_eq!(f.store.mark_seen(bob, ids[4], 2).await.unwrap().unread, 0);
}

async fn up_to_an_offset_marks_all_below(f: Fixture) {
    let ann = f.user();
    let topic = f.topic("a", ann).await;
    let bob = f.subscriber(topic).await;
    // Offsets 1 B, 2 T, 3 B, 4 T, 5 B, 6 B.
    for to in [&[][..], &[bob], &[], &[bob], &[], &[]] {
        f.publish(topic, ann, to).await;
    }
    let ids: Vec<NotificationId> = f.inbox(bob).await.iter().rev().map(|item| item.notification.id).collect();
    f.store.mark_seen(bob, ids[4], 10).await.unwrap();
    assert_eq!(f.unread(bob, topic).await, 5);
    for (offset, left) in [(0, 5), (2, 3), (1, 3), (4, 1), (4, 1), (6, 0), (9, 0), (u64::MAX, 0)] {
        let unread = f.store.mark_seen_up_to(bob, topic, offset).await.unwrap();
        assert_eq!(unread.unread, left, "up to {offset}");
        assert_eq!(f.lines(bob, Some(Unread)).await.len() as u64, left, "up to {offset}");
    }
    assert_eq!(f.rows("exception").await, 0);
    let refused = f.store.mark_seen_up_to(ann, topic, 1).await;
    assert!(matches!(refused, Err(Error::NotSubscribed(_))), "{refused:?}");
}

async fn targeted_is_for_its_recipients(f: Fixture) {
    let ann = f.user();
    let topic = f.topic("a", ann).await;
    let (bob, eve) = (f.subscriber(topic).await, f.subscriber(topic).await);
    let applied = f.publish(topic, ann, &[bob]).await;
    assert_eq!((f.unread(bob, topic).await, f.unread(eve, topic).await), (1, 0));
    assert_eq!((f.lines(bob, None).await, f.lines(eve, None).await), (vec![(1, Unread)], vec![]));
    let refused = f.store.mark_seen(eve, applied.notification_id, 10).await;
    assert!(matches!(refused, Err(Error::NotificationNotFound(_))), "{refused:?}");
    for _ in 0..2 {
        assert_eq!(f.store.mark_seen(bob, applied.notification_id, 10).await.unwrap().unread, 0);
    }
    assert_eq!(f.lines(bob, None).await, [(1, Seen)]);
}

async fn a_creators_broadcasts_are_seen(f: Fixture) {
    let ann = f.user();
    let topic = f.topic("a", ann).await;
    f.subscribe(topic, ann).await;
    let broadcast = f.publish(topic, ann, &[]).await;
    f.publish(topic, ann, &[ann]).await;
    let unread = &f.store.unread(ann).await.unwrap()[0];
    assert_eq!((unread.unread, unread.own, unread.broadcast_no), (1, true, 1));
    assert_eq!(f.lines(ann, None).await, [(2, Unread), (1, Seen)]);
    assert_eq!(f.lines(ann, Some(Unread)).await, [(2, Unread)]);
    assert_eq!(f.lines(ann, Some(Seen)).await, [(1, Seen)]);
    f.store.mark_seen(ann, broadcast.notification_id, 10).await.unwrap();
    assert_eq!(f.rows("exception").await, 0);
}

async fn what_is_not_ours_cannot_be_marked(f: Fixture) {
    let (ann, eve) = (f.user(), f.user());
    let topic = f.topic("a", ann).await;
    let applied = f.publish(topic, ann, &[]).await;
    for id in [applied.notification_id, NotificationId::new(&f.clock)] {
        let refused = f.store.mark_seen(eve, id, 10).await;
        assert!(matches!(refused, Err(Error::NotificationNotFound(_))), "{refused:?}");
    }
    let query = InboxQuery { after: Some(NotificationId::new(&f.clock)), ..Fixture::query(eve) };
    assert!(matches!(f.store.inbox(&query).await, Err(Error::NotificationNotFound(_))));
}

async fn a_page_is_cut_by_its_bytes(f: Fixture) {
    let ann = f.user();
    let topic = f.topic("a", ann).await;
    let bob = f.subscriber(topic).await;
    for _ in 0..3 {
        f.publish(topic, ann, &[]).await;
    }
    // Each message has five bytes.
    for (bytes, lines, complete) in [(1, 1, false), (6, 2, false), (10, 2, false), (11, 3, true)] {
        let (items, all) = f.store.inbox(&InboxQuery { bytes, ..Fixture::query(bob) }).await.unwrap();
        assert_eq!((items.len(), all), (lines, complete), "{bytes} bytes");
    }
}

async fn counts_name_what_they_include(f: Fixture) {
    let ann = f.user();
    let bob = f.user();
    for text in ["b", "a"] {
        let topic = f.topic(text, ann).await;
        f.subscribe(topic, bob).await;
        f.publish(topic, ann, &[]).await;
        f.publish(topic, ann, &[bob]).await;
    }
    let unread = f.store.unread(bob).await.unwrap();
    let lines: Vec<_> = unread.iter().map(|line| (line.topic.clone(), line.unread, line.broadcast_no)).collect();
    assert_eq!(lines, [(name("a"), 2, 1), (name("b"), 2, 1)]);
}

/// What a reader should find, kept the plain way.
#[derive(Default)]
struct Model {
    lines: Vec<Line>,
}

struct Line {
    /// By which lines are ordered: several topics may have one of the same microsecond.
    place: (Timestamp, TopicId),
    creator: UserId,
    id: NotificationId,
    seen: bool,
}

impl Model {
    fn list(&self, query: &InboxQuery) -> Vec<(NotificationId, SeenStatus)> {
        let mut lines: Vec<_> = self.lines.iter().collect();
        lines.sort_by_key(|line| std::cmp::Reverse(line.place));
        lines.retain(|line| {
            query.topic.is_none_or(|wanted| wanted == line.place.1)
                && query.from.is_none_or(|wanted| wanted == line.creator)
                && query.status.is_none_or(|wanted| (wanted == Seen) == line.seen)
        });
        lines.iter().map(|line| (line.id, if line.seen { Seen } else { Unread })).collect()
    }
}

/// Numbers that look like chance and are the same in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % sides
    }
}

async fn every_filter_and_page_agrees_with_a_plain_model(f: Fixture) {
    let (ann, eve, bob) = (f.user(), f.user(), f.user());
    let mut dice = Dice(7);
    let mut model = Model::default();
    let mut topics = Vec::new();
    for (i, creator) in [ann, eve, ann, bob, eve].into_iter().enumerate() {
        let topic = f.topic(&format!("t{i}"), creator).await;
        // What was before is not in the inbox.
        f.publish(topic, creator, &[]).await;
        f.publish(topic, creator, &[bob]).await;
        f.subscribe(topic, bob).await;
        topics.push((topic, creator));
    }
    for _ in 0..120 {
        f.hand.advance(Duration::from_micros(dice.roll(3) as u64));
        let (topic, creator) = topics[dice.roll(topics.len())];
        let to = vec![vec![], vec![bob], vec![eve], vec![]].swap_remove(dice.roll(4));
        let applied = f.publish(topic, creator, &to).await;
        if to != [eve] {
            // Bob's own broadcasts are seen from the start.
            model.lines.push(Line {
                place: (applied.inserted_at, topic),
                creator,
                id: applied.notification_id,
                seen: creator == bob && to.is_empty(),
            });
        }
        if dice.roll(2) == 0 && !model.lines.is_empty() {
            let i = dice.roll(model.lines.len());
            let line = &mut model.lines[i];
            line.seen = true;
            f.store.mark_seen(bob, line.id, 1_000).await.unwrap();
        }
    }
    let mut by_topic: BTreeMap<TopicId, u64> = BTreeMap::new();
    for line in &model.lines {
        *by_topic.entry(line.place.1).or_default() += u64::from(!line.seen);
    }
    for (topic, unread) in by_topic {
        assert_eq!(f.unread(bob, topic).await, unread);
    }
    for topic in [None, Some(topics[0].0), Some(topics[3].0)] {
        for from in [None, Some(ann), Some(bob), Some(f.user())] {
            for status in [None, Some(Seen), Some(Unread)] {
                for limit in [1, 7, 500] {
                    let query = InboxQuery { topic, from, status, limit, ..Fixture::query(bob) };
                    assert_eq!(pages(&f, query.clone()).await, model.list(&query), "{query:?}");
                }
            }
        }
    }
}

/// All lines, page by page.
async fn pages(f: &Fixture, mut query: InboxQuery) -> Vec<(NotificationId, SeenStatus)> {
    let mut lines = Vec::new();
    loop {
        let (page, complete) = f.store.inbox(&query).await.unwrap();
        assert!(page.len() <= query.limit as usize && (complete || page.len() == query.limit as usize));
        lines.extend(page.iter().map(|item| (item.notification.id, item.status)));
        if complete {
            let distinct: HashSet<_> = lines.iter().map(|(id, _)| *id).collect();
            assert_eq!(distinct.len(), lines.len());
            return lines;
        }
        query.after = Some(page.last().unwrap().notification.id);
    }
}

//! Subscriptions and joins.

use std::time::Duration;

use notifyx_model::{TopicId, UserId};

use super::{Fixture, MIGRATIONS, name, open};
use crate::{
    Error,
    store::{JoinBounds, Joining},
};

notifyx_database::conformance!(open, &MIGRATIONS;
    joining_creates_and_subscribes_once, one_bad_join_spares_the_others, a_subscription_begins_at_the_head,
    subscribing_is_bounded_and_idempotent, an_ended_subscription_leaves_nothing_behind, subscribers_are_listed_by_id,
    joins_of_the_same_new_topics_at_once_agree);

const BOUNDS: JoinBounds = JoinBounds { subscriptions_per_user: 3, topics_per_user: 2 };

fn joining(f: &Fixture, text: &str, user_id: UserId) -> Joining {
    Joining { topic: name(text), user_id, topic_id: TopicId::new(&f.clock) }
}

async fn joining_creates_and_subscribes_once(f: Fixture) {
    let (ann, bob) = (f.user(), f.user());
    let items = [joining(&f, "new", ann), joining(&f, "new", bob), joining(&f, "new", ann), joining(&f, "other", bob)];
    for _ in 0..2 {
        let topics: Vec<_> =
            f.store.join(&items, BOUNDS, f.clock.now()).await.unwrap().into_iter().map(Result::unwrap).collect();
        assert_eq!((topics[0].creator_id, topics[0].id), (ann, items[0].topic_id));
        assert!(topics[1] == topics[0] && topics[2] == topics[0]);
        assert_eq!((topics[3].creator_id, topics[3].name.clone()), (bob, name("other")));
        assert_eq!(f.rows("subscription").await, 3);
    }
    f.publish(items[0].topic_id, ann, &[]).await;
    let again = f.store.join(&items[1..2], BOUNDS, f.clock.now()).await.unwrap();
    assert_eq!(again[0].as_ref().unwrap().offset, 1);
    assert_eq!(f.unread(bob, items[0].topic_id).await, 1);
}

async fn one_bad_join_spares_the_others(f: Fixture) {
    let (ann, bob) = (f.user(), f.user());
    let items: Vec<_> = ["a", "b", "c"]
        .iter()
        .map(|text| joining(&f, text, ann))
        .chain([joining(&f, "c", bob), joining(&f, "c", ann)])
        .collect();
    let results = f.store.join(&items, BOUNDS, f.clock.now()).await.unwrap();
    assert!(results[0].is_ok() && results[1].is_ok());
    assert!(matches!(results[2], Err(Error::TooManyTopics(2))), "{:?}", results[2]);
    assert_eq!(results[3].as_ref().unwrap().creator_id, bob);
    assert!(results[4].is_ok());
    f.topic("d", bob).await;
    let results = f.store.join(&[joining(&f, "d", ann), joining(&f, "a", ann)], BOUNDS, f.clock.now()).await.unwrap();
    assert!(matches!(results[0], Err(Error::TooManySubscriptions(3))), "{:?}", results[0]);
    assert!(results[1].is_ok());
}

async fn a_subscription_begins_at_the_head(f: Fixture) {
    let ann = f.user();
    let topic = f.topic("a", ann).await;
    f.publish(topic, ann, &[]).await;
    let bob = f.subscriber(topic).await;
    assert_eq!(f.unread(bob, topic).await, 0);
    assert!(f.inbox(bob).await.is_empty());
    f.publish(topic, ann, &[]).await;
    assert_eq!(f.unread(bob, topic).await, 1);
    assert_eq!(f.inbox(bob).await[0].notification.offset, 2);
    // The log is there from the beginning.
    assert_eq!(f.store.log(topic, 0, 10, 1 << 20).await.unwrap().unwrap().notifications.len(), 2);
}

async fn subscribing_is_bounded_and_idempotent(f: Fixture) {
    let (ann, bob) = (f.user(), f.user());
    let (one, two) = (f.topic("a", ann).await, f.topic("b", ann).await);
    let first = f.store.subscribe(one, bob, f.clock.now(), 1).await.unwrap();
    f.hand.advance(Duration::from_secs(1));
    assert_eq!(f.store.subscribe(one, bob, f.clock.now(), 1).await.unwrap(), first);
    let refused = f.store.subscribe(two, bob, f.clock.now(), 1).await;
    assert!(matches!(refused, Err(Error::TooManySubscriptions(1))), "{refused:?}");
    let unknown = f.store.subscribe(TopicId::new(&f.clock), ann, f.clock.now(), 1).await;
    assert!(matches!(unknown, Err(Error::TopicNotFound(_))), "{unknown:?}");
}

async fn an_ended_subscription_leaves_nothing_behind(f: Fixture) {
    let ann = f.user();
    let topic = f.topic("a", ann).await;
    let bob = f.subscriber(topic).await;
    for _ in 0..3 {
        f.publish(topic, ann, &[]).await;
    }
    let private = f.publish(topic, ann, &[bob]).await;
    let last = f.inbox(bob).await[1].notification.id;
    f.store.mark_seen(bob, last, 10).await.unwrap();
    assert_eq!(f.rows("exception").await, 1);
    assert!(f.store.unsubscribe(topic, bob).await.unwrap());
    assert!(!f.store.unsubscribe(topic, bob).await.unwrap());
    assert_eq!(f.rows("exception").await, 0);
    assert!(f.inbox(bob).await.is_empty() && f.store.unread(bob).await.unwrap().is_empty());
    assert!(matches!(f.store.mark_seen(bob, last, 10).await, Err(Error::NotificationNotFound(_))));
    // Who it was for is still in the log: it did not become a broadcast.
    let log = f.store.log(topic, 3, 10, 1 << 20).await.unwrap().unwrap();
    assert_eq!((log.notifications[0].id, log.notifications[0].to.clone()), (private.notification_id, vec![bob]));
    f.subscribe(topic, bob).await;
    assert_eq!(f.unread(bob, topic).await, 0);
    assert!(f.inbox(bob).await.is_empty());
}

async fn subscribers_are_listed_by_id(f: Fixture) {
    let ann = f.user();
    let (topic, other) = (f.topic("a", ann).await, f.topic("b", ann).await);
    let mut users = Vec::new();
    for _ in 0..5 {
        users.push(f.subscriber(topic).await);
    }
    f.subscriber(other).await;
    users.sort();
    let listed =
        |page: Vec<notifyx_wire::rest::persist::Subscriber>| page.iter().map(|s| s.user_id).collect::<Vec<_>>();
    assert_eq!(listed(f.store.list_subscribers(topic, None, 2).await.unwrap()), users[..2]);
    assert_eq!(listed(f.store.list_subscribers(topic, Some(users[1]), 10).await.unwrap()), users[2..]);
    assert!(f.store.is_subscriber(topic, users[0]).await.unwrap());
    assert!(!f.store.is_subscriber(other, users[0]).await.unwrap());
}

async fn joins_of_the_same_new_topics_at_once_agree(f: Fixture) {
    let users: Vec<_> = (0..8).map(|_| f.user()).collect();
    let bounds = JoinBounds { subscriptions_per_user: 100, topics_per_user: 100 };
    let mut tasks = tokio::task::JoinSet::new();
    for (n, user) in users.into_iter().enumerate() {
        // Each in another order.
        let mut items: Vec<_> = (0..20).map(|i| joining(&f, &format!("t{}", (i * 7 + n * 3) % 20), user)).collect();
        items.rotate_left(n);
        let (store, now) = (f.store.clone(), f.clock.now());
        tasks.spawn(async move { store.join(&items, bounds, now).await.unwrap() });
    }
    for results in tasks.join_all().await {
        assert!(results.iter().all(Result::is_ok));
    }
    assert_eq!((f.rows("topic").await, f.rows("subscription").await), (20, 160));
}

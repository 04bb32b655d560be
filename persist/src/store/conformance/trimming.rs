//! Trimming by longevity.

use std::time::Duration;

use notifyx_model::{TopicId, UserId};
use notifyx_wire::rest::persist::SeenStatus::{Seen, Unread};

use super::{Fixture, MIGRATIONS, open};

notifyx_database::conformance!(open, &MIGRATIONS;
    what_has_expired_goes_in_small_steps, counts_and_pages_stay_right_after_trimming, what_has_no_longevity_stays,
    two_sweeps_at_once_do_no_harm);

const HOUR: Duration = Duration::from_secs(3600);

async fn hourly(f: &Fixture, creator: UserId) -> TopicId {
    let mut creation = f.creation("hourly", creator);
    creation.longevity = Some(HOUR.as_secs());
    f.store.create_topic(&creation, 10).await.unwrap().id
}

async fn what_has_expired_goes_in_small_steps(f: Fixture) {
    let ann = f.user();
    let topic = hourly(&f, ann).await;
    let bob = f.subscriber(topic).await;
    for to in [&[][..], &[bob], &[], &[]] {
        f.publish(topic, ann, to).await;
    }
    f.hand.advance(HOUR);
    let young = f.publish(topic, ann, &[]).await;
    assert!(f.store.list_expired_topics(f.clock.now(), None, 10).await.unwrap().is_empty());
    f.hand.advance(Duration::from_secs(1));
    let now = f.clock.now();
    assert_eq!(f.store.list_expired_topics(now, None, 10).await.unwrap(), [topic]);
    assert!(f.store.list_expired_topics(now, Some(topic), 10).await.unwrap().is_empty());
    assert_eq!(f.store.trim(topic, now, 3).await.unwrap(), 3);
    let log = f.store.log(topic, 0, 10, 1 << 20).await.unwrap().unwrap();
    assert_eq!((log.trimmed, log.offset, log.notifications[0].offset), (3, 5, 4));
    assert_eq!(f.store.trim(topic, now, 3).await.unwrap(), 1);
    assert_eq!(f.store.trim(topic, now, 3).await.unwrap(), 0);
    assert_eq!((f.rows("notification").await, f.rows("recipient").await), (1, 0));
    assert_eq!(f.lines(bob, None).await, [(young.offset, Unread)]);
    assert_eq!(f.publish(topic, ann, &[]).await.offset, 6);
}

async fn counts_and_pages_stay_right_after_trimming(f: Fixture) {
    let ann = f.user();
    let topic = hourly(&f, ann).await;
    let bob = f.subscriber(topic).await;
    let mut applied = Vec::new();
    for _ in 0..4 {
        applied.push(f.publish(topic, ann, &[]).await);
    }
    // Out of order: one that will be trimmed, one that will not.
    f.store.mark_seen(bob, applied[2].notification_id, 10).await.unwrap();
    f.hand.advance(HOUR + Duration::from_secs(1));
    for _ in 0..3 {
        applied.push(f.publish(topic, ann, &[]).await);
    }
    f.store.mark_seen(bob, applied[5].notification_id, 10).await.unwrap();
    f.store.trim(topic, f.clock.now(), 100).await.unwrap();
    assert_eq!(f.head(topic).await.trimmed, 4);
    assert_eq!(f.unread(bob, topic).await, 2);
    assert_eq!(f.lines(bob, None).await, [(7, Unread), (6, Seen), (5, Unread)]);
    assert_eq!(f.lines(bob, Some(Seen)).await, [(6, Seen)]);
    // The next above what was trimmed is the next in order.
    f.store.mark_seen(bob, applied[4].notification_id, 10).await.unwrap();
    assert_eq!((f.unread(bob, topic).await, f.rows("exception").await), (1, 0));
    assert_eq!(f.store.mark_seen_up_to(bob, topic, 2).await.unwrap().unread, 1);
    // A commit that is repeated is still done, only its place is forgotten.
    let gid = f.preparation(topic, ann, &[]);
    f.prepare(std::slice::from_ref(&gid)).await;
    f.commit(&[gid.gid]).await[0].as_ref().unwrap();
    f.hand.advance(HOUR + Duration::from_secs(1));
    f.store.trim(topic, f.clock.now(), 100).await.unwrap();
    let other = f.preparation(f.topic("other", ann).await, ann, &[]);
    f.prepare(std::slice::from_ref(&other)).await;
    let done = f.commit(&[gid.gid, other.gid]).await;
    assert!(matches!(done[..], [Ok(None), Ok(Some(_))]), "{done:?}");
    assert_eq!((f.unread(bob, topic).await, f.head(topic).await.offset), (0, 8));
}

async fn what_has_no_longevity_stays(f: Fixture) {
    let ann = f.user();
    let topic = f.topic("for ever", ann).await;
    f.publish(topic, ann, &[]).await;
    f.hand.advance(HOUR * 24 * 365);
    assert!(f.store.list_expired_topics(f.clock.now(), None, 10).await.unwrap().is_empty());
    assert_eq!(f.store.trim(topic, f.clock.now(), 10).await.unwrap(), 0);
}

async fn two_sweeps_at_once_do_no_harm(f: Fixture) {
    let ann = f.user();
    let topic = hourly(&f, ann).await;
    for _ in 0..50 {
        f.publish(topic, ann, &[]).await;
    }
    f.hand.advance(HOUR + Duration::from_secs(1));
    let now = f.clock.now();
    let sweep = || async {
        let mut trimmed = 0;
        // One that meets the other's lock leaves; the topic is still listed until all is gone.
        while !f.store.list_expired_topics(now, None, 10).await.unwrap().is_empty() {
            trimmed += f.store.trim(topic, now, 7).await.unwrap();
        }
        trimmed
    };
    let (one, two, _) = tokio::join!(sweep(), sweep(), f.publish(topic, ann, &[]));
    // What was published meanwhile was made by a clock that stood still at the sweep's time: it has not expired.
    assert_eq!((one + two, f.rows("notification").await, f.head(topic).await.trimmed), (50, 1, 50));
}

//! What workers get from a feed, whatever its hints do. The rules are the same for topics and categories, and so are the tests.

use std::marker::PhantomData;

use notifyx_model::{Category, Notification, TopicId, TopicName, UserId};
use notifyx_wire::grpc::events::Event;

use super::*;
use crate::{
    hub::{Metrics, StreamName, WorkerLine},
    testing::{Fake, FakeHint, category, feeds, topic},
};

/// A kind of stream, as tests handle it.
trait Kind: Source {
    fn name(name: &str) -> Self::Name;

    /// Makes the stream if the store is to know it before anything is in it.
    fn create(platform: &Fake) -> Self::Id;

    /// In the log of stream `t`, and nobody is told.
    fn commit(platform: &Fake, message: &str) -> Arc<Self::Item>;

    fn hint(platform: &Fake, item: Arc<Self::Item>);

    fn trim(platform: &Fake, up_to: u64);

    /// Puts the log back to what it was at this offset.
    fn put_back(platform: &Fake, head: usize);
}

impl Kind for Topics {
    fn name(name: &str) -> TopicName {
        topic(name)
    }

    fn create(platform: &Fake) -> TopicId {
        platform.create("t", UserId::new(&platform.clock))
    }

    fn commit(platform: &Fake, message: &str) -> Arc<Notification> {
        platform.commit("t", message, &[])
    }

    fn hint(platform: &Fake, notification: Arc<Notification>) {
        platform.bus.publish(notification);
    }

    fn trim(platform: &Fake, up_to: u64) {
        platform.trim("t", up_to);
    }

    fn put_back(platform: &Fake, head: usize) {
        platform.put_back("t", head);
    }
}

impl Kind for Categories {
    fn name(name: &str) -> Category {
        category(name)
    }

    fn create(_: &Fake) {}

    fn commit(platform: &Fake, message: &str) -> Arc<Event> {
        platform.append("t", &format!("\"{message}\""))
    }

    fn hint(platform: &Fake, event: Arc<Event>) {
        platform.watch.tell(FakeHint::Event(event));
    }

    fn trim(platform: &Fake, up_to: u64) {
        platform.trim_events("t", up_to);
    }

    fn put_back(platform: &Fake, head: usize) {
        platform.put_events_back("t", head);
    }
}

/// Each test for both kinds.
macro_rules! for_both {
    ($($test:ident),* $(,)?) => {
        mod of_topics {
            use super::Topics;
            $(
                #[tokio::test(start_paused = true)]
                async fn $test() {
                    super::$test::<Topics>().await;
                }
            )*
        }
        mod of_categories {
            use super::Categories;
            $(
                #[tokio::test(start_paused = true)]
                async fn $test() {
                    super::$test::<Categories>().await;
                }
            )*
        }
    };
}

for_both!(
    disorder_and_doubles_of_the_hints_do_not_show,
    a_gap_is_read_after_a_tenth_of_a_second,
    what_no_hint_tells_of_is_found_by_the_heads,
    what_comes_between_follow_and_start_is_kept,
    a_second_worker_is_told_where_delivery_stands,
    a_store_that_is_away_delays_and_loses_nothing,
    a_gap_that_opens_while_another_is_read_waits_no_longer_than_any,
    a_read_that_panics_is_tried_again,
    trimmed_history_does_not_hold_up_what_follows,
    a_log_that_was_put_back_is_begun_anew,
    a_stream_nobody_wants_is_forgotten,
    a_worker_that_is_gone_does_not_hold_up_the_others,
    what_is_in_line_together_crosses_together_within_bounds,
);

struct Setup<K: Kind> {
    platform: Arc<Fake>,
    hub: Hub,
    following: Following,
    id: K::Id,
    // Held, so that they run as long as the test.
    _feeds: Feeds,
    kind: PhantomData<K>,
}

impl<K: Kind> Setup<K> {
    fn new() -> Self {
        let platform = Fake::new();
        let hub = Hub::new(Metrics::new(&prometheus::Registry::new()));
        let (feeds, following) = feeds(&hub, &platform);
        let id = K::create(&platform);
        Self { platform, hub, following, id, _feeds: feeds, kind: PhantomData }
    }

    /// A worker that follows the stream from `head` on; and the first offset it is promised.
    async fn worker(&self, head: u64) -> (WorkerLine, u64) {
        let line = self.hub.attach();
        let wishes = K::wishes(&self.following);
        wishes.follow(&K::name("t"), line.id).await.unwrap();
        let first = wishes.start(&K::name("t"), self.id, head).await.unwrap();
        (line, first)
    }

    fn commit(&self, count: usize) -> Vec<Arc<K::Item>> {
        (0..count).map(|_| K::commit(&self.platform, "m")).collect()
    }

    fn announce(&self, message: &str) {
        K::hint(&self.platform, K::commit(&self.platform, message));
    }

    fn metrics(&self) -> &FeedMetrics {
        K::metrics(self.hub.metrics())
    }
}

async fn message(line: &mut WorkerLine) -> ToWorker {
    let mut taken = Vec::new();
    tokio::time::timeout(Duration::from_secs(60), line.take(&mut taken, 1)).await.expect("it comes in a minute");
    taken.remove(0)
}

async fn burst(line: &mut WorkerLine) -> (StreamName, Arc<[Dispatch]>) {
    let ToWorker::Dispatch { stream, burst } = message(line).await else { panic!("a burst comes") };
    (stream, burst)
}

async fn begins_anew<K: Kind>(line: &mut WorkerLine) {
    let message = message(line).await;
    assert!(matches!(&message, ToWorker::BeginAnew(stream) if *stream == K::stream(&K::name("t"))), "{message:?}");
}

async fn offsets(line: &mut WorkerLine, count: usize) -> Vec<u64> {
    let mut offsets = Vec::new();
    while offsets.len() < count {
        offsets.extend(burst(line).await.1.iter().map(Dispatch::offset));
    }
    offsets
}

async fn nothing_comes(line: &mut WorkerLine) {
    let mut taken = Vec::new();
    assert!(tokio::time::timeout(Duration::from_secs(3), line.take(&mut taken, 1)).await.is_err(), "{taken:?}");
}

async fn disorder_and_doubles_of_the_hints_do_not_show<K: Kind>() {
    let setup = Setup::<K>::new();
    let (mut line, first) = setup.worker(0).await;
    assert_eq!(first, 1);
    let committed = setup.commit(5);
    for at in [1, 0, 1, 4, 3, 0, 2] {
        K::hint(&setup.platform, committed[at].clone());
    }
    assert_eq!(offsets(&mut line, 5).await, [1, 2, 3, 4, 5]);
    nothing_comes(&mut line).await;
}

async fn a_gap_is_read_after_a_tenth_of_a_second<K: Kind>() {
    let setup = Setup::<K>::new();
    let (mut line, _) = setup.worker(0).await;
    let committed = setup.commit(4);
    K::hint(&setup.platform, committed[0].clone());
    K::hint(&setup.platform, committed[3].clone());
    assert_eq!(offsets(&mut line, 1).await, [1]);
    let before = Instant::now();
    assert_eq!(offsets(&mut line, 3).await, [2, 3, 4]);
    assert!((GAP_WAIT..GAP_WAIT * 2).contains(&before.elapsed()), "{:?}", before.elapsed());
    assert_eq!(setup.metrics().gaps_filled.get(), 3);
}

async fn what_no_hint_tells_of_is_found_by_the_heads<K: Kind>() {
    let setup = Setup::<K>::new();
    let (mut line, _) = setup.worker(0).await;
    // More than one read brings, and no pause between the two.
    let count = u64::from(K::READ_MAX) * 3 + 10;
    setup.commit(usize::try_from(count).unwrap());
    let before = Instant::now();
    let expected: Vec<u64> = (1..=count).collect();
    assert_eq!(offsets(&mut line, expected.len()).await, expected);
    assert!(before.elapsed() < HEADS_EVERY + GAP_WAIT * 2, "{:?}", before.elapsed());
}

async fn what_comes_between_follow_and_start_is_kept<K: Kind>() {
    let setup = Setup::<K>::new();
    let mut line = setup.hub.attach();
    let wishes = K::wishes(&setup.following);
    wishes.follow(&K::name("t"), line.id).await.unwrap();
    let committed = setup.commit(3);
    // The hint of 2 was there before the store answered that the stream stands at 1.
    K::hint(&setup.platform, committed[1].clone());
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(wishes.start(&K::name("t"), setup.id, 1).await.unwrap(), 2);
    assert_eq!(offsets(&mut line, 2).await, [2, 3]);
}

async fn a_second_worker_is_told_where_delivery_stands<K: Kind>() {
    let setup = Setup::<K>::new();
    let (mut one, _) = setup.worker(0).await;
    for item in setup.commit(2) {
        K::hint(&setup.platform, item);
    }
    assert_eq!(offsets(&mut one, 2).await, [1, 2]);
    let (mut two, first) = setup.worker(2).await;
    assert_eq!(first, 3);
    setup.announce("m");
    assert_eq!((offsets(&mut one, 1).await, offsets(&mut two, 1).await), (vec![3], vec![3]));
}

async fn a_store_that_is_away_delays_and_loses_nothing<K: Kind>() {
    let setup = Setup::<K>::new();
    let (mut line, _) = setup.worker(0).await;
    setup.platform.set_broken(true);
    K::hint(&setup.platform, setup.commit(2).remove(1));
    nothing_comes(&mut line).await;
    assert!(setup.metrics().failures.get() > 0);
    setup.platform.set_broken(false);
    assert_eq!(offsets(&mut line, 2).await, [1, 2]);
}

async fn a_gap_that_opens_while_another_is_read_waits_no_longer_than_any<K: Kind>() {
    let setup = Setup::<K>::new();
    let (mut line, _) = setup.worker(0).await;
    let committed = setup.commit(2);
    setup.platform.logs.close();
    K::hint(&setup.platform, committed[1].clone());
    setup.platform.logs.has_waiting(1).await;
    // What is being read comes by itself, and then something is lacking that the read does not find yet.
    K::hint(&setup.platform, committed[0].clone());
    assert_eq!(offsets(&mut line, 2).await, [1, 2]);
    K::hint(&setup.platform, setup.commit(2).remove(1));
    K::put_back(&setup.platform, 2);
    let before = Instant::now();
    setup.platform.logs.open();
    tokio::time::sleep(Duration::from_millis(1)).await;
    setup.commit(2);
    assert_eq!(offsets(&mut line, 2).await, [3, 4]);
    assert!(before.elapsed() < GAP_WAIT * 2, "{:?}", before.elapsed());
}

async fn a_read_that_panics_is_tried_again<K: Kind>() {
    let setup = Setup::<K>::new();
    let (mut line, _) = setup.worker(0).await;
    setup.platform.break_next_read();
    K::hint(&setup.platform, setup.commit(2).remove(1));
    assert_eq!(offsets(&mut line, 2).await, [1, 2]);
    assert_eq!(setup.metrics().failures.get(), 1);
}

async fn trimmed_history_does_not_hold_up_what_follows<K: Kind>() {
    let setup = Setup::<K>::new();
    let (mut line, _) = setup.worker(0).await;
    setup.commit(4);
    K::trim(&setup.platform, 3);
    assert_eq!(offsets(&mut line, 1).await, [4]);
}

async fn a_log_that_was_put_back_is_begun_anew<K: Kind>() {
    let setup = Setup::<K>::new();
    let ((mut one, _), (mut two, _)) = (setup.worker(0).await, setup.worker(0).await);
    for item in setup.commit(5) {
        K::hint(&setup.platform, item);
    }
    // What is lacking is asked for, and not answered before all has changed.
    setup.platform.logs.close();
    K::hint(&setup.platform, setup.commit(2).remove(1));
    for line in [&mut one, &mut two] {
        assert_eq!(offsets(line, 5).await, [1, 2, 3, 4, 5]);
    }
    setup.platform.logs.has_waiting(1).await;
    K::put_back(&setup.platform, 2);
    for line in [&mut one, &mut two] {
        begins_anew::<K>(line).await;
    }
    assert_eq!(setup.metrics().begun_anew.get(), 1);
    setup.announce("m");
    nothing_comes(&mut one).await;
    // Somebody asked the store. What was announced already is kept, what was read before is not.
    assert_eq!(K::wishes(&setup.following).start(&K::name("t"), setup.id, 2).await.unwrap(), 3);
    setup.platform.logs.open();
    setup.announce("m");
    for line in [&mut one, &mut two] {
        assert_eq!(offsets(line, 2).await, [3, 4]);
        nothing_comes(line).await;
    }
}

async fn a_stream_nobody_wants_is_forgotten<K: Kind>() {
    let setup = Setup::<K>::new();
    let (mut line, _) = setup.worker(0).await;
    let wishes = K::wishes(&setup.following);
    assert!(wishes.try_unfollow(&K::name("t"), line.id));
    // Wishes are granted in order: once this one is refused, the stream is let go of.
    assert!(wishes.start(&K::name("t"), setup.id, 0).await.is_err());
    setup.announce("m");
    nothing_comes(&mut line).await;
    assert_eq!(setup.metrics().followed.get(), 0);
    // Followed anew, it begins where the store stands.
    wishes.follow(&K::name("t"), line.id).await.unwrap();
    assert_eq!(wishes.start(&K::name("t"), setup.id, 1).await.unwrap(), 2);
}

async fn a_worker_that_is_gone_does_not_hold_up_the_others<K: Kind>() {
    let setup = Setup::<K>::new();
    let (gone, _) = setup.worker(0).await;
    let (mut line, _) = setup.worker(0).await;
    drop(gone);
    setup.announce("m");
    assert_eq!(offsets(&mut line, 1).await, [1]);
}

async fn what_is_in_line_together_crosses_together_within_bounds<K: Kind>() {
    let setup = Setup::<K>::new();
    let (mut line, _) = setup.worker(0).await;
    for item in setup.commit(BURST_MAX + 1) {
        K::hint(&setup.platform, item);
    }
    let large = "m".repeat(BURST_BYTES_MAX / 2);
    (0..3).for_each(|_| setup.announce(&large));
    let mut sizes = Vec::new();
    while sizes.iter().sum::<usize>() < BURST_MAX + 4 {
        let (stream, burst) = burst(&mut line).await;
        assert_eq!(stream, K::stream(&K::name("t")));
        sizes.push(burst.len());
    }
    assert_eq!(sizes, [BURST_MAX, 3, 1]);
}

// Of topics alone.

#[tokio::test(start_paused = true)]
async fn a_topic_that_the_store_forgot_is_begun_anew() {
    let setup = Setup::<Topics>::new();
    let (mut line, _) = setup.worker(0).await;
    setup.announce("m");
    assert_eq!(offsets(&mut line, 1).await, [1]);
    setup.platform.lose_topic("t");
    begins_anew::<Topics>(&mut line).await;
}

// Of categories alone.

#[tokio::test(start_paused = true)]
async fn a_feed_that_panics_begins_again_and_so_do_its_streams() {
    let setup = Setup::<Categories>::new();
    let (mut line, _) = setup.worker(0).await;
    setup.announce("m");
    assert_eq!(offsets(&mut line, 1).await, [1]);
    setup.platform.watch.tell(FakeHint::Bug);
    begins_anew::<Categories>(&mut line).await;
    assert_eq!(setup.following.categories.start(&category("t"), (), 1).await.unwrap(), 2);
    setup.announce("m");
    assert_eq!(offsets(&mut line, 1).await, [2]);
}

#[tokio::test(start_paused = true)]
async fn what_the_watch_knows_to_be_missing_is_read_at_once() {
    let setup = Setup::<Categories>::new();
    let (mut line, _) = setup.worker(0).await;
    setup.commit(2);
    let before = Instant::now();
    setup.platform.watch.tell(FakeHint::Head(category("t"), 2));
    assert_eq!(offsets(&mut line, 2).await, [1, 2]);
    assert!(before.elapsed() < GAP_WAIT, "{:?}", before.elapsed());
}

#[tokio::test(start_paused = true)]
async fn the_watch_follows_a_category_while_any_worker_wants_it() {
    let setup = Setup::<Categories>::new();
    let followed = || setup.platform.watch.followed();
    let (one, _) = setup.worker(0).await;
    let (two, _) = setup.worker(0).await;
    assert_eq!(followed(), [category("t")]);
    let wishes = &setup.following.categories;
    assert!(wishes.try_unfollow(&category("t"), one.id));
    // Granted in order: when this one is answered, that one was granted.
    wishes.start(&category("t"), (), 0).await.unwrap();
    assert_eq!(followed(), [category("t")]);
    assert!(wishes.try_unfollow(&category("t"), two.id));
    assert!(wishes.start(&category("t"), (), 0).await.is_err());
    assert_eq!(followed(), []);
}

#[tokio::test(start_paused = true)]
async fn a_topic_and_a_category_of_one_name_do_not_mix() {
    let setup = Setup::<Topics>::new();
    let mut line = setup.hub.attach();
    setup.following.topics.follow(&topic("t"), line.id).await.unwrap();
    setup.following.topics.start(&topic("t"), setup.id, 0).await.unwrap();
    setup.following.categories.follow(&category("t"), line.id).await.unwrap();
    setup.following.categories.start(&category("t"), (), 0).await.unwrap();
    setup.platform.fire("t", "1");
    let (stream, burst_of_events) = burst(&mut line).await;
    assert_eq!((stream, burst_of_events.len()), (StreamName::Category(category("t")), 1));
    setup.announce("m");
    let (stream, burst_of_topic) = burst(&mut line).await;
    assert_eq!((stream, burst_of_topic.len()), (StreamName::Topic(topic("t")), 1));
    nothing_comes(&mut line).await;
}

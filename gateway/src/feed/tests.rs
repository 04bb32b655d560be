//! What workers get from the feed, whatever the bus does.

use std::sync::Arc;

use notifyx_model::UserId;

use super::*;
use crate::{
    hub::{Following, WorkerLine},
    testing::{Fake, topic},
};

struct Setup {
    platform: Arc<Fake>,
    hub: Hub,
    following: Following,
    topic_id: TopicId,
}

impl Setup {
    fn new() -> Self {
        let platform = Fake::new();
        let hub = Hub::new(Metrics::new(&prometheus::Registry::new()));
        let (following, wishes) = Following::new();
        let bus = platform.bus.subscribe();
        tokio::spawn(run(hub.clone(), platform.clone(), wishes, bus, CancellationToken::new()));
        let topic_id = platform.create("t", UserId::new(&platform.clock));
        Self { platform, hub, following, topic_id }
    }

    /// A worker that follows the topic from `head` on; and the first offset it is promised.
    async fn worker(&self, head: u64) -> (WorkerLine, u64) {
        let line = self.hub.attach();
        self.following.follow(&topic("t"), line.id).await.unwrap();
        let first = self.following.start(&topic("t"), self.topic_id, head).await.unwrap();
        (line, first)
    }

    fn commit(&self, count: usize) -> Vec<Arc<Notification>> {
        (0..count).map(|_| self.platform.commit("t", "m", &[])).collect()
    }
}

async fn offsets(line: &mut WorkerLine, count: usize) -> Vec<u64> {
    let mut taken = Vec::new();
    let mut offsets = Vec::new();
    while offsets.len() < count {
        tokio::time::timeout(Duration::from_secs(60), line.take(&mut taken, 1)).await.expect("it comes in a minute");
        let Some(ToWorker::Dispatch(burst)) = taken.pop() else { panic!("a burst comes") };
        offsets.extend(burst.iter().map(|dispatch| dispatch.notification.offset));
    }
    offsets
}

async fn nothing_comes(line: &mut WorkerLine) {
    let mut taken = Vec::new();
    assert!(tokio::time::timeout(Duration::from_secs(3), line.take(&mut taken, 1)).await.is_err(), "{taken:?}");
}

#[tokio::test(start_paused = true)]
async fn disorder_and_doubles_of_the_bus_do_not_show() {
    let setup = Setup::new();
    let (mut line, first) = setup.worker(0).await;
    assert_eq!(first, 1);
    let committed = setup.commit(5);
    for at in [1, 0, 1, 4, 3, 0, 2] {
        setup.platform.bus.publish(committed[at].clone());
    }
    assert_eq!(offsets(&mut line, 5).await, [1, 2, 3, 4, 5]);
    nothing_comes(&mut line).await;
}

#[tokio::test(start_paused = true)]
async fn a_gap_is_read_after_a_tenth_of_a_second() {
    let setup = Setup::new();
    let (mut line, _) = setup.worker(0).await;
    let committed = setup.commit(4);
    setup.platform.bus.publish(committed[0].clone());
    setup.platform.bus.publish(committed[3].clone());
    assert_eq!(offsets(&mut line, 1).await, [1]);
    let before = Instant::now();
    assert_eq!(offsets(&mut line, 3).await, [2, 3, 4]);
    assert!((GAP_WAIT..GAP_WAIT * 2).contains(&before.elapsed()), "{:?}", before.elapsed());
    assert_eq!(setup.hub.metrics().gaps_filled.get(), 3);
}

#[tokio::test(start_paused = true)]
async fn what_no_hint_tells_of_is_found_by_the_heads() {
    let setup = Setup::new();
    let (mut line, _) = setup.worker(0).await;
    // More than one read brings.
    setup.commit(READ_MAX as usize + 10);
    let before = Instant::now();
    let expected: Vec<u64> = (1..=u64::from(READ_MAX) + 10).collect();
    assert_eq!(offsets(&mut line, expected.len()).await, expected);
    assert!(before.elapsed() <= HEADS_EVERY + GAP_WAIT * 2, "{:?}", before.elapsed());
}

#[tokio::test(start_paused = true)]
async fn what_comes_between_follow_and_start_is_kept() {
    let setup = Setup::new();
    let mut line = setup.hub.attach();
    setup.following.follow(&topic("t"), line.id).await.unwrap();
    let committed = setup.commit(3);
    // The hint of 2 was there before persist answered that the topic stands at 1.
    setup.platform.bus.publish(committed[1].clone());
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(setup.following.start(&topic("t"), setup.topic_id, 1).await.unwrap(), 2);
    assert_eq!(offsets(&mut line, 2).await, [2, 3]);
}

#[tokio::test(start_paused = true)]
async fn a_second_worker_is_told_where_delivery_stands() {
    let setup = Setup::new();
    let (mut one, _) = setup.worker(0).await;
    for notification in setup.commit(2) {
        setup.platform.bus.publish(notification);
    }
    assert_eq!(offsets(&mut one, 2).await, [1, 2]);
    let (mut two, first) = setup.worker(2).await;
    assert_eq!(first, 3);
    setup.platform.announce("t", "m");
    assert_eq!((offsets(&mut one, 1).await, offsets(&mut two, 1).await), (vec![3], vec![3]));
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_delays_and_loses_nothing() {
    let setup = Setup::new();
    let (mut line, _) = setup.worker(0).await;
    setup.platform.set_broken(true);
    setup.platform.bus.publish(setup.commit(2).remove(1));
    nothing_comes(&mut line).await;
    assert!(setup.hub.metrics().feed_failures.get() > 0);
    setup.platform.set_broken(false);
    assert_eq!(offsets(&mut line, 2).await, [1, 2]);
}

#[tokio::test(start_paused = true)]
async fn trimmed_history_does_not_hold_up_what_follows() {
    let setup = Setup::new();
    let (mut line, _) = setup.worker(0).await;
    setup.commit(4);
    setup.platform.trim("t", 3);
    assert_eq!(offsets(&mut line, 1).await, [4]);
}

#[tokio::test(start_paused = true)]
async fn a_topic_nobody_wants_is_forgotten() {
    let setup = Setup::new();
    let (mut line, _) = setup.worker(0).await;
    setup.following.unfollow(&topic("t"), line.id);
    // Wishes are granted in order: once this one is refused, the topic is let go of.
    assert!(setup.following.start(&topic("t"), setup.topic_id, 0).await.is_err());
    setup.platform.announce("t", "m");
    nothing_comes(&mut line).await;
    assert_eq!(setup.hub.metrics().followed_topics.get(), 0);
    // Followed anew, it begins where the store stands.
    setup.following.follow(&topic("t"), line.id).await.unwrap();
    assert_eq!(setup.following.start(&topic("t"), setup.topic_id, 1).await.unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_is_gone_does_not_hold_up_the_others() {
    let setup = Setup::new();
    let (gone, _) = setup.worker(0).await;
    let (mut line, _) = setup.worker(0).await;
    drop(gone);
    setup.platform.announce("t", "m");
    assert_eq!(offsets(&mut line, 1).await, [1]);
}

#[tokio::test(start_paused = true)]
async fn what_is_in_line_together_crosses_together_within_bounds() {
    let setup = Setup::new();
    let (mut line, _) = setup.worker(0).await;
    for notification in setup.commit(BURST_MAX + 1) {
        setup.platform.bus.publish(notification);
    }
    let large = "m".repeat(BURST_BYTES_MAX / 2);
    (0..3).for_each(|_| setup.platform.announce("t", &large));
    let mut sizes = Vec::new();
    let mut taken = Vec::new();
    while sizes.iter().sum::<usize>() < BURST_MAX + 4 {
        line.take(&mut taken, 1).await;
        let Some(ToWorker::Dispatch(burst)) = taken.pop() else { panic!("a burst comes") };
        sizes.push(burst.len());
    }
    assert_eq!(sizes, [BURST_MAX, 3, 1]);
}

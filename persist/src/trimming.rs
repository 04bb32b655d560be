//! The sweep: trims what has outlived its topic's longevity, rolls back what people prepared and left, watches what the
//! coordinator left prepared, forgets transactions that nobody will ask for any more.
//!
//! In small transactions, so that it is never in the way; several instances may sweep at once.

use std::{sync::Arc, time::Duration};

use notifyx_chassis::reply;
use notifyx_model::{Clock, TopicId};
use tokio_util::sync::CancellationToken;

use crate::{
    Config, Error,
    metrics::Metrics,
    patience::again,
    store::{Transactions, Trimming},
};

/// Topics per look, and transactions forgotten at once.
const PAGE: u32 = 1_000;

pub(crate) struct Sweeper {
    transactions: Arc<dyn Transactions>,
    trimming: Arc<dyn Trimming>,
    clock: Clock,
    metrics: Metrics,
    interval: Duration,
    by_hand: Duration,
    alarm: Duration,
    keep: Duration,
    /// Notifications per transaction.
    trim_rows: u32,
}

impl Sweeper {
    pub(crate) fn new(
        transactions: Arc<dyn Transactions>,
        trimming: Arc<dyn Trimming>,
        clock: Clock,
        metrics: Metrics,
        config: &Config,
    ) -> Self {
        Self {
            transactions,
            trimming,
            clock,
            metrics,
            interval: Duration::from_millis(config.sweep_ms.get()),
            by_hand: config.by_hand(),
            alarm: Duration::from_secs(config.alarm_s.get()),
            keep: config.keep_days.span(),
            trim_rows: config.trim_rows.get(),
        }
    }

    /// Sweeps at each interval until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut ticks = tokio::time::interval(self.interval);
        // A sweep that took long is not followed by a burst of them.
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => {}
            }
            if let Err(error) = self.sweep(&stop).await {
                self.metrics.transactions.sweep_failed();
                tracing::warn!(error = %reply::chain(&error), "the sweep failed and will be tried again: {error}");
            }
        }
    }

    pub(crate) async fn sweep(&self, stop: &CancellationToken) -> Result<(), Error> {
        let now = self.clock.now();
        let expired = again(&self.metrics, || self.transactions.expire(now - self.by_hand)).await?;
        self.metrics.transactions.expired(expired);
        let overdue = self.transactions.overdue(now - self.alarm).await?;
        self.metrics.transactions.overdue(overdue, self.alarm);
        again(&self.metrics, || self.transactions.forget(now - self.keep, PAGE)).await?;
        self.trim(stop).await
    }

    async fn trim(&self, stop: &CancellationToken) -> Result<(), Error> {
        let now = self.clock.now();
        let mut after: Option<TopicId> = None;
        loop {
            let topics = self.trimming.list_expired_topics(now, after, PAGE).await?;
            for topic in &topics {
                loop {
                    if stop.is_cancelled() {
                        return Ok(());
                    }
                    let trimmed = again(&self.metrics, || self.trimming.trim(*topic, now, self.trim_rows)).await?;
                    self.metrics.trimmed(trimmed);
                    if trimmed < u64::from(self.trim_rows) {
                        break;
                    }
                }
            }
            match topics.last() {
                Some(last) if topics.len() == PAGE as usize => after = Some(*last),
                _ => return Ok(()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use notifyx_commit::{
        RequestHash,
        participant::{Asker, BY_HAND, Judge, Origin},
    };
    use notifyx_database::testing;
    use notifyx_model::{Gid, ManualClock, Message, NotificationId, Priority, TopicName, UserId};

    use super::*;
    use crate::store::{self, Creation, MIGRATIONS, Preparation};

    #[tokio::test]
    async fn one_sweep_trims_all_that_has_expired_and_rolls_back_what_was_left() {
        let kept = testing::sqlite(&MIGRATIONS).await;
        let (store, hand) = (store::open(&kept.database), ManualClock::new());
        let (clock, metrics) = (hand.clock(), Metrics::new(&prometheus::Registry::new()));
        let ann = UserId::new(&clock);
        let creation = Creation {
            id: TopicId::new(&clock),
            name: TopicName::parse("hourly").unwrap(),
            creator_id: ann,
            longevity: Some(3600),
            at: clock.now(),
        };
        store.create_topic(&creation, 1).await.unwrap();
        let item = || Preparation {
            gid: Gid::new(&clock),
            refusal: None,
            request: RequestHash([0; 32]),
            notification_id: NotificationId::new(&clock),
            topic_id: creation.id,
            from_user_id: ann,
            from: "ann@example.org".parse().unwrap(),
            message: Message::parse("old").unwrap(),
            priority: Priority::default(),
            to_users: None,
        };
        for _ in 0..25 {
            store.publish(&item(), clock.now()).await.unwrap();
        }
        hand.advance(Duration::from_secs(3601));
        store.publish(&item(), clock.now()).await.unwrap();
        let left = [item()];
        store.prepare(&left, Origin::Client, clock.now()).await.unwrap();
        hand.advance(BY_HAND);

        // Two rows at a time, and more than once.
        let config = Config { trim_rows: NonZeroU32::new(2).unwrap(), ..Config::default() };
        let sweeper = Sweeper::new(store.clone(), store.clone(), clock.clone(), metrics, &config);
        for _ in 0..2 {
            sweeper.sweep(&CancellationToken::new()).await.unwrap();
        }
        let topic = store.find_topic(creation.id).await.unwrap().unwrap();
        assert_eq!((topic.trimmed, topic.offset), (25, 26));
        let gids = [left[0].gid];
        let late = store.commit(&gids, Asker::User(ann), Judge::at(clock.now()), clock.now()).await.unwrap();
        assert!(late[0].is_err());

        let stopped = CancellationToken::new();
        stopped.cancel();
        sweeper.run(stopped).await;
    }
}

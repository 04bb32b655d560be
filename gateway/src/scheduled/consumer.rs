//! The consumer: publishes what has fired, on one gateway at a time.
//!
//! While this gateway has the consumer's lease, three things go on side by side: the lease is kept and the position committed, hints of
//! new events are listened to, and what is in the queue is published. Losing the lease ends them and does no harm: each publish has its key, so
//! that it happens once whoever repeats it, and an outcome that is known is never decided anew.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::FutureExt;
use notifyx_chassis::reply;
use notifyx_mesh::CallError;
use notifyx_model::{Clock, EventId, Fault, Kind};
use notifyx_wire::{grpc::events as wire, rest::gateway::ScheduledState, trace::TraceContext};
use tokio::{
    sync::{Notify, watch},
    task::{JoinError, JoinHandle, JoinSet},
    time::{Instant, interval, interval_at, sleep, sleep_until, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, info, warn};

use super::{
    metrics::Metrics,
    order::{Order, outcome_id},
    pace::pause,
    queue::{Queue, Task},
};
use crate::{Error, publish::Accepted};

/// What the events service knows it by.
pub(super) const NAME: &str = "gateway.scheduled-notifications";

/// When the gateway that publishes is lost, another does after this. It is renewed three times as often.
pub(super) const LEASE: Duration = Duration::from_secs(3);
const RENEWAL: Duration = Duration::from_secs(1);

/// How often the log is looked at without a hint.
const LOOK: Duration = Duration::from_secs(1);

/// One try: longer than the coordinator takes to decide, and to write down what became of it.
const TRY_MAX: Duration = Duration::from_secs(20);

/// What is under way when the gateway stops is waited for so long: a publish decides within 5 s.
const DRAIN: Duration = Duration::from_secs(6);

/// The log of what fired, and the durable place in it.
#[async_trait]
pub(super) trait Log: Send + Sync + 'static {
    async fn acquire(&self, holder: &str) -> Result<wire::Consumer, CallError>;
    async fn commit(&self, epoch: u64, position: u64) -> Result<(), CallError>;
    async fn release(&self, epoch: u64) -> Result<(), CallError>;
    async fn read(&self, after: u64, limit: usize) -> Result<wire::ReadReply, CallError>;

    /// What became of one, under the outcome's id; `None`: nothing yet.
    async fn outcome(&self, id: &EventId) -> Result<Option<ScheduledState>, Error>;

    /// Writes down what became of one. The first word counts.
    async fn conclude(&self, id: &EventId, key: Option<String>, outcome: &ScheduledState) -> Result<(), CallError>;

    /// Rings the bell when there is something new, until it is over.
    async fn listen(&self, bell: Arc<Notify>, over: CancellationToken);
}

/// Where notifications are published.
#[async_trait]
pub(super) trait Press: Send + Sync + 'static {
    async fn publish(&self, id: &EventId, order: &Order) -> Result<Accepted, Error>;
}

pub(crate) struct Consumer {
    log: Arc<dyn Log>,
    press: Arc<dyn Press>,
    /// Names this gateway in the lease.
    holder: String,
    clock: Clock,
    metrics: Metrics,
}

/// One that runs.
pub(crate) struct Running {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    /// Ends when what is under way is done, in bounded time.
    pub(crate) async fn stop(self) {
        self.stop.cancel();
        // It catches what breaks it off.
        let _ = self.task.await;
    }

    /// As SIGKILL does.
    #[cfg(test)]
    pub(super) async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

impl Consumer {
    pub(super) fn new(
        log: Arc<dyn Log>,
        press: Arc<dyn Press>,
        holder: String,
        clock: Clock,
        metrics: Metrics,
    ) -> Self {
        Self { log, press, holder, clock, metrics }
    }

    /// On the current runtime, until `stop`.
    pub(crate) fn start(self, stop: CancellationToken) -> Running {
        let ended = stop.clone();
        let task = tokio::spawn(async move {
            // There may be no other gateway: one that broke off begins again.
            while AssertUnwindSafe(self.run(&ended)).catch_unwind().await.is_err() {
                error!("the consumer of scheduled notifications broke off, and begins again where it stood");
                let _ = ended.run_until_cancelled(sleep(LEASE)).await;
            }
        });
        Running { stop, task }
    }

    /// Consumes whenever it has the lease, until `stop`.
    async fn run(&self, stop: &CancellationToken) {
        let mut failures = 0;
        while !stop.is_cancelled() {
            let asked = Instant::now();
            let wait = match self.log.acquire(&self.holder).await {
                Ok(consumer) if consumer.holder == self.holder => {
                    info!(
                        epoch = consumer.epoch,
                        position = consumer.position,
                        "this gateway publishes what was scheduled"
                    );
                    self.hold(&consumer, asked, stop).await;
                    failures = 0;
                    pause(0, rand::random())
                }
                Ok(consumer) => left(&consumer).clamp(pause(0, 0.0), RENEWAL),
                Err(error) => {
                    failures += 1;
                    // Once, and not the first time: at the start the registry may not know the events service yet.
                    if failures == 2 {
                        warn!(error = %reply::chain(&error), "what was scheduled waits until the events service is there: {error}");
                    }
                    pause(failures, rand::random())
                }
            };
            let _ = stop.run_until_cancelled(sleep(wait)).await;
        }
    }

    async fn hold(&self, consumer: &wire::Consumer, asked: Instant, stop: &CancellationToken) {
        let (over, lost) = (stop.child_token(), CancellationToken::new());
        let (bell, position) = (Arc::new(Notify::new()), watch::Sender::new(consumer.position));
        self.metrics.holds(true);
        let work = async {
            self.work(consumer, &bell, &position, &over, &lost).await;
            over.cancel();
        };
        let keep = self.keep(consumer, asked, position.subscribe(), &over, &lost);
        tokio::join!(work, keep, self.log.listen(bell.clone(), over.clone()));
        self.metrics.holds(false);
        if !lost.is_cancelled() {
            let position = *position.borrow();
            let given = async {
                self.log.commit(consumer.epoch, position).await?;
                self.log.release(consumer.epoch).await
            };
            if let Err(error) = given.await {
                warn!(error = %reply::chain(&error), "the lease on what was scheduled ends by itself: {error}");
            }
        }
    }

    /// Keeps the lease, and commits the position as it moves, until it is over or lost.
    async fn keep(
        &self,
        consumer: &wire::Consumer,
        asked: Instant,
        mut position: watch::Receiver<u64>,
        over: &CancellationToken,
        lost: &CancellationToken,
    ) {
        let (mut until, mut written) = (asked + left(consumer), consumer.position);
        let mut renewals = interval_at(Instant::now() + RENEWAL, RENEWAL);
        let give_up = |why: &dyn std::fmt::Display| {
            warn!("this gateway no longer publishes what was scheduled: {why}");
            lost.cancel();
            over.cancel();
        };
        loop {
            tokio::select! {
                () = over.cancelled() => return,
                _ = renewals.tick() => {
                    let asked = Instant::now();
                    // No answer before the lease ends is no lease.
                    match timeout_at(until, self.log.acquire(&self.holder)).await {
                        Ok(Ok(now)) if now.holder == self.holder && now.epoch == consumer.epoch => until = asked + left(&now),
                        Ok(Ok(now)) => return give_up(&format_args!("{} does", now.holder)),
                        Ok(Err(error)) if Instant::now() < until => warn!("the lease on what was scheduled is not renewed yet: {error}"),
                        Ok(Err(error)) => return give_up(&error),
                        Err(late) => return give_up(&late),
                    }
                }
                moved = position.changed() => if moved.is_err() {
                    return;
                }
            }
            // Also where it could not be written when it moved.
            let now = *position.borrow_and_update();
            if now > written {
                match self.log.commit(consumer.epoch, now).await {
                    Ok(()) => written = now,
                    Err(error) if error.kind() == Kind::Conflict => return give_up(&error),
                    Err(error) => warn!("the position in what was scheduled is not written yet: {error}"),
                }
            }
        }
    }

    /// Reads the log and publishes what is in it.
    async fn work(
        &self,
        consumer: &wire::Consumer,
        bell: &Notify,
        position: &watch::Sender<u64>,
        over: &CancellationToken,
        lost: &CancellationToken,
    ) {
        let mut queue = Queue::new(consumer.position, consumer.head);
        let mut trying: JoinSet<Tried> = JoinSet::new();
        let (mut reads, mut looks) = (JoinSet::new(), interval(LOOK));
        // Whether to look at once, and whether to look no sooner than the next time.
        let (mut head, mut look, mut rest) = (consumer.head, true, false);
        while !over.is_cancelled() {
            while let Some(task) = queue.next(Instant::now()) {
                trying.spawn(attempt(self.log.clone(), self.press.clone(), task));
            }
            if !rest
                && reads.is_empty()
                && let Some((after, limit)) = queue.wants()
                && (look || after < head)
            {
                look = false;
                let log = self.log.clone();
                reads.spawn(async move { log.read(after, limit).await });
            }
            self.show(&queue, head, position);
            let wake = queue.wakes(Instant::now());
            tokio::select! {
                () = over.cancelled() => {}
                Some(ended) = trying.join_next() => self.settle(&mut queue, ended),
                Some(page) = reads.join_next() => match page {
                    Ok(Ok(page)) => {
                        head = page.head;
                        take(&mut queue, page);
                    }
                    Ok(Err(error)) => {
                        rest = true;
                        warn!(error = %reply::chain(&error), "what was scheduled cannot be read yet: {error}");
                    }
                    Err(broken) => {
                        rest = true;
                        error!(error = %broken, "a read of what was scheduled broke off");
                    }
                },
                () = bell.notified() => look = true,
                _ = looks.tick() => (look, rest) = (true, false),
                () = until(wake), if wake.is_some() => {}
            }
        }
        if lost.is_cancelled() {
            // Whoever has it now does it again, and finds it done.
            return trying.shutdown().await;
        }
        let drained = timeout(DRAIN, async {
            while let Some(ended) = trying.join_next().await {
                self.settle(&mut queue, ended);
            }
        });
        if drained.await.is_err() {
            warn!("scheduled notifications are still being published: the next one to have them looks at them again");
        }
        self.show(&queue, head, position);
    }

    fn settle(&self, queue: &mut Queue, tried: Result<Tried, JoinError>) {
        let Tried { task, ended } = match tried {
            Ok(tried) => tried,
            // Not reached: a try catches what breaks it off.
            Err(broken) => return error!(error = %broken, "a try to publish what was scheduled broke off"),
        };
        let id = task.id.as_ref().map_or("?", EventId::as_str);
        match ended {
            Ok(outcome) => {
                if let ScheduledState::Refused { code, .. } = &outcome {
                    warn!(scheduled = id, code, "scheduled notification {id} was refused at its time: {code}");
                }
                self.metrics.ended(&outcome);
                queue.done(task.offset);
            }
            Err(Failed { outcome, why }) => {
                self.metrics.retried();
                warn!(scheduled = id, error = %reply::chain(&why), "scheduled notification {id} is tried again: {why}");
                queue.failed(task.offset, outcome, Instant::now(), rand::random());
            }
        }
    }

    fn show(&self, queue: &Queue, head: u64, position: &watch::Sender<u64>) {
        let now = queue.position();
        position.send_if_modified(|position| std::mem::replace(position, now) != now);
        let age = queue.oldest().map_or(Duration::ZERO, |oldest| self.clock.now().since(oldest));
        self.metrics.waits(queue.waiting(head), age);
    }
}

fn take(queue: &mut Queue, page: wire::ReadReply) {
    if let Some((after, _)) = queue.wants()
        && page.oldest > after + 1
    {
        error!(
            after,
            oldest = page.oldest,
            "scheduled notifications below offset {} are gone from the log",
            page.oldest
        );
    }
    queue.add(page.events, page.oldest);
}

/// Until its lease ends.
fn left(consumer: &wire::Consumer) -> Duration {
    Duration::from_micros(u64::try_from(consumer.left_us).unwrap_or(0))
}

async fn until(wake: Option<Instant>) {
    if let Some(wake) = wake {
        sleep_until(wake).await;
    }
}

/// How a try ended.
struct Tried {
    task: Task,
    ended: Result<ScheduledState, Failed>,
}

struct Failed {
    /// It has ended, but that is not written down yet.
    outcome: Option<ScheduledState>,
    why: Error,
}

fn broken_off(reason: &str) -> Failed {
    Failed { outcome: None, why: Error::NotBegun { reason: reason.to_owned() } }
}

/// From the queue to the outcome that is written down.
async fn attempt(log: Arc<dyn Log>, press: Arc<dyn Press>, task: Task) -> Tried {
    let trying = AssertUnwindSafe(TraceContext::begin().scope(finish(&*log, &*press, &task))).catch_unwind();
    let ended = match timeout(TRY_MAX, trying).await {
        Ok(Ok(ended)) => ended,
        Ok(Err(_)) => Err(broken_off("the try panicked")),
        Err(_) => Err(broken_off("the try took too long")),
    };
    Tried { task, ended }
}

async fn finish(log: &dyn Log, press: &dyn Press, task: &Task) -> Result<ScheduledState, Failed> {
    let unknown = |why| Failed { outcome: None, why };
    let outcome_id = outcome_id(task.offset);
    if task.inherited
        && task.outcome.is_none()
        && let Some(outcome) = log.outcome(&outcome_id).await.map_err(unknown)?
    {
        return Ok(outcome);
    }
    let outcome = match (&task.outcome, &task.order, &task.id) {
        (Some(outcome), ..) => outcome.clone(),
        (None, Some(order), Some(id)) => publish(press, id, order).await.map_err(unknown)?,
        (None, ..) => unreadable(),
    };
    let key = task.order.as_ref().map(|order| order.user_id.to_string());
    match log.conclude(&outcome_id, key, &outcome).await {
        Ok(()) => Ok(outcome),
        Err(why) => Err(Failed { outcome: Some(outcome), why: why.into() }),
    }
}

/// Its end, or why it has to be tried again.
async fn publish(press: &dyn Press, id: &EventId, order: &Order) -> Result<ScheduledState, Error> {
    match press.publish(id, order).await {
        Ok(Accepted { id: notification_id, gid, offset, decided: true }) => {
            Ok(ScheduledState::Published { notification_id, gid, offset })
        }
        Ok(Accepted { gid, .. }) => Err(Error::NotDecided(gid)),
        Err(error) if is_final(&error) => {
            let problem = reply::problem(&error);
            Ok(ScheduledState::Refused { code: problem.code, reason: problem.detail })
        }
        Err(error) => Err(error),
    }
}

/// Trying again cannot help: the publish itself was looked at, and refused. Where a call ends otherwise it is the cluster that is not in order, also
/// where it sounds like a refusal: a peer of another version knows no such route.
const fn is_final(error: &Error) -> bool {
    matches!(
        error,
        Error::Declined(_)
            | Error::TopicNotFound(_)
            | Error::NotCreator(_)
            | Error::TooManyRecipients { .. }
            | Error::UnknownRecipient(_)
            | Error::BadKey
            | Error::KeyReused
    )
}

fn unreadable() -> ScheduledState {
    ScheduledState::Refused {
        code: "unreadable".to_owned(),
        reason: "what is stored is no scheduled notification".to_owned(),
    }
}

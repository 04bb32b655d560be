//! The coordinator: takes publishes, groups them, and answers each with its own outcome.
//!
//! `group` runs the steps for one group, `settle` applies decisions and retries, `recovery` finishes what a gateway left behind.
//! A publish is answered only after its decision is durable, and COMMIT is sent only after that answer of the store.

mod group;
mod metrics;
mod operators;
mod recovery;
mod settle;
#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc, time::Duration};

use notifyx_batch::{Batcher, Options, Rejected};
use notifyx_model::{Clock, Gid, InstanceId, UserId};
use notifyx_wire::{
    rest::{
        Problem,
        commit::{Applied, Publish, TransactionStatus},
    },
    trace::TraceContext,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Acked, Config, CoordinatorStore, Participant, Party, Record, RequestHash, StoreError, coordinator::metrics::Metrics,
};

/// One publish to commit.
#[derive(Clone, Debug)]
pub struct Transaction {
    /// Absent: the coordinator chooses one.
    pub gid: Option<Gid>,
    pub user_id: UserId,
    /// Makes the publish safe to repeat; 1 to 255 bytes without control characters.
    pub idem_key: Option<String>,
    /// SHA-256 of route and body as the user sent them ([`RequestHash::of`]): tells a repetition from another request.
    pub req_hash: [u8; 32],
    pub publish: Publish,
}

/// How a publish ended, as far as it is known when the publisher is answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// Decided. `applied` is there if both participants applied it in time (201), otherwise it follows (202).
    Committed { gid: Gid, applied: Option<Applied> },
    /// A participant's business "no": final. The problem's status says which (409, 403, 404, 422).
    Refused { gid: Gid, problem: Problem },
    /// A participant or the store could not be reached in time (503): not published; the key is free again.
    Aborted { gid: Gid, reason: String },
    /// BEGIN failed (503): this call publishes nothing. Whether the key holds an earlier transaction, and how that ended, is
    /// not known: the same request again will tell.
    NotBegun { gid: Gid, reason: String },
    /// The same request under the same key was taken before; this is where it stands.
    Known { status: TransactionStatus, applied: Option<Applied> },
    /// The key was used for another request (422).
    Mismatch { gid: Gid },
    /// Whether it was decided is not known yet (202): ask for the gid's status.
    Unknown { gid: Gid },
    /// Nothing was begun: the queue is full or the coordinator stops (503, retry).
    Busy(Rejected),
}

/// Told of what was committed, by a normal commit or by recovery, as soon as persist has applied it. A hint: it may be told
/// twice, or (after a crash) not at all; the topic's log is the truth. Must not block.
pub trait AppliedSink: Send + Sync + 'static {
    /// `publish` is there unless recovery applied it: then the topic's log has it at `applied.offset`.
    fn applied(&self, applied: &Applied, publish: Option<&Publish>);
}

/// What the coordinator works with.
pub struct Ports {
    pub store: Arc<dyn CoordinatorStore>,
    pub persist: Arc<dyn Participant>,
    pub counter: Arc<dyn Participant>,
    pub sink: Arc<dyn AppliedSink>,
}

impl fmt::Debug for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Ports")
    }
}

/// Cheap to clone. Call [`Coordinator::close`] before the runtime ends.
#[derive(Clone)]
pub struct Coordinator {
    inner: Arc<Inner>,
    groups: Batcher<Pending, Outcome>,
    clock: Clock,
}

impl fmt::Debug for Coordinator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Coordinator").field("owner", &self.inner.owner).finish_non_exhaustive()
    }
}

/// A transaction in the queue: its gid is chosen.
#[derive(Clone, Debug)]
struct Pending {
    gid: Gid,
    transaction: Arc<Transaction>,
    /// Of the request that asked for it.
    trace: Option<TraceContext>,
}

struct Inner {
    config: Config,
    owner: InstanceId,
    ports: Ports,
    metrics: Metrics,
    /// One item = what one step acknowledged: written in groups, off the answer path.
    acks: Batcher<Vec<Acked>, ()>,
    retries: settle::Retries,
    /// Owns every task that outlives the answer.
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// How long [`Coordinator::close`] waits for commits and rollbacks under way; recovery does the rest.
const CLOSE_MAX: Duration = Duration::from_secs(5);

impl Coordinator {
    /// Starts on the current runtime: the groups, the retries, and recovery at once and then each second. `owner` names this
    /// process in leases.
    pub fn start(
        config: Config,
        ports: Ports,
        clock: Clock,
        owner: InstanceId,
        registry: &prometheus::Registry,
    ) -> Self {
        let metrics = Metrics::new(registry);
        let (retries, due) = settle::Retries::new();
        let acks = acknowledger(&config, ports.store.clone(), metrics.clone());
        let groups_options = Options {
            name: "publishes",
            items_max: config.group_items,
            bytes_max: config.group_bytes,
            queue_max: config.queue_items,
            in_flight: config.groups_in_flight,
        };
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let inner = Arc::new(Inner { config, owner, ports, metrics, acks, retries, tasks, stop });
        inner.tasks.spawn(settle::retry(inner.clone(), due));
        inner.tasks.spawn(recovery::run(inner.clone()));
        let grouped = inner.clone();
        let groups = Batcher::start(groups_options, weigh, move |batch| {
            let inner = grouped.clone();
            let trace = trace_of(&batch);
            trace.scope(async move { inner.group(batch).await })
        });
        Self { inner, groups, clock }
    }

    /// Commits a publish, in a group with those of other callers. Dropping the future does not take it back.
    pub async fn publish(&self, transaction: Transaction) -> Outcome {
        let gid = transaction.gid.unwrap_or_else(|| Gid::new(&self.clock));
        let outcome = match transaction.idem_key.as_deref().map_or(Ok(()), check_key) {
            Err(problem) => Outcome::Refused { gid, problem },
            Ok(()) => match self
                .groups
                .submit(Pending { gid, transaction: Arc::new(transaction), trace: TraceContext::current() })
                .await
            {
                Ok(outcome) => outcome,
                // The group broke off: recovery ends what it had begun.
                Err(Rejected::Lost(_)) => Outcome::Unknown { gid },
                Err(rejected @ (Rejected::Full(_) | Rejected::Stopped(_))) => Outcome::Busy(rejected),
            },
        };
        self.inner.metrics.outcome(&outcome);
        outcome
    }

    /// Where a transaction stands. Acks that wait to be written are waited for, so that whoever was told `applied` by this
    /// gateway finds it applied.
    pub async fn find(&self, gid: Gid) -> Result<Option<Record>, StoreError> {
        let patience = Duration::from_millis(self.inner.config.answer_within_ms);
        // Nothing, behind all that waits. Where that is full, slow or stopped, the row says what it says.
        let _ = tokio::time::timeout(patience, self.inner.acks.submit(Vec::new())).await;
        self.inner.stored(self.inner.ports.store.find(gid)).await
    }

    /// Publishes that wait for a group, for a gauge.
    pub fn queued(&self) -> usize {
        self.groups.queued()
    }

    /// Takes nothing more, finishes what is under way, in bounded time.
    pub async fn close(&self) {
        self.groups.close().await;
        self.inner.stop.cancel();
        self.inner.tasks.close();
        if tokio::time::timeout(CLOSE_MAX, self.inner.tasks.wait()).await.is_err() {
            tracing::warn!("commits or rollbacks are still under way: recovery will finish them");
        }
        self.inner.acks.close().await;
        // Nothing is decided here any more: what is open need not wait until its lease runs out.
        if let Err(error) = self.inner.stored(self.inner.ports.store.release(self.inner.owner)).await {
            tracing::warn!(error = %chain(&error), "leases were not given up: they run out");
        }
    }
}

impl Inner {
    fn participant(&self, party: Party) -> &dyn Participant {
        match party {
            Party::Persist => &*self.ports.persist,
            Party::Counter => &*self.ports.counter,
        }
    }

    /// A call of the store within its deadline.
    async fn stored<T>(&self, call: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let within = Duration::from_millis(self.config.store_timeout_ms);
        tokio::time::timeout(within, call).await.unwrap_or_else(|late| Err(StoreError::new(late)))
    }
}

/// Acks that wait to be written; beyond it the transactions are left to recovery.
const ACKS_QUEUE_MAX: usize = 1_024;

fn acknowledger(config: &Config, store: Arc<dyn CoordinatorStore>, metrics: Metrics) -> Batcher<Vec<Acked>, ()> {
    let options = Options {
        name: "acknowledgements",
        // Each item is a group's worth.
        items_max: 16,
        bytes_max: 4_096,
        queue_max: ACKS_QUEUE_MAX,
        in_flight: 1,
    };
    let within = Duration::from_millis(config.store_timeout_ms);
    Batcher::start(options, Vec::len, move |groups: Vec<Vec<Acked>>| {
        let (store, metrics) = (store.clone(), metrics.clone());
        async move {
            let answers = vec![(); groups.len()];
            let acks = settle::merged(groups.into_iter().flatten());
            if acks.is_empty() {
                return answers;
            }
            let _timer = metrics.step("acknowledge");
            match tokio::time::timeout(within, store.acknowledge(&acks)).await {
                Ok(Ok(())) => {}
                // The lease runs out, recovery sends the decision again, and the acks come back.
                Ok(Err(error)) => tracing::warn!(error = %chain(&error), "acknowledgements were not kept"),
                Err(_) => tracing::warn!("acknowledgements were not kept in time"),
            }
            answers
        }
    })
}

/// A lone publish is followed through the participants under its own request's id. A group of several is a request of its
/// own there; the log says which requests it carries, and the participants name the gids.
fn trace_of(group: &[Pending]) -> TraceContext {
    if let [Pending { trace: Some(trace), .. }] = group {
        return trace.child();
    }
    let trace = TraceContext::begin();
    let group_id = trace.request_id();
    for Pending { gid, trace, .. } in group {
        let request_id = trace.map(TraceContext::request_id);
        tracing::debug!(%gid, request_id, group_id, "publish {gid} goes with a group");
    }
    trace
}

/// What one publish adds to a call, at most: JSON escapes a control character to six bytes and a quote to two.
fn weigh(pending: &Pending) -> usize {
    let publish = &pending.transaction.publish;
    let escaped = |byte: u8| match byte {
        0..0x20 => 6,
        b'"' | b'\\' => 2,
        _ => 1,
    };
    let message: usize = publish.message.as_str().bytes().map(escaped).sum();
    // A UUID in quotes and a comma; field names, ids and the address.
    message + publish.to_users.len() * 39 + 512 + publish.from.as_str().len()
}

fn check_key(key: &str) -> Result<(), Problem> {
    let fits = (1..=255).contains(&key.len()) && !key.chars().any(char::is_control);
    if fits {
        return Ok(());
    }
    Err(Problem {
        success: false,
        status: 400,
        title: "Bad Request".into(),
        code: "idempotency_key_invalid".into(),
        detail: "an idempotency key has 1 to 255 bytes and no control characters".into(),
        request_id: None,
    })
}

/// An error with its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

/// The hash as the store takes it.
impl Transaction {
    fn request(&self) -> RequestHash {
        RequestHash(self.req_hash)
    }
}

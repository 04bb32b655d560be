//! A world: two gateways' coordinators, persist and counter-2pc on three databases, in one thread and in time that stands
//! still while somebody works. Everything is the product's own code but the wire between them.
//!
//! A process that crashes loses all that is not in its database: none of its calls leaves or returns any more.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use async_trait::async_trait;
use notifyx_commit::{
    AppliedSink, Config, Coordinator, Party, Ports,
    testing::{Injected, Points},
};
use notifyx_counter_2pc::testing as counter;
use notifyx_model::{Clock, Gid, InstanceId, ManualClock};
use notifyx_persist::testing as persist;
use notifyx_wire::rest::commit::{Applied, Publish};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::{
    databases::{Databases, Owner},
    desk::Desk,
    link::Link,
    points::{Case, Fault, Point, Process, Strike, after, before},
    time::{Standstill, Still},
};

const DAY_S: u64 = 24 * 3_600;
/// A crashed participant is back before tries of phase 2 pause so long that the pause is written down (1 s).
const PARTICIPANT_AWAY: Duration = Duration::from_millis(700);
/// A crashed gateway is back after its leases ran out: the other one takes over.
const GATEWAY_AWAY: Duration = Duration::from_secs(15);
/// Pauses double up to 30 s: this is long enough for several that are written down.
const OUTAGE: Duration = Duration::from_secs(25);
/// How long a patient gateway waits for its store: longer than anything is late.
pub(crate) const PATIENCE_MS: u64 = 30_000;

pub(crate) struct World {
    pub(crate) databases: Arc<Databases>,
    pub(crate) case: Case,
    pub(crate) began: Instant,
    began_really: std::time::Instant,
    hand: ManualClock,
    /// How far `hand` was moved.
    shown: Mutex<Duration>,
    /// Days that only the clocks noticed.
    days: AtomicU64,
    /// How far the coordinator's rows were moved, where the database's clock cannot be.
    moved: Mutex<i64>,
    /// Taken while they are moved and until what follows is done.
    pub(crate) turn: tokio::sync::Mutex<()>,
    pub(crate) still: Standstill,
    script: Mutex<Script>,
    lives: Mutex<BTreeMap<Process, Life>>,
    /// What live gateways told their sockets of.
    told: Mutex<BTreeSet<Gid>>,
    violations: Mutex<Vec<String>>,
    /// Delayed messages, writes and answers that are still to come.
    coming: AtomicUsize,
    /// When the last fault struck, or the last process came back, or the last delayed thing arrived.
    disturbed: Mutex<Instant>,
}

#[derive(Default)]
struct Script {
    left: VecDeque<Strike>,
    struck: usize,
    passed: BTreeSet<Point>,
    /// Passed after the last strike, until all was well again.
    since: BTreeSet<Point>,
    well_again: bool,
    /// The last strike had nobody to hit: what it was meant for went the other way round this time.
    missed: bool,
}

impl Script {
    /// The next strike, if it is such a one.
    fn take(&mut self, strikes: impl Fn(Strike) -> bool) -> Option<Strike> {
        let strike = self.left.front().copied().filter(|strike| strikes(*strike))?;
        self.left.pop_front();
        self.struck += 1;
        Some(strike)
    }
}

/// One instance of a process.
#[derive(Clone)]
pub(crate) struct Life {
    pub(crate) dead: CancellationToken,
    pub(crate) running: Running,
}

#[derive(Clone)]
pub(crate) enum Running {
    Gateway(Coordinator),
    Persist(Arc<persist::Node>),
    Counter(Arc<counter::Node>),
}

/// What a point does to whoever passes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Blow {
    None,
    Error,
    Delay(Duration),
    Lost,
}

impl World {
    pub(crate) fn new(databases: Arc<Databases>, case: Case) -> Arc<Self> {
        let world = Arc::new(Self {
            databases,
            case,
            began: Instant::now(),
            began_really: std::time::Instant::now(),
            hand: ManualClock::new(),
            shown: Mutex::default(),
            days: AtomicU64::new(0),
            moved: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            still: Standstill::default(),
            script: Mutex::default(),
            lives: Mutex::default(),
            told: Mutex::default(),
            violations: Mutex::default(),
            coming: AtomicUsize::new(0),
            disturbed: Mutex::new(Instant::now()),
        });
        for process in Process::ALL {
            world.start(process);
        }
        world
    }

    /// The coordinator's clock, moved to where tokio's stands.
    pub(crate) fn clock(&self) -> Clock {
        let mut shown = self.shown.lock().unwrap();
        let now = self.began.elapsed();
        self.hand.advance(now.saturating_sub(*shown));
        *shown = now.max(*shown);
        self.hand.clock()
    }

    /// Days pass, and nobody notices but the clock.
    pub(crate) fn pass_days(&self, days: u64) {
        self.hand.advance(Duration::from_secs(days * DAY_S));
        self.days.fetch_add(days, SeqCst);
    }

    /// By how many microseconds this world went ahead of the machine's clock (or fell behind it) since this was last asked.
    pub(crate) fn gone_ahead(&self) -> i64 {
        let micros = |span: Duration| i64::try_from(span.as_micros()).unwrap();
        let here = self.began.elapsed() + Duration::from_secs(self.days.load(SeqCst) * DAY_S);
        let ahead = micros(here) - micros(self.began_really.elapsed());
        ahead - std::mem::replace(&mut *self.moved.lock().unwrap(), ahead)
    }

    /// Whether something delayed is still to come.
    pub(crate) fn awaits(&self) -> bool {
        self.coming.load(SeqCst) > 0
    }

    /// From now on the faults may strike, one after the other.
    pub(crate) fn arm(&self) {
        let strikes = self.case.prelude.iter().chain(&self.case.strikes).copied();
        self.script.lock().unwrap().left = strikes.collect();
    }

    /// Notes that somebody passes a point. A crash that is due there has happened when this returns.
    pub(crate) fn pass(self: &Arc<Self>, point: Point) -> Blow {
        self.clock();
        let fault = {
            let mut script = self.script.lock().unwrap();
            script.passed.insert(point);
            if script.left.is_empty() && script.struck > 0 && !script.well_again {
                script.since.insert(point);
            }
            // What persist forgets is told by the coordinator's store, which knows whose commit it is.
            let strikes = |strike: Strike| strike.point == point && strike.fault != Fault::Forgotten;
            let Some(strike) = script.take(strikes) else { return Blow::None };
            strike.fault
        };
        self.disturb();
        match fault {
            Fault::Crash(process @ (Process::Driver | Process::Replica)) => self.crash(process, GATEWAY_AWAY),
            Fault::Crash(process) => self.crash(process, PARTICIPANT_AWAY),
            Fault::Outage(process) => self.crash(process, OUTAGE),
            Fault::Error => return Blow::Error,
            Fault::Lost => return Blow::Lost,
            Fault::Late | Fault::TooLate | Fault::Slow => return Blow::Delay(fault.delay().expect("a delay")),
            Fault::Forgotten => unreachable!("left above"),
        }
        Blow::None
    }

    /// Whether the next strike is this one; it is taken off the list then.
    pub(crate) fn due(&self, strike: Strike) -> bool {
        self.script.lock().unwrap().take(|next| next == strike).is_some()
    }

    /// What is passed from now on belongs to no recovery.
    pub(crate) fn is_well_again(&self) {
        self.script.lock().unwrap().well_again = true;
    }

    pub(crate) fn all_struck(&self) -> bool {
        let script = self.script.lock().unwrap();
        let due = self.case.prelude.len() + self.case.strikes.len();
        script.left.is_empty() && script.struck + usize::from(script.missed) == due
    }

    /// Gives the second strike of a pair up. Two participants are asked at once, and which of them answers first is theirs: a
    /// point that came after the first strike may come before it the next time.
    pub(crate) fn give_up(&self) {
        let mut script = self.script.lock().unwrap();
        if self.case.strikes.len() == 2 && script.left.len() == 1 {
            script.left.clear();
            script.missed = true;
        }
    }

    pub(crate) fn missed(&self) -> bool {
        self.script.lock().unwrap().missed
    }

    pub(crate) fn not_struck(&self) -> Vec<Strike> {
        self.script.lock().unwrap().left.iter().copied().collect()
    }

    pub(crate) fn passed(&self) -> (BTreeSet<Point>, BTreeSet<Point>) {
        let script = self.script.lock().unwrap();
        (script.passed.clone(), script.since.clone())
    }

    pub(crate) fn life(&self, process: Process) -> Option<Life> {
        self.lives.lock().unwrap().get(&process).cloned()
    }

    pub(crate) fn gateway(&self, process: Process) -> Option<(Coordinator, CancellationToken)> {
        match self.life(process)? {
            Life { dead, running: Running::Gateway(coordinator) } => Some((coordinator, dead)),
            _ => None,
        }
    }

    pub(crate) fn persist(&self) -> Option<(Arc<persist::Node>, CancellationToken)> {
        match self.life(Process::Persist)? {
            Life { dead, running: Running::Persist(node) } => Some((node, dead)),
            _ => None,
        }
    }

    pub(crate) fn counter(&self) -> Option<(Arc<counter::Node>, CancellationToken)> {
        match self.life(Process::Counter)? {
            Life { dead, running: Running::Counter(node) } => Some((node, dead)),
            _ => None,
        }
    }

    pub(crate) fn all_up(&self) -> bool {
        self.lives.lock().unwrap().len() == Process::ALL.len()
    }

    /// An orderly stop of a gateway; it is back later.
    pub(crate) async fn stop(self: &Arc<Self>, process: Process) {
        let Some((coordinator, dead)) = self.gateway(process) else { return };
        tokio::select! {
            () = coordinator.close() => self.crash(process, GATEWAY_AWAY),
            () = dead.cancelled() => {}
        }
    }

    fn crash(self: &Arc<Self>, process: Process, away: Duration) {
        let Some(life) = self.lives.lock().unwrap().remove(&process) else { return };
        life.dead.cancel();
        if let Running::Gateway(coordinator) = life.running {
            // Nothing of it reaches anybody any more; this only ends its tasks.
            tokio::spawn(async move { coordinator.close().await });
        }
        let world = self.clone();
        tokio::spawn(async move {
            sleep(away).await;
            world.start(process);
            world.disturb();
        });
    }

    fn start(self: &Arc<Self>, process: Process) {
        let (clock, dead) = (self.clock(), CancellationToken::new());
        let points = |dead: &CancellationToken| Arc::new(Site { world: self.clone(), dead: dead.clone() });
        let running = match process {
            Process::Driver | Process::Replica => {
                let store = notifyx_gateway::transactions::open(self.databases.get(Owner::Coordinator), clock.clone());
                let desk = Arc::new(Desk { world: self.clone(), dead: dead.clone(), store });
                let link = |to| Arc::new(Link { world: self.clone(), dead: dead.clone(), to });
                let ports = Ports {
                    store: desk,
                    persist: link(Party::Persist),
                    counter: link(Party::Counter),
                    sink: Arc::new(Sockets { world: self.clone(), dead: dead.clone() }),
                };
                let mut config = Config::default();
                if self.case.patient {
                    config.store_timeout_ms = PATIENCE_MS;
                }
                config.check().expect("a valid configuration");
                let owner = InstanceId::new(&clock);
                let coordinator = Coordinator::start(config, ports, clock, owner, &prometheus::Registry::new());
                Running::Gateway(coordinator)
            }
            Process::Persist => {
                let database = self.databases.get(Owner::Persist);
                Running::Persist(Arc::new(persist::Node::open(database, clock, points(&dead))))
            }
            Process::Counter => {
                let database = self.databases.get(Owner::Counter);
                Running::Counter(Arc::new(counter::Node::open(database, clock, points(&dead))))
            }
        };
        self.lives.lock().unwrap().insert(process, Life { dead, running });
    }

    /// Ends every process. The world holds them and they hold the world.
    pub(crate) fn end(&self) {
        let lives = std::mem::take(&mut *self.lives.lock().unwrap());
        for life in lives.values() {
            life.dead.cancel();
        }
    }

    pub(crate) fn disturb(&self) {
        *self.disturbed.lock().unwrap() = Instant::now();
    }

    pub(crate) fn undisturbed_for(&self) -> Duration {
        self.disturbed.lock().unwrap().elapsed()
    }

    /// Something comes later, whoever waits for it.
    pub(crate) async fn later(self: &Arc<Self>, span: Duration) {
        let coming = Coming::new(self);
        sleep(span).await;
        drop(coming);
    }

    /// A write goes to a database, between its points.
    pub(crate) fn writing(&self, point: &'static str) -> Writing {
        self.clock();
        let tally = self.databases.tally(Owner::of(point)).clone();
        tally.under_way.fetch_add(1, SeqCst);
        tally.begun.fetch_add(1, SeqCst);
        Writing { tally, _still: self.still.hold() }
    }

    /// It committed something.
    pub(crate) fn wrote(&self, point: &'static str) {
        self.databases.tally(Owner::of(point)).done.fetch_add(1, SeqCst);
    }

    pub(crate) fn violated(&self, what: impl Into<String>) {
        let at = self.began.elapsed();
        self.violations.lock().unwrap().push(format!("at {:.1} s: {}", at.as_secs_f64(), what.into()));
    }

    pub(crate) fn take_violations(&self) -> Vec<String> {
        std::mem::take(&mut self.violations.lock().unwrap())
    }

    pub(crate) fn was_told(&self, gid: Gid) -> bool {
        self.told.lock().unwrap().contains(&gid)
    }
}

/// A write in a database: its commits are expected, and time stands still.
pub(crate) struct Writing {
    tally: Arc<crate::databases::Tally>,
    _still: Still,
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.tally.under_way.fetch_sub(1, SeqCst);
    }
}

/// Something that is on its way.
struct Coming {
    world: Arc<World>,
}

impl Coming {
    fn new(world: &Arc<World>) -> Self {
        world.coming.fetch_add(1, SeqCst);
        Self { world: world.clone() }
    }
}

impl Drop for Coming {
    fn drop(&mut self) {
        self.world.coming.fetch_sub(1, SeqCst);
        self.world.disturb();
    }
}

/// Nothing returns to a process that is dead.
pub(crate) async fn alive(dead: &CancellationToken) {
    if dead.is_cancelled() {
        std::future::pending::<()>().await;
    }
}

/// What a process does, unless it dies over it. The task is not dropped then: what its database is doing is done, and whatever
/// comes after that waits for ever (`alive`).
pub(crate) async fn until<T: Send + 'static>(
    dead: &CancellationToken,
    work: impl Future<Output = T> + Send + 'static,
) -> Option<T> {
    let working = tokio::spawn(work);
    tokio::select! {
        biased;
        () = dead.cancelled() => None,
        done = working => Some(done.expect("nothing here panics")),
    }
}

/// A gateway's sockets: told of what was applied.
struct Sockets {
    world: Arc<World>,
    dead: CancellationToken,
}

impl AppliedSink for Sockets {
    fn applied(&self, applied: &Applied, _: Option<&Publish>) {
        if !self.dead.is_cancelled() {
            // A notification is named after its transaction.
            self.world.told.lock().unwrap().insert(Gid::from_uuid(applied.notification_id.uuid()));
        }
    }
}

/// The points of a participant's instance.
struct Site {
    world: Arc<World>,
    dead: CancellationToken,
}

impl Site {
    async fn pass(&self, point: Point) -> Result<(), Injected> {
        alive(&self.dead).await;
        match self.world.pass(point) {
            Blow::None => {}
            Blow::Error => return Err(Injected),
            Blow::Delay(span) => self.world.later(span).await,
            Blow::Lost => std::future::pending().await,
        }
        alive(&self.dead).await;
        Ok(())
    }
}

#[async_trait]
impl Points for Site {
    async fn before(&self, point: &'static str) -> Result<(), Injected> {
        self.pass(before(point)).await
    }

    async fn after(&self, point: &'static str, wrote: bool) -> Result<(), Injected> {
        if wrote {
            self.world.wrote(point);
        }
        self.pass(after(point)).await
    }

    fn working(&self, point: Option<&'static str>) -> Box<dyn Send> {
        match point {
            Some(point) => Box::new(self.world.writing(point)),
            None => Box::new(self.world.still.hold()),
        }
    }
}

//! The fault points, what can strike at them, and what a case is.
//!
//! A point lies before or after a durable write or a send. The participants name their writes themselves; a write that is
//! not named here, or a name that no case passes, fails the test.

use std::{fmt, time::Duration};

/// The durable writes of `CoordinatorStore`.
pub(crate) const COORDINATOR: [&str; 9] = [
    "coordinator.begin",
    "coordinator.decide",
    "coordinator.acknowledge",
    "coordinator.defer",
    "coordinator.claim",
    "coordinator.release",
    "coordinator.retry",
    "coordinator.resolve",
    "coordinator.trim",
];

/// The sends of `Participant`: all that the coordinator ever sends.
pub(crate) const SENDS: [&str; 6] = [
    "send.persist.prepare",
    "send.persist.commit",
    "send.persist.rollback",
    "send.counter.prepare",
    "send.counter.commit",
    "send.counter.rollback",
];

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Side {
    Before,
    After,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Point {
    pub(crate) name: &'static str,
    pub(crate) side: Side,
}

pub(crate) const fn before(name: &'static str) -> Point {
    Point { name, side: Side::Before }
}

pub(crate) const fn after(name: &'static str) -> Point {
    Point { name, side: Side::After }
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let side = match self.side {
            Side::Before => "before",
            Side::After => "after",
        };
        write!(f, "{}.{side}", self.name)
    }
}

/// Every name of a durable write or a send.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    use notifyx_counter_2pc::testing::WRITES as COUNTER;
    use notifyx_persist::testing::WRITES as PERSIST;
    COORDINATOR.into_iter().chain(SENDS).chain(PERSIST).chain(COUNTER)
}

pub(crate) fn all() -> impl Iterator<Item = Point> {
    names().flat_map(|name| [before(name), after(name)])
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Process {
    /// The gateway that clients publish through first.
    Driver,
    /// Another gateway on the same database.
    Replica,
    Persist,
    Counter,
}

impl Process {
    pub(crate) const ALL: [Self; 4] = [Self::Driver, Self::Replica, Self::Persist, Self::Counter];
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Fault {
    /// As SIGKILL of this process, whose point it is or not: none of its calls leaves or returns any more, what its database
    /// was doing is rolled back, and another instance starts on the same database a moment later.
    Crash(Process),
    /// The same, and it stays away until the pauses between tries are written down.
    Outage(Process),
    /// Before: the call fails without effect. After: it took effect, and its caller is told that it failed.
    Error,
    /// Before: it takes effect past the deadline, though within the lease. After: only its answer comes so late.
    Late,
    /// The same, when a recovery has long decided.
    TooLate,
    /// Before: the call is lost. After: it took effect, and its answer is lost.
    Lost,
    /// It takes its time and is in time: nothing may fail.
    Slow,
    /// Persist's database loses what was just decided, until an operator brings it back. Not crossed: it is what quarantine
    /// is for.
    Forgotten,
}

impl Fault {
    /// What each point is crossed with.
    pub(crate) const ALL: [Self; 9] = [
        Self::Crash(Process::Driver),
        Self::Crash(Process::Replica),
        Self::Crash(Process::Persist),
        Self::Crash(Process::Counter),
        Self::Error,
        Self::Late,
        Self::TooLate,
        Self::Lost,
        Self::Slow,
    ];

    /// Behind the deadline of 5 s, before the lease of 10 s ends.
    const LATE: Duration = Duration::from_secs(7);
    /// Behind the lease, and behind what the recovery after it does.
    const TOO_LATE: Duration = Duration::from_secs(20);
    /// Below the timeout of a prepare (1 s), and long enough for a round of recovery to come in between.
    const SLOW: Duration = Duration::from_millis(900);

    pub(crate) fn delay(self) -> Option<Duration> {
        match self {
            Self::Late => Some(Self::LATE),
            Self::TooLate => Some(Self::TOO_LATE),
            Self::Slow => Some(Self::SLOW),
            Self::Crash(_) | Self::Outage(_) | Self::Error | Self::Lost | Self::Forgotten => None,
        }
    }
}

/// One fault at one point: it strikes once, at the first passing after the strike before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Strike {
    pub(crate) point: Point,
    pub(crate) fault: Fault,
}

impl fmt::Display for Strike {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {}", self.fault, self.point)
    }
}

/// What goes on in a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Work {
    /// A group of publishes: to all, to one, to a stranger (a business "no"), on another topic.
    Publish,
    /// A key that was committed comes again.
    Repeat,
    /// A gateway stops in an orderly way and leaves work behind.
    Stop,
    /// Time passes: what people prepared expires, what is old is forgotten.
    Age,
    /// A quarantined transaction is mended and tried again by an operator.
    Mend,
    /// One that cannot be mended is closed with what the operator found.
    Resolve,
}

#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) work: Work,
    /// A gateway that waits for its store as long as it takes: what is late is then not asked for a second time.
    pub(crate) patient: bool,
    /// Leads to where the case begins.
    pub(crate) prelude: Vec<Strike>,
    pub(crate) strikes: Vec<Strike>,
}

impl Case {
    /// Nothing may fail in it.
    pub(crate) fn harmless(&self) -> bool {
        self.prelude.is_empty() && self.strikes.iter().all(|strike| strike.fault == Fault::Slow)
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}{}", self.work, if self.patient { ", patient" } else { "" })?;
        self.prelude.iter().chain(&self.strikes).try_for_each(|strike| write!(f, ", {strike}"))
    }
}

//! One breaker per instance: closed, traffic flows; open, it rejects; half-open, one probe is out.
//!
//! failsafe holds the state and its times. Its half-open lets every call through, and takes the verdict of any call that
//! ends; so a gate around it lets one probe through and listens, while half-open, to that probe alone.

use std::{
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use failsafe::{
    Instrument, StateMachine,
    failure_policy::{self, ConsecutiveFailures},
};
use serde::Serialize;

use crate::{MeshConfig, metrics::BreakerSeries};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Traffic flows.
    Closed,
    /// Rejecting.
    Open,
    /// One probe is out, or will be the next call.
    HalfOpen,
}

impl State {
    pub(crate) const ALL: [Self; 3] = [Self::Closed, Self::Open, Self::HalfOpen];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half-open",
        }
    }
}

#[derive(Debug)]
pub(crate) struct Breaker {
    gate: Mutex<Gate>,
    lamp: Lamp,
}

#[derive(Debug)]
struct Gate {
    machine: StateMachine<ConsecutiveFailures<Delays>, Lamp>,
    /// The probe of a half-open breaker is out.
    probing: bool,
}

impl Breaker {
    pub(crate) fn new(config: &MeshConfig, series: BreakerSeries) -> Arc<Self> {
        let lamp = Lamp { state: Arc::new(AtomicU8::new(0)), series };
        let policy = failure_policy::consecutive_failures(config.breaker_failures.max(1), Delays::new(config));
        let machine = StateMachine::new(policy, lamp.clone());
        Arc::new(Self { gate: Mutex::new(Gate { machine, probing: false }), lamp })
    }

    /// A call may pass, and must say how it went; `None`: rejected.
    pub(crate) fn admit(self: &Arc<Self>) -> Option<Admission> {
        let mut gate = self.gate();
        if !gate.machine.is_call_permitted() {
            return None;
        }
        let probe = match self.state() {
            State::Closed => false,
            State::HalfOpen if !gate.probing => true,
            State::HalfOpen | State::Open => return None,
        };
        gate.probing |= probe;
        Some(Admission { breaker: self.clone(), probe, settled: false })
    }

    pub(crate) fn state(&self) -> State {
        State::ALL[usize::from(self.lamp.state.load(Ordering::SeqCst))]
    }

    fn settle(&self, probe: bool, succeeded: bool) {
        let mut gate = self.gate();
        if probe {
            gate.probing = false;
        }
        match self.state() {
            State::Closed => {}
            State::HalfOpen if probe => {}
            // It was admitted before the breaker opened: what it met is already known.
            State::HalfOpen | State::Open => return,
        }
        if succeeded { gate.machine.on_success() } else { gate.machine.on_error() }
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().expect("nothing panics while the gate is held")
    }
}

/// One call on its way. Dropped without a verdict (its caller went away), it counts as nothing.
#[derive(Debug)]
#[must_use]
pub(crate) struct Admission {
    breaker: Arc<Breaker>,
    probe: bool,
    settled: bool,
}

impl Admission {
    pub(crate) fn settle(mut self, succeeded: bool) {
        self.settled = true;
        self.breaker.settle(self.probe, succeeded);
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if self.probe && !self.settled {
            self.breaker.gate().probing = false;
        }
    }
}

/// Shows the machine's state. The machine tells it within the gate's lock, so the two never differ.
#[derive(Clone, Debug)]
struct Lamp {
    /// An index into [`State::ALL`].
    state: Arc<AtomicU8>,
    series: BreakerSeries,
}

impl Lamp {
    fn show(&self, index: u8) {
        self.state.store(index, Ordering::SeqCst);
        self.series.show(State::ALL[usize::from(index)]);
    }
}

impl Instrument for Lamp {
    fn on_call_rejected(&self) {}

    fn on_closed(&self) {
        self.show(0);
    }

    fn on_open(&self) {
        self.show(1);
    }

    fn on_half_open(&self) {
        self.show(2);
    }
}

/// How long the breaker rejects each time: doubling to a bound, each a little longer than said, so that the callers of
/// an instance do not all probe it at once. (failsafe's own begin at a second.)
#[derive(Clone, Debug)]
struct Delays {
    next: Duration,
    max: Duration,
}

impl Delays {
    fn new(config: &MeshConfig) -> Self {
        let max = Duration::from_millis(config.breaker_open_max_ms.max(config.breaker_open_ms));
        Self { next: Duration::from_millis(config.breaker_open_ms), max }
    }
}

impl Iterator for Delays {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let delay = self.next;
        self.next = (delay * 2).min(self.max);
        Some(delay.mul_f64(rand::random_range(1.0..1.25)))
    }
}

#[cfg(test)]
mod tests {
    use notifyx_model::{Clock, InstanceId, ServiceName};

    use super::*;
    use crate::metrics::Metrics;

    fn breaker(open_ms: u64) -> Arc<Breaker> {
        let clock = Clock::system();
        let metrics = Metrics::new(&prometheus::Registry::new(), &clock);
        let series = metrics.breaker(&ServiceName::parse("persist").unwrap(), InstanceId::new(&clock));
        let config = MeshConfig { breaker_failures: 3, breaker_open_ms: open_ms, ..MeshConfig::default() };
        Breaker::new(&config, series)
    }

    fn fail(breaker: &Arc<Breaker>, times: usize) {
        for _ in 0..times {
            breaker.admit().unwrap().settle(false);
        }
    }

    /// Spins until the time has passed in which the breaker rejects.
    fn admitted(breaker: &Arc<Breaker>) -> Admission {
        loop {
            if let Some(admission) = breaker.admit() {
                return admission;
            }
            std::thread::yield_now();
        }
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_rejects() {
        let breaker = breaker(60_000);
        fail(&breaker, 2);
        breaker.admit().unwrap().settle(true);
        fail(&breaker, 2);
        assert_eq!(breaker.state(), State::Closed);
        fail(&breaker, 1);
        assert_eq!(breaker.state(), State::Open);
        assert!(breaker.admit().is_none());
    }

    #[test]
    fn half_open_lets_one_probe_through_and_its_success_closes() {
        let breaker = breaker(0);
        fail(&breaker, 3);
        let probe = admitted(&breaker);
        assert_eq!(breaker.state(), State::HalfOpen);
        assert!(breaker.admit().is_none(), "one probe at a time");
        probe.settle(true);
        assert_eq!(breaker.state(), State::Closed);
        assert!(breaker.admit().is_some());
    }

    #[test]
    fn a_failed_probe_opens_again() {
        let breaker = breaker(0);
        fail(&breaker, 3);
        admitted(&breaker).settle(false);
        assert_eq!(breaker.state(), State::Open);
    }

    #[test]
    fn a_probe_whose_caller_left_makes_room_for_the_next() {
        let breaker = breaker(0);
        fail(&breaker, 3);
        drop(admitted(&breaker));
        assert_eq!(breaker.state(), State::HalfOpen);
        breaker.admit().unwrap().settle(true);
        assert_eq!(breaker.state(), State::Closed);
    }

    #[test]
    fn stragglers_have_no_say_while_half_open() {
        let breaker = breaker(0);
        let (late_success, late_failure) = (breaker.admit().unwrap(), breaker.admit().unwrap());
        fail(&breaker, 3);
        let probe = admitted(&breaker);
        late_success.settle(true);
        late_failure.settle(false);
        assert_eq!(breaker.state(), State::HalfOpen);
        assert!(breaker.admit().is_none());
        probe.settle(true);
        assert_eq!(breaker.state(), State::Closed);
    }
}

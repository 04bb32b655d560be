//! How fast is tried: many at once while all goes well, one at a time with pauses while a service is away.

use std::time::Duration;

use tokio::time::Instant;

/// Publishes at once: a coordinator's group fills from them, and they wait for nobody else.
const AT_ONCE: usize = 64;

/// The first pause after a failure, and what it doubles to: a service that is back is noticed after that.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// The pause after so many failures in a row, of which `jitter` (0 to 1) takes away up to a half: gateways and retries do not fall into step.
pub(super) fn pause(failures: u32, jitter: f64) -> Duration {
    let whole = (PAUSE_MIN * (1 << failures.min(10))).min(PAUSE_MAX);
    whole.mul_f64(1.0 - jitter.clamp(0.0, 1.0) / 2.0)
}

#[derive(Debug)]
pub(super) struct Pace {
    at_once: usize,
    /// Rounds of failures since the last success.
    failures: u32,
    until: Option<Instant>,
}

impl Default for Pace {
    fn default() -> Self {
        Self { at_once: AT_ONCE, failures: 0, until: None }
    }
}

impl Pace {
    /// Whether another may be tried beside those that are.
    pub(super) fn allows(&self, running: usize, now: Instant) -> bool {
        running < self.at_once && self.until.is_none_or(|until| until <= now)
    }

    /// Until when nothing is tried.
    pub(super) fn pauses(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|until| *until > now)
    }

    pub(super) fn succeeded(&mut self) {
        (self.at_once, self.failures, self.until) = ((self.at_once * 2).min(AT_ONCE), 0, None);
    }

    /// Those that fail during a pause were under way before it: they are of the same round.
    pub(super) fn failed(&mut self, now: Instant, jitter: f64) {
        self.at_once = (self.at_once / 2).max(1);
        if self.pauses(now).is_none() {
            self.until = Some(now + pause(self.failures, jitter));
            self.failures += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_slow_it_down_to_one_at_a_time_and_success_speeds_it_up_again() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        assert!(pace.allows(AT_ONCE - 1, now) && !pace.allows(AT_ONCE, now));
        for _ in 0..AT_ONCE {
            pace.failed(now, 0.0);
        }
        assert_eq!(pace.pauses(now), Some(now + PAUSE_MIN), "one round");
        let later = now + PAUSE_MIN;
        assert!(!pace.allows(0, now) && pace.allows(0, later) && !pace.allows(1, later));
        pace.failed(later, 0.0);
        assert_eq!(pace.pauses(later), Some(later + PAUSE_MIN * 2));
        pace.succeeded();
        assert!(pace.allows(1, later) && !pace.allows(2, later));
        for _ in 0..9 {
            pace.succeeded();
        }
        assert!(pace.allows(AT_ONCE - 1, later) && !pace.allows(AT_ONCE, later));
    }

    #[test]
    fn pauses_are_bounded() {
        assert_eq!((pause(0, 0.0), pause(0, 1.0)), (PAUSE_MIN, PAUSE_MIN / 2));
        assert_eq!((pause(u32::MAX, 0.0), pause(9, 2.0)), (PAUSE_MAX, PAUSE_MAX / 2));
    }
}

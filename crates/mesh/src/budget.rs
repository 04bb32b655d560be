//! The retry budget: retries stay a fraction of the calls, so that a service in trouble is not buried under them.

use std::sync::atomic::{AtomicU32, Ordering};

/// What one call pays in, in hundredths of a retry: one retry per five calls, the usual bound (Finagle, Linkerd).
const DEPOSIT: u32 = 20;
const RETRY: u32 = 100;
/// A rare caller may retry ten times before its calls have paid for it; nobody saves up for more than a hundred.
const START: u32 = 10 * RETRY;
const MAX: u32 = 100 * RETRY;

#[derive(Debug)]
pub(crate) struct Budget(AtomicU32);

impl Default for Budget {
    fn default() -> Self {
        Self(AtomicU32::new(START))
    }
}

impl Budget {
    /// A call begins.
    pub(crate) fn deposit(&self) {
        let add = |balance: u32| Some((balance + DEPOSIT).min(MAX));
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).expect("it always adds");
    }

    /// Whether one more retry may be made.
    pub(crate) fn withdraw(&self) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |balance| balance.checked_sub(RETRY)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_stay_a_fifth_of_the_calls() {
        let budget = Budget::default();
        while budget.withdraw() {}
        let retries = (0..1_000).filter(|_| {
            budget.deposit();
            budget.withdraw()
        });
        assert_eq!(retries.count(), 200);
    }

    #[test]
    fn a_quiet_day_is_not_saved_up_for_ever() {
        let budget = Budget::default();
        (0..10_000).for_each(|_| budget.deposit());
        assert_eq!((0..10_000).filter(|_| budget.withdraw()).count(), 100);
    }
}

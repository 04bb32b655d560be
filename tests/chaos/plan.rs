//! The faults of a run, one after the other, from a seed.

use std::time::Duration;

use rand::{Rng, SeedableRng, rngs::StdRng, seq::index};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// SIGKILL, for Postgres its immediate stop; started again after this.
    Kill { down: Duration },
    /// SIGSTOP, and SIGCONT after this.
    Pause { length: Duration },
}

/// What happens together: mostly one fault, sometimes two.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Round {
    /// After the round before has begun: rounds overlap.
    pub(crate) after: Duration,
    /// Victim and fault.
    pub(crate) strikes: Vec<(usize, Fault)>,
}

/// What can be done to a victim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Nature {
    /// Killed or paused.
    Process,
    /// Only stopped at once: its many processes are not paused together.
    Postgres,
}

pub(crate) struct Plan {
    dice: StdRng,
    victims: Vec<Nature>,
}

impl Plan {
    pub(crate) fn new(seed: u64, victims: Vec<Nature>) -> Self {
        Self { dice: StdRng::seed_from_u64(seed), victims }
    }

    fn fault(&mut self, victim: usize) -> Fault {
        let dice = &mut self.dice;
        if self.victims[victim] == Nature::Postgres || dice.random_bool(0.5) {
            return Fault::Kill { down: Duration::from_millis(dice.random_range(0..2_000)) };
        }
        let millis = match dice.random_range(0..100) {
            // Within every timeout, or past those of single calls.
            0..75 => dice.random_range(100..2_500),
            // Past the deadline of a decision (5 s).
            75..93 => dice.random_range(4_000..7_000),
            // Past the lease (10 s): somebody else decides meanwhile.
            _ => dice.random_range(10_000..12_000),
        };
        Fault::Pause { length: Duration::from_millis(millis) }
    }
}

impl Iterator for Plan {
    type Item = Round;

    fn next(&mut self) -> Option<Round> {
        let after = Duration::from_millis(self.dice.random_range(300..2_500));
        let at_once = if self.victims.len() > 1 && self.dice.random_bool(0.25) { 2 } else { 1 };
        let victims = index::sample(&mut self.dice, self.victims.len(), at_once);
        let strikes = victims.iter().map(|victim| (victim, self.fault(victim))).collect();
        Some(Round { after, strikes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_its_plan() {
        let victims = || vec![Nature::Process, Nature::Process, Nature::Postgres];
        let rounds = |seed| Plan::new(seed, victims()).take(100).collect::<Vec<_>>();
        assert_eq!(rounds(7), rounds(7));
        assert_ne!(rounds(7), rounds(8));
        let all: Vec<Fault> = rounds(7).into_iter().flat_map(|round| round.strikes).map(|(_, fault)| fault).collect();
        let pauses_longer = |than: u64| {
            all.iter().any(|fault| matches!(fault, Fault::Pause { length } if *length > Duration::from_secs(than)))
        };
        assert!(pauses_longer(5) && pauses_longer(9) && all.iter().any(|fault| matches!(fault, Fault::Kill { .. })));
    }
}

//! What a run is told by its environment.

use rand::Rng;

/// `NOTIFYX_CHAOS_SEED`, or a new one.
pub(crate) fn seed() -> u64 {
    number("NOTIFYX_CHAOS_SEED").unwrap_or_else(|| rand::rng().random())
}

/// How much a run does at least.
pub(crate) fn size(name: &str) -> Option<usize> {
    number(name).map(|n| usize::try_from(n).expect("a count"))
}

fn number(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok().filter(|value| !value.is_empty())?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name}={value} is not a number")))
}

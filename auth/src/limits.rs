//! How often a login may fail: per account and per client address, within a sliding window.
//!
//! Each instance counts for itself. An account can thus be held up by strangers who guess at it, for as long as they go
//! on; its open sessions are not concerned. What is counted is what was told: an attempt that met a full queue is none.

use std::{
    collections::VecDeque,
    hash::Hash,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use moka::{policy::EvictionPolicy, sync::Cache};
use notifyx_model::{Clock, Email, Timestamp};

use crate::{Config, error::Error};

/// Accounts, and addresses, that are watched at once; those longest untouched give way.
const WATCHED_MAX: u64 = 100_000;

pub(crate) struct Limits {
    clock: Clock,
    accounts: Failures<Email>,
    addresses: Failures<String>,
}

impl Limits {
    pub(crate) fn new(config: &Config, clock: Clock) -> Self {
        let window = Duration::from_secs(config.login_window_s.get());
        Self {
            clock,
            accounts: Failures::new(config.login_failures_per_account_max.get(), window),
            addresses: Failures::new(config.login_failures_per_address_max.get(), window),
        }
    }

    /// Whether a login may be tried now. An address without an account is limited like any other.
    pub(crate) fn check(&self, email: &Email, address: &str) -> Result<(), Error> {
        let now = self.clock.now();
        let wait = self.accounts.wait(email, now).max(self.addresses.wait(&network(address), now));
        if wait.is_zero() { Ok(()) } else { Err(Error::TooManyFailures { wait }) }
    }

    pub(crate) fn failed(&self, email: &Email, address: &str) {
        let now = self.clock.now();
        self.accounts.add(email.clone(), now);
        self.addresses.add(network(address), now);
    }

    /// Forgets the account's failures. Not the address's: whoever has one account could guess at others without end.
    pub(crate) fn succeeded(&self, email: &Email) {
        self.accounts.recent.invalidate(email);
    }
}

/// The most recent failures of each key, at most `max`.
struct Failures<K: Hash + Eq> {
    max: usize,
    window: Duration,
    recent: Cache<K, Arc<Mutex<VecDeque<Timestamp>>>>,
}

impl<K: Hash + Eq + Send + Sync + 'static> Failures<K> {
    fn new(max: u32, window: Duration) -> Self {
        let recent = Cache::builder()
            .max_capacity(WATCHED_MAX)
            .eviction_policy(EvictionPolicy::lru())
            .time_to_idle(window)
            .build();
        Self { max: max as usize, window, recent }
    }

    /// How long until the oldest failure that counts leaves the window; zero below the limit.
    fn wait(&self, key: &K, now: Timestamp) -> Duration {
        let Some(failures) = self.recent.get(key) else { return Duration::ZERO };
        let failures = failures.lock().unwrap_or_else(PoisonError::into_inner);
        match failures.front() {
            Some(&oldest) if failures.len() >= self.max => self.window.saturating_sub(now.since(oldest)),
            Some(_) | None => Duration::ZERO,
        }
    }

    fn add(&self, key: K, now: Timestamp) {
        let failures = self.recent.get_with(key, Arc::default);
        let mut failures = failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.push_back(now);
        if failures.len() > self.max {
            failures.pop_front();
        }
    }
}

/// What of an address counts as one client: a provider gives each customer at least a /64 of IPv6.
fn network(address: &str) -> String {
    match address.parse::<IpAddr>().map(|ip| ip.to_canonical()) {
        Ok(IpAddr::V6(ip)) => Ipv6Addr::from_bits(ip.to_bits() & !u128::from(u64::MAX)).to_string(),
        Ok(IpAddr::V4(ip)) => ip.to_string(),
        Err(_) => address.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::num::{NonZeroU32, NonZeroU64};

    use notifyx_model::ManualClock;

    use super::*;

    fn limits(hand: &ManualClock) -> Limits {
        let config = Config {
            login_failures_per_account_max: NonZeroU32::new(3).unwrap(),
            login_failures_per_address_max: NonZeroU32::new(5).unwrap(),
            login_window_s: NonZeroU64::new(60).unwrap(),
            ..Config::default()
        };
        Limits::new(&config, hand.clock())
    }

    fn email(text: &str) -> Email {
        Email::parse(text).unwrap()
    }

    #[test]
    fn an_account_waits_until_its_oldest_failure_leaves_the_window() {
        let hand = ManualClock::new();
        let limits = limits(&hand);
        let ann = email("ann@x.org");
        for n in 0..3 {
            limits.check(&ann, "192.0.2.1").unwrap();
            limits.failed(&ann, &format!("192.0.2.{n}"));
            hand.advance(Duration::from_secs(10));
        }
        let refused = limits.check(&ann, "198.51.100.1").unwrap_err();
        assert!(matches!(refused, Error::TooManyFailures { wait } if wait == Duration::from_secs(30)), "{refused}");
        limits.check(&email("bob@x.org"), "198.51.100.1").unwrap();
        hand.advance(Duration::from_secs(30));
        limits.check(&ann, "198.51.100.1").unwrap();
        limits.failed(&ann, "198.51.100.1");
        assert!(limits.check(&ann, "198.51.100.1").is_err(), "the window slides: three are within it again");
    }

    #[test]
    fn a_success_resets_the_account_but_not_the_address() {
        let limits = limits(&ManualClock::new());
        let ann = email("ann@x.org");
        for _ in 0..2 {
            for _ in 0..2 {
                limits.failed(&ann, "192.0.2.1");
            }
            limits.succeeded(&ann);
        }
        limits.check(&ann, "192.0.2.1").unwrap();
        limits.failed(&email("bob@x.org"), "192.0.2.1");
        assert!(limits.check(&ann, "192.0.2.1").is_err(), "five failures from this address");
        limits.check(&ann, "192.0.2.2").unwrap();
    }

    #[test]
    fn a_client_is_an_address_or_an_ipv6_network() {
        assert_eq!(network("2001:db8:1:2:3::1"), network("2001:db8:1:2::9"));
        assert_ne!(network("2001:db8:1:2::1"), network("2001:db8:1:3::1"));
        assert_eq!(network("::ffff:192.0.2.1"), "192.0.2.1");
        assert_eq!(network("unknown"), "unknown");
    }
}

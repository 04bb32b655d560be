//! Hashing and checking passwords with argon2id: off the async threads, a bounded number at once, a bounded queue.
//!
//! Whether an account exists does not show in the time: where there is no hash to check, a dummy of the same cost is.

use std::{fmt, ops::RangeInclusive, sync::Arc, time::Duration};

use argon2::{
    Algorithm, Argon2, Params, PasswordHash, PasswordHasher, PasswordVerifier, Version,
    password_hash::{self, SaltString},
};
use rand::Rng;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task,
    time::timeout,
};

use crate::{Config, error::Error, metrics::Metrics};

/// Eight is what NIST SP 800-63B asks for; the upper bound keeps a long text from becoming work.
pub(crate) const BYTES: RangeInclusive<usize> = 8..=256;

/// OWASP's first choice for argon2id: 19 MiB, two passes, one lane.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// A hash of nothing: random bits. Its costs are those of [`MEMORY_KIB`], [`PASSES`] and [`LANES`].
const DUMMY: &str = "$argon2id$v=19$m=19456,t=2,p=1$Cyq5+kRxFQ3vOoaPHidfmg$hhDf76c4amyr+i2LyCe7JbCz8cKKQAWrTq4Q1WVcNIw";

/// A password of an acceptable length.
#[derive(Clone)]
pub(crate) struct Password(String);

impl Password {
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        if BYTES.contains(&text.len()) {
            Ok(Self(text.to_owned()))
        } else {
            Err(Error::PasswordLength { bytes: text.len() })
        }
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(…)")
    }
}

#[derive(Debug)]
pub(crate) struct Passwords {
    /// One permit per password being hashed.
    threads: Arc<Semaphore>,
    /// One permit per caller, waiting or served.
    places: Arc<Semaphore>,
    wait: Duration,
    metrics: Metrics,
}

/// The right to hash one password now. It is the caller's until it is dropped, so that what follows from the answer can be
/// noted before the next has its turn.
#[derive(Debug)]
pub(crate) struct Turn {
    _place: OwnedSemaphorePermit,
    thread: Arc<OwnedSemaphorePermit>,
    metrics: Metrics,
}

impl Passwords {
    pub(crate) fn new(config: &Config, metrics: Metrics) -> Self {
        let threads = match config.hashing_threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            told => told as usize,
        };
        Self {
            threads: Arc::new(Semaphore::new(threads)),
            places: Arc::new(Semaphore::new(threads + config.hashing_queue_max as usize)),
            wait: Duration::from_millis(config.hashing_wait_ms),
            metrics,
        }
    }

    /// Waits in order for a turn, as long and among as many as configured.
    pub(crate) async fn turn(&self) -> Result<Turn, Error> {
        let place = self.place()?;
        let waited = self.metrics.hashing_waits();
        let thread = timeout(self.wait, self.threads.clone().acquire_owned()).await.map_err(|_| Error::Busy)?;
        drop(waited);
        let thread = Arc::new(thread.expect("the semaphore is never closed"));
        Ok(Turn { _place: place, thread, metrics: self.metrics.clone() })
    }

    /// A place in the queue, if there is one left.
    pub(crate) fn place(&self) -> Result<OwnedSemaphorePermit, Error> {
        self.places.clone().try_acquire_owned().map_err(|_| Error::Busy)
    }
}

impl Turn {
    /// The password's hash in PHC form, with a salt of its own.
    pub(crate) async fn hash(&self, password: Password) -> Result<String, Error> {
        let salt: [u8; 16] = rand::rng().random();
        self.work(move || {
            let salt = SaltString::encode_b64(&salt)?;
            Ok(hasher().hash_password(password.0.as_bytes(), &salt)?.to_string())
        })
        .await
    }

    /// Whether this is the password behind `stored`; never, at the same cost, where nothing is stored.
    pub(crate) async fn verify(&self, password: Password, stored: Option<String>) -> Result<bool, Error> {
        self.work(move || {
            let hash = PasswordHash::new(stored.as_deref().unwrap_or(DUMMY))?;
            match hasher().verify_password(password.0.as_bytes(), &hash) {
                Ok(()) => Ok(stored.is_some()),
                Err(password_hash::Error::Password) => Ok(false),
                Err(error) => Err(error),
            }
        })
        .await
    }

    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> Result<T, password_hash::Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (thread, seconds) = (self.thread.clone(), self.metrics.hashing_seconds.clone());
        let done = task::spawn_blocking(move || {
            // Held until the work is done, also when the caller has gone.
            let _thread = thread;
            let _timer = seconds.start_timer();
            work()
        });
        match done.await {
            Ok(result) => result.map_err(Error::Hashing),
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(Error::Busy),
        }
    }
}

fn hasher() -> Argon2<'static> {
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).expect("the costs are within argon2's bounds");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn passwords(config: &Config) -> Passwords {
        Passwords::new(config, Metrics::new(&prometheus::Registry::new()))
    }

    fn password(text: &str) -> Password {
        Password::parse(text).unwrap()
    }

    #[test]
    fn lengths_are_bounded_in_bytes() {
        assert!(Password::parse("1234567").is_err());
        assert!(Password::parse("éééé").is_ok());
        assert!(Password::parse(&"x".repeat(256)).is_ok());
        let long = Password::parse(&"x".repeat(257)).unwrap_err();
        assert_eq!(long.to_string(), "password has 257 bytes: 8 to 256 are allowed");
    }

    #[tokio::test]
    async fn only_the_right_password_matches() {
        let passwords = passwords(&Config::default());
        let hash = passwords.turn().await.unwrap().hash(password("correct horse")).await.unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        let check = async |text, stored| passwords.turn().await.unwrap().verify(password(text), stored).await.unwrap();
        assert!(check("correct horse", Some(hash.clone())).await);
        assert!(!check("wrong horse", Some(hash)).await);
        assert!(!check("correct horse", None).await);
    }

    #[tokio::test]
    async fn an_unknown_address_costs_what_a_known_one_does() {
        let passwords = passwords(&Config::default());
        let hash = passwords.turn().await.unwrap().hash(password("correct horse")).await.unwrap();
        let (dummy, real) = (PasswordHash::new(DUMMY).unwrap(), PasswordHash::new(&hash).unwrap());
        assert_eq!((dummy.algorithm, dummy.version, &dummy.params), (real.algorithm, real.version, &real.params));
        assert_eq!(dummy.hash.unwrap().len(), real.hash.unwrap().len());
        assert_eq!(dummy.salt.unwrap().len(), real.salt.unwrap().len());
    }

    fn one_at_a_time(hashing_queue_max: u16, hashing_wait_ms: u64) -> Arc<Passwords> {
        Arc::new(passwords(&Config { hashing_threads: 1, hashing_queue_max, hashing_wait_ms, ..Config::default() }))
    }

    #[tokio::test]
    async fn the_queue_is_bounded() {
        // Nobody waits that long for this test to end: who finds the queue full is told at once.
        let passwords = one_at_a_time(1, 3_600_000);
        let held = passwords.turn().await.unwrap();
        let waiting = tokio::spawn({
            let passwords = passwords.clone();
            async move { passwords.turn().await.map(drop) }
        });
        while passwords.places.available_permits() > 0 {
            task::yield_now().await;
        }
        assert!(matches!(passwords.turn().await, Err(Error::Busy)));
        drop(held);
        waiting.await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn the_wait_is_bounded() {
        let passwords = one_at_a_time(1, 20);
        let held = passwords.turn().await.unwrap();
        assert!(matches!(passwords.turn().await, Err(Error::Busy)));
        drop(held);
        passwords.turn().await.unwrap();
    }
}

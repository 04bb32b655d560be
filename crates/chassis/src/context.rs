//! What a service is given by the process that starts it.

use std::sync::Arc;

use notifyx_model::{Clock, Secret};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

/// Passed in, never looked up: two whole platforms fit in one process.
#[derive(Clone, Debug)]
pub struct Context {
    pub clock: Clock,
    /// Cancelled when the process begins to stop: accept no more, finish what runs.
    pub shutdown: CancellationToken,
    /// The runtime of databases and clients. It stops last.
    pub runtime: Handle,
    pub cluster: Cluster,
    /// Base URLs of the registry, `http://127.0.0.1:8000`.
    pub discovery: Vec<String>,
}

/// The secret by which services know each other.
#[derive(Clone, Debug)]
pub struct Cluster(Arc<Secret>);

impl Cluster {
    pub fn new(secret: Secret) -> Self {
        Self(Arc::new(secret))
    }

    pub fn secret(&self) -> &Secret {
        &self.0
    }

    /// Compares in constant time. An empty secret matches nothing.
    pub fn matches(&self, claimed: &str) -> bool {
        let digest = |text: &str| Sha256::digest(text.as_bytes());
        !self.0.is_empty() && bool::from(digest(claimed).ct_eq(&digest(self.0.expose())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_secret_opens_nothing() {
        assert!(!Cluster::new(Secret::default()).matches(""));
        assert!(Cluster::new(Secret::new("s")).matches("s"));
        assert!(!Cluster::new(Secret::new("s")).matches("t"));
    }
}

//! How long to wait before connecting again.

use std::time::Duration;

use rand::Rng;
use tokio::time::Instant;

/// The first pause; doubled each time up to [`PAUSE_MAX`], less a random part, so that the clients of a server that restarts
/// do not all come back in one instant.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// A connection that held this long was a good one: the pauses begin anew.
const STEADY: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(crate) struct Pauses(Duration);

impl Default for Pauses {
    fn default() -> Self {
        Self(PAUSE_MIN)
    }
}

impl Pauses {
    /// Waits after a connection that began at `since` was lost.
    pub(crate) async fn wait(&mut self, since: Instant) {
        if since.elapsed() >= STEADY {
            self.0 = PAUSE_MIN;
        }
        tokio::time::sleep(rand::rng().random_range(self.0 / 2..=self.0)).await;
        self.0 = (self.0 * 2).min(PAUSE_MAX);
    }
}

//! The one signal handler of the process: the first signal asks, the second ends at once.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// What a shell reports for a process that SIGINT ended.
const ENDED_BY_SIGNAL: i32 = 130;

/// Cancelled by the first SIGINT or SIGTERM. Call once, on the runtime that lives as long as the process.
pub(crate) fn asked_to_stop() -> io::Result<CancellationToken> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let token = CancellationToken::new();
    let asked = token.clone();
    // Owned by the process: it ends with it.
    tokio::spawn(async move {
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if asked.is_cancelled() {
                tracing::warn!("asked twice: ending at once");
                std::process::exit(ENDED_BY_SIGNAL);
            }
            asked.cancel();
        }
    });
    Ok(token)
}

//! The one signal handler of the process: the first signal asks, the second ends at once.

use std::{io, time::Duration};

use tokio::{
    signal::unix::{SignalKind, signal},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

/// What a shell reports for a process that SIGINT ended.
const ENDED_BY_SIGNAL: i32 = 130;

/// What arrives this soon after the first is the same wish twice: `timeout` and some supervisors send to the process and to
/// its group.
const SAME_WISH: Duration = Duration::from_millis(300);

/// Cancelled by the first SIGINT or SIGTERM. Call once, on the runtime that lives as long as the process.
pub(crate) fn asked_to_stop() -> io::Result<CancellationToken> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let token = CancellationToken::new();
    let asked = token.clone();
    // Owned by the process: it ends with it.
    tokio::spawn(async move {
        let mut first = None;
        loop {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if first.get_or_insert_with(Instant::now).elapsed() > SAME_WISH {
                tracing::warn!("asked twice: ending at once");
                std::process::exit(ENDED_BY_SIGNAL);
            }
            asked.cancel();
        }
    });
    Ok(token)
}

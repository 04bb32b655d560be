//! Time that stands still: tokio's paused clock, which jumps to the next timer when nobody has work to do. A database that
//! works in another thread is work too: while one does, the clock is held.

use std::sync::{Arc, Mutex, mpsc};

/// Holds the clock while any [`Still`] lives.
#[derive(Clone, Debug, Default)]
pub(crate) struct Standstill(Arc<Mutex<Held>>);

#[derive(Debug, Default)]
struct Held {
    by: usize,
    /// Dropping it ends the blocking task that keeps tokio from moving its clock.
    keep: Option<mpsc::Sender<()>>,
}

#[derive(Debug)]
pub(crate) struct Still(Standstill);

impl Standstill {
    pub(crate) fn hold(&self) -> Still {
        let mut held = self.0.lock().unwrap();
        held.by += 1;
        if held.by == 1 {
            let (keep, kept) = mpsc::channel::<()>();
            // The paused clock of a current-thread runtime does not advance by itself while a blocking task runs.
            tokio::task::spawn_blocking(move || kept.recv());
            held.keep = Some(keep);
        }
        Still(self.clone())
    }
}

impl Drop for Still {
    fn drop(&mut self) {
        let mut held = self.0.0.lock().unwrap();
        held.by -= 1;
        if held.by == 0 {
            held.keep = None;
        }
    }
}

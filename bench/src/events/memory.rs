//! What the platform's process weighs while events wait.

use serde::Serialize;

use super::Events;

/// Resident, in bytes.
#[derive(Debug, Serialize)]
pub(super) struct Memory {
    /// With clients connected and a thousand events fired.
    pub(super) before: u64,
    /// After what was measured without others that wait.
    pub(super) after: u64,
    /// How many waited then, and with what.
    pub(super) waiting: Option<(u32, u64)>,
    /// For each idle category with an event that waits.
    pub(super) idle_category: Option<f64>,
}

/// `None` where the process is not known.
pub(super) fn told(
    args: &Events,
    [before, after, full, idle]: [Option<u64>; 4],
    waiting: Option<(u32, u64)>,
) -> Option<Memory> {
    let grown = idle? as f64 - full? as f64;
    let idle_category = (args.idle > 0).then(|| grown / f64::from(args.idle));
    Some(Memory { before: before?, after: after?, waiting, idle_category })
}

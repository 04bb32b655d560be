//! graphile-worker and pg-boss on the same Postgres, given the same to do: programs of their own in `bench/peers`, for Node.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::process::Command;

use super::Events;
use crate::{error::Error, postgres::Postgres};

const PEERS: [&str; 2] = ["graphile-worker", "pg-boss"];

/// They add a few thousand jobs a second; what is not there when the first is due ends the measurement.
const ADDED_PER_S: u32 = 3_000;

/// What one of them came to.
#[derive(Debug, Serialize)]
pub(super) struct Peer {
    pub(super) name: &'static str,
    pub(super) rate: u32,
    pub(super) jobs: u32,
    #[serde(flatten)]
    pub(super) told: Told,
}

#[derive(Debug, Deserialize, Serialize)]
pub(super) struct Told {
    pub(super) version: String,
    /// Node's version.
    pub(super) node: String,
    pub(super) settings: Value,
    pub(super) insert_per_s: f64,
    pub(super) late_ms: Late,
    /// Jobs that were handled more than once.
    pub(super) twice: u32,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize)]
pub(super) struct Late {
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) max: f64,
}

/// One of them, or why it has no figures.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub(super) enum Beside {
    Peer(Peer),
    Skipped(Skipped),
}

#[derive(Debug, Serialize)]
pub(super) struct Skipped {
    pub(super) name: &'static str,
    pub(super) why: String,
}

/// So many jobs a second, by each.
pub(super) async fn measure(
    args: &Events,
    folder: &Path,
    rate: u32,
    postgres: &Postgres,
) -> Result<Vec<Beside>, Error> {
    // The version that the lock file names, so that the machine's own does not matter.
    let node = folder.join("node_modules/.bin/node");
    let mut all = Vec::new();
    for name in PEERS {
        if !node.exists() {
            let why = format!("{} is missing: (cd {} && npm ci) with Node's npm", node.display(), folder.display());
            all.push(Beside::Skipped(Skipped { name, why }));
            continue;
        }
        eprintln!("{name}: {rate} jobs per second");
        let jobs = rate * args.seconds;
        let task = json!({
            "url": postgres.create(&format!("{}_{rate}", name.replace('-', "_"))).await?,
            "jobs": jobs,
            "spanMs": args.seconds * 1_000,
            "leadMs": 2_000 + u64::from(jobs) * 1_000 / u64::from(ADDED_PER_S),
            "batch": args.batch,
            "connections": args.connections,
            "payload": args.payload,
        });
        let done = Command::new(&node).arg(folder.join(format!("{name}.mjs"))).arg(task.to_string()).output().await;
        let done = done.map_err(Error::io(format!("starting {name}")))?;
        all.push(match serde_json::from_slice(&done.stdout) {
            Ok(told) if done.status.success() => Beside::Peer(Peer { name, rate, jobs, told }),
            _ => {
                let said = String::from_utf8_lossy(&done.stderr);
                let why = said.lines().find(|line| line.contains("Error")).unwrap_or("it failed and said nothing");
                Beside::Skipped(Skipped { name, why: format!("{rate} per second: {}", why.trim()) })
            }
        });
    }
    Ok(all)
}

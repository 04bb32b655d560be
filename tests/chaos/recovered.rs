//! How much recovery took over, added up from the gateways' metrics while they are killed and begin anew.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use reqwest::Method;
use tokio::{task::JoinSet, time::sleep};

use crate::harness::{Api, try_send};

/// What a gateway counted after the last look and before a kill is lost: the figures are a little low.
const EVERY: Duration = Duration::from_millis(300);
const WITHIN: Duration = Duration::from_secs(1);

#[derive(Clone, Default)]
pub(crate) struct Recovered {
    commits: Arc<AtomicU64>,
    aborts: Arc<AtomicU64>,
}

impl Recovered {
    /// Looks for as long as `tasks` lives.
    pub(crate) fn watch(&self, gateways: &[String], tasks: &mut JoinSet<()>) {
        for gateway in gateways {
            let (api, recovered) = (Api::new(gateway), self.clone());
            tasks.spawn(async move {
                let mut before = HashMap::new();
                loop {
                    sleep(EVERY).await;
                    let asked = try_send(api.request(Method::GET, "/metrics").timeout(WITHIN)).await;
                    let Ok(answer) = asked else { continue };
                    for (decision, sum) in [("COMMIT", &recovered.commits), ("ABORT", &recovered.aborts)] {
                        let now = counted(&answer.text, decision);
                        let last = before.insert(decision, now).unwrap_or(0);
                        // Less than before: it was started again.
                        sum.fetch_add(if now < last { now } else { now - last }, Ordering::SeqCst);
                    }
                }
            });
        }
    }

    pub(crate) fn summary(&self) -> String {
        let (commits, aborts) = (self.commits.load(Ordering::SeqCst), self.aborts.load(Ordering::SeqCst));
        format!("{commits} commits, {aborts} aborts")
    }
}

fn counted(metrics: &str, decision: &str) -> u64 {
    let name = format!("notifyx_2pc_recovered_total{{decision=\"{decision}\"}} ");
    metrics.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap_or(0)
}

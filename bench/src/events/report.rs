//! What was measured, for people and for programs.

use std::fmt;

use serde::Serialize;

use super::{Backend, Burst, Door, Events, Figures, Set, peers::Beside};
use crate::{disk::Disk, latency::Latency, machine::Machine, postgres::Settings};

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    machine: Machine,
    postgres: Option<Settings>,
    door: Door,
    payload_bytes: u32,
    batch: u32,
    connections: u32,
    categories: u32,
    clients: u32,
    seconds: u32,
    disk_before: Disk,
    disk_after: Disk,
    figures: Vec<Figures>,
    peers: Vec<Beside>,
    ratios: Vec<Ratio>,
}

/// Notifyx on Postgres beside a peer there, at one rate.
#[derive(Debug, Serialize)]
struct Ratio {
    peer: &'static str,
    rate: u32,
    /// Our rate by the peer's.
    posted: f64,
    /// The peer's lateness by ours: how many times as late it is.
    p50: f64,
    p99: f64,
}

impl Report {
    pub(super) fn new(
        machine: Machine,
        postgres: Option<Settings>,
        args: &Events,
        [disk_before, disk_after]: [Disk; 2],
        figures: Vec<Figures>,
        peers: Vec<Beside>,
    ) -> Self {
        let ratios = ratios(&figures, &peers);
        let Events { door, payload: payload_bytes, batch, connections, categories, clients, seconds, .. } = *args;
        Self {
            machine,
            postgres,
            door,
            payload_bytes,
            batch,
            connections,
            categories,
            clients,
            seconds,
            disk_before,
            disk_after,
            figures,
            peers,
            ratios,
        }
    }
}

fn ratios(figures: &[Figures], peers: &[Beside]) -> Vec<Ratio> {
    let ours = figures.iter().find(|figures| figures.backend == Backend::Postgres);
    let Some(Set { bursts, .. }) = ours.and_then(|figures| figures.sets.first()) else { return Vec::new() };
    let ratio = |beside: &Beside| {
        let Beside::Peer(peer) = beside else { return None };
        let burst = bursts.iter().find(|burst| burst.rate == peer.rate)?;
        Some(Ratio {
            peer: peer.name,
            rate: peer.rate,
            posted: burst.posted_per_s / peer.told.insert_per_s,
            p50: peer.told.late_ms.p50 / burst.late.percentile_ms(50.0),
            p99: peer.told.late_ms.p99 / burst.late.percentile_ms(99.0),
        })
    };
    peers.iter().filter_map(ratio).collect()
}

fn late(late: &Latency) -> String {
    let [p50, p99, max] = [50.0, 99.0, 100.0].map(|percentile| late.percentile_ms(percentile));
    format!("{p50:.1} / {p99:.1} / {max:.1}")
}

fn maybe(value: Option<f64>) -> String {
    value.map_or_else(|| "-".into(), |value| format!("{value:.2}"))
}

impl Burst {
    fn line(&self, f: &mut fmt::Formatter<'_>, waiting: u32, scheduled_per_s: f64) -> fmt::Result {
        writeln!(
            f,
            "{waiting:>10} {scheduled_per_s:>12.0} {:>8} {:>9} {:>10.0} {:>24} {:>7} {:>7.2}",
            self.rate,
            self.events,
            self.posted_per_s,
            late(&self.late),
            maybe(self.server_cpu),
            self.client_cpu
        )
    }
}

impl Figures {
    fn tell(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\n{}", self.backend.as_str())?;
        writeln!(
            f,
            "{:>10} {:>12} {:>8} {:>9} {:>10} {:>24} {:>7} {:>7}",
            "waiting", "scheduled/s", "due/s", "events", "posted/s", "late p50 / p99 / max ms", "CPU", "client"
        )?;
        for set in &self.sets {
            for burst in &set.bursts {
                burst.line(f, set.waiting, set.scheduled_per_s)?;
            }
        }
        if let [without, with, ..] = &self.sets[..] {
            write!(f, "with ÷ without: scheduled/s {:.2}", with.scheduled_per_s / without.scheduled_per_s)?;
            for (without, with) in without.bursts.iter().zip(&with.bursts) {
                let [with_ms, without_ms] = [with, without].map(|burst| burst.late.percentile_ms(99.0));
                write!(f, ", p99 at {}/s {:.2}", with.rate, with_ms / without_ms)?;
            }
            writeln!(f)?;
        }
        let Some(memory) = &self.memory else { return Ok(()) };
        let mb = |bytes: u64| bytes as f64 / 1e6;
        write!(f, "resident MB: {:.0} before, {:.0} after", mb(memory.before), mb(memory.after))?;
        if let Some((count, bytes)) = memory.waiting {
            write!(f, ", {:.0} with {count} that wait", mb(bytes))?;
        }
        if let Some(bytes) = memory.idle_category {
            write!(f, "; {bytes:.0} bytes for an idle category with an event")?;
        }
        writeln!(f)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.machine)?;
        if let Some(postgres) = &self.postgres {
            writeln!(f, "{postgres}")?;
        }
        for (when, disk) in [("before", &self.disk_before), ("after", &self.disk_after)] {
            writeln!(
                f,
                "disk {when:<6} {:.0} fdatasync/s, {:.0} SQLite commits/s (one row, FULL)",
                disk.fdatasyncs_per_s, disk.sqlite_commits_per_s
            )?;
        }
        let door = match self.door {
            Door::Gateway => "posted over REST, heard at plain WebSockets",
            Door::Events => "posted to and heard from the events service itself, over gRPC",
        };
        writeln!(
            f,
            "data of {} bytes, {} a request, {} connections, {} categories, {} clients each, for {} s; {door}",
            self.payload_bytes, self.batch, self.connections, self.categories, self.clients, self.seconds
        )?;
        for figures in &self.figures {
            figures.tell(f)?;
        }
        if !self.peers.is_empty() {
            writeln!(f, "\nbeside it on the same Postgres, late at the handler")?;
            writeln!(f, "{:>24} {:>8} {:>9} {:>10} {:>26}", "", "due/s", "jobs", "added/s", "late p50 / p99 / max ms")?;
        }
        for beside in &self.peers {
            match beside {
                Beside::Skipped(skipped) => writeln!(f, "{:>24} skipped: {}", skipped.name, skipped.why)?,
                Beside::Peer(peer) => {
                    let (told, late) = (&peer.told, &peer.told.late_ms);
                    let name = format!("{} {}", peer.name, told.version);
                    let late = format!("{:.1} / {:.1} / {:.1}", late.p50, late.p99, late.max);
                    writeln!(f, "{name:>24} {:>8} {:>9} {:>10.0} {late:>26}", peer.rate, peer.jobs, told.insert_per_s)?;
                    writeln!(f, "{:>24} Node {}, {}", "", told.node, told.settings)?;
                }
            }
        }
        for ratio in &self.ratios {
            writeln!(
                f,
                "notifyx beside {}, {} due per second: {:.2} × as many posted/s; the other is {:.1} × as late at p50, {:.1} × at p99",
                ratio.peer, ratio.rate, ratio.posted, ratio.p50, ratio.p99
            )?;
        }
        Ok(())
    }
}

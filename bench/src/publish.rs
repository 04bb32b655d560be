//! Publishes through two-phase commit, beside the same rows written without it.
//!
//! What is measured takes turns within the same run, round by round: the machine drifts, and only what was measured side by
//! side can be compared.

mod groups;
mod load;
mod report;
mod stand;

use std::time::Duration;

use clap::Args;

use self::{
    groups::Groups,
    load::{Tally, run_for},
    report::Report,
    stand::{Backend, Stand, Subject},
};
use crate::{
    args::{Measured, Which, which},
    disk::Disk,
    error::Error,
    machine::{Machine, allow_files, pin_to},
    payload,
    process::Process,
};

/// Before each figure, unmeasured.
const WARM_UP: Duration = Duration::from_millis(300);

#[derive(Clone, Debug, Args)]
pub(crate) struct Publish {
    #[command(flatten)]
    pub(crate) measured: Measured,
    /// Measure it on Postgres too: on a server that is started beside SQLite's files, or at this URL without a database
    #[arg(long, value_name = "URL", requires = "notifyx", num_args = 0..=1, default_missing_value = "own", value_parser = which)]
    pub(crate) postgres: Option<Which>,
    /// Measure the same rows beside it, written as plain local transactions and with PREPARE TRANSACTION
    #[arg(long, requires = "notifyx")]
    pub(crate) yardstick: bool,
    /// Concurrent publishers, each with its own account, topic and connection; several are measured one after the other
    #[arg(long, value_name = "C", value_delimiter = ',', default_values_t = [1, 8, 64, 256], value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) publishers: Vec<u32>,
    /// Concurrent connections of one account to one topic, measured last; 0: none
    #[arg(long, value_name = "C", default_value_t = 64, value_parser = clap::value_parser!(u32).range(0..=4096))]
    pub(crate) shared: u32,
    /// Rounds; each measures everything once
    #[arg(long, value_name = "R", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) rounds: u32,
    /// How long each is measured in each round
    #[arg(long, value_name = "S", default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(crate) seconds: u64,
    /// Bytes of each message
    #[arg(long, value_name = "BYTES", default_value_t = 200, value_parser = clap::value_parser!(u32).range(payload::BYTES_MIN as i64..=65_536))]
    pub(crate) payload: u32,
}

/// So many at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Point {
    publishers: u32,
    /// All of one account to one topic.
    shared: bool,
}

/// One subject at one point.
#[derive(Debug)]
struct Round {
    backend: Backend,
    subject: Subject,
    point: Point,
    per_s: f64,
    tally: Tally,
    /// Of the platform, or of the yardstick, with Postgres' share where there is one.
    cpu_ms: Option<f64>,
    /// Of the publishers.
    client_cpu_ms: f64,
    /// The coordinator's.
    groups: Option<Groups>,
}

/// Measures, and answers what to print.
pub(crate) async fn run(args: &Publish) -> Result<Report, Error> {
    let most = args.publishers.iter().copied().chain([args.shared]).max().unwrap_or(0);
    // One measurement's connections are closed when those of the next are made, or a little later.
    allow_files(u64::from(most), 2)?;
    let postgres = match &args.postgres {
        None => None,
        Some(which) => Some(which.start(args.measured.data.as_deref(), args.measured.pin)?),
    };
    if args.measured.pin {
        pin_to(1)?;
    }
    let machine = Machine::here(args.measured.pin);
    let stands = stand::all(args, postgres.as_ref()).await?;
    let settings = match &postgres {
        Some(postgres) => Some(postgres.settings().await?),
        None => None,
    };
    let disk_before = Disk::measure(args.measured.data.as_deref()).await?;
    let mut rounds = Vec::new();
    for number in 1..=args.rounds {
        for point in args.points() {
            for stand in &stands {
                for subject in stand.subjects(point) {
                    eprintln!("round {number}: {} on {}, {point}", subject.as_str(), stand.backend.as_str());
                    rounds.push(measure(args, stand, subject, point).await?);
                }
            }
        }
    }
    let disk_after = Disk::measure(args.measured.data.as_deref()).await?;
    drop(stands);
    if let Some(postgres) = postgres {
        postgres.clean().await?;
    }
    Ok(Report::new(machine, settings, args, [disk_before, disk_after], &rounds))
}

async fn measure(args: &Publish, stand: &Stand, subject: Subject, point: Point) -> Result<Round, Error> {
    let (workers, handle) = stand.workers(subject, point).await?;
    let (_, workers) = run_for(WARM_UP, workers, args.payload, handle).await?;
    let groups_before = stand.groups(subject).await?;
    let (cpu_before, client_before) = (stand.cpu_s(subject)?, Process::this().cpu_s()?);
    let (tally, _) = run_for(Duration::from_secs(args.seconds), workers, args.payload, handle).await?;
    let (cpu_after, client_after) = (stand.cpu_s(subject)?, Process::this().cpu_s()?);
    let groups_after = stand.groups(subject).await?;
    let each = |cpu_s: f64| cpu_s * 1e3 / tally.answered().max(1) as f64;
    Ok(Round {
        backend: stand.backend,
        subject,
        point,
        per_s: tally.latency.count() as f64 / tally.took.as_secs_f64(),
        cpu_ms: cpu_before.zip(cpu_after).map(|(before, after)| each(after - before)),
        client_cpu_ms: each(client_after - client_before),
        groups: groups_before.zip(groups_after).map(|(before, after)| after.since(&before)),
        tally,
    })
}

impl Publish {
    fn points(&self) -> impl Iterator<Item = Point> {
        let own = self.publishers.iter().map(|&publishers| Point { publishers, shared: false });
        own.chain((self.shared > 0).then_some(Point { publishers: self.shared, shared: true }))
    }
}

impl std::fmt::Display for Point {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at once{}", self.publishers, if self.shared { ", one topic" } else { "" })
    }
}

//! Events at their time: how fast they are scheduled, and how late each arrives at a client that listens.
//!
//! Both with an empty store and with many that wait in it, for the second must not slow the first. Lateness is the arrival at the client
//! minus the event's `fireAt`, by the clock that both share.

mod burst;
mod door;
mod memory;
mod peers;
mod report;

use std::{path::PathBuf, time::Duration};

use clap::Args;
use serde::Serialize;

use self::{
    burst::{Burst, Numbers},
    door::{Door, Stand},
    memory::Memory,
    peers::Beside,
    report::Report,
};
use crate::{
    args::{Measured, Which, which},
    disk::Disk,
    error::Error,
    machine::{Machine, allow_files, pin_to},
    notifyx::Notifyx,
    payload,
    postgres::Postgres,
    process::Process,
};

/// The far events lie over a day, so that none of them fires while anything is measured.
const FAR: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(Clone, Debug, Args)]
pub(crate) struct Events {
    #[command(flatten)]
    pub(crate) measured: Measured,
    /// Measure it on Postgres too: on a server that is started beside SQLite's files, or at this URL without a database
    #[arg(long, value_name = "URL", requires = "notifyx", num_args = 0..=1, default_missing_value = "own", value_parser = which)]
    pub(crate) postgres: Option<Which>,
    /// Measure graphile-worker and pg-boss beside it, on the same Postgres: the folder with their programs
    #[arg(long, value_name = "DIR", requires = "postgres", num_args = 0..=1, default_missing_value = "bench/peers")]
    pub(crate) peers: Option<PathBuf>,
    /// By which door: the gateway's, as everyone, or the events service's own
    #[arg(long, value_enum, default_value_t = Door::Gateway)]
    pub(crate) door: Door,
    /// Connections that post
    #[arg(long, value_name = "C", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) connections: u32,
    /// Events per request
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) batch: u32,
    /// Categories over which the events are spread, each with clients of its own
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) categories: u32,
    /// Clients that listen to each category
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) clients: u32,
    /// Events due per second, evenly spread; several are measured one after the other
    #[arg(long, value_name = "R", value_delimiter = ',', default_values_t = [1_000, 10_000], value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) rates: Vec<u32>,
    /// For how long
    #[arg(long, value_name = "S", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub(crate) seconds: u32,
    /// Events that are scheduled for the rate of scheduling
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub(crate) scheduled: u32,
    /// Events that wait in the store when all is measured again; 0: it is not
    #[arg(long, value_name = "N", default_value_t = 1_000_000, value_parser = clap::value_parser!(u32).range(0..=10_000_000))]
    pub(crate) waiting: u32,
    /// Categories with one event each that are weighed; 0: none
    #[arg(long, value_name = "N", default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    pub(crate) idle: u32,
    /// Bytes of each event's data
    #[arg(long, value_name = "BYTES", default_value_t = 200, value_parser = clap::value_parser!(u32).range(payload::BYTES_MIN as i64..=65_536))]
    pub(crate) payload: u32,
}

/// On which database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Backend {
    Sqlite,
    Postgres,
    /// Whatever the platform at `--server` keeps its data in.
    Unknown,
}

impl Backend {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Sqlite => "SQLite",
            Self::Postgres => "Postgres",
            Self::Unknown => "its databases",
        }
    }
}

/// All that was measured on one database.
#[derive(Debug, Serialize)]
struct Figures {
    backend: Backend,
    /// With nothing else in the store, and then with what waits there.
    sets: Vec<Set>,
    memory: Option<Memory>,
}

/// Measured while so many events waited in the store.
#[derive(Debug, Serialize)]
struct Set {
    waiting: u32,
    scheduled_per_s: f64,
    bursts: Vec<Burst>,
}

/// Measures, and answers what to print.
pub(crate) async fn run(args: &Events) -> Result<Report, Error> {
    allow_files(u64::from(args.clients * args.categories + args.connections), 2)?;
    let postgres = match &args.postgres {
        None => None,
        Some(which) => Some(which.start(args.measured.data.as_deref(), args.measured.pin)?),
    };
    if args.measured.pin {
        pin_to(1)?;
    }
    let machine = Machine::here(args.measured.pin);
    let settings = match &postgres {
        Some(postgres) => Some(postgres.settings().await?),
        None => None,
    };
    let disk_before = Disk::measure(args.measured.data.as_deref()).await?;
    let core = args.measured.pin.then_some(0);
    let platform = args.measured.find(core)?;
    let platform = platform.ok_or_else(|| Error::failed("nothing to measure: --notifyx PROGRAM or --server ADDR"))?;
    let backend = if args.measured.notifyx.is_some() { Backend::Sqlite } else { Backend::Unknown };
    let mut figures = vec![measure(args, backend, platform).await?];
    let mut beside = Vec::new();
    if let (Some(postgres), Some(program)) = (&postgres, &args.measured.notifyx) {
        let url = postgres.text("up");
        let platform = Notifyx::start(program, core, args.measured.data.as_deref(), Some(&url))?;
        figures.push(measure(args, Backend::Postgres, platform).await?);
        beside = peers(args, postgres).await?;
    }
    let disk_after = Disk::measure(args.measured.data.as_deref()).await?;
    if let Some(postgres) = postgres {
        postgres.clean().await?;
    }
    Ok(Report::new(machine, settings, args, [disk_before, disk_after], figures, beside))
}

async fn measure(args: &Events, backend: Backend, platform: Notifyx) -> Result<Figures, Error> {
    eprintln!("{}: clients connect", backend.as_str());
    let process = platform.process;
    let stand = Stand::connect(args, platform).await?;
    let mut numbers = Numbers::default();
    // What a process makes once is not the events'.
    burst::warm_up(&stand, args, &mut numbers).await?;
    let rss = || process.map(Process::rss_bytes).transpose();
    let (rss_before, mut waiting) = (rss()?, 0);
    let mut sets = vec![set(&stand, args, backend, waiting, &mut numbers).await?];
    waiting += args.scheduled;
    let rss_some = rss()?;
    let mut rss_many = None;
    if args.waiting > 0 {
        let more = args.waiting.saturating_sub(waiting);
        eprintln!("{}: {more} more events to wait", backend.as_str());
        burst::schedule_far(&stand, args, more).await?;
        waiting += more;
        rss_many = rss()?.map(|rss| (waiting, rss));
        sets.push(set(&stand, args, backend, waiting, &mut numbers).await?);
    }
    let rss_full = rss()?;
    if args.idle > 0 {
        eprintln!("{}: an event in each of {} categories", backend.as_str(), args.idle);
        burst::schedule_apart(&stand, args).await?;
    }
    let memory = memory::told(args, [rss_before, rss_some, rss_full, rss()?], rss_many);
    stand.stop()?;
    Ok(Figures { backend, sets, memory })
}

async fn set(
    stand: &Stand,
    args: &Events,
    backend: Backend,
    waiting: u32,
    numbers: &mut Numbers,
) -> Result<Set, Error> {
    eprintln!("{}: {} events are scheduled while {waiting} wait", backend.as_str(), args.scheduled);
    let scheduled_per_s = burst::schedule_far(stand, args, args.scheduled).await?;
    let mut bursts = Vec::new();
    for &rate in &args.rates {
        eprintln!("{}: {rate} events per second fire while {waiting} wait", backend.as_str());
        bursts.push(burst::fire(stand, args, rate, numbers).await?);
    }
    Ok(Set { waiting, scheduled_per_s, bursts })
}

async fn peers(args: &Events, postgres: &Postgres) -> Result<Vec<Beside>, Error> {
    let Some(folder) = &args.peers else { return Ok(Vec::new()) };
    let mut all = Vec::new();
    for &rate in &args.rates {
        all.extend(peers::measure(args, folder, rate, postgres).await?);
    }
    Ok(all)
}

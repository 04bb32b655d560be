//! Publishes through two-phase commit over REST: each publisher sends its next message when the last one was answered.

use std::{
    collections::BTreeMap,
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Args;
use notifyx_wire::rest::persist::Topic;
use serde::Serialize;
use tokio::task::JoinSet;

use crate::{
    args::Measured,
    disk::Disk,
    error::Error,
    latency::Latency,
    machine::{Machine, allow_files, pin_to},
    notifyx::{self, Account, Notifyx},
    payload,
    process::Process,
};

/// Accounts are made this many at a time: hashing a password takes a core for a while, and the service bounds the queue.
const ACCOUNTS_AT_ONCE: usize = 4;
/// Before each figure, unmeasured.
const WARM_UP: Duration = Duration::from_millis(300);

#[derive(Clone, Debug, Args)]
pub(crate) struct Publish {
    #[command(flatten)]
    pub(crate) measured: Measured,
    /// Concurrent publishers, each with its own account, topic and connection; several are measured one after the other
    #[arg(long, value_name = "C", value_delimiter = ',', default_values_t = [1, 8, 64, 256], value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) publishers: Vec<u32>,
    /// Concurrent connections of one account to one topic, measured last; 0: none
    #[arg(long, value_name = "C", default_value_t = 64, value_parser = clap::value_parser!(u32).range(0..=4096))]
    pub(crate) shared: u32,
    /// How long each is measured
    #[arg(long, value_name = "S", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=600))]
    pub(crate) seconds: u64,
    /// Bytes of each message
    #[arg(long, value_name = "BYTES", default_value_t = 200, value_parser = clap::value_parser!(u32).range(payload::BYTES_MIN as i64..=65_536))]
    pub(crate) payload: u32,
}

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    machine: Machine,
    payload_bytes: u32,
    seconds: u64,
    disk_before: Disk,
    disk_after: Disk,
    figures: Vec<Figures>,
}

#[derive(Debug, Serialize)]
struct Figures {
    publishers: u32,
    /// All of one account to one topic.
    shared: bool,
    /// Committed and applied (201) or decided (202).
    accepted_per_s: f64,
    /// Of the mean of both SQLite yardsticks.
    per_sqlite_commit: f64,
    /// Of those accepted.
    latency: Latency,
    /// Answers by HTTP status.
    statuses: BTreeMap<u16, u64>,
    server_cpu_ms_per_publish: Option<f64>,
    client_cpu_ms_per_publish: f64,
}

/// What one publisher, or all of them, got.
#[derive(Debug, Default)]
struct Tally {
    latency: Latency,
    statuses: BTreeMap<u16, u64>,
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.latency.add(&other.latency);
        for (status, count) in &other.statuses {
            *self.statuses.entry(*status).or_default() += count;
        }
    }
}

/// Measures, and answers what to print.
pub(crate) async fn run(args: &Publish) -> Result<Report, Error> {
    let most = args.publishers.iter().copied().chain([args.shared]).max().unwrap_or(0);
    allow_files(u64::from(most), 1)?;
    if args.measured.pin {
        pin_to(1)?;
    }
    let machine = Machine::here(args.measured.pin);
    let platform = args.measured.find(args.measured.pin.then_some(0))?;
    let platform = platform.ok_or_else(|| Error::failed("nothing to measure: --notifyx PROGRAM or --server ADDR"))?;
    let platform = Arc::new(platform);
    let owners = owners(&platform, args.publishers.iter().copied().max().unwrap_or(1)).await?;
    let disk_before = Disk::measure(args.measured.data.as_deref()).await?;

    let own = args.publishers.iter().map(|&count| (count, false));
    let mut figures = Vec::new();
    for (count, shared) in own.chain((args.shared > 0).then_some((args.shared, true))) {
        eprintln!("{count} publishers{}", if shared { " of one topic" } else { "" });
        let mut publishers = Vec::new();
        for number in 0..count as usize {
            let (account, topic) = &owners[if shared { 0 } else { number }];
            publishers.push(platform.publisher(account, topic).await?);
        }
        figures.push(measure(args, &platform, publishers, shared).await?);
    }
    let disk_after = Disk::measure(args.measured.data.as_deref()).await?;
    let sqlite = f64::midpoint(disk_before.sqlite_commits_per_s, disk_after.sqlite_commits_per_s);
    for measured in &mut figures {
        measured.per_sqlite_commit = measured.accepted_per_s / sqlite;
    }
    let (payload_bytes, seconds) = (args.payload, args.seconds);
    Ok(Report { machine, payload_bytes, seconds, disk_before, disk_after, figures })
}

/// Accounts with a topic each.
async fn owners(platform: &Arc<Notifyx>, count: u32) -> Result<Vec<(Account, Topic)>, Error> {
    eprintln!("registering {count} accounts at {}", platform.gateway);
    let (mut making, mut made) = (JoinSet::new(), Vec::new());
    for number in 0..count {
        let platform = platform.clone();
        making.spawn(async move {
            let account = platform.account(&format!("publisher{number}")).await?;
            let topic = platform.topic(&account, &format!("publish{number}")).await?;
            Ok::<_, Error>((account, topic))
        });
        if making.len() >= ACCOUNTS_AT_ONCE
            && let Some(one) = making.join_next().await
        {
            made.push(one.expect("making an account does not panic")?);
        }
    }
    while let Some(one) = making.join_next().await {
        made.push(one.expect("making an account does not panic")?);
    }
    Ok(made)
}

async fn measure(
    args: &Publish,
    platform: &Notifyx,
    publishers: Vec<notifyx::Publisher>,
    shared: bool,
) -> Result<Figures, Error> {
    let count = u32::try_from(publishers.len()).expect("made from a u32");
    let (_, publishers) = publish_for(WARM_UP, publishers, args.payload).await?;
    let server_cpu = || platform.process.map(Process::cpu_s).transpose();
    let (server_before, client_before) = (server_cpu()?, Process::this().cpu_s()?);
    let began = Instant::now();
    let (tally, _) = publish_for(Duration::from_secs(args.seconds), publishers, args.payload).await?;
    let took = began.elapsed().as_secs_f64();
    let (server_after, client_after) = (server_cpu()?, Process::this().cpu_s()?);
    let answered: u64 = tally.statuses.values().sum();
    let each = |cpu_s: f64| cpu_s * 1e3 / answered.max(1) as f64;
    Ok(Figures {
        publishers: count,
        shared,
        accepted_per_s: tally.latency.count() as f64 / took,
        per_sqlite_commit: 0.0,
        latency: tally.latency,
        statuses: tally.statuses,
        server_cpu_ms_per_publish: server_before.zip(server_after).map(|(before, after)| each(after - before)),
        client_cpu_ms_per_publish: each(client_after - client_before),
    })
}

/// All publish until the time is over; each finishes what it has begun.
async fn publish_for(
    span: Duration,
    publishers: Vec<notifyx::Publisher>,
    payload_bytes: u32,
) -> Result<(Tally, Vec<notifyx::Publisher>), Error> {
    let until = Instant::now() + span;
    let mut work = JoinSet::new();
    for mut publisher in publishers {
        work.spawn(async move {
            let mut tally = Tally::default();
            let mut seq = 0;
            while Instant::now() < until {
                let message = payload::text(seq, payload_bytes as usize);
                seq += 1;
                let sent = Instant::now();
                let status = publisher.publish(&message).await?;
                if matches!(status, 201 | 202) {
                    tally.latency.record_span(sent.elapsed());
                }
                *tally.statuses.entry(status).or_default() += 1;
            }
            Ok::<_, Error>((tally, publisher))
        });
    }
    let (mut all, mut rested) = (Tally::default(), Vec::new());
    while let Some(one) = work.join_next().await {
        let (tally, publisher) = one.expect("a publisher does not panic")?;
        all.add(&tally);
        rested.push(publisher);
    }
    Ok((all, rested))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.machine)?;
        for (when, disk) in [("before", &self.disk_before), ("after", &self.disk_after)] {
            writeln!(
                f,
                "disk {when:<6} {:.0} fdatasync/s, {:.0} SQLite commits/s (one row, FULL)",
                disk.fdatasyncs_per_s, disk.sqlite_commits_per_s
            )?;
        }
        writeln!(f, "messages of {} bytes, {} s each\n", self.payload_bytes, self.seconds)?;
        writeln!(
            f,
            "{:>10} {:<6} {:>11} {:>11} {:>17} {:>11} {:>11}  answers",
            "publishers", "topics", "accepted/s", "÷ SQLite", "p50 / p99 ms", "server CPU", "client CPU"
        )?;
        for figures in &self.figures {
            let latency =
                format!("{:.1} / {:.1}", figures.latency.percentile_ms(50.0), figures.latency.percentile_ms(99.0));
            let answers: Vec<_> = figures.statuses.iter().map(|(status, count)| format!("{status}: {count}")).collect();
            let server = figures.server_cpu_ms_per_publish.map_or_else(|| "-".into(), |ms| format!("{ms:.2} ms"));
            writeln!(
                f,
                "{:>10} {:<6} {:>11.0} {:>11.2} {:>17} {:>11} {:>8.2} ms  {}",
                figures.publishers,
                if figures.shared { "one" } else { "own" },
                figures.accepted_per_s,
                figures.per_sqlite_commit,
                latency,
                server,
                figures.client_cpu_ms_per_publish,
                answers.join(", ")
            )?;
        }
        Ok(())
    }
}

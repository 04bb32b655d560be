//! Fan-out: one topic, many sockets; messages are sent one or several at once, and the next when every socket has them.
//!
//! Targets are measured in turns within the same run, round by round: the machine drifts, and only what was measured side
//! by side can be compared.

mod report;

use std::{sync::Arc, time::Duration};

use clap::Args;
use serde::Serialize;
use tokio::{sync::Barrier, task::JoinSet, time::timeout};

use self::report::Report;
use crate::{
    args::Measured,
    connect,
    crowd::{Crowd, Tally},
    error::Error,
    flight::{Flight, Spans},
    machine::{Machine, allow_files, pin_to},
    notifyx::Notifyx,
    payload,
    plain::Plain,
    process::Process,
    target::{Name, Target},
};

/// A message that has not reached every socket by then never will.
const LANDING_TIMEOUT: Duration = Duration::from_secs(60);
/// Sockets rest before their memory is told: what joining needed is freed by then.
const REST: Duration = Duration::from_secs(1);
/// Before the first figure: allocators, caches and connections have their size.
const WARM_UP_MESSAGES: u32 = 20;

#[derive(Clone, Debug, Args)]
pub(crate) struct Fanout {
    #[command(flatten)]
    pub(crate) measured: Measured,
    /// Sockets that join the topic
    #[arg(long, value_name = "N", default_value_t = 5_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) sockets: u32,
    /// Turns per round: each sends as many messages as are to be in flight
    #[arg(long, value_name = "M", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) messages: u32,
    /// Messages in flight: so many are sent at once, the next when all have landed. Several numbers are measured in turns
    #[arg(long, value_name = "K", value_delimiter = ',', default_values_t = [1, 16], value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) in_flight: Vec<u32>,
    /// Rounds; each measures every target once
    #[arg(long, value_name = "R", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    pub(crate) rounds: u32,
    /// Bytes of each message
    #[arg(long, value_name = "BYTES", default_value_t = 200, value_parser = clap::value_parser!(u32).range(payload::BYTES_MIN as i64..=8192))]
    pub(crate) payload: u32,
    /// Accounts that the sockets belong to
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) accounts: u32,
    /// Measure plain `send()` of the same bytes to as many sockets beside it
    #[arg(long)]
    pub(crate) yardstick: bool,
    /// Measure an Nchan beside it (see nchan.sh): its address
    #[arg(long, value_name = "ADDR")]
    pub(crate) nchan: Option<std::net::SocketAddr>,
    /// The process id of Nchan's one worker
    #[arg(long, value_name = "PID", requires = "nchan")]
    pub(crate) nchan_pid: Option<Process>,
}

/// A target, and its subscribers.
#[derive(Debug)]
struct Stand {
    target: Target,
    crowd: Crowd,
    memory: Option<Memory>,
    /// CPU seconds of the server for one publish that nobody hears, by messages in flight.
    publish_cpu_s: Vec<Option<f64>>,
}

/// The server's resident memory.
#[derive(Clone, Copy, Debug, Serialize)]
struct Memory {
    rss_before_bytes: u64,
    rss_joined_bytes: u64,
    bytes_per_socket: f64,
}

/// One flight at one target.
#[derive(Debug)]
struct Round {
    target: Name,
    in_flight: u32,
    deliveries: u64,
    spans: Spans,
    tally: Tally,
    server_cpu_s: Option<f64>,
    /// Of which for publishing, as measured without subscribers.
    publish_cpu_s: Option<f64>,
    client_cpu_s: f64,
}

/// Measures, and answers what to print.
pub(crate) async fn run(args: &Fanout) -> Result<Report, Error> {
    let targets = [args.measured.is_some(), args.yardstick, args.nchan.is_some()].into_iter().filter(|&there| there);
    allow_files(u64::from(args.sockets), targets.count() as u64)?;
    if args.measured.pin {
        // Before any thread is made: all of them stay on it.
        pin_to(1)?;
    }
    let machine = Machine::here(args.measured.pin);
    let mut next_seq = 0;
    let mut stands = Vec::new();
    for target in targets_of(args).await? {
        stands.push(stand(target, args, &mut next_seq).await?);
    }
    let mut rounds = Vec::new();
    for number in 1..=args.rounds {
        for (place, &in_flight) in args.in_flight.iter().enumerate() {
            for stand in &stands {
                eprintln!("round {number}: {}, {in_flight} in flight", stand.target.name().as_str());
                let mut round = fly(stand, args, in_flight, args.messages * in_flight, &mut next_seq).await?;
                let published = f64::from(args.messages * in_flight);
                round.publish_cpu_s = stand.publish_cpu_s[place].map(|cpu| cpu * published);
                rounds.push(round);
            }
        }
    }
    let memory = stands.iter().filter_map(|stand| Some((stand.target.name(), stand.memory?))).collect();
    for stand in stands {
        stand.crowd.stop()?;
    }
    Ok(Report::new(machine, args, memory, &rounds))
}

async fn targets_of(args: &Fanout) -> Result<Vec<Target>, Error> {
    let core = args.measured.pin.then_some(0);
    let mut targets = Vec::new();
    if let Some(platform) = args.measured.find(core)? {
        targets.push(target(platform, args.accounts).await?);
    }
    if args.yardstick {
        targets.push(Target::Plain(Plain::start(core)?));
    }
    if let Some(server) = args.nchan {
        targets.push(Target::Nchan { server, process: args.nchan_pid });
    }
    if targets.is_empty() {
        return Err(Error::failed("nothing to measure: --notifyx PROGRAM, --server ADDR, --yardstick or --nchan ADDR"));
    }
    Ok(targets)
}

async fn target(platform: Notifyx, accounts: u32) -> Result<Target, Error> {
    eprintln!("registering {accounts} accounts at {}", platform.gateway);
    Target::notifyx(platform, accounts).await
}

/// Lets the sockets join, weighs them, warms up.
async fn stand(target: Target, args: &Fanout, next_seq: &mut u32) -> Result<Stand, Error> {
    let name = target.name().as_str();
    eprintln!("{name}: {} sockets join", args.sockets);
    let crowd = Crowd::start(target.heartbeat())?;
    // One socket first: what the server makes once is not the sockets'.
    let join =
        |count| connect::connect_all(target.server(), count, |n| target.greeting(n), |connected| crowd.add(connected));
    join(1)?;
    let rss = || target.process().map(Process::rss_bytes).transpose();
    tokio::time::sleep(REST).await;
    let before = rss()?;
    let others = args.sockets - 1;
    join(others)?;
    tokio::time::sleep(REST).await;
    let joined = rss()?;
    let memory = before.zip(joined).filter(|_| others > 0).map(|(before, joined)| Memory {
        rss_before_bytes: before,
        rss_joined_bytes: joined,
        bytes_per_socket: (joined as f64 - before as f64) / f64::from(others),
    });
    let mut stand = Stand { target, crowd, memory, publish_cpu_s: Vec::new() };
    eprintln!("{name}: warming up");
    fly(&stand, args, 1, WARM_UP_MESSAGES, next_seq).await?;
    for &in_flight in &args.in_flight {
        let cpu_s = quiet(&stand.target, args, in_flight).await?;
        stand.publish_cpu_s.push(cpu_s);
    }
    Ok(stand)
}

/// One flight: publishes `messages`, `in_flight` at a time, and waits until every socket has every one.
async fn fly(stand: &Stand, args: &Fanout, in_flight: u32, messages: u32, next_seq: &mut u32) -> Result<Round, Error> {
    let mut publishers = Vec::new();
    for _ in 0..in_flight {
        publishers.push(stand.target.publisher(args.payload as usize).await?);
    }
    let flight = Arc::new(Flight::new(*next_seq, messages, args.sockets, in_flight));
    *next_seq += messages;
    stand.crowd.begin(flight.clone())?;
    let server_cpu = || stand.target.process().map(Process::cpu_s).transpose();
    let (server_before, client_before) = (server_cpu()?, Process::this().cpu_s()?);

    let mut workers = JoinSet::new();
    // The next messages follow when all of these have landed: without it one of them would fly ahead of the others.
    let turn = Arc::new(Barrier::new(publishers.len()));
    for (worker, mut publisher) in (0..in_flight).zip(publishers) {
        let (flight, turn) = (flight.clone(), turn.clone());
        workers.spawn(async move {
            for seq in flight.of_worker(worker) {
                flight.sent(seq);
                publisher.publish(seq).await?;
                flight.answered(seq);
                if timeout(LANDING_TIMEOUT, flight.landed(worker)).await.is_err() {
                    let missing = flight.missing(seq);
                    return Err(Error::failed(format!(
                        "message {seq} has not reached {missing} sockets within {} s",
                        LANDING_TIMEOUT.as_secs()
                    )));
                }
                turn.wait().await;
            }
            Ok(())
        });
    }
    let mut flown = Ok(());
    while let Some(worker) = workers.join_next().await {
        flown = worker.expect("a publisher does not panic");
        if flown.is_err() {
            workers.abort_all();
            break;
        }
    }
    let (server_after, client_after) = (server_cpu()?, Process::this().cpu_s()?);
    let tally = stand.crowd.finish()?;
    if let Err(error) = flown {
        return Err(Error::failed(format!("{error} (sockets lost: {:?})", tally.lost)));
    }
    if tally.stray > 0 || !tally.lost.is_empty() {
        return Err(Error::failed(format!("{} stray deliveries, sockets lost: {:?}", tally.stray, tally.lost)));
    }
    Ok(Round {
        target: stand.target.name(),
        in_flight,
        deliveries: tally.latency.count(),
        spans: flight.spans(),
        tally,
        server_cpu_s: server_before.zip(server_after).map(|(before, after)| after - before),
        publish_cpu_s: None,
        client_cpu_s: client_after - client_before,
    })
}

/// CPU seconds of the server for one publish to a topic that nobody has joined.
async fn quiet(target: &Target, args: &Fanout, in_flight: u32) -> Result<Option<f64>, Error> {
    /// Enough that the clock's ticks of 10 ms do not matter: a publish costs the server about a millisecond or less.
    const MESSAGES: u32 = 512;
    let Some(process) = target.process() else { return Ok(None) };
    let each = MESSAGES / in_flight;
    let mut publishers = Vec::new();
    for _ in 0..in_flight {
        match target.quiet_publisher(args.payload as usize).await? {
            Some(publisher) => publishers.push(publisher),
            None => return Ok(None),
        }
    }
    let before = process.cpu_s()?;
    let mut workers = JoinSet::new();
    for mut publisher in publishers {
        workers.spawn(async move {
            for seq in 0..each {
                publisher.publish(seq).await?;
            }
            Ok::<_, Error>(())
        });
    }
    while let Some(worker) = workers.join_next().await {
        worker.expect("a publisher does not panic")?;
    }
    Ok(Some((process.cpu_s()? - before) / f64::from(each * in_flight)))
}

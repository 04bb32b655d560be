//! The enumeration: which cases there are, and that they reach everything.

use std::{
    collections::BTreeSet,
    io::Write,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use notifyx_commit::RequestHash;
use notifyx_database::Database;

use crate::{
    databases::{Backend, Owner, Place},
    points::{self, Case, Fault, Point, Process, Strike, Work, after, before},
    run::{Report, run},
};

/// Every point with every fault, in work that passes it.
fn singles() -> Vec<Case> {
    let mut cases = vec![Case { work: Work::Publish, patient: false, prelude: Vec::new(), strikes: Vec::new() }];
    for point in points::all() {
        for (work, prelude) in passing(point.name) {
            for fault in Fault::ALL {
                let strikes = vec![Strike { point, fault }];
                let case = Case { work, patient: false, prelude: prelude.clone(), strikes };
                // A gateway that waits for its store: one that does not asks again, before what is late arrives.
                if point.name.starts_with("coordinator.") && matches!(fault, Fault::Late | Fault::TooLate) {
                    cases.push(Case { patient: true, ..case.clone() });
                }
                cases.push(case);
            }
        }
    }
    cases
}

/// The work in which a point is passed, and what leads there.
fn passing(name: &'static str) -> Vec<(Work, Vec<Strike>)> {
    let crash = |point, process| Strike { point, fault: Fault::Crash(process) };
    let outage = |point, process| Strike { point, fault: Fault::Outage(process) };
    let decided = after("coordinator.decide");
    match name {
        // Pauses are written down when a participant stays away.
        "coordinator.defer" => vec![(Work::Publish, vec![outage(decided, Process::Counter)])],
        // Work is left behind before the decision, and after it.
        "coordinator.claim" => vec![
            (Work::Publish, vec![crash(after("coordinator.begin"), Process::Driver)]),
            (Work::Publish, vec![crash(decided, Process::Driver)]),
        ],
        "coordinator.release" => vec![(Work::Stop, vec![outage(decided, Process::Persist)])],
        "coordinator.retry" => vec![(Work::Mend, vec![Strike { point: decided, fault: Fault::Forgotten }])],
        "coordinator.resolve" => vec![(Work::Resolve, vec![Strike { point: decided, fault: Fault::Forgotten }])],
        "coordinator.trim" | "persist.publish" | "persist.expire" | "persist.forget" | "counter.expire"
        | "counter.forget" => vec![(Work::Age, Vec::new())],
        // A prepare is asked for twice: only with the first one lost does the rollback overtake the other.
        "send.persist.prepare" | "send.counter.prepare" | "persist.prepare" | "counter.prepare" => {
            vec![(Work::Publish, Vec::new()), (Work::Publish, vec![Strike { point: before(name), fault: Fault::Lost }])]
        }
        "coordinator.begin" | "send.persist.commit" | "send.counter.commit" | "persist.commit" | "counter.commit" => {
            vec![(Work::Publish, Vec::new()), (Work::Repeat, Vec::new())]
        }
        _ => vec![(Work::Publish, Vec::new())],
    }
}

/// For every first fault, every fault at every point that was passed after it.
fn pairs(singles: &[(Case, Report)]) -> Vec<Case> {
    let mut pairs = Vec::new();
    let begins = |case: &Case| case.work == Work::Publish && leaves_work(case) && !strikes_twice(case);
    for (case, report) in singles.iter().filter(|(case, _)| begins(case)) {
        for point in &report.since {
            for fault in Fault::ALL {
                let mut strikes = case.strikes.clone();
                strikes.push(Strike { point: *point, fault });
                pairs.push(Case { strikes, ..case.clone() });
            }
        }
    }
    pairs
}

/// Slowness leaves nothing to recover from.
fn leaves_work(case: &Case) -> bool {
    case.strikes.iter().any(|strike| strike.fault != Fault::Slow)
}

/// At one send or write: a pair already.
fn strikes_twice(case: &Case) -> bool {
    case.prelude.iter().any(|led| case.strikes.iter().any(|strike| strike.point.name == led.point.name))
}

struct Outcome {
    reports: Vec<(Case, Report)>,
    took: Duration,
}

/// Three pools of four connections each make fewer than the hundred of a Postgres.
const THREADS_MAX: usize = 6;

/// All, unless the environment names one: by a part of it, or, for a pair, as a whole; then also what leads to it.
fn is_wanted(case: &Case) -> bool {
    only().is_none_or(|only| case.to_string().contains(&only) || only.starts_with(&case.to_string()))
}

fn only() -> Option<String> {
    std::env::var("NOTIFYX_FAULTS_CASE").ok()
}

/// Runs cases on a few threads, each with databases of its own.
fn run_all(backend: Backend, cases: Vec<Case>) -> Outcome {
    let (began, next) = (Instant::now(), AtomicUsize::new(0));
    let verbose = std::env::var_os("NOTIFYX_FAULTS_VERBOSE").is_some();
    let cases: Vec<Case> = cases.into_iter().filter(is_wanted).collect();
    let reports = Mutex::new(Vec::new());
    // Two threads per core: each waits for its database's half of the time. A Postgres has only so many connections.
    let threads = 2 * std::thread::available_parallelism().map_or(2, usize::from).min(THREADS_MAX / 2);
    std::thread::scope(|scope| {
        for _ in 0..threads.min(cases.len()) {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                let place = runtime.block_on(Place::new(backend));
                loop {
                    let at = next.fetch_add(1, SeqCst);
                    let Some(case) = cases.get(at) else { break };
                    if verbose {
                        say(&format!("{at} {case}"));
                    }
                    let started = Instant::now();
                    let report = met(&place, case);
                    if verbose {
                        say(&format!("{at} {case}: {:?} {:?}", started.elapsed(), report.violations));
                    }
                    reports.lock().unwrap().push((at, report));
                }
            });
        }
    });
    let mut reports = reports.into_inner().unwrap();
    reports.sort_by_key(|(at, _)| *at);
    let reports = cases.into_iter().zip(reports.into_iter().map(|(_, report)| report)).collect();
    Outcome { reports, took: began.elapsed() }
}

/// Tries of a pair whose second strike hit nothing: one in a hundred, because databases answer when they like.
const TRIES: usize = 5;

fn met(place: &Place, case: &Case) -> Report {
    let mut report = run(place, case);
    for _ in 1..TRIES {
        if !report.missed || !report.violations.is_empty() {
            break;
        }
        report = run(place, case);
    }
    report
}

impl Outcome {
    fn say(&self, what: &str) {
        say(&format!("{} {what} in {:.1} s", self.reports.len(), self.took.as_secs_f64()));
    }

    fn hold(&self) {
        let broken: Vec<&(Case, Report)> =
            self.reports.iter().filter(|(_, report)| !report.violations.is_empty()).collect();
        for (case, report) in broken.iter().take(20) {
            say(&format!("BROKEN: {case}\n    {}", report.violations.join("\n    ")));
        }
        assert!(broken.is_empty(), "{} of {} cases break the protocol", broken.len(), self.reports.len());
    }

    /// Those of a pair's second strikes that hit nothing in any try. Few, or the pairs are not what they say.
    fn missed(&self) -> usize {
        let missed = self.reports.iter().filter(|(_, report)| report.missed).count();
        assert!(missed * 10 <= self.reports.len(), "{missed} of {} pairs hit nothing", self.reports.len());
        missed
    }

    fn passed(&self) -> BTreeSet<Point> {
        self.reports.iter().flat_map(|(_, report)| report.passed.iter().copied()).collect()
    }
}

/// Past the capture of the test runner: how much was tried is part of the result.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "faults: {text}");
}

fn everything_was_passed(passed: &BTreeSet<Point>) {
    if only().is_some() {
        return;
    }
    let named: BTreeSet<Point> = points::all().collect();
    let missed: Vec<String> = named.difference(passed).map(ToString::to_string).collect();
    assert!(missed.is_empty(), "no case reaches {missed:?}");
    let unnamed: Vec<String> = passed.difference(&named).map(ToString::to_string).collect();
    assert!(unnamed.is_empty(), "reached, and not named: {unnamed:?}");
}

/// One in so many, chosen by their names: pairs for half a minute on two cores, single cases on Postgres for ten seconds.
const PAIRS: u64 = 53;
const ON_POSTGRES: u64 = 11;

/// Always the same ones, whatever else is on the list. The environment may ask for all of them, or for one in another number.
fn sampled(cases: Vec<Case>, one_in: u64) -> Vec<Case> {
    let asked = std::env::var("NOTIFYX_FAULTS").ok();
    let one_in = match asked.as_deref() {
        _ if only().is_some() => 1,
        None => one_in,
        Some("all") => 1,
        Some(number) => number.parse().ok().filter(|n| *n > 0).expect("NOTIFYX_FAULTS is `all` or a number"),
    };
    let drawn = |case: &Case| {
        let hash = RequestHash::of("", &case.to_string()).0;
        hash.iter().fold(0, |sum, byte| (sum * 256 + u64::from(*byte)) % one_in) == 0
    };
    cases.into_iter().filter(drawn).collect()
}

#[test]
fn the_invariants_hold_whatever_fails_wherever_it_fails() {
    let singles = run_all(Backend::Sqlite, singles());
    singles.say("single cases");
    singles.hold();
    everything_was_passed(&singles.passed());

    let pairs = pairs(&singles.reports);
    let all = pairs.len();
    let pairs = run_all(Backend::Sqlite, sampled(pairs, PAIRS));
    pairs.say(&format!("of {all} pairs during recovery"));
    pairs.hold();
    let missed = pairs.missed();
    let (singles, pairs) = (singles.reports.len(), pairs.reports.len());
    let reached =
        if only().is_none() { format!("; all {} points reached", points::all().count()) } else { String::new() };
    say(&format!("{singles} single cases, {pairs} pairs, {missed} of them without a second fault (not met){reached}"));
}

#[test]
fn the_invariants_hold_on_postgres_too() {
    let singles = singles();
    let all = singles.len();
    let chosen = run_all(Backend::Postgres, sampled(singles, ON_POSTGRES));
    chosen.say(&format!("of {all} single cases, on Postgres"));
    chosen.hold();
}

#[test]
fn a_write_outside_of_every_point_is_noticed() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let violations = runtime.block_on(async {
        let place = Place::new(Backend::Sqlite).await;
        let databases = place.databases().await;
        databases.count();
        let Database::Sqlite(sqlite) = databases.get(Owner::Counter) else { unreachable!("it is SQLite") };
        sqlite.begin().await.unwrap().commit().await.unwrap();
        let mut violations = Vec::new();
        databases.compare(&mut violations);
        violations
    });
    assert_eq!(violations, ["Counter: 1 commits, 1 of them outside of every fault point; the points saw 0 to 0"]);
}

/// What the coordinator can send goes through `Participant`, and what it keeps through `CoordinatorStore`: it knows nobody
/// else who has a socket or a file.
#[test]
fn the_coordinator_reaches_the_world_through_its_ports_only() {
    let manifest: toml::Table = include_str!("../../crates/commit/Cargo.toml").parse().unwrap();
    let known: Vec<&str> = manifest["dependencies"].as_table().unwrap().keys().map(String::as_str).collect();
    let harmless = [
        "async-trait",
        "notifyx-batch",
        "notifyx-model",
        "notifyx-wire",
        "prometheus",
        "rand",
        "serde",
        "serde_json",
        "sha2",
        "thiserror",
        "tokio",
        "tokio-util",
        "tracing",
        "uuid",
    ];
    assert_eq!(known, harmless, "if the new one can send or write, it needs fault points");
    let sources = concat!(
        include_str!("../../crates/commit/src/coordinator.rs"),
        include_str!("../../crates/commit/src/coordinator/group.rs"),
        include_str!("../../crates/commit/src/coordinator/settle.rs"),
        include_str!("../../crates/commit/src/coordinator/recovery.rs"),
    );
    assert!(!sources.contains("net::") && !sources.contains("fs::"), "no sockets and no files of tokio's own");
}

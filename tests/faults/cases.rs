//! The enumeration: which cases there are, and that they reach everything.

use std::{
    collections::BTreeSet,
    io::Write,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use crate::{
    databases::{Backend, Databases},
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
        "coordinator.begin" | "send.persist.commit" | "send.counter.commit" | "persist.commit" | "counter.commit" => {
            vec![(Work::Publish, Vec::new()), (Work::Repeat, Vec::new())]
        }
        _ => vec![(Work::Publish, Vec::new())],
    }
}

/// For every first fault, every fault at every point that was passed after it.
fn pairs(singles: &[(Case, Report)]) -> Vec<Case> {
    let mut pairs = Vec::new();
    for (case, report) in singles.iter().filter(|(case, _)| case.work == Work::Publish && leaves_work(case)) {
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

struct Outcome {
    reports: Vec<(Case, Report)>,
    took: Duration,
}

/// Runs cases on a few threads, each with databases of its own.
fn run_all(backend: Backend, cases: Vec<Case>) -> Outcome {
    let (began, next) = (Instant::now(), AtomicUsize::new(0));
    let only = std::env::var("NOTIFYX_FAULTS_CASE").unwrap_or_default();
    let cases: Vec<Case> = cases.into_iter().filter(|case| case.to_string().contains(&only)).collect();
    let reports = Mutex::new(Vec::new());
    // Two threads per core: each waits for its database's half of the time.
    let threads = 2 * std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads.min(cases.len()) {
            scope.spawn(|| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                let databases = Arc::new(runtime.block_on(Databases::open(backend)));
                loop {
                    let at = next.fetch_add(1, SeqCst);
                    let Some(case) = cases.get(at) else { break };
                    let report = run(&databases, case);
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

impl Outcome {
    fn hold(&self, what: &str) {
        let broken: Vec<&(Case, Report)> =
            self.reports.iter().filter(|(_, report)| !report.violations.is_empty()).collect();
        for (case, report) in broken.iter().take(20) {
            say(&format!("BROKEN: {case}\n    {}", report.violations.join("\n    ")));
        }
        assert!(broken.is_empty(), "{} of {} {what} break the protocol", broken.len(), self.reports.len());
    }

    fn passed(&self) -> BTreeSet<Point> {
        self.reports.iter().flat_map(|(_, report)| report.passed.iter().copied()).collect()
    }
}

/// Past the capture of the test runner: how much was tried is part of the result.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn everything_was_passed(passed: &BTreeSet<Point>) {
    let named: BTreeSet<Point> = points::all().collect();
    let missed: Vec<String> = named.difference(passed).map(ToString::to_string).collect();
    assert!(missed.is_empty(), "no case reaches {missed:?}");
    let unnamed: Vec<String> = passed.difference(&named).map(ToString::to_string).collect();
    assert!(unnamed.is_empty(), "reached, and not named: {unnamed:?}");
}

#[test]
fn the_invariants_hold_whatever_fails_wherever_it_fails() {
    let cases = singles();
    let singles = run_all(Backend::Sqlite, cases);
    say(&format!("{} single cases on SQLite in {:.1} s", singles.reports.len(), singles.took.as_secs_f64()));
    singles.hold("single cases");
    everything_was_passed(&singles.passed());
    let _ = before("");
    let _ = pairs;
}

//! What was measured, for people and for programs.

use std::{collections::BTreeMap, fmt};

use serde::Serialize;

use super::{
    Point, Publish, Round,
    groups::{Groups, Means},
    stand::{Backend, Subject},
};
use crate::{
    disk::Disk,
    latency::{Latency, median},
    machine::Machine,
    postgres::Settings,
};

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    machine: Machine,
    postgres: Option<Settings>,
    payload_bytes: u32,
    seconds: u64,
    rounds: u32,
    disk_before: Disk,
    disk_after: Disk,
    figures: Vec<Figures>,
}

/// Of one subject at one point: rates and CPU are the median's of the rounds, times are of all publishes.
#[derive(Debug, Serialize)]
struct Figures {
    backend: Backend,
    subject: Subject,
    publishers: u32,
    /// All of one account to one topic.
    shared: bool,
    /// Committed and applied (201) or decided (202); of a yardstick, durable.
    accepted_per_s: f64,
    latency: Latency,
    statuses: BTreeMap<u16, u64>,
    cpu_ms: Option<f64>,
    client_cpu_ms: f64,
    /// Time per notification, as a share of what a lone publisher's takes on this backend: the median of the rounds' shares.
    time_of_lone: Option<f64>,
    /// The same for CPU.
    cpu_of_lone: Option<f64>,
    /// The platform's rate by this yardstick's: the median of the rounds' ratios.
    notifyx_ratio: Option<f64>,
    groups: Option<Means>,
}

impl Report {
    pub(super) fn new(
        machine: Machine,
        postgres: Option<Settings>,
        args: &Publish,
        [disk_before, disk_after]: [Disk; 2],
        rounds: &[Round],
    ) -> Self {
        let mut figures = Vec::new();
        for backend in Backend::ALL {
            for point in args.points() {
                for subject in [Subject::Notifyx].into_iter().chain(Subject::YARDSTICKS) {
                    let here = of(rounds, backend, subject, point);
                    if !here.is_empty() {
                        let lone = of(rounds, backend, subject, Point { publishers: 1, shared: false });
                        let notifyx = of(rounds, backend, Subject::Notifyx, point);
                        figures.push(Figures::of(&here, &lone, &notifyx));
                    }
                }
            }
        }
        let Publish { payload: payload_bytes, seconds, rounds, .. } = *args;
        Self { machine, postgres, payload_bytes, seconds, rounds, disk_before, disk_after, figures }
    }

    fn find(&self, of: &Figures, subject: Subject) -> Option<&Figures> {
        let point = |figures: &Figures| (figures.backend, figures.publishers, figures.shared);
        self.figures.iter().find(|figures| point(figures) == point(of) && figures.subject == subject)
    }
}

fn of(rounds: &[Round], backend: Backend, subject: Subject, point: Point) -> Vec<&Round> {
    let wanted = |round: &&Round| round.backend == backend && round.subject == subject && round.point == point;
    rounds.iter().filter(wanted).collect()
}

/// The median of what two figures of the same round come to; `None` where one is lacking.
fn beside(here: &[&Round], there: &[&Round], compare: impl Fn(&Round, &Round) -> Option<f64>) -> Option<f64> {
    let all: Option<Vec<f64>> = here.iter().zip(there).map(|(here, there)| compare(here, there)).collect();
    all.filter(|all| !all.is_empty()).map(median)
}

impl Figures {
    fn of(here: &[&Round], lone: &[&Round], notifyx: &[&Round]) -> Self {
        let first = here[0];
        let (mut latency, mut statuses, mut groups) = (Latency::default(), BTreeMap::new(), None::<Groups>);
        for round in here {
            latency.add(&round.tally.latency);
            for (status, count) in &round.tally.statuses {
                *statuses.entry(*status).or_default() += count;
            }
            if let Some(more) = &round.groups {
                groups.get_or_insert_default().add(more);
            }
        }
        let cpu_ms: Option<Vec<f64>> = here.iter().map(|round| round.cpu_ms).collect();
        let is_yardstick = first.subject != Subject::Notifyx;
        Self {
            backend: first.backend,
            subject: first.subject,
            publishers: first.point.publishers,
            shared: first.point.shared,
            accepted_per_s: median(here.iter().map(|round| round.per_s)),
            latency,
            statuses,
            cpu_ms: cpu_ms.map(median),
            client_cpu_ms: median(here.iter().map(|round| round.client_cpu_ms)),
            time_of_lone: beside(here, lone, |here, lone| Some(lone.per_s / here.per_s)),
            cpu_of_lone: beside(here, lone, |here, lone| Some(here.cpu_ms? / lone.cpu_ms?)),
            notifyx_ratio: is_yardstick
                .then(|| beside(here, notifyx, |yardstick, notifyx| Some(notifyx.per_s / yardstick.per_s)))
                .flatten(),
            groups: groups.map(|groups| groups.means()),
        }
    }

    fn line(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let latency = format!("{:.1} / {:.1}", self.latency.percentile_ms(50.0), self.latency.percentile_ms(99.0));
        write!(
            f,
            "{:>10} {:<6} {:>10.0} {:>9} {:>15} {:>8} {:>9} {:>6}",
            self.publishers,
            if self.shared { "one" } else { "own" },
            self.accepted_per_s,
            maybe(self.time_of_lone, 3),
            latency,
            maybe(self.cpu_ms, 2),
            maybe(self.cpu_of_lone, 3),
            maybe(self.groups.as_ref().map(|groups| groups.group_size), 1)
        )
    }

    fn beside(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:>8.0} {:>6} {:>7}", self.accepted_per_s, maybe(self.notifyx_ratio, 2), maybe(self.cpu_ms, 2))
    }
}

fn maybe(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".into(), |value| format!("{value:.digits$}"))
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
        writeln!(
            f,
            "messages of {} bytes, median of {} rounds of {} s",
            self.payload_bytes, self.rounds, self.seconds
        )?;
        for backend in Backend::ALL {
            let lines = || self.figures.iter().filter(move |figures| figures.backend == backend);
            if lines().next().is_none() {
                continue;
            }
            let yardsticks: Vec<Subject> = Subject::YARDSTICKS
                .into_iter()
                .filter(|&subject| lines().any(|figures| figures.subject == subject))
                .collect();
            writeln!(f, "\n{}", backend.as_str())?;
            write!(
                f,
                "{:>10} {:<6} {:>10} {:>9} {:>15} {:>8} {:>9} {:>6}",
                "", "", "", "time of", "", "", "CPU of", ""
            )?;
            for subject in &yardsticks {
                write!(f, "  | {:<23}", subject.as_str())?;
            }
            write!(
                f,
                "\n{:>10} {:<6} {:>10} {:>9} {:>15} {:>8} {:>9} {:>6}",
                "publishers", "topics", "accepted/s", "a lone", "p50 / p99 ms", "CPU ms", "a lone", "group"
            )?;
            for _ in &yardsticks {
                write!(f, "  | {:>8} {:>6} {:>7}", "per s", "we ÷", "CPU ms")?;
            }
            writeln!(f)?;
            for figures in lines().filter(|figures| figures.subject == Subject::Notifyx) {
                figures.line(f)?;
                for &subject in &yardsticks {
                    f.write_str("  | ")?;
                    match self.find(figures, subject) {
                        Some(yardstick) => yardstick.beside(f)?,
                        None => write!(f, "{:>23}", "-")?,
                    }
                }
                let odd = figures.statuses.iter().filter(|(status, _)| **status != 201);
                for (status, count) in odd {
                    write!(f, "  {status}: {count}")?;
                }
                writeln!(f)?;
            }
        }
        Ok(())
    }
}

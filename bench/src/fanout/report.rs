//! What was measured, for people and for programs.

use std::fmt;

use serde::Serialize;

use super::{Fanout, Memory, Round};
use crate::{
    latency::{Latency, median},
    machine::Machine,
    target::Name,
};

#[derive(Debug, Serialize)]
pub(crate) struct Report {
    machine: Machine,
    sockets: u32,
    payload_bytes: u32,
    rounds: u32,
    memory: Vec<Weighed>,
    figures: Vec<Figures>,
    ratios: Vec<Ratio>,
}

#[derive(Debug, Serialize)]
struct Weighed {
    target: Name,
    #[serde(flatten)]
    memory: Memory,
}

/// Of all rounds of a target: rates are the median's, times are of all deliveries.
#[derive(Debug, Serialize)]
struct Figures {
    target: Name,
    in_flight: u32,
    messages: u32,
    deliveries: u64,
    deliveries_per_s: f64,
    /// Only while a message is between its first and its last delivery.
    fan_out_deliveries_per_s: f64,
    /// From sending a message to each of its deliveries.
    delivery: Latency,
    /// From sending a message to the publisher's answer.
    publish: Latency,
    /// From sending a message to its first delivery.
    first_delivery: Latency,
    /// From the first delivery of a message to its last.
    fan_out: Latency,
    server_cpu_s_per_million: Option<f64>,
    /// The same without what publishing costs where nobody listens.
    fan_out_cpu_s_per_million: Option<f64>,
    client_cpu_s_per_million: f64,
}

/// Notifyx against a yardstick: the median of the rounds' ratios.
#[derive(Debug, Serialize)]
struct Ratio {
    against: Name,
    in_flight: u32,
    deliveries_per_s: f64,
    fan_out_deliveries_per_s: f64,
    server_cpu: Option<f64>,
    fan_out_cpu: Option<f64>,
    p99: f64,
}

impl Report {
    pub(super) fn new(machine: Machine, args: &Fanout, memory: Vec<(Name, Memory)>, rounds: &[Round]) -> Self {
        let mut figures: Vec<Figures> = Vec::new();
        let mut ratios = Vec::new();
        for &in_flight in &args.in_flight {
            for target in [Name::Notifyx, Name::Plain, Name::Nchan] {
                let flown = of(rounds, target, in_flight);
                if flown.is_empty() {
                    continue;
                }
                figures.push(Figures::of(&flown, args.messages * in_flight));
                let notifyx = of(rounds, Name::Notifyx, in_flight);
                if target != Name::Notifyx && !notifyx.is_empty() {
                    ratios.push(Ratio::of(&notifyx, &flown));
                }
            }
        }
        Self {
            machine,
            sockets: args.sockets,
            payload_bytes: args.payload,
            rounds: args.rounds,
            memory: memory.into_iter().map(|(target, memory)| Weighed { target, memory }).collect(),
            figures,
            ratios,
        }
    }
}

fn of(rounds: &[Round], target: Name, in_flight: u32) -> Vec<&Round> {
    rounds.iter().filter(|round| round.target == target && round.in_flight == in_flight).collect()
}

impl Round {
    fn deliveries_per_s(&self) -> f64 {
        self.deliveries as f64 / self.spans.wall_s
    }

    fn fan_out_deliveries_per_s(&self) -> f64 {
        self.deliveries as f64 / self.spans.fan_out_s
    }

    fn per_million(&self, cpu_s: f64) -> f64 {
        cpu_s / (self.deliveries as f64 / 1e6)
    }

    fn server_cpu(&self) -> Option<f64> {
        self.server_cpu_s.map(|cpu_s| self.per_million(cpu_s))
    }

    fn fan_out_cpu(&self) -> Option<f64> {
        self.server_cpu_s.map(|cpu_s| self.per_million(cpu_s - self.publish_cpu_s.unwrap_or(0.0)))
    }
}

impl Figures {
    fn of(rounds: &[&Round], messages: u32) -> Self {
        let merged = |of: fn(&Round) -> &Latency| {
            rounds.iter().fold(Latency::default(), |mut all, round| {
                all.add(of(round));
                all
            })
        };
        let middle = |of: fn(&Round) -> Option<f64>| {
            let values: Option<Vec<f64>> = rounds.iter().map(|round| of(round)).collect();
            values.map(median)
        };
        Self {
            target: rounds[0].target,
            in_flight: rounds[0].in_flight,
            messages,
            deliveries: rounds.iter().map(|round| round.deliveries).sum(),
            deliveries_per_s: median(rounds.iter().map(|round| round.deliveries_per_s())),
            fan_out_deliveries_per_s: median(rounds.iter().map(|round| round.fan_out_deliveries_per_s())),
            delivery: merged(|round| &round.tally.latency),
            publish: merged(|round| &round.spans.publish),
            first_delivery: merged(|round| &round.spans.to_first),
            fan_out: merged(|round| &round.spans.fan_out),
            server_cpu_s_per_million: middle(Round::server_cpu),
            fan_out_cpu_s_per_million: middle(Round::fan_out_cpu),
            client_cpu_s_per_million: median(rounds.iter().map(|round| round.per_million(round.client_cpu_s))),
        }
    }
}

impl Ratio {
    fn of(notifyx: &[&Round], other: &[&Round]) -> Self {
        let pairs = || notifyx.iter().zip(other);
        let ratio = |of: fn(&Round) -> f64| median(pairs().map(|(ours, theirs)| of(ours) / of(theirs)));
        let maybe = |of: fn(&Round) -> Option<f64>| {
            let ratios: Option<Vec<f64>> = pairs().map(|(ours, theirs)| Some(of(ours)? / of(theirs)?)).collect();
            ratios.map(median)
        };
        Self {
            against: other[0].target,
            in_flight: other[0].in_flight,
            deliveries_per_s: ratio(Round::deliveries_per_s),
            fan_out_deliveries_per_s: ratio(Round::fan_out_deliveries_per_s),
            server_cpu: maybe(Round::server_cpu),
            fan_out_cpu: maybe(Round::fan_out_cpu),
            p99: ratio(|round| round.tally.latency.percentile_ms(99.0)),
        }
    }
}

fn maybe(value: Option<f64>) -> String {
    value.map_or_else(|| "-".into(), |value| format!("{value:.2}"))
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.machine)?;
        writeln!(
            f,
            "{} sockets on one topic, messages of {} bytes, median of {} rounds in turns\n",
            self.sockets, self.payload_bytes, self.rounds
        )?;
        writeln!(
            f,
            "{:<11} {:>7} {:>12} {:>12} {:>17} {:>15} {:>17} {:>9} {:>9} {:>9}",
            "",
            "in",
            "deliveries",
            "… during",
            "delivery ms",
            "publish ms",
            "first to last ms",
            "server",
            "… without",
            "client"
        )?;
        writeln!(
            f,
            "{:<11} {:>7} {:>12} {:>12} {:>17} {:>15} {:>17} {:>9} {:>9} {:>9}",
            "", "flight", "per s", "fan-out", "p50 / p99", "p50 / p99", "p50 / p99", "CPU s/M", "publish", "CPU s/M"
        )?;
        for figures in &self.figures {
            let pair =
                |latency: &Latency| format!("{:.1} / {:.1}", latency.percentile_ms(50.0), latency.percentile_ms(99.0));
            writeln!(
                f,
                "{:<11} {:>7} {:>12.0} {:>12.0} {:>17} {:>15} {:>17} {:>9} {:>9} {:>9.2}",
                figures.target.as_str(),
                figures.in_flight,
                figures.deliveries_per_s,
                figures.fan_out_deliveries_per_s,
                pair(&figures.delivery),
                pair(&figures.publish),
                pair(&figures.fan_out),
                maybe(figures.server_cpu_s_per_million),
                maybe(figures.fan_out_cpu_s_per_million),
                figures.client_cpu_s_per_million
            )?;
        }
        writeln!(f)?;
        for Weighed { target, memory } in &self.memory {
            writeln!(
                f,
                "{:<11} {:.2} kB of resident memory per idle joined socket ({:.1} MB before, {:.1} MB with all)",
                target.as_str(),
                memory.bytes_per_socket / 1e3,
                memory.rss_before_bytes as f64 / 1e6,
                memory.rss_joined_bytes as f64 / 1e6
            )?;
        }
        for ratio in &self.ratios {
            writeln!(
                f,
                "notifyx ÷ {}, {} in flight: deliveries/s {:.2}, during fan-out {:.2}, CPU per delivery {}, without publishing {}, p99 {:.2}",
                ratio.against.as_str(),
                ratio.in_flight,
                ratio.deliveries_per_s,
                ratio.fan_out_deliveries_per_s,
                maybe(ratio.server_cpu),
                maybe(ratio.fan_out_cpu),
                ratio.p99
            )?;
        }
        Ok(())
    }
}

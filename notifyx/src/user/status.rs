//! `notifyx status`: how the platform is, as its gateway sees it.

use std::{collections::BTreeMap, fmt::Write};

use serde::Deserialize;
use serde_json::Value;

use super::{
    client::{Call, Client},
    print::{self, Output, Style, clean},
};
use crate::exit::Failure;

/// What is read of the gateway's `/status`; scripts get all of it.
#[derive(Debug, Deserialize)]
struct Status {
    version: String,
    ready: bool,
    uptime_s: u64,
    checks: Vec<Check>,
    #[serde(default)]
    figures: Value,
}

#[derive(Debug, Deserialize)]
struct Check {
    name: String,
    error: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Instance {
    address: String,
    breaker: String,
}

pub(crate) async fn run(client: &Client, output: Output) -> Result<(), Failure> {
    let answer = client.send(&Call::get("/status")).await?;
    if output.json() {
        return print::record(&answer.json::<Value>()?);
    }
    print::line(describe(output, client.server().as_str(), &answer.json()?).trim_end())
}

fn describe(output: Output, server: &str, status: &Status) -> String {
    let state = if status.ready { output.paint(Style::Good, "ready") } else { output.paint(Style::Bad, "not ready") };
    let title = output.paint(Style::Strong, server);
    let mut text = format!("{title}  {state}  version {}, up {}\n", clean(&status.version), span(status.uptime_s));
    let lacking = status.checks.iter().filter_map(|check| Some((&check.name, check.error.as_ref()?)));
    for (name, error) in lacking {
        let _ = writeln!(text, "  {}: {}", output.paint(Style::Bad, name), clean(error));
    }
    let services = services(&status.figures);
    if !services.is_empty() {
        let _ =
            writeln!(text, "\n{}", output.paint(Style::Faint, format!("{:<14}{:<24}breaker", "service", "instance")));
    }
    for (service, instances) in &services {
        if instances.is_empty() {
            let _ = writeln!(text, "{:<14}{}", clean(service), output.paint(Style::Bad, "no instance"));
        }
        for instance in instances {
            let breaker = match instance.breaker.as_str() {
                "closed" => output.paint(Style::Good, "closed"),
                "open" => output.paint(Style::Bad, "open: nothing is sent there"),
                "half-open" => output.paint(Style::Bad, "half-open: one probe is out"),
                other => output.paint(Style::Faint, other),
            };
            let _ = writeln!(text, "{:<14}{:<24}{breaker}", clean(service), clean(&instance.address));
        }
    }
    text
}

/// The mesh's part of the figures.
fn services(figures: &Value) -> BTreeMap<String, Vec<Instance>> {
    let services = figures.pointer("/mesh/services").or_else(|| figures.get("services"));
    services.and_then(|services| Deserialize::deserialize(services).ok()).unwrap_or_default()
}

fn span(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min"),
        (0, _, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_wrong_is_seen() {
        let status = json!({
            "version": "0.1.0", "ready": false, "uptime_s": 3_700,
            "checks": [{ "name": "persist", "ok": false, "error": "no instance" }, { "name": "database", "ok": true }],
            "figures": { "mesh": { "services": {
                "auth": [{ "instance": "i", "address": "127.0.0.1:5000", "breaker": "open" }], "persist": [],
            } } },
        });
        let text = describe(Output::new(false, true), "http://h", &serde_json::from_value(status).unwrap());
        assert_eq!(
            text,
            "http://h  not ready  version 0.1.0, up 1 h 1 min\n  persist: no instance\n\n\
             service       instance                breaker\n\
             auth          127.0.0.1:5000          open: nothing is sent there\n\
             persist       no instance\n"
        );
    }
}

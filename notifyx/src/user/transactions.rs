//! `notifyx 2pc ls`, `show`, `retry` and `resolve`: for operators.

use std::fmt::Write;

use notifyx_model::Gid;
use notifyx_wire::rest::commit::{
    ResolveRequest, Standing, TransactionDetails, TransactionPage, TransactionState, Voted,
};

use super::{
    client::{Call, Client},
    print::{self, Output, Style, clean},
};
use crate::{args::TransactionsAction, exit::Failure};

/// Transactions asked for at once.
const PAGE: u32 = 200;

pub(crate) async fn run(client: &Client, output: Output, action: &TransactionsAction) -> Result<(), Failure> {
    if client.is_exposed() {
        let server = client.server();
        output.remark(&format!("warning: {server} is not encrypted: others on the way can read the cluster's secret"));
    }
    match action {
        TransactionsAction::Ls { state, limit } => list(client, output, *state, *limit).await,
        TransactionsAction::Show { gid } => {
            let details = client.read(Call::get(format!("/api/2pc/{gid}"))).await?;
            output.answer(&details, || describe(output, &details))
        }
        TransactionsAction::Retry { gid, operator } => {
            let mut call = Call::post(format!("/api/2pc/{gid}/retry"));
            if let Some(operator) = operator {
                call = call.query("operator", operator);
            }
            let details: TransactionDetails = client.read(call).await?;
            output.answer(&details, || {
                format!("{gid} is tried again now: `notifyx 2pc show {gid}` tells what comes of it")
            })
        }
        TransactionsAction::Resolve { gid, outcome, reason, operator } => {
            let request = ResolveRequest { outcome: *outcome, operator: operator.clone(), reason: reason.clone() };
            let details: TransactionDetails =
                client.read(Call::post(format!("/api/2pc/{gid}/resolve")).json(&request)).await?;
            output.answer(&details, || {
                let outcome = spelled(outcome.as_str());
                format!(
                    "{gid} is closed as {outcome}: nothing is tried any more, and what participants hold is as it was"
                )
            })
        }
    }
}

async fn list(client: &Client, output: Output, state: Standing, limit: u32) -> Result<(), Failure> {
    let (mut left, mut after) = (limit, None::<Gid>);
    loop {
        let mut call = Call::get("/api/2pc").query("state", &state).query("limit", &left.min(PAGE));
        if let Some(after) = after {
            call = call.query("after", &after);
        }
        let page: TransactionPage = client.read(call).await?;
        if left == limit && !page.transactions.is_empty() && !output.json() {
            print::line(&output.paint(Style::Faint, heading()))?;
        }
        for details in &page.transactions {
            output.answer(details, || row(output, details))?;
        }
        let count = u32::try_from(page.transactions.len()).unwrap_or(u32::MAX);
        if left == limit && count == 0 {
            output.remark(&format!("there is none that is {}", spelled(state.as_str())));
        }
        left = left.saturating_sub(count);
        match page.next {
            Some(_) if left == 0 => {
                output.remark(&format!("there are more than {limit}: see --limit"));
                return Ok(());
            }
            // A page without any would ask for ever.
            Some(next) if count > 0 => after = Some(next),
            _ => return Ok(()),
        }
    }
}

fn heading() -> String {
    format!("{:<36}  {:<11}  {:>9}  {:<7}  {:<11}  {:>5}  reason", "gid", "state", "age", "applied", "votes", "tries")
}

fn row(output: Output, details: &TransactionDetails) -> String {
    let status = &details.status;
    let votes: Vec<&str> = details.participants.iter().map(|of| voted(of.vote)).collect();
    let state = output.paint(style(status.state), format!("{:<11}", status.state.as_str()));
    let (age, applied, tries) = (age(details.age_ms), format!("{}/2", status.applied), details.tries);
    let reason = status.reason.as_deref().unwrap_or_default();
    let text = format!(
        "{}  {state}  {age:>9}  {applied:<7}  {:<11}  {tries:>5}  {}",
        status.gid,
        votes.join(" "),
        clean(reason)
    );
    text.trim_end().to_owned()
}

fn describe(output: Output, details: &TransactionDetails) -> String {
    let status = &details.status;
    let mut text = format!(
        "{}  {}\n",
        output.paint(Style::Strong, status.gid),
        output.paint(style(status.state), status.state.as_str())
    );
    let mut line = |name: &str, value: String| {
        let _ = writeln!(text, "  {}{}", output.paint(Style::Faint, format!("{name:<13}")), clean(&value));
    };
    line("decision", details.decision.map_or("none yet".into(), |decision| decision.as_str().into()));
    for of in &details.participants {
        let applied = if of.acked { "has applied the decision" } else { "has not said that it applied the decision" };
        line(&of.service, format!("voted {}, {applied}", voted(of.vote)));
    }
    if let Some(reason) = &status.reason {
        line("reason", reason.clone());
    }
    line("publisher", details.user_id.to_string());
    if let Some(key) = &details.idempotency_key {
        line("key", key.clone());
    }
    line("began", format!("{} ({} old)", print::moment(details.created_at), age(details.age_ms)));
    line("tries", format!("{} failed, {} of them refused in a way that repeats", details.tries, details.refusals));
    match status.closed_at {
        Some(at) => line("closed", print::moment(at)),
        None => line(
            "next",
            format!("by gateway {}, or after {} by any", details.owner, print::moment(details.lease_until)),
        ),
    }
    if let Some(found) = &details.resolution {
        let (outcome, operator) = (spelled(found.outcome.as_str()), &found.operator);
        line("resolved", format!("as {outcome} by {operator}, {}: {}", print::moment(found.at), found.reason));
    }
    text.trim_end().to_owned()
}

fn style(state: TransactionState) -> Style {
    match state {
        TransactionState::Committed | TransactionState::Aborted => Style::Good,
        TransactionState::Quarantined => Style::Bad,
        TransactionState::Preparing | TransactionState::Resolved => Style::Strong,
    }
}

fn voted(vote: Option<Voted>) -> &'static str {
    vote.map_or("none", Voted::as_str)
}

/// In the command line's spelling.
fn spelled(word: &str) -> String {
    word.replace('_', "-")
}

fn age(millis: u64) -> String {
    match millis / 1_000 {
        0 => format!("{millis} ms"),
        seconds @ 1..120 => format!("{seconds} s"),
        seconds @ 120..7_200 => format!("{} min", seconds / 60),
        seconds @ 7_200..172_800 => format!("{} h", seconds / 3_600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn details() -> TransactionDetails {
        serde_json::from_value(json!({
            "gid": "0199f3a2-7c1e-7d3a-9b42-5a0c1d2e3f40", "state": "quarantined", "applied": 1, "decision": "committed",
            "reason": "counter-2pc: nothing is prepared", "deadline": "2026-01-01T00:00:05Z",
            "user_id": "0199f3a2-7c1e-7d3a-9b42-000000000001", "tries": 3, "refusals": 0, "age_ms": 3_700_000,
            "participants": [
                { "service": "persist", "vote": "yes", "acked": true },
                { "service": "counter-2pc", "vote": "yes", "acked": false },
            ],
            "created_at": "2026-01-01T00:00:00Z", "lease_until": "2026-01-01T00:05:00Z",
            "owner": "0199f3a2-7c1e-7d3a-9b42-000000000002",
        }))
        .unwrap()
    }

    #[test]
    fn a_row_stands_under_its_heading() {
        let output = Output::new(false, true);
        assert_eq!(
            format!("{}\n{}", heading(), row(output, &details())),
            "gid                                   state              age  applied  votes        tries  reason\n\
             0199f3a2-7c1e-7d3a-9b42-5a0c1d2e3f40  quarantined     61 min  1/2      yes yes          3  counter-2pc: nothing is prepared"
        );
    }

    #[test]
    fn all_that_is_known_is_shown() {
        let mut details = details();
        details.resolution = serde_json::from_value(json!({
            "outcome": "rolled_back", "operator": "ann", "reason": "ticket 7", "at": "2026-01-01T01:00:00Z",
        }))
        .unwrap();
        assert_eq!(
            describe(Output::new(false, true), &details),
            "0199f3a2-7c1e-7d3a-9b42-5a0c1d2e3f40  quarantined\n\
             \u{20} decision     committed\n\
             \u{20} persist      voted yes, has applied the decision\n\
             \u{20} counter-2pc  voted yes, has not said that it applied the decision\n\
             \u{20} reason       counter-2pc: nothing is prepared\n\
             \u{20} publisher    0199f3a2-7c1e-7d3a-9b42-000000000001\n\
             \u{20} began        2026-01-01 00:00:00Z (61 min old)\n\
             \u{20} tries        3 failed, 0 of them refused in a way that repeats\n\
             \u{20} next         by gateway 0199f3a2-7c1e-7d3a-9b42-000000000002, or after 2026-01-01 00:05:00Z by any\n\
             \u{20} resolved     as rolled-back by ann, 2026-01-01 01:00:00Z: ticket 7"
        );
    }
}

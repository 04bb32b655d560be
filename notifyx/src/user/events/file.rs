//! `notifyx events post --file`: one event per line, posted in arrays, so that a file of any length is soon done.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead, BufReader, Read},
};

use notifyx_model::{Clock, EventId};
use notifyx_wire::rest::events::{Event, EventResult};
use serde_json::value::RawValue;

use crate::{
    exit::Failure,
    user::{
        client::{Answer, Call, Client},
        print::Output,
    },
};

/// An event with the largest data, each byte of it escaped, has less.
const LINE_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Events of one request: a tenth of a second's work.
const EVENTS_PER_CALL: usize = 1_000;
/// Beyond it a request leaves; with the last line it stays within the server's 8 MiB.
const CALL_BYTES: usize = 4 * 1024 * 1024;

/// A line that is an event, as it is sent.
struct Line {
    number: usize,
    text: String,
    /// It had no id: this program gave it one.
    named_here: bool,
}

/// What became of the lines.
#[derive(Default)]
struct Tally {
    stored: usize,
    duplicates: usize,
    refused: usize,
}

pub(super) async fn post(client: &Client, output: Output, path: &str) -> Result<(), Failure> {
    let cannot = || Failure::machine(format!("cannot read {path}"));
    let mut input: Box<dyn BufRead> = match path {
        "-" => Box::new(BufReader::new(io::stdin())),
        path => Box::new(BufReader::new(File::open(path).map_err(cannot())?)),
    };
    let (clock, mut tally, mut number) = (Clock::system(), Tally::default(), 0);
    let mut lines: Vec<Line> = Vec::new();
    while let Some(text) = next_line(&mut input).map_err(cannot())? {
        number += 1;
        match line(&text, number, &clock) {
            Ok(Some(line)) => lines.push(line),
            Ok(None) => {}
            Err(why) => refuse(output, &mut tally, number, &why),
        }
        let bytes: usize = lines.iter().map(|line| line.text.len()).sum();
        if lines.len() >= EVENTS_PER_CALL || bytes >= CALL_BYTES {
            send(client, output, &mut lines, &mut tally).await?;
        }
    }
    send(client, output, &mut lines, &mut tally).await?;
    output.remark(&format!("{} posted, {} of them before; {} refused", tally.stored, tally.duplicates, tally.refused));
    if tally.refused == 0 {
        return Ok(());
    }
    Err(Failure::refused(
        "events_refused",
        format!("{} of {} events were refused", tally.refused, tally.stored + tally.refused),
    ))
}

fn refuse(output: Output, tally: &mut Tally, number: usize, why: &str) {
    tally.refused += 1;
    output.remark(&format!("line {number}: {}", crate::user::print::clean(why)));
}

async fn send(client: &Client, output: Output, lines: &mut Vec<Line>, tally: &mut Tally) -> Result<(), Failure> {
    if lines.is_empty() {
        return Ok(());
    }
    let lines = std::mem::take(lines);
    let texts: Vec<&str> = lines.iter().map(|line| line.text.as_str()).collect();
    let call = Call::post("/events").json_text(format!("[{}]", texts.join(",")));
    // Each has an id: what was stored before its answer was lost is the same event.
    let results = match client.insist(&call).await {
        Ok(answer) => read(&answer)?,
        Err(Failure::Refused(problem)) if problem.code == "events_refused" => {
            let (first, last) = (lines[0].number, lines[lines.len() - 1].number);
            tally.refused += lines.len();
            output.remark(&format!("lines {first} to {last}: {}", crate::user::print::clean(&problem.detail)));
            return Ok(());
        }
        Err(failure) => return Err(failure),
    };
    for (line, result) in lines.iter().zip(results) {
        match result {
            Ok(mut stored) => {
                stored.duplicate &= !line.named_here;
                tally.stored += 1;
                tally.duplicates += usize::from(stored.duplicate);
                output.answer(&stored, || stored.id.to_string())?;
            }
            Err(why) => refuse(output, tally, line.number, &why),
        }
    }
    Ok(())
}

/// The events of a 201, or the results of a 207.
fn read(answer: &Answer) -> Result<Vec<Result<Event, String>>, Failure> {
    let Ok(results) = answer.json::<Vec<EventResult>>() else {
        return Ok(answer.json::<Vec<Event>>()?.into_iter().map(Ok).collect());
    };
    let became = |result: EventResult| match (result.event, result.problem) {
        (Some(stored), _) => Ok(stored),
        (None, Some(problem)) => Err(problem.detail),
        (None, None) => Err("the server does not say what became of it".to_owned()),
    };
    Ok(results.into_iter().map(became).collect())
}

/// `None`: the end.
fn next_line(input: &mut dyn BufRead) -> io::Result<Option<String>> {
    let mut text = Vec::new();
    let limit = u64::try_from(LINE_BYTES_MAX).expect("some MiB fit") + 1;
    input.take(limit).read_until(b'\n', &mut text)?;
    if text.len() > LINE_BYTES_MAX {
        return Err(io::Error::other(format!("a line has more than {LINE_BYTES_MAX} bytes")));
    }
    if text.is_empty() {
        return Ok(None);
    }
    String::from_utf8(text).map(Some).map_err(io::Error::other)
}

/// `None`: there is nothing on it.
fn line(text: &str, number: usize, clock: &Clock) -> Result<Option<Line>, String> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    let mut fields: BTreeMap<String, &RawValue> =
        serde_json::from_str(text).map_err(|error| format!("it is not a JSON object: {error}"))?;
    let named_here = fields.get("id").is_none_or(|id| id.get() == "null");
    let text = match fields.remove("id") {
        // `null` is as absent, to the server too: what is left of the line gets an id.
        Some(_) if named_here => serde_json::to_string(&fields).expect("texts and JSON are JSON"),
        Some(_) | None => text.to_owned(),
    };
    let text = if named_here && !fields.is_empty() {
        format!("{{\"id\":\"{}\",{}", EventId::new(clock), &text[1..])
    } else {
        text
    };
    Ok(Some(Line { number, text, named_here }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_bounded_and_end_with_the_file() {
        let mut input = "{}\n\n[1]".as_bytes();
        let mut lines = Vec::new();
        while let Some(line) = next_line(&mut input).unwrap() {
            lines.push(line);
        }
        assert_eq!(lines, ["{}\n", "\n", "[1]"]);
        assert!(next_line(&mut BufReader::new(io::repeat(b'x'))).is_err());
        assert!(next_line(&mut &b"\xff\n"[..]).is_err());
    }

    #[test]
    fn a_line_without_an_id_gets_one() {
        let clock = Clock::system();
        let own = line(r#"  {"category": "c", "data": {"id": 1}} "#, 1, &clock).unwrap().unwrap();
        let fields: BTreeMap<String, serde_json::Value> = serde_json::from_str(&own.text).unwrap();
        assert!(own.named_here && fields["id"].is_string() && fields["category"] == "c", "{}", own.text);
        let null = line(r#"{"category": "c", "id": null, "data": {"a": [1, 2]}}"#, 1, &clock).unwrap().unwrap();
        let fields: BTreeMap<String, serde_json::Value> = serde_json::from_str(&null.text).unwrap();
        assert!(null.named_here && fields["id"].is_string() && fields.len() == 3, "{}", null.text);
        assert!(null.text.contains(r#""data":{"a": [1, 2]}"#), "{}", null.text);
        let named = line(r#"{"id": "a", "category": "c"}"#, 1, &clock).unwrap().unwrap();
        assert!(!named.named_here && named.text == r#"{"id": "a", "category": "c"}"#);
        assert!(line(" \r\n", 1, &clock).unwrap().is_none());
        assert_eq!(line("{}", 1, &clock).unwrap().unwrap().text, "{}");
        for bad in ["7", "[1]", "{", "nul", "{} x"] {
            assert!(line(bad, 1, &clock).is_err(), "{bad}");
        }
    }
}

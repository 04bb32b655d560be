//! What is answered about events: their JSON text as every door writes it, and what became of each of many.

use actix_web::{
    HttpResponse,
    http::{
        StatusCode,
        header::{LOCATION, RETRY_AFTER},
    },
};
use notifyx_chassis::{Failure, reply};
use notifyx_wire::{
    grpc::events as wire,
    rest::{
        Problem,
        events::{AllRefused, EventResult, text},
    },
};

use url::form_urlencoded;

use crate::events::{Page, Told};

/// When to come back, in seconds, to what is busy.
const BUSY_S: u64 = 1;

/// An answer that is made where there is time for it, and sent by the worker.
pub(crate) struct Answer {
    status: u16,
    media_type: &'static str,
    body: Vec<u8>,
    /// Where what was made is.
    location: Option<String>,
    busy: bool,
}

impl Answer {
    fn json(status: u16, body: Vec<u8>) -> Self {
        Self { status, media_type: "application/json", body, location: None, busy: false }
    }
}

impl From<Answer> for HttpResponse {
    fn from(answer: Answer) -> Self {
        let mut response =
            Self::build(StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR));
        response.content_type(answer.media_type);
        if answer.busy {
            response.insert_header((RETRY_AFTER, BUSY_S.to_string()));
        }
        if let Some(location) = answer.location {
            response.insert_header((LOCATION, location));
        }
        response.body(answer.body)
    }
}

/// An event alone.
pub(crate) fn event(status: u16, told: &Told) -> Answer {
    let mut body = Vec::with_capacity(told.event.data.len() + 512);
    write(told, &mut body);
    Answer::json(status, body)
}

/// An event that was made, and where it is from now on.
pub(crate) fn created(told: &Told) -> Answer {
    let category =
        form_urlencoded::Serializer::new(String::new()).append_pair("category", &told.event.category).finish();
    Answer { location: Some(format!("/events/{}?{category}", told.event.id)), ..event(201, told) }
}

/// An event as it is.
pub(crate) fn whole(event: &wire::Event) -> Answer {
    Answer::json(200, text::closed(event))
}

/// What became of the one event that came.
pub(crate) fn posted(outcome: Result<Told, Problem>) -> Result<Answer, Failure> {
    match outcome {
        Ok(told) => Ok(created(&told)),
        Err(problem) => {
            let again = is_busy(&problem).then_some(std::time::Duration::from_secs(BUSY_S));
            Err(Failure::from_problem(problem, again))
        }
    }
}

/// What became of each of an array: 201 where all were stored, the problems' own status or 400 where none was, 207 between.
pub(crate) fn all_posted(outcomes: Vec<Result<Told, Problem>>) -> Answer {
    let refused = outcomes.iter().filter(|outcome| outcome.is_err()).count();
    let busy = outcomes.iter().any(|outcome| outcome.as_ref().is_err_and(is_busy));
    let answer = if refused == outcomes.len() {
        none_posted(outcomes.into_iter().filter_map(Result::err).collect())
    } else if refused > 0 {
        Answer::json(207, some_posted(&outcomes))
    } else {
        Answer::json(201, array(outcomes.iter().flatten(), write))
    };
    Answer { busy, ..answer }
}

fn some_posted(outcomes: &[Result<Told, Problem>]) -> Vec<u8> {
    array(outcomes.iter().enumerate(), |(index, outcome), body| match outcome {
        Ok(told) => {
            body.extend_from_slice(format!("{{\"index\":{index},\"status\":201,\"event\":").as_bytes());
            write(told, body);
            body.push(b'}');
        }
        Err(problem) => body.extend_from_slice(&json(&result(index, problem.clone()))),
    })
}

fn none_posted(problems: Vec<Problem>) -> Answer {
    let first = &problems[0];
    let status = if problems.iter().all(|problem| problem.status == first.status) { first.status } else { 400 };
    let detail = match problems.len() {
        1 => format!("the event was not stored: {}", first.detail),
        count => format!("none of the {count} events was stored; the first: {}", first.detail),
    };
    let problem = reply::made(status, "events_refused", detail);
    let results = problems.into_iter().enumerate().map(|(index, problem)| result(index, problem)).collect();
    let body = json(&AllRefused { problem, results });
    Answer { media_type: Problem::MEDIA_TYPE, ..Answer::json(status, body) }
}

/// The request is named once, by the answer.
fn result(index: usize, problem: Problem) -> EventResult {
    EventResult { index, status: problem.status, event: None, problem: Some(Problem { request_id: None, ..problem }) }
}

fn is_busy(problem: &Problem) -> bool {
    matches!(problem.status, 429 | 503)
}

pub(crate) fn page(page: &Page) -> Answer {
    let mut body = b"{\"events\":".to_vec();
    body.append(&mut array(page.events.iter(), |event, body| {
        text::write_open(event, body);
        body.push(b'}');
    }));
    if let Some(next) = &page.next {
        body.extend_from_slice(b",\"next\":");
        body.append(&mut json(next));
    }
    if let Some((head, oldest)) = page.bounds {
        body.extend_from_slice(format!(",\"head\":{head},\"oldest\":{oldest}").as_bytes());
    }
    body.push(b'}');
    Answer::json(200, body)
}

fn write(told: &Told, body: &mut Vec<u8>) {
    if told.data_omitted {
        text::write_open_without_data(&told.event, body);
    } else {
        text::write_open(&told.event, body);
    }
    if told.duplicate {
        body.extend_from_slice(b",\"duplicate\":true");
    }
    if told.data_omitted {
        body.extend_from_slice(b",\"dataOmitted\":true");
    }
    body.push(b'}');
}

fn array<T>(items: impl Iterator<Item = T>, write: impl Fn(T, &mut Vec<u8>)) -> Vec<u8> {
    let mut body = vec![b'['];
    for (place, item) in items.enumerate() {
        if place > 0 {
            body.push(b',');
        }
        write(item, &mut body);
    }
    body.push(b']');
    body
}

fn json(value: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("wire shapes have text keys, so they serialise")
}

#[cfg(test)]
mod tests {
    use notifyx_wire::rest::events::{Event, EventPage};

    use super::*;

    fn told(id: &str) -> Told {
        let event =
            wire::Event { id: id.into(), category: "c".into(), data: "{\"a\":1}".into(), ..wire::Event::default() };
        Told { event, duplicate: false, data_omitted: false }
    }

    fn problem(status: u16, detail: &str) -> Problem {
        reply::made(status, "event_invalid", detail)
    }

    #[test]
    fn all_good_is_201_with_the_events_in_their_order() {
        let answer = all_posted(vec![Ok(told("a")), Ok(Told { duplicate: true, data_omitted: true, ..told("b") })]);
        let events: Vec<Event> = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!((answer.status, answer.busy), (201, false));
        assert_eq!((events[0].data.get(), events[0].duplicate), ("{\"a\":1}", false));
        assert_eq!((events[1].data.get(), events[1].duplicate, events[1].data_omitted), ("null", true, true));
    }

    #[test]
    fn what_was_made_is_found_at_its_location() {
        let mut one = told("order:7");
        one.event.category = "a b&é".into();
        assert_eq!(posted(Ok(one)).unwrap().location.as_deref(), Some("/events/order:7?category=a+b%26%C3%A9"));
        assert!(all_posted(vec![Ok(told("a"))]).location.is_none(), "many have no one place");
    }

    #[test]
    fn some_good_is_207_with_what_became_of_each() {
        let answer = all_posted(vec![Err(problem(400, "fireAt is missing")), Ok(told("b")), Err(problem(503, "full"))]);
        let results: Vec<EventResult> = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!((answer.status, answer.busy), (207, true), "what is busy may be tried again");
        let told: Vec<_> = results.iter().map(|result| (result.index, result.status, result.event.is_some())).collect();
        assert_eq!(told, [(0, 400, false), (1, 201, true), (2, 503, false)]);
        assert_eq!(results[0].problem.as_ref().unwrap().detail, "fireAt is missing");
    }

    #[test]
    fn none_good_is_the_problem_of_all() {
        for (statuses, status) in [([400, 400], 400), ([503, 503], 503), ([503, 403], 400)] {
            let answer = all_posted(statuses.iter().map(|status| Err(problem(*status, "no"))).collect());
            let refused: AllRefused = serde_json::from_slice(&answer.body).unwrap();
            assert_eq!((answer.status, refused.problem.status, refused.results.len()), (status, status, 2));
            assert_eq!((answer.media_type, refused.problem.code.as_str()), (Problem::MEDIA_TYPE, "events_refused"));
            assert_eq!(answer.busy, statuses.contains(&503));
        }
    }

    #[test]
    fn a_page_says_where_the_next_begins() {
        let events = vec![told("a").event, told("b").event];
        let answer = page(&Page { events, next: Some("2".into()), bounds: Some((7, 1)) });
        let read: EventPage = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!((read.events.len(), read.next.as_deref(), read.head, read.oldest), (2, Some("2"), Some(7), Some(1)));
        let answer = page(&Page { events: Vec::new(), next: None, bounds: None });
        assert_eq!(answer.body, b"{\"events\":[]}");
    }
}

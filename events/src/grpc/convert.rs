//! Messages to what the rules know, and back; what is not allowed in is refused here, with its field and its bound.

use bytes::Bytes;
use notifyx_chassis::reply;
use notifyx_database::column;
use notifyx_model::{Category, Clock, EventId, Fault, GivenTime, Invalid, Kind, Priority, Timestamp};
use notifyx_wire::grpc::events as wire;

use crate::{
    Error,
    event::{Event, EventKey, NewEvent, Owner, Place},
    recurrence::{Cron, Every, Rule, Zone},
    recurring::{OnMissed, Recurring, State},
    schedule::{EventRef, Quantiles, Queue},
    schedules::NewRecurring,
    store::{Head, Kept, Page, Read, Slot},
};

/// Events of one request: what a publisher sends at once, and some seconds of work.
pub(super) const EVENTS_MAX: usize = 10_000;

/// Items of a page: an answer stays within some MiB, and some milliseconds.
const PAGE_MAX: u32 = 1_000;

/// Where nothing is said: what a person looks at.
const PAGE_DEFAULT: u32 = 50;

/// Of data in a page: what a connection takes without waiting for its peer.
pub(super) const PAGE_BYTES: u32 = 4 << 20;

/// Of data in an answer to many events. What was stored now stays below it by itself, as its request did.
const ANSWER_BYTES: usize = 16 << 20;

/// What the door itself says no with.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    #[error(transparent)]
    Event(#[from] Invalid),
    #[error("{count} events are given: 1 to {EVENTS_MAX} are taken at once")]
    Events { count: usize },
    #[error("{count} categories are named: up to {max} are taken at once")]
    Categories { count: usize, max: usize },
    #[error("this stream watches {max} categories already: open another one")]
    Watched { max: usize },
    #[error("limit {limit} is not 1 to {PAGE_MAX}, or 0 for {PAGE_DEFAULT}")]
    Page { limit: u32 },
    #[error("the cursor is not one of a page of this list: begin without one")]
    Cursor,
}

impl Fault for Refused {
    fn kind(&self) -> Kind {
        match self {
            Self::Event(_) | Self::Events { .. } | Self::Categories { .. } | Self::Page { .. } | Self::Cursor => {
                Kind::Invalid
            }
            Self::Watched { .. } => Kind::TooMany,
        }
    }

    fn code(&self) -> &str {
        match self {
            Self::Event(_) => "event_invalid",
            Self::Events { .. } => "too_many_events",
            Self::Categories { .. } | Self::Watched { .. } => "too_many_categories",
            Self::Page { .. } => "page_invalid",
            Self::Cursor => "cursor_invalid",
        }
    }
}

/// Whose events they are, and when they came.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    pub(super) owner: Option<Owner>,
    pub(super) clock: Clock,
}

/// An event for its time.
pub(super) fn scheduled(event: wire::NewEvent, origin: &Origin) -> Result<NewEvent, Invalid> {
    let now = origin.clock.now();
    let micros = event.fire_at_us.ok_or_else(|| Invalid::new("fire_at", "is missing: when is the event to fire?"))?;
    given(event, ahead("fire_at", micros, now)?, now, origin)
}

/// An event for now.
pub(super) fn appended(event: wire::NewEvent, origin: &Origin) -> Result<NewEvent, Invalid> {
    let now = origin.clock.now();
    given(event, now, now, origin)
}

fn given(event: wire::NewEvent, fire_at: Timestamp, now: Timestamp, origin: &Origin) -> Result<NewEvent, Invalid> {
    Ok(NewEvent {
        id: id_or_new(&event.id, &origin.clock)?,
        category: Category::parse(&event.category)?,
        key: event.key.as_deref().map(EventKey::parse).transpose()?,
        priority: priority(event.priority)?,
        data: data(event.data)?,
        created_at: event.created_at_us.map_or(Ok(now), |micros| moment("created_at", micros))?,
        fire_at,
        owner: origin.owner.clone(),
        recurring: None,
    })
}

pub(super) fn id_or_new(id: &str, clock: &Clock) -> Result<EventId, Invalid> {
    if id.is_empty() { Ok(EventId::new(clock)) } else { EventId::parse(id) }
}

fn priority(level: Option<u32>) -> Result<Priority, Invalid> {
    // What is no byte is no priority either, and is refused as the largest one is.
    level.map_or(Ok(Priority::default()), |level| Priority::try_from(u8::try_from(level).unwrap_or(u8::MAX)))
}

fn data(data: Bytes) -> Result<Bytes, Invalid> {
    match data.len() {
        0 => Ok(Bytes::from_static(b"null")),
        1..=NewEvent::DATA_MAX_BYTES => Ok(data),
        more => Err(Invalid::new("data", format!("has {more} bytes, more than {}", NewEvent::DATA_MAX_BYTES))),
    }
}

/// Between 1970 and the year 9999.
fn moment(field: &'static str, micros: i64) -> Result<Timestamp, Invalid> {
    let at = Timestamp::from_micros(micros);
    if micros < 0 || at.as_micros() != micros {
        return Err(Invalid::new(field, format!("is {micros} µs, not between 1970 and the year 9999")));
    }
    Ok(at)
}

/// A time that something can be scheduled for.
pub(super) fn ahead(field: &'static str, micros: i64, now: Timestamp) -> Result<Timestamp, Invalid> {
    let (at, last) = (moment(field, micros)?, now + GivenTime::AHEAD_MAX);
    if at <= last {
        return Ok(at);
    }
    Err(Invalid::new(field, format!("is {at}, more than ten years ahead (at most {last} from now)")))
}

/// Empty: of every category.
pub(super) fn category(name: &str) -> Result<Option<Category>, Refused> {
    Ok(if name.is_empty() { None } else { Some(Category::parse(name)?) })
}

pub(super) fn categories(names: &[String], max: usize) -> Result<Vec<Category>, Refused> {
    if names.len() > max {
        return Err(Refused::Categories { count: names.len(), max });
    }
    Ok(names.iter().map(|name| Category::parse(name)).collect::<Result<_, _>>()?)
}

pub(super) fn event_ref(event: Option<wire::EventRef>) -> Result<EventRef, Refused> {
    let event = event.unwrap_or_default();
    Ok(EventRef { id: EventId::parse(&event.id)?, category: category(&event.category)? })
}

pub(super) fn page(limit: u32) -> Result<Page, Refused> {
    let limit = match limit {
        0 => PAGE_DEFAULT,
        1..=PAGE_MAX => limit,
        _ => return Err(Refused::Page { limit }),
    };
    Ok(Page { limit, bytes: PAGE_BYTES })
}

/// A place among what waits, as a list's cursor.
pub(super) fn cursor_of(slot: Slot) -> String {
    format!("{}.{}", slot.at.as_micros(), slot.seq)
}

pub(super) fn slot(cursor: &str) -> Result<Option<Slot>, Refused> {
    if cursor.is_empty() {
        return Ok(None);
    }
    let (micros, seq) = cursor.split_once('.').ok_or(Refused::Cursor)?;
    let at = Timestamp::from_micros(micros.parse().map_err(|_| Refused::Cursor)?);
    let seq = seq.parse().ok().filter(|seq| i64::try_from(*seq).is_ok()).ok_or(Refused::Cursor)?;
    Ok(Some(Slot { at, seq }))
}

/// The last name of the page before, as a list's cursor.
pub(super) fn after<T>(cursor: &str, parse: impl Fn(&str) -> Result<T, Invalid>) -> Result<Option<T>, Refused> {
    if cursor.is_empty() { Ok(None) } else { parse(cursor).map(Some).map_err(|_| Refused::Cursor) }
}

pub(super) fn event(event: Event) -> wire::Event {
    let Event { given, place } = event;
    let (offset, fired_at_us) = match place {
        Place::Waiting { .. } => (None, None),
        Place::Fired { offset, at } => (Some(offset), Some(at.as_micros())),
    };
    wire::Event {
        id: given.id.to_string(),
        category: given.category.to_string(),
        key: given.key.map(|key| key.as_str().to_owned()),
        priority: u8::from(given.priority).into(),
        data: given.data,
        created_at_us: given.created_at.as_micros(),
        fire_at_us: given.fire_at.as_micros(),
        offset,
        fired_at_us,
        schedule_id: given.recurring.map(|id| id.to_string()),
    }
}

pub(super) fn stored(kept: Kept) -> wire::Stored {
    wire::Stored { event: Some(event(kept.event)), duplicate: kept.duplicate, data_omitted: false }
}

/// In their order. Duplicates may be larger than what was sent: beyond the answer's bound they go without their data.
pub(super) fn results(results: Vec<Result<Kept, wire::Problem>>) -> wire::Results {
    let new = results.iter().flatten().filter(|kept| !kept.duplicate);
    let mut bytes: usize = new.map(|kept| kept.event.given.data.len()).sum();
    let result = |result: Result<Kept, wire::Problem>| match result {
        Ok(kept) => {
            let (duplicate, mut stored) = (kept.duplicate, stored(kept));
            if let Some(event) = stored.event.as_mut().filter(|_| duplicate) {
                stored.data_omitted = bytes + event.data.len() > ANSWER_BYTES;
                if stored.data_omitted {
                    event.data.clear();
                }
                bytes += event.data.len();
            }
            wire::event_result::Result::Stored(stored)
        }
        Err(problem) => wire::event_result::Result::Problem(problem),
    };
    let results = results.into_iter().map(result);
    wire::Results { results: results.map(|result| wire::EventResult { result: Some(result) }).collect() }
}

pub(super) fn problem(fault: &dyn Fault) -> wire::Problem {
    let problem = reply::problem(fault);
    wire::Problem { status: problem.status.into(), code: problem.code, detail: problem.detail }
}

pub(super) fn head(head: &Head) -> wire::Head {
    wire::Head { category: head.category.to_string(), offset: head.offset, oldest: head.trimmed + 1 }
}

pub(super) fn read(read: Read) -> wire::ReadReply {
    wire::ReadReply {
        events: read.events.into_iter().map(event).collect(),
        head: read.offset,
        oldest: read.trimmed + 1,
    }
}

pub(super) fn queue(queue: &Queue) -> wire::Queue {
    wire::Queue {
        category: queue.category.to_string(),
        size: queue.size,
        capacity: queue.capacity,
        earliest_us: queue.earliest.map(Timestamp::as_micros),
        latest_us: queue.latest.map(Timestamp::as_micros),
        backlog: queue.backlog,
        fired: queue.fired,
        lateness: queue.lateness.map(lateness),
    }
}

fn lateness(quantiles: Quantiles) -> wire::Lateness {
    let micros = |late: std::time::Duration| u64::try_from(late.as_micros()).unwrap_or(u64::MAX);
    wire::Lateness {
        p50_us: micros(quantiles.p50),
        p90_us: micros(quantiles.p90),
        p99_us: micros(quantiles.p99),
        max_us: micros(quantiles.max),
    }
}

/// What is to recur; without an owner's word for it, the zone is UTC.
pub(super) fn recurring(new: wire::NewSchedule, origin: &Origin) -> Result<NewRecurring, Error> {
    use wire::new_schedule::Rule as Asked;
    let (rule, zone) = match new.rule {
        Some(Asked::EveryUs(micros)) => (Rule::Every(Every::from_micros(micros)?), String::new()),
        Some(Asked::Cron(cron)) => (Rule::Cron(Cron::parse(&cron.expression)?), cron.time_zone),
        None => return Err(Invalid::new("rule", "is missing: `every` or `cron`").into()),
    };
    let on_missed = match wire::OnMissed::try_from(new.on_missed) {
        Ok(wire::OnMissed::FireAll) => OnMissed::FireAll,
        Ok(wire::OnMissed::FireLast | wire::OnMissed::Unspecified) => OnMissed::FireLast,
        Ok(wire::OnMissed::Skip) => OnMissed::Skip,
        Err(_) => return Err(Invalid::new("on_missed", "is not fire_all, fire_last or skip").into()),
    };
    Ok(NewRecurring {
        id: id_or_new(&new.id, &origin.clock)?,
        category: Category::parse(&new.category)?,
        key: new.key.as_deref().map(EventKey::parse).transpose()?,
        priority: priority(new.priority)?,
        data: data(new.data)?,
        rule,
        zone: Zone::parse(if zone.is_empty() { "UTC" } else { &zone })?,
        on_missed,
        start_at: new.start_at_us.map(|micros| moment("start_at", micros)).transpose()?,
        end_at: new.end_at_us.map(|micros| moment("end_at", micros)).transpose()?,
        count: new.count.map(count).transpose()?,
        owner: origin.owner.clone(),
    })
}

/// Stores count in signed numbers.
fn count(count: u64) -> Result<u64, Invalid> {
    match i64::try_from(count) {
        Ok(_) => Ok(count),
        Err(_) => Err(Invalid::new("count", format!("is {count}, more than {}", i64::MAX))),
    }
}

pub(super) fn recurring_schedule(kept: Recurring) -> Result<wire::RecurringSchedule, Error> {
    use wire::new_schedule::Rule as Asked;
    let rule = column::stored("rule", kept.rule.parse::<Rule>())?;
    let rule = match rule {
        Rule::Every(every) => Asked::EveryUs(every.as_micros()),
        Rule::Cron(cron) => Asked::Cron(wire::Cron { expression: cron.to_string(), time_zone: kept.zone }),
    };
    let on_missed = match kept.on_missed {
        OnMissed::FireAll => wire::OnMissed::FireAll,
        OnMissed::FireLast => wire::OnMissed::FireLast,
        OnMissed::Skip => wire::OnMissed::Skip,
    };
    let next_at = match kept.state {
        State::Active { next } => Some(next),
        State::Paused { .. } | State::Finished => None,
    };
    Ok(wire::RecurringSchedule {
        rule: Some(wire::NewSchedule {
            id: kept.id.to_string(),
            category: kept.category.to_string(),
            key: kept.key.map(|key| key.as_str().to_owned()),
            priority: Some(u8::from(kept.priority).into()),
            data: kept.data,
            rule: Some(rule),
            start_at_us: kept.start_at.map(Timestamp::as_micros),
            end_at_us: kept.end_at.map(Timestamp::as_micros),
            count: kept.count,
            on_missed: on_missed.into(),
        }),
        created_at_us: kept.created_at.as_micros(),
        paused: kept.state.is_paused(),
        next_at_us: next_at.map(Timestamp::as_micros),
        last_at_us: kept.last_at.map(Timestamp::as_micros),
        created: kept.made,
        skipped: kept.skipped,
        finished: kept.state == State::Finished,
    })
}

#[cfg(test)]
mod tests {
    use notifyx_model::ManualClock;

    use super::*;

    fn origin() -> Origin {
        Origin { owner: None, clock: ManualClock::new().clock() }
    }

    fn new(change: impl FnOnce(&mut wire::NewEvent)) -> wire::NewEvent {
        let mut event =
            wire::NewEvent { id: "e".into(), category: "c".into(), fire_at_us: Some(0), ..wire::NewEvent::default() };
        change(&mut event);
        event
    }

    #[test]
    fn what_is_not_said_is_filled_in() {
        let origin = origin();
        let event = scheduled(new(|event| event.id.clear()), &origin).unwrap();
        assert_eq!(
            (&event.data[..], event.priority, event.created_at),
            (&b"null"[..], Priority::default(), origin.clock.now())
        );
        assert_eq!(event.id.as_str().len(), 36);
        assert_eq!(appended(new(|event| event.fire_at_us = None), &origin).unwrap().fire_at, origin.clock.now());
    }

    #[test]
    fn what_is_out_of_bounds_is_refused_by_its_field() {
        let too_far = origin().clock.now() + GivenTime::AHEAD_MAX + std::time::Duration::from_secs(1);
        for (bad, answer) in [
            (new(|event| event.fire_at_us = None), "fire_at is missing"),
            (new(|event| event.fire_at_us = Some(-1)), "fire_at is -1 µs, not between"),
            (new(|event| event.fire_at_us = Some(i64::MIN)), "fire_at is -9223372036854775808 µs"),
            (new(|event| event.fire_at_us = Some(i64::MAX)), "fire_at is 9223372036854775807 µs"),
            (new(|event| event.fire_at_us = Some(too_far.as_micros())), "more than ten years ahead"),
            (new(|event| event.created_at_us = Some(-1)), "created_at is -1 µs"),
            (new(|event| event.category = "a/b".into()), "category"),
            (new(|event| event.category = "c".repeat(300)), "category has 300 bytes"),
            (new(|event| event.id = "a b".into()), "id"),
            (new(|event| event.priority = Some(10)), "priority"),
            (new(|event| event.priority = Some(256)), "priority"),
            (new(|event| event.key = Some(String::new())), "key is empty"),
            (new(|event| event.data = vec![b'1'; 262_145].into()), "data has 262145 bytes, more than 262144"),
        ] {
            let refused = scheduled(bad, &origin()).unwrap_err().to_string();
            assert!(refused.contains(answer), "{refused}");
        }
    }

    #[test]
    fn a_cursor_reads_back_and_nothing_else_is_one() {
        let slot_of = Slot { at: Timestamp::from_micros(7), seq: 9 };
        assert_eq!(slot(&cursor_of(slot_of)).unwrap(), Some(slot_of));
        assert_eq!(slot("").unwrap(), None);
        for bad in ["7", "7.", ".9", "a.b", "7.-1", "7.18446744073709551615"] {
            assert_eq!(slot(bad).unwrap_err().code(), "cursor_invalid", "{bad}");
        }
    }

    #[test]
    fn duplicates_beyond_the_bound_go_without_data() {
        let kept = |id: &str, duplicate| {
            let mut event = scheduled(new(|_| ()), &origin()).unwrap();
            (event.id, event.data) = (EventId::parse(id).unwrap(), vec![b'1'; NewEvent::DATA_MAX_BYTES].into());
            Ok(Kept { event: Event { given: event, place: Place::Waiting { seq: 1 } }, duplicate })
        };
        let mut all: Vec<_> = (0..100).map(|n| kept(&format!("d{n}"), true)).collect();
        all.push(kept("new", false));
        let answered = results(all).results;
        let data = |result: &wire::EventResult| match &result.result {
            Some(wire::event_result::Result::Stored(stored)) => {
                assert_eq!(stored.data_omitted, stored.event.as_ref().unwrap().data.is_empty());
                stored.event.as_ref().unwrap().data.len()
            }
            _ => panic!("stored"),
        };
        assert_eq!(answered.iter().map(data).sum::<usize>(), ANSWER_BYTES);
        assert!(data(answered.last().unwrap()) > 0, "what is new is whole");
    }
}

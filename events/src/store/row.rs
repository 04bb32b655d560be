//! What both backends read, before it is trusted: rows, and the one place where columns become the domain's types.

use std::{collections::HashMap, time::Duration};

use bytes::Bytes;
use notifyx_database::{self as database, column::stored};
use notifyx_model::{Category, EventId, Priority, Timestamp};
use sqlx::FromRow;

use super::{Due, Head, Lease, Reached, Slot, keep::Moves};
use crate::{
    Error,
    consumer::{Consumer, ConsumerName},
    event::{Event, EventKey, NewEvent, Owner, Place},
    recurring::{Recurring, State},
};

pub(super) use notifyx_database::column::{all, micros, signed, unsigned};

fn priority(level: i16) -> Result<Priority, database::Error> {
    stored("priority", Priority::try_from(u8::try_from(level).unwrap_or(u8::MAX)))
}

pub(super) fn level(priority: Priority) -> i16 {
    i16::from(u8::from(priority))
}

#[derive(FromRow)]
pub(super) struct TopicRow {
    pub(super) id: i64,
    pub(super) name: String,
    pub(super) last_offset: i64,
    pub(super) trimmed_offset: i64,
    waiting: i64,
}

impl TopicRow {
    /// Its columns, of a table `t`.
    pub(super) const COLUMNS: &str = "t.id, t.name, t.last_offset, t.trimmed_offset, t.waiting";

    pub(super) fn head(&self, category: Category) -> Head {
        Head {
            category,
            offset: unsigned(self.last_offset),
            trimmed: unsigned(self.trimmed_offset),
            waiting: unsigned(self.waiting),
        }
    }

    /// Where to trim, so that `keep` events stay and at most `rows` go, none of them above `passed`, where the slowest consumer is;
    /// `None`: nothing is to go.
    pub(super) fn trim_to(&self, keep: u64, rows: u32, passed: Option<i64>) -> Option<i64> {
        let trimmed = (self.last_offset - signed(keep)).min(self.trimmed_offset + i64::from(rows));
        let trimmed = passed.map_or(trimmed, |passed| trimmed.min(passed));
        (trimmed > self.trimmed_offset).then_some(trimmed)
    }
}

impl TryFrom<TopicRow> for Head {
    type Error = Error;

    fn try_from(row: TopicRow) -> Result<Self, Error> {
        Ok(row.head(stored("category", Category::parse(&row.name))?))
    }
}

#[derive(FromRow)]
pub(super) struct EventRow {
    category: String,
    id: String,
    key: Option<String>,
    priority: i16,
    data: Vec<u8>,
    created_at: i64,
    fire_at: i64,
    owner: Option<String>,
    recurring_id: Option<String>,
    /// NULL once it fired.
    seq: Option<i64>,
    offset: Option<i64>,
    fired_at: Option<i64>,
}

impl TryFrom<EventRow> for Event {
    type Error = Error;

    fn try_from(row: EventRow) -> Result<Self, Error> {
        let place = match (row.offset, row.fired_at, row.seq) {
            (Some(offset), Some(at), _) => Place::Fired { offset: unsigned(offset), at: Timestamp::from_micros(at) },
            (_, _, Some(seq)) => Place::Waiting { seq: unsigned(seq) },
            _ => stored("event", Err(format!("`{}` is in no place", row.id)))?,
        };
        let given = NewEvent {
            id: event_id(&row.id)?,
            category: stored("category", Category::parse(&row.category))?,
            key: row.key.map(|text| stored("key", EventKey::parse(&text))).transpose()?,
            priority: priority(row.priority)?,
            data: Bytes::from(row.data),
            created_at: Timestamp::from_micros(row.created_at),
            fire_at: Timestamp::from_micros(row.fire_at),
            owner: row.owner.map(|text| stored("owner", Owner::parse(&text))).transpose()?,
            recurring: row.recurring_id.map(|text| event_id(&text)).transpose()?,
        };
        Ok(Self { given, place })
    }
}

/// An event that was found for the n-th of those asked for.
#[derive(FromRow)]
pub(super) struct FoundRow {
    n: i64,
    #[sqlx(flatten)]
    event: EventRow,
}

pub(super) fn found(rows: Vec<FoundRow>) -> Result<HashMap<usize, Event>, Error> {
    rows.into_iter().map(|row| Ok((index(row.n), Event::try_from(row.event)?))).collect()
}

/// A place in a list that was given to the database.
pub(super) fn index(n: i64) -> usize {
    usize::try_from(n).expect("the database answers for places that it was given")
}

/// A waiting event that is about to fire, with its topic.
#[derive(FromRow)]
pub(super) struct FiringRow {
    topic_id: i64,
    last_offset: i64,
    #[sqlx(flatten)]
    event: EventRow,
}

/// A number in the schedule, and the offset that it gets in the log.
pub(super) type Fired = (i64, i64);

/// Gives each the next offset of its topic, in this order; and the events as they will be.
pub(super) fn fire(rows: Vec<FiringRow>, at: Timestamp, moves: &mut Moves) -> Result<(Vec<Fired>, Vec<Event>), Error> {
    let (mut numbers, mut events) = (Vec::with_capacity(rows.len()), Vec::with_capacity(rows.len()));
    for row in rows {
        let Some(seq) = row.event.seq else { continue };
        let offset = moves.append(row.topic_id, row.last_offset);
        moves.wait(row.topic_id, -1);
        numbers.push((seq, offset));
        let place = Place::Fired { offset: unsigned(offset), at };
        events.push(Event { place, ..row.event.try_into()? });
    }
    Ok((numbers, events))
}

#[derive(FromRow)]
pub(super) struct DueRow {
    category: String,
    fire_at: i64,
    seq: i64,
    priority: i16,
}

impl TryFrom<DueRow> for Due {
    type Error = Error;

    fn try_from(row: DueRow) -> Result<Self, Error> {
        Ok(Self {
            category: stored("category", Category::parse(&row.category))?,
            slot: Slot { at: Timestamp::from_micros(row.fire_at), seq: unsigned(row.seq) },
            priority: priority(row.priority)?,
        })
    }
}

#[derive(FromRow)]
pub(super) struct RecurringRow {
    id: String,
    category: String,
    key: Option<String>,
    priority: i16,
    rule: String,
    zone: String,
    on_missed: String,
    start_at: Option<i64>,
    end_at: Option<i64>,
    count: Option<i64>,
    owner: Option<String>,
    created_at: i64,
    paused: bool,
    next_at: Option<i64>,
    last_at: Option<i64>,
    made: i64,
    skipped: i64,
    data: Vec<u8>,
}

impl RecurringRow {
    /// Its columns, of tables `r` and `t`.
    pub(super) const COLUMNS: &str = "r.id, t.name AS category, r.key, r.priority, r.rule, r.zone, r.on_missed, r.start_at, r.end_at, \
        r.count, r.owner, r.created_at, r.paused, r.next_at, r.last_at, r.made, r.skipped, r.data";
}

impl TryFrom<RecurringRow> for Recurring {
    type Error = Error;

    fn try_from(row: RecurringRow) -> Result<Self, Error> {
        let time = |micros: Option<i64>| micros.map(Timestamp::from_micros);
        Ok(Self {
            id: stored("schedule id", EventId::parse(&row.id))?,
            category: stored("category", Category::parse(&row.category))?,
            key: row.key.map(|text| stored("key", EventKey::parse(&text))).transpose()?,
            priority: priority(row.priority)?,
            data: Bytes::from(row.data),
            rule: row.rule,
            zone: row.zone,
            on_missed: stored("on_missed", row.on_missed.parse())?,
            start_at: time(row.start_at),
            end_at: time(row.end_at),
            count: row.count.map(unsigned),
            owner: row.owner.map(|text| stored("owner", Owner::parse(&text))).transpose()?,
            created_at: Timestamp::from_micros(row.created_at),
            state: match (time(row.next_at), row.paused) {
                (None, _) => State::Finished,
                (Some(next), true) => State::Paused { next },
                (Some(next), false) => State::Active { next },
            },
            last_at: time(row.last_at),
            made: unsigned(row.made),
            skipped: unsigned(row.skipped),
        })
    }
}

/// Each by itself: one that cannot be read holds up no other.
pub(super) fn reached(rows: Vec<RecurringRow>) -> Vec<Reached> {
    let reached = |row: RecurringRow| {
        let (at, id) = (Timestamp::from_micros(row.next_at.unwrap_or(i64::MAX)), row.id.clone());
        Reached { at, id, recurring: row.try_into() }
    };
    rows.into_iter().map(reached).collect()
}

#[derive(FromRow)]
pub(super) struct LeaseRow {
    holder: String,
    term: i64,
    left: i64,
}

impl From<LeaseRow> for Lease {
    fn from(row: LeaseRow) -> Self {
        Self { holder: row.holder, term: unsigned(row.term), left: Duration::from_micros(unsigned(row.left)) }
    }
}

#[derive(FromRow)]
pub(super) struct ConsumerRow {
    name: String,
    category: String,
    position: i64,
    head: i64,
    holder: String,
    term: i64,
    left: i64,
}

impl TryFrom<ConsumerRow> for Consumer {
    type Error = Error;

    fn try_from(row: ConsumerRow) -> Result<Self, Error> {
        Ok(Self {
            name: stored("consumer", ConsumerName::parse(&row.name))?,
            category: stored("category", Category::parse(&row.category))?,
            position: unsigned(row.position),
            head: unsigned(row.head),
            holder: row.holder,
            term: unsigned(row.term),
            left: Duration::from_micros(unsigned(row.left)),
        })
    }
}

pub(super) fn names(rows: Vec<(String,)>) -> Result<Vec<Category>, Error> {
    rows.into_iter().map(|(name,)| Ok(stored("category", Category::parse(&name))?)).collect()
}

pub(super) fn event_id(text: &str) -> Result<EventId, Error> {
    Ok(stored("event id", EventId::parse(text))?)
}

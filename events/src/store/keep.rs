//! What both backends decide alike: which events of a batch are new, where they go, and what each caller is told.

use std::collections::{BTreeMap, HashMap, HashSet};

use notifyx_model::{Category, EventId, Timestamp};

use super::{
    Change, Head, Kept, Named, Occurrences, Slot,
    row::{TopicRow, signed, unsigned},
};
use crate::{
    Error,
    consumer::{Consumer, ConsumerName},
    event::{Event, NewEvent, Place},
};

/// The categories, each once, in order.
pub(super) fn categories<'a>(all: impl Iterator<Item = &'a Category>) -> Vec<&'a str> {
    let mut names: Vec<&str> = all.map(Category::as_str).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// The rows of the topics that a transaction is about, by name.
pub(super) struct Topics(HashMap<String, TopicRow>);

impl Topics {
    pub(super) fn new(rows: Vec<TopicRow>) -> Self {
        Self(rows.into_iter().map(|row| (row.name.clone(), row)).collect())
    }

    /// Whether they are all there.
    pub(super) fn hold(&self, names: &[&str]) -> bool {
        names.iter().all(|name| self.0.contains_key(*name))
    }

    pub(super) fn get(&self, category: &Category) -> &TopicRow {
        self.0.get(category.as_str()).expect("the transaction has read or made every topic it names")
    }

    pub(super) fn find(&self, category: &Category) -> Option<&TopicRow> {
        self.0.get(category.as_str())
    }

    /// One for each, in this order; a topic that is not there stands at 0.
    pub(super) fn heads(&self, categories: &[Category]) -> Vec<Head> {
        categories
            .iter()
            .map(|category| match self.0.get(category.as_str()) {
                Some(row) => row.head(category.clone()),
                None => Head { category: category.clone(), offset: 0, trimmed: 0, waiting: 0 },
            })
            .collect()
    }
}

/// The events of a batch that are to be stored, by their place in it: those that are not known, each name once.
pub(super) fn fresh(events: &[NewEvent], known: &HashMap<usize, Event>) -> Vec<usize> {
    let mut names: HashSet<(&Category, &EventId)> = HashSet::with_capacity(events.len());
    (0..events.len())
        .filter(|i| names.insert((&events[*i].category, &events[*i].id)) && !known.contains_key(i))
        .collect()
}

/// What each caller is told: `placed` are the fresh ones. Others were known, or are named as an earlier one of the batch.
pub(super) fn kept(
    events: &[NewEvent],
    placed: impl IntoIterator<Item = (usize, Place)>,
    known: &HashMap<usize, Event>,
) -> Vec<Kept> {
    let placed: HashMap<usize, Place> = placed.into_iter().collect();
    let mut new: HashMap<(&Category, &EventId), Event> = HashMap::new();
    let mut kept = Vec::with_capacity(events.len());
    for (i, given) in events.iter().enumerate() {
        let name = (&given.category, &given.id);
        kept.push(match (placed.get(&i), known.get(&i)) {
            (Some(place), _) => {
                let event = Event { given: given.clone(), place: *place };
                new.insert(name, event.clone());
                Kept { event, duplicate: false }
            }
            (None, Some(event)) => Kept { event: event.clone(), duplicate: true },
            (None, None) => {
                let event = new.get(&name).expect("what is neither new nor known is named as an earlier one").clone();
                Kept { event, duplicate: true }
            }
        });
    }
    kept
}

/// A fresh event of a batch at the end of its topic's log: its place in the batch, the topic, the offset.
pub(super) type Added = (usize, i64, i64);

/// Where the fresh ones go in the log, and how far the heads move by that.
pub(super) fn added(events: &[NewEvent], topics: &Topics, known: &HashMap<usize, Event>) -> (Vec<Added>, Moves) {
    let mut moves = Moves::default();
    let row = |i: usize| {
        let topic = topics.get(&events[i].category);
        (i, topic.id, moves.append(topic.id, topic.last_offset))
    };
    let rows = fresh(events, known).into_iter().map(row).collect();
    (rows, moves)
}

/// What each caller is told once they are there.
pub(super) fn appended(events: &[NewEvent], rows: &[Added], at: Timestamp, known: &HashMap<usize, Event>) -> Vec<Kept> {
    kept(events, rows.iter().map(|(i, _, offset)| (*i, Place::Fired { offset: unsigned(*offset), at })), known)
}

/// How far the heads of topics move in a transaction.
#[derive(Default)]
pub(super) struct Moves(BTreeMap<i64, (i64, i64)>);

impl Moves {
    /// One more in the log of a topic that stood at `last`; its offset.
    pub(super) fn append(&mut self, topic: i64, last: i64) -> i64 {
        let (appended, _) = self.0.entry(topic).or_default();
        *appended += 1;
        last + *appended
    }

    /// More, or fewer, in the schedule.
    pub(super) fn wait(&mut self, topic: i64, more: i64) {
        self.0.entry(topic).or_default().1 += more;
    }

    /// Topic, events appended, more waiting; by topic.
    pub(super) fn each(&self) -> impl Iterator<Item = (i64, i64, i64)> {
        self.0.iter().map(|(topic, (appended, waiting))| (*topic, *appended, *waiting))
    }
}

/// The consumer, if it follows this category.
pub(super) fn follows(consumer: Consumer, category: &Category) -> Result<Consumer, Error> {
    if consumer.category == *category {
        return Ok(consumer);
    }
    Err(Error::ConsumerElsewhere { name: consumer.name.as_str().to_owned(), category: consumer.category })
}

/// The consumer, if whoever acts under this term still has it.
pub(super) fn held(consumer: Option<Consumer>, name: &ConsumerName, term: u64) -> Result<Consumer, Error> {
    let name = name.as_str().to_owned();
    match consumer {
        Some(consumer) if consumer.term == term => Ok(consumer),
        Some(consumer) => Err(Error::ConsumerLost { name, holder: consumer.holder }),
        None => Err(Error::ConsumerNotFound(name)),
    }
}

/// Where it is to stand: not beyond the log, and never further back.
pub(super) fn moved(consumer: &Consumer, position: u64) -> Result<u64, Error> {
    if position > consumer.head {
        return Err(Error::BeyondHead { position, head: consumer.head });
    }
    Ok(position.max(consumer.position))
}

/// The events of occurrences whose nominal times were not made before; `made` are those, with the names of their schedules.
pub(super) fn occurred<'a>(
    occurrences: impl IntoIterator<Item = &'a Occurrences>,
    made: &[(String, i64)],
) -> Vec<NewEvent> {
    let made: HashSet<(&str, i64)> = made.iter().map(|(id, nominal)| (id.as_str(), *nominal)).collect();
    let new = |one: &'a Occurrences| {
        let is_new = |at: &Timestamp| made.contains(&(one.id.as_str(), at.as_micros()));
        one.events.iter().filter(move |(at, _)| is_new(at)).map(|(_, event)| event.clone()).collect::<Vec<_>>()
    };
    occurrences.into_iter().flat_map(new).collect()
}

/// Numbers of events, each once, in their order.
pub(super) fn distinct(seqs: &[u64]) -> Vec<i64> {
    let mut known = HashSet::with_capacity(seqs.len());
    seqs.iter().filter(|seq| known.insert(**seq)).map(|seq| signed(*seq)).collect()
}

pub(super) fn waiting(seq: i64) -> Place {
    Place::Waiting { seq: unsigned(seq) }
}

/// What becomes of each that is to be cancelled: what waits is taken once.
pub(super) fn cancelled(asked: usize, mut known: HashMap<usize, Event>) -> Vec<Change> {
    let mut taken = HashSet::new();
    let change = |i| match known.remove(&i) {
        Some(event) => match event.place {
            Place::Fired { .. } => Change::Fired(event),
            Place::Waiting { seq } if taken.insert(seq) => Change::Done(event),
            Place::Waiting { .. } => Change::Unknown,
        },
        None => Change::Unknown,
    };
    (0..asked).map(change).collect()
}

/// The numbers of those that are taken.
pub(super) fn numbers(changes: &[Change]) -> Vec<i64> {
    let number = |change: &Change| match change {
        Change::Done(Event { place: Place::Waiting { seq }, .. }) => Some(signed(*seq)),
        Change::Done(_) | Change::Moved(..) | Change::Fired(_) | Change::Unknown => None,
    };
    changes.iter().filter_map(number).collect()
}

/// An event's old number, and the new one with its new time.
pub(super) struct Moved {
    pub(super) old: i64,
    pub(super) new: i64,
    pub(super) at: Timestamp,
}

/// What becomes of each that gets another time; of several for one event the last counts. `numbers` has one for each.
pub(super) fn rescheduled(
    orders: &[(Named, Timestamp)],
    mut known: HashMap<usize, Event>,
    numbers: impl IntoIterator<Item = i64>,
) -> (Vec<Change>, Vec<Moved>) {
    let mut moved: Vec<Moved> = Vec::new();
    let mut places: HashMap<u64, usize> = HashMap::new();
    let mut change = |i: usize, at: Timestamp, new: i64| {
        let Some(mut event) = known.remove(&i) else { return Change::Unknown };
        let Place::Waiting { seq } = event.place else { return Change::Fired(event) };
        let place = *places.entry(seq).or_insert(moved.len());
        let from = if let Some(earlier) = moved.get_mut(place) {
            let from = Slot { at: earlier.at, seq: unsigned(earlier.new) };
            (earlier.new, earlier.at) = (new, at);
            from
        } else {
            moved.push(Moved { old: signed(seq), new, at });
            Slot { at: event.given.fire_at, seq }
        };
        (event.given.fire_at, event.place) = (at, waiting(new));
        Change::Moved(event, from)
    };
    let changes = orders.iter().enumerate().zip(numbers).map(|((i, (_, at)), new)| change(i, *at, new)).collect();
    (changes, moved)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use notifyx_model::Priority;

    use super::*;

    fn event(category: &str, id: &str) -> NewEvent {
        NewEvent {
            id: EventId::parse(id).unwrap(),
            category: Category::parse(category).unwrap(),
            key: None,
            priority: Priority::default(),
            data: Bytes::from_static(b"null"),
            created_at: Timestamp::from_micros(0),
            fire_at: Timestamp::from_micros(0),
            owner: None,
            recurring: None,
        }
    }

    #[test]
    fn of_one_name_the_first_counts_and_the_others_are_told_of_it() {
        let events = [event("a", "1"), event("a", "2"), event("a", "1"), event("b", "1"), event("a", "2")];
        let old = Event { given: event("a", "2"), place: waiting(9) };
        let known = HashMap::from([(1, old.clone()), (4, old)]);
        let fresh = fresh(&events, &known);
        assert_eq!(fresh, [0, 3]);
        let kept = kept(&events, fresh.iter().zip(1..).map(|(i, seq)| (*i, waiting(seq))), &known);
        let told: Vec<_> = kept.iter().map(|kept| (kept.event.place, kept.duplicate)).collect();
        let expected = [(1, false), (9, true), (1, true), (2, false), (9, true)];
        assert_eq!(told, expected.map(|(seq, duplicate)| (waiting(seq), duplicate)));
    }
}

//! The invariants of two-phase commit, numbered as in `docs/TWO_PHASE_COMMIT.md`, against databases in which nothing moves
//! any more and against what the clients were told.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt::Display,
};

use uuid::Uuid;

use crate::{
    books::Snapshot,
    ledger::{End, Entry, Told},
};

/// What does not hold, as sentences.
#[derive(Default)]
pub(crate) struct Violations(pub(crate) Vec<String>);

impl Violations {
    fn unless(&mut self, holds: bool, invariant: u8, what: impl Display) {
        if !holds {
            self.0.push(format!("invariant {invariant}: {what}"));
        }
    }

    fn same<T: Ord + std::fmt::Debug>(&mut self, invariant: u8, what: &str, left: &BTreeSet<T>, right: &BTreeSet<T>) {
        let differ: Vec<&T> = left.symmetric_difference(right).collect();
        let some = &differ[..differ.len().min(10)];
        self.unless(differ.is_empty(), invariant, format!("{what} differ in {}: {some:?}", differ.len()));
    }
}

/// All of them.
pub(crate) fn check(books: &Snapshot, ledger: &[Entry], topics: &HashMap<String, Uuid>) -> Violations {
    let mut violations = Violations::default();
    the_same_is_committed_everywhere(books, &mut violations);
    counters_and_offsets_add_up(books, &mut violations);
    nothing_hangs(books, &mut violations);
    clients_were_told_the_truth(books, ledger, &mut violations);
    a_key_is_committed_once(books, ledger, topics, &mut violations);
    violations
}

/// 1.
fn the_same_is_committed_everywhere(books: &Snapshot, violations: &mut Violations) {
    let decided: BTreeSet<Uuid> = books.coordinator.iter().filter(|(_, t)| t.state == "COMMIT").map(gid).collect();
    let at = |states: &BTreeMap<Uuid, String>| -> BTreeSet<Uuid> {
        states.iter().filter(|(_, state)| *state == "COMMITTED").map(gid).collect()
    };
    violations.same(1, "persist and the coordinator", &at(&books.persist), &decided);
    violations.same(1, "counter-2pc and the coordinator", &at(&books.counter), &decided);
    let written = books.notifications.iter().map(|notification| notification.gid).collect();
    violations.same(1, "the notifications and the coordinator", &written, &decided);
}

/// 2.
fn counters_and_offsets_add_up(books: &Snapshot, violations: &mut Violations) {
    let mut sums = BTreeMap::<(String, Uuid), u64>::new();
    let (mut gids, mut ids) = (BTreeSet::new(), BTreeSet::new());
    let mut heads = BTreeMap::<Uuid, u64>::new();
    for one in &books.notifications {
        *sums.entry(("user".into(), one.from)).or_default() += 1;
        *sums.entry(("topic".into(), one.topic)).or_default() += 1;
        violations.unless(gids.insert(one.gid) && ids.insert(one.id), 2, format!("{} is there twice", one.gid));
        let head = heads.entry(one.topic).or_default();
        *head += 1;
        violations.unless(one.offset == *head, 2, format!("offset {head} of topic {} is {}", one.topic, one.offset));
    }
    let set = |sums: &BTreeMap<(String, Uuid), u64>| -> BTreeSet<_> {
        sums.iter().filter(|(_, count)| **count > 0).map(|(of, count)| (of.clone(), *count)).collect()
    };
    violations.same(2, "the counters and what was committed", &set(&books.counters), &set(&sums));
    for (topic, head) in &books.heads {
        let last = heads.get(topic).copied().unwrap_or(0);
        violations.unless(last == *head, 2, format!("the head of topic {topic} is {head}, its last offset {last}"));
    }
}

/// 3, 6 and 7: everything is closed, so nothing may be prepared, and both participants are where the decision is.
fn nothing_hangs(books: &Snapshot, violations: &mut Violations) {
    for (participant, states) in [("persist", &books.persist), ("counter-2pc", &books.counter)] {
        for (gid, state) in states {
            violations.unless(state != "PREPARED", 3, format!("{gid} is still PREPARED in {participant}"));
            violations.unless(books.coordinator.contains_key(gid), 3, format!("{participant} alone knows {gid}"));
        }
        for (gid, transaction) in books.coordinator.iter().filter(|(_, transaction)| transaction.closed) {
            let expected = if transaction.state == "COMMIT" { "COMMITTED" } else { "ABORTED" };
            let found = states.get(gid).map(String::as_str);
            violations.unless(
                found == Some(expected),
                6,
                format!("{gid} is closed as {}, but {participant} says {found:?}", transaction.state),
            );
        }
    }
    for (gid, transaction) in &books.coordinator {
        violations.unless(!transaction.quarantined, 7, format!("{gid} is quarantined"));
        violations.unless(transaction.closed, 3, format!("{gid} is open: {transaction:?}"));
    }
}

/// 4.
fn clients_were_told_the_truth(books: &Snapshot, ledger: &[Entry], violations: &mut Violations) {
    for entry in ledger {
        for told in &entry.told {
            let (gid, expected) = match told {
                Told::Committed(gid) => (gid, "COMMIT"),
                Told::Aborted(gid) => (gid, "ABORT"),
                // What it came to is another answer; but there is such a transaction.
                Told::Open(gid) => {
                    violations.unless(books.coordinator.contains_key(gid), 4, format!("{gid} was told of: {entry:?}"));
                    continue;
                }
                Told::Refused | Told::NotPublished | Told::Unavailable => continue,
            };
            let found = books.coordinator.get(gid).map(|transaction| transaction.state.as_str());
            violations.unless(found == Some(expected), 4, format!("{gid} is {found:?}, told was {entry:?}"));
        }
    }
}

/// 5.
fn a_key_is_committed_once(
    books: &Snapshot,
    ledger: &[Entry],
    topics: &HashMap<String, Uuid>,
    violations: &mut Violations,
) {
    let mut committed = HashMap::<(Uuid, &str), Uuid>::new();
    for (gid, transaction) in books.coordinator.iter().filter(|(_, transaction)| transaction.state == "COMMIT") {
        let Some(key) = &transaction.key else {
            violations.unless(false, 5, format!("{gid} has no key, and every client gave one"));
            continue;
        };
        let before = committed.insert((transaction.user, key), *gid);
        violations.unless(before.is_none(), 5, format!("key {key} has {gid} and {before:?}"));
    }
    let places: HashMap<Uuid, Uuid> = books.notifications.iter().map(|n| (n.gid, n.topic)).collect();
    for entry in ledger {
        let found = committed.remove(&(entry.user, entry.key.as_str()));
        match &entry.end {
            End::Committed(gid) => {
                violations.unless(found == Some(*gid), 5, format!("the key has {found:?}: {entry:?}"));
                let right = places.get(gid) == topics.get(&entry.topic);
                violations.unless(right, 5, format!("{gid} is in another topic: {entry:?}"));
            }
            End::Refused | End::GivenUp if entry.is_void() => {
                violations.unless(found.is_none(), 4, format!("published after all as {found:?}: {entry:?}"));
            }
            // Sent, never answered, and not asked for any more: either is right.
            End::Refused | End::GivenUp => {}
            End::Unsettled(_) | End::Odd(_) => violations.unless(false, 4, format!("no client can expect {entry:?}")),
        }
    }
    violations.unless(committed.is_empty(), 5, format!("nobody asked for {committed:?}"));
}

fn gid<T>((gid, _): (&Uuid, T)) -> Uuid {
    *gid
}

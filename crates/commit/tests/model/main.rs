//! The two-phase commit as a model, checked in every state that can be reached within stated bounds.
//!
//! # What is modelled
//! - **Two gateways** on one coordinator database. Either may be asked to publish, and either recovers. BEGIN, both PREPAREs with
//!   one retry, DECIDE with one retry, COMMIT or ROLLBACK, the acks, a claim and what follows it: each durable write and each
//!   call is a step of its own, and anything else may happen between any two.
//! - **Two participants**. What they decide is not copied here: the model asks the very [`Judge`] that persist and counter-2pc
//!   ask. Likewise [`ballot`]: what votes add up to, what DECIDE is asked for, what the publisher is told. The coordinator's
//!   statements (`database.rs`) and async steps (`coordinator.rs`) are the model's own words for them; the conformance suite of
//!   the stores and the fault tests hold the real ones to the same.
//! - **The network** is a set: what was once sent arrives at any time, any number of times, in any order, or never. That goes
//!   for calls of the coordinator's database too. An answer reaches its caller with the call or never: a caller's knowledge is
//!   seen by nobody before it acts on it, so an answer on its way is no state of its own. An answered call was carried out
//!   once for this caller; one that brings no answer was carried out or not, or will be.
//! - **Crashes**: a gateway loses all it had in memory and starts again at once (one that stays away is one that takes no steps).
//!   A participant keeps nothing in memory between calls: its crash cuts those under way.
//! - **Time**: a deadline passes and a lease runs out at any moment, in any order. Safety leans on neither.
//! - **Clients**: one, impatient, that repeats its publish under the same key at either gateway before and after any answer; the
//!   `N` of [`Protocol`] says how often. Others ask for the status after every step, so that nothing may flip unseen.
//! - **Healing**: at any moment all faults end for good; messages of old may still arrive. From there on every run must end with
//!   everything closed, after one more lease at most.
//!
//! # What is not
//! Groups (each item has a vote and an outcome of its own, so a group is its items), requests that differ under one key (422),
//! rows by hand, retention, an operator's `retry` and `resolve`, a topic's offsets. Two transactions under two keys share no
//! row: they are two models. A recovery that is claimed twice at one gateway is one here; it would send the same messages.
//! Retries of phase 2 without end are the same call still under way. States that differ only in the names of the gateways or
//! of the participants count once, and a request is forgotten once it can change nothing ever again.
//!
//! # Bounds and counts
//! | attempts | silent calls | strays | crashes | leases that run out | deadlines | healing | states |
//! |---|---|---|---|---|---|---|---|
//! | 1 | any | any | any | any | pass | at any moment | 55,599 |
//! | 1, one prepared row lost by a database | any | any | any | any | pass | at any moment | 129,923 |
//! | 2 under one key | 1 | 0 | 1 | 1 | pass | – | 377,068 |
//! | 2 under one key | 0 | 0 | 0 | 2 | pass | – | 182,012 |
//! | 2 under one key | 0 | 1 | 0 | 1 | pass | – | 349,772 |
//! | 2 under one key | 1 | 1 | 0 | 0 | pass | at any moment | 373,869 |
//! | 1; 2 under one key | 0 | 0 | 0 | 0 | – | – | 18; 558 |
//! | 2 under one key (`--ignored`) | 1 | 1 | 1 | 1 | pass | at any moment | see the run |
//!
//! A silent call brings its caller no answer, a stray arrives when nobody waits for it. A participant may say a business "no"
//! in all of them. All but the last take 45 s of one core in the dev profile.
//!
//! Each run prints its count. The properties, with the numbers of the protocol's invariants, are in `properties.rs`, beside what must be
//! possible (recovery commits, a prepare meets a tombstone, …) so that nothing holds for want of happening.
//! [`every_broken_rule_is_found_out`] breaks one rule at a time and names the property that falls.
//!
//! [`Judge`]: notifyx_commit::participant::Judge
//! [`ballot`]: notifyx_commit::ballot

mod coordinator;
mod database;
mod participant;
mod properties;
mod protocol;
mod rules;
mod state;

use std::{
    collections::{BTreeSet, HashMap},
    time::Instant,
};

use stateright::{Checker, HasDiscoveries, Model};

use crate::{
    properties::{
        AGREED, CLOSED, CREATED, DECIDED, ENDS, FAULTLESS, IN_TIME, KEY, OBEYED, QUARANTINED, REFUSED, RELEASED, TOLD,
    },
    protocol::Protocol,
    rules::{Bounds, Broken, Budget},
    state::State,
};

/// Every kind of fault once, over two attempts; alone each goes further below.
const ONCE: Bounds = Bounds {
    silences: Budget::Times(1),
    crashes: Budget::Times(1),
    leases: Budget::Times(1),
    strays: Budget::NONE,
    heals: false,
    ..Bounds::UNLIMITED
};

#[test]
fn one_transaction_survives_any_number_of_faults() {
    exhaust::<1>("one transaction, any faults", Bounds::UNLIMITED);
}

#[test]
fn without_a_fault_nothing_is_aborted() {
    exhaust::<1>("one transaction, no faults", Bounds::QUIET);
    exhaust::<2>("two attempts, no faults", Bounds::QUIET);
}

#[test]
fn a_key_survives_a_silence_a_crash_and_a_lease_that_runs_out() {
    exhaust::<2>("two attempts, silence, crash, lease, deadlines", ONCE);
}

#[test]
fn a_key_survives_leases_that_run_out_again() {
    let bounds = Bounds { leases: Budget::Times(2), silences: Budget::NONE, crashes: Budget::NONE, ..ONCE };
    exhaust::<2>("two attempts, two leases, deadlines", bounds);
}

#[test]
fn a_key_survives_what_arrives_late_and_everything_ends() {
    let bounds = Bounds { strays: Budget::Times(1), leases: Budget::NONE, crashes: Budget::NONE, heals: true, ..ONCE };
    exhaust::<2>("two attempts, silence, stray, deadlines, healing", bounds);
}

#[test]
fn a_key_survives_what_arrives_after_a_lease_has_run_out() {
    let bounds = Bounds { strays: Budget::Times(1), silences: Budget::NONE, crashes: Budget::NONE, ..ONCE };
    exhaust::<2>("two attempts, stray, lease, deadlines", bounds);
}

#[test]
fn a_prepare_that_a_database_lost_is_never_closed_without_it() {
    exhaust::<1>(
        "one transaction, any faults, a lost row",
        Bounds { lost_rows: Budget::Times(1), ..Bounds::UNLIMITED },
    );
}

/// A fault of every kind, two attempts, and healing at any moment.
#[test]
#[ignore = "minutes and gigabytes: by hand, after a change of the protocol"]
fn a_key_survives_every_fault_once_and_everything_ends() {
    let bounds = Bounds { strays: Budget::Times(1), heals: true, ..ONCE };
    exhaust::<2>("two attempts, every fault once, healing", bounds);
}

/// The deadline bounds waiting; what makes a decision single is the compare-and-set. Without the deadline the model holds but
/// for the promise of the deadline itself.
#[test]
fn a_commit_after_the_deadline_breaks_that_promise_and_no_other() {
    let model = Protocol::<1> { bounds: Bounds::UNLIMITED, broken: Some(Broken::LateCommit), named: false };
    let checker = model.checker().threads(2).spawn_bfs().join();
    let failed: Vec<_> = checker.discoveries().into_keys().collect();
    println!("COMMIT after the deadline: {} states", checker.unique_state_count());
    assert_eq!(failed, [IN_TIME]);
}

#[test]
fn every_broken_rule_is_found_out() {
    let any = Bounds::UNLIMITED;
    for (broken, bounds, falls) in [
        (Broken::NoCompareAndSet, any, TOLD),
        (Broken::LateCommit, any, IN_TIME),
        (Broken::ClosedByOneAck, any, CLOSED),
        (Broken::NoLease, Bounds::QUIET, FAULTLESS),
        (Broken::NoRecovery, any, ENDS),
        (Broken::DecidedForgotten, any, ENDS),
        (Broken::RecoveryCommits, any, OBEYED),
        (Broken::RecoveryFlips, any, AGREED),
        (Broken::BuriedIsFinal, any, REFUSED),
        (Broken::OneYes, any, QUARANTINED),
        (Broken::CommitBeforeDecide, any, DECIDED),
        (Broken::AnswerBeforeDecide, any, TOLD),
        (Broken::AbortedWhenUnknown, any, TOLD),
        (Broken::CreatedByOne, any, CREATED),
        (Broken::NoTombstone, any, RELEASED),
        (Broken::MissingCommitDone, Bounds { lost_rows: Budget::Times(1), ..any }, CLOSED),
        (Broken::AbortedPreparesAgain, any, RELEASED),
        (Broken::DecidesAlone, any, AGREED),
    ] {
        find_out::<1>(broken, bounds, falls);
    }
    find_out::<2>(Broken::KeyNotUnique, Bounds::QUIET, KEY);
}

/// What [`ENDS`] takes for granted: once all is healed no run comes back to where it was.
#[test]
fn healed_runs_never_come_round() {
    let model = Protocol::<1> { bounds: Bounds::UNLIMITED, broken: None, named: false };
    let (states, next) = graph(&model);
    let mut arrows = vec![0_u32; states.len()];
    for to in next.iter().flatten() {
        arrows[*to] += 1;
    }
    // States nobody leads to are taken away until none is left: what would remain is a circle.
    let mut bare: Vec<usize> = (0..states.len()).filter(|i| arrows[*i] == 0).collect();
    let mut taken = 0;
    while let Some(from) = bare.pop() {
        taken += 1;
        for to in &next[from] {
            arrows[*to] -= 1;
            if arrows[*to] == 0 {
                bare.push(*to);
            }
        }
    }
    let healed = states.iter().filter(|state| state.healed).count();
    println!("healed runs: {healed} states");
    assert!(healed > 1_000, "few states were looked at");
    assert_eq!(taken, states.len());
}

/// Every state, and for the healed ones what follows.
fn graph<const N: usize>(model: &Protocol<N>) -> (Vec<State<N>>, Vec<Vec<usize>>) {
    let mut states = model.init_states();
    let mut places: HashMap<State<N>, usize> = states.iter().map(|state| (*state, 0)).collect();
    let (mut next, mut actions) = (Vec::new(), Vec::new());
    while let Some(state) = states.get(next.len()).copied() {
        model.actions(&state, &mut actions);
        let follow: Vec<State<N>> = actions.drain(..).filter_map(|action| model.next_state(&state, action)).collect();
        let mut found = Vec::new();
        for follower in follow {
            let place = *places.entry(follower).or_insert_with(|| {
                states.push(follower);
                states.len() - 1
            });
            found.push(place);
        }
        next.push(if state.healed { found } else { Vec::new() });
    }
    (states, next)
}

fn exhaust<const N: usize>(name: &str, bounds: Bounds) {
    let started = Instant::now();
    let checker = Protocol::<N> { bounds, broken: None, named: false }.checker().threads(2).spawn_bfs().join();
    let (states, depth) = (checker.unique_state_count(), checker.max_depth());
    println!("{name}: {states} states, the farthest {depth} steps away, {:.1?}; {bounds:?}", started.elapsed());
    checker.assert_properties();
}

fn find_out<const N: usize>(broken: Broken, bounds: Bounds, falls: &'static str) {
    let model = Protocol::<N> { bounds, broken: Some(broken), named: true };
    // One thread goes breadth first, so that what it finds is short.
    let checker = model.checker().finish_when(HasDiscoveries::AnyOf(BTreeSet::from([falls]))).spawn_bfs().join();
    let Some(path) = checker.discovery(falls) else { panic!("{broken:?} was not found out by `{falls}`") };
    println!("{broken:?}: not so that {falls}: {:?}", path.into_actions());
}

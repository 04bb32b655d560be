//! The decisions, as a table: each asker, each state of the row.

use notifyx_model::{Clock, ManualClock};

use super::*;

const THIS: RequestHash = RequestHash([1; 32]);
const OTHER: RequestHash = RequestHash([2; 32]);

struct Fixture {
    hand: ManualClock,
    clock: Clock,
    ann: UserId,
    bob: UserId,
}

impl Fixture {
    fn new() -> Self {
        let hand = ManualClock::new();
        let clock = hand.clock();
        Self { ann: UserId::new(&clock), bob: UserId::new(&clock), hand, clock }
    }

    fn judge(&self) -> Judge {
        Judge::at(self.clock.now())
    }

    fn row(&self, origin: Origin, state: State) -> Row {
        Row { origin, user_id: self.ann, state, request: THIS, prepared_at: self.clock.now(), expired: false }
    }
}

#[test]
fn the_coordinators_table_is_the_protocols() {
    let f = Fixture::new();
    let judge = f.judge();
    let by = Asker::Coordinator;
    let row = |state| f.row(Origin::Coordinator, state);

    assert_eq!(judge.prepare(None, by, &THIS), OnPrepare::Reserve);
    assert_eq!(judge.prepare(Some(&row(State::Prepared)), by, &THIS), OnPrepare::Yes);
    assert_eq!(judge.prepare(Some(&row(State::Committed)), by, &THIS), OnPrepare::Yes);
    assert_eq!(judge.prepare(Some(&row(State::Aborted)), by, &THIS), OnPrepare::No(Refusal::Aborted));
    assert_eq!(judge.prepare(Some(&row(State::Prepared)), by, &OTHER), OnPrepare::No(Refusal::OtherRequest));

    assert_eq!(judge.commit(Some(&row(State::Prepared)), by), OnCommit::Apply);
    assert_eq!(judge.commit(Some(&row(State::Committed)), by), OnCommit::Done);
    assert_eq!(judge.commit(Some(&row(State::Aborted)), by), OnCommit::Refuse(Refusal::Aborted));
    assert_eq!(judge.commit(None, by), OnCommit::Refuse(Refusal::NothingPrepared), "never 200 for a missing row");

    assert_eq!(judge.rollback(Some(&row(State::Prepared)), by), OnRollback::Release);
    assert_eq!(judge.rollback(None, by), OnRollback::Tombstone);
    assert_eq!(judge.rollback(Some(&row(State::Aborted)), by), OnRollback::Done);
    assert_eq!(judge.rollback(Some(&row(State::Committed)), by), OnRollback::Refuse(Refusal::Committed));
}

#[test]
fn a_prepare_after_its_rollback_is_refused_whatever_it_asks() {
    let f = Fixture::new();
    let tombstone = Row { request: NO_REQUEST, ..f.row(Origin::Coordinator, State::Aborted) };
    assert_eq!(f.judge().prepare(Some(&tombstone), Asker::Coordinator, &THIS), OnPrepare::No(Refusal::Aborted));
}

#[test]
fn what_the_coordinator_prepared_never_expires() {
    let f = Fixture::new();
    let row = f.row(Origin::Coordinator, State::Prepared);
    f.hand.advance(Duration::from_secs(365 * 24 * 3600));
    assert!(!f.judge().expired(&row));
    assert_eq!(f.judge().commit(Some(&row), Asker::Coordinator), OnCommit::Apply);
}

#[test]
fn a_prepare_by_hand_expires() {
    let f = Fixture::new();
    let row = f.row(Origin::Client, State::Prepared);
    let ann = Asker::User(f.ann);
    f.hand.advance(Duration::from_micros(59_999_999));
    assert_eq!(f.judge().commit(Some(&row), ann), OnCommit::Apply);
    f.hand.advance(Duration::from_micros(1));
    assert!(f.judge().expired(&row));
    assert!(row.prepared_at <= f.judge().expired_before());
    assert_eq!(f.judge().commit(Some(&row), ann), OnCommit::Refuse(Refusal::Expired));
    assert_eq!(f.judge().prepare(Some(&row), ann, &THIS), OnPrepare::No(Refusal::Expired));
    assert_eq!(f.judge().rollback(Some(&row), ann), OnRollback::Release);
}

#[test]
fn an_expired_prepare_is_told_so_before_the_sweep_and_after_it() {
    let f = Fixture::new();
    let before = f.row(Origin::Client, State::Prepared);
    f.hand.advance(BY_HAND);
    let (ann, swept) = (Asker::User(f.ann), Row { expired: true, ..f.row(Origin::Client, State::Aborted) });
    for row in [&before, &swept] {
        assert_eq!(f.judge().commit(Some(row), ann), OnCommit::Refuse(Refusal::Expired));
        for request in [&THIS, &OTHER] {
            assert_eq!(f.judge().prepare(Some(row), ann, request), OnPrepare::No(Refusal::Expired));
        }
    }
    assert_eq!(f.judge().rollback(Some(&swept), ann), OnRollback::Done);
}

#[test]
fn a_person_chooses_ids_of_this_time_only() {
    let f = Fixture::new();
    let chosen = Gid::new(&f.clock);
    assert_eq!(f.judge().chosen(chosen), Ok(()));
    f.hand.advance(CHOSEN_WITHIN.saturating_sub(Duration::from_secs(1)));
    assert_eq!(f.judge().chosen(chosen), Ok(()));
    f.hand.advance(Duration::from_secs(2));
    assert_eq!(f.judge().chosen(chosen), Err(Refusal::IdInvalid), "too old");
    let ahead = ManualClock::new();
    ahead.advance(Duration::from_secs(24 * 3_600));
    for foreign in [
        Gid::new(&ahead.clock()).to_string(),
        "00000000-0000-0000-0000-000000000000".into(),
        "ffffffff-ffff-ffff-ffff-ffffffffffff".into(),
        // Version 4, of this moment if it were read as version 7.
        chosen.to_string().replacen("-7", "-4", 1),
    ] {
        assert_eq!(f.judge().chosen(foreign.parse().unwrap()), Err(Refusal::IdInvalid), "{foreign}");
    }
}

#[test]
fn people_cannot_touch_what_is_not_theirs() {
    let f = Fixture::new();
    let judge = f.judge();
    let (ann, bob) = (Asker::User(f.ann), Asker::User(f.bob));
    let of_ann = f.row(Origin::Client, State::Prepared);
    assert_eq!(judge.commit(Some(&of_ann), bob), OnCommit::Refuse(Refusal::Foreign));
    assert_eq!(judge.rollback(Some(&of_ann), bob), OnRollback::Refuse(Refusal::Foreign));
    assert_eq!(judge.prepare(Some(&of_ann), bob, &THIS), OnPrepare::No(Refusal::Foreign));

    let of_coordinator = f.row(Origin::Coordinator, State::Prepared);
    assert_eq!(judge.commit(Some(&of_coordinator), ann), OnCommit::Refuse(Refusal::Foreign));
    assert_eq!(judge.rollback(Some(&of_coordinator), ann), OnRollback::Refuse(Refusal::Foreign));
    assert_eq!(judge.prepare(Some(&of_coordinator), ann, &THIS), OnPrepare::No(Refusal::Foreign));
}

#[test]
fn by_hand_an_unknown_id_is_not_found_and_leaves_no_tombstone() {
    let f = Fixture::new();
    let ann = Asker::User(f.ann);
    assert_eq!(f.judge().commit(None, ann), OnCommit::Refuse(Refusal::NotFound));
    assert_eq!(f.judge().rollback(None, ann), OnRollback::Refuse(Refusal::NotFound));
}

#[test]
fn the_coordinator_never_touches_a_row_made_by_hand() {
    let f = Fixture::new();
    for state in [State::Prepared, State::Committed, State::Aborted] {
        let row = f.row(Origin::Client, state);
        assert_eq!(f.judge().commit(Some(&row), Asker::Coordinator), OnCommit::Refuse(Refusal::NothingPrepared));
        assert_eq!(f.judge().rollback(Some(&row), Asker::Coordinator), OnRollback::Done);
        assert_eq!(f.judge().prepare(Some(&row), Asker::Coordinator, &THIS), OnPrepare::No(Refusal::OtherRequest));
    }
}

#[test]
fn words_of_the_database_read_back() {
    for state in [State::Prepared, State::Committed, State::Aborted] {
        assert_eq!(state.as_str().parse(), Ok(state));
    }
    for origin in [Origin::Coordinator, Origin::Client] {
        assert_eq!(origin.as_str().parse(), Ok(origin));
    }
    assert_eq!("prepared".parse::<State>().unwrap_err().to_string(), "`prepared` is not a State");
}

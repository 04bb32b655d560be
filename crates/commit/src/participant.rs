//! What a participant does with a prepare, a commit and a rollback: pure decisions, shared by persist and counter-2pc and by
//! both of their backends. No I/O: the caller reads its `ptxn` row, asks [`Judge`], and does what the verdict says, all in
//! one local transaction.
//!
//! # How to use it
//! Keep `ptxn(gid pk, origin, user_id, state, req_hash, payload, prepared_at, expired)`; [`State`] and [`Origin`] know their
//! texts.
//!
//! ```text
//! prepare   INSERT … state='PREPARED' … ON CONFLICT (gid) DO NOTHING RETURNING gid   -- in order of gid
//!           returned:      new, and nobody else can take this gid now. Check and reserve.
//!                          A business "no": set this row to ABORTED, vote No(problem).
//!           not returned:  SELECT … WHERE gid IN (…) ORDER BY gid FOR UPDATE, then judge.prepare(Some(&row), …)
//! commit    SELECT … FOR UPDATE; judge.commit(row, …): Apply → effect and state='COMMITTED' in this transaction
//! rollback  coordinator: INSERT … state='ABORTED' … ON CONFLICT DO NOTHING first: what is returned is a tombstone and done;
//!           then SELECT … FOR UPDATE the rest; judge.rollback(row, …): Release → give back, state='ABORTED'
//! ```
//! Insert first, because a row that is not there cannot be locked: a late prepare and its rollback would both find nothing.
//! On SQLite the single writer makes reading first just as good; then judge with `None` where nothing was found.
//!
//! By the coordinator's routes ask as [`Asker::Coordinator`]: a refused prepare is `Vote::No(problem(&refusal))`, a refused
//! commit or rollback is `Ack::Violation(problem(&refusal))`. By the routes for people ask as [`Asker::User`]: the refusal
//! is a [`Fault`] and answers for itself (403, 404, 409, 422). A gid that stands twice in one batch is judged twice, the
//! second time with the row as the first left it (or answered like the first).
//!
//! A person may choose the id. Look it up before anything else (`judge.prepare(row, …)`: a repetition is answered like the
//! first, whatever has changed meanwhile); what is new passes [`Judge::chosen`] before it is checked and inserted. A business
//! "no" by hand leaves no row: nobody but its author could repeat it.
//!
//! Each second: release what [`Judge::expired`] says (by hand, older than [`BY_HAND`]) and mark it `expired`, and count rows
//! that are prepared since before `now - `[`ALARM`] into an alarm metric; those stay prepared.

use std::{fmt, str::FromStr, time::Duration};

use notifyx_model::{Fault, Gid, Kind, Timestamp, UserId};

use crate::RequestHash;

/// A prepare by hand is rolled back after this: long enough to type the commit, short enough to hold nothing for ever.
pub const BY_HAND: Duration = Duration::from_secs(60);
/// With everything reachable no transaction is open longer (the protocol's time bound): a row that is raises an alarm.
pub const ALARM: Duration = Duration::from_secs(45);
/// Terminal rows are kept longer than the coordinator keeps its closed ones (7 days), so that none is asked for in vain.
pub const RETENTION: Duration = Duration::from_secs(30 * 24 * 3600);
/// How far the time in an id that a person chose may be from now. Far above what clocks differ by and a command line waits in
/// an editor; far below [`RETENTION`], so that an id that was forgotten is never taken for a new one.
pub const CHOSEN_WITHIN: Duration = Duration::from_secs(600);

/// Where a transaction stands at one participant. COMMITTED and ABORTED are final.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    Prepared,
    Committed,
    Aborted,
}

/// Who made the row: the two kinds never touch each other's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Origin {
    Coordinator,
    /// A person, by hand.
    Client,
}

macro_rules! text {
    ($name:ident { $($variant:ident = $text:literal),+ }) => {
        impl $name {
            /// As it stands in the database.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl FromStr for $name {
            type Err = Unknown;

            fn from_str(text: &str) -> Result<Self, Unknown> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    other => Err(Unknown::new(stringify!($name), other)),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}
text!(State { Prepared = "PREPARED", Committed = "COMMITTED", Aborted = "ABORTED" });
text!(Origin { Coordinator = "coordinator", Client = "client" });

/// A database holds a word that this binary does not know.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {what}")]
pub struct Unknown {
    what: &'static str,
    text: String,
}

impl Unknown {
    pub(crate) fn new(what: &'static str, text: &str) -> Self {
        Self { what, text: text.to_owned() }
    }
}

/// What the decisions need of a `ptxn` row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub origin: Origin,
    /// Who publishes. By hand: the only one who may commit or roll back. The nil UUID on a tombstone.
    pub user_id: UserId,
    pub state: State,
    /// All zeros on a tombstone.
    pub request: RequestHash,
    pub prepared_at: Timestamp,
    /// ABORTED by the sweep, for lateness: its owner is told so.
    pub expired: bool,
}

/// The hash a tombstone is stored with: nobody's request.
pub const NO_REQUEST: RequestHash = RequestHash([0; 32]);

/// On whose behalf a step is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    Coordinator,
    User(UserId),
}

impl Asker {
    /// The origin of rows this asker makes.
    pub const fn origin(self) -> Origin {
        match self {
            Self::Coordinator => Origin::Coordinator,
            Self::User(_) => Origin::Client,
        }
    }
}

/// What to do with a prepare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnPrepare {
    /// Nothing is known of this gid: check, reserve, insert PREPARED and say yes. If a check says no: insert ABORTED, say no.
    Reserve,
    /// It was prepared (or committed) before: say yes, change nothing.
    Yes,
    /// Say no, change nothing.
    No(Refusal),
}

/// What to do with a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnCommit {
    /// Bring about the effect and set COMMITTED, in this transaction.
    Apply,
    /// It was committed before: say done, change nothing.
    Done,
    Refuse(Refusal),
}

/// What to do with a rollback.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnRollback {
    /// Give back what was reserved and set ABORTED.
    Release,
    /// Insert ABORTED, so that a prepare that is still on its way is refused.
    Tombstone,
    /// It was rolled back before: say done, change nothing.
    Done,
    Refuse(Refusal),
}

/// Why a step is refused. Nothing was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("the transaction was rolled back: prepare again under a new id")]
    Aborted,
    #[error("the transaction is committed and cannot be rolled back")]
    Committed,
    #[error("the transaction was not committed in time and is rolled back: prepare again under a new id")]
    Expired,
    /// A commit by the coordinator found nothing prepared: this database lost what it promised, or never promised it.
    #[error("nothing is prepared under this id, so it cannot be committed")]
    NothingPrepared,
    #[error("this id was used before for another request")]
    OtherRequest,
    #[error("no transaction with this id was prepared here")]
    NotFound,
    /// Another user's, or a coordinator's.
    #[error("the transaction under this id is another's and not yours to decide")]
    Foreign,
    #[error(
        "a `request_id` of your own is a UUID of version 7 made within {} min of now: make a new one, or leave it out",
        CHOSEN_WITHIN.as_secs() / 60
    )]
    IdInvalid,
}

impl Fault for Refusal {
    fn kind(&self) -> Kind {
        match self {
            Self::Aborted | Self::Committed | Self::Expired | Self::NothingPrepared => Kind::Conflict,
            Self::OtherRequest => Kind::Mismatch,
            Self::NotFound => Kind::NotFound,
            Self::Foreign => Kind::Forbidden,
            Self::IdInvalid => Kind::Invalid,
        }
    }

    fn code(&self) -> &str {
        match self {
            Self::Aborted => "transaction_aborted",
            Self::Committed => "transaction_committed",
            Self::Expired => "transaction_expired",
            Self::NothingPrepared => "nothing_prepared",
            Self::OtherRequest => "request_mismatch",
            Self::NotFound => "transaction_not_found",
            Self::Foreign => "transaction_foreign",
            Self::IdInvalid => "request_id_invalid",
        }
    }
}

/// Decides, at one moment, by the passed clock.
#[derive(Clone, Copy, Debug)]
pub struct Judge {
    now: Timestamp,
    by_hand: Duration,
}

impl Judge {
    /// With the protocol's bound for prepares by hand, [`BY_HAND`].
    pub const fn at(now: Timestamp) -> Self {
        Self { now, by_hand: BY_HAND }
    }

    /// With another bound for prepares by hand, from configuration.
    #[must_use]
    pub const fn by_hand(self, bound: Duration) -> Self {
        Self { by_hand: bound, ..self }
    }

    pub fn prepare(&self, found: Option<&Row>, asker: Asker, request: &RequestHash) -> OnPrepare {
        let Some(row) = found else { return OnPrepare::Reserve };
        let refusal = match (asker, row.origin) {
            // Whoever came first holds the id.
            (Asker::Coordinator, Origin::Client) => Refusal::OtherRequest,
            (Asker::User(_), Origin::Coordinator) => Refusal::Foreign,
            (Asker::User(user), Origin::Client) if user != row.user_id => Refusal::Foreign,
            (Asker::Coordinator, Origin::Coordinator) | (Asker::User(_), Origin::Client) => match row.state {
                // A tombstone knows no request; a late prepare is told that it is over, not that it is another.
                State::Aborted => Self::over(row),
                State::Prepared if self.expired(row) => Refusal::Expired,
                State::Prepared | State::Committed if row.request != *request => Refusal::OtherRequest,
                State::Prepared | State::Committed => return OnPrepare::Yes,
            },
        };
        OnPrepare::No(refusal)
    }

    pub fn commit(&self, found: Option<&Row>, asker: Asker) -> OnCommit {
        match Self::own(found, asker) {
            Err(Refusal::NotFound) if asker == Asker::Coordinator => OnCommit::Refuse(Refusal::NothingPrepared),
            Err(refusal) => OnCommit::Refuse(refusal),
            Ok(row) => match row.state {
                State::Committed => OnCommit::Done,
                State::Aborted => OnCommit::Refuse(Self::over(row)),
                State::Prepared if self.expired(row) => OnCommit::Refuse(Refusal::Expired),
                State::Prepared => OnCommit::Apply,
            },
        }
    }

    pub fn rollback(&self, found: Option<&Row>, asker: Asker) -> OnRollback {
        match Self::own(found, asker) {
            // A person's row under the coordinator's gid refuses the coordinator's prepare as a tombstone would: done.
            Err(Refusal::NotFound) if asker == Asker::Coordinator => {
                if found.is_none() {
                    OnRollback::Tombstone
                } else {
                    OnRollback::Done
                }
            }
            // No tombstone by hand: anybody could fill the table.
            Err(refusal) => OnRollback::Refuse(refusal),
            Ok(row) => match row.state {
                State::Prepared => OnRollback::Release,
                State::Aborted => OnRollback::Done,
                State::Committed => OnRollback::Refuse(Refusal::Committed),
            },
        }
    }

    /// Whether a person may choose this id for something new. Ids sort by the time they were made, and are forgotten by it: one
    /// from elsewhere would never be forgotten, and one from long ago cannot be told from one that was.
    pub fn chosen(&self, gid: Gid) -> Result<(), Refusal> {
        let made = gid.uuid().get_timestamp().filter(|_| gid.uuid().get_version_num() == 7).map(|made| made.to_unix());
        let fresh = made.is_some_and(|(seconds, nanos)| {
            let made = i128::from(seconds) * 1_000_000 + i128::from(nanos / 1_000);
            made.abs_diff(self.now.as_micros().into()) <= CHOSEN_WITHIN.as_micros()
        });
        if fresh { Ok(()) } else { Err(Refusal::IdInvalid) }
    }

    /// Whether the sweep should release this row: prepared by hand, and not decided in time. What the coordinator prepared
    /// never expires: after a yes the participant never decides alone.
    pub fn expired(&self, row: &Row) -> bool {
        row.origin == Origin::Client && row.state == State::Prepared && row.prepared_at + self.by_hand <= self.now
    }

    /// Rows by hand that were prepared at or before this moment have expired: for the sweep's statement.
    pub fn expired_before(&self) -> Timestamp {
        self.now - self.by_hand
    }

    fn own(found: Option<&Row>, asker: Asker) -> Result<&Row, Refusal> {
        let row = found.ok_or(Refusal::NotFound)?;
        match (asker, row.origin) {
            (Asker::Coordinator, Origin::Client) => Err(Refusal::NotFound),
            (Asker::User(_), Origin::Coordinator) => Err(Refusal::Foreign),
            (Asker::User(user), Origin::Client) if user != row.user_id => Err(Refusal::Foreign),
            (Asker::User(_), Origin::Client) | (Asker::Coordinator, Origin::Coordinator) => Ok(row),
        }
    }

    /// Why an ABORTED row is.
    const fn over(row: &Row) -> Refusal {
        if row.expired { Refusal::Expired } else { Refusal::Aborted }
    }
}

#[cfg(test)]
mod tests {
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
}

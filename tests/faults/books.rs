//! What the three databases say, and the invariants of the protocol held against it.
//!
//! Read past every fault point, while time stands still.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use notifyx_commit::{State, Verdict, VerdictOn};
use notifyx_database::Database;
use notifyx_model::{Gid, TopicId, TopicName, UserId};
use tokio::sync::MutexGuard;
use uuid::Uuid;

use crate::{databases::Owner, world::World};

/// Rows of a statement that both backends understand.
macro_rules! rows {
    ($world:expr, $owner:expr, $sql:expr) => {
        match $world.databases.get($owner) {
            Database::Sqlite(sqlite) => sqlx::query_as($sql).fetch_all(&sqlite.read).await,
            Database::Postgres(pool) => sqlx::query_as($sql).fetch_all(pool).await,
        }
        .expect("a statement of the test")
    };
}

/// The coordinator's row of a transaction.
#[derive(Clone, Debug)]
pub(crate) struct Txn {
    pub(crate) user: UserId,
    pub(crate) key: Option<String>,
    pub(crate) state: State,
    pub(crate) quarantined: bool,
    pub(crate) closed: bool,
    pub(crate) deadline: i64,
}

pub(crate) async fn transactions(world: &World) -> BTreeMap<Gid, Txn> {
    type Row = (Uuid, Uuid, Option<String>, String, bool, Option<i64>, i64);
    let _still = world.still.hold();
    let rows: Vec<Row> = rows!(
        world,
        Owner::Coordinator,
        "SELECT gid, user_id, idem_key, state, quarantined, closed_at, deadline FROM txn"
    );
    let txn = |(gid, user, key, state, quarantined, closed_at, deadline): Row| {
        let (user, state, closed) = (UserId::from_uuid(user), state.parse().expect("a state"), closed_at.is_some());
        (Gid::from_uuid(gid), Txn { user, key, state, quarantined, closed, deadline })
    };
    rows.into_iter().map(txn).collect()
}

/// A participant's states.
pub(crate) async fn prepared(world: &World, owner: Owner) -> BTreeMap<Gid, String> {
    let _still = world.still.hold();
    let rows: Vec<(Uuid, String)> = rows!(world, owner, "SELECT gid, state FROM ptxn WHERE origin = 'coordinator'");
    rows.into_iter().map(|(gid, state)| (Gid::from_uuid(gid), state)).collect()
}

fn committed(states: &BTreeMap<Gid, String>) -> BTreeSet<Gid> {
    states.iter().filter(|(_, state)| *state == "COMMITTED").map(|(gid, _)| *gid).collect()
}

/// What was prepared by hand and is not decided.
pub(crate) async fn left_by_hand(world: &World) -> usize {
    let _still = world.still.hold();
    let mut left = 0;
    for owner in [Owner::Persist, Owner::Counter] {
        let rows: Vec<(i64,)> =
            rows!(world, owner, "SELECT count(*) FROM ptxn WHERE origin = 'client' AND state = 'PREPARED'");
        left += usize::try_from(rows[0].0).unwrap();
    }
    left
}

/// Whether the participants have forgotten all that the coordinator asked for.
pub(crate) async fn all_forgotten(world: &World) -> bool {
    prepared(world, Owner::Persist).await.is_empty() && prepared(world, Owner::Counter).await.is_empty()
}

/// Whether nothing is open.
pub(crate) async fn all_closed(world: &World) -> bool {
    transactions(world).await.values().all(|txn| txn.closed)
}

/// Transactions that recovery may take over now. Called while time stands still.
pub(crate) async fn overdue(world: &World) -> usize {
    let rows: Vec<(i64,)> = match world.databases.get(Owner::Coordinator) {
        Database::Sqlite(sqlite) => {
            sqlx::query_as("SELECT count(*) FROM txn WHERE closed_at IS NULL AND lease_until <= ?1")
                .bind(world.clock().now().as_micros())
                .fetch_all(&sqlite.read)
                .await
        }
        Database::Postgres(pool) => {
            sqlx::query_as("SELECT count(*) FROM txn WHERE closed_at IS NULL AND lease_until <= clock_micros()")
                .fetch_all(pool)
                .await
        }
    }
    .expect("a statement of the test");
    usize::try_from(rows[0].0).unwrap()
}

/// Lets Postgres see the world's time: its own clock cannot be moved, so the rows are, by how much the world went ahead of it.
/// Until the turn ends nobody else touches them.
pub(crate) async fn show_time(world: &World) -> Option<MutexGuard<'_, ()>> {
    let Database::Postgres(pool) = world.databases.get(Owner::Coordinator) else { return None };
    let turn = world.turn.lock().await;
    let by = world.gone_ahead();
    sqlx::query(
        "UPDATE txn SET deadline = deadline - $1, lease_until = lease_until - $1, created_at = created_at - $1,
                        closed_at = closed_at - $1",
    )
    .bind(by)
    .execute(pool)
    .await
    .expect("a statement of the test");
    Some(turn)
}

async fn now(world: &World) -> i64 {
    match world.databases.get(Owner::Coordinator) {
        Database::Sqlite(_) => world.clock().now().as_micros(),
        Database::Postgres(pool) => {
            let (now,): (i64,) =
                sqlx::query_as("SELECT clock_micros()").fetch_one(pool).await.expect("a statement of the test");
            now
        }
    }
}

/// How transactions stand before a decision on them, and when that is.
pub(crate) struct Before {
    rows: BTreeMap<Gid, Txn>,
    now: i64,
}

pub(crate) async fn before_decision(world: &World) -> Before {
    Before { rows: transactions(world).await, now: now(world).await }
}

/// A decision is made once, in time, and as asked.
pub(crate) async fn check_decision(world: &World, asked: &[VerdictOn], before: &Before, states: &[Option<State>]) {
    let after = transactions(world).await;
    for (item, told) in asked.iter().zip(states) {
        let VerdictOn { gid, verdict, .. } = item;
        let (was, is) = (before.rows.get(gid), after.get(gid).map(|txn| txn.state));
        if is != *told {
            world.violated(format!("{gid}: a decision was answered with {told:?}, and the row says {is:?}"));
        }
        let Some(was) = was else { continue };
        if was.state != State::Preparing && is != Some(was.state) {
            world.violated(format!("{gid}: decided {:?}, and then changed to {is:?}", was.state));
        }
        if was.state == State::Preparing && is == Some(State::Commit) {
            if before.now >= was.deadline {
                world.violated(format!("{gid}: COMMIT was decided after the deadline"));
            }
            if *verdict != Verdict::Commit {
                world.violated(format!("{gid}: COMMIT was decided where an abort was asked for"));
            }
        }
    }
}

/// Invariant 6, at the moment of closing.
pub(crate) async fn check_closed(world: &World) {
    let rows = transactions(world).await;
    for owner in [Owner::Persist, Owner::Counter] {
        let held = prepared(world, owner).await;
        for (gid, txn) in rows.iter().filter(|(_, txn)| txn.closed) {
            let due = if txn.state == State::Commit { "COMMITTED" } else { "ABORTED" };
            // What is old is forgotten.
            if let Some(state) = held.get(gid)
                && state != due
            {
                world.violated(format!("{gid}: closed as {:?}, and {owner:?} has {state}", txn.state));
            }
        }
    }
}

/// Persist's database loses what it prepared under this gid: the row is put aside.
pub(crate) async fn forget_prepared(world: &World, gid: Gid) {
    move_prepared(world, gid, aside(gid)).await;
}

/// And finds it again.
pub(crate) async fn find_prepared(world: &World, gid: Gid) {
    move_prepared(world, aside(gid), gid).await;
}

fn aside(gid: Gid) -> Gid {
    Gid::from_uuid(Uuid::from_u128(!gid.uuid().as_u128()))
}

async fn move_prepared(world: &World, from: Gid, to: Gid) {
    let _writing = world.writing("persist.prepare");
    match world.databases.get(Owner::Persist) {
        Database::Sqlite(sqlite) => {
            let mut tx = sqlite.begin().await.expect("the writer");
            let moved = sqlx::query("UPDATE ptxn SET gid = ?2 WHERE gid = ?1").bind(from.uuid()).bind(to.uuid());
            assert_eq!(moved.execute(&mut *tx).await.expect("a row").rows_affected(), 1);
            tx.commit().await.expect("moved");
        }
        Database::Postgres(pool) => {
            let moved = sqlx::query("UPDATE ptxn SET gid = $2 WHERE gid = $1").bind(from.uuid()).bind(to.uuid());
            assert_eq!(moved.execute(pool).await.expect("a row").rows_affected(), 1);
        }
    }
}

/// What a client was told of a transaction: it must be so for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Final {
    pub(crate) gid: Gid,
    pub(crate) committed: bool,
}

/// The invariants 1 to 7 (but where a database was made to lose a commit and an operator closed what came of it), and what
/// live subscribers can see.
pub(crate) async fn check(world: &Arc<World>, topics: &[(TopicId, TopicName)], told: &[Final], resolved: Option<Gid>) {
    let txns = transactions(world).await;
    let (persist, counter) = (prepared(world, Owner::Persist).await, prepared(world, Owner::Counter).await);
    let decided: BTreeSet<Gid> =
        txns.iter().filter(|(_, txn)| txn.state == State::Commit).map(|(gid, _)| *gid).collect();
    let sets = [&decided, &committed(&persist), &committed(&counter)].map(|set| {
        let mut set = set.clone();
        set.retain(|gid| Some(*gid) != resolved);
        set
    });
    // 1
    if sets[0] != sets[1] || sets[0] != sets[2] {
        world.violated(format!("1: committed at the coordinator, at persist, at the counter: {sets:?}"));
    }
    // 2
    check_counters(world, resolved).await;
    // 3
    for (owner, held) in [("persist", &persist), ("the counter", &counter)] {
        let aside = resolved.map(aside);
        for (gid, _) in held.iter().filter(|(gid, state)| *state == "PREPARED" && Some(**gid) != aside) {
            world.violated(format!("3: {gid} is still prepared at {owner}"));
        }
    }
    // 4
    for Final { gid, committed } in told {
        if let Some(txn) = txns.get(gid)
            && (txn.state == State::Commit) != *committed
        {
            world.violated(format!("4: a client was told that {gid} is committed: {committed}; it is {:?}", txn.state));
        }
        if !committed && persist.get(gid).is_some_and(|state| state == "COMMITTED") {
            world.violated(format!("4: a client was told that {gid} is aborted, and persist has it"));
        }
    }
    // 5
    let mut holders: HashMap<_, Vec<Gid>> = HashMap::new();
    for (gid, txn) in txns.iter().filter(|(_, txn)| txn.state == State::Commit) {
        holders.entry((txn.user, txn.key.clone())).or_default().push(*gid);
    }
    for ((_, key), gids) in holders.iter().filter(|((_, key), gids)| key.is_some() && gids.len() > 1) {
        world.violated(format!("5: key {key:?} has {gids:?}"));
    }
    // 6 is held at each close (`check_closed`), and once more now.
    check_closed(world).await;
    // 7
    for (gid, _) in txns.iter().filter(|(_, txn)| txn.quarantined) {
        world.violated(format!("7: {gid} is quarantined"));
    }
    check_live(world, topics, &sets[0]).await;
}

/// Invariant 2, against the notifications themselves: they outlive the transactions.
async fn check_counters(world: &World, resolved: Option<Gid>) {
    let _still = world.still.hold();
    let notifications: Vec<(Uuid, Uuid, Uuid)> =
        rows!(world, Owner::Persist, "SELECT gid, from_user_id, topic_id FROM notification");
    let counters: Vec<(String, Uuid, i64)> = rows!(world, Owner::Counter, "SELECT kind, id, counter FROM counter");
    let mut due: BTreeMap<(String, Uuid), i64> = BTreeMap::new();
    let by_hand: Vec<(Uuid,)> = rows!(world, Owner::Persist, "SELECT gid FROM ptxn WHERE origin = 'client'");
    let by_hand: BTreeSet<Uuid> = by_hand.into_iter().map(|(gid,)| gid).chain(resolved.map(Gid::uuid)).collect();
    let mut gids = BTreeSet::new();
    for (gid, user, topic) in notifications.into_iter().filter(|(gid, ..)| !by_hand.contains(gid)) {
        if !gids.insert(gid) {
            world.violated(format!("2: {gid} has two notifications"));
        }
        *due.entry(("user".into(), user)).or_default() += 1;
        *due.entry(("topic".into(), topic)).or_default() += 1;
    }
    let mut counters: BTreeMap<(String, Uuid), i64> =
        counters.into_iter().map(|(kind, id, counter)| ((kind, id), counter)).collect();
    if resolved.is_some() {
        // Committed at the counter alone, as the operator wrote down.
        for counter in counters.values_mut() {
            *counter -= 1;
        }
        counters.retain(|_, counter| *counter != 0);
    }
    if counters != due {
        world.violated(format!("2: the counters are {counters:?}, the notifications add up to {due:?}"));
    }
}

/// What is committed reaches live subscribers: a gateway was told of it when persist applied it, recovery or not; and the
/// topic's head and log have it by offset, without a gap.
async fn check_live(world: &Arc<World>, topics: &[(TopicId, TopicName)], committed: &BTreeSet<Gid>) {
    for gid in committed.iter().filter(|gid| !world.was_told(**gid)) {
        world.violated(format!("no gateway was told that {gid} was applied"));
    }
    let (node, _) = world.persist().expect("everything is up");
    for (topic, name) in topics {
        let (head, log) = node.log(*topic, name).await.expect("a read");
        let offsets: Vec<u64> = log.expect("the topic").notifications.iter().map(|one| one.offset).collect();
        if offsets != (1..=head).collect::<Vec<_>>() {
            world.violated(format!("{name} has head {head} and offsets {offsets:?}"));
        }
    }
}

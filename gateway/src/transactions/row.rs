//! What both backends read and how it becomes the domain's types: one place, checked.

use std::{
    collections::{HashMap, HashSet},
    str::FromStr,
    time::Duration,
};

use notifyx_commit::{
    Begin, Begun, Figures, Intervened, Parties, Record, RequestHash, State, StoreError, VerdictOn, Votes,
};
use notifyx_database::{Error, column::unsigned};
use notifyx_model::{Gid, InstanceId, Invalid, OperatorName, Remark, Timestamp, UserId};
use notifyx_wire::rest::commit::{Heuristic, Resolution, Standing};
use sqlx::FromRow;
use uuid::Uuid;

/// The columns of [`TxnRow`].
macro_rules! columns {
    () => {
        "txn.gid, txn.user_id, txn.idem_key, txn.req_hash, txn.state, txn.reason, txn.acked_persist, txn.acked_counter, \
         txn.tries, txn.refusals, txn.quarantined, txn.created_at, txn.deadline, txn.closed_at, txn.owner, txn.lease_until, \
         txn.vote_persist, txn.vote_counter, txn.resolved_at, txn.resolved_by, txn.resolution, txn.resolution_reason"
    };
}
pub(super) use columns;

#[derive(FromRow)]
pub(super) struct TxnRow {
    gid: Uuid,
    user_id: Uuid,
    idem_key: Option<String>,
    req_hash: Vec<u8>,
    state: String,
    reason: Option<String>,
    acked_persist: bool,
    acked_counter: bool,
    tries: i64,
    refusals: i64,
    quarantined: bool,
    created_at: i64,
    deadline: i64,
    closed_at: Option<i64>,
    owner: Uuid,
    lease_until: i64,
    vote_persist: Option<String>,
    vote_counter: Option<String>,
    resolved_at: Option<i64>,
    resolved_by: Option<String>,
    resolution: Option<String>,
    resolution_reason: Option<String>,
}

impl TryFrom<TxnRow> for Record {
    type Error = StoreError;

    fn try_from(row: TxnRow) -> Result<Self, StoreError> {
        let count = |stored: i64| u32::try_from(stored).unwrap_or(if stored < 0 { 0 } else { u32::MAX });
        let resolution = resolution(&row)?;
        Ok(Self {
            gid: Gid::from_uuid(row.gid),
            user_id: UserId::from_uuid(row.user_id),
            idem_key: row.idem_key,
            request: RequestHash::from_slice(&row.req_hash)
                .ok_or_else(|| StoreError::new(format!("transaction {} has a hash of another length", row.gid)))?,
            state: state(&row.state)?,
            votes: Votes { persist: word(row.vote_persist.as_deref())?, counter: word(row.vote_counter.as_deref())? },
            reason: row.reason,
            acked: Parties { persist: row.acked_persist, counter: row.acked_counter },
            tries: count(row.tries),
            refusals: count(row.refusals),
            quarantined: row.quarantined,
            created_at: Timestamp::from_micros(row.created_at),
            deadline: Timestamp::from_micros(row.deadline),
            closed_at: row.closed_at.map(Timestamp::from_micros),
            owner: InstanceId::from_uuid(row.owner),
            lease_until: Timestamp::from_micros(row.lease_until),
            resolution,
        })
    }
}

/// All of it or nothing: the table's CHECK says so.
fn resolution(row: &TxnRow) -> Result<Option<Resolution>, StoreError> {
    let (Some(at), Some(operator), Some(reason), Some(outcome)) = (
        row.resolved_at,
        word::<OperatorName>(row.resolved_by.as_deref())?,
        word::<Remark>(row.resolution_reason.as_deref())?,
        word::<Heuristic>(row.resolution.as_deref())?,
    ) else {
        return Ok(None);
    };
    Ok(Some(Resolution { outcome, operator, reason, at: Timestamp::from_micros(at) }))
}

fn word<T: FromStr<Err = Invalid>>(stored: Option<&str>) -> Result<Option<T>, StoreError> {
    stored.map(str::parse).transpose().map_err(StoreError::new)
}

pub(super) fn state(text: &str) -> Result<State, StoreError> {
    text.parse().map_err(StoreError::new)
}

/// Statements fail as [`sqlx::Error`]; what can be done about it is the database's to say.
pub(super) fn failed(error: sqlx::Error) -> StoreError {
    StoreError::new(Error::from(error))
}

/// The answers of a begin, from what was inserted and what was found in its place. `None` where neither holds: whoever held
/// the key was aborted meanwhile, and the item is to be begun again.
pub(super) fn begun(batch: &[Begin], inserted: &[Uuid], found: &[Record]) -> Vec<Option<Begun>> {
    let by_gid: HashMap<Gid, &Record> = found.iter().map(|record| (record.gid, record)).collect();
    let holders = found.iter().filter(|record| record.state != State::Abort);
    let by_key: HashMap<(UserId, &str), &Record> =
        holders.filter_map(|record| Some(((record.user_id, record.idem_key.as_deref()?), record))).collect();
    // A gid that stands twice in the batch was inserted for the first of them.
    let mut inserted: HashSet<Uuid> = inserted.iter().copied().collect();
    batch
        .iter()
        .map(|item| {
            if inserted.remove(&item.gid.uuid()) {
                return Some(Begun::New);
            }
            let holder = item.idem_key.as_deref().and_then(|key| by_key.get(&(item.user_id, key)));
            let record = *holder.or_else(|| by_gid.get(&item.gid))?;
            let same = record.request == item.request && record.user_id == item.user_id;
            Some(if same { Begun::Known(Box::new(record.clone())) } else { Begun::Mismatch(record.gid) })
        })
        .collect()
}

/// How often a begin is tried whose key is held and freed at the same time; more is a bug.
pub(super) const BEGIN_TRIES: u32 = 5;

/// Which rows a listing is of.
pub(super) fn condition(standing: Standing, now: &str) -> String {
    match standing {
        Standing::Open => "closed_at IS NULL".into(),
        Standing::InDoubt => format!("closed_at IS NULL AND deadline <= {now}"),
        Standing::Quarantined => "closed_at IS NULL AND quarantined".into(),
        Standing::Preparing => "closed_at IS NULL AND state = 'PREPARING'".into(),
        Standing::Committed => "state = 'COMMIT'".into(),
        Standing::Aborted => "state = 'ABORT'".into(),
        Standing::Resolved => "resolved_at IS NOT NULL".into(),
        Standing::All => "TRUE".into(),
    }
}

/// What an operator is told: the row as the statement left it, or else as it is found.
pub(super) fn intervened(changed: Option<TxnRow>, found: Option<Record>) -> Result<Intervened, StoreError> {
    match (changed, found) {
        (Some(row), _) => Ok(Intervened::Done(Record::try_from(row)?)),
        (None, Some(record)) => Ok(Intervened::Refused(record)),
        (None, None) => Ok(Intervened::Unknown),
    }
}

/// What each row says, in the order of the batch.
pub(super) fn states(batch: &[VerdictOn], rows: Vec<(Uuid, String)>) -> Result<Vec<Option<State>>, StoreError> {
    let rows: HashMap<Uuid, String> = rows.into_iter().collect();
    batch.iter().map(|item| rows.get(&item.gid.uuid()).map(|text| state(text)).transpose()).collect()
}

pub(super) fn figures((open, in_doubt, quarantined, oldest): (i64, i64, i64, i64)) -> Figures {
    let oldest = Duration::from_micros(unsigned(oldest));
    Figures { open: unsigned(open), in_doubt: unsigned(in_doubt), quarantined: unsigned(quarantined), oldest }
}

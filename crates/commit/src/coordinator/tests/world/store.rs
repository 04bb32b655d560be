//! The coordinator's store, in memory.

use notifyx_model::{Gid, InstanceId, UserId};
use notifyx_wire::rest::commit::Resolution;

use super::{Row, Site, World};
use crate::{
    Acked, Begin, Begun, Claim, Deferred, Intervened, Parties, Party, Record, Resolve, State, Terms, Verdict,
    VerdictOn, Votes,
};

impl World {
    pub(super) fn begin(&self, item: &Begin, terms: Terms) -> Begun {
        let holder = item.idem_key.as_deref().and_then(|key| self.holder(item.user_id, key));
        if let Some(found) = holder.or_else(|| self.record(item.gid)) {
            return if found.request == item.request {
                Begun::Known(Box::new(found))
            } else {
                Begun::Mismatch(found.gid)
            };
        }
        let now = self.now();
        let record = Record {
            gid: item.gid,
            user_id: item.user_id,
            idem_key: item.idem_key.clone(),
            request: item.request,
            state: State::Preparing,
            reason: None,
            acked: Parties::NONE,
            tries: 0,
            refusals: 0,
            quarantined: false,
            votes: Votes::NONE,
            owner: terms.owner,
            lease_until: now + terms.lease,
            created_at: now,
            deadline: now + terms.deadline,
            closed_at: None,
            resolution: None,
        };
        self.rows.lock().unwrap().insert(item.gid, Row { record });
        Begun::New
    }

    pub(super) fn holder(&self, user_id: UserId, key: &str) -> Option<Record> {
        let rows = self.rows.lock().unwrap();
        rows.values()
            .map(|row| &row.record)
            .find(|record| {
                record.user_id == user_id && record.idem_key.as_deref() == Some(key) && record.state != State::Abort
            })
            .cloned()
    }

    pub(super) fn decide(&self, item: &VerdictOn) -> Option<State> {
        let now = self.now();
        self.change(item.gid, |row| {
            if row.record.state == State::Preparing {
                let (state, reason) = match &item.verdict {
                    Verdict::Commit if now < row.record.deadline => (State::Commit, None),
                    Verdict::Commit => (State::Abort, Some(Verdict::TOO_LATE.to_owned())),
                    Verdict::Abort { reason } => (State::Abort, Some(reason.clone())),
                };
                row.record.state = state;
                row.record.reason = reason;
                row.record.votes = item.votes;
            }
            row.record.state
        })
    }

    pub(super) fn acknowledge(&self, acked: &Acked) {
        let now = self.now();
        self.change(acked.gid, |row| {
            if row.record.closed_at.is_some() {
                return;
            }
            row.record.acked = row.record.acked.and(acked.by);
            if row.record.acked == Parties::BOTH {
                row.record.closed_at.get_or_insert(now);
                row.record.quarantined = false;
            }
        });
    }

    pub(super) fn defer(&self, deferred: Deferred) {
        let until = self.now() + deferred.again_in;
        self.change(deferred.gid, |row| {
            row.record.lease_until = until;
            row.record.tries = deferred.tries;
            row.record.refusals = deferred.refusals;
            row.record.quarantined |= deferred.quarantine.is_some();
            row.record.reason = deferred.quarantine.or(row.record.reason.take());
        });
    }

    pub(super) fn claim(&self, claim: Claim) -> Vec<Record> {
        let now = self.now();
        let mut rows = self.rows.lock().unwrap();
        let overdue = rows.values_mut().filter(|row| row.record.closed_at.is_none() && row.record.lease_until <= now);
        overdue
            .take(claim.limit as usize)
            .map(|row| {
                row.record.lease_until = now + claim.lease;
                row.record.owner = claim.owner;
                row.record.clone()
            })
            .collect()
    }

    pub(super) fn release(&self, owner: InstanceId) {
        let now = self.now();
        let mut rows = self.rows.lock().unwrap();
        for row in rows.values_mut().filter(|row| row.record.owner == owner && !row.record.quarantined) {
            row.record.lease_until = row.record.lease_until.min(now);
        }
    }

    pub(super) fn retry(&self, gid: Gid) -> Intervened {
        let now = self.now();
        let can = |record: &Record| {
            record.closed_at.is_none() && (record.state != State::Preparing || record.deadline <= now)
        };
        self.intervene(gid, can, |record| record.lease_until = now)
    }

    pub(super) fn resolve(&self, resolve: Resolve) -> Intervened {
        let now = self.now();
        let can = |record: &Record| record.closed_at.is_none() && record.quarantined;
        self.intervene(resolve.gid, can, |record| {
            let Resolve { outcome, by, reason, .. } = resolve;
            record.resolution = Some(Resolution { outcome, operator: by, reason, at: now });
            record.closed_at = Some(now);
            record.quarantined = false;
        })
    }

    fn intervene(&self, gid: Gid, can: impl FnOnce(&Record) -> bool, change: impl FnOnce(&mut Record)) -> Intervened {
        let intervened = self.change(gid, |row| {
            if !can(&row.record) {
                return Intervened::Refused(row.record.clone());
            }
            change(&mut row.record);
            Intervened::Done(row.record.clone())
        });
        intervened.unwrap_or(Intervened::Unknown)
    }

    pub(super) fn site(&self, party: Party) -> &Site {
        match party {
            Party::Persist => &self.persist,
            Party::Counter => &self.counter,
        }
    }

    fn change<T>(&self, gid: Gid, change: impl FnOnce(&mut Row) -> T) -> Option<T> {
        self.rows.lock().unwrap().get_mut(&gid).map(change)
    }
}

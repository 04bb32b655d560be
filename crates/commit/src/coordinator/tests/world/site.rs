//! One participant: its rows, and what it decides as persist and counter-2pc do.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering},
    },
};

use notifyx_model::{Gid, NotificationId, Timestamp, TopicName, UserId};
use notifyx_wire::rest::{
    Problem,
    commit::{Ack, Applied, Publish, Vote},
};

use crate::{
    RequestHash,
    participant::{self, Asker, Judge, OnCommit, OnPrepare, OnRollback},
};

/// One participant's database.
#[derive(Default)]
pub(crate) struct Site {
    /// Tells where a committed notification stands, as persist does.
    pub(super) tells: bool,
    pub(crate) rows: Mutex<BTreeMap<Gid, (participant::Row, NotificationId)>>,
    /// Business rule: messages that begin so are refused.
    pub(crate) refuses: Mutex<Option<&'static str>>,
    pub(crate) effects: AtomicU64,
}

impl Site {
    pub(crate) fn committed(&self) -> Vec<Gid> {
        let rows = self.rows.lock().unwrap();
        let committed = rows.iter().filter(|(_, (row, _))| row.state == participant::State::Committed);
        committed.map(|(gid, _)| *gid).collect()
    }

    pub(crate) fn state(&self, gid: Gid) -> Option<participant::State> {
        self.rows.lock().unwrap().get(&gid).map(|(row, _)| row.state)
    }

    fn insert(&self, gid: Gid, state: participant::State, request: RequestHash, publish: Option<&Publish>) {
        let row = participant::Row {
            origin: participant::Origin::Coordinator,
            user_id: publish.map_or(UserId::from_uuid(uuid::Uuid::nil()), |p| p.from_user_id),
            state,
            request,
            prepared_at: Timestamp::from_micros(0),
            expired: false,
        };
        let id = publish.map_or(NotificationId::from_uuid(uuid::Uuid::nil()), |p| p.notification_id);
        self.rows.lock().unwrap().insert(gid, (row, id));
    }

    pub(crate) fn prepare(&self, gid: Gid, publish: &Publish) -> Vote {
        let request = RequestHash::of("prepare", publish);
        let found = self.rows.lock().unwrap().get(&gid).map(|(row, _)| row.clone());
        match Judge::at(Timestamp::from_micros(0)).prepare(found.as_ref(), Asker::Coordinator, &request) {
            OnPrepare::Yes => Vote::Yes,
            OnPrepare::No(refusal) => Vote::No(problem(409, &refusal)),
            OnPrepare::Reserve => {
                let refused =
                    self.refuses.lock().unwrap().is_some_and(|start| publish.message.as_str().starts_with(start));
                if refused {
                    self.insert(gid, participant::State::Aborted, request, Some(publish));
                    return Vote::No(problem(409, &"the topic is inactive"));
                }
                self.insert(gid, participant::State::Prepared, request, Some(publish));
                Vote::Yes
            }
        }
    }

    pub(super) fn commit(&self, gid: Gid) -> Ack {
        let mut rows = self.rows.lock().unwrap();
        let found = rows.get_mut(&gid);
        match Judge::at(Timestamp::from_micros(0)).commit(found.as_deref().map(|(row, _)| row), Asker::Coordinator) {
            OnCommit::Refuse(refusal) => return Ack::Violation(problem(409, &refusal)),
            OnCommit::Done => {}
            OnCommit::Apply => {
                self.effects.fetch_add(1, Ordering::SeqCst);
            }
        }
        let (row, id) = found.expect("judged as found");
        row.state = participant::State::Committed;
        Ack::Done { applied: self.tells.then(|| applied(*id)) }
    }

    pub(super) fn rollback(&self, gid: Gid) -> Ack {
        let found = self.rows.lock().unwrap().get(&gid).map(|(row, _)| row.clone());
        match Judge::at(Timestamp::from_micros(0)).rollback(found.as_ref(), Asker::Coordinator) {
            OnRollback::Refuse(refusal) => return Ack::Violation(problem(409, &refusal)),
            OnRollback::Done => {}
            OnRollback::Tombstone => self.insert(gid, participant::State::Aborted, participant::NO_REQUEST, None),
            OnRollback::Release => {
                self.rows.lock().unwrap().get_mut(&gid).unwrap().0.state = participant::State::Aborted;
            }
        }
        Ack::Done { applied: None }
    }
}

fn applied(notification_id: NotificationId) -> Applied {
    Applied {
        notification_id,
        topic: TopicName::parse("billing").unwrap(),
        offset: 1,
        broadcast_no: Some(1),
        inserted_at: Timestamp::from_micros(0),
    }
}

fn problem(status: u16, detail: &dyn fmt::Display) -> Problem {
    Problem {
        success: false,
        status,
        title: "Conflict".into(),
        code: "refused".into(),
        detail: detail.to_string(),
        request_id: None,
    }
}

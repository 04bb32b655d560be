//! What both backends read, before it is trusted: rows, and the one place where columns become the domain's types.

use std::collections::{HashMap, HashSet};

use notifyx_commit::{RequestHash, participant};
use notifyx_database::{self as database, column::stored};
use notifyx_model::{
    Email, Gid, Message, Notification, NotificationId, Priority, Timestamp, TopicId, TopicName, UserId,
};
use notifyx_wire::rest::{
    commit::Applied,
    persist::{Head, InboxItem, SeenStatus, Subscriber, Topic, TopicStatus, UnreadInTopic},
};
use sqlx::FromRow;
use uuid::Uuid;

use super::{Error, Gate, Inserted, No, Preparation};

pub(super) use notifyx_database::column::{all, signed, unsigned};

pub(super) fn status_text(status: TopicStatus) -> &'static str {
    match status {
        TopicStatus::Active => "active",
        TopicStatus::Inactive => "inactive",
    }
}

fn status(text: &str) -> Result<TopicStatus, database::Error> {
    match text {
        "active" => Ok(TopicStatus::Active),
        "inactive" => Ok(TopicStatus::Inactive),
        other => stored("topic status", Err(other)),
    }
}

fn name(text: &str) -> Result<TopicName, database::Error> {
    stored("topic name", TopicName::parse(text))
}

#[derive(FromRow)]
pub(super) struct TopicRow {
    id: Uuid,
    name: String,
    creator_id: Uuid,
    status: String,
    longevity: Option<i64>,
    last_offset: i64,
    last_broadcast_no: i64,
    trimmed_offset: i64,
    created_at: i64,
}

impl TryFrom<TopicRow> for Topic {
    type Error = Error;

    fn try_from(row: TopicRow) -> Result<Self, Error> {
        Ok(Self {
            id: TopicId::from_uuid(row.id),
            name: name(&row.name)?,
            creator_id: UserId::from_uuid(row.creator_id),
            status: status(&row.status)?,
            longevity: row.longevity.map(unsigned),
            offset: unsigned(row.last_offset),
            broadcast_no: unsigned(row.last_broadcast_no),
            trimmed: unsigned(row.trimmed_offset),
            created_at: Timestamp::from_micros(row.created_at),
        })
    }
}

#[derive(FromRow)]
pub(super) struct HeadRow {
    id: Uuid,
    name: String,
    last_offset: i64,
    last_broadcast_no: i64,
    trimmed_offset: i64,
}

impl TryFrom<HeadRow> for Head {
    type Error = Error;

    fn try_from(row: HeadRow) -> Result<Self, Error> {
        Ok(Self {
            topic: name(&row.name)?,
            topic_id: TopicId::from_uuid(row.id),
            offset: unsigned(row.last_offset),
            broadcast_no: unsigned(row.last_broadcast_no),
            trimmed: unsigned(row.trimmed_offset),
        })
    }
}

#[derive(FromRow)]
pub(super) struct GateRow {
    id: Uuid,
    name: String,
    creator_id: Uuid,
    status: String,
}

impl TryFrom<GateRow> for Gate {
    type Error = Error;

    fn try_from(row: GateRow) -> Result<Self, Error> {
        Ok(Self {
            id: TopicId::from_uuid(row.id),
            name: name(&row.name)?,
            creator_id: UserId::from_uuid(row.creator_id),
            status: status(&row.status)?,
        })
    }
}

#[derive(FromRow)]
pub(super) struct SubscriberRow {
    user_id: Uuid,
    subscribed_at: i64,
}

impl From<SubscriberRow> for Subscriber {
    fn from(row: SubscriberRow) -> Self {
        Self { user_id: UserId::from_uuid(row.user_id), subscribed_at: Timestamp::from_micros(row.subscribed_at) }
    }
}

#[derive(FromRow)]
pub(super) struct PtxnRow {
    pub(super) gid: Uuid,
    origin: String,
    user_id: Uuid,
    state: String,
    req_hash: Vec<u8>,
    prepared_at: i64,
    expired: bool,
    refusal: Option<String>,
    pub(super) topic_id: Option<Uuid>,
}

impl PtxnRow {
    /// Its columns.
    pub(super) const COLUMNS: &str = "gid, origin, user_id, state, req_hash, prepared_at, expired, refusal, topic_id";

    /// With what a prepare that comes again is told.
    pub(super) fn found(&self) -> Result<(participant::Row, Option<No>), Error> {
        let no = |text: &String| stored("refusal", serde_json::from_str(text));
        Ok((self.judged()?, self.refusal.as_ref().map(no).transpose()?))
    }

    pub(super) fn judged(&self) -> Result<participant::Row, Error> {
        Ok(participant::Row {
            origin: stored("origin", self.origin.parse())?,
            user_id: UserId::from_uuid(self.user_id),
            state: stored("transaction state", self.state.parse())?,
            request: stored("request hash", RequestHash::from_slice(&self.req_hash).ok_or("not 32 bytes"))?,
            prepared_at: Timestamp::from_micros(self.prepared_at),
            expired: self.expired,
        })
    }
}

#[derive(FromRow)]
pub(super) struct AppliedRow {
    gid: Uuid,
    id: Uuid,
    topic: String,
    offset: i64,
    broadcast_no: i64,
    targeted: bool,
    inserted_at: i64,
}

impl AppliedRow {
    pub(super) fn read(self) -> Result<(Gid, Applied), Error> {
        let applied = Applied {
            notification_id: NotificationId::from_uuid(self.id),
            topic: name(&self.topic)?,
            offset: unsigned(self.offset),
            broadcast_no: (!self.targeted).then(|| unsigned(self.broadcast_no)),
            inserted_at: Timestamp::from_micros(self.inserted_at),
        };
        Ok((Gid::from_uuid(self.gid), applied))
    }
}

#[derive(FromRow)]
pub(super) struct NotificationRow {
    id: Uuid,
    topic_id: Uuid,
    topic: String,
    offset: i64,
    broadcast_no: i64,
    targeted: bool,
    from_user_id: Uuid,
    from_email: String,
    message: String,
    priority: i16,
    inserted_at: i64,
    /// Ids with commas between them; NULL for a broadcast.
    recipients: Option<String>,
}

impl TryFrom<NotificationRow> for Notification {
    type Error = Error;

    fn try_from(row: NotificationRow) -> Result<Self, Error> {
        let recipient = |text: &str| stored("recipient", text.parse());
        let to = match row.recipients.as_deref() {
            None | Some("") => Vec::new(),
            Some(list) => list.split(',').map(recipient).collect::<Result<_, _>>()?,
        };
        let priority = u8::try_from(row.priority).unwrap_or(u8::MAX);
        Ok(Self {
            id: NotificationId::from_uuid(row.id),
            topic_id: TopicId::from_uuid(row.topic_id),
            topic: name(&row.topic)?,
            offset: unsigned(row.offset),
            broadcast_no: (!row.targeted).then(|| unsigned(row.broadcast_no)),
            from_user_id: UserId::from_uuid(row.from_user_id),
            from: stored("e-mail address", Email::parse(&row.from_email))?,
            message: stored("message", Message::parse(&row.message))?,
            to,
            priority: stored("priority", Priority::try_from(priority))?,
            inserted_at: Timestamp::from_micros(row.inserted_at),
        })
    }
}

#[derive(FromRow)]
pub(super) struct InboxRow {
    #[sqlx(flatten)]
    notification: NotificationRow,
    seen: bool,
    /// Lines of the page before it was cut by its bytes, and one more if there are more.
    pub(super) found: i64,
}

impl TryFrom<InboxRow> for InboxItem {
    type Error = Error;

    fn try_from(row: InboxRow) -> Result<Self, Error> {
        let status = if row.seen { SeenStatus::Seen } else { SeenStatus::Unread };
        Ok(Self { notification: row.notification.try_into()?, status })
    }
}

#[derive(FromRow)]
pub(super) struct UnreadRow {
    topic_id: Uuid,
    name: String,
    unread: i64,
    last_broadcast_no: i64,
    own: bool,
}

impl TryFrom<UnreadRow> for UnreadInTopic {
    type Error = Error;

    fn try_from(row: UnreadRow) -> Result<Self, Error> {
        Ok(Self {
            topic_id: TopicId::from_uuid(row.topic_id),
            topic: name(&row.name)?,
            unread: unsigned(row.unread),
            broadcast_no: unsigned(row.last_broadcast_no),
            own: row.own,
        })
    }
}

/// A notification that its reader wants to mark, with the reader's subscription.
#[derive(FromRow)]
pub(crate) struct MarkRow {
    pub(crate) topic_id: Uuid,
    pub(crate) offset: i64,
    pub(crate) broadcast_no: i64,
    pub(crate) targeted: bool,
    pub(crate) inserted_at: i64,
    /// The reader created the topic.
    pub(crate) own: bool,
    /// Up to here all broadcasts are seen or gone.
    pub(crate) floor: i64,
}

/// Where a subscription and its topic stand.
#[derive(FromRow)]
pub(super) struct StandRow {
    pub(super) floor: i64,
    pub(super) floor_at: i64,
    pub(super) last_offset: i64,
    pub(super) last_broadcast_no: i64,
    pub(super) last_at: i64,
    pub(super) trimmed_offset: i64,
}

/// A page as its caller gets it: without the line that was read to see whether there are more.
pub(super) fn cut_page(mut rows: Vec<InboxRow>, limit: u32) -> Result<(Vec<InboxItem>, bool), Error> {
    let found = rows.first().map_or(0, |row| unsigned(row.found));
    rows.truncate(limit as usize);
    let complete = found <= rows.len() as u64;
    Ok((all(rows)?, complete))
}

/// Of items with the same gid the first, which is the one that counts.
pub(super) fn firsts(items: &[Preparation]) -> Vec<&Preparation> {
    let mut known = HashSet::new();
    items.iter().filter(|item| known.insert(item.gid)).collect()
}

impl Preparation {
    pub(super) fn state(&self) -> participant::State {
        if self.refusal.is_none() { participant::State::Prepared } else { participant::State::Aborted }
    }

    /// As it is stored.
    pub(super) fn refusal(&self) -> Option<String> {
        self.refusal.as_ref().map(|no| serde_json::to_string(no).expect("two strings are JSON"))
    }
}

/// Tells what became of each item: new, known before (or earlier in the batch), or in the way of another.
pub(super) fn inserted(
    items: &[Preparation],
    new: Vec<Uuid>,
    found: &HashMap<Uuid, (participant::Row, Option<No>)>,
) -> Vec<Inserted> {
    let mut new: HashSet<Uuid> = new.into_iter().collect();
    items
        .iter()
        .map(|item| match found.get(&item.gid.uuid()) {
            _ if new.remove(&item.gid.uuid()) => Inserted::New,
            Some((row, no)) => Inserted::Found(row.clone(), no.clone()),
            None => Inserted::IdTaken,
        })
        .collect()
}

impl StandRow {
    /// The new floor, if broadcast `number` of `at` is above the old one.
    pub(super) fn raised(&self, number: i64, at: i64) -> Option<(i64, i64)> {
        (number > self.floor).then(|| (number, at.max(self.floor_at)))
    }
}

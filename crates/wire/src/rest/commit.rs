//! Two-phase commit on the wire: the batch form the coordinator uses (cluster only), and the forms for people.

use std::{fmt, str::FromStr};

use notifyx_model::{
    Email, Gid, InstanceId, Invalid, Message, NotificationId, OperatorName, Priority, Remark, Timestamp, TopicId,
    TopicName, UserId,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::Problem;

/// Items per batch call, at every participant. More is refused with 413.
pub const BATCH_MAX: usize = 512;

/// What both participants are asked to prepare: the same for both, so that neither waits for the other's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Publish {
    /// Chosen by the gateway, so that a repeated prepare makes the same notification.
    pub notification_id: NotificationId,
    pub topic_id: TopicId,
    pub from_user_id: UserId,
    pub from: Email,
    pub message: Message,
    /// Empty: every subscriber.
    #[serde(default)]
    pub to_users: Vec<UserId>,
    #[serde(default)]
    pub priority: Priority,
}

/// `POST /api/2pc/prepare`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct PrepareBatch {
    pub items: Vec<Prepare>,
}

#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Prepare {
    pub gid: Gid,
    pub publish: Publish,
}

/// One vote per item, in order.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Votes {
    pub votes: Vec<Vote>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Vote {
    Yes,
    /// A business "no" (409, 403, 404), a tombstone (409) or another request under this gid (422): final.
    No(Problem),
    /// Could not tell: try again within the deadline.
    Error(Problem),
}

/// `POST /api/2pc/commit` and `POST /api/2pc/rollback`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct GidBatch {
    pub gids: Vec<Gid>,
}

/// One ack per gid, in order.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Acks {
    pub acks: Vec<Ack>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Ack {
    /// Done, now or before. Persist says where a committed notification stands.
    Done {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        applied: Option<Applied>,
    },
    /// The opposite was done, or a commit found nothing prepared: never flipped, always an alarm.
    Violation(Problem),
    /// Could not tell: retry for ever.
    Error(Problem),
}

/// Where a committed notification stands in its topic.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Applied {
    pub notification_id: NotificationId,
    pub topic: TopicName,
    pub offset: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub broadcast_no: Option<u64>,
    pub inserted_at: Timestamp,
}

/// The answer to a prepare by hand.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Prepared {
    /// Name it in commit or rollback within 60 s; after that it is rolled back.
    pub request_id: Gid,
}

/// `POST …/commit_2pc`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CommitRequest {
    pub request_id: Gid,
}

/// Enums whose words are the same on the wire, in a database, in metrics and in a query.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident ($what:literal) { $($(#[$of:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
        pub enum $name {
            $($(#[$of])* #[serde(rename = $text)] $variant),+
        }

        impl $name {
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }

        impl FromStr for $name {
            type Err = Invalid;

            fn from_str(text: &str) -> Result<Self, Invalid> {
                let found = Self::ALL.iter().find(|word| word.as_str() == text);
                found.copied().ok_or_else(|| Invalid::new($what, concat!("is none of", $(" ", $text),+)))
            }
        }
    };
}

words! {
    /// Where a publish stands.
    TransactionState ("state") {
        Preparing = "preparing",
        /// Decided, and final, applied or not.
        Committed = "committed",
        Aborted = "aborted",
        /// A participant contradicts the decision: an operator must look.
        Quarantined = "quarantined",
        /// An operator closed it, and found something else than what was decided: `outcome` says what.
        Resolved = "resolved",
    }
}

words! {
    /// What an operator found, in the words of X/Open: the effect came about at both, at neither, or at one of them.
    Heuristic ("outcome") { Committed = "committed", RolledBack = "rolled_back", Mixed = "mixed" }
}

words! {
    /// How a participant voted.
    Voted ("vote") {
        Yes = "yes",
        No = "no",
        /// It could not tell, or could not be asked.
        Error = "error",
    }
}

words! {
    /// Which transactions are listed.
    Standing ("state") {
        /// Not closed.
        Open = "open",
        /// Not closed, and past the deadline.
        InDoubt = "in_doubt",
        Quarantined = "quarantined",
        Preparing = "preparing",
        /// Decided so, closed or not.
        Committed = "committed",
        Aborted = "aborted",
        /// Closed by an operator.
        Resolved = "resolved",
        All = "all",
    }
}

/// `GET /api/2pc/{gid}` of the gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TransactionStatus {
    pub gid: Gid,
    pub state: TransactionState,
    /// How many of the two participants have applied the decision.
    pub applied: u8,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    pub deadline: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub closed_at: Option<Timestamp>,
    /// What an operator found, if one closed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Heuristic>,
}

words! {
    /// What was decided: final, whatever operators found later.
    Decision ("decision") { Committed = "committed", Aborted = "aborted" }
}

/// `GET /api/2pc/{gid}` of the gateway for operators: all that is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TransactionDetails {
    #[serde(flatten)]
    pub status: TransactionStatus,
    /// Absent while it is not decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
    pub user_id: UserId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idempotency_key: Option<String>,
    pub participants: Vec<ParticipantDetails>,
    /// Failed commits or rollbacks since it was decided, as far as they were written down.
    pub tries: u32,
    /// How many of them were refused in a way that repeats.
    pub refusals: u32,
    pub created_at: Timestamp,
    /// From its beginning until it was closed, or until now.
    pub age_ms: u64,
    /// The gateway that drives it, or drove it last.
    pub owner: InstanceId,
    /// Until then others leave it alone; the next try of what waits.
    pub lease_until: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolution: Option<Resolution>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ParticipantDetails {
    /// The service: `persist` or `counter-2pc`.
    pub service: String,
    /// Absent where it was not asked, or nobody wrote down what it said: recovery aborted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vote: Option<Voted>,
    /// It has applied the decision.
    pub acked: bool,
}

/// How an operator closed a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Resolution {
    pub outcome: Heuristic,
    pub operator: OperatorName,
    pub reason: Remark,
    pub at: Timestamp,
}

/// `GET /api/2pc`: oldest first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TransactionPage {
    pub transactions: Vec<TransactionDetails>,
    /// `after` of the page that follows, if one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Gid>,
}

/// `POST /api/2pc/{gid}/resolve`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ResolveRequest {
    pub outcome: Heuristic,
    pub operator: OperatorName,
    pub reason: Remark,
}

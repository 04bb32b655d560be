//! Bodies of the auth service.

pub mod keys;

use notifyx_model::{Email, Timestamp, Token, TokenHash, UserId};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `POST /api/users` and `POST /api/users/login`. The password is checked by auth (8 to 256 bytes).
#[derive(Clone, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    pub email: Email,
    #[schema(min_length = 8, max_length = 256, format = Password)]
    pub password: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Credentials(…)")
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct User {
    pub id: UserId,
    pub email: Email,
    pub created_at: Timestamp,
}

/// `201` of `POST /api/users`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Registered {
    pub success: bool,
    pub id: UserId,
    pub email: Email,
}

/// `200` of `POST /api/users/login`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct LoggedIn {
    pub success: bool,
    /// Sent as `Authorization: Bearer <token>` from now on.
    pub token: Token,
    pub id: UserId,
    pub email: Email,
    pub expires_at: Timestamp,
}

/// `200` of `DELETE /api/users/logout`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct LoggedOut {
    pub success: bool,
}

/// Who a token belongs to: `GET /api/users/self` (bearer token).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Identity {
    pub id: UserId,
    pub email: Email,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
}

/// `GET /api/users?after=&limit=`, by id.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct UserPage {
    pub users: Vec<User>,
    /// Pass as `after` for the next page; absent at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<UserId>,
}

/// `POST /api/users/resolve` (cluster only): people by e-mail address or id, at most 1,000 together.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Resolve {
    #[serde(default)]
    pub emails: Vec<Email>,
    #[serde(default)]
    pub ids: Vec<UserId>,
}

/// Those that were found, in no order.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Resolved {
    pub users: Vec<User>,
}

/// `GET /api/revocations?after=SEQ&wait_ms=N` (cluster only; long-poll of at most 30 s). Without `after`: only the head.
/// Old ones are trimmed: an answer that does not follow on `after` ([`Revocations::follows`]) begins with the oldest kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Revocations {
    /// The number of the newest revocation there is. Numbers have no gaps.
    pub head: u64,
    /// Those after `after`, in order, at most 1,000.
    pub revoked: Vec<Revocation>,
}

impl Revocations {
    /// Whether nothing is missing between `after` and this answer. If something is (it was trimmed, or auth's database was
    /// put back to an older state), clear what is cached, check open sessions again, and go on after the head.
    pub fn follows(&self, after: u64) -> bool {
        match self.revoked.first() {
            Some(first) => Some(first.seq) == after.checked_add(1),
            None => self.head == after,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Revocation {
    pub seq: u64,
    pub user_id: UserId,
    /// The session that ended; absent where all of the user's sessions did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_hash: Option<TokenHash>,
}

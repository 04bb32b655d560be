//! Errors on the wire: RFC 9457, `application/problem+json`.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Problem {
    /// Always false; older clients look at it first.
    #[serde(default)]
    pub success: bool,
    /// The HTTP status.
    pub status: u16,
    /// The status in words.
    pub title: String,
    /// A stable word for programs: `topic_not_found`.
    pub code: String,
    /// What was wrong, where, and what to do.
    pub detail: String,
    /// Names the request in the logs of every service it touched.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
}

impl Problem {
    pub const MEDIA_TYPE: &'static str = "application/problem+json";
}

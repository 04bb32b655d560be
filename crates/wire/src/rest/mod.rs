//! REST bodies: one file per service that answers with them.

pub mod auth;
pub mod commit;
pub mod counter;
pub mod discovery;
pub mod events;
pub mod gateway;
pub mod persist;
mod problem;

pub use problem::Problem;

use serde::{Deserialize, Serialize};

/// What older clients of the REST forms read: `{"success": true, "data": …}`.
#[derive(Clone, Debug, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Success<T> {
    pub success: bool,
    pub data: T,
}

impl<T> Success<T> {
    pub fn new(data: T) -> Self {
        Self { success: true, data }
    }
}

/// A bound for pages that ask for none, and the most that may be asked for.
pub const PAGE_DEFAULT: u32 = 50;
pub const PAGE_MAX: u32 = 500;

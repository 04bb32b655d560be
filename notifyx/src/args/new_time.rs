//! The time that something is given which waits already: `--at` or `--in`, one of them.

use clap::Args;
use notifyx_model::{GivenTime, Timestamp};

use crate::user::when;

#[derive(Clone, Copy, Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct NewTime {
    /// When, such as `tomorrow 9:00`, `2026-12-24 18:00` or RFC 3339; `now` is at once
    #[arg(long, value_name = "TIME", value_parser = when::at)]
    at: Option<Timestamp>,
    /// After what time from now, such as 10m, 1h30m or 2 days
    #[arg(long = "in", value_name = "SPAN", value_parser = when::after)]
    within: Option<Timestamp>,
}

impl NewTime {
    /// As it is sent.
    pub(crate) fn given(self) -> GivenTime {
        GivenTime::Text(self.at.or(self.within).expect("clap asks for it").to_string())
    }
}

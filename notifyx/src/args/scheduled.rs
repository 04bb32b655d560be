//! What users ask on the command line about what they have scheduled.

use clap::{Args, Subcommand};
use notifyx_model::EventId;

use super::NewTime;

#[derive(Clone, Debug, Args)]
pub(crate) struct Scheduled {
    #[command(subcommand)]
    pub(crate) action: ScheduledAction,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum ScheduledAction {
    /// List what waits for its time, soonest first
    Ls {
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        limit: u32,
    },
    /// Show one, and what became of it
    Show {
        /// As `notifyx publish --at` and `notifyx scheduled ls` show it
        #[arg(value_parser = id)]
        id: EventId,
    },
    /// Give one another time, before its own has come
    #[command(after_help = "\
Examples:
  notifyx scheduled move 0199f3a2-7c1e-7d3a-9b42-5a0c1d2e3f40 --at 'tomorrow 9:00'
  notifyx scheduled move 0199f3a2-7c1e-7d3a-9b42-5a0c1d2e3f40 --in 10m")]
    Move {
        /// As `notifyx scheduled ls` shows it
        #[arg(value_parser = id)]
        id: EventId,
        #[command(flatten)]
        time: NewTime,
    },
    /// Take some back, before their time
    Cancel {
        /// As `notifyx scheduled ls` shows them
        #[arg(required = true, value_name = "ID", value_parser = id)]
        ids: Vec<EventId>,
    },
}

fn id(text: &str) -> Result<EventId, String> {
    EventId::parse(text).map_err(|error| error.to_string())
}

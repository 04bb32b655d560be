//! What users ask on the command line about events and their schedules; and the service of that name, which takes the same word.

use clap::{Args, Subcommand, ValueHint};
use notifyx_model::{Category, EventId, GivenSpan, GivenTime, Priority, Timestamp};

use super::{NewTime, OneService, user::priority};
use crate::user::when;

/// `notifyx events` starts the service; with an action it is a user's command.
#[derive(Clone, Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Events {
    #[command(subcommand)]
    pub(crate) action: Option<EventsAction>,
    #[command(flatten)]
    pub(crate) service: OneService,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum EventsAction {
    /// Post an event for its time, or many from a file
    #[command(after_help = "\
A time is one such as 9:00, tomorrow 9:00, monday 18:30, 2026-12-24 18:00, 2026-12-24 18:00 Europe/Berlin, in 10m,
2026-12-24T18:00:00+01:00, or a Unix time; without a time zone it is meant in this machine's.
Data is any JSON; what is none is sent as a text.

Examples:
  notifyx events post reminders 'Stand-up' --at 'tomorrow 9:00'
  notifyx events post orders '{\"id\": 7}' --in 10m --id order:7 --priority 9
  notifyx events post --file events.ndjson     one object per line, as POST /events takes it
  jq -c '.[]' events.json | notifyx events post --file -")]
    Post(Post),
    /// List what waits in a category, soonest first, or what fired
    Ls(ListEvents),
    /// Show an event, waiting or fired
    Get(OneEvent),
    /// Print the events of a category as they fire, live
    #[command(after_help = "\
Examples:
  notifyx events stream orders
  notifyx events stream orders --from 1        with what fired before
  notifyx events stream orders --json | jq 'select(.event == \"fired\") | .data'")]
    Stream(Stream),
    /// Give an event that waits another time; one that has fired keeps its own
    #[command(after_help = "\
Examples:
  notifyx events reschedule order:7 --at 'tomorrow 9:00'
  notifyx events reschedule order:7 --in 10m --category orders")]
    Reschedule {
        /// As `notifyx events ls` shows it
        #[arg(value_parser = id)]
        id: EventId,
        /// Its category, where several have the id
        #[arg(long, value_parser = category)]
        category: Option<Category>,
        #[command(flatten)]
        time: NewTime,
    },
    /// Take events out of the schedule; one that has fired cannot be cancelled
    Cancel {
        /// As `notifyx events ls` shows them
        #[arg(required = true, value_name = "ID", value_parser = id)]
        ids: Vec<EventId>,
        /// Their category, where several have the id
        #[arg(long, value_parser = category)]
        category: Option<Category>,
    },
    /// Show the queues of categories: how full, how far ahead, how late
    Queues {
        /// Only these
        #[arg(value_name = "CATEGORY", value_parser = category)]
        categories: Vec<Category>,
    },
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Post {
    /// The category
    #[arg(value_parser = category, required_unless_present = "file")]
    pub(crate) category: Option<Category>,
    /// JSON, or a text; `-` reads it from standard input
    #[arg(required_unless_present = "file")]
    pub(crate) data: Option<String>,
    /// When it fires [default: now]
    #[arg(long, value_name = "TIME", value_parser = when::at, conflicts_with_all = ["within", "file"])]
    pub(crate) at: Option<Timestamp>,
    /// After what time it fires, such as 10m, 1h30m or 2 days
    #[arg(long = "in", value_name = "SPAN", value_parser = when::after, conflicts_with = "file")]
    pub(crate) within: Option<Timestamp>,
    /// Makes the post safe to repeat: an id that was seen before is that event
    #[arg(long, value_parser = id, conflicts_with = "file")]
    pub(crate) id: Option<EventId>,
    /// 0 (least) to 9 (most urgent) [default: 4]
    #[arg(long, value_name = "N", value_parser = priority, conflicts_with = "file")]
    pub(crate) priority: Option<Priority>,
    /// What it is about, 1 to 255 bytes
    #[arg(long, conflicts_with = "file")]
    pub(crate) key: Option<String>,
    /// Post events from a file, one JSON object per line; `-` is standard input
    #[arg(long, value_name = "NDJSON", value_hint = ValueHint::FilePath, conflicts_with_all = ["category", "data"])]
    pub(crate) file: Option<String>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ListEvents {
    #[arg(value_parser = category)]
    pub(crate) category: Category,
    /// What fired, by offset, instead of what waits
    #[arg(long)]
    pub(crate) fired: bool,
    /// Of what fired: from behind this offset on
    #[arg(long, value_name = "OFFSET", requires = "fired")]
    pub(crate) after: Option<u64>,
    /// Of what waits: only what is about this
    #[arg(long, conflicts_with = "fired")]
    pub(crate) key: Option<String>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) limit: u32,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Stream {
    #[arg(value_parser = category)]
    pub(crate) category: Category,
    /// Begin with this number of what fired; at most the newest 1,000 are replayed [default: with what comes]
    #[arg(long, value_name = "N")]
    pub(crate) from: Option<u64>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct OneEvent {
    #[arg(value_parser = id)]
    pub(crate) id: EventId,
    /// Its category, where several have the id
    #[arg(long, value_parser = category)]
    pub(crate) category: Option<Category>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Schedules {
    #[command(subcommand)]
    pub(crate) action: SchedulesAction,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum SchedulesAction {
    /// Make a recurring schedule
    #[command(after_help = "\
`--every` counts time that has passed. `--cron` follows the clocks of `--time-zone`: a time that they skip in spring comes when they
have been put forward, one that comes twice in autumn comes the first time.

Examples:
  notifyx schedules create heartbeat --every 30s
  notifyx schedules create reports '{\"kind\": \"daily\"}' --cron '0 9 * * MON-FRI' --time-zone Europe/Berlin --id daily
  notifyx schedules create offers --every 7d --start 'monday 8:00' --count 4")]
    Create(CreateSchedule),
    /// List schedules
    Ls {
        /// Only of this category
        #[arg(long, value_parser = category)]
        category: Option<Category>,
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000))]
        limit: u32,
    },
    /// Show a schedule
    Get {
        #[arg(value_parser = id)]
        id: EventId,
    },
    /// Make no more of its events until it is resumed
    Pause {
        #[arg(value_parser = id)]
        id: EventId,
    },
    /// Go on with a schedule that is paused
    Resume {
        #[arg(value_parser = id)]
        id: EventId,
    },
    /// Fire one event of a schedule now, beside its rule
    Run {
        #[arg(value_parser = id)]
        id: EventId,
    },
    /// Take schedules away, with what of them waits; what fired stays in the log
    Rm {
        #[arg(required = true, value_name = "ID", value_parser = id)]
        ids: Vec<EventId>,
    },
}

#[derive(Clone, Debug, Args)]
pub(crate) struct CreateSchedule {
    /// The category of its events
    #[arg(value_parser = category)]
    pub(crate) category: Category,
    /// The data of its events: JSON, or a text; `-` reads it from standard input [default: null]
    pub(crate) data: Option<String>,
    /// The time between two occurrences, such as 30s, 1h30m or 7d
    #[arg(long, value_name = "SPAN", value_parser = span, required_unless_present = "cron", conflicts_with = "cron")]
    pub(crate) every: Option<GivenSpan>,
    /// 5 fields, or 6 with seconds first
    #[arg(long, value_name = "EXPRESSION")]
    pub(crate) cron: Option<String>,
    /// Of --cron: an IANA name such as Europe/Berlin [default: UTC]
    #[arg(long, value_name = "ZONE", requires = "cron", conflicts_with = "every")]
    pub(crate) time_zone: Option<String>,
    /// No occurrence before, in the words of `notifyx events post --at`
    #[arg(long, value_name = "TIME", value_parser = given)]
    pub(crate) start: Option<GivenTime>,
    /// No occurrence after
    #[arg(long, value_name = "TIME", value_parser = given)]
    pub(crate) end: Option<GivenTime>,
    /// Occurrences in all
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) count: Option<u64>,
    /// What becomes of occurrences that were missed: `fire-all`, `fire-last` or `skip`
    #[arg(long, value_name = "WHAT", default_value = "fire-last", value_parser = on_missed)]
    pub(crate) on_missed: OnMissed,
    /// Makes the command safe to repeat: the same id with the same rule is the same schedule
    #[arg(long, value_parser = id)]
    pub(crate) id: Option<EventId>,
    /// 0 (least) to 9 (most urgent) [default: 4]
    #[arg(long, value_name = "N", value_parser = priority)]
    pub(crate) priority: Option<Priority>,
    /// What its events are about, 1 to 255 bytes
    #[arg(long)]
    pub(crate) key: Option<String>,
}

pub(crate) use notifyx_wire::rest::events::schedules::OnMissed;

fn category(text: &str) -> Result<Category, String> {
    Category::parse(text).map_err(|error| error.to_string())
}

fn id(text: &str) -> Result<EventId, String> {
    EventId::parse(text).map_err(|error| error.to_string())
}

fn span(text: &str) -> Result<GivenSpan, String> {
    let span: GivenSpan = text.parse().expect("whatever it is, it is a text");
    span.duration("the span", GivenTime::AHEAD_MAX).map_err(|error| error.to_string())?;
    Ok(span)
}

fn given(text: &str) -> Result<GivenTime, String> {
    when::moment(text).map(|at| GivenTime::Text(at.to_string()))
}

fn on_missed(text: &str) -> Result<OnMissed, String> {
    match text.replace('_', "-").as_str() {
        "fire-all" => Ok(OnMissed::FireAll),
        "fire-last" => Ok(OnMissed::FireLast),
        "skip" => Ok(OnMissed::Skip),
        _ => Err("it is none of fire-all, fire-last, skip".into()),
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Command, CommandLine, UserCommand};

    fn parse(line: &[&str]) -> Result<Command, clap::Error> {
        CommandLine::try_parse_from([&["notifyx"], line].concat()).map(|line| line.command)
    }

    #[test]
    fn without_an_action_it_is_the_service() {
        for line in [&["events"][..], &["events", "--discovery", "http://127.0.0.1:1", "--port", "0"]] {
            let Command::Events(events) = parse(line).unwrap() else { panic!("{line:?}") };
            assert!(events.action.is_none(), "{line:?}");
        }
        let Command::Events(events) = parse(&["events", "post", "c", "1", "--in", "10m"]).unwrap() else { panic!() };
        assert!(matches!(events.action, Some(EventsAction::Post(Post { within: Some(_), .. }))));
    }

    #[test]
    fn what_does_not_go_together_is_a_usage_error() {
        for line in [
            &["events", "post"][..],
            &["events", "post", "c"],
            &["events", "post", "a/b", "1"],
            &["events", "post", "c", "1", "--at", "soon"],
            &["events", "post", "c", "1", "--at", "9:00", "--in", "10m"],
            &["events", "post", "c", "1", "--id", "a b"],
            &["events", "post", "c", "1", "--file", "f"],
            &["events", "post", "--file", "f", "--at", "9:00"],
            &["events", "--port", "0", "post", "c", "1"],
            &["events", "ls"],
            &["events", "ls", "c", "--after", "7"],
            &["events", "ls", "c", "--key", "k", "--fired"],
            &["events", "reschedule", "a"],
            &["events", "reschedule", "--in", "10m"],
            &["events", "reschedule", "a", "--at", "9:00", "--in", "10m"],
            &["events", "reschedule", "a", "--at", "soon"],
            &["events", "cancel"],
            &["schedules"],
            &["schedules", "create", "c"],
            &["schedules", "create", "c", "--every", "1s", "--cron", "* * * * *"],
            &["schedules", "create", "c", "--every", "soon"],
            &["schedules", "create", "c", "--every", "1s", "--time-zone", "UTC"],
            &["schedules", "create", "c", "--every", "1s", "--on-missed", "all"],
            &["schedules", "create", "c", "--every", "1s", "--count", "0"],
            &["schedules", "rm"],
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line:?}");
        }
        let line =
            ["schedules", "create", "c", "--cron", "0 9 * * *", "--start", "tomorrow 8:00", "--on-missed", "fire_all"];
        let Command::User(UserCommand::Schedules(_)) = parse(&line).unwrap() else { panic!() };
    }
}

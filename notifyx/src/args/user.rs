//! What users ask on the command line. Names, addresses and bounds are checked here, before anything is sent.

use clap::{Args, Subcommand};
use notifyx_model::{Email, Message, NotificationId, Priority, Timestamp, TopicName};

use super::{Keys, Scheduled, Schedules};
use crate::user::{recipient::Recipient, when};

#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Open an account
    #[command(after_help = PASSWORD_HELP)]
    Register(Account),
    /// Log in; the session is kept for the commands that follow
    #[command(after_help = PASSWORD_HELP)]
    Login(Account),
    /// End the session, here and at the server
    Logout,
    /// List topics, or create one
    Topics(Topics),
    /// Publish a message to a topic that you created
    #[command(after_help = "\
Examples:
  notifyx publish billing 'The invoices are out'
  notifyx publish billing 'Yours is late' --to bob@example.org --priority 8
  notifyx publish billing 'Pay until noon' --in 1h30m
  notifyx publish billing 'Pay today' --at 'tomorrow 9:00'
  generate-report | notifyx publish reports -")]
    Publish(Publish),
    /// List, look at, move and cancel what you have scheduled with `publish --at` or `--in`
    Scheduled(Scheduled),
    /// Subscribe to topics and print what is published, live; a topic that does not exist is created, and yours
    #[command(after_help = "\
The subscription outlives the command: the inbox goes on filling until `notifyx unsubscribe`.

Examples:
  notifyx subscribe billing
  notifyx subscribe billing alerts --from 1    with what was published before
  notifyx subscribe billing --json | jq -r .message")]
    Subscribe(Subscribe),
    /// End the subscription to a topic
    Unsubscribe {
        /// The topic's name
        #[arg(value_parser = topic)]
        topic: TopicName,
    },
    /// List what was published to you, newest first
    Inbox(Inbox),
    /// Mark notifications of your inbox as seen
    Seen {
        /// As `notifyx inbox` shows them
        #[arg(required = true, value_name = "ID")]
        ids: Vec<NotificationId>,
    },
    /// Make, list and revoke API keys: what your services show instead of your session
    #[command(after_help = "\
A key does what its scopes say, for you, and nothing else. It is printed once, when it is made. This program shows one with
--api-key-file, or from the variable NOTIFYX_API_KEY.

Examples:
  notifyx keys create --name shop --scope publish:orders.* subscribe:payments
  KEY=$(notifyx keys create --name nightly --scope 'publish:*' --expires 90d)
  notifyx keys revoke 0199f3a2-7c1e-7d3a-9b42-5a0c1d2e3f40")]
    Keys(Keys),
    /// Make events recur: every so often, or by a calendar's rule
    #[command(after_help = "\
Examples:
  notifyx schedules create heartbeat --every 30s
  notifyx schedules create reports --cron '0 9 * * MON-FRI' --time-zone Europe/Berlin
  notifyx schedules ls")]
    Schedules(Schedules),
    /// Show how the platform is: services, instances, breakers
    Status,
}

const PASSWORD_HELP: &str = "\
The password is asked for on the terminal, read from standard input with --password-stdin, or taken from the
variable NOTIFYX_PASSWORD; never from the command line, where others can see it.

Examples:
  notifyx login ann@example.org
  pass show notifyx | notifyx login ann@example.org --password-stdin";

#[derive(Clone, Debug, Args)]
pub(crate) struct Account {
    /// Your e-mail address
    #[arg(value_parser = email)]
    pub(crate) email: Email,
    /// Read the password from standard input, up to the end of the first line
    #[arg(long)]
    pub(crate) password_stdin: bool,
}

#[derive(Clone, Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Topics {
    #[command(subcommand)]
    pub(crate) action: Option<TopicsAction>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) limit: u32,
}

#[derive(Clone, Debug, Subcommand)]
pub(crate) enum TopicsAction {
    /// Create a topic; only you will publish to it
    Create {
        /// 1 to 200 bytes
        #[arg(value_parser = topic)]
        topic: TopicName,
        /// How long a notification is kept [default: for ever]
        #[arg(long, value_name = "SECONDS")]
        longevity: Option<u64>,
    },
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Publish {
    /// The topic's name
    #[arg(value_parser = topic)]
    pub(crate) topic: TopicName,
    /// The text, or `-` to read it from standard input
    #[arg(value_parser = text)]
    pub(crate) message: Text,
    /// Only for these subscribers, by e-mail address or id [default: all]
    #[arg(long, value_name = "USER", num_args = 1..)]
    pub(crate) to: Vec<Recipient>,
    /// 0 (least) to 9 (most urgent) [default: 4]
    #[arg(long, value_name = "N", value_parser = priority)]
    pub(crate) priority: Option<Priority>,
    /// Makes the publish safe to repeat: the same key and message are one notification
    #[arg(long, value_parser = key)]
    pub(crate) key: Option<String>,
    /// Not now, but at this time, such as `tomorrow 9:00`, `2026-12-24 18:00` or RFC 3339; up to ten years ahead
    #[arg(long, value_name = "TIME", value_parser = when::at)]
    pub(crate) at: Option<Timestamp>,
    /// Not now, but after this time, such as 10m, 1h30m or 2 days
    #[arg(long = "in", value_name = "SPAN", conflicts_with = "at", value_parser = when::after)]
    pub(crate) within: Option<Timestamp>,
}

/// A message given on the command line, or the wish to read it.
#[derive(Clone, Debug)]
pub(crate) enum Text {
    Given(Message),
    Stdin,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Subscribe {
    /// Names of topics
    #[arg(required = true, value_name = "TOPIC", value_parser = topic)]
    pub(crate) topics: Vec<TopicName>,
    /// First print what was published from this offset on (1 is the oldest; where that is much, the newest 900)
    #[arg(long, value_name = "OFFSET")]
    pub(crate) from: Option<u64>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct Inbox {
    /// Only what was not seen yet
    #[arg(long)]
    pub(crate) unread: bool,
    /// Only of this topic
    #[arg(long, value_parser = topic)]
    pub(crate) topic: Option<TopicName>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) limit: u32,
}

fn topic(text: &str) -> Result<TopicName, String> {
    TopicName::parse(text).map_err(|error| error.to_string())
}

fn email(text: &str) -> Result<Email, String> {
    Email::parse(text).map_err(|error| error.to_string())
}

fn text(text: &str) -> Result<Text, String> {
    if text == "-" {
        return Ok(Text::Stdin);
    }
    Message::parse(text).map(Text::Given).map_err(|error| error.to_string())
}

pub(super) fn priority(text: &str) -> Result<Priority, String> {
    let level = text.parse::<u8>().map_err(|_| "a priority is a number from 0 to 9".to_owned())?;
    Priority::try_from(level).map_err(|error| error.to_string())
}

/// It travels in a header.
fn key(text: &str) -> Result<String, String> {
    let sane = (1..=128).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    if sane { Ok(text.to_owned()) } else { Err("a key is 1 to 128 visible ASCII characters".into()) }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::args::{Command, CommandLine};

    fn publish(line: &str) -> Publish {
        match CommandLine::try_parse_from(line.split(' ')).unwrap().command {
            Command::User(UserCommand::Publish(publish)) => publish,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn recipients_follow_one_flag_or_several() {
        for line in ["notifyx publish t m --to a@b.c d@e.f", "notifyx publish t m --to a@b.c --to d@e.f"] {
            assert_eq!(publish(line).to.len(), 2, "{line}");
        }
    }

    #[test]
    fn a_dash_reads_the_message() {
        assert!(matches!(publish("notifyx publish t -").message, Text::Stdin));
    }
}

//! The command line, in the words of `--help`: what is global, and what serves. What users ask is in [`user`].

use std::{net::IpAddr, path::PathBuf};

use clap::{ArgAction, Args, Parser, Subcommand, ValueHint};
use notifyx_database::DatabaseUrl;
use url::Url;

pub(crate) use self::{
    events::{CreateSchedule, Events, EventsAction, ListEvents, Post, Schedules, SchedulesAction, Stream},
    keys::{Keys, KeysAction},
    new_time::NewTime,
    operator::{Transactions, TransactionsAction},
    scheduled::{Scheduled, ScheduledAction},
    user::{Account, Inbox, Publish, Subscribe, Text, Topics, TopicsAction, UserCommand},
};
use crate::{base_url::BaseUrl, exit};

mod events;
mod keys;
mod new_time;
mod operator;
mod scheduled;
mod user;

/// Publish once: it reaches every subscriber.
///
/// One program: the platform, each of its services, and the command line for its users.
#[derive(Debug, Parser)]
#[command(name = "notifyx", version, propagate_version = true, max_term_width = 100, after_long_help = exit::CODES)]
pub(crate) struct CommandLine {
    #[command(subcommand)]
    pub(crate) command: Command,
    #[command(flatten)]
    pub(crate) global: Global,
}

#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Global {
    /// Print one JSON object per line, for scripts
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// No colours (also: the variable `NO_COLOR`, or an output that is no terminal)
    #[arg(long, global = true)]
    pub(crate) no_color: bool,
    /// The platform to talk to [default: where you are logged in, else `http://127.0.0.1:4000`]
    #[arg(long, global = true, value_name = "URL", env = "NOTIFYX_SERVER", value_parser = server, value_hint = ValueHint::Url)]
    pub(crate) server: Option<BaseUrl>,
    /// Show the API key on this file's first line instead of your session, with `events`, `schedules` and `keys self` (also: the key
    /// itself in the variable `NOTIFYX_API_KEY`)
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub(crate) api_key_file: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start the whole platform in this process
    #[command(after_help = "\
Examples:
  notifyx up                                   on http://127.0.0.1:4000, data in ./data
  notifyx up --port 0 --data /tmp/second       a second one, on free ports
  notifyx up --database postgres://me@db/notifyx
  notifyx up --json | head -n 1                where everything listens, for a script")]
    Up {
        #[command(flatten)]
        placement: Placement,
        #[command(flatten)]
        entry: Entry,
    },
    /// Start the gateway alone: sockets and REST for users
    Gateway {
        #[command(flatten)]
        service: OneService,
        #[command(flatten)]
        entry: Entry,
    },
    /// Start auth alone: accounts and sessions
    Auth(OneService),
    /// Start persist alone: topics, notifications, inboxes
    Persist(OneService),
    /// Start counter-2pc alone: counts of what was published
    #[command(name = "counter-2pc")]
    Counter2pc(OneService),
    /// Post events for their time, list, move and cancel them; without a command: start the events service alone
    #[command(after_help = "\
Examples:
  notifyx events post reminders 'Stand-up' --at 'tomorrow 9:00'
  notifyx events post orders '{\"id\": 7}' --in 10m
  notifyx events ls orders
  notifyx events --discovery http://127.0.0.1:8000     start the service: the log of what happened, the schedule of what will")]
    Events(Events),
    /// Start discovery alone: the registry of services
    Discovery(OneService),
    /// Print the effective configuration, each value with where it came from
    #[command(after_help = "\
Examples:
  notifyx config --default > notifyx.toml      a commented file to begin with
  notifyx config --config notifyx.toml         check it
  NOTIFYX_GATEWAY__LISTEN=0.0.0.0:80 notifyx config")]
    Config(ShowConfig),
    /// Look after two-phase commits: list, show, retry, resolve (for operators)
    #[command(
        name = "2pc",
        after_help = "\
Operators show the secret of the cluster: --secret-file, NOTIFYX_CLUSTER__SECRET, `secret` under [cluster] in the --config
file, or what `notifyx up` keeps in its data folder; the first that is there, in this order (--data goes before all).

Examples:
  notifyx 2pc ls                               what is open, oldest first
  notifyx 2pc ls --state quarantined --data /var/lib/notifyx
  notifyx 2pc show 0199f3a2-7c1e-7d3a-9b42-5a0c1d2e3f40
  notifyx 2pc retry 0199f3a2-7c1e-7d3a-9b42-5a0c1d2e3f40
  notifyx 2pc resolve 0199f3a2-7c1e-7d3a-9b42-5a0c1d2e3f40 --outcome mixed --reason 'ticket 7: persist was restored'"
    )]
    Transactions(Transactions),
    #[command(flatten)]
    User(UserCommand),
    /// Print a completion script for a shell
    #[command(after_help = "\
Examples:
  notifyx completions bash > ~/.local/share/bash-completion/completions/notifyx
  notifyx completions fish > ~/.config/fish/completions/notifyx.fish")]
    Completions { shell: clap_complete::Shell },
}

/// Which configuration there is, and what the command line changes in it.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct Placement {
    /// A TOML file with settings (see `notifyx config --default`)
    #[arg(long, value_name = "FILE", env = "NOTIFYX_CONFIG", value_hint = ValueHint::FilePath)]
    pub(crate) config: Option<PathBuf>,
    /// The address users connect to; `0.0.0.0` is every network of this machine
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<IpAddr>,
    /// The port users connect to; inner services keep theirs, unless it is 0: then the system chooses every port
    #[arg(long, value_name = "PORT")]
    pub(crate) port: Option<u16>,
    /// The folder for SQLite databases, one file per service [default: data]
    #[arg(long, value_name = "DIR", conflicts_with = "database", value_hint = ValueHint::DirPath)]
    pub(crate) data: Option<PathBuf>,
    /// Keep everything in one PostgreSQL server, a database per service: `postgres://user@host/NAME`
    #[arg(long, value_name = "URL", value_parser = DatabaseUrl::parse)]
    pub(crate) database: Option<DatabaseUrl>,
}

/// Whom the gateway lets in.
#[derive(Clone, Copy, Debug, Default, Args)]
pub(crate) struct Entry {
    /// Anybody may publish and listen to events, without credentials
    #[arg(long)]
    pub(crate) anonymous: bool,
}

#[derive(Clone, Debug, Args)]
#[command(after_help = "\
The services of one platform share a secret: NOTIFYX_CLUSTER__SECRET, or `secret` under [cluster] in the file.

Examples:
  export NOTIFYX_CLUSTER__SECRET=$(openssl rand -hex 32)
  notifyx discovery &
  notifyx auth --database postgres://me@db/notifyx --discovery http://127.0.0.1:8000")]
pub(crate) struct OneService {
    #[command(flatten)]
    pub(crate) placement: Placement,
    /// Where the registry is [default: `http://127.0.0.1:8000`]
    #[arg(long, value_name = "URL", action = ArgAction::Append)]
    pub(crate) discovery: Vec<BaseUrl>,
}

#[derive(Clone, Debug, Args)]
pub(crate) struct ShowConfig {
    /// Print the commented defaults instead
    #[arg(long, conflicts_with_all = ["config", "listen", "port", "data", "database", "anonymous"])]
    pub(crate) default: bool,
    #[command(flatten)]
    pub(crate) placement: Placement,
    #[command(flatten)]
    pub(crate) entry: Entry,
}

/// `host:port` is taken for `http://host:port`.
fn server(text: &str) -> Result<BaseUrl, String> {
    if text.contains("://") || Url::parse(&format!("http://{text}")).is_err() {
        return BaseUrl::parse(text);
    }
    BaseUrl::parse(&format!("http://{text}"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<CommandLine, clap::Error> {
        CommandLine::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_command_line_is_consistent() {
        CommandLine::command().debug_assert();
    }

    #[test]
    fn out_of_bounds_is_a_usage_error() {
        for line in [
            "notifyx publish t m --priority 10",
            "notifyx publish t m --to nobody",
            "notifyx up --port 70000",
            "notifyx up --data d --database postgres://h/n",
            "notifyx up --database mysql://h/n",
            "notifyx seen 7",
            "notifyx seen",
            "notifyx inbox --limit 0",
            "notifyx status --server ftp://h",
            "notifyx config --default --port 1",
            "notifyx config --default --anonymous",
            "notifyx auth --anonymous",
            "notifyx keys",
            "notifyx keys create --name shop",
            "notifyx keys create --name shop --scope delete:orders",
            "notifyx keys create --name shop --scope publish:or*ders",
            "notifyx keys create --name shop --scope publish:a --expires 90",
            "notifyx keys create --scope publish:a",
            "notifyx keys revoke",
            "notifyx keys revoke 7",
            "notifyx scheduled move 7",
            "notifyx scheduled move 7 --at 9:00 --in 10m",
            "notifyx 2pc",
            "notifyx 2pc ls --state odd",
            "notifyx 2pc ls --limit 0",
            "notifyx 2pc show 7",
            "notifyx 2pc resolve 0199f3a2-7c1e-7d3a-9b42-5a0c1d2e3f40 --outcome odd --reason r --operator o",
            "notifyx 2pc resolve 0199f3a2-7c1e-7d3a-9b42-5a0c1d2e3f40 --outcome mixed --operator o",
            "notifyx 2pc resolve 0199f3a2-7c1e-7d3a-9b42-5a0c1d2e3f40 --outcome mixed --reason r --operator ",
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
        let long = "t".repeat(300);
        assert!(
            parse(&format!("notifyx subscribe {long}"))
                .unwrap_err()
                .to_string()
                .contains("has 300 bytes, more than 200")
        );
    }

    #[test]
    fn a_server_without_a_scheme_is_http() {
        for line in ["notifyx status --server example.org:80", "notifyx --server http://example.org/ status"] {
            assert_eq!(parse(line).unwrap().global.server.unwrap().as_str(), "http://example.org", "{line}");
        }
    }
}

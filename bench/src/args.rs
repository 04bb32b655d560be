//! The command line.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use clap::{Args, Parser, Subcommand};

use crate::{
    error::Error, events::Events, fanout::Fanout, machine::pin_to, notifyx::Notifyx, postgres::Postgres,
    process::Process, publish::Publish,
};

/// Measures a running Notifyx, beside yardsticks in the same run.
#[derive(Debug, Parser)]
#[command(name = "notifyx-bench", version, max_term_width = 100)]
pub(crate) struct CommandLine {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// Print one JSON object
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Deliveries of one topic's messages to many sockets
    #[command(after_help = "\
Examples:
  notifyx-bench fanout --notifyx target/release/notifyx --pin --yardstick
  notifyx-bench fanout --server 127.0.0.1:4000 --pid $(pgrep -x notifyx) --sockets 1000 --in-flight 1")]
    Fanout(Fanout),
    /// Publishes through two-phase commit
    #[command(after_help = "\
Examples:
  notifyx-bench publish --notifyx target/release/notifyx --postgres --yardstick
  notifyx-bench publish --server 127.0.0.1:4000 --publishers 1,64 --seconds 10 --json")]
    Publish(Publish),
    /// Events that fire at their time
    #[command(after_help = "\
Examples:
  notifyx-bench events --notifyx target/release/notifyx --postgres --peers
  notifyx-bench events --notifyx target/release/notifyx --waiting 0 --rates 100 --categories 1 --clients 1000")]
    Events(Events),
    /// The yardstick's server: started by `fanout --yardstick`
    #[command(hide = true)]
    PlainServer,
}

/// Which platform is measured.
#[derive(Clone, Debug, Args)]
pub(crate) struct Measured {
    /// Start this program's `up` on free ports and an empty folder, and stop it afterwards
    #[arg(long, value_name = "PROGRAM", conflicts_with_all = ["server", "pid"])]
    pub(crate) notifyx: Option<PathBuf>,
    /// Measure the gateway at this address
    #[arg(long, value_name = "ADDR")]
    pub(crate) server: Option<SocketAddr>,
    /// Its process, for CPU and memory
    #[arg(long, value_name = "PID", requires = "server")]
    pub(crate) pid: Option<Process>,
    /// Where the started platform keeps its data, and the yardstick of the disk its file [default: the system's temporary folder]
    #[arg(long, value_name = "DIR")]
    pub(crate) data: Option<PathBuf>,
    /// Servers on core 0, the client on core 1: per-core figures
    #[arg(long)]
    pub(crate) pin: bool,
}

impl Measured {
    pub(crate) fn is_some(&self) -> bool {
        self.notifyx.is_some() || self.server.is_some()
    }

    /// The platform, started if it is to be; `None` where no one was named.
    pub(crate) fn find(&self, core: Option<usize>) -> Result<Option<Notifyx>, Error> {
        match (&self.notifyx, self.server) {
            (Some(program), _) => Notifyx::start(program, core, self.data.as_deref(), None).map(Some),
            (None, Some(gateway)) => Ok(Some(Notifyx::running(gateway, self.pid))),
            (None, None) => Ok(None),
        }
    }
}

/// Which PostgreSQL server.
#[derive(Clone, Debug)]
pub(crate) enum Which {
    Own,
    At(String),
}

/// As `--postgres` says it.
pub(crate) fn which(text: &str) -> Result<Which, String> {
    match text {
        "own" => Ok(Which::Own),
        _ if ["postgres://", "postgresql://"].iter().any(|scheme| text.starts_with(scheme)) => {
            Ok(Which::At(text.to_owned()))
        }
        _ => Err("not a server's URL: postgres://user@host".into()),
    }
}

impl Which {
    /// An own one's processes are held to the core they are started on.
    pub(crate) fn start(&self, data: Option<&Path>, pin: bool) -> Result<Postgres, Error> {
        match self {
            Self::At(url) => Ok(Postgres::running(url)),
            Self::Own => {
                if pin {
                    pin_to(0)?;
                }
                Postgres::start(data)
            }
        }
    }
}

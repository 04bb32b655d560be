//! The load generator: how fast Notifyx is, told beside what the machine can do in the same run.

mod args;
mod connect;
mod crowd;
mod disk;
mod error;
mod events;
mod fanout;
mod flight;
mod frame;
mod http;
mod latency;
mod machine;
mod notifyx;
mod payload;
mod plain;
mod postgres;
mod process;
mod publish;
mod target;
mod yardstick;

use std::{fmt::Display, process::ExitCode};

use clap::Parser;
use serde::Serialize;

use crate::{
    args::{Command, CommandLine},
    error::Error,
};

fn main() -> ExitCode {
    let CommandLine { command, json } = CommandLine::parse();
    match run(&command, json) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("notifyx-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: &Command, json: bool) -> Result<(), Error> {
    match command {
        Command::Fanout(args) => tell(&runtime()?.block_on(fanout::run(args))?, json),
        Command::Publish(args) => tell(&runtime()?.block_on(publish::run(args))?, json),
        Command::Events(args) => tell(&runtime()?.block_on(events::run(args))?, json),
        Command::PlainServer => plain::serve(),
    }
}

/// One thread: what publishes is to leave the cores to the server.
fn runtime() -> Result<tokio::runtime::Runtime, Error> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::io("starting the runtime"))
}

fn tell(report: &(impl Display + Serialize), json: bool) -> Result<(), Error> {
    if json {
        println!("{}", serde_json::to_string(report).map_err(Error::failed)?);
    } else {
        println!("{report}");
    }
    Ok(())
}

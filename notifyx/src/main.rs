//! The one program: `notifyx up` and `notifyx <service>` serve, the other commands are for users.

mod args;
mod base_url;
mod cluster;
mod config;
mod exit;
mod platform;
mod service;
mod settings;
mod signals;
mod telemetry;
mod up;
mod user;

use std::{io::Write, process::ExitCode};

use clap::{CommandFactory, Parser};

use crate::{
    args::{Command, CommandLine, Entry, Events, Global, ShowConfig},
    exit::Failure,
    service::Service,
    settings::Loaded,
    user::print::{self, Output},
};

fn main() -> ExitCode {
    let CommandLine { command, global } = CommandLine::parse();
    match run(command, &global) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(global.json),
    }
}

fn run(command: Command, global: &Global) -> Result<(), Failure> {
    match command {
        Command::Up { placement, entry } => up::up(&placement, entry, global),
        Command::Gateway { service, entry } => up::one(Service::Gateway, &service, entry, global),
        Command::Auth(args) => up::one(Service::Auth, &args, Entry::default(), global),
        Command::Persist(args) => up::one(Service::Persist, &args, Entry::default(), global),
        Command::Counter2pc(args) => up::one(Service::Counter2pc, &args, Entry::default(), global),
        Command::Events(Events { action: Some(action), .. }) => user::events(action, global),
        Command::Events(Events { action: None, service }) => {
            up::one(Service::Events, &service, Entry::default(), global)
        }
        Command::Discovery(args) => up::one(Service::Discovery, &args, Entry::default(), global),
        Command::Config(show) => config(&show, global),
        Command::Completions { shell } => completions(shell),
        Command::Transactions(wish) => user::operate(&wish, global),
        Command::User(command) => user::run(command, global),
    }
}

fn config(show: &ShowConfig, global: &Global) -> Result<(), Failure> {
    let output = Output::new(global.json, global.no_color);
    if show.default {
        return print::line(settings::defaults().trim_end());
    }
    let loaded = Loaded::up(&show.placement, show.entry).map_err(|refused| Failure::Usage(refused.to_string()))?;
    output.answer(&loaded.settings, || loaded.describe().trim_end().to_owned())
}

fn completions(shell: clap_complete::Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut CommandLine::command(), "notifyx", &mut script);
    std::io::stdout().write_all(&script).map_err(Failure::machine("standard output"))
}

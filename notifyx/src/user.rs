//! The commands for users and operators: each is one file, which says what it asks the gateway and how it shows the answer.

pub(crate) mod account;
pub(crate) mod client;
pub(crate) mod events;
pub(crate) mod follow;
pub(crate) mod inbox;
pub(crate) mod keys;
pub(crate) mod live;
pub(crate) mod password;
pub(crate) mod pause;
pub(crate) mod print;
pub(crate) mod publish;
pub(crate) mod recipient;
pub(crate) mod scheduled;
pub(crate) mod schedules;
pub(crate) mod session;
pub(crate) mod status;
pub(crate) mod stream;
pub(crate) mod subscribe;
pub(crate) mod topics;
pub(crate) mod transactions;
pub(crate) mod when;

use crate::{
    args::{EventsAction, Global, Transactions, UserCommand},
    exit::Failure,
};
use client::Client;
use print::Output;

/// Runs a command of an operator to its end.
pub(crate) fn operate(wish: &Transactions, global: &Global) -> Result<(), Failure> {
    let output = Output::new(global.json, global.no_color);
    let secret = wish.secret.find()?;
    let client = Client::of_operator(global.server.clone(), session::Store::open()?, secret)?;
    runtime()?.block_on(transactions::run(&client, output, &wish.action))
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Failure::machine("cannot start"))
}

/// Runs a command about events to its end: its word is a service's, too.
pub(crate) fn events(action: EventsAction, global: &Global) -> Result<(), Failure> {
    let output = Output::new(global.json, global.no_color);
    let client = Client::new(global.server.clone(), session::Store::open()?)?;
    runtime()?.block_on(events::run(&client, output, action))
}

/// Runs a command of a user to its end.
pub(crate) fn run(command: UserCommand, global: &Global) -> Result<(), Failure> {
    let output = Output::new(global.json, global.no_color);
    runtime()?.block_on(async {
        let client = Client::new(global.server.clone(), session::Store::open()?)?;
        match command {
            UserCommand::Register(account) => account::register(&client, output, &account).await,
            UserCommand::Login(account) => account::login(&client, output, &account).await,
            UserCommand::Logout => account::logout(&client, output).await,
            UserCommand::Topics(topics) => topics::run(&client, output, topics).await,
            UserCommand::Publish(publish) => publish::run(&client, output, publish).await,
            UserCommand::Scheduled(wish) => scheduled::run(&client, output, wish).await,
            UserCommand::Subscribe(subscribe) => subscribe::run(&client, output, subscribe).await,
            UserCommand::Unsubscribe { topic } => topics::unsubscribe(&client, output, &topic).await,
            UserCommand::Inbox(inbox) => inbox::list(&client, output, inbox).await,
            UserCommand::Seen { ids } => inbox::seen(&client, output, &ids).await,
            UserCommand::Keys(wish) => keys::run(&client, output, wish).await,
            UserCommand::Schedules(wish) => schedules::run(&client, output, wish.action).await,
            UserCommand::Status => status::run(&client, output).await,
        }
    })
}

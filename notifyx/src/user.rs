//! The commands for users and operators: each is one file, which says what it asks the gateway and how it shows the answer.

pub(crate) mod account;
pub(crate) mod api_key;
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
    args::{EventsAction, Global, Keys, KeysAction, Transactions, UserCommand},
    exit::Failure,
};
use client::Client;
use print::Output;

/// Runs a command of an operator to its end.
pub(crate) fn operate(wish: &Transactions, global: &Global) -> Result<(), Failure> {
    let output = Output::new(global.json, global.no_color);
    without_key(global)?;
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
    let client = with_key(global)?;
    runtime()?.block_on(events::run(&client, output, action))
}

/// Runs a command of a user to its end.
pub(crate) fn run(command: UserCommand, global: &Global) -> Result<(), Failure> {
    let output = Output::new(global.json, global.no_color);
    let client = match &command {
        UserCommand::Schedules(_) | UserCommand::Keys(Keys { action: KeysAction::Own }) => with_key(global)?,
        _ => {
            without_key(global)?;
            Client::new(global.server.clone(), session::Store::open()?)?
        }
    };
    runtime()?.block_on(async {
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

/// For commands that an API key is good for.
fn with_key(global: &Global) -> Result<Client, Failure> {
    let key = api_key::find(global.api_key_file.as_deref())?;
    Client::of_events(global.server.clone(), session::Store::open()?, key)
}

/// For the others. A variable may be there for other commands; a file was named for this one.
fn without_key(global: &Global) -> Result<(), Failure> {
    if global.api_key_file.is_none() {
        return Ok(());
    }
    Err(Failure::Usage(
        "an API key is good for `events`, `schedules` and `keys self`: do this without --api-key-file, as the user who is \
         logged in"
            .into(),
    ))
}

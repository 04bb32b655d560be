//! `notifyx register`, `login` and `logout`.

use notifyx_wire::rest::auth::{Credentials, LoggedIn, Registered};

use super::{
    client::{Call, Client},
    password,
    print::{Output, Style, moment},
    session::Session,
};
use crate::{args::Account, exit::Failure};

pub(crate) async fn register(client: &Client, output: Output, account: &Account) -> Result<(), Failure> {
    warn_if_exposed(client, output);
    let password = password::ask(account.password_stdin, true)?;
    let body = Credentials { email: account.email.clone(), password };
    let registered: Registered = client.read(Call::post("/api/register_user").json(&body).anonymous()).await?;
    output.answer(&registered, || {
        format!("registered {} ({})", output.paint(Style::Strong, &registered.email), registered.id)
    })?;
    output.remark(&format!("next: notifyx login {}", registered.email));
    Ok(())
}

pub(crate) async fn login(client: &Client, output: Output, account: &Account) -> Result<(), Failure> {
    warn_if_exposed(client, output);
    let password = password::ask(account.password_stdin, false)?;
    let body = Credentials { email: account.email.clone(), password };
    let LoggedIn { token, id, email, expires_at, .. } =
        client.read(Call::post("/api/login").json(&body).anonymous()).await?;
    let session = Session { server: client.server().clone(), token, id, email, expires_at };
    client.keep(&session)?;
    // Without the token: output is kept in logs and histories.
    let record =
        serde_json::json!({ "id": id, "email": session.email, "server": session.server, "expires_at": expires_at });
    output.answer(&record, || {
        format!(
            "logged in as {} at {} until {}",
            output.paint(Style::Strong, &session.email),
            session.server,
            moment(expires_at)
        )
    })
}

pub(crate) async fn logout(client: &Client, output: Output) -> Result<(), Failure> {
    let session = client.session()?.clone();
    match client.send(&Call::post("/api/logout")).await {
        // A session that ended already needs no end.
        Ok(_) | Err(Failure::Credentials(_)) => client.forget()?,
        Err(failure) => return Err(failure),
    }
    let record = serde_json::json!({ "email": session.email, "server": session.server, "logged_out": true });
    output
        .answer(&record, || format!("logged out {} at {}", output.paint(Style::Strong, &session.email), session.server))
}

fn warn_if_exposed(client: &Client, output: Output) {
    if client.is_exposed() {
        output
            .remark(&format!("warning: {} is not encrypted: others on the way can read the password", client.server()));
    }
}

//! `notifyx keys create`, `ls`, `self` and `revoke`.

use notifyx_model::{Clock, KeyId, KeyName, Scope, Scopes, Timestamp};
use notifyx_wire::rest::auth::keys::{CreatedKey, Key, KeyIdentity, Keys as Listed, NewKey};

use super::{
    api_key::VARIABLE,
    client::{Call, Client},
    print::{self, Output, Style, moment},
};
use crate::{
    args::{Keys, KeysAction},
    exit::Failure,
};

pub(crate) async fn run(client: &Client, output: Output, wish: Keys) -> Result<(), Failure> {
    match wish.action {
        KeysAction::Create { name, scopes, expires } => create(client, output, name, scopes, expires).await,
        KeysAction::Ls => list(client, output).await,
        KeysAction::Own => own(client, output).await,
        KeysAction::Revoke { ids } => revoke(client, output, &ids).await,
    }
}

/// The key alone goes to standard output: `KEY=$(notifyx keys create …)`.
async fn create(
    client: &Client,
    output: Output,
    name: KeyName,
    scopes: Vec<Scope>,
    ttl_s: Option<u64>,
) -> Result<(), Failure> {
    let scopes = Scopes::new(scopes).map_err(|error| Failure::Usage(error.to_string()))?;
    let new = NewKey { name, scopes, expires_at: None, ttl_s };
    let created: CreatedKey = client.read(Call::post("/api/keys").json(&new)).await?;
    output.answer(&created, || created.key.as_str().to_owned())?;
    let Key { id, name, scopes, expires_at, .. } = &created.about;
    let until = expires_at.map_or("it is revoked".to_owned(), moment);
    output.remark(&format!("`{name}` ({id}) may {scopes} until {until}"));
    output.remark("keep it now: it is not shown again");
    Ok(())
}

async fn list(client: &Client, output: Output) -> Result<(), Failure> {
    let Listed { keys } = client.read(Call::get("/api/keys")).await?;
    if keys.is_empty() {
        output.remark("there are no keys yet: `notifyx keys create --name NAME --scope publish:CATEGORY`");
    } else if !output.json() {
        print::line(&output.paint(Style::Faint, heading()))?;
    }
    let now = Clock::system().now();
    for key in &keys {
        output.answer(key, || row(output, key, now))?;
    }
    Ok(())
}

async fn own(client: &Client, output: Output) -> Result<(), Failure> {
    if !client.shows_key() {
        return Err(Failure::Usage(format!("which key? Name its --api-key-file, or set {VARIABLE}")));
    }
    let key: KeyIdentity = client.read(Call::get("/api/keys/self")).await?;
    output.answer(&key, || {
        let KeyIdentity { key_id, name, email, scopes, expires_at, .. } = &key;
        let until = expires_at.map_or("it is revoked".to_owned(), moment);
        let name = output.paint(Style::Strong, name);
        format!("{name} ({key_id}) may {scopes} for {} until {until}", print::clean(email.as_str()))
    })
}

fn heading() -> String {
    format!("{:<36}  {:<12}  {:<20}  {:<20}  name and scopes", "id", "begins with", "last used", "expires")
}

fn row(output: Output, key: &Key, now: Timestamp) -> String {
    let at = |time: Option<Timestamp>| time.map_or("never".to_owned(), moment);
    let style = if key.expires_at.is_some_and(|at| at <= now) { Style::Bad } else { Style::Faint };
    let expires = output.paint(style, format!("{:<20}", at(key.expires_at)));
    format!(
        "{}  {:<12}  {:<20}  {expires}  {}  {}",
        key.id,
        print::clean(&key.prefix),
        at(key.last_used_at),
        output.paint(Style::Strong, &key.name),
        output.paint(Style::Faint, &key.scopes),
    )
}

async fn revoke(client: &Client, output: Output, ids: &[KeyId]) -> Result<(), Failure> {
    for id in ids {
        client.send(&Call::delete(format!("/api/keys/{id}"))).await?;
        let record = serde_json::json!({ "id": id, "revoked": true });
        output.answer(&record, || format!("revoked {id}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_row_stands_under_its_heading() {
        let key: Key = serde_json::from_value(json!({
            "id": "0199f3a2-7c1e-7d3a-9b42-5a0c1d2e3f40", "name": "shop", "prefix": "nxk_0aB1cD2e",
            "scopes": ["publish:orders.*", "subscribe:paid"], "created_at": "2026-01-01T00:00:00Z",
            "last_used_at": "2026-01-02T03:04:05Z", "expires_at": null,
        }))
        .unwrap();
        let output = Output::new(false, true);
        assert_eq!(
            format!("{}\n{}", heading(), row(output, &key, key.created_at)),
            "id                                    begins with   last used             expires               name and scopes\n\
             0199f3a2-7c1e-7d3a-9b42-5a0c1d2e3f40  nxk_0aB1cD2e  2026-01-02 03:04:05Z  never                 shop  publish:orders.* subscribe:paid"
        );
    }
}

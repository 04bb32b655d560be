//! Channels as a Phoenix client meets them.

mod catching_up;
mod ending;
mod events;
mod joining;
mod leaving;
mod protocol;
mod publishing;
mod user;

use serde_json::{Value, json};

use crate::testing::Client;

/// Joins `notification:<name>`; answers the reply's response.
async fn joined(client: &Client, name: &str, params: Value) -> Value {
    client.send(&json!(["1", "1", format!("notification:{name}"), "phx_join", params]));
    let reply = client.next().await;
    assert_eq!((&reply[1], &reply[4]["status"]), (&json!("1"), &json!("ok")), "{reply}");
    reply[4]["response"].clone()
}

fn reply(join_ref: &Value, reference: &str, topic: &str, status: &str, response: &Value) -> Value {
    json!([join_ref, reference, topic, "phx_reply", { "status": status, "response": response }])
}

//! `notifyx status`: how the platform is, as its gateway sees it.

use serde_json::Value;

use super::{
    client::{Call, Client},
    print::{Output, Style, clean},
};
use crate::exit::Failure;

pub(crate) async fn run(client: &Client, output: &Output) -> Result<(), Failure> {
    let status: Value = client.read(Call::get("/status")).await?;
    output.answer(&status, || describe(output, &status))
}

fn describe(output: &Output, status: &Value) -> String {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), |text| clean(text).into_owned());
    format!("{} {}", output.paint(Style::Strong, text(&status["service"])), text(&status["version"]))
}

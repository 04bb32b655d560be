//! What the process tells: logs (once per process) and the build's own metric.

use std::io::IsTerminal;

use prometheus::{IntGaugeVec, Opts, Registry};
use serde::{Deserialize, Serialize};
use tracing_subscriber::{EnvFilter, fmt, layer::SubscriberExt, util::SubscriberInitExt};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    #[default]
    Text,
    Json,
}

/// Starts logging to standard error. `filter` is in the form of `RUST_LOG`: `info`, `notifyx_gateway=debug,warn`.
pub fn start(filter: &str, format: Format) -> Result<(), String> {
    let filter = EnvFilter::try_new(filter).map_err(|error| format!("log filter `{filter}`: {error}"))?;
    let registry = tracing_subscriber::registry().with(filter);
    let started = match format {
        Format::Text => {
            // Colour is for people: a file or a pipe gets none.
            let ansi = std::io::stderr().is_terminal();
            registry.with(fmt::layer().with_writer(std::io::stderr).with_target(false).with_ansi(ansi)).try_init()
        }
        Format::Json => registry.with(fmt::layer().json().flatten_event(true).with_writer(std::io::stderr)).try_init(),
    };
    started.map_err(|error| error.to_string())
}

/// `notifyx_build_info{service, version} 1`.
pub(crate) fn build_info(registry: &Registry, service: &str) {
    let info = IntGaugeVec::new(Opts::new("notifyx_build_info", "what runs here"), &["service", "version"])
        .expect("valid name");
    info.with_label_values(&[service, env!("CARGO_PKG_VERSION")]).set(1);
    registry.register(Box::new(info)).expect("one door per registry");
}

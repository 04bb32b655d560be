//! Which settings there are: a section for each service and two for the process, and what the command line changes in them.

use std::fmt::Write;

use notifyx_database::DatabaseUrl;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::{
    args::{Entry, OneService, Placement},
    cluster,
    config::{Layers, Origin, Refused},
    service::Service,
    telemetry,
};

#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    pub(crate) telemetry: telemetry::Config,
    pub(crate) cluster: cluster::Config,
    pub(crate) gateway: notifyx_gateway::Config,
    pub(crate) auth: notifyx_auth::Config,
    pub(crate) persist: notifyx_persist::Config,
    #[serde(rename = "counter-2pc")]
    pub(crate) counter_2pc: notifyx_counter_2pc::Config,
    pub(crate) events: notifyx_events::Config,
    pub(crate) discovery: notifyx_discovery::Config,
}

/// Every section with its commented defaults, in the order in which they are printed.
const SECTIONS: [(&str, &str); 8] = [
    ("telemetry", telemetry::DEFAULTS),
    ("cluster", cluster::DEFAULTS),
    ("gateway", notifyx_gateway::DEFAULTS),
    ("auth", notifyx_auth::DEFAULTS),
    ("persist", notifyx_persist::DEFAULTS),
    ("counter-2pc", notifyx_counter_2pc::DEFAULTS),
    ("events", notifyx_events::DEFAULTS),
    ("discovery", notifyx_discovery::DEFAULTS),
];

const HEAD: &str = "\
# Notifyx: every setting with its default.
#
# A later layer wins: these defaults, the file given with --config, variables NOTIFYX_<SECTION>__<KEY> (two underscores:
# NOTIFYX_COUNTER_2PC__LISTEN), flags. `notifyx config` prints what comes out of it, and where each value came from.
";

/// The commented defaults as one file that `--config` takes.
pub(crate) fn defaults() -> String {
    let mut text = HEAD.to_owned();
    for (section, defaults) in SECTIONS {
        let _ = writeln!(text, "\n[{section}]");
        for line in defaults.lines() {
            // A table within a service's own defaults is one within its section here.
            let _ = match line.strip_prefix('[').filter(|_| !line.starts_with("[[")) {
                Some(table) => writeln!(text, "[{section}.{table}"),
                None => writeln!(text, "{line}"),
            };
        }
    }
    text
}

/// All layers together, and where each value came from.
pub(crate) struct Loaded {
    pub(crate) settings: Settings,
    layers: Layers<Settings>,
}

impl Loaded {
    /// For every service together: the flags place the gateway, `--port 0` every door.
    pub(crate) fn up(placement: &Placement, entry: Entry) -> Result<Self, Refused> {
        let mut loaded = Self::layered(placement, entry)?;
        loaded.place(Service::Gateway, placement);
        if placement.port == Some(0) {
            for service in Service::ALL {
                loaded.place(service, &Placement { port: Some(0), ..Placement::default() });
            }
        }
        for service in Service::ALL {
            loaded.keep_data(service, placement);
        }
        Ok(loaded)
    }

    /// For one service: the flags are about it.
    pub(crate) fn one(service: Service, args: &OneService, entry: Entry) -> Result<Self, Refused> {
        let mut loaded = Self::layered(&args.placement, entry)?;
        loaded.place(service, &args.placement);
        loaded.keep_data(service, &args.placement);
        if !args.discovery.is_empty() {
            loaded.settings.cluster.discovery.clone_from(&args.discovery);
            loaded.layers.note(key("cluster", "discovery"), Origin::Flag("--discovery"));
        }
        Ok(loaded)
    }

    fn layered(placement: &Placement, entry: Entry) -> Result<Self, Refused> {
        let mut layers = Layers::new(&defaults());
        if let Some(file) = &placement.config {
            layers.file(file)?;
        }
        layers.environment(variables()?)?;
        let mut settings: Settings = layers.settings()?;
        if entry.anonymous {
            settings.gateway.anonymous = true;
            layers.note(key("gateway", "anonymous"), Origin::Flag("--anonymous"));
        }
        Ok(Self { settings, layers })
    }

    fn place(&mut self, service: Service, placement: &Placement) {
        let listen = service.listen(&mut self.settings);
        if let Some(ip) = placement.listen {
            listen.set_ip(ip);
            self.layers.note(key(service.name(), "listen"), Origin::Flag("--listen"));
        }
        if let Some(port) = placement.port {
            listen.set_port(port);
            self.layers.note(key(service.name(), "listen"), Origin::Flag("--port"));
        }
    }

    fn keep_data(&mut self, service: Service, placement: &Placement) {
        let Some(database) = service.database(&mut self.settings) else { return };
        let origin = match (&placement.data, &placement.database) {
            (Some(folder), _) => {
                *database = DatabaseUrl::sqlite(folder.join(format!("{}.db", service.name())));
                "--data"
            }
            (None, Some(url)) => {
                *database = url.for_service(service.name());
                "--database"
            }
            (None, None) => return,
        };
        self.layers.note(key(service.name(), "database"), Origin::Flag(origin));
    }

    /// The effective configuration as TOML, each value with its origin; secrets are masked.
    pub(crate) fn describe(&self) -> String {
        let Ok(Value::Table(sections)) = Value::try_from(&self.settings) else {
            unreachable!("settings are a TOML table")
        };
        let mut text = String::new();
        for (name, _) in SECTIONS {
            if let Some(Value::Table(section)) = sections.get(name) {
                text += if text.is_empty() { "" } else { "\n" };
                self.describe_table(section, &mut vec![name.to_owned()], &mut text);
            }
        }
        text
    }

    fn describe_table(&self, table: &Table, path: &mut Vec<String>, text: &mut String) {
        let _ = writeln!(text, "[{}]", path.join("."));
        let (tables, values): (Vec<_>, Vec<_>) = table.iter().partition(|(_, value)| value.is_table());
        for (name, value) in values {
            path.push(name.clone());
            let line = format!("{name} = {value}");
            let _ = match self.layers.origin(path) {
                Origin::Default => writeln!(text, "{line}"),
                origin => writeln!(text, "{line:<48} # {origin}"),
            };
            path.pop();
        }
        for (name, value) in tables {
            path.push(name.clone());
            text.push('\n');
            self.describe_table(value.as_table().expect("partitioned above"), path, text);
            path.pop();
        }
    }
}

fn variables() -> Result<Vec<(String, String)>, Refused> {
    let ours = std::env::vars_os().filter_map(|(name, text)| Some((name.into_string().ok()?, text)));
    ours.filter(|(name, _)| name.starts_with("NOTIFYX_"))
        .map(|(name, text)| match text.into_string() {
            Ok(text) => Ok((name, text)),
            Err(_) => Err(Refused::Syntax { origin: Origin::Environment(name), why: "is not UTF-8".into() }),
        })
        .collect()
}

fn key(section: &str, name: &str) -> Vec<String> {
    vec![section.to_owned(), name.to_owned()]
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::base_url::BaseUrl;

    fn address(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn up(placement: &Placement) -> Loaded {
        Loaded::up(placement, Entry::default()).unwrap()
    }

    #[test]
    fn nobody_comes_in_without_credentials_unless_it_is_asked_for() {
        assert!(!up(&Placement::default()).settings.gateway.anonymous);
        let open = Loaded::up(&Placement::default(), Entry { anonymous: true }).unwrap();
        assert!(open.settings.gateway.anonymous);
        assert!(open.describe().contains("# --anonymous"), "{}", open.describe());
    }

    #[test]
    fn the_printed_defaults_are_the_defaults() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("notifyx.toml");
        std::fs::write(&file, defaults()).unwrap();
        let mut printed = Layers::<Settings>::new(&defaults());
        printed.file(&file).unwrap();
        let settings = printed.settings().unwrap();
        assert_eq!(settings.gateway.listen, notifyx_gateway::Config::default().listen);
        assert_eq!(settings.cluster.secret.set().map(|_| ()), None);
    }

    #[test]
    fn port_0_is_every_port_and_another_is_the_gateways() {
        let placed = |port| up(&Placement { port: Some(port), ..Placement::default() }).settings;
        let all = placed(0);
        for listen in [
            all.gateway.listen,
            all.auth.listen,
            all.persist.listen,
            all.counter_2pc.listen,
            all.events.listen,
            all.discovery.listen,
        ] {
            assert_eq!(listen, address("127.0.0.1:0"));
        }
        let one = placed(4444);
        assert_eq!(one.gateway.listen, address("127.0.0.1:4444"));
        assert_eq!(one.auth.listen, address("127.0.0.1:5000"));
    }

    #[test]
    fn data_and_database_place_every_store() {
        let data = Placement { data: Some("/tmp/d".into()), ..Placement::default() };
        let loaded = up(&data);
        assert_eq!(loaded.settings.auth.database.to_string(), "sqlite:/tmp/d/auth.db");
        assert!(loaded.describe().contains("# --data"), "{}", loaded.describe());
        let url = DatabaseUrl::parse("postgres://me:s3cret@db/n").unwrap();
        let loaded = up(&Placement { database: Some(url), ..Placement::default() });
        assert_eq!(loaded.settings.persist.database.to_string(), "postgres://me:********@db/n_persist");
        assert!(!loaded.describe().contains("s3cret"));
    }

    #[test]
    fn one_service_takes_the_flags_for_itself() {
        let placement = Placement { port: Some(5555), listen: Some([0, 0, 0, 0].into()), ..Placement::default() };
        let discovery = vec![BaseUrl::parse("http://registry:8000").unwrap()];
        let loaded = Loaded::one(Service::Auth, &OneService { placement, discovery }, Entry::default()).unwrap();
        assert_eq!(loaded.settings.auth.listen, address("0.0.0.0:5555"));
        assert_eq!(loaded.settings.gateway.listen, address("127.0.0.1:4000"));
        assert_eq!(loaded.settings.cluster.discovery[0].as_str(), "http://registry:8000");
    }
}

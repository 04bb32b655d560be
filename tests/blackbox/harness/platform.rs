//! A running platform, in one of its two forms: everything in one process, or each service in its own.

use std::{
    collections::BTreeMap,
    fmt,
    ops::Deref,
    path::PathBuf,
    process::Command,
    sync::OnceLock,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use notifyx_database::testing::{Server, fixed_port};
use reqwest::Method;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::OnceCell;

use super::{
    Api, Person,
    process::{Process, notifyx},
    try_send, unique,
};

/// A start on a machine that runs all tests at once, migrations of six new databases included.
const START_WITHIN: Duration = Duration::from_secs(120);

/// Those whose doors speak HTTP and take tokens.
pub(crate) const SERVICES: [&str; 5] = ["discovery", "auth", "persist", "counter-2pc", "gateway"];

/// All that can be started alone.
const ROLES: [&str; 6] = ["discovery", "auth", "persist", "counter-2pc", "events", "gateway"];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// `notifyx up` on SQLite.
    Up,
    /// A process per service, two of persist, on Postgres.
    Separate,
}

pub(crate) struct Platform {
    pub(crate) form: Form,
    /// What a service shows to prove that it is one.
    pub(crate) secret: String,
    /// (service, process) → where it listens.
    addresses: BTreeMap<(String, String), String>,
    /// Every process, under the name of the instance: `up`, `gateway`, `persist-1`, `persist-2`, …
    processes: BTreeMap<String, Process>,
    plan: Plan,
}

/// What is needed to start a process of it again.
struct Plan {
    /// A fixed port for the gateway, where a test restarts it.
    port: u16,
    /// A fixed port for every process that may be started again, so that the others find it where it was.
    ports: BTreeMap<String, u16>,
    /// For every process.
    variables: Vec<(String, String)>,
    place: Place,
}

enum Place {
    Folder(TempDir),
    Database(String),
}

/// How a platform of a test's own differs from the shared one.
#[derive(Default)]
pub(crate) struct Options {
    pub(crate) port: u16,
    pub(crate) timing: Timing,
    /// Further variables for every process.
    pub(crate) variables: Vec<(&'static str, &'static str)>,
    /// The processes where they are not the usual ones. Discovery comes first.
    pub(crate) processes: &'static [&'static str],
    /// A PostgreSQL server of the test's own: `postgres://…` without a database.
    pub(crate) server: Option<String>,
}

/// How long a publish may take before the platform gives it up. Tests say what comes of it, not that it is quick: that is measured in
/// `bench/`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Timing {
    /// A publish waits for a slow machine instead of being answered 202 or 503. Nothing dies here in the middle of one.
    #[default]
    Patient,
    /// The same where gateways die: recovery waits for the lease of whoever died, and a longer one would only make the test longer.
    ShortLease,
    /// As it is delivered.
    Protocol,
}

impl Timing {
    fn variables(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Patient => &[
                ("NOTIFYX_GATEWAY__COMMIT__ANSWER_WITHIN_MS", "30000"),
                ("NOTIFYX_GATEWAY__COMMIT__PREPARE_TIMEOUT_MS", "10000"),
                ("NOTIFYX_GATEWAY__COMMIT__DEADLINE_MS", "20000"),
                ("NOTIFYX_GATEWAY__COMMIT__LEASE_MS", "25000"),
                ("NOTIFYX_GATEWAY__COMMIT__APPLY_TIMEOUT_MS", "10000"),
                ("NOTIFYX_GATEWAY__COMMIT__STORE_TIMEOUT_MS", "10000"),
                ("NOTIFYX_GATEWAY__MESH__CALL_MS", "10000"),
                ("NOTIFYX_AUTH__HASHING_WAIT_MS", "4500"),
            ],
            Self::ShortLease => &[
                ("NOTIFYX_GATEWAY__COMMIT__ANSWER_WITHIN_MS", "30000"),
                ("NOTIFYX_GATEWAY__COMMIT__PREPARE_TIMEOUT_MS", "2000"),
                ("NOTIFYX_GATEWAY__COMMIT__DEADLINE_MS", "4000"),
                ("NOTIFYX_GATEWAY__COMMIT__LEASE_MS", "4500"),
                ("NOTIFYX_GATEWAY__COMMIT__APPLY_TIMEOUT_MS", "10000"),
                ("NOTIFYX_GATEWAY__COMMIT__STORE_TIMEOUT_MS", "10000"),
                ("NOTIFYX_GATEWAY__MESH__CALL_MS", "10000"),
                ("NOTIFYX_AUTH__HASHING_WAIT_MS", "4500"),
            ],
            Self::Protocol => &[],
        }
    }
}

/// The processes of [`Form::Separate`], discovery first.
const PROCESSES: [&str; 7] = ["discovery", "auth", "persist-1", "persist-2", "counter-2pc", "events", "gateway"];

impl Platform {
    /// One of the test's own: to be stopped, killed, started again.
    pub(crate) async fn start(form: Form) -> Self {
        Self::start_with(form, Options::default()).await
    }

    pub(crate) async fn start_with(form: Form, options: Options) -> Self {
        let place = match form {
            Form::Up => Place::Folder(TempDir::with_prefix("notifyx-up-").expect("a temporary folder")),
            Form::Separate => {
                let server = options.server.unwrap_or_else(|| postgres().base.clone());
                Place::Database(format!("{server}/{}", unique("blackbox").replace('-', "_")))
            }
        };
        let usual = form == Form::Separate && options.processes.is_empty();
        let processes = if usual { &PROCESSES } else { options.processes };
        let variables = options.timing.variables().iter().chain(&options.variables);
        let variables = variables.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let ports = processes.iter().map(|name| ((*name).to_owned(), fixed_port())).collect();
        let plan = Plan { port: options.port, ports, variables, place };
        let secret = unique("the-secret-of-a-cluster-of-tests");
        let mut platform = Self { form, secret, addresses: BTreeMap::new(), processes: BTreeMap::new(), plan };
        match form {
            Form::Up => platform.start_process("up").await,
            Form::Separate => {
                let (discovery, others) = processes.split_first().expect("a platform has processes");
                platform.start_process(discovery).await;
                for name in others {
                    platform.launch(name);
                }
                for name in others {
                    platform.started(name).await;
                }
            }
        }
        platform.ready().await;
        platform
    }

    /// The one that all tests of a form share; names in it are made unique by [`unique`].
    pub(crate) async fn shared(form: Form) -> Shared {
        static UP: OnceCell<Platform> = OnceCell::const_new();
        static SEPARATE: OnceCell<Platform> = OnceCell::const_new();
        let cell = match form {
            Form::Up => &UP,
            Form::Separate => &SEPARATE,
        };
        Shared(cell.get_or_init(|| Self::start(form)).await)
    }

    /// Starts one process, for the first time or again, and waits until it says that it is ready.
    pub(crate) async fn start_process(&mut self, name: &str) {
        self.launch(name);
        self.started(name).await;
    }

    fn launch(&mut self, name: &str) {
        let folder = match &self.plan.place {
            Place::Folder(folder) => Some(folder.path().to_owned()),
            Place::Database(_) => None,
        };
        let process = Process::spawn(name, &mut self.command(name), folder.as_deref());
        self.processes.insert(name.to_owned(), process);
    }

    /// Reads `{"event":"ready","gateway":"127.0.0.1:4000",…}`.
    async fn started(&mut self, name: &str) {
        let process = self.processes.get_mut(name).expect("it was launched");
        let Some(line) = process.line(START_WITHIN).await else {
            panic!("{name} ended instead of starting\n{}", process.log())
        };
        let ready: BTreeMap<String, Value> = serde_json::from_str(&line).expect("one JSON object per line");
        assert_eq!(ready["event"], "ready", "{line}");
        for (service, address) in ready.iter().filter(|(key, _)| *key != "event") {
            let address = address.as_str().expect("host:port").to_owned();
            self.addresses.insert((service.clone(), name.to_owned()), address);
        }
    }

    /// Waits until the platform does its work, as far as it can be seen from outside.
    pub(crate) async fn ready(&self) {
        let deadline = Instant::now() + START_WITHIN;
        while let Err(lacking) = self.lacking().await {
            assert!(Instant::now() < deadline, "not ready after {START_WITHIN:?}: {lacking}\n{self}");
            // A pause between questions, not a wait for something known to take this long.
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }

    /// Every service says that it is ready; every gateway has found every instance of events, which is no condition of its being ready; one of
    /// these drives the schedule.
    async fn lacking(&self) -> Result<(), String> {
        for ((service, process), address) in &self.addresses {
            let ready = try_send(Api::new(address).request(Method::GET, "/ready")).await;
            let ready = ready.map_err(|error| format!("{process}: {error}"))?;
            if ready.status != 200 {
                return Err(format!("{service} of {process}: {}", ready.text));
            }
        }
        let events = self.instances("events");
        for gateway in self.instances("gateway") {
            let watched = figure(gateway, "notifyx_gateway_watch_streams").await;
            if watched != Some(events.len() as u64) {
                return Err(format!("the gateway at {gateway} watches {watched:?} of {} instances", events.len()));
            }
        }
        let driving = join_all(events.iter().map(|address| figure(address, "notifyx_events_lease_held"))).await;
        if !events.is_empty() && !driving.contains(&Some(1)) {
            return Err("nobody drives the schedule".to_owned());
        }
        Ok(())
    }

    /// The command line of an instance: `up`, or a service's name with an optional number.
    pub(crate) fn command(&self, name: &str) -> Command {
        let service = ROLES.into_iter().find(|role| name.starts_with(role)).unwrap_or(name);
        let mut command = notifyx();
        command.arg(service).arg("--json").env("NOTIFYX_CLUSTER__SECRET", &self.secret);
        // `--port N` places the gateway; the others keep out of each other's way.
        for inner in ROLES {
            command.env(format!("NOTIFYX_{}__LISTEN", inner.replace('-', "_").to_uppercase()), "127.0.0.1:0");
        }
        if let Some(port) = self.plan.ports.get(name) {
            command.args(["--port", &port.to_string()]);
        } else if matches!(service, "up" | "gateway") && self.plan.port != 0 {
            command.args(["--port", &self.plan.port.to_string()]);
        }
        match &self.plan.place {
            Place::Folder(folder) => command.arg("--data").arg(folder.path()),
            Place::Database(url) => command.args(["--database", url]),
        };
        if let (Form::Separate, Some(registry)) = (self.form, self.instances("discovery").first()) {
            command.args(["--discovery", &format!("http://{registry}")]);
        }
        command.envs(self.plan.variables.iter().cloned()).current_dir(std::env::temp_dir());
        command
    }

    pub(crate) fn process(&mut self, name: &str) -> &mut Process {
        self.processes.get_mut(name).unwrap_or_else(|| panic!("no process {name}"))
    }

    /// Hands a process over to someone who stops and starts it, by its [`Platform::command`].
    pub(crate) fn hand_over(&mut self, name: &str) -> Process {
        self.processes.remove(name).unwrap_or_else(|| panic!("no process {name}"))
    }

    /// The process of the gateway, whatever else is in it.
    pub(crate) fn front(&mut self) -> &mut Process {
        self.process(match self.form {
            Form::Up => "up",
            Form::Separate => "gateway",
        })
    }

    /// `127.0.0.1:4000`
    pub(crate) fn gateway(&self) -> &str {
        self.instances("gateway")[0]
    }

    /// Where the instances of a service listen.
    pub(crate) fn instances(&self, service: &str) -> Vec<&str> {
        let of_service = self.addresses.iter().filter(|((of, _), _)| of == service);
        of_service.map(|(_, address)| address.as_str()).collect()
    }

    /// The folder of the databases, where there is one.
    pub(crate) fn folder(&self) -> PathBuf {
        match &self.plan.place {
            Place::Folder(folder) => folder.path().to_owned(),
            Place::Database(url) => panic!("{url} is no folder"),
        }
    }

    /// The URL of a service's database on PostgreSQL.
    pub(crate) fn database(&self, service: &str) -> String {
        match &self.plan.place {
            Place::Folder(folder) => panic!("{} is no server", folder.path().display()),
            Place::Database(url) => format!("{url}_{}", service.replace('-', "_")),
        }
    }

    /// The front door, without credentials.
    pub(crate) fn anonymous(&self) -> Api {
        Api::new(self.gateway())
    }

    /// The door of the first instance of a service, without credentials.
    pub(crate) fn door(&self, service: &str) -> Api {
        Api::new(self.instances(service)[0])
    }

    /// The door of one process of several that are the same service.
    pub(crate) fn door_of(&self, process: &str) -> Api {
        let found = self.addresses.iter().find(|((_, name), _)| name == process);
        Api::new(found.unwrap_or_else(|| panic!("no process {process}")).1)
    }

    /// Someone new, registered and logged in.
    pub(crate) async fn person(&self, name: &str) -> Person {
        Person::register(self.anonymous(), name).await
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.processes.values().try_for_each(|process| f.write_str(&process.log()))
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{self}");
        }
    }
}

/// A borrowed platform that shows its logs when the borrower fails.
pub(crate) struct Shared(&'static Platform);

impl Deref for Shared {
    type Target = Platform;

    fn deref(&self) -> &Platform {
        self.0
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.0);
        }
    }
}

/// One PostgreSQL server for all; each platform has databases of its own in it.
fn postgres() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(Server::start)
}

/// A metric without labels, as a door tells it.
pub(crate) async fn figure(address: &str, name: &str) -> Option<u64> {
    let metrics = try_send(Api::new(address).request(Method::GET, "/metrics")).await.ok()?;
    let value = metrics.text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    value.parse().ok()
}

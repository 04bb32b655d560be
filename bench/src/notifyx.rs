//! The platform that is measured: a `notifyx up` of our own or a running one, and the accounts and topics in it.

use std::{
    ffi::OsStr,
    io::{BufRead, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use notifyx_model::{Clock, Email, NotificationId, Token};
use notifyx_wire::rest::{
    auth::{Credentials, LoggedIn, Registered},
    gateway::PublishRequest,
    persist::{NewTopic, Topic},
};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;

use crate::{
    error::Error,
    http::{Connection, Post},
    plain::on_core,
    process::Process,
};

/// Databases are created and migrated within it.
const START_TIMEOUT: Duration = Duration::from_secs(60);
/// Draining sockets and flushing batches is bounded by the platform itself; then it is killed.
const STOP_TIMEOUT: Duration = Duration::from_secs(15);
const PASSWORD: &str = "a password of the bench";

/// Where the platform is.
#[derive(Debug)]
pub(crate) struct Notifyx {
    pub(crate) gateway: SocketAddr,
    /// `None` for one that runs elsewhere: then its CPU and memory are not told.
    pub(crate) process: Option<Process>,
    /// The events service's own door, and the secret that opens it; of a platform that was started here.
    events: Option<(SocketAddr, String)>,
    /// Tells the accounts and topics of one run from those of another.
    run: String,
    /// Dropped first: it stops the process.
    _own: Option<Own>,
    _data: Option<TempDir>,
}

/// A person with a session.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    pub(crate) token: Token,
}

impl Notifyx {
    pub(crate) fn running(gateway: SocketAddr, process: Option<Process>) -> Self {
        Self { gateway, process, events: None, run: run_name(), _own: None, _data: None }
    }

    /// Starts `notifyx up` on free ports, with SQLite in an empty folder below `data` or with the Postgres databases of a URL.
    pub(crate) fn start(
        program: &Path,
        core: Option<usize>,
        data: Option<&Path>,
        database: Option<&str>,
    ) -> Result<Self, Error> {
        let folder = match data {
            Some(parent) => TempDir::with_prefix_in("notifyx-bench-", parent),
            None => TempDir::with_prefix("notifyx-bench-"),
        };
        let folder = folder.map_err(Error::io("making a folder for the data"))?;
        let secret = format!("{}{}", run_name(), run_name());
        let program: PathBuf = program.canonicalize().map_err(Error::io(program.display()))?;
        let mut child = on_core(core, &program)
            .args(["up", "--json", "--port", "0"])
            .args(match database {
                Some(url) => [OsStr::new("--database"), OsStr::new(url)],
                None => [OsStr::new("--data"), folder.path().as_os_str()],
            })
            .env("NOTIFYX_TELEMETRY__LOG", "warn")
            .env("NOTIFYX_CLUSTER__SECRET", &secret)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(Error::io(format!("starting {}", program.display())))?;
        let lines = child.stdout.take().map(BufReader::new);
        let pid = child.id();
        let own = Own(child);
        let (told, ready) = mpsc::channel();
        // Reads on after the first line, so that the server never waits for us to read.
        std::thread::spawn(move || {
            for line in lines.into_iter().flat_map(BufRead::lines).map_while(Result::ok) {
                let _ = told.send(line);
            }
        });
        let line = ready.recv_timeout(START_TIMEOUT);
        let line = line.map_err(|_| Error::failed(format!("{} did not get ready", program.display())))?;
        let ready: Option<Value> = serde_json::from_str(&line).ok();
        let address = |door: &str| ready.as_ref()?.get(door)?.as_str()?.parse().ok();
        let events = address("events").map(|events| (events, secret));
        let gateway = address("gateway");
        let gateway = gateway.ok_or_else(|| Error::failed(format!("`notifyx up` did not tell its address: {line}")))?;
        let process = Some(Process::of(pid));
        Ok(Self { gateway, process, events, run: run_name(), _own: Some(own), _data: Some(folder) })
    }

    /// Where the events service listens, and the cluster's secret.
    pub(crate) fn events(&self) -> Option<(SocketAddr, &str)> {
        self.events.as_ref().map(|(address, secret)| (*address, secret.as_str()))
    }

    /// Registers and logs in.
    pub(crate) async fn account(&self, name: &str) -> Result<Account, Error> {
        let mut connection = Connection::open(self.gateway).await?;
        let email = Email::parse(&format!("{name}.{}@bench.example", self.run)).map_err(Error::failed)?;
        let credentials = Credentials { email, password: PASSWORD.into() };
        let _: Registered = connection.call("/api/register_user", None, &credentials).await?;
        let session: LoggedIn = connection.call("/api/login", None, &credentials).await?;
        Ok(Account { token: session.token })
    }

    pub(crate) async fn topic(&self, creator: &Account, name: &str) -> Result<Topic, Error> {
        let name = format!("{name}-{}", self.run).parse().map_err(Error::failed)?;
        let mut connection = Connection::open(self.gateway).await?;
        connection.call("/api/topics", Some(creator.token.as_str()), &NewTopic { name, longevity: None }).await
    }

    pub(crate) async fn publisher(&self, account: &Account, topic: &Topic) -> Result<Publisher, Error> {
        Ok(Publisher {
            connection: Connection::open(self.gateway).await?,
            post: Post::new(self.gateway, "/api/notifications", "application/json", Some(account.token.as_str())),
            topic: topic.clone(),
        })
    }

    /// What the gateway counts, as Prometheus reads it.
    pub(crate) async fn metrics(&self) -> Result<String, Error> {
        let answer = Connection::open(self.gateway).await?.get("/metrics").await?;
        String::from_utf8(answer.body).map_err(Error::failed)
    }
}

/// One kept connection that publishes to one topic.
#[derive(Debug)]
pub(crate) struct Publisher {
    connection: Connection,
    post: Post,
    topic: Topic,
}

impl Publisher {
    /// Answers the status: 201 committed and applied, 202 decided, others as the gateway's API describes.
    pub(crate) async fn publish(&mut self, message: &str) -> Result<u16, Error> {
        let request = PublishRequest {
            topic: Some(self.topic.name.clone()),
            topic_id: None,
            message: message.to_owned().try_into().map_err(Error::failed)?,
            to: Vec::new(),
            priority: notifyx_model::Priority::default(),
            fire_at: None,
        };
        let body = serde_json::to_vec(&request).map_err(Error::failed)?;
        Ok(self.connection.post(&self.post, &body).await?.status)
    }
}

fn run_name() -> String {
    NotificationId::new(&Clock::system()).uuid().simple().to_string()
}

/// A child that is asked to stop, and made to if it does not.
#[derive(Debug)]
struct Own(Child);

impl Drop for Own {
    fn drop(&mut self) {
        let pid = i32::try_from(self.0.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            let _ = kill_process(pid, Signal::TERM);
        }
        let deadline = Instant::now() + STOP_TIMEOUT;
        while Instant::now() < deadline {
            match self.0.try_wait() {
                Ok(None) => std::thread::sleep(Duration::from_millis(20)),
                _ => return,
            }
        }
        eprintln!("notifyx did not stop within {} s and is killed", STOP_TIMEOUT.as_secs());
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
